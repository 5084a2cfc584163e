/* What a group has said, kept: see drawn.h. */
#include "coordinator/drawn.h"
#include "base/check.h"

#include <stdlib.h>
#include <string.h>

/* Copies `size` bytes to *at, which moves on by as many as keep the next array aligned. */
static void *put(char **at, const void *from, size_t size)
{
    void *to = *at;
    if (size > 0)
        memcpy(to, from, size);
    *at += (size + 7) / 8 * 8;
    return to;
}

static size_t logprobs_bytes(const struct token_logprobs *l, int32_t count)
{
    size_t bytes = l ? (size_t)count * sizeof *l : 0;
    for (int32_t i = 0; l && i < count; i++)
        bytes += 2 * (((size_t)l[i].count * 4 + 7) / 8 * 8);
    return bytes;
}

static const struct token_logprobs *put_logprobs(char **at, const struct token_logprobs *l,
                                                 int32_t count)
{
    if (!l)
        return NULL;
    struct token_logprobs *out = put(at, l, (size_t)count * sizeof *l);
    for (int32_t i = 0; i < count; i++) {
        size_t bytes = (size_t)l[i].count * 4;
        out[i].top_ids = put(at, l[i].top_ids, bytes);
        out[i].top_logprobs = put(at, l[i].top_logprobs, bytes);
    }
    return out;
}

void drawn_keep(struct drawn_queue *q, const struct drawn *d)
{
    _Static_assert(sizeof(struct drawn_copy) % 8 == 0, "what lies behind it is aligned");
    size_t ids = (size_t)d->count * sizeof *d->ids, error = d->error ? strlen(d->error) + 1 : 0;
    struct drawn_copy *c = check_calloc(1, sizeof *c + ids + error + 16 +
                                               logprobs_bytes(d->logprobs, d->count) +
                                               logprobs_bytes(d->prompt_logprobs, d->prompt_count));
    char *at = (char *)(c + 1);
    c->d = *d;
    c->d.logprobs = put_logprobs(&at, d->logprobs, d->count);
    c->d.prompt_logprobs = put_logprobs(&at, d->prompt_logprobs, d->prompt_count);
    c->d.ids = put(&at, d->ids, ids);
    c->d.error = d->error ? put(&at, d->error, error) : NULL;
    if (q->last)
        q->last->next = c;
    else
        q->first = c;
    q->last = c;
}

struct drawn_copy *drawn_next(struct drawn_queue *q)
{
    struct drawn_copy *c = q->first;
    if (!c)
        return NULL;
    q->first = c->next;
    if (!q->first)
        q->last = NULL;
    return c;
}

void drawn_clear(struct drawn_queue *q)
{
    for (struct drawn_copy *c; (c = drawn_next(q)) != NULL;)
        free(c);
}
