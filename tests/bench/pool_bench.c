/*
 * What it costs that threads run a job together (base/pool.h): an empty job, and a meeting within
 * one, with threads that spin and with threads that sleep. pool_bench [THREADS]
 * Best of many rounds, by the wall clock; other load on the machine spoils all but the best.
 */
#include "base/clock.h"
#include "base/pool.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 200, JOBS = 200 };

static void nothing(void *arg, int thread)
{
    (void)arg;
    (void)thread;
}

static void meetings(void *arg, int thread)
{
    (void)thread;
    for (int i = 0; i < JOBS; i++)
        pool_meet(arg);
}

static double best_ns(struct pool *p, bool meet)
{
    int64_t best = INT64_MAX;
    for (int r = 0; r < ROUNDS; r++) {
        int64_t start = clock_now_ns();
        if (meet)
            pool_run(p, meetings, p);
        for (int i = 0; i < JOBS && !meet; i++)
            pool_run(p, nothing, NULL);
        int64_t took = clock_now_ns() - start;
        best = took < best ? took : best;
    }
    return (double)best / JOBS;
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : cpu_count();
    if (argc > 2 || threads < 1 || threads > POOL_MAX_THREADS) {
        fprintf(stderr, "usage: pool_bench [THREADS] (1 to %d)\n", POOL_MAX_THREADS);
        return 2;
    }
    printf("%d threads, ns: %12s %12s\n", threads, "a job", "a meeting");
    for (int spin = 1; spin >= 0; spin--) {
        struct pool *p;
        struct error err;
        if (pool_create(threads, spin, &p, &err) != OK) {
            fprintf(stderr, "pool_bench: %s\n", err.msg);
            return 1;
        }
        double job = best_ns(p, false), meeting = best_ns(p, true);
        printf("%-15s %12.0f %12.0f\n", spin ? "spinning" : "sleeping", job, meeting);
        pool_destroy(p);
    }
    return 0;
}
