/* A checkpoint's words: see chat_text.h. */
#include "coordinator/text/chat_text.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

/* Text can be continued without a template: only one that cannot be read is an error. */
static enum status detect(struct chat_text *t, const char *dir, const struct manifest *manifest,
                          struct error *err)
{
    t->template = TEMPLATE_COUNT;
    enum status st = template_detect_proven(dir, manifest, &t->template, err);
    if (st == OK || st == ERR_NOT_FOUND)
        return OK;
    if (st != ERR_UNSUPPORTED)
        return st;
    t->template_unknown = true;
    log_warn("%.*s: text can be continued, conversations are refused", (int)strcspn(err->msg, ";"),
             err->msg);
    return OK;
}

static enum status load(struct chat_text *t, const char *dir, const struct manifest *manifest,
                        struct error *err)
{
    t->think_open = t->think_close = UINT32_MAX;
    TRY(tokenizer_load_proven(dir, manifest, &t->tokenizer, err));
    TRY(tokenizer_scratch_create(t->tokenizer, &t->scratch, err));
    TRY(detect(t, dir, manifest, err));
    tokenizer_id_of_token(t->tokenizer, "<think>", 7, &t->think_open, NULL);
    tokenizer_id_of_token(t->tokenizer, "</think>", 8, &t->think_close, NULL);
    return OK;
}

enum status chat_text_load(const char *dir, bool optional, struct chat_text **out,
                           struct error *err)
{
    return chat_text_load_proven(dir, NULL, optional, out, err);
}

enum status chat_text_load_proven(const char *dir, const struct manifest *manifest, bool optional,
                                  struct chat_text **out, struct error *err)
{
    *out = NULL;
    struct chat_text *t = calloc(1, sizeof *t);
    if (!t)
        return error_set(err, ERR_NO_MEMORY, "no memory for the tokenizer");
    enum status st = load(t, dir, manifest, err);
    if (st == OK) {
        *out = t;
        return OK;
    }
    bool absent = st == ERR_NOT_FOUND && !t->tokenizer;
    chat_text_destroy(t);
    return absent && optional ? OK : st;
}

void chat_text_destroy(struct chat_text *t)
{
    if (!t)
        return;
    tokenizer_scratch_destroy(t->scratch);
    tokenizer_destroy(t->tokenizer);
    free(t);
}

int32_t chat_vocab(const struct chat_text *t)
{
    return t ? (int32_t)tokenizer_vocab_size(t->tokenizer) : 0;
}

enum status chat_encode(const struct chat_text *t, const json_t *messages, const json_t *tools,
                        const json_t *kwargs, struct token_ids *ids, bool *thinking,
                        struct error *err)
{
    json_t *normal = NULL;
    if (t->template == TEMPLATE_COUNT)
        return error_set(err, ERR_UNSUPPORTED,
                         "the checkpoint has %s: text can be continued, conversations cannot",
                         t->template_unknown ? "a chat template that is not known here"
                                             : "no chat template");
    if (tools && t->template == TEMPLATE_QWEN3GUARD_GEN)
        return error_set(err, ERR_UNSUPPORTED,
                         "tools: not supported (the chat template of this model, %s, has none)",
                         template_name(t->template));
    TRY(template_normalise(messages, &normal, err));
    json_t *all = json_pack("{s:b}", "add_generation_prompt", 1);
    if (kwargs)
        json_object_update(all, (json_t *)kwargs);
    struct template_rendered r;
    enum status st = template_render(t->template, normal, tools, all, TEMPLATE_LIMIT_BYTES, &r,
                                     err);
    json_decref(all);
    json_decref(normal);
    TRY(st);
    *thinking = template_prompt_ends_in_reasoning(&r);
    st = tokenizer_encode_spans(t->tokenizer, t->scratch, r.text, r.len, r.spans, r.span_count, ids,
                                err);
    template_rendered_fini(&r);
    return st;
}
