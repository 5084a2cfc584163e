/* `witan bench --offline`, in parts: bench.c its flags, cases and figures, bench_turns.c its cases
 * by turns. One thread, rank 0's, uses all of this. */
#ifndef WITAN_CLI_BENCH_H
#define WITAN_CLI_BENCH_H

#include "cli/group.h"
#include "partition/inventory.h"
#include "worker/energy.h"

#include <jansson.h>

enum { BENCH_MAX_CASES = 16, BENCH_MAX_TOKENS = 1 << 20, BENCH_MAX_BATCH = 1 << 14 };

struct bench {
    struct group_options group;
    int32_t batches[BENCH_MAX_CASES], batch_count;
    int32_t prompts[BENCH_MAX_CASES], prompt_count;
    int32_t depth, steps, repeat;
    double bandwidth, peak; /* bytes and operations a second; 0: not known */
    const char *json_path;
    bool offline, turns;
    char device[300];
    struct engine *engine;
    struct model *model;
    struct inventory *inv;
    uint64_t state; /* of random tokens */
    int64_t drawn;  /* tokens */
    int64_t ended;  /* requests */
    bool failed;    /* one of them by FINISH_ERROR */
    json_t *cases;
    struct meter *meter;   /* of its GPU, where there is one alone; NULL: none */
    struct energy *energy; /* of this machine's processors and that GPU; NULL: of other GPUs too */
};

/* A request of `length` random tokens that will get `max_tokens`, drawn at temperature 1. */
enum status bench_submit(struct bench *b, int32_t length, int64_t max_tokens, uint64_t *id,
                         struct error *err);

/* One step, how long it took and the rows that it fed. */
enum status bench_step(struct bench *b, double *seconds, int64_t *rows, struct error *err);

/*
 * Cases that another program orders one at a time, so that it can let others take turns: lines on
 * standard input, each answered by one of JSON on standard output, until it ends.
 *   prefill N          a prompt of N tokens alone, with the token drawn after it: {"seconds": S,
 * "processor": P} fill BATCH DEPTH   so many sequences of so many tokens, kept decode STEPS steps
 * of all that were filled S are the wall's seconds of all the case's steps, P those that the
 * process's threads computed. The first two drop what was filled before. ERR_INVALID says which
 * line is none of these, or asks for more than --context, --max-seqs or --kv-blocks hold.
 */
enum status bench_turns(struct bench *b, struct error *err);

#endif
