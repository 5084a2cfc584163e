/*
 * What the doors (HTTP, gRPC) share: the model that is served, and generations: one sequence each,
 * from prompt ids to text. All on the loop thread.
 */
#ifndef WITAN_COORDINATOR_CORE_H
#define WITAN_COORDINATOR_CORE_H

#include "coordinator/auth.h"
#include "coordinator/config.h"
#include "coordinator/loop.h"
#include "coordinator/text/chat_text.h"
#include "partition/config.h"
#include "partition/manifest.h"
#include "partition/sampling.h"

struct members; /* the worker groups: members.h */

/* The model that is served. Immutable. */
struct served {
    const char *name;          /* config's */
    struct manifest *manifest; /* that all of it was proven by; NULL: none was asked for; owned */
    struct chat_text *text;
    struct model_config config;
    struct generation_config defaults;
    int32_t context; /* most tokens of a sequence, prompt and answer */
    int32_t vocab;   /* ids below this exist */
    int64_t created; /* unix time, for /v1/models */
};

struct core {
    const struct config *config;
    struct loop *loop;
    struct auth *auth; /* NULL: no keys demanded */
    struct served served;
    struct members *members;
    uint64_t epoch;   /* of this coordinator */
    uint64_t next_id; /* of requests */
    int32_t running;  /* generations alive; at most config->limits.requests */
    uint64_t done;
    int64_t started_ns;             /* monotonic */
    struct generation *table[4096]; /* by id: generation.c's */
};

/* Opens the model's manifest, where there is one, and loads config and words; nothing listens yet.
 * `config` is checked and stays the caller's. */
enum status core_create(const struct config *config, struct loop *loop, struct core **out,
                        struct error *err);
void core_destroy(struct core *core); /* after doors and members; NULL is fine */

/* --- generations --- */

enum part { PART_CONTENT, PART_REASONING };

enum generation_reason { GENERATION_STOP, GENERATION_LENGTH, GENERATION_FAILED };

struct generation_params {
    const int32_t *prompt; /* [prompt_len], copied */
    int32_t prompt_len;
    int32_t max_tokens; /* 0: up to the context; more than fits is cut to what fits */
    struct sampling sampling;
    bool ignore_eos;
    bool split_reasoning; /* tell PART_REASONING from PART_CONTENT; else all is content, tags too */
    bool in_reasoning;    /* the prompt ends inside a <think> block */
    const char *const
        *stop; /* [stop_count] strings, copied; the text ends before the first found */
    int32_t stop_count;
};

enum { GENERATION_MAX_STOPS = 16, GENERATION_MAX_STOP_BYTES = 1024 };

struct generation_end {
    uint64_t id; /* of the request, in this coordinator */
    enum generation_reason reason;
    struct error err; /* with GENERATION_FAILED: ERR_PEER the group was lost, ERR_CANCELLED time is
                         up, ERR_INVALID the model is broken */
    int32_t prompt_tokens;
    int32_t completion_tokens;
    int32_t reasoning_tokens;
    uint64_t seed;
};

/* What becomes of a generation; called on the loop thread, never inside generation_start. */
struct generation_sink {
    /* Text that is certain, whole characters, at most one call a part for each step. */
    void (*on_text)(void *user, enum part part, const char *text, size_t len);
    /* May be NULL. Ids drawn, before the text that they give; an end-of-sequence token included. */
    void (*on_ids)(void *user, const int32_t *ids, int32_t count);
    /* Exactly once, last; the handle is gone with it. */
    void (*on_end)(void *user, const struct generation_end *end);
};

struct generation;

/*
 * Starts one. ERR_INVALID: the parameters, naming the field as clients call it ("max_tokens",
 * "temperature", "stop"); ERR_LIMIT with "context" in err->msg's first words: the prompt does not
 * fit (generation_fits asks beforehand); ERR_NO_MEMORY: too many requests at once (429); ERR_PEER:
 * no group is ready (503).
 */
enum status generation_start(struct core *core, const struct generation_params *params,
                             const struct generation_sink *sink, void *user,
                             struct generation **out, struct error *err);

/* Ends it here and in its group, without on_end. Fine from a sink's callback of the same one, but
 * on_end. */
void generation_cancel(struct generation *g);

/* Does a prompt of this many tokens leave room for an answer? ERR_LIMIT says the numbers. */
enum status generation_fits(const struct core *core, int32_t prompt_len, struct error *err);

/* A random seed for a request that gives none. */
uint64_t core_draw_seed(void);

/* --- state, for health and status --- */

/* Is a group ready, proven by a forward pass over all its ranks in the last seconds? If not, `err`
 * says what is waited for or what failed. */
enum status core_ready(const struct core *core, struct error *err);

#endif
