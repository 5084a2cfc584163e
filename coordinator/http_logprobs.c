/* Prompts echoed, and logprobs with bytes: see http_logprobs.h. */
#include "coordinator/http_logprobs.h"

#include <string.h>

static enum status token_of(const struct core *core, int32_t id, float logprob, int32_t rank,
                            struct openai_token *out, struct error *err)
{
    *out = (struct openai_token){.id = id, .logprob = logprob, .rank = rank};
    return tokenizer_token_bytes(core->served.text->tokenizer, (uint32_t)id, &out->bytes, &out->len,
                                 err);
}

enum status told_logprob(const struct core *core, int32_t id, const struct token_logprobs *l,
                         int32_t top, struct openai_logprob *out, struct error *err)
{
    out->top_count = l->count < top ? l->count : top;
    TRY(token_of(core, id, l->logprob, l->rank, &out->token, err));
    for (int32_t i = 0; i < out->top_count; i++)
        TRY(token_of(core, l->top_ids[i], l->top_logprobs[i], i + 1, &out->top[i], err));
    return OK;
}

static int64_t count_chars(const struct buf *b)
{
    int64_t n = 0;
    for (size_t i = 0; i < b->len; i++)
        n += ((unsigned char)b->data[i] & 0xc0) != 0x80;
    return n;
}

/* The token at `position` of an echoed prompt; the first has no logprob. */
static enum status add_echoed(struct told_prompt *p, int32_t position, struct openai_logprob *t,
                              struct error *err)
{
    t->top_count = t->top_count < p->echo_top ? t->top_count : p->echo_top;
    TRY(openai_logprobs_add_text(&p->echoed, t, position > 0, p->piece_chars, err));
    buf_clear(&p->piece);
    TRY(detok_push(&p->detok, p->ids.data[position], &p->piece, err));
    p->piece_chars += count_chars(&p->piece);
    return OK;
}

static enum status add(struct told_prompt *p, int32_t position, const struct token_logprobs *l,
                       struct error *err)
{
    struct openai_logprob t;
    int32_t top = p->wanted - 1;
    TRY(told_logprob(p->core, (int32_t)p->ids.data[position], l, top, &t, err));
    int32_t listed = t.top_count;
    if (p->own_top >= 0) {
        t.top_count = listed < p->own_top ? listed : p->own_top;
        TRY(openai_prompt_logprobs_add(&p->own, &t, position > 0, err));
        t.top_count = listed;
    }
    return p->echo_top >= 0 ? add_echoed(p, position, &t, err) : OK;
}

enum status told_prompt_begin(struct told_prompt *p, struct error *err)
{
    const struct token_logprobs none = {0};
    const struct tokenizer *tokenizer = p->core->served.text->tokenizer;
    if (p->echo)
        TRY(tokenizer_decode(tokenizer, p->ids.data, p->ids.len, false, &p->text, err));
    p->chars = count_chars(&p->text);
    detok_init(&p->detok, tokenizer, false);
    return p->wanted > 0 && p->ids.len > 0 ? add(p, 0, &none, err) : OK;
}

void told_prompt_init(struct told_prompt *p, const struct core *core,
                      const struct openai_request *r, struct token_ids *ids)
{
    int32_t echoed = r->echo ? r->logprobs : 0;
    *p = (struct told_prompt){
        .core = core,
        .ids = *ids,
        .echo = r->echo,
        .echo_top = echoed - 1,
        .own_top = r->prompt_logprobs - 1,
        .wanted = echoed > r->prompt_logprobs ? echoed : r->prompt_logprobs,
    };
    token_ids_init(ids, ids->limit);
    buf_init(&p->text, HTTP_MAX_TEXT_BYTES);
    buf_init(&p->own, HTTP_MAX_TEXT_BYTES);
    buf_init(&p->piece, HTTP_MAX_TEXT_BYTES);
    openai_logprobs_init(&p->echoed, false, p->echo_top > 0, HTTP_MAX_TEXT_BYTES);
}

void told_prompt_fini(struct told_prompt *p)
{
    token_ids_fini(&p->ids);
    buf_fini(&p->text);
    buf_fini(&p->own);
    buf_fini(&p->piece);
    openai_logprobs_fini(&p->echoed);
}

enum status told_prompt_take(struct told_prompt *p, int32_t position,
                             const struct token_logprobs *logprobs, int32_t count,
                             struct error *err)
{
    for (int32_t i = 0; i < count; i++)
        TRY(add(p, position + i, &logprobs[i], err));
    return OK;
}
