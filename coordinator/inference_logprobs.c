/* Logprobs in gRPC messages: see inference_logprobs.h. */
#include "coordinator/inference_logprobs.h"
#include "base/check.h"

#include <stdlib.h>
#include <string.h>

struct delta_logprob {
    Witan__Inference__V1__TokenLogprobs message;
    int32_t ids[SAMPLING_MAX_LOGPROBS];
    float logprobs[SAMPLING_MAX_LOGPROBS];
};

void delta_logprobs_fini(struct delta_logprobs *d)
{
    free(d->items);
    free(d->pointers);
    *d = (struct delta_logprobs){0};
}

static void reserve(struct delta_logprobs *d, size_t count)
{
    size_t cap = d->cap ? d->cap : 16;
    if (count <= d->cap)
        return;
    while (cap < count)
        cap *= 2;
    struct delta_logprob *items = check_calloc(cap, sizeof *items);
    if (d->count > 0)
        memcpy(items, d->items, d->count * sizeof *items);
    free(d->items);
    free(d->pointers);
    d->items = items;
    d->pointers = check_calloc(cap, sizeof *d->pointers);
    d->cap = cap;
}

void delta_logprobs_add(struct delta_logprobs *d, const struct token_logprobs *logprobs,
                        int32_t count)
{
    reserve(d, d->count + (size_t)count);
    for (int32_t i = 0; i < count; i++) {
        const struct token_logprobs *l = &logprobs[i];
        struct delta_logprob *p = &d->items[d->count++];
        size_t top = l->count < SAMPLING_MAX_LOGPROBS ? (size_t)l->count : SAMPLING_MAX_LOGPROBS;
        witan__inference__v1__token_logprobs__init(&p->message);
        p->message.logprob = l->logprob;
        p->message.rank = l->rank;
        p->message.n_top_ids = p->message.n_top_logprobs = top;
        for (size_t k = 0; k < top; k++) {
            p->ids[k] = l->top_ids[k];
            p->logprobs[k] = l->top_logprobs[k];
        }
    }
}

Witan__Inference__V1__TokenLogprobs **delta_logprobs_message(struct delta_logprobs *d)
{
    for (size_t i = 0; i < d->count; i++) {
        d->items[i].message.top_ids = d->items[i].ids;
        d->items[i].message.top_logprobs = d->items[i].logprobs;
        d->pointers[i] = &d->items[i].message;
    }
    return d->pointers;
}

void delta_logprobs_clear(struct delta_logprobs *d)
{
    d->count = 0;
}
