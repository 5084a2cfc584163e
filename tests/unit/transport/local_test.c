/* The local transport: every operation, aborts, the runner, and how long many ranks take. */
#include "tests/unit/unit.h"

#include "base/clock.h"
#include "base/log.h"
#include "tests/cluster/comm_cases.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* A sanitizer's own mappings do not fit under a limit of address space. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

static const int rank_counts[] = {1, 2, 3, 4, 7, 16};

static void run_ok(int size, comm_rank_fn fn, void *arg)
{
    struct error err = {0};
    enum status st = comm_local_run(size, fn, arg, &err);
    if (st != OK)
        fail_msg("%d ranks: %s: %s", size, status_name(st), err.msg);
}

typedef enum status (*case_fn)(struct comm *c, struct error *err);

struct case_arg {
    case_fn fn;
};

static enum status run_case(struct comm *world, void *arg, struct error *err)
{
    const struct case_arg *a = arg;
    return a->fn(world, err);
}

static void run_case_all(case_fn fn)
{
    struct case_arg arg = {fn};
    for (size_t i = 0; i < COUNT_OF(rank_counts); i++)
        run_ok(rank_counts[i], run_case, &arg);
}

static void allreduce_is_exact(void **state)
{
    (void)state;
    run_case_all(cases_allreduce);
}

static void allgather_in_rank_order(void **state)
{
    (void)state;
    run_case_all(cases_allgather);
}

static void broadcast_from_every_root(void **state)
{
    (void)state;
    run_case_all(cases_broadcast);
}

static void point_to_point(void **state)
{
    (void)state;
    run_case_all(cases_point_to_point);
}

static void message_order(void **state)
{
    (void)state;
    run_case_all(cases_message_order);
}

static void grid_of_splits(void **state)
{
    (void)state;
    run_case_all(cases_grid);
}

static void shared_memory(void **state)
{
    (void)state;
    run_case_all(cases_share);
}

static void arrivals(void **state)
{
    (void)state;
    run_case_all(cases_arrive);
    run_case_all(cases_arrive_late);
}

static enum status arrive_or_fail(struct comm *world, void *arg, struct error *err)
{
    bool here[4];
    (void)arg;
    if (world->rank == 1)
        return error_set(err, ERR_IO, "before it arrives");
    return world->ops->arrive(world, 0, here, err);
}

static void an_abort_ends_arrivals(void **state)
{
    struct error err;
    (void)state;
    assert_int_equal(comm_local_run(4, arrive_or_fail, NULL, &err), ERR_IO);
    assert_string_equal(err.msg, "rank 1: before it arrives");
}

/* A split of a split; parents stay usable beside children. */
static enum status nested(struct comm *world, void *arg, struct error *err)
{
    (void)arg;
    struct comm *half, *quarter;
    TRY(world->ops->split(world, world->rank / 4, 0, &half, err));
    TRY(half->ops->split(half, half->rank / 2, -half->rank, &quarter, err));
    EXPECT(half->size == 4 && quarter->size == 2 && quarter->rank == 1 - world->rank % 2);
    for (int i = 0; i < 50; i++) {
        TRY(cases_allreduce_count(quarter, 1, 10, err));
        TRY(cases_allreduce_count(world, 2, 10, err));
        TRY(cases_allreduce_count(half, 3, 10, err));
    }
    quarter->ops->destroy(quarter);
    half->ops->destroy(half);
    return OK;
}

static void nested_splits(void **state)
{
    (void)state;
    run_ok(8, nested, NULL);
}

static enum status program(struct comm *world, void *arg, struct error *err)
{
    return cases_program(world, *(const uint64_t *)arg, 200, err);
}

static void random_programs(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 5; seed++)
        for (size_t i = 0; i < COUNT_OF(rank_counts); i++)
            run_ok(rank_counts[i], program, &seed);
}

static enum status one_of_many(struct comm *world, void *arg, struct error *err)
{
    (void)arg;
    double x = world->rank;
    TRY(comm_allreduce_f64(world, &x, 1, err));
    EXPECT(x == 1024.0 * 1023 / 2);
    return OK;
}

static void a_thousand_ranks(void **state)
{
    (void)state;
    run_ok(1024, one_of_many, NULL);
}

/* ---- aborts ---- */

enum wait_kind {
    WAIT_ALLREDUCE,
    WAIT_ALLREDUCE_LONG,
    WAIT_ALLGATHER,
    WAIT_BROADCAST,
    WAIT_SEND,
    WAIT_RECV,
    WAIT_SPLIT,
    WAIT_KINDS
};

enum { LONG_DOUBLES = 20000 };

static enum status wait_in(struct comm *c, enum wait_kind kind, struct error *err)
{
    static _Thread_local double x[LONG_DOUBLES], all[16];
    struct comm *made;
    switch (kind) {
    case WAIT_ALLREDUCE:
        return c->ops->allreduce_f64(c, x, 1, err);
    case WAIT_ALLREDUCE_LONG:
        return c->ops->allreduce_f64(c, x, LONG_DOUBLES, err);
    case WAIT_ALLGATHER:
        return c->ops->allgather(c, x, sizeof *x, all, err);
    case WAIT_BROADCAST:
        return c->ops->broadcast(c, c->size - 1, x, sizeof *x, err);
    case WAIT_SEND:
        return c->ops->send(c, c->size - 1, x, sizeof *x, err);
    case WAIT_RECV:
        return c->ops->recv(c, c->size - 1, x, sizeof *x, err);
    case WAIT_SPLIT:
    case WAIT_KINDS:
        break;
    }
    return c->ops->split(c, 0, 0, &made, err);
}

struct abort_case {
    enum wait_kind kind;
    int in_split;  /* waits in a split of the world */
    int by_return; /* the last rank returns an error instead of calling abort */
    _Atomic int woken;
};

/* All but the last rank wait for it; it lets them fall asleep first. */
static enum status abort_rank(struct comm *world, void *arg, struct error *err)
{
    struct abort_case *a = arg;
    struct comm *c = world;
    if (a->in_split)
        TRY(world->ops->split(world, 0, 0, &c, err));
    enum status st;
    if (world->rank == world->size - 1) {
        usleep(20000);
        if (!a->by_return)
            c->ops->abort(c, "the last rank has had enough");
        st = error_set(err, ERR_IO, "disk on fire");
    } else {
        st = wait_in(c, a->kind, err);
        if (st == ERR_PEER && wait_in(world, a->kind, NULL) == ERR_PEER)
            a->woken++;
    }
    if (c != world)
        c->ops->destroy(c);
    return st;
}

static void abort_wakes_every_wait(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR + 1);
    for (int i = 0; i < WAIT_KINDS * 4; i++) {
        struct abort_case a = {(enum wait_kind)(i / 4), i & 1, i >> 1 & 1, 0};
        for (size_t k = 1; k < COUNT_OF(rank_counts); k++) {
            struct error err = {0};
            a.woken = 0;
            assert_int_equal(comm_local_run(rank_counts[k], abort_rank, &a, &err), ERR_IO);
            assert_int_equal(a.woken, rank_counts[k] - 1);
            char expected[64];
            snprintf(expected, sizeof expected, "rank %d: disk on fire", rank_counts[k] - 1);
            assert_string_equal(err.msg, expected);
        }
    }
}

/* Halves of the world wait, each in its own split, for a rank that waits for no one. */
static enum status other_group(struct comm *world, void *arg, struct error *err)
{
    struct comm *c;
    (void)arg;
    TRY(world->ops->split(world, world->rank % 2, 0, &c, err));
    enum status st = OK;
    if (world->rank == 3)
        world->ops->abort(world, "enough");
    else if (world->rank != 2)
        st = wait_in(c, WAIT_ALLREDUCE, err);
    else
        while (st == OK)
            st = wait_in(world, WAIT_RECV, err);
    c->ops->destroy(c);
    return st;
}

static void abort_reaches_all_relatives(void **state)
{
    (void)state;
    struct error err;
    log_set_level(LOG_ERROR + 1);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(comm_local_run(6, other_group, NULL, &err), ERR_PEER);
        assert_string_equal(err.msg, "rank 3 aborted: enough");
    }
}

struct storm {
    uint64_t seed;
    _Atomic int calls;
};

/* Buffers are freed as soon as a call returns: no peer may still be at them. */
static enum status storm_rank(struct comm *world, void *arg, struct error *err)
{
    struct storm *s = arg;
    for (uint64_t k = 0;; k++) {
        if ((int)(cases_hash(s->seed, (uint64_t)world->rank, k, 8) % 40) == 0)
            return error_set(err, ERR_CANCELLED, "leaves");
        size_t count = cases_hash(s->seed, k, 0, 9) % 3 == 0 ? LONG_DOUBLES : 16;
        double *x = calloc(count, sizeof *x);
        double *all = calloc(count * (size_t)world->size, sizeof *x);
        enum status st = OK;
        switch (cases_hash(s->seed, k, 1, 9) % 4) {
        case 0:
            st = comm_allreduce_f64(world, x, count, err);
            break;
        case 1:
            st = world->ops->allgather(world, x, count * sizeof *x, all, err);
            break;
        case 2:
            st = comm_broadcast(world, 0, x, count * sizeof *x, err);
            break;
        default:
            st = cases_shift(world, 1, x, all, count * sizeof *x, err);
        }
        free(x);
        free(all);
        s->calls++;
        TRY(st);
    }
}

static void abort_leaves_buffers_alone(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct storm s = {seed, 0};
        struct error err;
        assert_int_equal(comm_local_run(2 + (int)(seed % 4), storm_rank, &s, &err), ERR_CANCELLED);
        assert_non_null(strstr(err.msg, "leaves"));
    }
}

/* ---- the runner ---- */

static enum status sees_its_rank(struct comm *world, void *arg, struct error *err)
{
    _Atomic int *seen = arg;
    EXPECT(log_rank() == world->rank);
    EXPECT(strcmp(world->ops->name, "local") == 0);
    *seen += 1 << world->rank;
    return OK;
}

static void runner_calls_each_rank_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rank_counts); i++) {
        _Atomic int seen = 0;
        run_ok(rank_counts[i], sees_its_rank, &seen);
        assert_int_equal(seen, (1 << rank_counts[i]) - 1);
        assert_int_equal(log_rank(), -1);
    }
}

static enum status fails_in_turn(struct comm *world, void *arg, struct error *err)
{
    const int *first = arg;
    if (world->rank == *first)
        return error_set(err, ERR_NOT_FOUND, "no such tensor");
    while (wait_in(world, WAIT_ALLREDUCE, NULL) == OK)
        ;
    return error_set(err, ERR_IO, "later");
}

static void runner_names_the_first_failure(void **state)
{
    (void)state;
    for (int first = 0; first < 7; first++) {
        struct error err = {0};
        char expected[64];
        /* Rank 0 speaks for the command: its message stands alone. */
        if (first == 0)
            snprintf(expected, sizeof expected, "no such tensor");
        else
            snprintf(expected, sizeof expected, "rank %d: no such tensor", first);
        assert_int_equal(comm_local_run(7, fails_in_turn, &first, &err), ERR_NOT_FOUND);
        assert_int_equal(err.code, ERR_NOT_FOUND);
        assert_string_equal(err.msg, expected);
        assert_int_equal(comm_local_run(7, fails_in_turn, &first, NULL), ERR_NOT_FOUND);
    }
}

static void runner_refuses_sizes(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(comm_local_run(0, one_of_many, NULL, &err), ERR_INVALID);
    assert_int_equal(comm_local_run(-1, one_of_many, NULL, &err), ERR_INVALID);
    assert_int_equal(comm_local_run(1025, one_of_many, NULL, &err), ERR_INVALID);
    assert_string_equal(err.msg, "ranks: expected 1..1024, found 1025");
}

static enum status other_sizes(struct comm *world, void *arg, struct error *err)
{
    (void)arg;
    double x[2] = {0};
    return comm_allreduce_f64(world, x, world->rank == 1 ? 2 : 1, err);
}

static enum status other_message_sizes(struct comm *world, void *arg, struct error *err)
{
    (void)arg;
    char x[2] = {0};
    return world->rank == 0 ? world->ops->send(world, 1, x, 1, err)
                            : world->ops->recv(world, 0, x, 2, err);
}

static enum status other_calls(struct comm *world, void *arg, struct error *err)
{
    (void)arg;
    double x[2] = {0};
    return world->rank == 0 ? comm_allreduce_f64(world, x, 2, err)
                            : comm_broadcast(world, 0, x, sizeof x, err);
}

/* Runs fn in a child process; returns its wait status. */
static int in_child(int size, comm_rank_fn fn)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct rlimit none = {0, 0};
        signal(SIGABRT, SIG_DFL);
        setrlimit(RLIMIT_CORE, &none);
        dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
        _exit(comm_local_run(size, fn, NULL, NULL) == OK ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void differing_calls_are_caught(void **state)
{
    (void)state;
    static const comm_rank_fn fns[] = {other_sizes, other_message_sizes, other_calls};
    for (size_t i = 0; i < COUNT_OF(fns); i++) {
        int status = in_child(2, fns[i]);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    }
}

static enum status never_called(struct comm *world, void *arg, struct error *err)
{
    (void)world, (void)arg, (void)err;
    _exit(9);
}

/* With no room for more stacks the runner fails, and the threads that it had come home. */
static void threads_that_cannot_start(void **state)
{
    (void)state;
    if (SANITIZED)
        exit(77);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct rlimit room = {400u << 20, 400u << 20};
        struct error err = {0};
        setrlimit(RLIMIT_AS, &room);
        enum status st = comm_local_run(1000, never_called, NULL, &err);
        _exit(st == ERR_IO && strstr(err.msg, "starting the thread of rank") ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int threads_now(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/task");
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void no_thread_is_left(void **state)
{
    (void)state;
    /* A sanitizer starts a thread of its own beside the first one. */
    comm_local_run(2, one_of_many, NULL, NULL);
    int before = threads_now(), first = 2;
    run_ok(8, nested, NULL);
    comm_local_run(7, fails_in_turn, &first, NULL);
    /* A joined thread may stay listed for a moment. */
    for (int i = 0; i < 100 && threads_now() > before; i++)
        usleep(10000);
    assert_int_equal(threads_now(), before);
}

/* ---- speed ---- */

static enum status many_small(struct comm *world, void *arg, struct error *err)
{
    (void)arg;
    for (int i = 0; i < 5000; i++) {
        double x = i;
        TRY(comm_allreduce_f64(world, &x, 1, err));
        EXPECT(x == (double)i * world->size);
    }
    return OK;
}

static void crowded_ranks_do_not_crawl(void **state)
{
    (void)state;
    int64_t before = clock_now_ns();
    run_ok(16, many_small, NULL);
    double seconds = (double)(clock_now_ns() - before) * 1e-9;
    print_message("5000 all-reduces over 16 ranks: %.2f s\n", seconds);
    assert_true(seconds < 20);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(allreduce_is_exact),
    cmocka_unit_test(allgather_in_rank_order),
    cmocka_unit_test(broadcast_from_every_root),
    cmocka_unit_test(point_to_point),
    cmocka_unit_test(message_order),
    cmocka_unit_test(grid_of_splits),
    cmocka_unit_test(shared_memory),
    cmocka_unit_test(nested_splits),
    cmocka_unit_test(arrivals),
    cmocka_unit_test(an_abort_ends_arrivals),
    cmocka_unit_test(random_programs),
    cmocka_unit_test(a_thousand_ranks),
    cmocka_unit_test(abort_wakes_every_wait),
    cmocka_unit_test(abort_reaches_all_relatives),
    cmocka_unit_test(abort_leaves_buffers_alone),
    cmocka_unit_test(runner_calls_each_rank_once),
    cmocka_unit_test(runner_names_the_first_failure),
    cmocka_unit_test(runner_refuses_sizes),
    cmocka_unit_test(differing_calls_are_caught),
    cmocka_unit_test(threads_that_cannot_start),
    cmocka_unit_test(no_thread_is_left),
    cmocka_unit_test(crowded_ranks_do_not_crawl),
};

UNIT_MAIN(tests)
