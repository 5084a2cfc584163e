/*
 * The CPU operations: see ops.h for what each computes and in which order. Compiled once for each
 * instruction set (OPS_NAME and OPS_AVX512, OPS_AVX2 or OPS_NEON come from the build); vec.h makes
 * them agree.
 */
#include "worker/cpu/ops.h"
#include "worker/cpu/panels.h"
#include "worker/cpu/vec.h"

#include <math.h>

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define STR_(a) #a
#define STR(a) STR_(a)

/*
 * Output tile: TILE_M x TILE_N accumulators of 16 lanes. Any size gives the same bits; more than
 * the registers hold is slow, and without SIMD it is slow to compile too. WEIGHTS_STAY: a tile's
 * weights stay in the first-level cache while rows of activations pass; else the other way round.
 * What passes must come from the second level faster than the tile multiplies it, hence the choice.
 */
#if defined(OPS_AVX512)
enum { TILE_M = 6, TILE_N = 4, WEIGHTS_STAY = 1 };
#elif defined(OPS_AVX2) || defined(OPS_NEON)
enum { TILE_M = 3, TILE_N = 2, WEIGHTS_STAY = 0 };
#else
enum { TILE_M = 1, TILE_N = 4, WEIGHTS_STAY = 1 };
#endif

/* Registers of a v16 (vec.h); sums of a tile, up to a multiple of 8. */
enum { REGISTERS = 16 / V_REGISTER, TILE_SUMS = (TILE_M * TILE_N + 7) / 8 * 8 };

/* What of the operand that passes is taken at once: half a second-level cache of 1 MiB. */
enum { BLOCK_BYTES = 512 * 1024 };

VEC_INLINE vr load_weight(const void *p, int64_t i, enum dtype t)
{
    if (t == DTYPE_BF16)
        return r_load_bf16((const uint16_t *)p + i);
    if (t == DTYPE_F16)
        return r_load_f16((const uint16_t *)p + i);
    return r_load((const float *)p + i);
}

/* The last columns [k, k1) of a row, fewer than 16, and zeros. */
static void pad_row(const void *p, enum dtype t, int32_t k, int32_t k1, float out[16])
{
    memset(out, 0, 16 * sizeof *out);
    for (int i = 0; k + i < k1; i++) {
        uint16_t h = t == DTYPE_F32 ? 0 : ((const uint16_t *)p)[k + i];
        out[i] = t == DTYPE_F32    ? ((const float *)p)[k + i]
                 : t == DTYPE_BF16 ? bf16_to_f32(h)
                                   : f16_to_f32(h);
    }
}

/* Fetches what the next tiles but one multiply, `ahead` bytes on, into the second-level cache: the
 * processor's own prefetching begins anew in each row, and too late. Where weights pass again and
 * again it would be in the way. */
VEC_INLINE void fetch_weights(int mr, const void *const *w, enum dtype t, int32_t k,
                              uintptr_t ahead)
{
#pragma GCC unroll 8
    for (int j = 0; (WEIGHTS_STAY || mr < TILE_M) && j < TILE_N; j++)
        __builtin_prefetch(
            (const void *)((uintptr_t)w[j] + (t == DTYPE_F32 ? 4U : 2U) * (uintptr_t)k + ahead), 0,
            2);
}

/* Adds to `acc` the lanes of x[i] * w[j] over columns [k, end), a multiple of 16. */
VEC_INLINE void lanes_dot(const float *const *x, int mr, const void *const *w, enum dtype t,
                          int32_t k, int32_t end, uintptr_t ahead,
                          vr acc[REGISTERS][TILE_M][TILE_N])
{
    for (; k < end; k += 16) {
        fetch_weights(mr, w, t, k, ahead);
#pragma GCC unroll 4
        for (int h = 0; h < REGISTERS; h++) {
            vr b[TILE_N];
#pragma GCC unroll 8
            for (int j = 0; j < TILE_N; j++)
                b[j] = load_weight(w[j], k + h * V_REGISTER, t);
#pragma GCC unroll 8
            for (int i = 0; i < mr; i++) {
                vr a = r_load(x[i] + k + h * V_REGISTER);
#pragma GCC unroll 8
                for (int j = 0; j < TILE_N; j++)
                    acc[h][i][j] = r_fma(a, b[j], acc[h][i][j]);
            }
        }
    }
}

/* The same over the last columns [k, k1), fewer than 16, and zeros. */
VEC_INLINE void tail_dot(const float *const *x, int mr, const void *const *w, enum dtype t,
                         int32_t k, int32_t k1, vr acc[REGISTERS][TILE_M][TILE_N])
{
    float padded[TILE_M + TILE_N][16];
    const float *xp[TILE_M];
    const void *wp[TILE_N];
    for (int i = 0; i < mr; i++)
        pad_row(x[i], DTYPE_F32, k, k1, padded[i]);
    for (int j = 0; j < TILE_N; j++)
        pad_row(w[j], t, k, k1, padded[TILE_M + j]);
#pragma GCC unroll 8
    for (int i = 0; i < mr; i++)
        xp[i] = padded[i];
#pragma GCC unroll 8
    for (int j = 0; j < TILE_N; j++)
        wp[j] = padded[TILE_M + j];
    lanes_dot(xp, mr, wp, DTYPE_F32, 0, 16, 0, acc);
}

/* sums[i * TILE_N + j] = dot(x[i], w[j]) over columns [k0, k1). */
VEC_INLINE void tile_sums(const float *const *x, int mr, const void *const *w, enum dtype t,
                          int32_t k0, int32_t k1, uintptr_t ahead, float sums[TILE_SUMS])
{
    vr acc[REGISTERS][TILE_M][TILE_N];
    v16 all[TILE_SUMS];
    int32_t whole = k0 + (k1 - k0) / 16 * 16;
#pragma GCC unroll 4
    for (int h = 0; h < REGISTERS; h++)
#pragma GCC unroll 8
        for (int i = 0; i < mr; i++)
#pragma GCC unroll 8
            for (int j = 0; j < TILE_N; j++)
                acc[h][i][j] = r_zero();
    lanes_dot(x, mr, w, t, k0, whole, ahead, acc);
    if (whole < k1)
        tail_dot(x, mr, w, t, whole, k1, acc);
#pragma GCC unroll 24
    for (int i = 0; i < TILE_SUMS; i++) {
        int row = i / TILE_N, j = i % TILE_N;
        vr part[REGISTERS];
#pragma GCC unroll 4
        for (int h = 0; h < REGISTERS; h++)
            part[h] = row < mr ? acc[h][row][j] : r_zero();
        all[i] = v_join(part);
    }
#pragma GCC unroll 3
    for (int i = 0; i < mr * TILE_N; i += 8)
        v_sum8(all + i, sums + i);
}

typedef void gemm_tile(const float *const *x, int mr, const void *const *w, int32_t k0, int32_t k1,
                       uintptr_t ahead, float sums[TILE_SUMS]);

#define TILE_ROWS(mr, t)                                                                           \
    case mr:                                                                                       \
        if (mr <= TILE_M)                                                                          \
            tile_sums(x, mr <= TILE_M ? mr : TILE_M, w, t, k0, k1, ahead, sums);                   \
        break

#define DEFINE_TILE(name, t)                                                                       \
    static void name(const float *const *x, int mr, const void *const *w, int32_t k0, int32_t k1,  \
                     uintptr_t ahead, float sums[TILE_SUMS])                                       \
    {                                                                                              \
        switch (mr) {                                                                              \
            TILE_ROWS(1, t);                                                                       \
            TILE_ROWS(2, t);                                                                       \
            TILE_ROWS(3, t);                                                                       \
            TILE_ROWS(4, t);                                                                       \
            TILE_ROWS(5, t);                                                                       \
            TILE_ROWS(6, t);                                                                       \
        }                                                                                          \
    }

DEFINE_TILE(tile_f32, DTYPE_F32)
DEFINE_TILE(tile_f16, DTYPE_F16)
DEFINE_TILE(tile_bf16, DTYPE_BF16)

/* What the tiles of one call share. */
struct gemm_job {
    const float *x;
    int64_t ldx;
    const int32_t *rows;
    const struct matrix *w;
    gemm_tile *tile;
    int64_t row_bytes; /* of w */
    int32_t leaf, n0, n1;
    struct ahead next;
    /* of op_gemm */
    float *y;
    int64_t ldy;
    /* of op_gemm_leaf */
    const float *scale;
    const int32_t *out;
    double *sum;
    int64_t ldsum;
    uint32_t largest[TILE_N]; /* bits of the largest |leaf| so far */
};

static void put_sums(const struct gemm_job *g, int32_t i0, int mr, int32_t j0, int nr,
                     const float *s)
{
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < nr; j++)
            g->y[(i0 + i) * g->ldy + j0 - g->n0 + j] = s[i * TILE_N + j];
}

static void add_leaves(struct gemm_job *g, int32_t i0, int mr, int32_t j0, int nr, const float *s)
{
    for (int i = 0; i < mr; i++, s += TILE_N) {
        float scale = g->scale ? g->scale[i0 + i] : 1.0f;
        int64_t row = g->out ? g->out[i0 + i] : i0 + i;
        double *sum = g->sum + row * g->ldsum + j0 - g->n0;
        if (nr == TILE_N)
            add_leaf(s, TILE_N, scale, sum, g->largest);
        else
            add_leaf(s, nr, scale, sum, g->largest);
    }
}

/* From the tile of columns [j0, ...) to what is read two tiles later: of w, or of what comes after
 * it. 0, what is here already: nothing does. */
static uintptr_t bytes_ahead(const struct gemm_job *g, int32_t j0)
{
    int32_t then = j0 + 2 * TILE_N;
    uint64_t rows = (uint64_t)g->row_bytes;
    uintptr_t here = (uintptr_t)g->w->data + (uint64_t)j0 * rows;
    if (then < g->n1)
        return 2 * TILE_N * rows;
    uint64_t past = (uint64_t)(then - g->n1) * rows;
    return past + TILE_N * rows <= g->next.bytes ? (uintptr_t)g->next.data + past - here : 0;
}

/* Rows [i0, i0 + mr) and columns [j0, j0 + TILE_N); those past the end are computed as the last one
 * again and left out. */
static void run_tile(struct gemm_job *g, int32_t i0, int mr, int32_t j0)
{
    const float *x[TILE_M];
    const void *w[TILE_N];
    float sums[TILE_SUMS];
    int32_t cols = g->w->cols;
    int nr = g->n1 - j0 < TILE_N ? (int)(g->n1 - j0) : TILE_N;
    uintptr_t ahead = bytes_ahead(g, j0);
    for (int i = 0; i < mr; i++)
        x[i] = g->x + (g->rows ? g->rows[i0 + i] : i0 + i) * g->ldx;
    for (int j = 0; j < TILE_N; j++)
        w[j] = (const char *)g->w->data + (j0 + (j < nr ? j : nr - 1)) * g->row_bytes;
    for (int32_t k = 0; k < cols; k += g->leaf) {
        int32_t end = cols - k < g->leaf ? cols : k + g->leaf;
        g->tile(x, mr, w, k, end, ahead, sums);
        if (g->sum)
            add_leaves(g, i0, mr, j0, nr, sums);
        else
            put_sums(g, i0, mr, j0, nr, sums);
    }
}

/* Rows of the next tile of `rows` that are left: as even as can be. */
static int tile_rows(int32_t rows)
{
    int32_t tiles = (rows + TILE_M - 1) / TILE_M;
    return (int)((rows + tiles - 1) / tiles);
}

static void run_tiles(struct gemm_job *g, int32_t i0, int32_t i1, int32_t j0, int32_t j1)
{
    int mr;
    if (WEIGHTS_STAY) {
        for (int32_t j = j0; j < j1; j += TILE_N)
            for (int32_t i = i0; i < i1; i += mr) {
                mr = tile_rows(i1 - i);
                run_tile(g, i, mr, j);
            }
        return;
    }
    for (int32_t i = i0; i < i1; i += mr) {
        mr = tile_rows(i1 - i);
        for (int32_t j = j0; j < j1; j += TILE_N)
            run_tile(g, i, mr, j);
    }
}

/* As many rows of `bytes` as a block has, a multiple of `tile`. */
static int32_t block_rows(int64_t bytes, int32_t tile)
{
    int32_t rows = (int32_t)(BLOCK_BYTES / bytes) / tile * tile;
    return rows < tile ? tile : rows;
}

static void run_gemm(struct gemm_job *g, int32_t m)
{
    static gemm_tile *const tiles[] = {
        [DTYPE_F32] = tile_f32, [DTYPE_F16] = tile_f16, [DTYPE_BF16] = tile_bf16};
    int32_t cols = g->w->cols;
    g->tile = tiles[g->w->dtype];
    g->row_bytes = cols * (int64_t)dtype_size(g->w->dtype);
    int32_t mb = WEIGHTS_STAY ? block_rows(cols * 4LL, TILE_M) : m;
    int32_t nb = WEIGHTS_STAY ? g->n1 - g->n0 : block_rows(g->row_bytes, TILE_N);
    for (int32_t i = 0; i < m; i += mb)
        for (int32_t j = g->n0; j < g->n1; j += nb)
            run_tiles(g, i, m - i < mb ? m : i + mb, j, g->n1 - j < nb ? g->n1 : j + nb);
}

static void op_gemm(const float *x, int64_t ldx, const int32_t *rows, int32_t m,
                    const struct matrix *w, int32_t n0, int32_t n1, struct ahead next, float *y,
                    int64_t ldy)
{
    struct gemm_job g = {.x = x,
                         .ldx = ldx,
                         .rows = rows,
                         .w = w,
                         .leaf = w->cols,
                         .n0 = n0,
                         .n1 = n1,
                         .next = next,
                         .y = y,
                         .ldy = ldy};
    run_gemm(&g, m);
}

static float op_gemm_leaf(const float *x, int64_t ldx, int32_t m, const struct matrix *w,
                          int32_t leaf, int32_t n0, int32_t n1, struct ahead next,
                          const float *scale, const int32_t *out, double *sum, int64_t ldsum)
{
    struct gemm_job g = {.x = x,
                         .ldx = ldx,
                         .w = w,
                         .leaf = leaf,
                         .n0 = n0,
                         .n1 = n1,
                         .next = next,
                         .scale = scale,
                         .out = out,
                         .sum = sum,
                         .ldsum = ldsum};
    float largest;
    run_gemm(&g, m);
    for (int j = 1; j < TILE_N; j++)
        g.largest[0] = g.largest[j] > g.largest[0] ? g.largest[j] : g.largest[0];
    memcpy(&largest, &g.largest[0], sizeof largest);
    return largest;
}

static void op_rms_norm(const float *x, const float *w, int32_t n, float eps, float *y)
{
    v16 acc = v_zero();
    int32_t k = 0;
    for (; k + 16 <= n; k += 16) {
        v16 a = v_load(x + k);
        acc = v_fma(a, a, acc);
    }
    if (k < n) {
        v16 a = v_load_part(x + k, (int)(n - k), 0.0f);
        acc = v_fma(a, a, acc);
    }
    float r = 1.0f / __builtin_sqrtf(v_sum(acc) / (float)n + eps);
    v16 scale = v_set(r);
    for (k = 0; k + 16 <= n; k += 16)
        v_store(y + k, v_mul(v_load(w + k), v_mul(v_load(x + k), scale)));
    for (; k < n; k++)
        y[k] = w[k] * (x[k] * r);
}

VEC_INLINE v16 silu_mul16(v16 g, v16 u)
{
    v16 e = v_exp(v_sub(v_zero(), g));
    return v_mul(v_div(g, v_add(v_set(1.0f), e)), u);
}

static void op_silu_mul(float *g, const float *u, int32_t n)
{
    int32_t k = 0;
    for (; k + 16 <= n; k += 16)
        v_store(g + k, silu_mul16(v_load(g + k), v_load(u + k)));
    if (k < n) {
        int rest = (int)(n - k);
        v_store_part(g + k,
                     silu_mul16(v_load_part(g + k, rest, 0.0f), v_load_part(u + k, rest, 0.0f)),
                     rest);
    }
}

static void op_softmax(float *x, int32_t n)
{
    float sum = v_exp_row(x, n, v_row_max(x, n));
    v16 d = v_set(sum);
    int32_t k = 0;
    for (; k + 16 <= n; k += 16)
        v_store(x + k, v_div(v_load(x + k), d));
    for (; k < n; k++)
        x[k] /= sum;
}

extern const struct cpu_rows CAT(cpu_rows_, OPS_NAME);           /* rows.c */
extern const struct cpu_attention CAT(cpu_attention_, OPS_NAME); /* attention_ops.c */

/* `set`'s kernels of panels, everything else of OPS_NAME. */
#define TABLE(set)                                                                                 \
    PANELS_DECLARE(set)                                                                            \
    const struct cpu_ops *CAT(cpu_ops_, set)(void); /* for choose.c */                             \
    const struct cpu_ops *CAT(cpu_ops_, set)(void)                                                 \
    {                                                                                              \
        static const struct cpu_ops table = {                                                      \
            .name = STR(set),                                                                      \
            .rows = &CAT(cpu_rows_, OPS_NAME),                                                     \
            .attention = &CAT(cpu_attention_, OPS_NAME),                                           \
            .gemm = op_gemm,                                                                       \
            .gemm_leaf = op_gemm_leaf,                                                             \
            .quantise = CAT(panels_quantise_, set),                                                \
            .gemm_panels = CAT(panels_gemm_, set),                                                 \
            .gemm_panels_leaf = CAT(panels_gemm_leaf_, set),                                       \
            .rms_norm = op_rms_norm,                                                               \
            .silu_mul = op_silu_mul,                                                               \
            .softmax = op_softmax,                                                                 \
        };                                                                                         \
        return &table;                                                                             \
    }

TABLE(OPS_NAME)
OPS_TABLES /* sets that differ in these kernels alone: TABLE(name) for each, from the build */
