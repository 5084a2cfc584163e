/* `witan bench --offline --turns`: see bench_turns in bench.h. */
#include "base/check.h"
#include "cli/bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WARM_STEPS = 3 };

/* What all of this process's threads have computed, in seconds. */
static double processor_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

struct turns {
    struct bench *b;
    uint64_t *ids; /* [max_seqs]: the sequences that were filled */
    int32_t count;
};

static void drop(struct turns *t)
{
    for (int32_t i = 0; i < t->count; i++)
        engine_cancel(t->b->engine, t->ids[i]);
    t->count = 0;
}

static enum status prefill(struct turns *t, int32_t tokens, double *seconds, struct error *err)
{
    int64_t ended = t->b->ended;
    uint64_t id;
    TRY(bench_submit(t->b, tokens, 1, &id, err));
    while (t->b->ended == ended) {
        int64_t rows = 0;
        double s = 0;
        TRY(bench_step(t->b, &s, &rows, err));
        *seconds += s;
    }
    return OK;
}

/* Steps in which all decode; those that still feed prompts only add to `seconds`. */
static enum status decode(struct turns *t, int32_t steps, bool filling, double *seconds,
                          struct error *err)
{
    for (int32_t n = 0; n < steps;) {
        int64_t rows = 0, drawn = t->b->drawn;
        double s = 0;
        TRY(bench_step(t->b, &s, &rows, err));
        *seconds += s;
        if (rows == t->count && t->b->drawn - drawn == t->count)
            n++;
        else if (!filling)
            return error_set(err, ERR_INVALID,
                             "decode: expected a step of %d tokens, found %" PRId64, t->count,
                             rows);
    }
    return OK;
}

static enum status fill(struct turns *t, int32_t batch, int32_t depth, double *seconds,
                        struct error *err)
{
    for (; t->count < batch; t->count++)
        TRY(bench_submit(t->b, depth, t->b->group.limits.context - depth, &t->ids[t->count], err));
    return decode(t, WARM_STEPS, true, seconds, err);
}

static enum status take_turn(struct turns *t, const char *line, double *seconds, struct error *err)
{
    const struct engine_limits *l = &t->b->model->limits;
    char word[16] = "", rest;
    int first = 0, second = 0;
    int found = sscanf(line, "%15s %d %d %c", word, &first, &second, &rest);
    if (strcmp(word, "decode") == 0 && found == 2 && first >= 1 && first <= l->context &&
        t->count > 0)
        return decode(t, first, false, seconds, err);
    drop(t);
    if (strcmp(word, "prefill") == 0 && found == 2 && first >= 1 && first < l->context)
        return prefill(t, first, seconds, err);
    if (strcmp(word, "fill") == 0 && found == 3 && first >= 1 && first <= l->max_seqs &&
        second >= 1 && second < l->context)
        return fill(t, first, second, seconds, err);
    return error_set(
        err, ERR_INVALID,
        "standard input: expected `prefill N`, `fill BATCH DEPTH` or, after it, `decode "
        "STEPS` within --context %d and --max-seqs %d, found %.60s",
        l->context, l->max_seqs, line);
}

enum status bench_turns(struct bench *b, struct error *err)
{
    struct turns t = {.b = b, .ids = calloc((size_t)b->model->limits.max_seqs, sizeof *t.ids)};
    char line[80];
    enum status st = t.ids ? OK : error_set(err, ERR_NO_MEMORY, "no memory for sequences");
    while (st == OK && fgets(line, sizeof line, stdin)) {
        double seconds = 0, before = processor_seconds();
        line[strcspn(line, "\n")] = '\0';
        st = take_turn(&t, line, &seconds, err);
        if (st == OK)
            printf("{\"seconds\": %.9f, \"processor\": %.9f}\n", seconds,
                   processor_seconds() - before);
        fflush(stdout);
    }
    drop(&t);
    free(t.ids);
    return st;
}
