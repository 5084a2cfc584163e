/* A checkpoint's words: see chat_text.h. */
#include "coordinator/text/chat_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum status chat_text_load(const char *dir, bool optional, struct chat_text **out,
                           struct error *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    *out = NULL;
    if (optional && access(path, F_OK) != 0)
        return OK;
    struct chat_text *t = calloc(1, sizeof *t);
    if (!t)
        return error_set(err, ERR_NO_MEMORY, "no memory for the tokenizer");
    t->think_open = t->think_close = UINT32_MAX;
    enum status st = tokenizer_load(dir, &t->tokenizer, err);
    if (st == OK)
        st = tokenizer_scratch_create(t->tokenizer, &t->scratch, err);
    t->template = TEMPLATE_COUNT;
    if (st == OK && template_detect(dir, &t->template, err) == ERR_NOT_FOUND)
        t->template = TEMPLATE_COUNT;
    else if (st == OK && t->template == TEMPLATE_COUNT)
        st = err->code;
    if (st != OK) {
        chat_text_destroy(t);
        return st;
    }
    tokenizer_id_of_token(t->tokenizer, "<think>", 7, &t->think_open, NULL);
    tokenizer_id_of_token(t->tokenizer, "</think>", 8, &t->think_close, NULL);
    *out = t;
    return OK;
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

enum status chat_encode(const struct chat_text *t, const json_t *messages, const json_t *kwargs,
                        struct token_ids *ids, bool *thinking, struct error *err)
{
    json_t *normal = NULL;
    if (t->template == TEMPLATE_COUNT)
        return error_set(err, ERR_NOT_FOUND, "the checkpoint has no chat template");
    TRY(template_normalise(messages, &normal, err));
    json_t *all = json_pack("{s:b}", "add_generation_prompt", 1);
    if (kwargs)
        json_object_update(all, (json_t *)kwargs);
    struct template_rendered r;
    enum status st = template_render(t->template, normal, NULL, all, TEMPLATE_LIMIT_BYTES, &r, err);
    json_decref(all);
    json_decref(normal);
    TRY(st);
    *thinking = template_prompt_ends_in_reasoning(&r);
    st = tokenizer_encode_spans(t->tokenizer, t->scratch, r.text, r.len, r.spans, r.span_count, ids,
                                err);
    template_rendered_fini(&r);
    return st;
}
