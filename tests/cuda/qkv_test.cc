/* q, k and v in one launch: bit for bit what their products and then cuda_finish_qkv give. */
#include "tests/cuda/batch.h"

struct qkv_shape {
    int32_t q_heads, kv_heads, head_dim, row, hidden;
    bool normed, biased;
    struct cuda_format format;
    bool int8 = false;
};

struct qkv_result {
    std::vector<cuda_bf16> q, cache;
};

enum { BLOCKS = 10 };

/* `rows` rows: a chunk of one sequence and single rows of others; the last `copies` do not count.
 */
static qkv_result run(const qkv_shape &c, int32_t rows, int32_t copies, bool fused)
{
    std::vector<test_sequence> sequences = {{61, rows - rows / 3, {4, 1, 2}}};
    for (int32_t i = 0; i < rows / 3; i++)
        sequences.push_back({7 * i % 64, 1, {3 + i % 7}});
    test_batch t(sequences);
    device_array<int32_t> live(std::vector<int32_t>(1, rows - copies));
    t.b.live = copies > 0 ? live.p : NULL;
    cuda_attention a = {0, c.q_heads, 0, c.kv_heads, 1, c.head_dim, c.row, 1e-6f};
    size_t hd = (size_t)c.head_dim, hidden = (size_t)c.hidden, n = (size_t)rows;
    size_t nq = (size_t)c.q_heads * hd, nk = (size_t)c.kv_heads * hd;
    device_array<cuda_bf16> xn(bf16_of(random_numbers(1, n * hidden)));
    device_array<cuda_bf16> w(bf16_of(random_numbers(2, (nq + 2 * nk) * hidden)));
    device_array<float> bias(random_numbers(3, nq + 2 * nk)), rope(random_numbers(4, n * hd));
    device_array<float> q_norm(random_numbers(5, hd)), k_norm(random_numbers(6, hd));
    device_array<float> q_tmp(n * nq), kv_tmp(n * 2 * nk);
    device_array<cuda_bf16> q((size_t)(rows * c.q_heads * c.row));
    device_array<cuda_bf16> cache(
        std::vector<cuda_bf16>((size_t)(BLOCKS * c.kv_heads * 2 * CUDA_KV_BLOCK * c.row), 0x7fff));
    const float *qn = c.normed ? q_norm.p : NULL, *kn = c.normed ? k_norm.p : NULL;
    const int32_t lines[] = {(int32_t)nq, (int32_t)nk, (int32_t)nk};
    float *const y[] = {q_tmp.p, kv_tmp.p, kv_tmp.p + nk};
    /* Packed: any bytes but e4m3's NaNs, any scales (with the zero 6). */
    int group = c.format.type == CUDA_BF16 ? 1 : 1 << c.format.group_shift;
    size_t units = (hidden + 63) / 64, groups = hidden / (size_t)group + 1;
    std::vector<cuda_bf16> bytes((nq + 2 * nk) * units * 32, 0);
    for (size_t i = 0; i < bytes.size(); i++)
        bytes[i] = (cuda_bf16)(i * 0x9e37u) & 0xbfbfu;
    std::vector<uint32_t> words((nq + 2 * nk) * groups);
    for (size_t i = 0; i < words.size(); i++)
        words[i] = 0x3b000006u + (uint32_t)(i % 50 << 16);
    device_array<cuda_bf16> packed(bytes);
    device_array<uint32_t> scale(words);
    struct cuda_part parts[3] = {};
    size_t line = 0;
    for (int i = 0; i < 3; line += (size_t)lines[i++]) {
        parts[i].w.data = w.p + line * hidden;
        if (c.format.type != CUDA_BF16) {
            parts[i].w.data = packed.p + line * units * 32;
            parts[i].w.scale = scale.p + line * groups;
            parts[i].w.format = c.format;
        }
        parts[i].w.rows = lines[i];
        parts[i].w.cols = c.hidden;
        parts[i].bias = c.biased ? bias.p + line : NULL;
        parts[i].y = y[i];
        parts[i].ldy = i == 0 ? lines[i] : 2 * lines[i];
    }
    struct cuda_kv kv = {cache.p, c.kv_heads, c.row, c.int8};
    if (fused) {
        assert_ran(cuda_qkv(&t.b, &a, xn.p, parts, qn, kn, rope.p, q.p, kv, NULL));
    } else {
        assert_ran(cuda_gemm(xn.p, NULL, rows, parts, 3, NULL));
        assert_ran(cuda_finish_qkv(&t.b, &a, qn, kn, rope.p, q_tmp.p, kv_tmp.p, q.p, kv, NULL));
    }
    return {q.read(), cache.read()};
}

static void check(const qkv_shape &c, int32_t rows, int32_t copies)
{
    simt_seed((uint64_t)(rows + c.head_dim));
    qkv_result one = run(c, rows, copies, true), two = run(c, rows, copies, false);
    assert_same(one.q, two.q);
    assert_same(one.cache, two.cache);
}

static void one_launch_has_the_bits_of_two(void **state)
{
    (void)state;
    for (int32_t rows : {1, 2, 8, 9, 17})
        for (bool normed : {true, false}) {
            check({3, 2, 64, 64, 128, normed, !normed, {}}, rows, 0);
            check({1, 1, 8, 16, 40, normed, normed, {}}, rows, 0);
            check({5, 1, 24, 32, 264, normed, false, {}}, rows, 0);
            check({2, 2, 80, 80, 64, normed, true, {}}, rows, 0);
            check({2, 2, 80, 80, 64, normed, true, {}, true}, rows, 0);
        }
    check({4, 2, 128, 128, 520, true, false, {}}, 5, 0);
}

static void packed_weights_too(void **state)
{
    (void)state;
    for (int32_t rows : {1, 9, (int)CUDA_QKV_ROWS + 1})
        for (int type : {CUDA_E4M3, CUDA_INT4}) {
            check({3, 2, 64, 64, 256, true, true, {type, 7, type == CUDA_E4M3 ? 128 : 1}}, rows, 0);
            check({2, 1, 40, 48, 136, true, false, {type, 5, type == CUDA_E4M3 ? 24 : 1}}, rows, 0);
        }
}

static void many_rows_have_the_same_bits(void **state)
{
    (void)state;
    for (int32_t rows : {33, (int)CUDA_QKV_ROWS, CUDA_QKV_ROWS + 1})
        check({2, 1, 40, 48, 72, true, true, {}}, rows, 0);
}

static void copies_write_no_cache(void **state)
{
    (void)state;
    const qkv_shape c = {2, 1, 16, 16, 32, true, false, {}};
    check(c, 8, 3);
    qkv_result some = run(c, 8, 3, true), all = run(c, 8, 0, true);
    assert_same(some.q, all.q);
    size_t written = 0, more = 0;
    for (size_t i = 0; i < some.cache.size(); i++) {
        written += some.cache[i] != 0x7fff;
        more += all.cache[i] != 0x7fff;
    }
    assert_int_equal(written, 2 * 16 * 5); /* K and V of five rows */
    assert_true(more > written);
}

static void nothing_to_do(void **state)
{
    (void)state;
    cuda_batch b = {};
    cuda_attention a = {};
    struct cuda_part parts[3] = {};
    assert_int_equal(cuda_qkv(&b, &a, NULL, parts, NULL, NULL, NULL, NULL, {NULL, 0, 0}, NULL), 0);
    b.rows = 1;
    assert_int_equal(cuda_qkv(&b, &a, NULL, parts, NULL, NULL, NULL, NULL, {NULL, 0, 0}, NULL), 0);
    assert_null(simt_report());
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(one_launch_has_the_bits_of_two),
    cmocka_unit_test(packed_weights_too),
    cmocka_unit_test(many_rows_have_the_same_bits),
    cmocka_unit_test(copies_write_no_cache),
    cmocka_unit_test(nothing_to_do),
};

KERNEL_MAIN(tests)
