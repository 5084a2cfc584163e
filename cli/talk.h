/*
 * A conversation with a coordinator, as `witan chat` has it: the turns so far, how the next answer
 * is drawn, and what the last ones took. One thread.
 */
#ifndef WITAN_CLI_TALK_H
#define WITAN_CLI_TALK_H

#include "cli/client.h"
#include "proto/inference.pb-c.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>

enum { TALK_MAX_TEXT_BYTES = 16 << 20, TALK_MAX_TURNS = 4096 };

/* What answers have told at their ends. */
struct talk_usage {
    uint64_t answers, prompt_tokens, cached_tokens, completion_tokens;
    double seconds;
};

struct talk {
    struct client *client; /* the caller's */
    bool no_think;
    int32_t max_tokens; /* 0: up to the context */
    Witan__Inference__V1__Sampling sampling;
    Witan__Inference__V1__Float temperature, top_p, min_p, repetition, presence, frequency;
    Witan__Inference__V1__Int top_k;
    Witan__Inference__V1__Seed seed;
    char *system; /* owned; NULL: none. It is the first turn, too. */
    Witan__Inference__V1__Message *turns[TALK_MAX_TURNS]; /* each and its texts owned */
    size_t turn_count;
    struct talk_usage last, all;
    uint64_t last_seed;
};

/* Not 0: the answer under way is to end. Signals' handlers set it. */
extern volatile sig_atomic_t talk_interrupted;

/* --- talk.c --- */

void talk_init(struct talk *t);
void talk_fini(struct talk *t);

/* Forgets the turns but for the system message. */
void talk_begin(struct talk *t);
/* Another system message, at once; NULL: none. */
void talk_system(struct talk *t, const char *text);

/* ERR_LIMIT: there are too many. */
enum status talk_add(struct talk *t, const char *role, const char *text, struct error *err);
/* Takes the last question and what came after it away. False: there is none. */
bool talk_undo(struct talk *t);
/* The last question; NULL: there is none. */
const char *talk_question(const struct talk *t);

/* Asks, and shows the answer as it comes; both join the conversation, unless the question was
 * refused. ERR_CANCELLED: it was interrupted; what had come by then has joined, too. */
enum status talk_ask(struct talk *t, const char *text, struct error *err);
/* Asks the last question again; the answer that it had is back where that fails. */
enum status talk_retry(struct talk *t, struct error *err);

/* --- talk_settings.c --- */

/* Names of settings: "temperature", ... NULL ends them. */
extern const char *const talk_settings[];

/* "default" undoes it. False: `name` is none of them. ERR_INVALID in *st: not a value of its kind.
 */
bool talk_set(struct talk *t, const char *name, const char *value, enum status *st,
              struct error *err);
/* A line each of those that are set, and of the others. */
void talk_show_settings(const struct talk *t, FILE *f);

/* --- talk_file.c --- */

/* Writes the turns as {"messages": [{"role", "content"}]}, for the owner alone. A file that is
 * there must be such a one, too. */
enum status talk_save(const struct talk *t, const char *path, struct error *err);
/* Takes them in place of those that are there, which stay where the file is refused. */
enum status talk_load(struct talk *t, const char *path, struct error *err);

#endif
