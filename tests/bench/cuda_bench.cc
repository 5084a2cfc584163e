/*
 * Times every stage of worker/cuda on a GPU at the shapes of Qwen3-30B-A3B, for decode and for a
 * prompt, against what the device's memory and tensor cores allow (cuda_stages.h). Exit code 77:
 * there is no GPU.
 *
 *   cuda_bench [--json FILE] [--bandwidth GB/s] [--peak TFLOP/s] [--samples N]
 *
 * Without flags the rates are those that cli/bench.c knows of an H200; of other devices the
 * bandwidth is what a copy reaches here, and their arithmetic is not judged.
 */
#include "tests/bench/cuda_stages.h"

#include <math.h>

static void must(cudaError_t e, const char *what)
{
    if (e == cudaSuccess)
        return;
    fprintf(stderr, "cuda_bench: %s: %s\n", what, cudaGetErrorString(e));
    exit(1);
}

/* Bytes a second, read and written, that a copy of a GiB reaches: the best of ten. */
static double copy_rate()
{
    const size_t bytes = (size_t)1 << 30;
    void *from, *to;
    cudaEvent_t begin, end;
    float best = INFINITY;
    must(cudaMalloc(&from, bytes), "memory for a copy");
    must(cudaMalloc(&to, bytes), "memory for a copy");
    must(cudaMemset(from, 1, bytes), "filling");
    must(cudaEventCreate(&begin), "an event");
    must(cudaEventCreate(&end), "an event");
    for (int i = 0; i < 11; i++) {
        float ms = 0;
        must(cudaEventRecord(begin, NULL), "an event");
        must(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, NULL), "a copy");
        must(cudaEventRecord(end, NULL), "an event");
        must(cudaEventSynchronize(end), "a copy");
        must(cudaEventElapsedTime(&ms, begin, end), "an event");
        best = i > 0 && ms < best ? ms : best; /* the first warms up */
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    cudaFree(from);
    cudaFree(to);
    return 2.0 * (double)bytes / (best * 1e-3);
}

static double number_of(const char *flag, const char *value)
{
    char *end = NULL;
    double v = value ? strtod(value, &end) : 0;
    if (!value || end == value || *end || !(v > 0) || v > 1e9) {
        fprintf(stderr, "cuda_bench: %s: expected a number above 0, found %s\n", flag,
                value ? value : "nothing");
        exit(2);
    }
    return v;
}

int main(int argc, char **argv)
{
    static const struct bench_shape shape = {2048, 48, 32, 4, 128, 128, 8, 768, 151936};
    static const struct bench_case cases[] = {
        {1, 1024}, {8, 1024}, {64, 1024}, {256, 1024}, {4096, 0}};
    const char *json = NULL;
    struct bench_rates rates = {0, 0};
    int32_t samples = 30;
    for (int i = 1; i < argc; i += 2) {
        const char *flag = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(flag, "--json") == 0 && value) {
            json = value;
        } else if (strcmp(flag, "--bandwidth") == 0) {
            rates.bandwidth = number_of(flag, value) * 1e9;
        } else if (strcmp(flag, "--peak") == 0) {
            rates.peak = number_of(flag, value) * 1e12;
        } else if (strcmp(flag, "--samples") == 0) {
            samples = (int32_t)std::min(number_of(flag, value), 1e5);
            samples = samples < 1 ? 1 : samples;
        } else {
            fprintf(stderr, "usage: cuda_bench [--json FILE] [--bandwidth GB/s] [--peak TFLOP/s] "
                            "[--samples N]\n");
            return 2;
        }
    }
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        fprintf(stderr, "skipped: there is no GPU\n");
        return 77;
    }
    cudaDeviceProp device;
    must(cudaGetDeviceProperties(&device, 0), "its properties");
    double copied = copy_rate();
    bool known = strstr(device.name, "H200") != NULL;
    if (rates.bandwidth <= 0)
        rates.bandwidth = known ? 4.3e12 : copied;
    if (rates.peak <= 0 && known)
        rates.peak = 790e12;
    FILE *file = json ? fopen(json, "w") : NULL;
    if (json && !file) {
        fprintf(stderr, "cuda_bench: %s cannot be written\n", json);
        return 1;
    }
    printf("%s; a copy here: %.0f GB/s; held against %.0f GB/s and %.0f TFLOP/s\n", device.name,
           copied * 1e-9, rates.bandwidth * 1e-9, rates.peak * 1e-12);
    printf("%-8s %5s %-13s %13s %13s\n", "case", "rows", "stage", "median", "least");
    if (file)
        fprintf(file,
                "{\"device\": \"%s\", \"copy_bytes_per_s\": %.6g, \"bandwidth_bytes_per_s\": %.6g, "
                "\"peak_flop_per_s\": %.6g, \"stages\": [",
                device.name, copied, rates.bandwidth, rates.peak);
    bool more = false;
    for (const bench_case &c : cases) {
        bench_stages stages(shape, c, (uint64_t)device.l2CacheSize, samples);
        std::vector<bench_result> results = stages.run();
        bench_print(stdout, results, rates);
        fflush(stdout);
        if (file)
            bench_json(file, results, rates, more);
        more = true;
    }
    bool bad = false;
    if (file) {
        fprintf(file, "\n]}\n");
        bad = ferror(file) != 0;
        bad |= fclose(file) != 0;
    }
    if (bad)
        fprintf(stderr, "cuda_bench: %s was not written whole\n", json);
    return bad;
}
