/*
 * The forward pass of Qwen3 MoE and of the dense Qwen3 and Qwen2 (a layer of theirs is one whose
 * FFN routes nothing), for every backend and every layout. Each rank runs this same page on its cut
 * of the weights; ranks meet only in the collectives below and in moe.c.
 *
 * Shapes: R rows of the step (tokens of all its sequences), H hidden, D head_dim, A this rank's
 * query heads, V this rank's vocabulary rows. Residual stream and activations are fp32; sums that
 * cross ranks are exact in fp64 (worker/cpu/ops.h), so their order, and the layout, cannot matter.
 */
#include "worker/model.h"

#include "base/clock.h"

static enum status receive_rows(struct model *m, const struct batch *b, struct error *err);
static enum status send_rows(struct model *m, const struct batch *b, struct error *err);
static enum status gather_logits(struct model *m, const struct batch *b, struct error *err);

enum status model_forward(struct model *m, const struct batch *b, struct error *err)
{
    const struct kernels *k = m->kernels;
    const struct model_config *c = &m->config;
    const struct rank_plan *r = m->rank;
    const struct weights *w = m->weights;
    struct backend *be = m->backend;
    struct workspace *ws = &m->ws;
    double *pending = NULL; /* [R, H] a sum that the residual stream has yet to take in */
    size_t sums = (size_t)b->rows * (size_t)c->hidden;
    struct attention a = {
        .q_heads = r->q_heads,
        .kv_heads = r->kv_heads,
        .group = c->q_heads / c->kv_heads,
        .leaves = c->q_heads,
        .head_dim = c->head_dim,
        .row = head_row(c->head_dim),
        .eps = c->rms_eps,
    };

    k->begin(be, b);
    if (r->stage == 0) {
        k->embed(be, b, &w->embed, r->vocab.begin, c->hidden, ws->x, ws->sum); /* [R, H] */
        TRY(model_sum(m, m->stage, ws->sum, sums, err));
        pending = ws->sum;
    } else {
        TRY(receive_rows(m, b, err)); /* x [R, H] of the stage before */
    }
    k->rope_angles(be, b, m->frequency, m->rope_scale, c->head_dim, ws->rope); /* [R, D] */
    if (ws->dense.first)
        k->route_dense(be, b->rows, &ws->dense);

    for (int32_t i = 0; i < w->layer_count; i++) {
        const struct layer_weights *l = &w->layers[i];
        const struct kv_layer kv = kv_layer_of(&m->kv, i);

        progress_layer(m->progress, r->layers.begin + i + 1);
        k->add_norm(be, b->rows, c->hidden, pending, ws->x, l->input_norm, c->rms_eps, ws->xn);
        k->qkv(be, b, &a, l, ws->xn, ws->rope, ws->attn, ws->kv, ws->q, &kv); /* q [R, A, D] */
        k->attention(be, b, &a, ws->q, &kv, ws->attn);                        /* [R, A x D] */
        k->o_proj(be, b->rows, &a, &l->o, ws->attn, ws->sum);                 /* [R, H] */
        TRY(model_sum(m, m->attn, ws->sum, sums, err));

        TRY(ffn_forward(m, l, c->layer_is_moe[r->layers.begin + i], b->rows, err)); /* sum [R, H] */
        pending = ws->sum;
    }

    progress_layer(m->progress, r->layers.end + 1);
    if (r->stage < m->plan->layout.pp - 1) {
        k->add_norm(be, b->rows, c->hidden, pending, ws->x, NULL, c->rms_eps, ws->xn);
        return send_rows(m, b, err); /* x [R, H] */
    }
    k->add_norm(be, b->rows, c->hidden, pending, ws->x, w->final_norm, c->rms_eps, ws->xn);
    k->lm_head(be, b, &w->lm_head, r->vocab_padded, ws->xn, c->hidden, ws->shard); /* [.., V] */
    TRY(gather_logits(m, b, err));                                                 /* [W][.., V] */
    k->draw(be, b, ws->logits, m->stage->size, r->vocab_padded);
    k->end(be);
    return OK;
}

/* Before and after a collective, whose time it counts. */
static int64_t meet(struct model *m)
{
    progress_meets(m->progress, 1);
    return clock_now_ns();
}

static enum status met(struct model *m, int64_t start_ns, enum status st)
{
    progress_meets(m->progress, -1);
    m->collective_ns += clock_now_ns() - start_ns;
    return st;
}

enum status model_sum(struct model *m, struct comm *c, double *x, size_t count, struct error *err)
{
    if (c->size == 1)
        return OK;
    int64_t start = meet(m);
    return met(m, start, c->ops->allreduce_f64(c, x, count, err));
}

/* Rank i of a stage hands its x to rank i of the next. */
static enum status receive_rows(struct model *m, const struct batch *b, struct error *err)
{
    size_t bytes = (size_t)b->rows * (size_t)m->config.hidden * sizeof(float);
    int from = m->rank->rank - m->plan->layout.w;
    int64_t start = meet(m);
    return met(m, start, m->pipe->ops->recv(m->pipe, from, m->ws.x, bytes, err));
}

static enum status send_rows(struct model *m, const struct batch *b, struct error *err)
{
    size_t bytes = (size_t)b->rows * (size_t)m->config.hidden * sizeof(float);
    int to = m->rank->rank + m->plan->layout.w;
    int64_t start = meet(m);
    TRY(met(m, start, m->pipe->ops->send(m->pipe, to, m->ws.x, bytes, err)));
    m->kernels->end(m->backend);
    return OK;
}

static enum status gather_logits(struct model *m, const struct batch *b, struct error *err)
{
    size_t bytes = (size_t)b->logits * (size_t)m->rank->vocab_padded * sizeof(float);
    if (m->stage->size == 1 || bytes == 0)
        return OK; /* one rank's shard is all */
    int64_t start = meet(m);
    return met(m, start, m->stage->ops->allgather(m->stage, m->ws.shard, bytes, m->ws.logits, err));
}

enum status model_read_logits(struct model *m, const struct batch *b, float *rows,
                              struct error *err)
{
    return m->kernels->read_logits(m->backend, b, m->ws.logits, m->plan->layout.w,
                                   m->rank->vocab_padded, rows, err);
}

const float *model_logits_in_place(const struct model *m)
{
    return m->memory->host && m->plan->layout.w == 1 ? m->ws.logits : NULL;
}

int32_t model_vocab_padded(const struct model *m)
{
    return m->rank->vocab_padded * m->plan->layout.w;
}
