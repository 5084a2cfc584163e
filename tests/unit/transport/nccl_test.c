/*
 * The NCCL transport over an NCCL that tests made up (tests/fake_nccl), between threads: every
 * operation as other transports do it, every refusal, and whatever can fail or hang.
 */
#include "tests/unit/unit.h"

#include "base/clock.h"
#include "base/log.h"
#include "tests/cluster/comm_cases.h"
#include "tests/fake_nccl/fake_nccl.h"
#include "transport/nccl.h"
#include "transport/nccl_library.h"

#include <dlfcn.h>
#include <pthread.h>

enum { MAX_RANKS = 8, LONG_MS = 60000, SHORT_MS = 200 };

static struct fake_nccl *control_of(const char *path)
{
    struct fake_nccl *(*get)(void) = NULL;
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *symbol = so ? dlsym(so, "fake_nccl") : NULL;
    assert_non_null(symbol);
    memcpy(&get, &symbol, sizeof get);
    return get();
}

static struct fake_nccl *fake(void)
{
    return control_of(FAKE_NCCL);
}

/* As it is when it has been loaded. */
static void reset(struct fake_nccl *f)
{
    f->version = 23004;
    f->polls = 0;
    f->init_hangs = f->id_fails = f->finalize_hangs = f->stream_hangs = f->never_queued = false;
    f->at_rank = f->at = -1;
    f->async_error = 0;
    f->abort_waits = false;
    f->inits = f->operations = f->destroyed = f->aborted = 0;
}

/* What ranks say of themselves, and what they do. */
struct scene {
    int ranks;
    const char *library[MAX_RANKS], *gpu[MAX_RANKS], *model[MAX_RANKS], *host[MAX_RANKS];
    int64_t init_ms, step_ms;
    bool (*meet)(void *arg);
    enum status (*fn)(struct nccl *n, struct comm *c, const struct scene *s, struct error *err);
    void *arg;
    int absent;   /* this rank does not come to the init, -1: all do */
    int no_start; /* nor this one to nccl_create */
    void (*check)(int rank, const struct error *err); /* of each rank's error; NULL: none */
};

/* One that is in order, with the library as loaded. */
static struct scene scene_of(int ranks)
{
    static const char *const gpus[MAX_RANKS] = {"GPU-0", "GPU-1", "GPU-2", "GPU-3",
                                                "GPU-4", "GPU-5", "GPU-6", "GPU-7"};
    struct scene s = {.ranks = ranks, .init_ms = LONG_MS, .absent = -1, .no_start = -1};
    reset(fake());
    for (int i = 0; i < ranks; i++) {
        s.library[i] = FAKE_NCCL;
        s.gpu[i] = gpus[i];
        s.model[i] = "NVIDIA H200";
        s.host[i] = "node-a";
    }
    return s;
}

/* Until an abort. */
static enum status stay_away(struct comm *world, struct error *err)
{
    int x;
    return world->ops->recv(world, 0, &x, sizeof x, err);
}

static enum status play(struct comm *world, struct nccl *n, const struct scene *s,
                        struct error *err)
{
    struct comm *c;
    TRY(comm_nccl(n, world, "the stage", &c, err));
    enum status st = s->fn ? s->fn(n, c, s, err) : OK;
    c->ops->destroy(c);
    return st;
}

static enum status rank_main(struct comm *world, void *arg, struct error *err)
{
    const struct scene *s = arg;
    struct nccl *n;
    int r = world->rank;
    const struct nccl_options o = {
        .library = s->library[r],
        .gpu = s->gpu[r],
        .gpu_model = s->model[r],
        .host = s->host[r],
        .init_ms = s->init_ms,
        .step_ms = s->step_ms,
        .meet = s->meet,
        .arg = s->arg,
    };
    if (r == s->no_start)
        return stay_away(world, err);
    enum status st = nccl_create(world, &o, &n, err);
    if (st == OK) {
        st = r == s->absent ? stay_away(world, err) : play(world, n, s, err);
        nccl_destroy(n);
    }
    if (st != OK && s->check)
        s->check(r, err);
    return st;
}

static void run_ok(struct scene *s)
{
    struct error err = {0};
    struct fake_nccl *f = fake();
    int inits = f->inits, ends = f->destroyed + f->aborted;
    enum status st = comm_local_run(s->ranks, rank_main, s, &err);
    if (st != OK)
        fail_msg("%d ranks: %s: %s", s->ranks, status_name(st), err.msg);
    assert_int_equal(f->aborted, 0);
    assert_int_equal(f->destroyed - ends, f->inits - inits);
}

/* A run that fails with this status and these words; nothing is left open. */
static void run_fails(struct scene *s, enum status expected, const char *const *words)
{
    struct error err = {0};
    const struct fake_nccl *f = fake();
    log_set_level(LOG_ERROR);
    assert_int_equal(comm_local_run(s->ranks, rank_main, s, &err), expected);
    for (; *words; words++)
        if (!strstr(err.msg, *words))
            fail_msg("expected \"%s\" in: %s", *words, err.msg);
    assert_int_equal(f->inits, f->destroyed + f->aborted);
}

#define FAILS(scene, status, ...) run_fails(scene, status, (const char *const[]){__VA_ARGS__, NULL})

/* ---- operations ---- */

static enum status all_cases(struct nccl *n, struct comm *c, const struct scene *s,
                             struct error *err)
{
    (void)s;
    EXPECT(strcmp(c->ops->name, "nccl") == 0 && strcmp(nccl_version(n), "2.30.4") == 0);
    TRY(cases_allreduce(c, err));
    TRY(cases_allgather(c, err));
    TRY(cases_broadcast(c, err));
    TRY(cases_point_to_point(c, err));
    TRY(cases_message_order(c, err));
    TRY(cases_grid(c, err));
    TRY(cases_arrive(c, err));
    for (uint64_t seed = 0; seed < 2; seed++)
        TRY(cases_program(c, seed, 40, err));
    TRY(nccl_watch(n, "a step", INT32_MAX, err)); /* no deadline */
    return OK;
}

static void operations(void **state)
{
    static const int ranks[] = {1, 2, 3, 4, 7};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(ranks); i++) {
        struct scene s = scene_of(ranks[i]);
        s.fn = all_cases;
        run_ok(&s);
    }
    assert_true(fake()->operations > 1000);
}

static void results_that_are_in_progress(void **state)
{
    (void)state;
    struct scene s = scene_of(3);
    s.fn = all_cases;
    fake()->polls = 3;
    run_ok(&s);
}

static bool not_now(void *arg)
{
    ++*(_Atomic int *)arg;
    return false;
}

static enum status sum_once(struct nccl *n, struct comm *c, const struct scene *s,
                            struct error *err)
{
    double x = c->rank;
    (void)n;
    TRY(c->ops->allreduce_f64(c, &x, 1, err));
    double all = 0.5 * c->size * (c->size - 1);
    EXPECT(x == (s->meet ? c->rank : all));
    return OK;
}

static void what_is_not_to_be_done_now(void **state)
{
    _Atomic int asked = 0;
    (void)state;
    struct scene s = scene_of(3);
    s.fn = sum_once;
    s.meet = not_now;
    s.arg = (void *)&asked;
    run_ok(&s);
    assert_int_equal(asked, 3);
    assert_int_equal(fake()->operations, 0);
}

static enum status captures(struct nccl *n, struct comm *c, const struct scene *s,
                            struct error *err)
{
    const bool *expected = s->arg;
    struct comm *pair;
    (void)n;
    EXPECT(comm_capturable(c) == *expected);
    TRY(c->ops->split(c, c->rank / 2, c->rank, &pair, err));
    bool pairs = comm_capturable(pair); /* each on one machine */
    pair->ops->destroy(pair);
    EXPECT(pairs);
    return OK;
}

static void graphs_across_machines(void **state)
{
    static const struct {
        int version;
        const char *host; /* of ranks 2 and 3 */
        bool expected;
    } cases[] = {{22809, "node-a", true}, {22809, "node-b", false}, {23004, "node-b", true}};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct scene s = scene_of(4);
        bool expected = cases[i].expected;
        fake()->version = cases[i].version;
        s.host[2] = s.host[3] = cases[i].host;
        s.fn = captures;
        s.arg = &expected;
        run_ok(&s);
    }
}

static void not_over_the_hosts_memory(void **state)
{
    struct comm alone = comm_alone();
    (void)state;
    assert_true(comm_capturable(&alone));
    const struct comm_ops ops = {.name = "without"};
    struct comm two = {&ops, 0, 2};
    assert_false(comm_capturable(&two));
}

/* ---- refusals ---- */

static void a_library_that_is_missing(void **state)
{
    (void)state;
    struct scene s = scene_of(2);
    s.library[1] = "/nowhere/libnccl.so.2";
    FAILS(&s, ERR_NOT_FOUND, "rank 1: NCCL cannot be loaded", "/nowhere/libnccl.so.2", "libnccl2",
          "--collectives staged");
}

static void a_library_without_a_function(void **state)
{
    (void)state;
    struct scene s = scene_of(2);
    s.library[0] = s.library[1] = FAKE_NCCL_LACKING;
    FAILS(&s, ERR_UNSUPPORTED, FAKE_NCCL_LACKING, "expected ncclRecv", "--collectives staged");
}

static void a_library_that_is_too_old(void **state)
{
    (void)state;
    struct scene s = scene_of(2);
    fake()->version = 21703;
    FAILS(&s, ERR_UNSUPPORTED, "expected NCCL 2.18.0 or later, found 2.17.3");
}

static void libraries_that_differ(void **state)
{
    char other[] = "/tmp/witan_test_XXXXXX", command[8192];
    (void)state;
    int fd = mkstemp(other);
    assert_true(fd >= 0);
    close(fd);
    snprintf(command, sizeof command, "cp %s %s", FAKE_NCCL, other);
    assert_int_equal(system(command), 0);
    control_of(other)->version = 22809;
    struct scene s = scene_of(3);
    s.library[2] = other;
    s.host[2] = "node-b";
    FAILS(&s, ERR_UNSUPPORTED, "found 2.30.4 on rank 0 (node-a) and 2.28.9 on rank 2 (node-b)");
    unlink(other);
}

static void two_ranks_on_a_gpu(void **state)
{
    (void)state;
    struct scene s = scene_of(4);
    s.gpu[3] = "GPU-1";
    FAILS(&s, ERR_UNSUPPORTED, "GPU-1 (NVIDIA H200) under both rank 1 (node-a) and rank 3 (node-a)",
          "start fewer ranks", "--collectives staged");
}

static void gpus_of_two_models(void **state)
{
    (void)state;
    struct scene s = scene_of(3);
    s.model[2] = "NVIDIA A100";
    s.host[2] = "node-b";
    FAILS(&s, ERR_INVALID,
          "NVIDIA H200 under rank 0 (node-a) and NVIDIA A100 under rank 2 (node-b)");
}

/* ---- ranks that do not come, inits that do not end ---- */

static void a_rank_that_never_starts(void **state)
{
    (void)state;
    struct scene s = scene_of(4);
    s.init_ms = SHORT_MS;
    s.no_start = 2;
    FAILS(&s, ERR_PEER, "not there within 0.2 s: rank 2:");
}

static void a_rank_that_does_not_come_to_the_init(void **state)
{
    (void)state;
    struct scene s = scene_of(4);
    s.init_ms = SHORT_MS;
    s.absent = 1;
    s.host[1] = "node-b";
    FAILS(&s, ERR_PEER, "before an init: not there within 0.2 s: rank 1 (node-b):");
    assert_int_equal(fake()->inits, 0);
}

static void an_init_that_never_ends(void **state)
{
    (void)state;
    struct scene s = scene_of(3);
    s.init_ms = SHORT_MS;
    fake()->init_hangs = true;
    FAILS(&s, ERR_PEER, "has not connected the 3 ranks of the stage", "NCCL_DEBUG=INFO",
          "NCCL_SOCKET_IFNAME");
    assert_int_equal(fake()->destroyed, 0);
}

static void no_identifier(void **state)
{
    (void)state;
    struct scene s = scene_of(2);
    fake()->id_fails = true;
    FAILS(&s, ERR_PEER, "rank 0 (node-a): NCCL: an identifier", "unhandled system error");
}

/* ---- what goes wrong in a step ---- */

/* What a backend does: puts work on the stream, then waits for it and watches. */
static enum status step(struct nccl *n, struct comm *c, const struct scene *s, struct error *err)
{
    double x[4] = {1};
    int64_t start = clock_now_ns();
    (void)s;
    for (int i = 0; i < 3; i++)
        TRY(c->ops->allreduce_f64(c, x, 4, err));
    for (;;) {
        enum status st = nccl_watch(n, "a step", (clock_now_ns() - start) / 1000000, err);
        if (st != OK || !fake()->busy())
            return st;
        usleep(1000);
    }
}

/* Once it has failed all later calls say the same. */
static enum status step_twice(struct nccl *n, struct comm *c, const struct scene *s,
                              struct error *err)
{
    struct error again = {0};
    double x = 0;
    enum status st = step(n, c, s, err);
    if (st == OK)
        return OK;
    CHECK(st == ERR_PEER, "%d", st);
    while (fake()->busy()) /* the abort ends what the stream has */
        usleep(1000);
    CHECK(c->ops->allreduce_f64(c, &x, 1, &again) == ERR_PEER, "%s", again.msg);
    CHECK(strcmp(again.msg, err->msg) == 0, "%s, not %s", again.msg, err->msg);
    CHECK(nccl_watch(n, "a step", 0, &again) == ERR_PEER, "%s", again.msg);
    return st;
}

static void a_stream_that_hangs(void **state)
{
    (void)state;
    struct scene s = scene_of(3);
    s.fn = step_twice;
    s.step_ms = SHORT_MS;
    fake()->stream_hangs = true;
    fake()->at = 1;
    FAILS(&s, ERR_PEER, "its GPU has not finished a step within 0.2 s",
          "the last that it was given is an all-reduce of 32 bytes among the stage",
          "all ranks wait like this", "Xid");
    assert_int_equal(fake()->aborted, 3);
}

static enum status step_but_rank_1(struct nccl *n, struct comm *c, const struct scene *s,
                                   struct error *err)
{
    if (c->rank != 1)
        return step_twice(n, c, s, err);
    int x;
    return c->ops->broadcast(c, 0, &x, sizeof x, err);
}

/* The others' operations have come so far that only the stream waits. */
static void a_rank_that_is_elsewhere_in_a_step(void **state)
{
    (void)state;
    struct scene s = scene_of(3);
    s.fn = step_but_rank_1;
    s.step_ms = SHORT_MS;
    s.host[1] = "node-b";
    fake()->stream_hangs = true;
    fake()->at = 0;
    FAILS(&s, ERR_PEER, "not waiting for a GPU: rank 1 (node-b)");
}

static void no_deadline(void **state)
{
    (void)state;
    struct scene s = scene_of(2);
    s.fn = step;
    run_ok(&s);
}

static void an_error_of_another_rank(void **state)
{
    (void)state;
    struct scene s = scene_of(3);
    s.fn = step_twice;
    fake()->at = 2;
    fake()->async_error = NCCL_REMOTE_ERROR;
    FAILS(&s, ERR_PEER, "(node-a): NCCL: a step among the 3 ranks of the stage",
          "remote process exited", "look at the other ranks' logs");
}

static void an_operation_that_is_never_queued(void **state)
{
    (void)state;
    struct scene s = scene_of(2);
    s.fn = step_twice;
    s.init_ms = SHORT_MS;
    fake()->at = 1;
    fake()->never_queued = true;
    FAILS(&s, ERR_PEER, "has not connected the 2 ranks of the stage", "for an all-reduce");
}

/* The abort waits for this rank's graphs, which this rank destroys once it has been told. */
static enum status step_then_let_go(struct nccl *n, struct comm *c, const struct scene *s,
                                    struct error *err)
{
    enum status st = step_twice(n, c, s, err);
    CHECK(fake()->aborted == 0, "%d", fake()->aborted);
    fake()->abort_waits = false;
    return st;
}

static void an_abort_that_waits_for_graphs(void **state)
{
    (void)state;
    struct scene s = scene_of(1);
    s.fn = step_then_let_go;
    s.step_ms = SHORT_MS;
    fake()->stream_hangs = true;
    fake()->at = 0;
    fake()->abort_waits = true;
    FAILS(&s, ERR_PEER, "its GPU has not finished a step");
    assert_int_equal(fake()->aborted, 1);
}

struct aborter {
    struct comm *c;
    pthread_t thread;
};

static void *abort_soon(void *arg)
{
    const struct aborter *a = arg;
    usleep(20000);
    a->c->ops->abort(a->c, "the test has had enough");
    return NULL;
}

/* Rank 0's thread is in its operations when another aborts. */
static enum status until_aborted(struct nccl *n, struct comm *c, const struct scene *s,
                                 struct error *err)
{
    struct aborter a = {c, 0};
    double x = 0;
    enum status st = OK;
    (void)s;
    if (c->rank == 0)
        CHECK(pthread_create(&a.thread, NULL, abort_soon, &a) == 0, "no thread");
    while (st == OK) {
        st = c->ops->allreduce_f64(c, &x, 1, err);
        if (st == OK)
            st = nccl_watch(n, "a step", 0, err);
    }
    if (c->rank == 0)
        pthread_join(a.thread, NULL);
    return st;
}

static void an_abort_from_another_thread(void **state)
{
    (void)state;
    struct scene s = scene_of(2);
    s.fn = until_aborted;
    FAILS(&s, ERR_PEER, "the test has had enough");
}

static enum status split_too(struct nccl *n, struct comm *c, const struct scene *s,
                             struct error *err)
{
    struct comm *half;
    (void)n;
    (void)s;
    TRY(c->ops->split(c, 0, c->rank, &half, err));
    half->ops->destroy(half);
    return OK;
}

/* Destroying ends, by force, and only the first waits. */
static void a_finalize_that_never_ends(void **state)
{
    struct error err;
    (void)state;
    struct scene s = scene_of(2);
    s.fn = split_too;
    fake()->finalize_hangs = true;
    assert_int_equal(comm_local_run(s.ranks, rank_main, &s, &err), OK);
    assert_int_equal(fake()->aborted, 4);
    assert_int_equal(fake()->destroyed, 0);
}

/* ---- the real one, where it is; it needs no GPU for this ---- */

static void the_installed_library(void **state)
{
    static const char *const paths[] = {NULL, INSTALLED_NCCL};
    struct nccl_library l;
    struct error err;
    char version[24];
    (void)state;
    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        enum status st = nccl_library_open(paths[i], &l, &err);
        if (st == ERR_NOT_FOUND)
            continue;
        if (st != OK)
            fail_msg("%s", err.msg);
        assert_in_range(l.version, NCCL_OLDEST, 29999);
        assert_string_equal(l.error_text(NCCL_OK), "no error");
        nccl_version_text(l.version, version);
        print_message("NCCL %s\n", version);
        return;
    }
    printf("skipped: %s\n", err.msg);
    exit(77);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(operations),
    cmocka_unit_test(results_that_are_in_progress),
    cmocka_unit_test(what_is_not_to_be_done_now),
    cmocka_unit_test(graphs_across_machines),
    cmocka_unit_test(not_over_the_hosts_memory),
    cmocka_unit_test(a_library_that_is_missing),
    cmocka_unit_test(a_library_without_a_function),
    cmocka_unit_test(a_library_that_is_too_old),
    cmocka_unit_test(libraries_that_differ),
    cmocka_unit_test(two_ranks_on_a_gpu),
    cmocka_unit_test(gpus_of_two_models),
    cmocka_unit_test(a_rank_that_never_starts),
    cmocka_unit_test(a_rank_that_does_not_come_to_the_init),
    cmocka_unit_test(an_init_that_never_ends),
    cmocka_unit_test(no_identifier),
    cmocka_unit_test(a_stream_that_hangs),
    cmocka_unit_test(a_rank_that_is_elsewhere_in_a_step),
    cmocka_unit_test(no_deadline),
    cmocka_unit_test(an_error_of_another_rank),
    cmocka_unit_test(an_operation_that_is_never_queued),
    cmocka_unit_test(an_abort_that_waits_for_graphs),
    cmocka_unit_test(an_abort_from_another_thread),
    cmocka_unit_test(a_finalize_that_never_ends),
    cmocka_unit_test(the_installed_library),
};

UNIT_MAIN(tests)
