/* partition/quant: the same bits as the formats' own readers (tests/golden/quant), whole and in
 * every kind of cut. */
#include "tests/unit/unit.h"

#include "partition/checkpoint.h"
#include "partition/quant.h"
#include "tests/unit/random.h"

#include <math.h>

/* One golden folder, its tensors read on demand into memory that the case frees at its end. */
struct golden {
    struct checkpoint *ck;
    void *owned[8];
    int owned_count;
    int64_t rows, cols;
    const float *want; /* [rows, cols] */
};

static void *tensor(struct golden *g, const char *name, int64_t shape[2])
{
    struct error err;
    const struct tensor_entry *t = checkpoint_find(g->ck, name);
    assert_non_null(t);
    void *data = malloc(t->bytes);
    assert_non_null(data);
    if (checkpoint_read(g->ck, t->file, t->offset, data, t->bytes, &err) != OK)
        fail_msg("%s", err.msg);
    g->owned[g->owned_count++] = data;
    shape[0] = t->shape[0];
    shape[1] = t->dims > 1 ? t->shape[1] : 1;
    return data;
}

static struct golden open_golden(const char *name)
{
    struct golden g = {0};
    struct error err;
    char dir[1024];
    int64_t shape[2];
    snprintf(dir, sizeof dir, "%s/tests/golden/quant/%s", WITAN_SOURCE_DIR, name);
    if (checkpoint_open(dir, &g.ck, &err) != OK)
        fail_msg("%s", err.msg);
    g.want = tensor(&g, "want", shape);
    g.rows = shape[0];
    g.cols = shape[1];
    return g;
}

static void close_golden(struct golden *g)
{
    for (int i = 0; i < g->owned_count; i++)
        free(g->owned[i]);
    checkpoint_close(g->ck);
}

typedef void (*dequantise)(const void *m, const struct quant_rect *rect, float *out);

static void compare(const struct golden *g, dequantise f, const void *m,
                    const struct quant_rect *rect)
{
    float *out = malloc((size_t)rect->rows * (size_t)rect->cols * sizeof *out);
    assert_non_null(out);
    f(m, rect, out);
    for (int64_t r = 0; r < rect->rows; r++)
        for (int64_t c = 0; c < rect->cols; c++) {
            float found = out[r * rect->cols + c];
            float want = g->want[(rect->row + r) * g->cols + rect->col + c];
            if (memcmp(&found, &want, sizeof want) != 0)
                fail_msg("(%lld, %lld): expected %.9g, found %.9g", (long long)(rect->row + r),
                         (long long)(rect->col + c), (double)want, (double)found);
        }
    free(out);
}

/* The whole matrix, and 200 rectangles anywhere in it. */
static void compare_cuts(const struct golden *g, dequantise f, const void *m)
{
    uint64_t seed = 7;
    compare(g, f, m, &(struct quant_rect){0, g->rows, 0, g->cols});
    for (int i = 0; i < 200; i++) {
        int32_t r = random_int(&seed, 0, (int32_t)g->rows - 1);
        int32_t c = random_int(&seed, 0, (int32_t)g->cols - 1);
        compare(g, f, m,
                &(struct quant_rect){r, random_int(&seed, 1, (int32_t)g->rows - r), c,
                                     random_int(&seed, 1, (int32_t)g->cols - c)});
    }
}

static void run_fp8(const void *m, const struct quant_rect *rect, float *out)
{
    quant_fp8(m, rect, out);
}

static void check_fp8(const char *name, int32_t block)
{
    struct golden g = open_golden(name);
    int64_t weight[2], scale[2];
    struct quant_fp8 m = {.block_rows = block, .block_cols = block};
    m.values = tensor(&g, "weight", weight);
    m.scales = tensor(&g, "scale", scale);
    m.stride = weight[1];
    m.scale_stride = scale[1];
    assert_int_equal(weight[0], g.rows);
    compare_cuts(&g, run_fp8, &m);
    close_golden(&g);
}

static void fp8_in_whole_blocks(void **state)
{
    (void)state;
    check_fp8("fp8", 32);
}

static void fp8_with_bf16_scales(void **state)
{
    (void)state;
    check_fp8("fp8_bf16", 32);
}

static void fp8_with_blocks_cut_short(void **state)
{
    (void)state;
    check_fp8("fp8_cut", 128);
}

/* A view that begins inside a block, as a rank's slice may. */
static void fp8_view_inside_a_block(void **state)
{
    (void)state;
    struct golden g = open_golden("fp8");
    int64_t weight[2], scale[2];
    const uint8_t *values = tensor(&g, "weight", weight);
    const float *scales = tensor(&g, "scale", scale);
    struct quant_fp8 m = {.values = values + 40 * weight[1] + 70,
                          .stride = weight[1],
                          .scales = scales + scale[1] + 2,
                          .scale_stride = scale[1],
                          .block_rows = 32,
                          .block_cols = 32,
                          .skip_rows = 8,
                          .skip_cols = 6};
    float out[50][80];
    quant_fp8(&m, &(struct quant_rect){0, 50, 0, 80}, &out[0][0]);
    for (int r = 0; r < 50; r++)
        assert_memory_equal(out[r], g.want + (40 + r) * g.cols + 70, sizeof out[r]);
    close_golden(&g);
}

static void every_code_of_e4m3(void **state)
{
    (void)state;
    for (int v = 0; v < 256; v++) {
        float f = quant_e4m3((uint8_t)v);
        int exponent = v >> 3 & 15, m = v & 7;
        double want = exponent ? ldexp(8 + m, exponent - 10) : ldexp(m, -9);
        if ((v & 127) == 127) {
            assert_true(isnan(f));
            continue;
        }
        assert_true(fabs((double)f) == want && !signbit(f) == !(v & 128));
    }
    assert_true(quant_e4m3(0x7e) == 448.0f);
}

static void run_groups(const void *m, const struct quant_rect *rect, float *out)
{
    quant_groups(m, rect, out);
}

static void check_groups(const char *name, enum quant_packing packing, int32_t bits)
{
    struct golden g = open_golden(name);
    int64_t shape[2], scales_shape[2];
    struct quant_groups m = {.packing = packing, .bits = bits, .outputs = g.rows};
    m.qweight = tensor(&g, "qweight", shape);
    m.qzeros = tensor(&g, "qzeros", shape);
    const uint16_t *half = tensor(&g, "scales", scales_shape);
    m.group = tensor(&g, "g_idx", shape);
    assert_int_equal(shape[0], g.cols);
    int64_t n = scales_shape[0] * scales_shape[1];
    float *scales = malloc((size_t)n * sizeof *scales);
    assert_non_null(scales);
    for (int64_t i = 0; i < n; i++)
        scales[i] = quant_f16(half[i]);
    m.scales = scales;
    compare_cuts(&g, run_groups, &m);
    free(scales);
    close_golden(&g);
}

static void gptq_of_four_bits(void **state)
{
    (void)state;
    check_groups("gptq4", QUANT_GPTQ, 4);
}

static void gptq_of_eight_bits(void **state)
{
    (void)state;
    check_groups("gptq8", QUANT_GPTQ, 8);
}

static void gptq_in_activation_order(void **state)
{
    (void)state;
    check_groups("gptq4_order", QUANT_GPTQ, 4);
}

static void awq(void **state)
{
    (void)state;
    check_groups("awq", QUANT_AWQ, 4);
}

struct ggml_rows {
    enum ggml_type type;
    const uint8_t *blocks;
    int64_t stride;
};

static void run_ggml(const void *arg, const struct quant_rect *rect, float *out)
{
    const struct ggml_rows *m = arg;
    for (int64_t r = 0; r < rect->rows; r++)
        quant_ggml_row(m->type, m->blocks + (rect->row + r) * m->stride, rect->col, rect->cols,
                       out + r * rect->cols);
}

static void check_ggml(const char *name, enum ggml_type type)
{
    struct golden g = open_golden(name);
    int64_t shape[2];
    struct ggml_rows m = {.type = type, .blocks = tensor(&g, "blocks", shape)};
    const struct ggml_layout *l = ggml_layout(type);
    m.stride = shape[1];
    assert_int_equal(m.stride, g.cols / l->elements * l->bytes);
    compare_cuts(&g, run_ggml, &m);
    close_golden(&g);
}

#define GGML(name, folder, type)                                                                   \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        check_ggml(folder, type);                                                                  \
    }
GGML(ggml_f16, "ggml_f16", GGML_F16)
GGML(ggml_bf16, "ggml_bf16", GGML_BF16)
GGML(ggml_q8_0, "ggml_q8_0", GGML_Q8_0)
GGML(ggml_q4_0, "ggml_q4_0", GGML_Q4_0)
GGML(ggml_q4_k, "ggml_q4_k", GGML_Q4_K)
GGML(ggml_q5_k, "ggml_q5_k", GGML_Q5_K)
GGML(ggml_q6_k, "ggml_q6_k", GGML_Q6_K)

static void ggml_types_that_are_not_read(void **state)
{
    (void)state;
    assert_null(ggml_layout(3));          /* Q4_1 */
    assert_null(ggml_layout(10));         /* Q2_K */
    assert_null(ggml_layout(31));         /* past the last */
    assert_null(ggml_layout(UINT32_MAX)); /* no index */
    assert_string_equal(ggml_layout(GGML_Q4_K)->name, "Q4_K");
}

static void half_precision_numbers(void **state)
{
    (void)state;
    assert_true(quant_f16(0x3c00) == 1.0f && quant_f16(0xc000) == -2.0f);
    assert_true(quant_f16(0x0001) == 0x1p-24f && quant_f16(0x03ff) == 1023 * 0x1p-24f);
    assert_true(quant_f16(0x7bff) == 65504.0f && isinf(quant_f16(0x7c00)));
    assert_true(isnan(quant_f16(0x7e00)) && signbit(quant_f16(0x8000)));
    assert_true(quant_bf16(0x3f80) == 1.0f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(fp8_in_whole_blocks),
    cmocka_unit_test(fp8_with_bf16_scales),
    cmocka_unit_test(fp8_with_blocks_cut_short),
    cmocka_unit_test(fp8_view_inside_a_block),
    cmocka_unit_test(every_code_of_e4m3),
    cmocka_unit_test(gptq_of_four_bits),
    cmocka_unit_test(gptq_of_eight_bits),
    cmocka_unit_test(gptq_in_activation_order),
    cmocka_unit_test(awq),
    cmocka_unit_test(ggml_f16),
    cmocka_unit_test(ggml_bf16),
    cmocka_unit_test(ggml_q8_0),
    cmocka_unit_test(ggml_q4_0),
    cmocka_unit_test(ggml_q4_k),
    cmocka_unit_test(ggml_q5_k),
    cmocka_unit_test(ggml_q6_k),
    cmocka_unit_test(ggml_types_that_are_not_read),
    cmocka_unit_test(half_precision_numbers),
};

UNIT_MAIN(tests)
