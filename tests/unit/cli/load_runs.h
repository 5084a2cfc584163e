/* Runs of a load made by hand, for the tests of statistics and reports. Times in ms. */
#ifndef WITAN_TESTS_LOAD_RUNS_H
#define WITAN_TESTS_LOAD_RUNS_H

#include "base/check.h"
#include "cli/load_record.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RUN_MAX = 64 };

#define MS INT64_C(1000000)

/* An empty closed-loop run; load_run_fini it. */
static inline struct load_run run_make(const char *label)
{
    struct load_run run = {.mode = LOAD_CLOSED,
                           .concurrency = 2,
                           .seed = 7,
                           .start_unix_s = 1700000000,
                           .began_ns = 1000 * MS,
                           .ended_ns = 1000 * MS,
                           .energy_j = NAN,
                           .cpu_share = 0.1,
                           .dataset = "random, input 10, output 4",
                           .server = "http://127.0.0.1:8000/v1/completions, model tiny",
                           .records = check_calloc(RUN_MAX, sizeof(struct load_record))};
    strcpy(run.label, label);
    return run;
}

/* Adds a request: sent `sent` ms after the run began, intended `late` ms earlier, its chunks at
 * `chunks` ms after sending. */
static inline struct load_record *run_add(struct load_run *run, int64_t sent, int64_t late,
                                          const int64_t *chunks, int32_t count,
                                          int32_t output_tokens)
{
    struct load_record *r = &run->records[run->count++];
    int64_t base = 1000 * MS + sent * MS;
    *r = (struct load_record){.intended_ns = base - late * MS,
                              .sent_ns = base,
                              .prompt_tokens = 10,
                              .output_tokens = output_tokens,
                              .chunks = count,
                              .http_status = 200,
                              .usage = true};
    if (count == 0)
        return r;
    int64_t *at = check_calloc((size_t)count, sizeof *at);
    for (int32_t i = 0; i < count; i++)
        at[i] = base + chunks[i] * MS;
    r->chunk_ns = at;
    r->first_ns = at[0];
    r->last_ns = at[count - 1];
    if (r->last_ns > run->ended_ns)
        run->ended_ns = r->last_ns;
    return r;
}

#define CHUNKS(...)                                                                                \
    (const int64_t[]){__VA_ARGS__},                                                                \
        (int32_t)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

#endif
