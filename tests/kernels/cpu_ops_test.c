/*
 * The CPU operations: every instruction set must give the portable one's bits, the same however
 * rows and columns are grouped, and near what double precision says. With --time they are measured
 * instead (cpu_ops_time.c).
 */
#include "tests/kernels/cpu_ops.h"

#include "base/check.h"
#include "tests/unit/random.h"
#include "tests/unit/unit.h"
#include "worker/cpu/vec.h"

#include <math.h>

static const float SENTINEL = 12345.5f;

int available_sets(const struct cpu_ops *sets[MAX_SETS])
{
    struct test_set here[MAX_SETS];
    int count = test_sets(false, here);
    for (int i = 0; i < count; i++)
        sets[i] = here[i].ops;
    return count;
}

/* Equal bits; two NaNs are equal whatever their payloads. */
static void assert_bits(const char *what, const char *set, const float *found,
                        const float *expected, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&found[i], &expected[i], sizeof(float)) != 0 &&
            !(found[i] != found[i] && expected[i] != expected[i]))
            fail_msg("%s, %s: element %lld is %a, expected %a", what, set, (long long)i,
                     (double)found[i], (double)expected[i]);
}

static void assert_near(const char *what, double found, double expected, double bound)
{
    if (!(fabs(found - expected) <= bound))
        fail_msg("%s: found %.9g, expected %.9g within %.3g", what, found, expected, bound);
}

static float *floats(int64_t n)
{
    return check_calloc((size_t)(n > 0 ? n : 1), sizeof(float));
}

static float *random_floats(uint64_t *rng, int64_t n, double scale)
{
    float *x = floats(n);
    for (int64_t i = 0; i < n; i++)
        x[i] = random_float(rng, scale);
    return x;
}

/* Finite halves of any size, subnormals and zeros of both signs among them. */
static uint16_t random_half(uint64_t *rng)
{
    uint16_t h = (uint16_t)random_u64(rng);
    if (random_int(rng, 0, 2) == 0)
        return h & 0x83ffu;
    return (uint16_t)((h & 0x83ffu) | (uint32_t)random_int(rng, 1, 16) << 10);
}

static struct matrix random_matrix(uint64_t *rng, int32_t rows, int32_t cols, enum dtype t)
{
    int64_t n = (int64_t)rows * cols;
    struct matrix w = {.dtype = t, .rows = rows, .cols = cols};
    if (t == DTYPE_F32) {
        w.data = random_floats(rng, n, 1.0);
        return w;
    }
    uint16_t *h = check_calloc((size_t)n, sizeof *h);
    for (int64_t i = 0; i < n; i++)
        h[i] = t == DTYPE_BF16 ? f32_to_bf16(random_float(rng, 1.0)) : random_half(rng);
    w.data = h;
    return w;
}

static float element(const struct matrix *w, int64_t row, int64_t col)
{
    int64_t i = row * w->cols + col;
    if (w->dtype == DTYPE_F32)
        return ((const float *)w->data)[i];
    uint16_t h = ((const uint16_t *)w->data)[i];
    return w->dtype == DTYPE_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
}

/* The dot product as ops.h writes it, one number at a time. */
static float plain_dot(const float *x, const struct matrix *w, int32_t row)
{
    float lane[16] = {0};
    for (int32_t k = 0; k < (w->cols + 15) / 16 * 16; k++) {
        bool here = k < w->cols;
        lane[k % 16] = fmaf(here ? x[k] : 0.0f, here ? element(w, row, k) : 0.0f, lane[k % 16]);
    }
    for (int half = 8; half >= 2; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0] + lane[1];
}

/* One product: m rows of x, gathered where rows is not NULL, times w's rows. */
struct product {
    float *x;
    int32_t *rows;
    struct matrix w;
    int32_t m;
    int64_t ldx, ldy;
};

static struct product random_product(uint64_t *rng, int32_t m, int32_t n, int32_t k)
{
    struct product p = {.m = m, .ldx = k + random_int(rng, 0, 5), .ldy = n + random_int(rng, 0, 3)};
    int32_t x_rows = m + 3;
    p.x = random_floats(rng, x_rows * p.ldx, 2.0);
    p.w = random_matrix(rng, n, k, (enum dtype)random_int(rng, 0, 2));
    if (random_int(rng, 0, 1)) {
        p.rows = check_calloc((size_t)m, sizeof *p.rows);
        for (int32_t i = 0; i < m; i++)
            p.rows[i] = random_int(rng, 0, x_rows - 1);
    }
    return p;
}

static void product_free(struct product *p)
{
    free(p->x);
    free(p->rows);
    free((void *)p->w.data);
}

static float *sentinels(int64_t n)
{
    float *y = floats(n);
    for (int64_t i = 0; i < n; i++)
        y[i] = SENTINEL;
    return y;
}

static void check_product_values(const struct product *p, const float *y)
{
    for (int32_t i = 0; i < p->m; i++) {
        const float *x = p->x + (p->rows ? p->rows[i] : i) * p->ldx;
        for (int32_t j = 0; j < p->ldy; j++) {
            if (j >= p->w.rows) { /* between rows nothing is written */
                assert_true(y[i * p->ldy + j] == SENTINEL);
                continue;
            }
            double sum = 0.0, size = 0.0;
            for (int32_t k = 0; k < p->w.cols; k++) {
                double t = (double)x[k] * (double)element(&p->w, j, k);
                sum += t;
                size += fabs(t);
            }
            float plain = plain_dot(x, &p->w, j);
            assert_bits("gemm", "one by one", &y[i * p->ldy + j], &plain, 1);
            double steps = p->w.cols / 16.0 + 6.0;
            assert_near("gemm", (double)y[i * p->ldy + j], sum, steps * 0x1p-24 * size + 1e-40);
        }
    }
}

/* The same product in pieces of columns and single rows. */
static void check_product_pieces(uint64_t *rng, const struct cpu_ops *ops, const struct product *p,
                                 const float *whole)
{
    float *y = sentinels(p->m * p->ldy);
    struct ahead next = {.data = p->w.data, .bytes = (uint64_t)random_int(rng, 0, 20000)};
    for (int32_t n0 = 0, n1; n0 < p->w.rows; n0 = n1) {
        n1 = n0 + random_int(rng, 1, 9);
        n1 = n1 < p->w.rows ? n1 : p->w.rows;
        for (int32_t i = 0, rows; i < p->m; i += rows) {
            rows = random_int(rng, 1, 6);
            rows = rows < p->m - i ? rows : p->m - i;
            const float *x = p->rows ? p->x : p->x + i * p->ldx;
            ops->gemm(x, p->ldx, p->rows ? p->rows + i : NULL, rows, &p->w, n0, n1, next,
                      y + i * p->ldy + n0, p->ldy);
        }
    }
    assert_bits("gemm in pieces", ops->name, y, whole, p->m * p->ldy);
    free(y);
}

static void check_product(uint64_t *rng, int32_t m, int32_t n, int32_t k)
{
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    struct product p = random_product(rng, m, n, k);
    float *first = sentinels(m * p.ldy);
    sets[0]->gemm(p.x, p.ldx, p.rows, m, &p.w, 0, n, (struct ahead){0}, first, p.ldy);
    check_product_values(&p, first);
    for (int s = 0; s < count; s++) {
        float *y = sentinels(m * p.ldy);
        sets[s]->gemm(p.x, p.ldx, p.rows, m, &p.w, 0, n, (struct ahead){0}, y, p.ldy);
        assert_bits("gemm", sets[s]->name, y, first, m * p.ldy);
        check_product_pieces(rng, sets[s], &p, first);
        free(y);
    }
    free(first);
    product_free(&p);
}

static void gemm(void **state)
{
    (void)state;
    uint64_t rng = 1;
    for (int trial = 0; trial < 120; trial++)
        check_product(&rng, random_int(&rng, 0, 2) ? random_int(&rng, 1, 12) : 1,
                      random_int(&rng, 1, 40), random_int(&rng, 1, 200));
    /* More rows of either than a block of the second-level cache. */
    check_product(&rng, 70, 6, 2100);
    check_product(&rng, 5, 150, 2100);
}

/* What the leaves sum to, in integers of 2^-32, from gemm over copies of each leaf's columns. */
static void leaf_reference(const struct cpu_ops *ops, const struct product *p, int32_t leaf,
                           const float *scale, const int32_t *out, int64_t *sum, float *largest)
{
    float *x = floats(leaf), *w = floats(leaf);
    for (int32_t i = 0; i < p->m; i++)
        for (int32_t j = 0; j < p->w.rows; j++)
            for (int32_t k = 0; k < p->w.cols; k += leaf) {
                int32_t n = p->w.cols - k < leaf ? p->w.cols - k : leaf;
                memcpy(x, p->x + i * p->ldx + k, (size_t)n * sizeof *x);
                for (int32_t c = 0; c < n; c++)
                    w[c] = element(&p->w, j, k + c);
                struct matrix one = {.data = w, .dtype = DTYPE_F32, .rows = 1, .cols = n};
                float y;
                ops->gemm(x, n, NULL, 1, &one, 0, 1, (struct ahead){0}, &y, 1);
                y *= scale ? scale[i] : 1.0f;
                *largest = fabsf(y) > *largest ? fabsf(y) : *largest;
                int64_t row = out ? out[i] : i;
                sum[row * p->ldy + j] += (int64_t)nearbyintl((long double)y * 0x1p32L);
            }
    free(x);
    free(w);
}

struct leaf_case {
    struct product p;
    int32_t leaf;
    float *scale;
    int32_t *out;
    int32_t out_rows;
};

static struct leaf_case random_leaf_case(uint64_t *rng)
{
    struct leaf_case c = {.leaf = random_int(rng, 1, 140)};
    c.p = random_product(rng, random_int(rng, 1, 9), random_int(rng, 1, 20),
                         random_int(rng, 1, 400));
    free(c.p.rows);
    c.p.rows = NULL;
    c.out_rows = c.p.m + 2;
    if (random_int(rng, 0, 1))
        c.scale = random_floats(rng, c.p.m, 1.0);
    if (random_int(rng, 0, 1)) {
        c.out = check_calloc((size_t)c.p.m, sizeof *c.out);
        for (int32_t i = 0; i < c.p.m; i++)
            c.out[i] = random_int(rng, 0, c.out_rows - 1); /* rows may repeat */
    }
    return c;
}

static void check_leaf_set(uint64_t *rng, const struct cpu_ops *ops, const struct leaf_case *c,
                           const int64_t *exact, float largest)
{
    int64_t n = c->out_rows * c->p.ldy;
    double *sum = check_calloc((size_t)n, sizeof *sum);
    float found = 0.0f;
    struct ahead next = {.data = c->p.w.data, .bytes = (uint64_t)random_int(rng, 0, 20000)};
    for (int32_t n0 = 0, n1; n0 < c->p.w.rows; n0 = n1) {
        n1 = n0 + random_int(rng, 1, c->p.w.rows);
        n1 = n1 < c->p.w.rows ? n1 : c->p.w.rows;
        float most = ops->gemm_leaf(c->p.x, c->p.ldx, c->p.m, &c->p.w, c->leaf, n0, n1, next,
                                    c->scale, c->out, sum + n0, c->p.ldy);
        found = most > found ? most : found;
    }
    assert_bits("largest leaf", ops->name, &found, &largest, 1);
    for (int64_t i = 0; i < n; i++)
        if (sum[i] != (double)exact[i] * 0x1p-32)
            fail_msg("gemm_leaf, %s: element %lld is %a, expected %a", ops->name, (long long)i,
                     sum[i], (double)exact[i] * 0x1p-32);
    free(sum);
}

static void gemm_leaf_sums_are_exact(void **state)
{
    (void)state;
    uint64_t rng = 2;
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    for (int trial = 0; trial < 80; trial++) {
        struct leaf_case c = random_leaf_case(&rng);
        int64_t *exact = check_calloc((size_t)(c.out_rows * c.p.ldy), sizeof *exact);
        float largest = 0.0f;
        leaf_reference(sets[0], &c.p, c.leaf, c.scale, c.out, exact, &largest);
        for (int s = 0; s < count; s++)
            check_leaf_set(&rng, sets[s], &c, exact, largest);
        free(exact);
        free(c.scale);
        free(c.out);
        product_free(&c.p);
    }
}

static void gemm_leaf_reports_what_is_out_of_range(void **state)
{
    (void)state;
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, 1e7f};
    float w[32], x[32];
    const struct matrix m = {.data = w, .dtype = DTYPE_F32, .rows = 1, .cols = 32};
    for (int s = 0; s < count; s++)
        for (size_t i = 0; i < COUNT_OF(odd); i++) {
            for (int k = 0; k < 32; k++)
                w[k] = x[k] = 1.0f;
            x[5] = odd[i];
            double sum = 0.0;
            float most = sets[s]->gemm_leaf(x, 32, 1, &m, 16, 0, 1, (struct ahead){0}, NULL, NULL,
                                            &sum, 1);
            assert_false(most <= 1048576.0f); /* as the range check asks, NaN included */
        }
}

static void rms_norm(void **state)
{
    (void)state;
    uint64_t rng = 3;
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    const double scales[] = {1.0, 100.0, 1e-3, 1e-18, 1e-30, 1e18, 3e38, 0.0};
    for (int trial = 0; trial < 400; trial++) {
        int32_t n = random_int(&rng, 0, 3) ? random_int(&rng, 1, 200) : random_int(&rng, 1, 6000);
        double scale = scales[random_int(&rng, 0, 7)], mean = 0.0;
        float *x = random_floats(&rng, n, scale), *w = random_floats(&rng, n, 2.0);
        float *first = floats(n), *y = floats(n);
        sets[0]->rms_norm(x, w, n, 1e-6f, first);
        for (int32_t i = 0; i < n; i++)
            mean += (double)x[i] * (double)x[i] / n;
        for (int32_t i = 0; i < n && scale < 1e15; i++) {
            double e = (double)w[i] * (double)x[i] / sqrt(mean + (double)1e-6f);
            assert_near("rms_norm", (double)first[i], e,
                        (n / 16.0 + 12.0) * 0x1p-24 * fabs(e) + 1e-37);
        }
        for (int s = 0; s < count; s++) {
            sets[s]->rms_norm(x, w, n, 1e-6f, y);
            assert_bits("rms_norm", sets[s]->name, y, first, n);
            memcpy(y, x, (size_t)n * sizeof *y);
            sets[s]->rms_norm(y, w, n, 1e-6f, y);
            assert_bits("rms_norm in place", sets[s]->name, y, first, n);
        }
        free(x);
        free(w);
        free(first);
        free(y);
    }
}

/* e^x straight from vec.h, over its range and the borders at which it is clamped. */
static void exp_is_within_two_ulp(void **state)
{
    (void)state;
    double worst = 0.0;
    for (int i = 0; i <= 60000; i++) {
        float x[16], y[16];
        for (int l = 0; l < 16; l++)
            x[l] = -87.0f + 175.0f * (float)(i * 16 + l) / (60000.0f * 16.0f + 15.0f);
        v_store(y, v_exp(v_load(x)));
        for (int l = 0; l < 16; l++) {
            int e;
            long double exact = expl((long double)x[l]);
            frexpl(exact, &e);
            double u = (double)fabsl((long double)y[l] - exact) / ldexp(1.0, e - 24);
            worst = u > worst ? u : worst;
        }
    }
    print_message("v_exp: %.3f ulp\n", worst);
    assert_true(worst <= 2.0);
    float y[16];
    v_store(y, v_exp(v_set(-1000.0f)));
    assert_near("e^-1000", (double)y[0], 0.0, 2e-38);
    v_store(y, v_exp(v_set(INFINITY)));
    assert_near("e^inf", (double)y[15], 1.6516362549940018e38, 1e32);
    v_store(y, v_exp(v_zero()));
    assert_true(y[0] == 1.0f);
}

/* Each set's e^x, seen through attention_join: rl = 1 * e^(rm - m) with l = 0. */
static void exp_is_the_same_in_every_set(void **state)
{
    (void)state;
    uint64_t rng = 4;
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    const float zeros[16] = {0};
    for (int trial = 0; trial < 100000; trial++) {
        float x = -(float)(random_unit(&rng) * (trial % 2 ? 90.0 : 1.0)), y[16], e = 0.0f;
        v_store(y, v_exp(v_set(x)));
        for (int s = 0; s < count; s++) {
            float rm = x, ro[16] = {0};
            e = 1.0f;
            sets[s]->attention->join(0.0f, 0.0f, zeros, 16, &rm, &e, ro);
            assert_bits("e^x", sets[s]->name, &e, y, 1);
        }
    }
}

static void silu_mul(void **state)
{
    (void)state;
    uint64_t rng = 5;
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    const double scales[] = {1.0, 10.0, 90.0, 1e4, 1e30};
    for (int trial = 0; trial < 1000; trial++) {
        int32_t n = random_int(&rng, 1, 150);
        float *g = random_floats(&rng, n, scales[trial % 5]), *u = random_floats(&rng, n, 4.0);
        float *first = floats(n), *y = floats(n);
        memcpy(first, g, (size_t)n * sizeof *g);
        sets[0]->silu_mul(first, u, n);
        for (int32_t i = 0; i < n; i++) {
            double e = (double)g[i] / (1.0 + exp(-(double)g[i])) * (double)u[i];
            /* Below -88 the exponential is clamped: e^88 is near enough to infinity up to 1e30. */
            assert_near("silu_mul", (double)first[i], e, 8 * 0x1p-24 * fabs(e) + 1e-7);
        }
        for (int s = 0; s < count; s++) {
            memcpy(y, g, (size_t)n * sizeof *g);
            sets[s]->silu_mul(y, u, n);
            assert_bits("silu_mul", sets[s]->name, y, first, n);
        }
        free(g);
        free(u);
        free(first);
        free(y);
    }
}

static void check_softmax(const struct cpu_ops **sets, int count, const float *x, int32_t n)
{
    float *first = floats(n), *y = floats(n);
    double max = -INFINITY, total = 0.0, sum = 0.0;
    memcpy(first, x, (size_t)n * sizeof *x);
    sets[0]->softmax(first, n);
    for (int32_t i = 0; i < n; i++)
        max = fmax(max, (double)x[i]);
    for (int32_t i = 0; i < n; i++)
        total += exp((double)x[i] - max);
    for (int32_t i = 0; i < n; i++) {
        double d = (double)x[i] - max, e = exp(d) / total;
        /* The difference is rounded before the exponential: an error of |d| 2^-24 relative. */
        double bound = (n / 16.0 + 16.0 + fmin(fabs(d), 87.0)) * 0x1p-24 * e + 2e-38;
        assert_near("softmax", (double)first[i], e, bound);
        sum += (double)first[i];
    }
    assert_near("sum of softmax", sum, 1.0, (n / 16.0 + 16.0) * 0x1p-24);
    for (int s = 0; s < count; s++) {
        memcpy(y, x, (size_t)n * sizeof *x);
        sets[s]->softmax(y, n);
        assert_bits("softmax", sets[s]->name, y, first, n);
    }
    free(first);
    free(y);
}

static void softmax(void **state)
{
    (void)state;
    uint64_t rng = 6;
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    const double scales[] = {0.0, 1.0, 30.0, 1000.0, 1e30};
    for (int trial = 0; trial < 1000; trial++) {
        int32_t n = random_int(&rng, 0, 9) ? random_int(&rng, 1, 200) : random_int(&rng, 1, 3000);
        float *x = random_floats(&rng, n, scales[trial % 5]);
        for (int32_t i = 1; trial % 7 == 0 && i < n; i += 3)
            x[i] = -INFINITY;
        check_softmax(sets, count, x, n);
        free(x);
    }
}

/* One tile: q, K transposed, V, and the outputs. */
struct tile {
    int32_t group, hd, count;
    enum kv_dtype dtype;
    float *q, *m, *l, *o, *scores;
    void *k, *v;
};

/* A tile of worker/kv.h. */
static void *random_kv(uint64_t *rng, int32_t hd, enum kv_dtype t)
{
    int64_t n = (int64_t)hd * KV_BLOCK;
    float *x = random_floats(rng, n, 1.0);
    if (t == KV_F32)
        return x;
    uint16_t *h = check_calloc(kv_tile_bytes(t, hd), 1);
    int8_t *codes = (int8_t *)h;
    for (int64_t i = 0; t == KV_BF16 && i < n; i++)
        h[i] = f32_to_bf16(x[i]);
    for (int64_t i = 0; t == KV_INT8 && i < n; i++)
        codes[i] = (int8_t)random_int(rng, -127, 127);
    for (int64_t i = 0; t == KV_INT8 && i < (int64_t)kv8_groups(hd) * KV_BLOCK; i++)
        h[n / 2 + i] = f32_to_bf16(random_float(rng, 1.0) / 127.0f);
    free(x);
    return h;
}

/* Where element d of a position is in K (transposed) or V. */
static int64_t kv_index(const struct tile *t, const void *p, int32_t d, int32_t position)
{
    return p == t->k ? (int64_t)d * KV_BLOCK + position : (int64_t)position * t->hd + d;
}

static uint16_t *kv_scale(const struct tile *t, void *p, int32_t d, int32_t position)
{
    return (uint16_t *)p + (int64_t)t->hd * KV_BLOCK / 2 + d / KV8_GROUP * KV_BLOCK + position;
}

static double kv_at(const struct tile *t, void *p, int32_t d, int32_t position)
{
    int64_t i = kv_index(t, p, d, position);
    if (t->dtype == KV_INT8)
        return ((const int8_t *)p)[i] * (double)bf16_to_f32(*kv_scale(t, p, d, position));
    return (double)(t->dtype == KV_F32 ? ((const float *)p)[i]
                                       : bf16_to_f32(((const uint16_t *)p)[i]));
}

static void kv_set(const struct tile *t, void *p, int32_t d, int32_t position, float x)
{
    int64_t i = kv_index(t, p, d, position);
    if (t->dtype == KV_F32)
        ((float *)p)[i] = x;
    else if (t->dtype == KV_BF16)
        ((uint16_t *)p)[i] = f32_to_bf16(x);
    else
        *kv_scale(t, p, d, position) = f32_to_bf16(x);
}

static struct tile random_tile(uint64_t *rng)
{
    struct tile t = {.group = random_int(rng, 1, 16),
                     .hd = 16 * random_int(rng, 1, 10),
                     .count = random_int(rng, 1, KV_BLOCK),
                     .dtype = (enum kv_dtype)random_int(rng, KV_BF16, KV_INT8)};
    t.q = random_floats(rng, t.group * t.hd, random_int(rng, 0, 1) ? 0.3 : 8.0);
    t.k = random_kv(rng, t.hd, t.dtype);
    t.v = random_kv(rng, t.hd, t.dtype);
    t.m = floats(t.group + LANES);
    t.l = floats(t.group + LANES);
    t.o = floats(t.group * t.hd);
    t.scores = floats(attention_scratch(t.group));
    return t;
}

static void tile_free(struct tile *t)
{
    free(t->q);
    free(t->k);
    free(t->v);
    free(t->m);
    free(t->l);
    free(t->o);
    free(t->scores);
}

static void check_tile_values(const struct tile *t)
{
    for (int32_t h = 0; h < t->group; h++) {
        double s[KV_BLOCK], max = -INFINITY, total = 0.0, size = 0.0;
        for (int32_t p = 0; p < t->count; p++) {
            double sum = 0.0, abs = 0.0;
            for (int32_t d = 0; d < t->hd; d++) {
                double x = (double)t->q[h * t->hd + d] * kv_at(t, t->k, d, p);
                sum += x;
                abs += fabs(x);
            }
            s[p] = sum;
            size = fmax(size, abs);
            max = fmax(max, sum);
        }
        /* Errors of scores are absolute, so relative in their exponentials. */
        double bound = (2.0 * t->hd * size + 90.0 + t->count) * 0x1p-24;
        assert_near("maximum", (double)t->m[h], max, t->hd * size * 0x1p-24);
        for (int32_t p = 0; p < t->count; p++)
            total += exp(s[p] - max);
        assert_near("sum", (double)t->l[h], total, bound * total);
        for (int32_t d = 0; d < t->hd; d++) {
            double o = 0.0, abs = 0.0;
            for (int32_t p = 0; p < t->count; p++) {
                double x = exp(s[p] - max) * kv_at(t, t->v, d, p);
                o += x;
                abs += fabs(x);
            }
            assert_near("values", (double)t->o[h * t->hd + d], o, 2.0 * bound * abs);
        }
    }
}

/* The tile of `n` of its queries, from the h-th on. */
static void run_tile(const struct cpu_ops *ops, const struct tile *t, int32_t h, int32_t n,
                     float *m, float *l, float *o)
{
    int32_t count[16];
    for (int32_t i = 0; i < n; i++)
        count[i] = t->count;
    struct attention_queries a = {.n = n,
                                  .hd = t->hd,
                                  .q = t->q + h * t->hd,
                                  .count = count,
                                  .m = m + h,
                                  .l = l + h,
                                  .o = o + h * t->hd,
                                  .scratch = t->scores};
    ops->attention->tile(&a, t->k, t->v, t->dtype, true, 0);
}

/* Runs the set over the group at once or head by head, into fresh outputs, and compares. */
static void check_tile_set(const struct cpu_ops *ops, const struct tile *t, bool by_head)
{
    int64_t values = (int64_t)t->group * t->hd;
    float *m = floats(t->group + LANES), *l = floats(t->group + LANES), *o = floats(values);
    for (int32_t h = 0; h < t->group; h += by_head ? 1 : t->group)
        run_tile(ops, t, h, by_head ? 1 : t->group, m, l, o);
    assert_bits("tile maximum", ops->name, m, t->m, t->group);
    assert_bits("tile sum", ops->name, l, t->l, t->group);
    assert_bits("tile values", ops->name, o, t->o, values);
    free(m);
    free(l);
    free(o);
}

/* What stands in positions that are not in use yet must not matter. */
static void spoil_unused(struct tile *t, float x)
{
    for (int32_t p = t->count; p < KV_BLOCK; p++)
        for (int32_t d = 0; d < t->hd; d++) {
            kv_set(t, t->k, d, p, x);
            kv_set(t, t->v, d, p, x);
        }
}

static void attention_tile(void **state)
{
    (void)state;
    uint64_t rng = 7;
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    for (int trial = 0; trial < 200; trial++) {
        struct tile t = random_tile(&rng);
        t.count = trial < KV_BLOCK ? trial + 1 : t.count; /* each count at least once */
        run_tile(sets[0], &t, 0, t.group, t.m, t.l, t.o);
        check_tile_values(&t);
        for (int s = 0; s < count; s++) {
            check_tile_set(sets[s], &t, false);
            check_tile_set(sets[s], &t, true);
        }
        spoil_unused(&t, trial % 2 ? NAN : 1e30f);
        for (int s = 0; s < count; s++)
            check_tile_set(sets[s], &t, false);
        tile_free(&t);
    }
}

/* Joining parts with known m, l, o: compared between sets and with double precision. */
static void check_join(uint64_t *rng, const struct cpu_ops **sets, int count, int32_t hd)
{
    enum { PARTS = 5, HD = 160 };
    float m[PARTS], l[PARTS], o[PARTS][HD], first[HD + 2] = {0};
    double max = -INFINITY, total = 0.0, values[HD] = {0};
    for (int i = 0; i < PARTS; i++) {
        m[i] = random_float(rng, 30.0);
        l[i] = 1.0f + (float)random_unit(rng);
        max = fmax(max, (double)m[i]);
        for (int32_t d = 0; d < hd; d++)
            o[i][d] = random_float(rng, 1.0);
    }
    for (int i = 0; i < PARTS; i++) {
        total += (double)l[i] * exp((double)m[i] - max);
        for (int32_t d = 0; d < hd; d++)
            values[d] += (double)o[i][d] * exp((double)m[i] - max);
    }
    for (int s = 0; s < count; s++) {
        float rm = -INFINITY, rl = 0.0f, ro[HD] = {0};
        for (int i = 0; i < PARTS; i++)
            sets[s]->attention->join(m[i], l[i], o[i], hd, &rm, &rl, ro);
        if (s == 0) {
            memcpy(first, ro, sizeof ro);
            first[HD] = rm;
            first[HD + 1] = rl;
        }
        assert_bits("join values", sets[s]->name, ro, first, hd);
        assert_bits("join maximum", sets[s]->name, &rm, &first[HD], 1);
        assert_bits("join sum", sets[s]->name, &rl, &first[HD + 1], 1);
        assert_true((double)rm == max);
        assert_near("join", (double)rl, total, 400.0 * 0x1p-24 * total);
        for (int32_t d = 0; d < hd; d++)
            assert_near("join", (double)ro[d], values[d], 400.0 * 0x1p-24 * PARTS);
    }
}

static void attention_join(void **state)
{
    (void)state;
    uint64_t rng = 8;
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    for (int trial = 0; trial < 500; trial++)
        check_join(&rng, sets, count, 16 * random_int(&rng, 1, 10));
}

/* All 65,536 halves and bfloats through a dot product with 1: widening is exact in every set. */
static void halves_widen_exactly(void **state)
{
    (void)state;
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    enum { COLS = 17 }; /* 16 through the vector's way, one through the tail's */
    static uint16_t h[65536 * COLS];
    float x[COLS], *y = floats(65536);
    for (int at = 0; at < COLS; at += COLS - 1)
        for (int t = DTYPE_F16; t <= DTYPE_BF16; t++)
            for (int s = 0; s < count; s++) {
                memset(h, 0, sizeof h);
                for (int i = 0; i < 65536; i++)
                    h[i * COLS + at] = (uint16_t)i;
                for (int k = 0; k < COLS; k++)
                    x[k] = k == at;
                struct matrix w = {.data = h, .dtype = (enum dtype)t, .rows = 65536, .cols = COLS};
                sets[s]->gemm(x, COLS, NULL, 1, &w, 0, 65536, (struct ahead){0}, y, 65536);
                for (int i = 0; i < 65536; i++) {
                    float e = element(&w, i, at) + 0.0f;
                    assert_bits("widening", sets[s]->name, &y[i], &e, 1);
                }
            }
    free(y);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(gemm),
    cmocka_unit_test(gemm_leaf_sums_are_exact),
    cmocka_unit_test(gemm_leaf_reports_what_is_out_of_range),
    cmocka_unit_test(rms_norm),
    cmocka_unit_test(exp_is_within_two_ulp),
    cmocka_unit_test(exp_is_the_same_in_every_set),
    cmocka_unit_test(silu_mul),
    cmocka_unit_test(softmax),
    cmocka_unit_test(attention_tile),
    cmocka_unit_test(attention_join),
    cmocka_unit_test(halves_widen_exactly),
};

int main(int argc, char **argv)
{
    (void)shared_path;
    if (argc > 1 && strcmp(argv[1], "--time") == 0)
        return time_operations();
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
