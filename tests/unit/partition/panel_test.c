/* partition/panel: where each code and scale lies, how near they are, and what is refused. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "partition/panel.h"
#include "tests/unit/random.h"

#include <math.h>

static float from_bf16(const void *at)
{
    uint16_t half;
    memcpy(&half, at, sizeof half);
    uint32_t bits = (uint32_t)half << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* The nearest to f > 0, of two equally near the greater; or so many steps above it. */
static float near_bf16(float f, int32_t steps)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint16_t half = (uint16_t)((int32_t)((bits + 0x8000) >> 16) + steps);
    return from_bf16(&half);
}

/* panel.h in its own words: scales first, then quads of 4 columns of 16 rows, and in 4 bits two
 * quads in 64 bytes. */
static float scale_at(const unsigned char *panel, int32_t row, int32_t col)
{
    return from_bf16(panel + 32 * (size_t)(col / 32) + 2 * (size_t)row);
}

static int code_at(const unsigned char *panel, int32_t cols, int bits, int32_t row, int32_t col)
{
    size_t scales = ((size_t)cols / 32 * 32 + 63) / 64 * 64;
    size_t quad = (size_t)(col / 4), within = (size_t)row * 4 + (size_t)(col % 4);
    if (bits == 8)
        return panel[scales + quad * 64 + within] - 128;
    int two = panel[scales + quad / 2 * 64 + within];
    return panel_codebook[quad % 2 ? two >> 4 : two & 15] - 128;
}

/* Sums of 12 uniform draws: near to normal, of deviation 1. */
static float *draws(size_t count, uint64_t seed)
{
    float *x = check_calloc(count, sizeof *x);
    for (size_t i = 0; i < count; i++) {
        double sum = -6;
        for (int k = 0; k < 12; k++)
            sum += random_unit(&seed);
        x[i] = (float)sum;
    }
    return x;
}

static unsigned char *packed(const float *x, int32_t rows, int32_t cols, int bits)
{
    unsigned char *panel = check_calloc(1, panel_bytes(cols, bits));
    memset(panel, 0xee, panel_bytes(cols, bits));
    assert_int_equal(panel_pack(x, rows, cols, bits, panel), -1);
    return panel;
}

static void layout_and_inverse(void **state)
{
    (void)state;
    for (int bits = 4; bits <= 8; bits += 4)
        for (int32_t cols = 32; cols <= 160; cols += 32) {
            assert_int_equal(panel_bytes(cols, bits), (cols + 63) / 64 * 64 + 16 * cols * bits / 8);
            float *x = draws(16 * (size_t)cols, (uint64_t)cols), row[160];
            unsigned char *panel = packed(x, 16, cols, bits);
            for (int32_t r = 0; r < 16; r++) {
                panel_row(panel, r, cols, bits, row);
                for (int32_t c = 0; c < cols; c++) {
                    float scale = scale_at(panel, r, c);
                    assert_true(row[c] == scale * (float)code_at(panel, cols, bits, r, c));
                    float bound = bits == 8 ? 0.501f : 20; /* in 4 bits the ends are far apart */
                    assert_true(fabsf(row[c] - x[r * cols + c]) <= bound * fabsf(scale));
                }
            }
            free(panel);
            free(x);
        }
}

/* A block of a row has the same scale and codes wherever it stands, and whatever stands beside. */
static void blocks_stand_alone(void **state)
{
    (void)state;
    enum { ROWS = 11, COLS = 96 };
    float *x = draws((size_t)ROWS * COLS, 7);
    for (int bits = 4; bits <= 8; bits += 4) {
        unsigned char *whole = packed(x, ROWS, COLS, bits);
        for (int32_t r = 0; r < ROWS; r++)
            for (int32_t b = 0; b < COLS; b += 32) {
                unsigned char *alone = packed(x + r * COLS + b, 1, 32, bits);
                assert_true(scale_at(alone, 0, 0) == scale_at(whole, r, b));
                for (int32_t c = 0; c < 32; c++)
                    assert_int_equal(code_at(alone, 32, bits, 0, c),
                                     code_at(whole, COLS, bits, r, b + c));
                free(alone);
            }
        for (int32_t r = ROWS; r < 16; r++) /* past the matrix */
            for (int32_t c = 0; c < COLS; c++) {
                assert_true(scale_at(whole, r, c) == 0);
                assert_int_equal(code_at(whole, COLS, bits, r, c),
                                 bits == 8 ? 0 : panel_codebook[PANEL_ZERO4 & 15] - 128);
            }
        free(whole);
    }
    free(x);
}

static void eight_bits_by_hand(void **state)
{
    (void)state;
    float x[32] = {0};
    unsigned char *panel;
    x[0] = -254.0f; /* scale 2, by which all are whole: -127 */
    x[1] = 4.0f;
    x[2] = 6.0f;
    x[31] = 250.0f;
    panel = packed(x, 1, 32, 8);
    assert_true(scale_at(panel, 0, 0) == 2.0f);
    assert_int_equal(code_at(panel, 32, 8, 0, 0), -127);
    assert_int_equal(code_at(panel, 32, 8, 0, 1), 2);
    assert_int_equal(code_at(panel, 32, 8, 0, 2), 3);
    assert_int_equal(code_at(panel, 32, 8, 0, 3), 0);
    assert_int_equal(code_at(panel, 32, 8, 0, 31), 125);
    free(panel);
    for (int i = 0; i < 31;
         i++) /* 254 / 125.0 is scale 2 + 2^-5, by which all but that are whole */
        x[i] = 2.03125f * (float)(i + 1);
    x[31] = 254.0f;
    panel = packed(x, 1, 32, 8);
    assert_true(scale_at(panel, 0, 0) == 2.03125f);
    assert_int_equal(code_at(panel, 32, 8, 0, 30), 31);
    assert_int_equal(code_at(panel, 32, 8, 0, 31), 125);
    free(panel);
    for (uint64_t seed = 1; seed < 3000; seed++) { /* no code leaves its range */
        uint64_t s = seed;
        float top = (float)(random_unit(&s) + 0.5);
        x[0] = seed % 2 ? top : -top;
        for (int i = 1; i < 32; i++)
            x[i] = x[0] * (float)(random_unit(&s) * 0.1);
        panel = packed(x, 1, 32, 8);
        int code = code_at(panel, 32, 8, 0, 0) * (seed % 2 ? 1 : -1);
        assert_true(code >= 120 && code <= 127);
        free(panel);
    }
}

/* The squared error of a block with codes of 8 bits by a scale. */
static double error8_by(const float *x, double scale)
{
    double sum = 0;
    for (int i = 0; i < 32; i++) {
        double d = (double)x[i] - scale * rint((double)x[i] / scale);
        sum += d * d;
    }
    return sum;
}

/* The best of the scale that makes the largest value 127 and the seven bf16s above it, and so a
 * sixth less in all than by the first. */
static void eight_bits_near_the_best(void **state)
{
    (void)state;
    enum { BLOCKS = 500 };
    double found = 0, plain = 0;
    float *x = draws(BLOCKS * 32, 5);
    for (int b = 0; b < BLOCKS; b++) {
        const float *at = x + b * 32;
        float top = 0, first;
        for (int i = 0; i < 32; i++)
            top = fabsf(at[i]) > top ? fabsf(at[i]) : top;
        first = near_bf16(top / 127, 0);
        double best = INFINITY, error;
        for (int i = 0; i < 8; i++) {
            error = error8_by(at, (double)near_bf16(first, i));
            best = error < best ? error : best;
        }
        unsigned char *panel = packed(at, 1, 32, 8);
        error = error8_by(at, (double)scale_at(panel, 0, 0));
        assert_true(error <= best * 1.001);
        free(panel);
        found += error;
        plain += error8_by(at, (double)first);
    }
    assert_true(found < 0.87 * plain && found > 0.75 * plain);
    free(x);
}

/* The squared error of a block with codes nearest by a scale. */
static double error_by(const float *x, double scale)
{
    double sum = 0;
    for (int i = 0; i < 32; i++) {
        double best = INFINITY;
        for (int k = 0; k < 16; k++) {
            double d = (double)x[i] - scale * (panel_codebook[k] - 128);
            best = d * d < best ? d * d : best;
        }
        sum += best;
    }
    return sum;
}

/* Within a few percent of the best of many scales of both signs, block by block, and of a
 * thousandth in all; codes are the nearest for the scale. */
static void four_bits_near_the_best(void **state)
{
    (void)state;
    enum { BLOCKS = 200 };
    double found = 0, possible = 0;
    float *x = draws(BLOCKS * 32, 3);
    for (int b = 0; b < BLOCKS; b++) {
        float *at = x + b * 32, row[32];
        double best = INFINITY, error = 0;
        if (b % 4 == 0)
            at[b % 32] *= 6; /* one that is far from the others */
        for (int size = 50; size <= 250; size++)
            for (int sign = -1; sign <= 1; sign += 2) {
                double top = 0;
                for (int i = 0; i < 32; i++)
                    top = fabs((double)at[i]) > top ? fabs((double)at[i]) : top;
                double e = error_by(at, sign * top / size);
                best = e < best ? e : best;
            }
        unsigned char *panel = packed(at, 1, 32, 4);
        panel_row(panel, 0, 32, 4, row);
        for (int i = 0; i < 32; i++)
            error += ((double)row[i] - (double)at[i]) * ((double)row[i] - (double)at[i]);
        assert_true(error <= error_by(at, (double)scale_at(panel, 0, 0)) * (1 + 1e-5));
        assert_true(error < 1.25 * best);
        found += error;
        possible += best;
        free(panel);
    }
    assert_true(found < 1.01 * possible);
    free(x);
}

/* Blocks of nothing, and of sizes at both ends. */
static void sizes_at_the_ends(void **state)
{
    (void)state;
    static const float sizes[] = {0x1p-99f, 1e-20f, 1, 1e20f, 0x1p98f};
    float *x = draws(32, 5), y[32], row[32];
    for (int bits = 4; bits <= 8; bits += 4) {
        unsigned char *one = packed(x, 1, 32, bits);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            float power = ldexpf(1, ilogbf(sizes[i]));
            for (int k = 0; k < 32; k++)
                y[k] = x[k] * power;
            unsigned char *panel = packed(y, 1, 32, bits);
            assert_true(scale_at(panel, 0, 0) == scale_at(one, 0, 0) * power);
            for (int k = 0; k < 32; k++)
                assert_int_equal(code_at(panel, 32, bits, 0, k), code_at(one, 32, bits, 0, k));
            free(panel);
        }
        for (int k = 0; k < 32; k++)
            y[k] = k % 2 ? 0x1p-101f : -0.0f;
        unsigned char *panel = packed(y, 1, 32, bits);
        panel_row(panel, 0, 32, bits, row);
        for (int k = 0; k < 32; k++)
            assert_true(row[k] == 0);
        free(panel);
        free(one);
    }
    free(x);
}

static void no_numbers_are_told(void **state)
{
    (void)state;
    enum { ROWS = 3, COLS = 64 };
    static const float bad[] = {NAN, INFINITY, -INFINITY, 0x1.01p100f, -3e38f};
    static const int64_t places[] = {0, 31, 40, COLS, 2 * COLS + 5, ROWS * COLS - 1};
    float *x = draws((size_t)ROWS * COLS, 9);
    for (int bits = 4; bits <= 8; bits += 4)
        for (size_t b = 0; b < sizeof bad / sizeof *bad; b++)
            for (size_t p = 0; p < sizeof places / sizeof *places; p++) {
                char panel[3 * 1024];
                float saved = x[places[p]];
                assert_true(panel_bytes(COLS, bits) <= sizeof panel);
                x[places[p]] = bad[b];
                assert_int_equal(panel_pack(x, ROWS, COLS, bits, panel), places[p]);
                x[places[p]] = saved;
            }
    free(x);
}

/* Any processor's: what was found once. */
static void the_same_bytes_everywhere(void **state)
{
    (void)state;
    static const uint32_t found[2] = {0xb65d42e8u,
                                      0x2eda389au}; /* the second changes with panel_codebook */
    float *x = draws(16 * 512, 11);
    for (int i = 0; i < 2; i++) {
        int bits = i == 0 ? 8 : 4;
        unsigned char *panel = packed(x, 16, 512, bits);
        uint32_t hash = 2166136261u; /* FNV-1a */
        for (uint64_t k = 0; k < panel_bytes(512, bits); k++)
            hash = (hash ^ panel[k]) * 16777619u;
        assert_int_equal(hash, found[i]);
        free(panel);
    }
    free(x);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(layout_and_inverse),      cmocka_unit_test(blocks_stand_alone),
    cmocka_unit_test(eight_bits_by_hand),      cmocka_unit_test(eight_bits_near_the_best),
    cmocka_unit_test(four_bits_near_the_best), cmocka_unit_test(sizes_at_the_ends),
    cmocka_unit_test(no_numbers_are_told),     cmocka_unit_test(the_same_bytes_everywhere),
};

UNIT_MAIN(tests)
