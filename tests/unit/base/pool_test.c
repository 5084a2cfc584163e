/* The pool: every thread runs each job once, rounds do not mix, parts cover what they cut. */
#include "tests/unit/unit.h"

#include "base/pool.h"
#include "tests/unit/random.h"

#include <stdatomic.h>

struct tally {
    int threads;
    int64_t runs[POOL_MAX_THREADS]; /* each thread its own: a race would be the pool's */
    atomic_int total;
};

static void count_run(void *arg, int thread)
{
    struct tally *t = arg;
    t->runs[thread]++;
    atomic_fetch_add(&t->total, 1);
}

static struct pool *pool_of(int threads, bool spin)
{
    struct pool *p = NULL;
    struct error err;
    if (pool_create(threads, spin, &p, &err) != OK)
        fail_msg("%s", err.msg);
    assert_int_equal(pool_threads(p), threads);
    return p;
}

static void check_rounds(int threads, bool spin, int rounds)
{
    struct pool *p = pool_of(threads, spin);
    static struct tally t;
    t = (struct tally){.threads = threads};
    for (int round = 1; round <= rounds; round++) {
        pool_run(p, count_run, &t);
        /* On return every thread has ended this round's job and none has begun another. */
        assert_int_equal(atomic_load(&t.total), round * threads);
    }
    for (int i = 0; i < threads; i++)
        assert_int_equal(t.runs[i], rounds);
    pool_destroy(p);
}

static void every_thread_runs_once(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 16; threads++) {
        check_rounds(threads, false, 100);
        check_rounds(threads, true, 20);
    }
}

static void many_rounds(void **state)
{
    (void)state;
    check_rounds(2, true, 5000);
    check_rounds(2, false, 5000);
    check_rounds(16, false, 300);
}

static void create_and_destroy_repeatedly(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++)
        check_rounds(1 + i % 8, i % 3 == 0, i % 4);
}

struct chained {
    int64_t part[16];
    int64_t sum;
    int threads;
};

static void write_part(void *arg, int thread)
{
    struct chained *c = arg;
    c->part[thread] = c->sum + thread;
}

/* What one round wrote the next one reads, without locks: pool_run orders memory. */
static void rounds_see_each_others_writes(void **state)
{
    (void)state;
    struct pool *p = pool_of(4, false);
    struct chained c = {.threads = 4};
    int64_t expected = 0;
    for (int round = 0; round < 500; round++) {
        pool_run(p, write_part, &c);
        c.sum = (c.part[0] + c.part[1] + c.part[2] + c.part[3]) % 1000003;
        expected = (4 * expected + 6) % 1000003;
        assert_int_equal(c.sum, expected);
    }
    pool_destroy(p);
}

static void parts_cover_exactly_once(void **state)
{
    (void)state;
    uint64_t rng = 1;
    for (int trial = 0; trial < 20000; trial++) {
        int64_t n = random_int(&rng, 0, 5000), grain = random_int(&rng, 1, 200), at = 0;
        int threads = random_int(&rng, 1, 64);
        for (int i = 0; i < threads; i++) {
            int64_t begin, end;
            pool_part(n, grain, threads, i, &begin, &end);
            assert_int_equal(begin, at);
            assert_true(end >= begin && (begin % grain == 0 || begin == n));
            at = end;
        }
        assert_int_equal(at, n);
    }
}

static void a_machine_has_processors(void **state)
{
    (void)state;
    pool_destroy(NULL);
    assert_true(cpu_count() >= 1);
    struct pool *p = pool_of(cpu_count(), true);
    pool_destroy(p);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_thread_runs_once),
    cmocka_unit_test(many_rounds),
    cmocka_unit_test(create_and_destroy_repeatedly),
    cmocka_unit_test(rounds_see_each_others_writes),
    cmocka_unit_test(parts_cover_exactly_once),
    cmocka_unit_test(a_machine_has_processors),
};

UNIT_MAIN(tests)
