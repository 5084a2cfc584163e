/* Collectives over a device's memory by way of the host's: see comm_staged in transport.h. */
#include "transport/transport.h"

#include "base/check.h"

#include <stdlib.h>

struct staged_comm {
    struct comm base;
    struct comm *inner;
    struct comm_stage stage;
};

static struct staged_comm *staged(struct comm *c)
{
    return (struct staged_comm *)c;
}

static size_t piece(const struct staged_comm *s, size_t left)
{
    return left < s->stage.bytes ? left : s->stage.bytes;
}

static enum status staged_allreduce_f64(struct comm *c, double *x, size_t count, struct error *err)
{
    const struct staged_comm *s = staged(c);
    char *at = (char *)x;
    if (!s->stage.meet(s->stage.arg))
        return OK;
    for (size_t left = count * sizeof *x; left > 0;) {
        size_t n = piece(s, left);
        TRY(s->stage.get(s->stage.arg, s->stage.buffer, at, n, err));
        TRY(s->inner->ops->allreduce_f64(s->inner, s->stage.buffer, n / sizeof *x, err));
        TRY(s->stage.put(s->stage.arg, at, s->stage.buffer, n, err));
        at += n;
        left -= n;
    }
    return OK;
}

static enum status staged_send(struct comm *c, int to, const void *x, size_t bytes,
                               struct error *err)
{
    const struct staged_comm *s = staged(c);
    if (!s->stage.meet(s->stage.arg))
        return OK;
    for (size_t at = 0; at < bytes; at += piece(s, bytes - at)) {
        size_t n = piece(s, bytes - at);
        TRY(s->stage.get(s->stage.arg, s->stage.buffer, (const char *)x + at, n, err));
        TRY(s->inner->ops->send(s->inner, to, s->stage.buffer, n, err));
    }
    return OK;
}

static enum status staged_recv(struct comm *c, int from, void *x, size_t bytes, struct error *err)
{
    const struct staged_comm *s = staged(c);
    if (!s->stage.meet(s->stage.arg))
        return OK;
    for (size_t at = 0; at < bytes; at += piece(s, bytes - at)) {
        size_t n = piece(s, bytes - at);
        TRY(s->inner->ops->recv(s->inner, from, s->stage.buffer, n, err));
        TRY(s->stage.put(s->stage.arg, (char *)x + at, s->stage.buffer, n, err));
    }
    return OK;
}

static enum status staged_allgather(struct comm *c, const void *send, size_t bytes, void *recv,
                                    struct error *err)
{
    const struct staged_comm *s = staged(c);
    size_t ranks = (size_t)c->size, most = s->stage.bytes / (ranks + 1) / 8 * 8;
    char *mine = s->stage.buffer, *all = mine + most;
    if (!s->stage.meet(s->stage.arg))
        return OK;
    for (size_t at = 0; at < bytes; at += most) {
        size_t n = bytes - at < most ? bytes - at : most;
        TRY(s->stage.get(s->stage.arg, mine, (const char *)send + at, n, err));
        TRY(s->inner->ops->allgather(s->inner, mine, n, all, err));
        for (size_t r = 0; r < ranks; r++)
            TRY(s->stage.put(s->stage.arg, (char *)recv + r * bytes + at, all + r * n, n, err));
    }
    return OK;
}

static enum status staged_broadcast(struct comm *c, int root, void *x, size_t bytes,
                                    struct error *err)
{
    struct comm *inner = staged(c)->inner;
    return inner->ops->broadcast(inner, root, x, bytes, err);
}

static enum status staged_split(struct comm *c, int color, int key, struct comm **out,
                                struct error *err)
{
    struct comm *inner = staged(c)->inner;
    return inner->ops->split(inner, color, key, out, err);
}

static enum status staged_split_node(struct comm *c, struct comm **out, struct error *err)
{
    struct comm *inner = staged(c)->inner;
    return inner->ops->split_node(inner, out, err);
}

static enum status staged_arrive(struct comm *c, int64_t ms, bool *here, struct error *err)
{
    struct comm *inner = staged(c)->inner;
    return inner->ops->arrive(inner, ms, here, err);
}

static void staged_abort(struct comm *c, const char *why)
{
    struct comm *inner = staged(c)->inner;
    inner->ops->abort(inner, why);
}

static void staged_destroy(struct comm *c)
{
    free(c);
}

static const struct comm_ops staged_ops = {
    .name = "staged",
    .allreduce_f64 = staged_allreduce_f64,
    .allgather = staged_allgather,
    .broadcast = staged_broadcast,
    .send = staged_send,
    .recv = staged_recv,
    .split = staged_split,
    .split_node = staged_split_node,
    .arrive = staged_arrive,
    .abort = staged_abort,
    .destroy = staged_destroy,
};

enum status comm_staged(struct comm *inner, const struct comm_stage *stage, struct comm **out,
                        struct error *err)
{
    CHECK(stage->bytes >= ((size_t)inner->size + 1) * sizeof(double) &&
              stage->bytes % sizeof(double) == 0,
          "%zu bytes for %d ranks", stage->bytes, inner->size);
    struct staged_comm *s = malloc(sizeof *s);
    if (!s)
        return error_set(err, ERR_NO_MEMORY, "no memory for a communicator");
    *s = (struct staged_comm){{&staged_ops, inner->rank, inner->size}, inner, *stage};
    *out = &s->base;
    return OK;
}
