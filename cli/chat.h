/* Prompts and conversations of `witan run`: text in, the group's answer streamed out. */
#ifndef WITAN_CLI_CHAT_H
#define WITAN_CLI_CHAT_H

#include "cli/group.h"
#include "coordinator/text/chat_text.h"

struct chat_options {
    struct chat_text *text;
    const char *prompt; /* NULL: standard input */
    const char *system;
    bool no_think;
    bool raw;
    bool fixed_seed;    /* else each answer of a conversation draws with the next seed */
    int32_t max_tokens; /* 0: up to the context */
    struct sampling sampling;
    struct shaping shaping;
};

/* group_fn: answers the prompt, or standard input, or a terminal until its end. arg: chat_options.
 */
enum status chat_run(struct engine *e, struct model *m, void *arg, struct error *err);

#endif
