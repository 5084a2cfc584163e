/*
 * Microseconds an all-reduce takes, by size: `transport_bench [RANKS]` over the local transport
 * (default 2), or over MPI when mpirun has started it.
 */
#include "base/check.h"
#include "base/clock.h"
#include "transport/transport.h"

#include <stdio.h>
#include <stdlib.h>

static const size_t bench_bytes[] = {8, 8 << 10, 64 << 10, 1 << 20};

enum { BENCH_ROUNDS = 200, BENCH_NS = 3 * 1000 * 1000 };

/* As in a step: the buffer is written before and read after, so its lines travel between cores. */
static enum status bench_call(struct comm *c, double *x, size_t count, struct error *err)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        x[i] = 1;
    TRY(comm_allreduce_f64(c, x, count, err));
    for (size_t i = 0; i < count; i += 8)
        sum += x[i];
    CHECK(sum == (double)c->size * (double)((count + 7) / 8), "%f", sum);
    return OK;
}

/* All ranks do the same number of calls: rank 0's guess, from a first few. */
static enum status bench_calls(struct comm *c, double *x, size_t count, int *calls,
                               struct error *err)
{
    int64_t before = clock_now_ns();
    for (int i = 0; i < 20; i++)
        TRY(bench_call(c, x, count, err));
    int64_t each = (clock_now_ns() - before) / 20 + 1;
    *calls = (int)(BENCH_NS / each) + 20;
    return comm_broadcast(c, 0, calls, sizeof *calls, err);
}

/* The best of many short rounds: other load only ever adds. */
static enum status bench_size(struct comm *c, double *x, size_t count, double *best_us,
                              struct error *err)
{
    int calls = 0;
    TRY(bench_calls(c, x, count, &calls, err));
    *best_us = 1e30;
    for (int round = 0; round < BENCH_ROUNDS; round++) {
        int64_t before = clock_now_ns();
        for (int i = 0; i < calls; i++)
            TRY(bench_call(c, x, count, err));
        double us = (double)(clock_now_ns() - before) * 1e-3 / calls;
        *best_us = us < *best_us ? us : *best_us;
    }
    return OK;
}

static enum status bench_rank(struct comm *c, void *arg, struct error *err)
{
    (void)arg;
    for (size_t i = 0; i < COUNT_OF(bench_bytes); i++) {
        double us, *x = check_calloc(1, bench_bytes[i]);
        enum status st = bench_size(c, x, bench_bytes[i] / sizeof *x, &us, err);
        free(x);
        TRY(st);
        if (c->rank == 0)
            printf("%s, %d ranks, %7zu B: %9.2f us an all-reduce\n", c->ops->name, c->size,
                   bench_bytes[i], us);
    }
    return OK;
}

static enum status bench_mpi(struct error *err)
{
    struct comm *world;
    TRY(comm_mpi_world(&world, err));
    enum status st = bench_rank(world, NULL, err);
    if (st != OK)
        world->ops->abort(world, err->msg);
    world->ops->destroy(world);
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
