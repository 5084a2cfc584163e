/*
 * The words of a checkpoint: its tokenizer and chat template together, a conversation to the ids of
 * a prompt. One thread at a time (the scratch).
 */
#ifndef WITAN_COORDINATOR_TEXT_CHAT_TEXT_H
#define WITAN_COORDINATOR_TEXT_CHAT_TEXT_H

#include "coordinator/text/template.h"
#include "coordinator/text/tokenizer.h"

/* The checkpoint's tokenizer and template. */
struct chat_text {
    struct tokenizer *tokenizer;
    struct tokenizer_scratch *scratch;
    enum template_kind template;      /* TEMPLATE_COUNT: none that is known */
    bool template_unknown;            /* there is one */
    uint32_t think_open, think_close; /* ids of <think> and </think>; UINT32_MAX where absent */
};

/* A folder without a template, or with another than those of template.h (said in one warning), has
 * no chat, which chat_encode refuses; text and token ids need none. With `optional`, a folder
 * without a tokenizer gives NULL: requests of token ids need none. */
enum status chat_text_load(const char *dir, bool optional, struct chat_text **out,
                           struct error *err);
/* The same with a manifest of the folder (NULL: none): what is read must be as it says. */
enum status chat_text_load_proven(const char *dir, const struct manifest *manifest, bool optional,
                                  struct chat_text **out, struct error *err);
void chat_text_destroy(struct chat_text *t);

/* Ids below this exist; a model's padding is never drawn. 0 for NULL. */
int32_t chat_vocab(const struct chat_text *t);

/* Messages (JSON array) to the ids of a prompt that asks for an answer, appended. `tools` and
 * `kwargs` (may be NULL): for the template, as template_render takes them. *thinking: the prompt
 * ends inside a <think> block. ERR_UNSUPPORTED: there is no template, or it knows no tools. */
enum status chat_encode(const struct chat_text *t, const json_t *messages, const json_t *tools,
                        const json_t *kwargs, struct token_ids *ids, bool *thinking,
                        struct error *err);

#endif
