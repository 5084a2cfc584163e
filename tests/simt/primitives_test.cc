/*
 * Each primitive of device.cuh against an independent statement of what it does: fragment layouts
 * element by element from the PTX ISA's formulas, conversions against a search for the nearest
 * number.
 */
#include "tests/simt/check.h"

#include "tests/simt/primitives.cuh"

#include <float.h>
#include <math.h>
#include <string.h>

extern "C" {
#include "worker/detmath.h"
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* What PTX says of shfl: the source lane, or the lane itself where it lies outside the group. */
static int shuffle_source(int kind, int lane, int by, int width)
{
    int begin = lane / width * width, end = begin + width;
    if (kind == 0 || kind == 4)
        return begin + by % width;
    int from = kind == 1 ? lane - by : kind == 2 ? lane + by : lane ^ by;
    bool inside = kind == 1 ? from >= begin : from < end;
    return inside ? from : lane;
}

static void shuffles_read_the_right_lane(void **state)
{
    (void)state;
    std::vector<int> x(32);
    for (int i = 0; i < 32; i++)
        x[(size_t)i] = 100 + 7 * i;
    device_array<int> dx(x), out(32 * SHUFFLE_KINDS);
    for (int width = 1; width <= 32; width *= 2)
        for (int by = 0; by < 32; by++) {
            assert_ran(run_shuffles(dx.p, by, width, out.p));
            std::vector<int> found = out.read();
            for (int kind = 0; kind < SHUFFLE_KINDS; kind++)
                for (int lane = 0; lane < 32; lane++)
                    assert_int_equal(found[(size_t)(32 * kind + lane)],
                                     x[(size_t)shuffle_source(kind, lane, by, width)]);
        }
}

static int vote_expected(int what, const std::vector<int> &x, unsigned mask, int lane)
{
    int64_t sum = 0;
    int least = INT32_MAX, most = INT32_MIN;
    uint32_t ballot = 0, match = 0, low = UINT32_MAX, high = 0, conj = UINT32_MAX, disj = 0,
             exor = 0;
    bool any = false, all = true;
    for (int i = 0; i < 32; i++) {
        if (!(mask >> i & 1))
            continue;
        int v = x[(size_t)i];
        uint32_t u = (uint32_t)v;
        ballot |= (u & 1u) << i;
        match |= (uint32_t)(v == x[(size_t)lane]) << i;
        any |= v == 3;
        all &= v != 3;
        sum += v;
        least = v < least ? v : least;
        most = v > most ? v : most;
        low = u < low ? u : low;
        high = u > high ? u : high;
        conj &= u;
        disj |= u;
        exor ^= u;
    }
    const int expected[VOTES] = {(int)ballot, any,       all,       (int)match,
                                 (int)sum,    least,     most,      (int)low,
                                 (int)high,   (int)conj, (int)disj, (int)exor};
    return expected[what];
}

static void votes_and_reductions(void **state)
{
    (void)state;
    uint64_t seed = 1;
    device_array<int> out(32 * VOTES);
    for (unsigned mask : {0xffffffffu, 0x0000ffffu, 0x80000001u, 0x00000100u, 0x5a5a5a5au}) {
        std::vector<int> x(32);
        for (int &v : x)
            v = (int)(random_u64(&seed) % 9) - 4;
        device_array<int> dx(x);
        assert_ran(run_votes(dx.p, mask, out.p));
        std::vector<int> found = out.read();
        for (int what = 0; what < VOTES; what++)
            for (int lane = 0; lane < 32; lane++)
                assert_int_equal(found[(size_t)(32 * what + lane)],
                                 mask >> lane & 1 ? vote_expected(what, x, mask, lane) : -1);
    }
}

/* ---- Numbers of few bits ---- */

/* The value of a code: sign, exponent field of `e` bits, mantissa of `m` bits. */
static double decode(uint32_t code, int e, int m)
{
    int field = (int)(code >> m) & ((1 << e) - 1), bias = (1 << (e - 1)) - 1;
    double fraction = (double)(code & ((1u << m) - 1)) / (1 << m);
    double x = field ? ldexp(1.0 + fraction, field - bias) : ldexp(fraction, 1 - bias);
    return code >> (e + m) & 1 ? -x : x;
}

/* The code nearest to |x| among 0 .. last, ties to the even one; codes rise with their values. */
static uint32_t nearest(double x, int e, int m, uint32_t last)
{
    uint32_t low = 0, high = last;
    x = fabs(x);
    while (low < high) { /* the largest code whose value is not above x */
        uint32_t mid = (low + high + 1) / 2;
        if (decode(mid, e, m) <= x)
            low = mid;
        else
            high = mid - 1;
    }
    if (low == last)
        return last;
    double below = x - decode(low, e, m), above = decode(low + 1, e, m) - x;
    return below < above || (below == above && low % 2 == 0) ? low : low + 1;
}

/* ---- mma: element i of a lane's fragment, as the PTX ISA numbers them ---- */

static int a_row(int bytes, int lane, int i)
{
    int group = lane >> 2;
    if (bytes == 2)
        return (0 <= i && i < 2) || (4 <= i && i < 6) ? group : group + 8;
    return (0 <= i && i < 4) || (8 <= i && i < 12) ? group : group + 8;
}

static int a_column(int bytes, int lane, int i)
{
    int in_group = lane % 4;
    if (bytes == 2)
        return in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
    return in_group * 4 + (i & 3) + (i >= 8 ? 16 : 0);
}

static int b_row(int bytes, int lane, int i)
{
    int in_group = lane % 4;
    if (bytes == 2)
        return in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0);
    return in_group * 4 + (i & 3) + (i >= 4 ? 16 : 0);
}

static int c_row(int lane, int i)
{
    return (lane >> 2) + (i < 2 ? 0 : 8);
}

static int c_column(int lane, int i)
{
    return lane % 4 * 2 + (i & 1);
}

/* A number and its code in the format of an mma. */
static double number_of(enum mma_kind kind, uint32_t code)
{
    return kind == MMA_BF16   ? decode(code, 8, 7)
           : kind == MMA_F16  ? decode(code, 5, 10)
           : kind == MMA_E4M3 ? decode(code, 4, 3)
                              : (double)(int8_t)code;
}

static uint32_t random_code(enum mma_kind kind, uint64_t *seed)
{
    double x = (double)random_float(seed, 1.0) * 4.0;
    uint32_t sign = x < 0.0;
    return kind == MMA_BF16   ? sign << 15 | nearest(x, 8, 7, 0x7f80)
           : kind == MMA_F16  ? sign << 15 | nearest(x, 5, 10, 0x7c00)
           : kind == MMA_E4M3 ? sign << 7 | nearest(x, 4, 3, 0x7e)
                              : (uint32_t)(random_u64(seed) & 0xff);
}

/* Tensor cores round sums of up to 32 products of up to 16 in their own way. */
#if defined(__CUDACC__)
static const double MMA_BOUND = 2e-2;
#else
static const double MMA_BOUND = 1e-5;
#endif

static void check_mma(enum mma_kind kind, uint64_t seed)
{
    const int bytes = kind == MMA_BF16 || kind == MMA_F16 ? 2 : 1, k = 32 / bytes;
    const bool integer = kind == MMA_S8;
    uint32_t a[16][32], b[32][8];
    double c[16][8];
    std::vector<uint32_t> fa(32 * 4, 0), fb(32 * 2, 0), fd(32 * 4);
    for (auto &row : a)
        for (uint32_t &x : row)
            x = random_code(kind, &seed);
    for (auto &row : b)
        for (uint32_t &x : row)
            x = random_code(kind, &seed);
    for (auto &row : c)
        for (double &x : row)
            x = integer ? (double)(int)(random_u64(&seed) % 2001) - 1000.0
                        : (double)random_float(&seed, 1.0);
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 16 / bytes; i++)
            fa[(size_t)(4 * lane + i * bytes / 4)] |=
                a[a_row(bytes, lane, i)][a_column(bytes, lane, i)] << i * bytes * 8 % 32;
        for (int i = 0; i < 8 / bytes; i++)
            fb[(size_t)(2 * lane + i * bytes / 4)] |= b[b_row(bytes, lane, i)][lane >> 2]
                                                      << i * bytes * 8 % 32;
        for (int i = 0; i < 4; i++) {
            double x = c[c_row(lane, i)][c_column(lane, i)];
            fd[(size_t)(4 * lane + i)] = integer ? (uint32_t)(int)x : bits_of((float)x);
        }
    }
    device_array<uint32_t> da(fa), db(fb), dd(fd);
    assert_ran(run_mma(kind, da.p, db.p, dd.p));
    std::vector<uint32_t> found = dd.read();
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++) {
            int row = c_row(lane, i), column = c_column(lane, i);
            double sum = c[row][column];
            for (int l = 0; l < k; l++)
                sum += number_of(kind, a[row][l]) * number_of(kind, b[l][column]);
            uint32_t got = found[(size_t)(4 * lane + i)];
            float as_float;
            memcpy(&as_float, &got, sizeof got);
            double difference = (integer ? (double)(int32_t)got : (double)as_float) - sum;
            if (!(fabs(difference) <= (integer ? 0.0 : MMA_BOUND)))
                fail_msg("mma %d, lane %d, element %d: off by %g", kind, lane, i, difference);
        }
}

static void mma_fragments(void **state)
{
    (void)state;
    for (int kind = MMA_BF16; kind <= MMA_S8; kind++)
        for (uint64_t seed = 1; seed <= 5; seed++)
            check_mma((enum mma_kind)kind, seed);
}

static void ldmatrix_fragments(void **state)
{
    (void)state;
    std::vector<uint16_t> x(4 * 64);
    for (size_t i = 0; i < x.size(); i++)
        x[i] = (uint16_t)(1000 + i);
    device_array<uint16_t> dx(x);
    for (int count = 1; count <= 4; count *= 2)
        for (int trans = 0; trans < 2; trans++) {
            device_array<uint32_t> out((size_t)(32 * count));
            assert_ran(run_ldmatrix(count, trans != 0, dx.p, out.p));
            std::vector<uint32_t> found = out.read();
            for (int lane = 0; lane < 32; lane++)
                for (int m = 0; m < count; m++)
                    for (int half = 0; half < 2; half++) {
                        int row = lane / 4, column = lane % 4 * 2 + half;
                        int from = trans ? 8 * column + row : 8 * row + column;
                        uint32_t got = found[(size_t)(lane * count + m)] >> 16 * half & 0xffffu;
                        assert_int_equal(got, x[(size_t)(64 * m + from)]);
                    }
        }
}

static void asynchronous_copies(void **state)
{
    (void)state;
    const int threads = 70;
    uint64_t seed = 3;
    std::vector<uint8_t> x(16 * threads);
    std::vector<int> bytes(threads);
    for (uint8_t &v : x)
        v = (uint8_t)(1 + random_u64(&seed) % 255);
    for (int size : {4, 8, 16, 0}) { /* 0: the cached ones */
        for (int &v : bytes)
            v = (int)(random_u64(&seed) % 17);
        device_array<uint8_t> dx(x), out(x.size());
        device_array<int> dbytes(bytes);
        assert_ran(run_copies(size, size == 0, dx.p, dbytes.p, out.p, threads));
        std::vector<uint8_t> found = out.read();
        for (size_t i = 0; i < x.size(); i++)
            assert_int_equal(found[i], (int)(i % 16) < bytes[i / 16] ? x[i] : 0);
    }
}

/* ---- Conversions ---- */

static void widening_is_exact(void **state)
{
    (void)state;
    device_array<float> bf16(65536), f16(65536), e4m3(256);
    assert_ran(run_widen(bf16.p, f16.p, e4m3.p));
    std::vector<float> b = bf16.read(), h = f16.read(), e = e4m3.read();
    for (uint32_t code = 0; code < 65536; code++) {
        if ((code & 0x7f80) == 0x7f80)
            assert_true(code & 0x7f ? b[code] != b[code] : isinf(b[code]));
        else
            assert_true((double)b[code] == decode(code, 8, 7));
        if ((code & 0x7c00) == 0x7c00)
            assert_true(code & 0x3ff ? h[code] != h[code]
                                     : isinf(h[code]) && (h[code] < 0) == (code >> 15));
        else
            assert_true((double)h[code] == decode(code, 5, 10) &&
                        signbit(h[code]) == (code >> 15 != 0));
        if (code < 256 && (code & 0x7f) == 0x7f)
            assert_true(e[code] != e[code]);
        else if (code < 256)
            assert_true((double)e[code] == decode(code, 4, 3));
    }
}

/* Codes of f16, halfway points between them, their neighbours, and odd ones. */
static std::vector<float> conversion_inputs()
{
    std::vector<float> x = {0.0f,
                            -0.0f,
                            INFINITY,
                            -INFINITY,
                            FLT_MAX,
                            FLT_MIN,
                            FLT_TRUE_MIN,
                            448.0f,
                            464.0f,
                            449.0f,
                            1e9f,
                            65504.0f,
                            65519.996f,
                            65520.0f,
                            0x1p-10f,
                            0x1.8p-10f,
                            3.3961775292304e38f,
                            NAN};
    for (uint32_t code = 0; code < 0x7c00; code += 7) {
        float low = (float)decode(code, 5, 10),
              mid = (float)((double)low * 0.5 + decode(code + 1, 5, 10) * 0.5);
        for (float f : {low, -mid, nextafterf(mid, 0.0f), nextafterf(mid, INFINITY)})
            x.push_back(f);
    }
    for (uint32_t code = 0; code < 126; code++) {
        float mid = (float)((decode(code, 4, 3) + decode(code + 1, 4, 3)) / 2);
        for (float f : {mid, -mid, nextafterf(mid, 0.0f), nextafterf(mid, INFINITY)})
            x.push_back(f);
    }
    uint64_t seed = 9;
    for (int i = 0; i < 20000; i++) {
        uint32_t bits = (uint32_t)random_u64(&seed) & (i % 2 ? 0xffffffffu : 0xffff8000u);
        float f;
        memcpy(&f, &bits, sizeof f);
        x.push_back(f);
    }
    return x;
}

static void narrowing_is_to_nearest_even(void **state)
{
    (void)state;
    std::vector<float> x = conversion_inputs();
    size_t n = x.size();
    device_array<float> dx(x);
    device_array<uint16_t> bf16(n), f16(n);
    device_array<uint8_t> e4m3(n);
    device_array<uint32_t> bf16_pairs(n), f16_pairs(n);
    assert_ran(run_narrow(dx.p, (int)n, bf16.p, f16.p, e4m3.p, bf16_pairs.p, f16_pairs.p));
    std::vector<uint16_t> b = bf16.read(), h = f16.read();
    std::vector<uint8_t> e = e4m3.read();
    std::vector<uint32_t> pb = bf16_pairs.read(), ph = f16_pairs.read();
    for (size_t i = 0; i < n; i++) {
        uint32_t sign = signbit(x[i]) != 0;
        double v = (double)x[i];
        assert_int_equal(pb[i], b[i] | (uint32_t)b[n - 1 - i] << 16);
        assert_int_equal(ph[i], h[i] | (uint32_t)h[n - 1 - i] << 16);
        if (v != v) {
            assert_true(b[i] == 0x7fff && h[i] == 0x7fff && e[i] == 0x7f);
            continue;
        }
        /* The code after the largest number stands for infinity and rounds like one. */
        assert_int_equal(b[i], sign << 15 | nearest(v, 8, 7, 0x7f80));
        assert_int_equal(h[i], sign << 15 | nearest(v, 5, 10, 0x7c00));
        assert_int_equal(e[i], sign << 7 | nearest(v, 4, 3, 0x7e));
    }
}

/* Sums that a double holds, and some that it does not, by hand. */
static void bf16_fma_rounds_once(void **state)
{
    (void)state;
    const uint32_t by_hand[][4] = {
        /* 1.5 x 1.0078125 lies between two: what is added, however small, decides. */
        {0x3fc0, 0x3f81, 0x0001, 0x3fc2}, {0x3fc0, 0x3f81, 0x8001, 0x3fc1},
        {0x3fc0, 0x3f81, 0x0000, 0x3fc2}, {0xbfc0, 0x3f81, 0x8001, 0xbfc2},
        {0xbfc0, 0x3f81, 0x0001, 0xbfc1}, {0x0010, 0x7b80, 0x8000, 0x3b00}, /* subnormals */
        {0x0001, 0x3f80, 0x0001, 0x0002}, {0x8000, 0x3f80, 0x8000, 0x8000},
        {0x3f80, 0x3f80, 0xbf80, 0x0000}, {0x7f7f, 0x4000, 0x0000, 0x7f80},
    };
    std::vector<uint32_t> a, b, c, expected;
    for (const uint32_t *r : by_hand)
        a.push_back(r[0]), b.push_back(r[1]), c.push_back(r[2]), expected.push_back(r[3]);
    uint64_t seed = 11;
    for (int i = 0; i < 20000; i++) { /* exponents so near that every sum is exact in a double */
        uint32_t code[3];
        for (uint32_t &k : code)
            k = (uint32_t)random_int(&seed, 0, 1) << 15 |
                (uint32_t)random_int(&seed, 0x3c00, 0x43ff);
        a.push_back(code[0]), b.push_back(code[1]), c.push_back(code[2]);
        double sum = decode(code[0] & 0x7fff, 8, 7) * (code[0] >> 15 ? -1 : 1) *
                         decode(code[1] & 0x7fff, 8, 7) * (code[1] >> 15 ? -1 : 1) +
                     decode(code[2] & 0x7fff, 8, 7) * (code[2] >> 15 ? -1 : 1);
        expected.push_back((uint32_t)(signbit(sum) != 0) << 15 | nearest(sum, 8, 7, 0x7f80));
    }
    for (std::vector<uint32_t> *v : {&a, &b, &c, &expected}) /* the halves are apart */
        for (size_t i = 0; i < v->size(); i++)
            (*v)[i] |= (*v)[v->size() - 1 - i] << 16 & (i < v->size() / 2 ? 0xffff0000u : 0);
    device_array<uint32_t> da(a), db(b), dc(c), out(a.size());
    assert_ran(run_bf16_fma(da.p, db.p, dc.p, (int)a.size(), out.p));
    std::vector<uint32_t> found = out.read();
    for (size_t i = 0; i < a.size(); i++)
        assert_int_equal(i < a.size() / 2 ? found[i] : found[i] & 0xffffu, expected[i]);
    const uint32_t nan[][3] = {
        {0x7fc0, 0, 0}, {0, 0xffff, 0}, {0, 0, 0x7f81}, {0x7f80, 0, 0}, {0x7f80, 0x3f80, 0xff80}};
    for (const uint32_t *r : nan) {
        device_array<uint32_t> na(std::vector<uint32_t>{r[0]}), nb(std::vector<uint32_t>{r[1]}),
            nc(std::vector<uint32_t>{r[2]}), one(1);
        assert_ran(run_bf16_fma(na.p, nb.p, nc.p, 1, one.p));
        assert_true((one.read()[0] & 0x7fff) > 0x7f80);
    }
}

/* ---- The rest ---- */

static void atomic_operations(void **state)
{
    (void)state;
    const int blocks = 6, threads = 50, n = blocks * threads;
    device_array<int> cells(std::vector<int>{0, 0, 0, 0, -1, -5, 0});
    device_array<unsigned long long> wide(std::vector<unsigned long long>{0});
    device_array<float> sum(std::vector<float>{0.0f});
    device_array<double> wide_sum(std::vector<double>{0.0});
    assert_ran(run_atomics(cells.p, wide.p, sum.p, wide_sum.p, blocks, threads));
    std::vector<int> c = cells.read();
    assert_int_equal(c[CELL_ADD], n * (n - 1) / 2);
    assert_int_equal(c[CELL_MIN], 1 - n);
    assert_int_equal(c[CELL_MAX], n - 1);
    assert_int_equal(c[CELL_OR], 0x7fffffff);
    assert_int_equal((unsigned)c[CELL_AND], 0x80000000u);
    assert_int_equal(c[CELL_CAS_MAX], n - 1);
    /* What was exchanged out, and what is left, is each number once. */
    assert_int_equal(wide.read()[0] + (unsigned long long)c[CELL_EXCH], n * (n - 1) / 2);
    assert_true(sum.read()[0] == 0.5f * n && wide_sum.read()[0] == 0.25 * n);
}

static void block_votes(void **state)
{
    (void)state;
    const int threads = 77;
    device_array<int> out(3);
    for (int set : {0, 1, 40, 77}) {
        std::vector<int> x(threads, 0);
        for (int i = 0; i < set; i++)
            x[(size_t)i] = 2 + i;
        device_array<int> dx(x);
        assert_ran(run_block_votes(dx.p, threads, out.p));
        assert_true(out.read() == (std::vector<int>{set, set > 0, set == threads}));
    }
}

static void indices_and_lanes(void **state)
{
    (void)state;
    const int x = 5, y = 3, z = 4, blocks = 3;
    device_array<int> out(6 * x * y * z * blocks);
    assert_ran(run_indices(x, y, z, blocks, out.p));
    std::vector<int> found = out.read();
    for (int b = 0; b < blocks; b++)
        for (int i = 0; i < x * y * z; i++) {
            const int *o = &found[(size_t)(6 * (b * x * y * z + i))];
            const int expected[6] = {i % x, i / x % y, i / x / y, i % 32, b, y};
            assert_memory_equal(o, expected, sizeof expected);
        }
}

static void arithmetic(void **state)
{
    (void)state;
    std::vector<float> a = random_numbers(11, 500), b = random_numbers(12, 500);
    a[0] = 0.0f;
    a[1] = NAN;
    size_t n = a.size();
    device_array<float> da(a), db(b);
    device_array<uint32_t> out(HELPERS * n);
    assert_ran(run_helpers(da.p, db.p, (int)n, out.p));
    std::vector<uint32_t> found = out.read();
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = bits_of(a[i]), ones = 0, clz = 32, ffs = 0, reversed = 0;
        for (uint32_t k = 0; k < 32; k++)
            if (bits >> k & 1) {
                ones++;
                clz = 31 - k;
                ffs = ffs ? ffs : k + 1;
                reversed |= 1u << (31 - k);
            }
        bool nan = a[i] != a[i];
        uint32_t other = bits_of(b[i]);
        uint8_t x[4], y[4]; /* little-endian, as devices are */
        memcpy(x, &bits, 4);
        memcpy(y, &other, 4);
        uint32_t permuted = x[2] << 24 | y[3] << 16 | x[0] << 8 | y[1];
        int dot = -5;
        for (int k = 0; k < 4; k++)
            dot += (int8_t)x[k] * (int8_t)y[k];
        const uint32_t expected[HELPERS] = {ones,
                                            clz,
                                            ffs,
                                            reversed,
                                            bits_of(fmaf(a[i], b[i], 1.0f)),
                                            bits_of(a[i] + b[i]),
                                            bits_of(a[i] * b[i]),
                                            bits_of(a[i] / b[i]),
                                            bits_of(nan || b[i] < a[i] ? b[i] : a[i]),
                                            bits_of(nan || a[i] < b[i] ? b[i] : a[i]),
                                            (int)bits < 77 ? bits : 77,
                                            bits > 77 ? bits : 77,
                                            (uint32_t)((uint64_t)bits * other >> 32),
                                            permuted,
                                            (uint32_t)dot};
        for (size_t h = 0; h < HELPERS; h++)
            assert_int_equal(found[h * n + i], expected[h]);
    }
}

/* The bits of the library that the CPU backend uses. */
static void elementary_functions(void **state)
{
    (void)state;
    std::vector<double> x;
    uint64_t seed = 13;
    for (int i = 0; i < 2000; i++)
        x.push_back((double)random_float(&seed, 1.0) * (i % 2 ? 80.0 : 2.0) + 1e-9);
    size_t n = x.size();
    device_array<double> dx(x), out(4 * n);
    device_array<float> single(n);
    assert_ran(run_detmath(dx.p, (int)n, out.p, single.p));
    std::vector<double> found = out.read();
    std::vector<float> f = single.read();
    for (size_t i = 0; i < n; i++) {
        double sine, cosine;
        det_sincos(x[i], &sine, &cosine);
        assert_true(found[i] == det_exp(x[i]) && found[n + i] == det_log(fabs(x[i])));
        assert_true(found[2 * n + i] == sine && found[3 * n + i] == cosine);
        double exact = exp((double)(float)x[i]);
        assert_true(fabs((double)f[i] - exact) <= exact * 0x1p-22);
    }

    uint64_t ones = 0x7fffffffe0000000u; /* a device's NaN */
    double nan;
    memcpy(&nan, &ones, sizeof nan);
    device_array<double> dnan(std::vector<double>(1, nan)), results(4);
    device_array<float> one(1);
    assert_ran(run_detmath(dnan.p, 1, results.p, one.p));
    assert_true(std::isnan(one.read()[0]));
}

static void vector_types(void **state)
{
    (void)state;
    const size_t n = 512;
    std::vector<float> x = random_numbers(14, n);
    device_array<float> dx(x), y(n);
    assert_ran(run_vectors(dx.p, (int)n, y.p));
    std::vector<float> found = y.read();
    for (size_t i = 0; i < n; i++)
        assert_true(found[i] == x[n - 1 - i]);

    std::vector<double> wide(x.begin(), x.end());
    device_array<double> dwide(wide), back(n);
    assert_ran(run_double_vectors(dwide.p, (int)n, back.p));
    std::vector<double> reversed = back.read();
    for (size_t i = 0; i < n; i++)
        assert_true(reversed[i] == wide[n - 1 - i]);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(shuffles_read_the_right_lane),
    cmocka_unit_test(votes_and_reductions),
    cmocka_unit_test(mma_fragments),
    cmocka_unit_test(ldmatrix_fragments),
    cmocka_unit_test(asynchronous_copies),
    cmocka_unit_test(widening_is_exact),
    cmocka_unit_test(narrowing_is_to_nearest_even),
    cmocka_unit_test(bf16_fma_rounds_once),
    cmocka_unit_test(atomic_operations),
    cmocka_unit_test(block_votes),
    cmocka_unit_test(indices_and_lanes),
    cmocka_unit_test(arithmetic),
    cmocka_unit_test(elementary_functions),
    cmocka_unit_test(vector_types),
};

KERNEL_MAIN(tests)
