/* Products of activations with weights, plain or in panels: see stages_private.h. No state. */
#include "worker/cpu/stages_private.h"

/* A task reads about so many bytes of weights, for memory gives most to threads that read on and on,
 * and more where rows keep it busy; but a thread gets some tasks, so that all end together. */
enum { TASK_BYTES = 256 << 10, TASK_ROWS = 32, TASKS_A_THREAD = 8 };

static uint64_t unit_bytes(const struct matrix *w)
{
    if (in_panels(w))
        return panel_bytes(w->cols, weight_panel_bits(w->shape.form));
    return (uint64_t)w->cols * PANEL_ROWS * dtype_size(w->dtype);
}

int32_t task_units(const struct backend *be, const struct matrix *w, int64_t units, int32_t m)
{
    uint64_t bytes = unit_bytes(w), want = (uint64_t)TASK_BYTES * (1 + (uint64_t)m / TASK_ROWS);
    int64_t n = bytes > 0 ? (int64_t)(want / bytes) : 1;
    int64_t most = units / (TASKS_A_THREAD * (int64_t)be->threads);
    n = n < most ? n : most;
    return n > 1 ? (int32_t)n / 2 * 2 : 1; /* kernels take two panels at once */
}

void quantise_rows(const struct backend *be, const float *x, int32_t n, int32_t leaf,
                   const struct act *out, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++)
        be->ops->quantise(x + i * n, n, leaf, out, i);
}

void quantise_part(const struct backend *be, int thread, const float *x, int64_t rows, int32_t n,
                   int32_t leaf, const struct act *out)
{
    int64_t begin, end;
    pool_part(rows, 1, be->threads, thread, &begin, &end);
    quantise_rows(be, x, n, leaf, out, begin, end);
}

struct ahead ahead_of(const struct matrix *w, int32_t unit)
{
    int32_t rest = panel_count(w->rows) - unit;
    if (unit < 0 || rest <= 0)
        return (struct ahead){0};
    return (struct ahead){.data = (const char *)w->data + (uint64_t)unit * unit_bytes(w),
                          .bytes = (rest < 2 ? 1 : 2) * unit_bytes(w)};
}

void multiply(struct backend *be, int thread, const float *xn, const int32_t *rows, int32_t m,
              const struct matrix *w, int32_t u0, int32_t u1, struct ahead next, float *y,
              int64_t ldy)
{
    if (in_panels(w))
        be->ops->gemm_panels(&be->norm, rows, m, w, u0, u1, next, y, ldy,
                             panel_scratch_of(be, thread));
    else
        be->ops->gemm(xn, w->cols, rows, m, w, u0 * PANEL_ROWS, unit_end(w, u1), next, y, ldy);
}

float multiply_leaf(struct backend *be, int thread, const float *x, const struct act *codes,
                    int64_t first, int32_t m, const struct matrix *w, int32_t leaf, int32_t u0,
                    int32_t u1, struct ahead next, const float *scale, const int32_t *out,
                    double *sum, int64_t ldsum)
{
    if (in_panels(w))
        return be->ops->gemm_panels_leaf(codes, first, m, w, leaf, u0, u1, next, scale, out, sum,
                                         ldsum, panel_scratch_of(be, thread));
    return be->ops->gemm_leaf(x + first * w->cols, w->cols, m, w, leaf, u0 * PANEL_ROWS,
                              unit_end(w, u1), next, scale, out, sum, ldsum);
}
