/* Meeting in shared memory: the transports' cases over threads (which ThreadSanitizer sees) and
 * over processes, short pieces, ranks that run ahead, ranks that die. */
#include "tests/unit/unit.h"

#include "tests/cluster/comm_cases.h"
#include "transport/meeting.h"
#include "transport/word.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

static const int rank_counts[] = {1, 2, 3, 4, 7, 16};

/* Of the memory that ranks meet in: all of it, or pieces of three lines. */
static size_t room(int size, bool narrow)
{
    /* A seat is meeting_bytes less two pieces; lines of a piece too many are seats' too. */
    size_t seats = meeting_bytes(MEETING_MAX_RANKS) - (size_t)16 * 1024 * 1024;
    size_t seat = seats / MEETING_MAX_RANKS;
    return narrow ? (size_t)size * (seat + (size_t)2 * 3 * WORD_LINE) : meeting_bytes(size);
}

/* A communicator over a meeting, for the cases; what a meeting has not is inner's. */
struct met {
    struct comm base;
    struct comm *inner;
    struct meeting *m;
};

static struct met *met(struct comm *c)
{
    return (struct met *)c;
}

static enum status met_allreduce(struct comm *c, double *x, size_t count, struct error *err)
{
    return meeting_allreduce_f64(met(c)->m, x, count, err);
}

static enum status met_allgather(struct comm *c, const void *send, size_t bytes, void *recv,
                                 struct error *err)
{
    return meeting_allgather(met(c)->m, send, bytes, recv, err);
}

static enum status met_broadcast(struct comm *c, int root, void *x, size_t bytes, struct error *err)
{
    return meeting_broadcast(met(c)->m, root, x, bytes, err);
}

static enum status met_send(struct comm *c, int to, const void *x, size_t bytes, struct error *err)
{
    return met(c)->inner->ops->send(met(c)->inner, to, x, bytes, err);
}

static enum status met_recv(struct comm *c, int from, void *x, size_t bytes, struct error *err)
{
    return met(c)->inner->ops->recv(met(c)->inner, from, x, bytes, err);
}

static enum status met_split(struct comm *c, int color, int key, struct comm **out,
                             struct error *err)
{
    return met(c)->inner->ops->split(met(c)->inner, color, key, out, err);
}

static const struct comm_ops met_ops = {
    .name = "met",
    .allreduce_f64 = met_allreduce,
    .allgather = met_allgather,
    .broadcast = met_broadcast,
    .send = met_send,
    .recv = met_recv,
    .split = met_split,
};

typedef enum status (*case_fn)(struct comm *c, struct error *err);

struct case_arg {
    case_fn fn;
    bool narrow;
    void *at;
};

static void *zeroed(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(at != MAP_FAILED);
    return at;
}

static enum status run_case(struct comm *world, void *arg, struct error *err)
{
    const struct case_arg *a = arg;
    struct met c = {{&met_ops, world->rank, world->size}, world, NULL};
    TRY(meeting_create(a->at, room(world->size, a->narrow), world->rank, world->size, NULL, NULL,
                       &c.m, err));
    enum status st = meeting_start(c.m, err);
    if (st == OK)
        st = a->fn(&c.base, err);
    meeting_destroy(c.m);
    return st;
}

static void run_case_all(case_fn fn)
{
    for (size_t i = 0; i < COUNT_OF(rank_counts) * 2; i++) {
        int size = rank_counts[i / 2];
        struct case_arg a = {fn, i % 2, zeroed(meeting_bytes(size))};
        struct error err = {0};
        if (comm_local_run(size, run_case, &a, &err) != OK)
            fail_msg("%d ranks%s: %s", size, a.narrow ? ", short pieces" : "", err.msg);
        munmap(a.at, meeting_bytes(size));
    }
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

static enum status programs(struct comm *c, struct error *err)
{
    for (uint64_t seed = 0; seed < 3; seed++)
        TRY(cases_program(c, seed, 150, err));
    return OK;
}

static void random_programs(void **state)
{
    (void)state;
    run_case_all(programs);
}

/* Ranks take their time by chance, now beyond spinning, now beyond sleeping: who is ahead must not
 * write what others have yet to read. */
static enum status uneven(struct comm *c, struct error *err)
{
    enum { STEPS = 60, WORDS = 100 };
    uint64_t x[WORDS];
    for (uint64_t k = 0; k < STEPS; k++) {
        uint64_t nap = cases_hash(11, k, (uint64_t)c->rank, 10) % 8;
        int root = (int)(k % 5) % c->size;
        if (nap < 3)
            nanosleep(&(struct timespec){0, nap == 0 ? 3000000 : 100000}, NULL);
        for (size_t i = 0; i < WORDS; i++)
            x[i] = c->rank == root ? cases_hash(k, i, 0, 11) : 0;
        TRY(comm_broadcast(c, root, x, sizeof x, err));
        for (size_t i = 0; i < WORDS; i++)
            EXPECT(x[i] == cases_hash(k, i, 0, 11));
        if (k % 7 == 0)
            TRY(cases_allreduce_count(c, k, 33, err));
    }
    return OK;
}

static void ranks_that_run_ahead(void **state)
{
    (void)state;
    run_case_all(uneven);
}

static void memory_is_bounded(void **state)
{
    (void)state;
    for (int size = 1; size <= MEETING_MAX_RANKS; size++) {
        assert_true(meeting_bytes(size) <= (size_t)17 * 1024 * 1024);
        assert_true(meeting_bytes(size) >= room(size, true));
    }
    assert_true(meeting_bytes(2) < (size_t)1100 * 1024);
}

/* ---- processes ---- */

/* What a process does as a rank; `to` is the pipe by which it speaks. */
typedef enum status (*process_fn)(struct comm *c, int to, struct error *err);

struct process {
    pid_t pid;
    int from; /* its pipe */
    int status;
    char said[256];
};

static _Noreturn void be_rank(void *at, int rank, int size, process_fn fn, int to)
{
    struct error err = {0};
    struct met c = {{&met_ops, rank, size}, NULL, NULL};
    const struct rlimit none = {0, 0};
    signal(SIGABRT, SIG_DFL);
    setrlimit(RLIMIT_CORE, &none);
    dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
    enum status st = meeting_create(at, meeting_bytes(size), rank, size, NULL, NULL, &c.m, &err);
    if (st == OK)
        st = meeting_start(c.m, &err);
    if (st == OK)
        st = fn(&c.base, to, &err);
    meeting_destroy(c.m);
    if (write(to, err.msg, strlen(err.msg)) < 0)
        _exit(99);
    _exit((int)st);
}

static void start(struct process *p, int size, process_fn fn, void *at)
{
    for (int i = 0; i < size; i++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        p[i] = (struct process){.pid = fork(), .from = ends[0]};
        assert_true(p[i].pid >= 0);
        if (p[i].pid == 0)
            be_rank(at, i, size, fn, ends[1]);
        close(ends[1]);
    }
}

/* Waits for the end of one, whichever, so that none is left a zombie. */
static void reap(struct process *p, int size)
{
    int status;
    pid_t pid = waitpid(-1, &status, 0);
    for (int i = 0; i < size; i++) {
        if (p[i].pid != pid)
            continue;
        p[i].status = status;
        ssize_t n = read(p[i].from, p[i].said, sizeof p[i].said - 1);
        p[i].said[n > 0 ? n : 0] = '\0';
        close(p[i].from);
        return;
    }
    fail_msg("process %d ended", (int)pid);
}

static enum status sum_and_spread(struct comm *c, int to, struct error *err)
{
    static const size_t counts[] = {1, 1000, 8192, 40001};
    (void)to;
    for (int i = 0; i < 40; i++) {
        int word = c->rank == i % c->size ? i : -1;
        TRY(cases_allreduce_count(c, (uint64_t)i, counts[i % 4], err));
        TRY(comm_broadcast(c, i % c->size, &word, sizeof word, err));
        EXPECT(word == i);
    }
    return cases_allgather(c, err);
}

static void processes_meet(void **state)
{
    (void)state;
    for (int size = 2; size <= 4; size++) {
        struct process p[4];
        void *at = zeroed(meeting_bytes(size));
        start(p, size, sum_and_spread, at);
        for (int i = 0; i < size; i++)
            reap(p, size);
        for (int i = 0; i < size; i++) {
            assert_string_equal(p[i].said, "");
            assert_int_equal(p[i].status, 0);
        }
        munmap(at, meeting_bytes(size));
    }
}

/* Without end; rank 1 says when it is well under way. */
static enum status go_on(struct comm *c, int to, struct error *err)
{
    double x[3000] = {0};
    for (int i = 0;; i++) {
        TRY(comm_allreduce_f64(c, x, i % 2 == 0 ? COUNT_OF(x) : 1, err));
        TRY(comm_broadcast(c, i % c->size, x, sizeof x, err));
        if (i == 100 && c->rank == 1)
            EXPECT(write(to, "x", 1) == 1);
    }
}

/* Who waits for the dead rank says so and ends; who waits for that one, in its turn. */
static void a_killed_rank_is_missed(void **state)
{
    (void)state;
    for (int size = 2; size <= 4; size++) {
        struct process p[4];
        char first, dead[64];
        void *at = zeroed(meeting_bytes(size));
        start(p, size, go_on, at);
        assert_int_equal(read(p[1].from, &first, 1), 1);
        kill(p[1].pid, SIGKILL);
        snprintf(dead, sizeof dead, "rank 1 of %d of this machine, process %d, has ended", size,
                 (int)p[1].pid);
        int told = 0;
        for (int i = 0; i < size; i++)
            reap(p, size);
        for (int i = 0; i < size; i++) {
            assert_int_equal(p[i].status, i == 1 ? SIGKILL : ERR_PEER << 8);
            assert_true(i == 1 || strstr(p[i].said, "has ended"));
            told += strcmp(p[i].said, dead) == 0;
        }
        assert_true(told > 0);
        munmap(at, meeting_bytes(size));
    }
}

/* A rank that has had its part of the last call may end before the others look. */
static enum status leave_early(struct comm *c, int to, struct error *err)
{
    int word = c->rank == 0 ? 7 : 0;
    (void)to;
    if (c->rank > 0)
        nanosleep(&(struct timespec){1, 500000000}, NULL);
    TRY(comm_broadcast(c, 0, &word, sizeof word, err));
    EXPECT(word == 7);
    return OK;
}

static void a_rank_may_leave_first(void **state)
{
    struct process p[3];
    void *at = zeroed(meeting_bytes(3));
    (void)state;
    start(p, 3, leave_early, at);
    for (int i = 0; i < 3; i++)
        reap(p, 3);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(p[i].said, "");
        assert_int_equal(p[i].status, 0);
    }
    munmap(at, meeting_bytes(3));
}

static enum status other_sizes(struct comm *c, int to, struct error *err)
{
    double x[2] = {0};
    (void)to;
    return comm_allreduce_f64(c, x, c->rank == 1 ? 2 : 1, err);
}

static enum status other_calls(struct comm *c, int to, struct error *err)
{
    double x[2] = {0};
    (void)to;
    return c->rank == 0 ? comm_allreduce_f64(c, x, 2, err) : comm_broadcast(c, 0, x, sizeof x, err);
}

static enum status other_roots(struct comm *c, int to, struct error *err)
{
    int x = 0;
    (void)to;
    TRY(comm_broadcast(c, c->rank, &x, sizeof x, err));
    return comm_broadcast(c, 0, &x, sizeof x, err);
}

static void differing_calls_are_caught(void **state)
{
    (void)state;
    static const process_fn fns[] = {other_sizes, other_calls, other_roots};
    for (size_t i = 0; i < COUNT_OF(fns); i++) {
        struct process p[2];
        void *at = zeroed(meeting_bytes(2));
        start(p, 2, fns[i], at);
        reap(p, 2);
        reap(p, 2);
        bool first = WIFSIGNALED(p[0].status) && WTERMSIG(p[0].status) == SIGABRT;
        bool second = WIFSIGNALED(p[1].status) && WTERMSIG(p[1].status) == SIGABRT;
        assert_true(first || second);
        munmap(at, meeting_bytes(2));
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(allreduce_is_exact),
    cmocka_unit_test(allgather_in_rank_order),
    cmocka_unit_test(broadcast_from_every_root),
    cmocka_unit_test(random_programs),
    cmocka_unit_test(ranks_that_run_ahead),
    cmocka_unit_test(memory_is_bounded),
    cmocka_unit_test(processes_meet),
    cmocka_unit_test(a_killed_rank_is_missed),
    cmocka_unit_test(a_rank_may_leave_first),
    cmocka_unit_test(differing_calls_are_caught),
};

UNIT_MAIN(tests)
