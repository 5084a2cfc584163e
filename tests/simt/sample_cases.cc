/* The sample kernels run and judged: see sample_cases.h. */
#include "tests/simt/sample_cases.h"

#include "tests/simt/check.h"

#include <math.h>

/* What a launch and a comparison (-1: equal) came to. */
static std::string outcome(int code, long wrong)
{
    const char *report = simt_report();
    (void)shared_path;
    code = code ? code : device_wait(NULL);
    if (report)
        return report;
    if (code != 0)
        return "launch: " + std::to_string(code);
    return wrong < 0 ? "" : "numbers: element " + std::to_string(wrong);
}

std::string case_row_sum(enum fault_kind f)
{
    const int rows = 7, columns = 301;
    std::vector<float> x = random_numbers(1, rows * columns), expected(rows);
    for (int r = 0; r < rows; r++) {
        double sum = 0.0;
        for (int i = 0; i < columns; i++)
            sum += (double)x[(size_t)(r * columns + i)];
        expected[(size_t)r] = (float)sum;
    }
    device_array<float> dx(x), out(rows);
    int threads = f == EXIT_BEFORE_BARRIER ? 320 : 128;
    int code = run_row_sum(f, dx.p, rows, columns, out.p, threads);
    return outcome(code, code ? -1 : differs(out.read(), expected, 1e-4));
}

std::string case_gemm_bf16(enum fault_kind f)
{
    const int m = 75, n = 69, k = 104; /* no multiples of the tiles' sizes */
    uint64_t seed = 2;
    std::vector<uint16_t> a((size_t)(m * k)), b((size_t)(n * k));
    for (std::vector<uint16_t> *x : {&a, &b})
        for (uint16_t &v : *x) { /* of magnitude 2^-7 to 2 */
            uint64_t bits = random_u64(&seed);
            v = (uint16_t)((bits & 0x83ff) + 0x3c00);
        }
    std::vector<float> expected((size_t)(m * n));
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double sum = 0.0;
            for (int l = 0; l < k; l++)
                sum += (double)bf16_value(a[(size_t)(i * k + l)]) *
                       (double)bf16_value(b[(size_t)(j * k + l)]);
            expected[(size_t)(i * n + j)] = (float)sum;
        }
    device_array<uint16_t> da(a), db(b);
    device_array<float> c((size_t)(m * n));
    int code = run_gemm_bf16(f, da.p, db.p, c.p, m, n, k);
    return outcome(code, code ? -1 : differs(c.read(), expected, 1e-5));
}

std::string case_softmax_rows(enum fault_kind f)
{
    const std::vector<int> first = {0, 33, 34, 63, 163, 196, 224, 224, 287};
    const int rows = (int)first.size() - 1;
    std::vector<float> x = random_numbers(3, (size_t)first.back()), expected(x.size());
    std::vector<float> scale = random_numbers(4, (size_t)rows);
    for (int r = 0; r < rows; r++) {
        double sum = 0.0, by = 8.0 * (double)(scale[(size_t)r] *= 8.0f) / 8.0;
        for (int i = first[(size_t)r]; i < first[(size_t)r + 1]; i++)
            sum += exp(by * (double)x[(size_t)i]);
        for (int i = first[(size_t)r]; i < first[(size_t)r + 1]; i++)
            expected[(size_t)i] = (float)(exp(by * (double)x[(size_t)i]) / sum);
    }
    device_array<float> dx(x), dscale(scale), y(x.size());
    device_array<int> dfirst(first);
    int code = run_softmax_rows(f, dx.p, dfirst.p, dscale.p, rows, y.p);
    return outcome(code, code ? -1 : differs(y.read(), expected, 1e-5));
}

std::string case_histogram(enum fault_kind f)
{
    const int n = 1501, bins = 50;
    uint64_t seed = 5;
    std::vector<uint8_t> x(n);
    std::vector<int> expected(bins, 3);
    for (uint8_t &v : x) {
        v = (uint8_t)(random_u64(&seed) % bins);
        expected[v]++;
    }
    device_array<uint8_t> dx(x), gone(x);
    device_array<int> counts(std::vector<int>(bins, 3));
    const uint8_t *in = f == HOST_POINTER ? x.data() : f == FREED_POINTER ? gone.p : dx.p;
    device_free(gone.p);
    gone.p = NULL;
    int code = run_histogram(f, in, n, bins, counts.p);
    return outcome(code, code || counts.read() == expected ? -1 : 0);
}

std::string case_total(enum fault_kind f)
{
    const int n = 1000, blocks = 9;
    std::vector<float> x = random_numbers(6, n);
    double sum = 0.0;
    for (float v : x)
        sum += (double)v;
    device_array<float> dx(x), partial(blocks), out(1);
    device_array<unsigned> ticket(std::vector<unsigned>(1, 0));
    int code = run_total(f, dx.p, n, partial.p, ticket.p, out.p, blocks);
    return outcome(code, code ? -1 : differs(out.read(), {(float)sum}, 1e-4));
}

std::string case_handover(enum fault_kind f)
{
    const int rounds = 5;
    std::vector<float> x = random_numbers(7, 32 * rounds), expected(x.size());
    for (size_t i = 0; i < x.size(); i++)
        expected[i] = 2.0f * x[i / 32 * 32 + 31 - i % 32];
    device_array<float> dx(x), y(x.size());
    int code = run_handover(f, dx.p, rounds, y.p);
    return outcome(code, code ? -1 : differs(y.read(), expected, 0.0));
}
