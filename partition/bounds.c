/* Lower bounds of a step: see bounds.h. */
#include "partition/bounds.h"
#include "partition/weight_pack.h"

#include <math.h>

static double slice_bytes(const struct inventory *inv, const struct slice *s)
{
    const struct weight *w = &inv->weights[s->weight];
    const struct quant_rect rect = {s->row, s->rows, s->col, s->cols};
    if (weight_form(inv, w) != FORM_VALUES)
        return (double)weight_shape(inv, w, s->rows, s->cols).used;
    if (inv->mode == WEIGHTS_PACKED)
        return (double)weight_stored_bytes(inv, w, &rect);
    size_t each = w->quantized ? sizeof(float) : dtype_size(w->dtype);
    return (double)s->rows * (double)s->cols * (double)each;
}

struct step_bounds plan_bounds(const struct model_config *config, const struct inventory *inv,
                               const struct rank_plan *rank, enum kv_dtype kv_dtype,
                               const struct step_shape *step)
{
    double rows = (double)step->rows, logits = (double)step->logits;
    double share = config->experts > 0 ? (double)config->top_k / config->experts : 0;
    double met = 1 - pow(1 - share, rows);
    double block = (double)plan_kv_block_bytes(config, rank, kv_dtype) / KV_BLOCK;
    struct step_bounds b = {
        .bytes = (double)step->sequences * step->cached * block,
        .flops = 4 * rows * step->depth * range_size(rank->q_heads) * config->head_dim *
                 range_size(rank->layers),
    };
    for (int32_t i = 0; i < rank->slice_count; i++) {
        const struct slice *s = &rank->slices[i];
        const struct weight *w = &inv->weights[s->weight];
        double bytes = slice_bytes(inv, s), products = 2 * (double)s->rows * (double)s->cols;
        if (weight_role_is_vector(w->role))
            continue;
        if (w->role == WEIGHT_EMBED) { /* rows of it, and no products */
            b.bytes += rows * bytes / (double)s->rows;
            if (!config->tied_embeddings || logits == 0)
                continue;
        }
        bool head = w->role == WEIGHT_LM_HEAD || w->role == WEIGHT_EMBED;
        if (head) {
            b.bytes += logits > 0 ? bytes : 0;
            b.flops += logits * products;
        } else {
            b.bytes += w->expert >= 0 ? met * bytes : bytes;
            b.flops += rows * products * (w->expert >= 0 ? share : 1);
        }
    }
    return b;
}
