/*
 * The CPU backend's stages of o_proj, router and FFN: see worker/kernels.h. Parts of one region
 * that need one another's results meet in between; a sum's columns are one thread's.
 */
#include "base/beat.h"
#include "base/check.h"
#include "worker/cpu/stages_private.h"

#include <string.h>

/* --- exact sums: o_proj and ffn_down -----------------------------------------------------------
 */

static void count_range(struct backend *be, float largest, int32_t leaves)
{
    if (!(largest < 1048576.0f / (float)leaves))
        atomic_fetch_add_explicit(&be->range_exceeded, 1, memory_order_relaxed);
}

struct exact_job {
    struct backend *be;
    int32_t rows, hidden, leaf, leaves;
    const struct matrix *o; /* o_proj */
    const struct ffn *ffn;  /* or ffn_down */
    int32_t count;
    const struct route *route;
    const float *x;
    double *sum;
    int32_t task; /* units of columns of the sum */
    struct pool_tasks tasks;
    /* Where there are panels: rows of x, their length, and what becomes their codes. */
    struct act *codes;
    int64_t inputs;
    int32_t cols;
};

static float larger(float a, float b)
{
    return b <= a || a != a ? a : b; /* a NaN stays */
}

/* The first expert from `e` on that rows chose, or count. */
static int32_t met_from(const struct route *route, int32_t e, int32_t count)
{
    while (e < count && route->first[e] == route->first[e + 1])
        e++;
    return e;
}

/* What the task of unit `unit` reads first. */
static struct ahead exact_ahead(const struct exact_job *j, int32_t e, int32_t unit)
{
    if (j->o)
        return ahead_of(j->o, unit);
    e = met_from(j->route, e, j->count);
    return e < j->count ? ahead_of(&j->ffn[e].down, unit) : (struct ahead){0};
}

/* Columns of units [u0, u1); the thread goes on with those from `after` on, if it is not -1. */
static float exact_units(struct exact_job *j, int thread, int32_t u0, int32_t u1, int32_t after)
{
    int32_t n0 = u0 * PANEL_ROWS, n1 = u1 * PANEL_ROWS < j->hidden ? u1 * PANEL_ROWS : j->hidden;
    double *sum = j->sum + n0;
    for (int32_t i = 0; i < j->rows; i++)
        memset(sum + (int64_t)i * j->hidden, 0, (size_t)(n1 - n0) * sizeof *sum);
    if (j->o)
        return multiply_leaf(j->be, thread, j->x, j->codes, 0, j->rows, j->o, j->leaf, u0, u1,
                             exact_ahead(j, 0, after), NULL, NULL, sum, j->hidden);
    float largest = 0.0f;
    for (int32_t e = 0; e < j->count; e++) {
        int32_t s = j->route->first[e], m = j->route->first[e + 1] - s;
        const struct matrix *down = &j->ffn[e].down;
        if (m == 0 || down->cols == 0)
            continue;
        struct ahead next = met_from(j->route, e + 1, j->count) < j->count
                                ? exact_ahead(j, e + 1, u0)
                                : exact_ahead(j, 0, after);
        float top = multiply_leaf(j->be, thread, j->x, j->codes, s, m, down, j->leaf, u0, u1, next,
                                  j->route->weight + s, j->route->row + s, sum, j->hidden);
        largest = larger(largest, top);
    }
    return largest;
}

static void exact_thread(void *arg, int thread)
{
    struct exact_job *j = arg;
    int32_t units = panel_count(j->hidden);
    float largest = 0.0f;
    if (j->codes && j->inputs > 1) {
        quantise_part(j->be, thread, j->x, j->inputs, j->cols, j->leaf, j->codes);
        pool_meet(j->be->pool);
    }
    for (int64_t t = pool_take(&j->tasks), after; t >= 0;
         t = after >= 0 ? after : pool_take(&j->tasks)) {
        beat();
        after = pool_take_ahead(&j->tasks, j->be->threads);
        int32_t u0 = (int32_t)t * j->task, u1 = units - u0 < j->task ? units : u0 + j->task;
        int32_t next = after < 0 ? -1 : (int32_t)after * j->task;
        largest = larger(largest, exact_units(j, thread, u0, u1, next));
    }
    count_range(j->be, largest, j->leaves);
}

/* `w`: the matrix, or one that stands for all. */
static void run_exact(struct exact_job *j, const struct matrix *w, struct act *codes, uint64_t room)
{
    int32_t units = panel_count(j->hidden);
    j->task = task_units(j->be, w, units, j->rows);
    j->tasks.count = (units + j->task - 1) / j->task;
    if (in_panels(w)) {
        j->codes = codes;
        j->cols = w->cols;
        codes->blocks = panel_blocks(w->cols);
        CHECK((uint64_t)j->inputs * (uint64_t)codes->blocks <= room, "%lld rows of %d columns",
              (long long)j->inputs, w->cols);
        if (j->inputs == 1)
            quantise_rows(j->be, j->x, j->cols, j->leaf, codes, 0, 1);
    }
    pool_run(j->be->pool, exact_thread, j);
}

void cpu_o_proj(struct backend *be, int32_t rows, const struct attention *a, const struct matrix *o,
                const float *attn, double *sum)
{
    struct exact_job j = {.be = be,
                          .rows = rows,
                          .hidden = o->rows,
                          .leaf = a->head_dim,
                          .leaves = a->leaves,
                          .o = o,
                          .x = attn,
                          .inputs = rows,
                          .sum = sum};
    run_exact(&j, o, &be->attn, be->room.attn);
}

void cpu_ffn_down(struct backend *be, int32_t rows, const struct ffn *ffn, int32_t count,
                  const struct route *route, int32_t hidden, int32_t leaves, const float *h,
                  double *sum)
{
    const struct matrix none = {.rows = hidden};
    struct exact_job j = {.be = be,
                          .rows = rows,
                          .hidden = hidden,
                          .leaf = FFN_BLOCK,
                          .leaves = leaves,
                          .ffn = ffn,
                          .count = count,
                          .route = route,
                          .x = h,
                          .inputs = route->first[count],
                          .sum = sum};
    run_exact(&j, count > 0 ? &ffn[0].down : &none, &be->h, be->room.h);
}

/* --- routing -----------------------------------------------------------------------------------
 */

enum { ROUTER_ROWS = 64 }; /* that a task multiplies */

/* The top_k largest probabilities, ties to the lower id, in descending order. */
static void choose_experts(float *p, int32_t experts, int32_t top_k, bool renormalise,
                           int32_t *chosen, float *weight)
{
    float total = 0.0f;
    for (int32_t k = 0; k < top_k; k++) {
        int32_t best = 0;
        for (int32_t e = 1; e < experts; e++)
            if (p[e] > p[best])
                best = e;
        chosen[k] = best;
        weight[k] = p[best];
        total += p[best];
        p[best] = -1.0f;
    }
    for (int32_t k = 0; renormalise && k < top_k; k++)
        weight[k] /= total;
}

struct router_job {
    struct backend *be;
    int32_t rows, top_k;
    const struct residual *r;
    const struct matrix *w;
    bool renormalise;
    float *logits;
    struct route *route;
    struct pool_tasks tasks; /* blocks of ROUTER_ROWS by units of experts */
};

static void route_rows(const struct router_job *j, int64_t begin, int64_t end)
{
    int32_t experts = j->w->rows;
    for (int64_t i = begin; i < end; i++) {
        float *logits = j->logits + i * experts;
        j->be->ops->softmax(logits, experts);
        choose_experts(logits, experts, j->top_k, j->renormalise, j->route->chosen + i * j->top_k,
                       j->route->chosen_weight + i * j->top_k);
    }
}

static void router_thread(void *arg, int thread)
{
    struct router_job *j = arg;
    int32_t units = panel_count(j->w->rows), experts = j->w->rows;
    int64_t begin, end;
    pool_part(j->rows, 1, j->be->threads, thread, &begin, &end);
    if (j->rows > 1) {
        add_norm_rows(j->be, j->r, begin, end);
        pool_meet(j->be->pool);
    }
    for (int64_t t; (t = pool_take(&j->tasks)) >= 0;) {
        beat();
        int32_t i = (int32_t)(t / units) * ROUTER_ROWS, n0 = (int32_t)(t % units) * PANEL_ROWS;
        int32_t m = j->rows - i < ROUTER_ROWS ? j->rows - i : ROUTER_ROWS;
        int32_t n1 = experts - n0 < PANEL_ROWS ? experts : n0 + PANEL_ROWS;
        j->be->ops->gemm(j->r->xn + (int64_t)i * j->w->cols, j->w->cols, NULL, m, j->w, n0, n1,
                         (struct ahead){0}, j->logits + (int64_t)i * experts + n0, experts);
    }
    pool_meet(j->be->pool);
    route_rows(j, begin, end);
}

/* Slots by expert: a counting sort of the choices that fall to this rank. */
static void sort_slots(int32_t choices, int32_t top_k, struct range local, struct route *route)
{
    int32_t count = range_size(local), *first = route->first;
    memset(first, 0, ((size_t)count + 1) * sizeof *first);
    for (int32_t i = 0; i < choices; i++) {
        int32_t e = route->chosen[i] - local.begin;
        if (e >= 0 && e < count)
            first[e + 1]++;
    }
    for (int32_t e = 0; e < count; e++)
        first[e + 1] += first[e];
    for (int32_t i = 0; i < choices; i++) {
        int32_t e = route->chosen[i] - local.begin;
        if (e < 0 || e >= count)
            continue;
        route->row[first[e]] = i / top_k;
        route->weight[first[e]++] = route->chosen_weight[i];
    }
    for (int32_t e = count; e > 0; e--)
        first[e] = first[e - 1];
    first[0] = 0;
}

void cpu_router(struct backend *be, int32_t rows, const struct residual *r, const struct matrix *w,
                int32_t top_k, bool renormalise, struct range local, float *logits,
                struct route *route)
{
    struct router_job j = {.be = be,
                           .rows = rows,
                           .top_k = top_k,
                           .r = r,
                           .w = w,
                           .renormalise = renormalise,
                           .logits = logits,
                           .route = route};
    j.tasks.count = (int64_t)((rows + ROUTER_ROWS - 1) / ROUTER_ROWS) * panel_count(w->rows);
    if (rows == 1)
        add_norm_rows(be, r, 0, 1);
    pool_run(be->pool, router_thread, &j);
    sort_slots(rows * top_k, top_k, local, route);
}

void cpu_route_dense(struct backend *be, int32_t rows, struct route *route)
{
    (void)be;
    route->first[0] = 0;
    route->first[1] = rows;
    for (int32_t i = 0; i < rows; i++) {
        route->row[i] = i;
        route->weight[i] = 1.0f;
    }
}

/* --- FFN up ------------------------------------------------------------------------------------
 */

enum { STRIP = 4 }; /* units of gate and up, at most, that a thread computes and joins in cache */

struct ffn_job {
    struct backend *be;
    const struct ffn *ffn;
    int32_t count;
    const struct route *route;
    const float *xn;
    float *h;
    int32_t task; /* units of an expert's gate and of its up */
    struct pool_tasks tasks;
};

/* Units [u0, u1) of one expert's h for its slots, in blocks of rows whose `up` fits the scratch. */
static void ffn_strip(const struct ffn_job *j, int thread, int32_t e, int32_t u0, int32_t u1,
                      struct ahead next)
{
    const struct ffn *f = &j->ffn[e];
    int32_t cols = f->gate.rows, width = unit_end(&f->gate, u1) - u0 * PANEL_ROWS;
    float *up = scratch_of(j->be, thread);
    int32_t block = (int32_t)(j->be->scratch_bytes / sizeof *up / (STRIP * PANEL_ROWS));
    for (int32_t s = j->route->first[e]; s < j->route->first[e + 1]; s += block) {
        int32_t m = j->route->first[e + 1] - s;
        m = m < block ? m : block;
        const int32_t *rows = j->route->row + s;
        float *h = j->h + (int64_t)s * cols + (int64_t)u0 * PANEL_ROWS;
        multiply(j->be, thread, j->xn, rows, m, &f->gate, u0, u1, ahead_of(&f->up, u0), h, cols);
        multiply(j->be, thread, j->xn, rows, m, &f->up, u0, u1, next, up, width);
        for (int32_t i = 0; i < m; i++)
            j->be->ops->silu_mul(h + (int64_t)i * cols, up + (int64_t)i * width, width);
    }
}

/* Tasks of an expert; none where no row chose it. */
static int32_t tasks_of(const struct ffn_job *j, int32_t e)
{
    if (j->route->first[e] == j->route->first[e + 1])
        return 0;
    return (panel_count(j->ffn[e].gate.rows) + j->task - 1) / j->task;
}

/* Where a task begins: a unit of an expert. */
struct ffn_place {
    int32_t e, u0;
    int64_t first; /* task of expert e */
};

/* Goes on to task t, which is not before it. */
static void ffn_seek(const struct ffn_job *j, struct ffn_place *p, int64_t t)
{
    for (int32_t n; t >= p->first + (n = tasks_of(j, p->e)); p->e++)
        p->first += n;
    p->u0 = (int32_t)(t - p->first) * j->task;
}

static void ffn_up_thread(void *arg, int thread)
{
    struct ffn_job *j = arg;
    struct ffn_place at = {0};
    for (int64_t t = pool_take(&j->tasks), after; t >= 0;
         t = after >= 0 ? after : pool_take(&j->tasks)) {
        struct ahead next = {0};
        beat();
        ffn_seek(j, &at, t);
        if ((after = pool_take_ahead(&j->tasks, j->be->threads)) >= 0) {
            struct ffn_place then = at;
            ffn_seek(j, &then, after);
            next = ahead_of(&j->ffn[then.e].gate, then.u0);
        }
        int32_t units = panel_count(j->ffn[at.e].gate.rows);
        ffn_strip(j, thread, at.e, at.u0, units - at.u0 < j->task ? units : at.u0 + j->task, next);
    }
}

void cpu_ffn_up(struct backend *be, const struct ffn *ffn, int32_t count, const struct route *route,
                int32_t hidden, const float *xn, float *h)
{
    struct ffn_job j = {
        .be = be, .ffn = ffn, .count = count, .route = route, .xn = xn, .h = h, .task = 1};
    (void)hidden;
    int64_t units = 0;
    int32_t met = 0; /* experts that any row chose */
    for (int32_t e = 0; e < count; e++) {
        units += tasks_of(&j, e); /* of one unit, so far */
        met += route->first[e] != route->first[e + 1];
    }
    if (units == 0)
        return;
    int32_t most = task_units(be, &ffn[0].gate, units, route->first[count] / met);
    j.task = most < STRIP ? most : STRIP;
    for (int32_t e = 0; e < count; e++)
        j.tasks.count += tasks_of(&j, e);
    pool_run(be->pool, ffn_up_thread, &j);
}
