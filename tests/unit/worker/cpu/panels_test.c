/*
 * The kernels of weights in panels: every instruction set must give the bits of a plain reference
 * in the words of worker/cpu/ops.h and partition/panel.h, however rows and panels are grouped.
 */
#include "base/check.h"
#include "tests/unit/random.h"
#include "tests/unit/sets.h"
#include "tests/unit/unit.h"
#include "worker/cpu/ops.h"
#include "worker/cpu/vec.h"

#include <math.h>

static const float SENTINEL = 12345.5f;

static int available_sets(const struct cpu_ops *sets[MAX_SETS])
{
    struct test_set here[MAX_SETS];
    int count = test_sets(false, here);
    for (int i = 0; i < count; i++)
        sets[i] = here[i].ops;
    return count;
}

static bool same_bits(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b);
}

static void *border64(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    assert_non_null(p);
    memset(p, 0x55, (bytes + 63) / 64 * 64 + 64);
    return p;
}

/* A matrix whose every byte is drawn: codes 1 to 255 in 8 bits, any index in 4. `extreme`: codes
 * -127 and 127 alone. */
static struct matrix random_panels(uint64_t *rng, int32_t rows, int32_t cols, int bits,
                                   bool extreme)
{
    uint64_t panel = panel_bytes(cols, bits), count = (uint64_t)panel_count(rows);
    uint8_t *data = border64(panel * count);
    for (uint64_t p = 0; p < count; p++) {
        uint16_t *scale = (uint16_t *)(void *)(data + p * panel);
        for (uint64_t i = 0; i < panel_scale_bytes(cols) / 2; i++)
            scale[i] = f32_to_bf16(random_float(rng, extreme ? 1.0 : 1e-2));
        for (uint64_t i = panel_scale_bytes(cols); i < panel; i++) {
            uint8_t any = (uint8_t)random_int(rng, bits == 4 ? 0 : 1, 255);
            data[p * panel + i] = !extreme ? any : any & 1 ? 255 : 1;
            if (extreme && bits == 4)
                data[p * panel + i] = (uint8_t)((any & 1 ? 15 : 0) | (any & 2 ? 240 : 0));
        }
    }
    return (struct matrix){.data = data,
                           .rows = rows,
                           .cols = cols,
                           .shape = {.form = bits == 4 ? FORM_PANELS4 : FORM_PANELS8}};
}

/* As panel.h says it. */
static int code_at(const struct matrix *w, int32_t row, int32_t col)
{
    int bits = w->shape.form == FORM_PANELS4 ? 4 : 8;
    const uint8_t *codes = (const uint8_t *)w->data +
                           (uint64_t)(row / PANEL_ROWS) * panel_bytes(w->cols, bits) +
                           panel_scale_bytes(w->cols);
    int block = col / PANEL_BLOCK, quad = col % PANEL_BLOCK / 4;
    int at = row % PANEL_ROWS * 4 + col % 4;
    if (bits == 8)
        return codes[block * PANEL_BLOCK8 + quad * 64 + at] - 128;
    uint8_t pair = codes[block * PANEL_BLOCK4 + quad / 2 * 64 + at];
    return panel_codebook[quad % 2 ? pair >> 4 : pair & 15] - 128;
}

static float scale_at(const struct matrix *w, int32_t row, int32_t block)
{
    int bits = w->shape.form == FORM_PANELS4 ? 4 : 8;
    const uint16_t *scales = (const uint16_t *)(const void *)((const uint8_t *)w->data +
                                                              (uint64_t)(row / PANEL_ROWS) *
                                                                  panel_bytes(w->cols, bits));
    return bf16_to_f32(scales[block * PANEL_ROWS + row % PANEL_ROWS]);
}

static struct act act_create(int32_t rows, int32_t cols)
{
    struct act a = {.blocks = panel_blocks(cols)};
    size_t n = (size_t)rows * (size_t)a.blocks;
    a.code = border64(n * PANEL_BLOCK);
    a.scale = border64(n * sizeof *a.scale);
    a.bias = border64(n * sizeof *a.bias);
    return a;
}

static void act_destroy(struct act *a)
{
    free(a->code);
    free(a->scale);
    free(a->bias);
}

/* The reference for quantise: one span after the other, with the C library's rounding. */
static void reference_quantise(const float *x, int32_t n, int32_t leaf, const struct act *out,
                               int64_t row)
{
    for (int32_t b = 0; b < out->blocks; b++) {
        int32_t begin = b * PANEL_BLOCK, origin = leaf ? begin / leaf * leaf : 0;
        int32_t start = origin + (begin - origin) / ACT_SPAN * ACT_SPAN, end = start + ACT_SPAN;
        end = leaf && end > origin + leaf ? origin + leaf : end;
        end = end > n ? n : end;
        float a = 0.0f;
        bool nan = false;
        for (int32_t k = start; k < end; k++) {
            nan = nan || x[k] != x[k];
            a = fabsf(x[k]) > a ? fabsf(x[k]) : a;
        }
        a = nan ? NAN : a;
        float factor = 127.0f / a;
        int32_t sum = 0;
        for (int32_t k = begin; k < begin + PANEL_BLOCK; k++) {
            long code = k < end && isfinite(a) && isfinite(factor) ? lrintf(x[k] * factor) : 0;
            assert_in_range(code + 127, 0, 254);
            out->code[row * out->blocks * PANEL_BLOCK + k] = (int8_t)code;
            sum += (int32_t)code;
        }
        out->scale[row * out->blocks + b] = a * (1.0f / 127.0f);
        out->bias[row * out->blocks + b] = -128 * sum;
    }
}

/* Of row `row` of x and row j of w, over blocks [b0, b1). */
static float reference_dot(const struct act *x, int64_t row, const struct matrix *w, int32_t j,
                           int32_t b0, int32_t b1)
{
    float sum = 0.0f;
    for (int32_t b = b0; b < b1; b += ACT_SPAN / PANEL_BLOCK) {
        float g = 0.0f;
        for (int32_t c = b; c < b1 && c < b + ACT_SPAN / PANEL_BLOCK; c++) {
            int32_t d = 0;
            for (int32_t k = c * PANEL_BLOCK; k < (c + 1) * PANEL_BLOCK; k++)
                d += x->code[row * x->blocks * PANEL_BLOCK + k] * code_at(w, j, k);
            g = fmaf((float)d, scale_at(w, j, c), g);
        }
        sum = fmaf(g, x->scale[row * x->blocks + b], sum);
    }
    return sum;
}

/* Rows of activations of several sizes; `odd` puts in what is not usual. */
static float *random_rows(uint64_t *rng, int32_t rows, int32_t cols, bool odd)
{
    static const float unusual[] = {NAN, INFINITY, -INFINITY, 1e-38f, 1e-44f, 3e38f, -0.0f};
    float *x = check_calloc((size_t)rows * (size_t)cols, sizeof *x);
    for (int32_t i = 0; i < rows; i++) {
        double size = (double[]){1.0, 1e-3, 40.0, 0.0}[random_int(rng, 0, odd ? 3 : 2)];
        for (int32_t k = 0; k < cols; k++)
            x[(int64_t)i * cols + k] = random_float(rng, size);
        for (int32_t k = 0; odd && k < cols; k++) {
            if (random_int(rng, 0, 99) == 0)
                x[(int64_t)i * cols + k] = unusual[random_int(rng, 0, COUNT_OF(unusual) - 1)];
            if (random_int(rng, 0, 299) == 0) /* all-zero spans */
                for (int32_t z = k; z < cols && z < k + 300; z++)
                    x[(int64_t)i * cols + z] = 0.0f;
        }
    }
    return x;
}

static void check_quantise(uint64_t *rng, const struct cpu_ops **sets, int count)
{
    static const int32_t leaves[] = {0, 32, 64, 96, 128, 160, 192, 256};
    int32_t n = random_int(rng, 1, 700), rows = 3, leaf = leaves[random_int(rng, 0, 7)];
    float *x = random_rows(rng, rows, n, true);
    struct act expected = act_create(rows, n), found = act_create(rows, n);
    int64_t blocks = (int64_t)rows * expected.blocks;
    for (int32_t i = 0; i < rows; i++)
        reference_quantise(x + (int64_t)i * n, n, leaf, &expected, i);
    for (int s = 0; s < count; s++) {
        memset(found.code, 0x55, (size_t)blocks * PANEL_BLOCK);
        for (int32_t i = 0; i < rows; i++)
            sets[s]->quantise(x + (int64_t)i * n, n, leaf, &found, i);
        assert_memory_equal(found.code, expected.code, (size_t)blocks * PANEL_BLOCK);
        assert_memory_equal(found.bias, expected.bias, (size_t)blocks * sizeof(int32_t));
        for (int64_t b = 0; b < blocks; b++)
            assert_true(same_bits(found.scale[b], expected.scale[b]));
    }
    act_destroy(&expected);
    act_destroy(&found);
    free(x);
}

static void quantise(void **state)
{
    (void)state;
    uint64_t rng = 1;
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    for (int trial = 0; trial < 400; trial++)
        check_quantise(&rng, sets, count);
}

/* Halves between two codes go to the even one, whatever the way of rounding. */
static void quantise_rounds_ties_to_even(void **state)
{
    (void)state;
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    float x[256];
    struct act a = act_create(1, 256);
    for (int k = 0; k < 256; k++)
        x[k] = k % ACT_SPAN == 0 ? 127.0f : (float)(k / 2) - 63.5f;
    for (int s = 0; s < count; s++) {
        sets[s]->quantise(x, 256, 0, &a, 0);
        for (int k = 0; k < 256; k++)
            assert_int_equal(a.code[k], lrint((double)x[k]));
        assert_true(a.scale[0] == 127.0f * (1.0f / 127.0f));
    }
    act_destroy(&a);
}

/* One product: m of x's rows, chosen by `rows` where it is not NULL, times w's rows. */
struct product {
    struct act x;
    int32_t m, *rows;
    int64_t first;
    int32_t leaf; /* 0: none */
    struct matrix w;
    int64_t ldy;
    void *scratch;
};

struct shape {
    int32_t m, n, k, leaf;
    int bits;
    bool extreme, odd;
};

static void fill_extreme(uint64_t *rng, float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = random_int(rng, 0, 7) ? 5.0f : -5.0f;
}

static struct product random_product(uint64_t *rng, struct shape s)
{
    int32_t x_rows = s.m + 3;
    struct product p = {.x = act_create(x_rows, s.k),
                        .m = s.m,
                        .leaf = s.leaf,
                        .first = s.leaf ? random_int(rng, 0, 3) : 0,
                        .w = random_panels(rng, s.n, s.k, s.bits, s.extreme),
                        .ldy = s.n + random_int(rng, 0, 3),
                        .scratch = border64(panel_scratch_bytes(s.k))};
    float *x = random_rows(rng, x_rows, s.k, s.odd);
    if (s.extreme)
        fill_extreme(rng, x, (int64_t)x_rows * s.k);
    for (int32_t i = 0; i < x_rows; i++)
        reference_quantise(x + (int64_t)i * s.k, s.k, s.leaf, &p.x, i);
    if (!s.leaf && random_int(rng, 0, 1)) {
        p.rows = check_calloc((size_t)s.m, sizeof *p.rows);
        for (int32_t i = 0; i < s.m; i++)
            p.rows[i] = random_int(rng, 0, x_rows - 1);
    }
    free(x);
    return p;
}

static void product_free(struct product *p)
{
    act_destroy(&p->x);
    free(p->rows);
    free((void *)p->w.data);
    free(p->scratch);
}

/* The whole, or in pieces of panels and rows; between rows nothing is written. */
static void check_plain(uint64_t *rng, const struct cpu_ops *ops, const struct product *p,
                        const float *expected, bool pieces)
{
    int32_t panels = panel_count(p->w.rows), m = p->m;
    float *y = check_calloc((size_t)(m * p->ldy), sizeof *y);
    struct ahead next = {.data = p->w.data, .bytes = (uint64_t)random_int(rng, 0, 200)};
    for (int64_t i = 0; i < m * p->ldy; i++)
        y[i] = SENTINEL;
    for (int32_t p0 = 0, p1; p0 < panels; p0 = p1) {
        p1 = p0 + (pieces ? random_int(rng, 1, 4) : panels);
        p1 = p1 < panels ? p1 : panels;
        for (int32_t i = 0, rows; i < m; i += rows) {
            rows = pieces && p->rows ? random_int(rng, 1, 9) : m;
            rows = rows < m - i ? rows : m - i;
            ops->gemm_panels(&p->x, p->rows ? p->rows + i : NULL, rows, &p->w, p0, p1, next,
                             y + i * p->ldy + p0 * PANEL_ROWS, p->ldy, p->scratch);
        }
    }
    for (int64_t i = 0; i < m * p->ldy; i++)
        if (!same_bits(y[i], expected[i]))
            fail_msg("%s, %d x %d x %d: element %lld is %a, expected %a", ops->name, m, p->w.rows,
                     p->w.cols, (long long)i, (double)y[i], (double)expected[i]);
    free(y);
}

static void check_product(uint64_t *rng, const struct cpu_ops **sets, int count, struct shape s)
{
    struct product p = random_product(rng, s);
    float *expected = check_calloc((size_t)(p.m * p.ldy), sizeof *expected);
    for (int32_t i = 0; i < p.m; i++)
        for (int32_t j = 0; j < p.ldy; j++)
            expected[i * p.ldy + j] = j < s.n ? reference_dot(&p.x, p.rows ? p.rows[i] : i, &p.w, j,
                                                              0, p.x.blocks)
                                              : SENTINEL;
    for (int set = 0; set < count; set++) {
        check_plain(rng, sets[set], &p, expected, false);
        check_plain(rng, sets[set], &p, expected, true);
    }
    free(expected);
    product_free(&p);
}

static void gemm_panels(void **state)
{
    (void)state;
    uint64_t rng = 2;
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    for (int trial = 0; trial < 120; trial++)
        check_product(&rng, sets, count,
                      (struct shape){.m = random_int(&rng, 1, 20),
                                     .n = random_int(&rng, 1, 90),
                                     .k = random_int(&rng, 1, 400),
                                     .bits = trial % 2 ? 4 : 8,
                                     .odd = trial % 3 == 0});
}

/* Each number of rows, so that each tile and each rest of tiles is met. */
static void gemm_panels_of_any_rows(void **state)
{
    (void)state;
    uint64_t rng = 3;
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    for (int32_t m = 1; m <= 70; m++)
        for (int bits = 4; bits <= 8; bits += 4)
            check_product(&rng, sets, count,
                          (struct shape){.m = m, .n = 37, .k = 161, .bits = bits});
}

/* Every |code| the largest there is, most of them of one sign: nothing may saturate. */
static void gemm_panels_of_extreme_codes(void **state)
{
    (void)state;
    uint64_t rng = 4;
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    for (int trial = 0; trial < 24; trial++)
        check_product(&rng, sets, count,
                      (struct shape){.m = random_int(&rng, 1, 9),
                                     .n = 40,
                                     .k = 256,
                                     .bits = trial % 2 ? 4 : 8,
                                     .extreme = true});
}

/* All weights and all activations at one end: the largest sum that a block can have. */
static void gemm_panels_of_the_largest_sums(void **state)
{
    (void)state;
    uint64_t rng = 5;
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    for (int ends = 0; ends < 4; ends++) {
        struct product p = random_product(
            &rng, (struct shape){.m = 7, .n = 16, .k = 32, .bits = 8, .extreme = true});
        int code = ends & 1 ? 127 : -127, x = ends & 2 ? 127 : -127;
        float y[7 * 20];
        memset((uint8_t *)(uintptr_t)p.w.data + panel_scale_bytes(32), code + 128, PANEL_BLOCK8);
        memset(p.x.code, x, 10 * 32);
        for (int i = 0; i < 10; i++) {
            p.x.scale[i] = 1.0f;
            p.x.bias[i] = -128 * 32 * x;
        }
        for (int s = 0; s < count; s++) {
            sets[s]->gemm_panels(&p.x, NULL, 7, &p.w, 0, 1, (struct ahead){0}, y, 20, p.scratch);
            for (int i = 0; i < 7; i++)
                for (int j = 0; j < 16; j++)
                    assert_true(y[i * 20 + j] == (float)(32 * code * x) * scale_at(&p.w, j, 0));
        }
        product_free(&p);
    }
}

/* What the leaves sum to, in integers of 2^-32. */
static float reference_leaves(const struct product *p, const float *scale, const int32_t *out,
                              int64_t ldsum, int64_t *sum)
{
    float largest = 0.0f;
    for (int32_t i = 0; i < p->m; i++)
        for (int32_t j = 0; j < p->w.rows; j++)
            for (int32_t b = 0; b < p->x.blocks; b += p->leaf / PANEL_BLOCK) {
                int32_t end = b + p->leaf / PANEL_BLOCK;
                end = end < p->x.blocks ? end : p->x.blocks;
                float leaf = (scale ? scale[i] : 1.0f) *
                             reference_dot(&p->x, p->first + i, &p->w, j, b, end);
                largest = fabsf(leaf) > largest ? fabsf(leaf) : largest;
                sum[(out ? out[i] : i) * ldsum + j] += (int64_t)nearbyintl((long double)leaf *
                                                                           0x1p32L);
            }
    return largest;
}

static void check_leaf_set(uint64_t *rng, const struct cpu_ops *ops, const struct product *p,
                           const float *scale, const int32_t *out, const int64_t *exact,
                           float largest)
{
    int32_t panels = panel_count(p->w.rows);
    int64_t n = (p->m + 2) * p->ldy;
    double *sum = check_calloc((size_t)n, sizeof *sum);
    float found = 0.0f;
    struct ahead next = {.data = p->w.data, .bytes = (uint64_t)random_int(rng, 0, 200)};
    for (int32_t p0 = 0, p1; p0 < panels; p0 = p1) {
        p1 = p0 + random_int(rng, 1, panels);
        p1 = p1 < panels ? p1 : panels;
        float most = ops->gemm_panels_leaf(&p->x, p->first, p->m, &p->w, p->leaf, p0, p1, next,
                                           scale, out, sum + p0 * PANEL_ROWS, p->ldy, p->scratch);
        found = most > found ? most : found;
    }
    assert_true(same_bits(found, largest));
    for (int64_t i = 0; i < n; i++)
        if (sum[i] != (double)exact[i] * 0x1p-32)
            fail_msg("%s, leaf %d: element %lld is %a, expected %a", ops->name, p->leaf,
                     (long long)i, sum[i], (double)exact[i] * 0x1p-32);
    free(sum);
}

static void check_leaf(uint64_t *rng, const struct cpu_ops **sets, int count, struct shape s)
{
    struct product p = random_product(rng, s);
    float *scale = random_int(rng, 0, 1) ? check_calloc((size_t)s.m, sizeof *scale) : NULL;
    int32_t *out = random_int(rng, 0, 1) ? check_calloc((size_t)s.m, sizeof *out) : NULL;
    int64_t *exact = check_calloc((size_t)((s.m + 2) * p.ldy), sizeof *exact);
    for (int32_t i = 0; i < s.m; i++) {
        if (scale)
            scale[i] = random_float(rng, 1.0);
        if (out)
            out[i] = random_int(rng, 0, s.m + 1); /* rows may repeat */
    }
    float largest = reference_leaves(&p, scale, out, p.ldy, exact);
    for (int set = 0; set < count; set++)
        check_leaf_set(rng, sets[set], &p, scale, out, exact, largest);
    free(scale);
    free(out);
    free(exact);
    product_free(&p);
}

static void leaf_sums_are_exact(void **state)
{
    (void)state;
    uint64_t rng = 6;
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    static const int32_t leaves[] = {32, 64, 96, 128, 192};
    for (int trial = 0; trial < 80; trial++)
        check_leaf(&rng, sets, count,
                   (struct shape){.m = random_int(&rng, 1, 15),
                                  .n = random_int(&rng, 1, 60),
                                  .k = random_int(&rng, 1, 500),
                                  .leaf = leaves[trial % 5],
                                  .bits = trial % 2 ? 4 : 8});
}

/* More rows than meet a panel at once, in every set: with so many columns a turn has about 60. */
static void rows_in_several_turns(void **state)
{
    (void)state;
    uint64_t rng = 8;
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    struct shape s = {.m = 67, .n = 35, .k = 4200};
    for (s.bits = 4; s.bits <= 8; s.bits += 4) {
        s.leaf = 0;
        check_product(&rng, sets, count, s);
        s.leaf = 128;
        for (int trial = 0; trial < 3; trial++) /* with scales, with places, with both or neither */
            check_leaf(&rng, sets, count, s);
    }
}

static void leaf_reports_what_is_out_of_range(void **state)
{
    (void)state;
    uint64_t rng = 7;
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, 1e12f};
    for (size_t i = 0; i < COUNT_OF(odd); i++) {
        struct product p = random_product(
            &rng, (struct shape){.m = 3, .n = 16, .k = 64, .leaf = 32, .bits = 8});
        float x[64] = {1.0f};
        x[40] = odd[i];
        reference_quantise(x, 64, 32, &p.x, p.first + 1);
        for (int s = 0; s < count; s++) {
            double sum[3 * 16] = {0};
            float most = sets[s]->gemm_panels_leaf(&p.x, p.first, 3, &p.w, 32, 0, 1,
                                                   (struct ahead){0}, NULL, NULL, sum, 16,
                                                   p.scratch);
            assert_false(most <= 1048576.0f); /* as the range check asks, NaN included */
        }
        product_free(&p);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(quantise),
    cmocka_unit_test(quantise_rounds_ties_to_even),
    cmocka_unit_test(gemm_panels),
    cmocka_unit_test(gemm_panels_of_any_rows),
    cmocka_unit_test(gemm_panels_of_extreme_codes),
    cmocka_unit_test(gemm_panels_of_the_largest_sums),
    cmocka_unit_test(leaf_sums_are_exact),
    cmocka_unit_test(rows_in_several_turns),
    cmocka_unit_test(leaf_reports_what_is_out_of_range),
};

UNIT_MAIN(tests)
