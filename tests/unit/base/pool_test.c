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

enum { MEETINGS = 50 };

struct met {
    struct pool *pool;
    int64_t part[16];
    int64_t sum[16]; /* of each thread, which reads all parts */
    int threads;
};

static int64_t parts_of(const struct met *m)
{
    int64_t sum = 0;
    for (int i = 0; i < m->threads; i++)
        sum += m->part[i];
    return sum % 1000003;
}

static void meet_often(void *arg, int thread)
{
    struct met *m = arg;
    for (int i = 0; i < MEETINGS; i++) {
        m->part[thread] = m->sum[thread] + thread;
        pool_meet(m->pool);
        m->sum[thread] = parts_of(m);
        pool_meet(m->pool);
    }
}

static void check_meetings(int threads, bool spin)
{
    struct met m = {.pool = pool_of(threads, spin), .threads = threads};
    int64_t expected = 0, ids = (int64_t)threads * (threads - 1) / 2;
    for (int round = 0; round < 10; round++) {
        pool_run(m.pool, meet_often, &m);
        for (int i = 0; i < MEETINGS; i++)
            expected = (threads * expected + ids) % 1000003;
        for (int i = 0; i < threads; i++)
            assert_int_equal(m.sum[i], expected);
    }
    pool_destroy(m.pool);
}

/* Without locks: what was written before a meeting is read after it, and not changed until the
 * next. */
static void threads_meet_within_a_job(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 16; threads = threads * 2 - threads / 2) {
        check_meetings(threads, threads <= 2);
        check_meetings(threads, false);
    }
}

enum { TASKS = 1000 };

struct taken {
    struct pool_tasks tasks;
    int by[TASKS]; /* each task's: a race would be the pool's */
    int64_t last[16];
    atomic_int disorder;
};

static void take_all(void *arg, int thread)
{
    struct taken *t = arg;
    for (int64_t i; (i = pool_take(&t->tasks)) >= 0; t->last[thread] = i) {
        t->by[i]++;
        if (i < t->last[thread])
            atomic_fetch_add(&t->disorder, 1);
    }
}

static void tasks_are_taken_once_and_in_order(void **state)
{
    (void)state;
    struct pool *p = pool_of(4, true);
    for (int64_t count = 0; count <= TASKS; count += 125) {
        struct taken t = {.tasks = {.count = count}};
        pool_run(p, take_all, &t);
        for (int i = 0; i < TASKS; i++)
            assert_int_equal(t.by[i], i < count);
        assert_int_equal(atomic_load(&t.disorder), 0);
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
    cmocka_unit_test(threads_meet_within_a_job),
    cmocka_unit_test(tasks_are_taken_once_and_in_order),
    cmocka_unit_test(parts_cover_exactly_once),
    cmocka_unit_test(a_machine_has_processors),
};

UNIT_MAIN(tests)
