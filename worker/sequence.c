/* A request on its way through the scheduler: see sequence.h. */
#include "worker/sequence.h"
#include "base/check.h"

#include <stdlib.h>
#include <string.h>

/* The arrays of r->shaping, and the constraint's text, behind what else a sequence has. */
static void copy_shaping(struct sequence *q, const struct request *r, char *at)
{
    struct shaping *s = &q->request.shaping;
    size_t biases = (size_t)r->shaping.bias_count * sizeof *s->bias;
    size_t ids = (size_t)r->shaping.stop_id_count * sizeof *s->stop_ids;
    s->bias = (const struct logit_bias *)(const void *)at;
    s->stop_ids = (const int32_t *)(const void *)(at + biases);
    if (biases > 0)
        memcpy(at, r->shaping.bias, biases);
    if (ids > 0)
        memcpy(at + biases, r->shaping.stop_ids, ids);
    if (r->constraint.text_len > 0)
        q->request.constraint.text = memcpy(at + biases + ids, r->constraint.text,
                                            r->constraint.text_len);
}

/* What was drawn and told elsewhere stands as if it had been here. */
static void take_answer(struct sequence *q, const struct request *r)
{
    if (r->answer_len > 0)
        memcpy(q->tokens + r->prompt_len, r->answer, (size_t)r->answer_len * sizeof *q->tokens);
    q->length = q->known = r->prompt_len + r->answer_len;
    q->request.answer = q->tokens + r->prompt_len;
    for (int32_t i = 0; i < r->answer_len && q->edits; i++)
        edits_drew(q->edits, r->answer[i]);
    if (q->all_rows) /* the row before a position tells of it */
        q->told = r->answer_len > 0 ? r->prompt_len : r->prompt_told > 0 ? r->prompt_told - 1 : 0;
}

enum status sequence_create(const struct request *r, const int32_t *ends, int32_t end_count,
                            struct sequence **out, struct error *err)
{
    size_t tokens = (size_t)r->prompt_len + (size_t)r->max_tokens;
    size_t blocks = (size_t)sequence_blocks((int64_t)tokens);
    size_t shaping = (size_t)r->shaping.bias_count * sizeof(struct logit_bias) +
                     (size_t)r->shaping.stop_id_count * sizeof(int32_t) + r->constraint.text_len;
    struct sequence *q = calloc(1, sizeof *q + (tokens + blocks) * sizeof(int32_t) + shaping);
    if (!q)
        return error_set(err, ERR_NO_MEMORY, "no memory for a request of %zu tokens", tokens);
    q->request = *r;
    q->all_rows = r->all_logits || r->prompt_logprobs > 0;
    q->needs_history = shaping_needs_history(&r->shaping) || r->constraint.kind != CONSTRAINT_NONE;
    constraint_start(&r->constraint, &q->form);
    q->thinks = r->thinking.count > 0;
    q->blocks = q->tokens + tokens;
    memcpy(q->tokens, r->prompt, (size_t)r->prompt_len * sizeof *q->tokens);
    q->request.prompt = q->tokens;
    copy_shaping(q, r, (char *)(q->blocks + blocks));
    enum status st = edits_create(&r->shaping, r->prompt, r->prompt_len, r->max_tokens, ends,
                                  r->ignore_eos ? 0 : end_count, &q->edits, err);
    if (st != OK) {
        free(q);
        return st;
    }
    take_answer(q, r);
    *out = q;
    return OK;
}

void sequence_destroy(struct sequence *q)
{
    edits_destroy(q->edits);
    free(q);
}

void sequence_check_shared(const struct sequence *a, const struct sequence *b)
{
    int32_t count = a->block_count < b->block_count ? a->block_count : b->block_count;
    for (int32_t j = 0; j < count; j++) {
        size_t bytes = (size_t)(j + 1) * KV_BLOCK * sizeof *a->tokens;
        if (a->blocks[j] == b->blocks[j])
            CHECK(a->request.prefix_domain == b->request.prefix_domain && j < a->kept_blocks &&
                      j < b->kept_blocks && memcmp(a->tokens, b->tokens, bytes) == 0,
                  "block %d is shared by what is not alike", a->blocks[j]);
    }
}
