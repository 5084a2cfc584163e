/* What the tests of the kernels share: batches on the device, host-side bf16. */
#ifndef WITAN_TESTS_CUDA_BATCH_H
#define WITAN_TESTS_CUDA_BATCH_H

#include "tests/simt/check.h"
#include "worker/cuda/stages.h"

#include <math.h>

/* `rows` rows of one sequence from position `begin` on; blocks: those of its positions 0.. */
struct test_sequence {
    int32_t begin, rows;
    std::vector<int32_t> blocks;
};

struct test_batch {
    std::vector<int32_t> token, pos, table, blocks;
    cuda_batch b;

    explicit test_batch(const std::vector<test_sequence> &sequences, uint64_t seed = 1)
    {
        int32_t longest = 0;
        for (const test_sequence &s : sequences) {
            for (int32_t i = 0; i < s.rows; i++) {
                token.push_back(random_int(&seed, 0, 999));
                pos.push_back(s.begin + i);
                table.push_back((int32_t)blocks.size());
            }
            blocks.insert(blocks.end(), s.blocks.begin(), s.blocks.end());
            longest = s.begin + s.rows > longest ? s.begin + s.rows : longest;
        }
        b = {};
        b.rows = (int32_t)pos.size();
        b.token = put(token);
        b.pos = put(pos);
        b.table = put(table);
        b.blocks = put(blocks);
        b.longest = longest;
    }
    /* Rows of a sequence together. */
    void cut(const cuda_attention &a)
    {
        std::vector<cuda_unit> unit(pos.size());
        b.runs = cuda_attention_units(&a, b.rows, pos.data(), table.data(), unit.data(), &b.alone);
        unit.resize((size_t)(b.runs + b.alone));
        std::vector<int32_t> flat;
        for (const cuda_unit &u : unit) {
            flat.push_back(u.row);
            flat.push_back(u.rows);
        }
        b.unit = (const cuda_unit *)put(flat);
    }
    ~test_batch()
    {
        for (const int32_t *p : {b.token, b.pos, b.table, b.blocks})
            device_free((void *)p);
        device_free((void *)b.unit);
    }
    test_batch(const test_batch &) = delete;
    test_batch &operator=(const test_batch &) = delete;

  private:
    static const int32_t *put(const std::vector<int32_t> &values)
    {
        void *p;
        assert_int_equal(device_alloc(&p, values.size() * 4), 0);
        assert_int_equal(device_write(p, values.data(), values.size() * 4, NULL), 0);
        assert_int_equal(device_wait(NULL), 0);
        return (const int32_t *)p;
    }
};

static inline cuda_matrix bf16_matrix(const cuda_bf16 *data, int32_t rows, int32_t cols)
{
    return {data, rows, cols, NULL, {}};
}

/* To nearest, ties to even; for finite numbers. */
static inline cuda_bf16 bf16_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (cuda_bf16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline std::vector<cuda_bf16> bf16_of(const std::vector<float> &x)
{
    std::vector<cuda_bf16> y;
    for (float f : x)
        y.push_back(bf16_of(f));
    return y;
}

template <class T> static std::vector<T> part(const std::vector<T> &x, size_t begin, size_t count)
{
    return std::vector<T>(x.begin() + (long)begin, x.begin() + (long)(begin + count));
}

/* In bits, NaNs too. */
template <class T>
static void assert_same(const std::vector<T> &found, const std::vector<T> &expected)
{
    assert_int_equal(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); i++)
        if (memcmp(&found[i], &expected[i], sizeof(T)))
            fail_msg("element %zu of %zu: expected %g, found %g", i, found.size(),
                     (double)expected[i], (double)found[i]);
}

static inline void assert_near(size_t at, double found, double expected, double bound)
{
    if (!(fabs(found - expected) <= bound))
        fail_msg("element %zu: expected %.9g, found %.9g, bound %.3g", at, expected, found, bound);
}

#endif
