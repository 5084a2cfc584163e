/* Prompts and conversations of `witan run`: text in, the group's answer streamed out. */
#ifndef WITAN_CLI_CHAT_H
#define WITAN_CLI_CHAT_H

#include "cli/group.h"
#include "coordinator/text/template.h"
#include "coordinator/text/tokenizer.h"

/* The checkpoint's tokenizer and template. */
struct chat_text {
    struct tokenizer *tokenizer;
    struct tokenizer_scratch *scratch;
    enum template_kind template;
    uint32_t think_open, think_close; /* ids of <think> and </think>; UINT32_MAX where absent */
};

struct chat_options {
    struct chat_text *text;
    const char *prompt; /* NULL: standard input */
    const char *system;
    bool no_think;
    bool raw;
    bool fixed_seed;    /* else each answer of a conversation draws with the next seed */
    int32_t max_tokens; /* 0: up to the context */
    struct sampling sampling;
};

/* A folder without a template gives TEMPLATE_COUNT, which chat_encode refuses. With `optional`, one
 * without tokenizer.json gives NULL: requests of token ids need none. */
enum status chat_text_load(const char *dir, bool optional, struct chat_text **out,
                           struct error *err);
void chat_text_destroy(struct chat_text *t);

/* Ids below this exist; a model's padding is never drawn. 0 for NULL. */
int32_t chat_vocab(const struct chat_text *t);

/* Messages (JSON array) to the ids of a prompt that asks for an answer. *thinking: it ends inside a
 * <think> block. */
enum status chat_encode(const struct chat_text *t, const json_t *messages, bool no_think,
                        struct token_ids *ids, bool *thinking, struct error *err);

/* group_fn: answers the prompt, or standard input, or a terminal until its end. arg: chat_options.
 */
enum status chat_run(struct engine *e, struct model *m, void *arg, struct error *err);

#endif
