/*
 * Microseconds a collective takes, by size: `transport_bench [RANKS]` over the local transport
 * (default 2), or over MPI when mpirun has started it. There each round does the same calls also
 * over MPI alone, without the memory that ranks of one machine share, so that both have the same
 * load beside them.
 */
#include "base/check.h"
#include "base/clock.h"
#include "transport/transport.h"

#include <stdio.h>
#include <stdlib.h>

/* transport/mpi.c built once more, with every rank on a machine of its own. */
#ifdef WITAN_HAVE_MPI
enum status library_mpi_world(struct comm **out, struct error *err);
#else
static enum status library_mpi_world(struct comm **out, struct error *err)
{
    return comm_mpi_world(out, err);
}
#endif

enum bench_call { BENCH_ALLREDUCE, BENCH_ALLGATHER, BENCH_BROADCAST };

static const char *const call_names[] = {"all-reduce", "all-gather", "broadcast"};

static const struct bench_case {
    enum bench_call call;
    size_t bytes; /* of each rank */
} bench_cases[] = {
    {BENCH_ALLREDUCE, 8},       {BENCH_ALLREDUCE, 8 << 10},  {BENCH_ALLREDUCE, 64 << 10},
    {BENCH_ALLREDUCE, 1 << 20}, {BENCH_ALLGATHER, 8 << 10},  {BENCH_ALLGATHER, 256 << 10},
    {BENCH_BROADCAST, 512},     {BENCH_BROADCAST, 64 << 10},
};

enum { BENCH_ROUNDS = 200, BENCH_NS = 3 * 1000 * 1000, BENCH_COMMS = 2 };

/* As in a step: the buffer is written before and read after, so its lines travel between cores. A
 * broadcast is answered, or the root would only fill what is free. */
static enum status bench_call(struct comm *c, const struct bench_case *b, double *x, double *all,
                              struct error *err)
{
    size_t count = b->bytes / sizeof *x, ranks = (size_t)c->size;
    double sum = 0, one = 1;
    for (size_t i = 0; i < count; i++)
        x[i] = 1;
    if (b->call == BENCH_ALLGATHER) {
        TRY(c->ops->allgather(c, x, b->bytes, all, err));
        for (size_t i = 0; i < ranks * count; i += 8)
            sum += all[i];
        CHECK(sum == (double)((ranks * count + 7) / 8), "%f", sum);
        return OK;
    }
    if (b->call == BENCH_BROADCAST) {
        TRY(comm_broadcast(c, 0, x, b->bytes, err));
        TRY(comm_allreduce_f64(c, &one, 1, err));
    } else {
        TRY(comm_allreduce_f64(c, x, count, err));
    }
    for (size_t i = 0; i < count; i += 8)
        sum += x[i];
    double each = b->call == BENCH_ALLREDUCE ? c->size : 1;
    CHECK(sum == each * (double)((count + 7) / 8), "%f", sum);
    return OK;
}

/* All ranks do the same number of calls: rank 0's guess, from a first few. */
static enum status bench_calls(struct comm *c, const struct bench_case *b, double *x, double *all,
                               int *calls, struct error *err)
{
    int64_t before = clock_now_ns();
    for (int i = 0; i < 20; i++)
        TRY(bench_call(c, b, x, all, err));
    int64_t each = (clock_now_ns() - before) / 20 + 1;
    *calls = (int)(BENCH_NS / each) + 20;
    return comm_broadcast(c, 0, calls, sizeof *calls, err);
}

/* The best of many short rounds: other load only ever adds. */
static enum status bench_round(struct comm *c, const struct bench_case *b, double *x, double *all,
                               int calls, double *best_us, struct error *err)
{
    int64_t before = clock_now_ns();
    for (int i = 0; i < calls; i++)
        TRY(bench_call(c, b, x, all, err));
    double us = (double)(clock_now_ns() - before) * 1e-3 / calls;
    *best_us = us < *best_us ? us : *best_us;
    return OK;
}

static enum status bench_case(struct comm *const *comms, int n, const struct bench_case *b,
                              double *best_us, struct error *err)
{
    double *x = check_calloc(1, b->bytes), *all = check_calloc((size_t)comms[0]->size, b->bytes);
    int calls[BENCH_COMMS] = {0};
    enum status st = OK;
    for (int k = 0; k < n && st == OK; k++) {
        best_us[k] = 1e30;
        st = bench_calls(comms[k], b, x, all, &calls[k], err);
    }
    for (int i = 0; i < n * BENCH_ROUNDS && st == OK; i++)
        st = bench_round(comms[i % n], b, x, all, calls[i % n], &best_us[i % n], err);
    free(x);
    free(all);
    return st;
}

static enum status bench_all(struct comm *const *comms, int n, struct error *err)
{
    for (size_t i = 0; i < COUNT_OF(bench_cases); i++) {
        const struct bench_case *b = &bench_cases[i];
        double us[BENCH_COMMS];
        TRY(bench_case(comms, n, b, us, err));
        if (comms[0]->rank > 0)
            continue;
        printf("%s, %d ranks, %-10s of %7zu B: %9.2f us", comms[0]->ops->name, comms[0]->size,
               call_names[b->call], b->bytes, us[0]);
        if (n > 1)
            printf("; MPI alone %9.2f us, %.1f times", us[1], us[1] / us[0]);
        printf("\n");
    }
    return OK;
}

static enum status bench_rank(struct comm *c, void *arg, struct error *err)
{
    (void)arg;
    return bench_all(&c, 1, err);
}

static enum status bench_mpi(struct error *err)
{
    struct comm *comms[BENCH_COMMS];
    TRY(comm_mpi_world(&comms[0], err));
    TRY(library_mpi_world(&comms[1], err));
    enum status st = bench_all(comms, BENCH_COMMS, err);
    if (st != OK)
        comms[0]->ops->abort(comms[0], err->msg);
    for (int i = 0; i < BENCH_COMMS; i++)
        comms[i]->ops->destroy(comms[i]);
    comm_mpi_finalize();
    return st;
}

int main(int argc, char **argv)
{
    struct error err;
    int ranks = argc > 1 ? atoi(argv[1]) : 2;
    /* Set by Open MPI's mpirun in each of its processes. */
    enum status st = getenv("OMPI_COMM_WORLD_SIZE") ? bench_mpi(&err)
                                                    : comm_local_run(ranks, bench_rank, NULL, &err);
    if (st != OK)
        fprintf(stderr, "transport_bench: %s\n", err.msg);
    return st == OK ? 0 : 1;
}
