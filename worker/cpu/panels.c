/*
 * Products of activations in 8 bits with weights in panels: see ops.h for the arithmetic,
 * partition/panel.h for the weights' order, dot.h for the inner product. Compiled once for each
 * instruction set.
 *
 * A tile is TILE_ROWS rows of activations by TILE_PANELS panels; its lanes are a panel's rows, so
 * that nothing is ever summed over lanes.
 */
#include "worker/cpu/panels.h"

#include "worker/cpu/dot.h"

#include <math.h>

PANELS_DECLARE(OPS_NAME)

enum { SPAN_BLOCKS = ACT_SPAN / PANEL_BLOCK };

/* A tile, as the registers hold it; any size gives the same bits. */
#if defined(OPS_AVX512) && defined(OPS_VNNI)
#define MOST_ROWS 6
#define MOST_PANELS 2
#elif defined(OPS_I8MM)
#define MOST_ROWS 4
#define MOST_PANELS 1
#elif defined(OPS_AVX512)
#define MOST_ROWS 6
#define MOST_PANELS 1
#elif (defined(OPS_AVX2) && defined(OPS_VNNI)) || defined(OPS_DOTPROD)
#define MOST_ROWS 3
#define MOST_PANELS 1
#elif defined(OPS_AVX2) || defined(OPS_NEON)
#define MOST_ROWS 2
#define MOST_PANELS 1
#else
#define MOST_ROWS 1
#define MOST_PANELS 1
#endif

/* What a tile meets: codes of 8 bits or indices of 4, as they lie in a panel, or what codes_pair
 * made of either. From UNPACK_ROWS rows on, a panel becomes what is quickest once for all rows. */
#if defined(OPS_I8MM)
enum kind { INDICES, CODES, PAIRS, KINDS };
enum { TILE_ROWS = MOST_ROWS, TILE_PANELS = MOST_PANELS, UNPACK_ROWS = TILE_ROWS };
#else
enum kind { INDICES, CODES, KINDS };
enum { TILE_ROWS = MOST_ROWS, TILE_PANELS = MOST_PANELS, UNPACK_ROWS = TILE_ROWS + 1 };
#endif

/* What a tile reads. */
struct tile {
    const int8_t *x[TILE_ROWS]; /* as dot_add takes them */
    const float *scale[TILE_ROWS];
    const int32_t *bias[TILE_ROWS];
    const uint8_t *code[TILE_PANELS];
    const uint16_t *weight_scale[TILE_PANELS];
    /* Weights to ask for meanwhile: `lines` of 64 bytes a block, up to `ahead_end`. */
    const char *ahead, *ahead_end;
    int lines;
};

enum { TWO_QUADS = PANEL_QUADS / 2 }; /* of a block */

/* g[i][j] += the products of block b. */
VEC_INLINE void block_dot(const struct tile *t, int rows, int panels, enum kind kind, int32_t b,
                          v16 g[TILE_ROWS][TILE_PANELS])
{
    dot d[TILE_ROWS][TILE_PANELS];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < panels; j++)
            d[i][j] = dot_begin(t->bias[i][b]);
#pragma GCC unroll 4
    for (int pair = 0; pair < TWO_QUADS; pair++) {
        codes w[TILE_PANELS][2];
#pragma GCC unroll 2
        for (int j = 0; j < panels; j++) {
            if (kind == INDICES) {
                codes_of_indices(t->code[j] + (b * TWO_QUADS + pair) * (int64_t)64, w[j]);
                continue;
            }
            w[j][0] = codes_load(t->code[j] + (b * TWO_QUADS + pair) * (int64_t)128);
            w[j][1] = codes_load(t->code[j] + (b * TWO_QUADS + pair) * (int64_t)128 + 64);
        }
#pragma GCC unroll 2
        for (int q = 0; q < 2; q++)
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
                for (int j = 0; j < panels; j++)
                    d[i][j] = dot_add(d[i][j], w[j][q],
                                      t->x[i] +
                                          ((b * TWO_QUADS + pair) * 2 + q) * (int64_t)DOT_QUAD);
    }
#pragma GCC unroll 2
    for (int j = 0; j < panels; j++) {
        v16 scale = v_load_bf16(t->weight_scale[j] + b * PANEL_ROWS);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
            g[i][j] = v_fma(dot_end(d[i][j], t->bias[i][b]), scale, g[i][j]);
    }
}

#if defined(OPS_I8MM)
/* The same for rows in twos, of which the last may stand alone. */
VEC_INLINE void block_pairs(const struct tile *t, int rows, int32_t b, v16 g[TILE_ROWS][1])
{
    dot_pair d[TILE_ROWS / 2];
#pragma GCC unroll 2
    for (int i = 0; i < rows; i += 2)
        d[i / 2] = dot_pair_begin();
#pragma GCC unroll 4
    for (int64_t k = b * TWO_QUADS; k < (b + 1) * TWO_QUADS; k++)
#pragma GCC unroll 2
        for (int i = 0; i < rows; i += 2)
            d[i / 2] = dot_pair_add(d[i / 2], t->code[0] + k * 128, t->x[i] + k * 8,
                                    t->x[i + 1 < rows ? i + 1 : i] + k * 8);
    v16 scale = v_load_bf16(t->weight_scale[0] + b * PANEL_ROWS);
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
        g[i][0] = v_fma(dot_pair_end(d[i / 2], i % 2), scale, g[i][0]);
}
#endif

VEC_INLINE void fetch_ahead(struct tile *t)
{
    const char *p = t->ahead;
    if (p >= t->ahead_end)
        return;
    for (int l = 0; l < t->lines; l++, p += 64)
        __builtin_prefetch(p, 0, 2); /* into the second-level cache */
    t->ahead = p;
}

/* sum[i][j] = the product over blocks [b0, b1), spans beginning at b0. */
VEC_INLINE void tile_dot(struct tile *t, int rows, int panels, enum kind kind, int32_t b0,
                         int32_t b1, float sum[TILE_ROWS][TILE_PANELS][PANEL_ROWS])
{
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < panels; j++)
            v_store(sum[i][j], v_zero());
    for (int32_t b = b0, end; b < b1; b = end) {
        v16 g[TILE_ROWS][TILE_PANELS];
        end = b + SPAN_BLOCKS < b1 ? b + SPAN_BLOCKS : b1;
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int j = 0; j < panels; j++)
                g[i][j] = v_zero();
        __asm__ volatile("" ::: "memory"); /* leaves the sums there: registers are for blocks */
        for (int32_t c = b; c < end; c++) {
#if defined(OPS_I8MM)
            if (kind == PAIRS)
                block_pairs(t, rows, c, g);
            else
#endif
                block_dot(t, rows, panels, kind, c, g);
            fetch_ahead(t);
        }
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int j = 0; j < panels; j++)
                v_store(sum[i][j], v_fma(g[i][j], v_set(t->scale[i][b]), v_load(sum[i][j])));
    }
}

typedef void (*tile_fn)(struct tile *t, int32_t b0, int32_t b1,
                        float sum[TILE_ROWS][TILE_PANELS][PANEL_ROWS]);

#define TILE(rows, panels, kind)                                                                   \
    static void tile_##rows##_##panels##_##kind(struct tile *t, int32_t b0, int32_t b1,            \
                                                float sum[TILE_ROWS][TILE_PANELS][PANEL_ROWS])     \
    {                                                                                              \
        tile_dot(t, rows, panels, kind, b0, b1, sum);                                              \
    }

#if defined(OPS_I8MM)
#define TILES_OF(rows, panels)                                                                     \
    TILE(rows, panels, INDICES) TILE(rows, panels, CODES) TILE(rows, panels, PAIRS)
#define NAMES_OF(rows, panels)                                                                     \
    {                                                                                              \
        tile_##rows##_##panels##_INDICES, tile_##rows##_##panels##_CODES,                          \
            tile_##rows##_##panels##_PAIRS                                                         \
    }
#else
#define TILES_OF(rows, panels) TILE(rows, panels, INDICES) TILE(rows, panels, CODES)
#define NAMES_OF(rows, panels)                                                                     \
    {                                                                                              \
        tile_##rows##_##panels##_INDICES, tile_##rows##_##panels##_CODES                           \
    }
#endif

#if MOST_PANELS == 2
#define TILES(rows) TILES_OF(rows, 1) TILES_OF(rows, 2)
#define NAMES(rows)                                                                                \
    {                                                                                              \
        NAMES_OF(rows, 1), NAMES_OF(rows, 2)                                                       \
    }
#else
#define TILES(rows) TILES_OF(rows, 1)
#define NAMES(rows)                                                                                \
    {                                                                                              \
        NAMES_OF(rows, 1)                                                                          \
    }
#endif

TILES(1)
#if MOST_ROWS >= 2
TILES(2)
#endif
#if MOST_ROWS >= 3
TILES(3)
#endif
#if MOST_ROWS >= 4
TILES(4)
#endif
#if MOST_ROWS >= 6
TILES(5)
TILES(6)
#endif

static const tile_fn tiles[TILE_ROWS][TILE_PANELS][KINDS] = {
    NAMES(1),
#if MOST_ROWS >= 2
    NAMES(2),
#endif
#if MOST_ROWS >= 3
    NAMES(3),
#endif
#if MOST_ROWS >= 4
    NAMES(4),
#endif
#if MOST_ROWS >= 6
    NAMES(5), NAMES(6),
#endif
};

/* What the tiles of one call share. */
struct panels_job {
    const struct act *x;
    const int32_t *rows;
    int64_t first;
    int32_t m;
    const struct matrix *w;
    int32_t p0, p1;
    struct ahead next;
    int32_t i0, i1;    /* the rows that panels meet together */
    uint8_t *unpacked; /* [TILE_PANELS] panels' codes */
    int8_t *prepared;  /* [PANEL_PREPARED] rows as dot_prepare writes them */
    /* gemm_panels */
    float *y;
    int64_t ldy;
    /* gemm_panels_leaf */
    int32_t leaf_blocks;
    const float *scale;
    const int32_t *out;
    double *sum;
    int64_t ldsum;
    uint32_t largest[PANEL_ROWS]; /* bits of the largest |leaf| so far */
};

static const int8_t *row_codes(const struct panels_job *g, int64_t row)
{
    return g->x->code + row * g->x->blocks * PANEL_BLOCK;
}

static int64_t row_of(const struct panels_job *g, int32_t i)
{
    return g->rows ? g->rows[i] : g->first + i;
}

static int8_t *prepared_row(const struct panels_job *g, int32_t i)
{
    return g->prepared + (int64_t)(i - g->i0) * g->x->blocks * PANEL_QUADS * DOT_QUAD;
}

static void tile_rows(const struct panels_job *g, int32_t i0, int mr, struct tile *t)
{
    for (int i = 0; i < mr; i++) {
        int64_t row = row_of(g, i0 + i);
        t->x[i] = DOT_PREPARES ? prepared_row(g, i0 + i) : row_codes(g, row);
        t->scale[i] = g->x->scale + row * g->x->blocks;
        t->bias[i] = g->x->bias + row * g->x->blocks;
    }
}

/* Of a panel's codes what tiles of many rows take. */
static enum kind unpack(const uint8_t *code, int bits, int32_t blocks, uint8_t *to)
{
    for (int64_t k = 0; k < (int64_t)blocks * PANEL_BLOCK8; k += 128) {
        codes w[2];
        if (bits == 4) {
            codes_of_indices(code + k / 2, w);
        } else {
            w[0] = codes_load(code + k);
            w[1] = codes_load(code + k + 64);
        }
#if defined(OPS_I8MM)
        codes_pair(to + k, w);
#else
        codes_store(to + k, w[0]);
        codes_store(to + k + 64, w[1]);
#endif
    }
    return KINDS - 1;
}

/* Panels [p, p + np); returns what they are. */
static enum kind tile_panels(const struct panels_job *g, int32_t p, int np, struct tile *t)
{
    int bits = g->w->shape.form == FORM_PANELS4 ? 4 : 8;
    int32_t cols = g->w->cols, blocks = panel_blocks(cols);
    enum kind kind = bits == 4 ? INDICES : CODES;
    bool many = g->m >= UNPACK_ROWS && kind != KINDS - 1;
    for (int j = 0; j < np; j++) {
        const uint8_t *panel = (const uint8_t *)g->w->data +
                               (uint64_t)(p + j) * panel_bytes(cols, bits);
        t->weight_scale[j] = (const uint16_t *)(const void *)panel;
        t->code[j] = panel + panel_scale_bytes(cols);
        if (many) {
            uint8_t *to = g->unpacked + (uint64_t)j * blocks * PANEL_BLOCK8;
            kind = unpack(t->code[j], bits, blocks, to);
            t->code[j] = to;
        }
    }
    return kind;
}

/* `n` lanes of panel p of row i. */
static void store_plain(struct panels_job *g, int32_t i, int32_t p, int n, const float *s)
{
    float *y = g->y + i * g->ldy + (int64_t)(p - g->p0) * PANEL_ROWS;
    if (n == PANEL_ROWS)
        memcpy(y, s, PANEL_ROWS * sizeof *y);
    else
        memcpy(y, s, (size_t)n * sizeof *y);
}

static void store_leaf(struct panels_job *g, int32_t i, int32_t p, int n, const float *s)
{
    float scale = g->scale ? g->scale[i] : 1.0f;
    double *sum = g->sum + (g->out ? g->out[i] : i) * g->ldsum + (int64_t)(p - g->p0) * PANEL_ROWS;
    if (n == PANEL_ROWS)
        add_leaf(s, PANEL_ROWS, scale, sum, g->largest);
    else
        add_leaf(s, n, scale, sum, g->largest);
}

static void run_tile(struct panels_job *g, struct tile *t, tile_fn fn, int32_t i0, int mr,
                     int32_t p, int np)
{
    _Alignas(64) float sum[TILE_ROWS][TILE_PANELS][PANEL_ROWS];
    int32_t blocks = g->x->blocks, leaf = g->sum ? g->leaf_blocks : blocks;
    for (int32_t b = 0; b < blocks; b += leaf) {
        fn(t, b, b + leaf < blocks ? b + leaf : blocks, sum);
        for (int i = 0; i < mr; i++)
            for (int j = 0; j < np; j++) {
                int32_t rest = g->w->rows - (p + j) * PANEL_ROWS;
                int n = rest < PANEL_ROWS ? (int)rest : PANEL_ROWS;
                if (g->sum)
                    store_leaf(g, i0 + i, p + j, n, sum[i][j]);
                else
                    store_plain(g, i0 + i, p + j, n, sum[i][j]);
            }
    }
}

/* What comes after these panels is asked for while these meet rows, in `count` tiles: as many more,
 * or what the caller will read then. */
static void plan_ahead(const struct panels_job *g, int32_t p, int np, int32_t count, struct tile *t)
{
    int bits = g->w->shape.form == FORM_PANELS4 ? 4 : 8;
    uint64_t bytes = panel_bytes(g->w->cols, bits);
    const char *data = g->w->data;
    uint64_t blocks = (uint64_t)g->x->blocks * (uint64_t)count, wanted = (uint64_t)np * bytes;
    t->ahead = data + (uint64_t)(p + np) * bytes;
    t->ahead_end = data + (uint64_t)g->p1 * bytes;
    if (p + np == g->p1 && g->i1 == g->m && g->next.bytes > 0) {
        wanted = g->next.bytes;
        t->ahead = g->next.data;
        t->ahead_end = t->ahead + wanted;
    }
    t->lines = (int)((wanted / 64 + blocks - 1) / blocks);
}

/* Panels [p, p + np) with the rows of this turn, in tiles as equal as can be. */
static void run_panels(struct panels_job *g, int32_t p, int np)
{
    struct tile t;
    enum kind kind = tile_panels(g, p, np, &t);
    int32_t count = (g->i1 - g->i0 + TILE_ROWS - 1) / TILE_ROWS;
    plan_ahead(g, p, np, count, &t);
    for (int32_t i = g->i0; i < g->i1; count--) {
        int mr = (int)((g->i1 - i + count - 1) / count);
        tile_rows(g, i, mr, &t);
        run_tile(g, &t, tiles[mr - 1][np - 1][kind], i, mr, p, np);
        i += mr;
    }
}

/* How many rows meet each panel while it is in the second-level cache, beside it: a quarter of
 * 1 MiB, and what is prepared at once. */
static int32_t rows_of_turn(const struct panels_job *g)
{
    int32_t most = (256 << 10) / (g->x->blocks * PANEL_BLOCK) / TILE_ROWS * TILE_ROWS;
    most = DOT_PREPARES && most > PANEL_PREPARED ? PANEL_PREPARED / TILE_ROWS * TILE_ROWS : most;
    most = most > TILE_ROWS ? most : TILE_ROWS;
    int32_t turns = (g->m + most - 1) / most;
    int32_t tiles_each = ((g->m + turns - 1) / turns + TILE_ROWS - 1) / TILE_ROWS;
    return tiles_each * TILE_ROWS;
}

static void run(struct panels_job *g, void *scratch)
{
    g->unpacked = scratch;
    g->prepared = (int8_t *)scratch + panel_scratch_codes(g->w->cols);
    if (g->m <= 0)
        return;
    int32_t turn = rows_of_turn(g);
    for (g->i0 = 0; g->i0 < g->m; g->i0 = g->i1) {
        g->i1 = g->m - g->i0 < turn ? g->m : g->i0 + turn;
        for (int32_t i = g->i0; DOT_PREPARES && i < g->i1; i++)
            dot_prepare(row_codes(g, row_of(g, i)), g->x->blocks * PANEL_BLOCK, prepared_row(g, i));
        for (int32_t p = g->p0; p < g->p1; p += TILE_PANELS)
            run_panels(g, p, g->p1 - p < TILE_PANELS ? (int)(g->p1 - p) : TILE_PANELS);
    }
}

void PANELS_CAT(panels_gemm_, OPS_NAME)(const struct act *x, const int32_t *rows, int32_t m,
                                        const struct matrix *w, int32_t p0, int32_t p1,
                                        struct ahead next, float *y, int64_t ldy, void *scratch)
{
    struct panels_job g = {
        .x = x, .rows = rows, .m = m, .w = w, .p0 = p0, .p1 = p1, .next = next, .y = y, .ldy = ldy};
    run(&g, scratch);
}

float PANELS_CAT(panels_gemm_leaf_, OPS_NAME)(const struct act *x, int64_t first, int32_t m,
                                              const struct matrix *w, int32_t leaf, int32_t p0,
                                              int32_t p1, struct ahead next, const float *scale,
                                              const int32_t *out, double *sum, int64_t ldsum,
                                              void *scratch)
{
    struct panels_job g = {.x = x,
                           .first = first,
                           .m = m,
                           .w = w,
                           .p0 = p0,
                           .p1 = p1,
                           .next = next,
                           .leaf_blocks = leaf / PANEL_BLOCK,
                           .scale = scale,
                           .out = out,
                           .sum = sum,
                           .ldsum = ldsum};
    float largest;
    run(&g, scratch);
    for (int j = 1; j < PANEL_ROWS; j++)
        g.largest[0] = g.largest[j] > g.largest[0] ? g.largest[j] : g.largest[0];
    memcpy(&largest, &g.largest[0], sizeof largest);
    return largest;
}

/* The largest |x|; NaN where there is one: its bits are above all others. */
static float span_largest(const float *x, int32_t n)
{
    uint32_t most = 0;
    float a;
    for (int32_t k = 0; k < n; k++) {
        uint32_t bits;
        memcpy(&bits, &x[k], sizeof bits);
        bits &= 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    memcpy(&a, &most, sizeof a);
    return a;
}

/* Codes of x[n]; those after, up to `room`, become 0. */
static void span_codes(const float *x, int32_t n, int32_t room, float factor, int8_t *code)
{
    for (int32_t k = 0; k < n; k++) {
        /* Adding 1.5 x 2^23 rounds to an integer, which is then in the low bits. */
        float t = x[k] * factor + 12582912.0f;
        uint32_t bits;
        memcpy(&bits, &t, sizeof bits);
        code[k] = (int8_t)(uint8_t)bits;
    }
    memset(code + n, 0, (size_t)(room - n));
}

void PANELS_CAT(panels_quantise_, OPS_NAME)(const float *x, int32_t n, int32_t leaf,
                                            const struct act *out, int64_t row)
{
    int8_t *code = out->code + row * out->blocks * PANEL_BLOCK;
    float *scale = out->scale + row * out->blocks;
    int32_t *bias = out->bias + row * out->blocks;
    for (int32_t k = 0, end = 0; k < n; k = end) {
        int32_t leaf_end = leaf > 0 ? (k / leaf + 1) * leaf : n;
        end = k + ACT_SPAN < leaf_end ? k + ACT_SPAN : leaf_end;
        end = end < n ? end : n;
        int32_t room = panel_blocks(end - k) * PANEL_BLOCK;
        float a = span_largest(x + k, end - k), factor = 127.0f / a;
        if (a < INFINITY && factor < INFINITY)
            span_codes(x + k, end - k, room, factor, code + k);
        else
            memset(code + k, 0, (size_t)room);
        for (int32_t b = k / PANEL_BLOCK; b * PANEL_BLOCK < k + room; b++) {
            int32_t sum = 0;
            for (int32_t c = 0; c < PANEL_BLOCK; c++)
                sum += code[b * PANEL_BLOCK + c];
            scale[b] = a * (1.0f / 127.0f);
            bias[b] = -128 * sum;
        }
    }
}
