/*
 * The feed-forward half of a layer: residual and norm, router, this rank's experts (or its columns
 * of them), and the sum over the stage. A dense layer is one expert that every row takes at
 * weight 1.
 */
#include "worker/model.h"

static int32_t blocks(int32_t columns)
{
    return (columns + FFN_BLOCK - 1) / FFN_BLOCK;
}

enum status ffn_forward(struct model *m, const struct layer_weights *w, bool moe, int32_t rows,
                        struct error *err)
{
    const struct kernels *k = m->kernels;
    const struct model_config *c = &m->config;
    struct workspace *ws = &m->ws;
    /* Leaves that the whole group adds to one element of the sum. */
    int32_t leaves = moe ? c->top_k * blocks(c->moe_intermediate) : blocks(c->intermediate);
    const struct route *route = moe ? &ws->route : &ws->dense;
    const struct residual r = {c->hidden, ws->sum, ws->x, w->post_norm, c->rms_eps, ws->xn};
    if (moe) {
        k->router(m->backend, rows, &r, &w->router, c->top_k, c->norm_topk_prob, m->rank->experts,
                  ws->router, &ws->route);
        if (m->expert_counts)
            expert_counts_add(m->expert_counts, (int32_t)(w - m->weights->layers), route->chosen,
                              rows * c->top_k);
    } else {
        k->add_norm(m->backend, rows, r.hidden, r.sum, r.x, r.norm, r.eps, r.xn);
    }
    k->ffn_up(m->backend, w->ffn, w->ffn_count, route, c->hidden, ws->xn, ws->h);
    k->ffn_down(m->backend, rows, w->ffn, w->ffn_count, route, c->hidden, leaves, ws->h, ws->sum);
    return model_sum(m, m->stage, ws->sum, (size_t)rows * (size_t)c->hidden, err);
}
