/*
 * The stages of worker/cuda, each with buffers of a model's shape, what it must at least move and
 * multiply, and a way to time it: for cuda_bench.cc, and for tests/cuda/bench_test.cc, which runs
 * the same on the emulator.
 *
 * A run is recorded as a graph of `calls` launches that take turns with weights, caches and
 * experts, so that together they read more than the L2 cache holds; its time over `calls` is a
 * sample.
 */
#ifndef WITAN_TESTS_BENCH_CUDA_STAGES_H
#define WITAN_TESTS_BENCH_CUDA_STAGES_H

#include "worker/cuda/device.cuh"
#include "worker/cuda/stages.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <vector>

struct bench_shape {
    int32_t hidden, layers, q_heads, kv_heads, head_dim, experts, top_k, columns, vocab;
};

/* `rows` sequences that decode after `depth` positions, or one prompt of `rows` (depth 0). */
struct bench_case {
    int32_t rows, depth;
    bool prompt() const
    {
        return depth == 0;
    }
};

struct bench_result {
    std::string stage;
    bench_case of;
    double bytes, flops;    /* of one call, at least; two flops a multiply-add */
    double median_s, min_s; /* of one call */
    int32_t samples, times; /* times: calls in a step of the model */
};

struct bench_rates {
    double bandwidth, peak; /* bytes and operations a second; 0: not known */
};

/* The time that no call goes below; 0: not known. */
static inline double bench_least(const bench_result &r, const bench_rates &rates)
{
    double memory = rates.bandwidth > 0 ? r.bytes / rates.bandwidth : 0;
    double arithmetic = rates.peak > 0 ? r.flops / rates.peak : 0;
    return std::max(memory, arithmetic);
}

/* One case's buffers and stages. Whoever fails says so and ends the program. */
class bench_stages
{
  public:
    /* cache: bytes of the L2 cache; samples: timed runs of each stage. */
    bench_stages(const bench_shape &shape, const bench_case &c, uint64_t l2_bytes, int32_t n)
        : s(shape), of(c), cache_bytes(l2_bytes), samples(n)
    {
    }
    ~bench_stages()
    {
        release(0);
    }
    bench_stages(const bench_stages &) = delete;
    bench_stages &operator=(const bench_stages &) = delete;

    std::vector<bench_result> run()
    {
        begin();
        elements();
        attention();
        products();
        ffns();
        if (!of.prompt()) /* a prompt wants one row of logits: the bound is batch 1's */
            logits();
        return results;
    }

  private:
    bench_shape s;
    bench_case of;
    uint64_t cache_bytes;
    int32_t samples;
    uint64_t state = 88172645463325252;
    std::vector<void *> owned;
    std::vector<bench_result> results;
    cuda_batch batch;
    cuda_attention a;
    int64_t positions; /* of all sequences' caches */
    double seen;       /* positions that all rows attend to */
    float *x, *rope, *norm, *q_tmp, *kv_tmp;
    double *sum;
    cuda_bf16 *xn, *q, *attn;
    unsigned long long *beyond;

    static void check(int code, const char *what)
    {
        if (code == 0)
            return;
        fprintf(stderr, "%s: %s\n", what, device_error_text(code));
        exit(1);
    }

    /* --- buffers --- */

    void release(size_t keep)
    {
        for (; owned.size() > keep; owned.pop_back())
            device_free(owned.back());
    }

    template <class T> T *room(uint64_t n)
    {
        void *p = NULL;
        check(device_alloc(&p, std::max<uint64_t>(n, 1) * sizeof(T)), "memory of the device");
        owned.push_back(p);
        return (T *)p;
    }

    template <class T> T *zeros(uint64_t n)
    {
        T *p = room<T>(n);
        check(device_fill(p, 0, n * sizeof(T), NULL), "filling");
        return p;
    }

    template <class T> T *put(const std::vector<T> &values)
    {
        T *p = room<T>(values.size());
        check(device_write(p, values.data(), values.size() * sizeof(T), NULL), "copying");
        check(device_wait(NULL), "copying");
        return p;
    }

    uint32_t draw()
    {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        return (uint32_t)((state * UINT64_C(2685821657736338717)) >> 33);
    }

    /* In [-1, 1). */
    float number()
    {
        return (float)draw() / 1073741824.0f - 1.0f;
    }

    /* Random numbers, for constant ones draw less power; the same few millions again and again. */
    template <class T> T *noise(uint64_t n, T (*make)(float))
    {
        static const uint64_t most = 1 << 22;
        std::vector<T> some(std::min(n, most));
        for (T &v : some)
            v = make(number());
        T *p = room<T>(n);
        for (uint64_t at = 0; at < n; at += some.size())
            check(device_write(p + at, some.data(),
                               std::min<uint64_t>(some.size(), n - at) * sizeof(T), NULL),
                  "copying");
        check(device_wait(NULL), "copying");
        return p;
    }

    static cuda_bf16 small_bf16(float v)
    {
        float f = 0.05f * v;
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        return (cuda_bf16)(bits >> 16);
    }

    static float as_it_is(float v)
    {
        return v;
    }

    cuda_bf16 *weights(uint64_t n)
    {
        return noise<cuda_bf16>(n, small_bf16);
    }

    /* So many copies of what has `bytes` are more than the cache holds twice. */
    int32_t copies(uint64_t bytes) const
    {
        uint64_t n = 2 * cache_bytes / std::max<uint64_t>(bytes, 1) + 1;
        return (int32_t)std::min<uint64_t>(n, 256);
    }

    /* --- time --- */

#if defined(__CUDACC__)
    double once(device_graph graph)
    {
        cudaEvent_t from, to;
        float ms = 0;
        check((int)cudaEventCreate(&from), "an event");
        check((int)cudaEventCreate(&to), "an event");
        check((int)cudaEventRecord(from, stream), "an event");
        check(device_graph_run(graph, stream), "a recorded run");
        check((int)cudaEventRecord(to, stream), "an event");
        check((int)cudaEventSynchronize(to), "a recorded run");
        check((int)cudaEventElapsedTime(&ms, from, to), "an event");
        cudaEventDestroy(from);
        cudaEventDestroy(to);
        return ms * 1e-3;
    }
    cudaStream_t stream = NULL;
    void open_stream()
    {
        if (!stream)
            check((int)cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
    }
#else
    double once(device_graph graph)
    {
        std::chrono::steady_clock::time_point from = std::chrono::steady_clock::now();
        check(device_graph_run(graph, stream), "a recorded run");
        check(device_wait(stream), "a recorded run");
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
    }
    device_stream stream = NULL;
    void open_stream()
    {
    }
#endif

    /* Times `call`, whose argument says which copy of its buffers it is to use. */
    void time(const char *stage, int32_t times, double bytes, double flops, int32_t calls,
              const std::function<int(int32_t)> &call)
    {
        device_graph graph;
        int nodes = 0;
        check(device_wait(NULL), stage);
        open_stream();
        check(call(0), stage); /* kernels are loaded at their first launch */
        check(device_wait(stream), stage);
        check(device_record_begin(stream), stage);
        for (int32_t i = 0; i < calls; i++)
            check(call(i), stage);
        check(device_record_end(stream, &graph, &nodes), stage);
        if (nodes < calls) {
            fprintf(stderr, "%s: expected %d launches or more, found %d\n", stage, calls, nodes);
            exit(1);
        }
        std::vector<double> seconds;
        for (int32_t i = -1; i < samples; i++) { /* one to warm up */
            double t = once(graph) / calls;
            if (i >= 0)
                seconds.push_back(t);
        }
        check(device_graph_free(graph), stage);
        std::sort(seconds.begin(), seconds.end());
        results.push_back({stage, of, bytes, flops, seconds[seconds.size() / 2], seconds[0],
                           (int32_t)seconds.size(), times});
    }

    /* --- the stages --- */

    void begin()
    {
        int32_t rows = of.rows, sequences = of.prompt() ? 1 : rows;
        int32_t last = of.prompt() ? rows : of.depth; /* positions of a sequence */
        int32_t each = (last + CUDA_KV_BLOCK - 1) / CUDA_KV_BLOCK;
        std::vector<int32_t> token, pos, table, blocks, logit;
        for (int32_t i = 0; i < rows; i++) {
            token.push_back((int32_t)(draw() % (uint32_t)s.vocab));
            pos.push_back(of.prompt() ? i : of.depth - 1);
            table.push_back(of.prompt() ? 0 : i * each);
            logit.push_back(i);
        }
        for (int32_t i = 0; i < sequences * each; i++)
            blocks.push_back(i);
        for (size_t i = blocks.size(); i > 1; i--) /* as a server in use has them */
            std::swap(blocks[i - 1], blocks[draw() % i]);
        positions = (int64_t)sequences * last;
        seen = of.prompt() ? 0.5 * rows * (rows + 1.0) : (double)rows * of.depth;
        int32_t row = (s.head_dim + 15) / 16 * 16;
        a = {0, s.q_heads, 0, s.kv_heads, s.q_heads / s.kv_heads, s.head_dim, row, 1e-6f};
        batch = {};
        batch.rows = batch.logits = rows;
        batch.token = put(token);
        batch.pos = put(pos);
        batch.table = put(table);
        batch.blocks = put(blocks);
        batch.longest = last;
        batch.logit_row = put(logit);
        std::vector<cuda_unit> unit((size_t)rows);
        batch.runs = cuda_attention_units(&a, rows, pos.data(), table.data(), unit.data(),
                                          &batch.alone);
        batch.unit = put(unit);
        uint64_t n = (uint64_t)rows, hidden = (uint64_t)s.hidden;
        uint64_t nq = (uint64_t)(s.q_heads * s.head_dim), nk = (uint64_t)(s.kv_heads * s.head_dim);
        x = noise<float>(n * hidden, as_it_is);
        sum = zeros<double>(n * hidden);
        norm = noise<float>(hidden, as_it_is);
        xn = weights(n * hidden);
        rope = noise<float>(n * (uint64_t)s.head_dim, as_it_is);
        q_tmp = noise<float>(n * nq, as_it_is);
        kv_tmp = noise<float>(n * 2 * nk, as_it_is);
        q = weights(n * (uint64_t)(s.q_heads * row));
        attn = weights(n * nq);
        beyond = zeros<unsigned long long>(1);
    }

    double norm_bytes() const
    {
        return (double)of.rows * s.hidden * (8 + 8 + 4 + 4 + 2);
    }

    void elements()
    {
        time("add_norm", s.layers + 1, norm_bytes(), 0, 16, [&](int32_t) {
            return cuda_add_norm(of.rows, s.hidden, sum, x, norm, a.eps, xn, stream);
        });
    }

    void attention()
    {
        size_t keep = owned.size();
        double rows = of.rows, heads = s.q_heads + 2.0 * s.kv_heads;
        int32_t each = (int32_t)((of.prompt() ? of.rows : of.depth) + CUDA_KV_BLOCK - 1) /
                       CUDA_KV_BLOCK * (of.prompt() ? 1 : of.rows);
        uint64_t size = (uint64_t)each * (uint64_t)s.kv_heads * 2 * CUDA_KV_BLOCK * (uint64_t)a.row;
        int32_t n = copies(size * sizeof(cuda_bf16));
        std::vector<cuda_kv> kv;
        for (int32_t i = 0; i < n; i++)
            kv.push_back({weights(size), s.kv_heads, a.row});
        int32_t calls = std::max(n, of.prompt() ? 2 : 8);
        time("finish_qkv", 0, rows * heads * (4 * s.head_dim + 2 * a.row), 0, calls,
             [&](int32_t i) {
                 return cuda_finish_qkv(&batch, &a, norm_of_head(), norm_of_head(), rope, q_tmp,
                                        kv_tmp, q, kv[(size_t)(i % n)], stream);
             });
        qkv(kv, rows * heads * 2 * a.row);
        uint64_t work = cuda_attention_bytes(of.rows, batch.longest, &a);
        void *partial = work ? zeros<char>(work) : NULL;
        time("attention", s.layers, (double)positions * s.kv_heads * 2 * a.row * 2,
             2 * seen * s.q_heads * 2 * a.row, calls, [&](int32_t i) {
                 return cuda_attention_run(&batch, &a, q, kv[(size_t)(i % n)], partial, attn,
                                           stream);
             });
        release(keep);
    }

    const float *norm_of_head() const
    {
        return norm; /* hidden is at least head_dim */
    }

    void qkv(const std::vector<cuda_kv> &kv, double row_bytes)
    {
        size_t keep = owned.size();
        int32_t nq = s.q_heads * s.head_dim, nk = s.kv_heads * s.head_dim;
        uint64_t lines = (uint64_t)(nq + 2 * nk), size = lines * (uint64_t)s.hidden;
        int32_t n = copies(size * sizeof(cuda_bf16));
        cuda_bf16 *w = weights(size * (uint64_t)n);
        time("qkv", s.layers, (double)size * 2 + row_bytes,
             2.0 * of.rows * (double)lines * s.hidden, std::max(n, 4), [&](int32_t i) {
                 cuda_bf16 *from = w + size * (uint64_t)(i % n);
                 int64_t k = (int64_t)nq * s.hidden, v = k + (int64_t)nk * s.hidden;
                 const cuda_part parts[] = {
                     {{from, nq, s.hidden}, NULL, q_tmp, nq},
                     {{from + k, nk, s.hidden}, NULL, kv_tmp, 2 * nk},
                     {{from + v, nk, s.hidden}, NULL, kv_tmp + nk, 2 * nk},
                 };
                 return cuda_qkv(&batch, &a, xn, parts, norm_of_head(), norm_of_head(), rope, q,
                                 kv[(size_t)i % kv.size()], stream);
             });
        release(keep);
    }

    void products()
    {
        size_t keep = owned.size();
        double rows = of.rows;
        int32_t nq = s.q_heads * s.head_dim;
        uint64_t size = (uint64_t)s.hidden * (uint64_t)nq;
        int32_t n = copies(size * 2);
        cuda_bf16 *w = weights(size * (uint64_t)n);
        time("o_proj", s.layers, (double)size * 2 + rows * s.hidden * 8, 2 * rows * (double)size,
             std::max(n, 4), [&](int32_t i) {
                 cuda_matrix m = {w + size * (uint64_t)(i % n), s.hidden, nq};
                 return cuda_gemm_leaf(attn, of.rows, m, s.head_dim, s.q_heads, sum, beyond,
                                       stream);
             });
        release(keep);

        size = (uint64_t)s.experts * (uint64_t)s.hidden;
        int32_t r = copies(size * 2);
        uint64_t choices = (uint64_t)of.rows * (uint64_t)s.top_k;
        w = weights(size * (uint64_t)r);
        void *zeroed = zeros<char>(CUDA_ROUTER_ZEROS);
        float *logit = room<float>((uint64_t)of.rows * (uint64_t)s.experts);
        cuda_route route = {room<int32_t>(choices), room<float>(choices),
                            room<int32_t>((uint64_t)s.experts + 1), room<int32_t>(choices),
                            room<float>(choices)};
        time("router", s.layers, (double)size * 2 + norm_bytes(), 2 * rows * (double)size,
             std::max(r, 8), [&](int32_t i) {
                 cuda_matrix m = {w + size * (uint64_t)(i % r), s.experts, s.hidden};
                 return cuda_router(of.rows, s.hidden, sum, x, norm, a.eps, m, s.top_k, 1, 0,
                                    s.experts, zeroed, xn, logit, route, stream);
             });
        release(keep);
    }

    /* Each row's experts by chance; how many experts have rows is added to *met. */
    cuda_route random_route(double *met)
    {
        std::vector<std::vector<int32_t>> rows_of((size_t)s.experts);
        std::vector<int32_t> order((size_t)s.experts), first = {0}, row;
        for (int32_t e = 0; e < s.experts; e++)
            order[(size_t)e] = e;
        for (int32_t i = 0; i < of.rows; i++)
            for (int32_t k = 0; k < s.top_k; k++) {
                std::swap(order[(size_t)k], order[(size_t)k + draw() % (uint32_t)(s.experts - k)]);
                rows_of[(size_t)order[(size_t)k]].push_back(i);
            }
        for (const std::vector<int32_t> &list : rows_of) {
            row.insert(row.end(), list.begin(), list.end());
            first.push_back((int32_t)row.size());
            *met += !list.empty();
        }
        std::vector<float> weight(row.size(), 1.0f / (float)s.top_k);
        return {NULL, NULL, put(first), put(row), put(weight)};
    }

    void ffns()
    {
        size_t keep = owned.size();
        uint64_t each = (uint64_t)s.columns * (uint64_t)s.hidden;
        int32_t slots = of.rows * s.top_k, calls = of.prompt() ? 4 : 16;
        cuda_bf16 *w = weights(each * 3 * (uint64_t)s.experts);
        const cuda_format bf16 = {};
        std::vector<cuda_ffn> table;
        for (uint64_t e = 0; e < (uint64_t)s.experts; e++)
            table.push_back({w + each * 3 * e, w + each * (3 * e + 1), w + each * (3 * e + 2)});
        cuda_ffn *ffn = put(table);
        cuda_bf16 *h = weights((uint64_t)slots * (uint64_t)s.columns);
        std::vector<cuda_route> route;
        double met = 0, products = (double)slots * (double)each;
        for (int32_t i = 0; i < calls; i++)
            route.push_back(random_route(&met));
        met /= calls;
        time("ffn_up", s.layers, met * 2 * (double)each * 2, 2 * 2 * products, calls,
             [&](int32_t i) {
                 return cuda_ffn_up(ffn, bf16, s.experts, slots, s.columns, s.hidden,
                                    route[(size_t)i], xn, h, stream);
             });
        int32_t leaves = s.top_k * ((s.columns + CUDA_FFN_BLOCK - 1) / CUDA_FFN_BLOCK);
        time("ffn_down", s.layers, met * (double)each * 2 + (double)slots * s.hidden * 8,
             2 * products, calls, [&](int32_t i) {
                 return cuda_ffn_down(of.rows, ffn, bf16, s.experts, slots, s.columns, s.hidden,
                                      route[(size_t)i], leaves, h, sum, beyond, stream);
             });
        release(keep);
    }

    void logits()
    {
        size_t keep = owned.size();
        uint64_t size = (uint64_t)s.vocab * (uint64_t)s.hidden;
        double rows = of.rows;
        int32_t n = copies(size * 2);
        cuda_bf16 *w = weights(size * (uint64_t)n);
        float *y = noise<float>((uint64_t)of.rows * (uint64_t)s.vocab, as_it_is);
        time("lm_head", 1, (double)size * 2, 2 * rows * (double)size, std::max(n, 4),
             [&](int32_t i) {
                 const cuda_part part = {
                     {w + size * (uint64_t)(i % n), s.vocab, s.hidden}, NULL, y, s.vocab};
                 return cuda_gemm(xn, batch.logit_row, of.rows, &part, 1, stream);
             });
        sample("sample", y, 1.0f, 1);
        sample("sample top_p", y, 0.9f, 0);
        release(keep);
    }

    void sample(const char *stage, float *y, float top_p, int32_t times)
    {
        std::vector<cuda_draw> draws;
        for (int32_t i = 0; i < of.rows; i++)
            draws.push_back({i, of.depth, (uint64_t)i, 1.0f, top_p, 0.0f, 0, 0, 0, 0.0f, 0});
        cuda_draw *there = put(draws);
        void *work = zeros<char>(cuda_sample_bytes(of.rows, 1));
        int32_t *drawn = room<int32_t>((uint64_t)of.rows);
        const cuda_logits l = {y, of.rows, s.vocab};
        double logits = (double)of.rows * s.vocab * 4;
        time(stage, times, logits, 0, 8, [&](int32_t) {
            return cuda_sample(of.rows, there, NULL, &l, s.vocab, top_p < 1.0f, work, drawn,
                               stream);
        });
    }
};

/* A line each, and one for the step that they make. */
static inline void bench_print(FILE *out, const std::vector<bench_result> &results,
                               const bench_rates &rates)
{
    double step = 0, least = 0;
    for (const bench_result &r : results) {
        double bound = bench_least(r, rates);
        step += r.times * r.median_s;
        least += r.times * bound;
        fprintf(out, "%-8s %5d %-13s %10.2f us %10.2f us %8.1f GB/s %8.2f TFLOP/s",
                r.of.prompt() ? "prefill" : "decode", r.of.rows, r.stage.c_str(), r.median_s * 1e6,
                r.min_s * 1e6, r.bytes / r.median_s * 1e-9, r.flops / r.median_s * 1e-12);
        if (bound > 0)
            fprintf(out, " %6.1f%% of %s", bound / r.median_s * 100,
                    rates.bandwidth > 0 && bound * rates.bandwidth <= r.bytes * 1.000001
                        ? "memory"
                        : "arithmetic");
        fprintf(out, "\n");
    }
    if (results.empty())
        return;
    const bench_case &of = results[0].of;
    fprintf(out, "%-8s %5d %-13s %10.2f us", of.prompt() ? "prefill" : "decode", of.rows,
            "all of a step", step * 1e6);
    if (least > 0)
        fprintf(out, " %6.1f%%, %.1f tokens/s", least / step * 100, of.rows / step);
    fprintf(out, "\n");
}

/* Elements of a JSON array, after others where `more`. */
static inline void bench_json(FILE *out, const std::vector<bench_result> &results,
                              const bench_rates &rates, bool more)
{
    for (const bench_result &r : results) {
        double bound = bench_least(r, rates);
        fprintf(out,
                "%s\n{\"phase\": \"%s\", \"rows\": %d, \"depth\": %d, \"stage\": \"%s\", "
                "\"median_us\": %.4f, \"min_us\": %.4f, \"samples\": %d, \"times_a_step\": %d, "
                "\"bytes\": %.0f, \"flops\": %.0f, \"share_of_bound\": %.6f}",
                more ? "," : "", r.of.prompt() ? "prefill" : "decode", r.of.rows, r.of.depth,
                r.stage.c_str(), r.median_s * 1e6, r.min_s * 1e6, r.samples, r.times, r.bytes,
                r.flops, bound / r.median_s);
        more = true;
    }
}

#endif
