/* A rank that may attach to several coordinators: which one it tries, and when it tries another. */
#include "tests/unit/worker/control/fake_coordinator.h"

#include "base/log.h"
#include "worker/control/addresses.h"
#include "worker/control/attach.h"

#include <unistd.h>

/* --- lists ------------------------------------------------------------------------------------ */

static void lists_are_read(void **state)
{
    (void)state;
    struct addresses a;
    struct error err;
    char all[64];
    assert_int_equal(addresses_init(&a, "a:1", &err), OK);
    assert_int_equal(a.count, 1);
    assert_false(addresses_next(&a));
    assert_string_equal(addresses_at(&a), "a:1"); /* the last that was tried */
    assert_int_equal(addresses_init(&a, "a:1,[::1]:2,c:3", &err), OK);
    assert_int_equal(a.count, 3);
    assert_string_equal(addresses_at(&a), "a:1");
    assert_true(addresses_next(&a));
    assert_string_equal(addresses_at(&a), "[::1]:2");
    assert_true(addresses_next(&a));
    assert_false(addresses_next(&a));
    assert_false(addresses_next(&a));
    addresses_first(&a);
    assert_string_equal(addresses_at(&a), "a:1");
    addresses_list(&a, all, sizeof all);
    assert_string_equal(all, "a:1, [::1]:2, c:3");
    addresses_list(&a, all, 8);
    assert_string_equal(all, "a:1, [:");
}

static void bad_lists_are_refused(void **state)
{
    (void)state;
    char longest[ADDRESSES_MAX_BYTES + 1];
    memset(longest, 'a', ADDRESSES_MAX_BYTES);
    longest[ADDRESSES_MAX_BYTES] = '\0';
    const char *const bad[] = {
        "", ",", "a:1,", ",a:1", "a:1,,b:1", "a:1,b:1,c:1,d:1,e:1,f:1,g:1,h:1,i:1", longest};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct addresses a;
        struct error err;
        assert_int_equal(addresses_init(&a, bad[i], &err), ERR_INVALID);
        assert_non_null(strstr(err.msg, "--coordinator: expected 1 to 8 addresses"));
    }
}

/* --- ranks ------------------------------------------------------------------------------------ */

/* A rank's engine thread, which waits for a plan. */
struct waiting {
    struct attach *attach;
    bool again; /* it has loaded: attach_again */
    int timeout_s;
    enum status st;
    struct error err;
    pthread_t thread;
};

static void *wait_thread(void *arg)
{
    struct waiting *w = arg;
    struct assignment *plan = check_calloc(1, sizeof *plan);
    if (w->again && mailbox_wait_end(attach_mailbox(w->attach), -1))
        mailbox_wait_plan(attach_mailbox(w->attach), 0, plan, &w->err);
    w->st = w->again ? attach_again(w->attach, w->timeout_s, plan, &w->err)
                     : attach_wait_plan(w->attach, plan, &w->err);
    free(plan);
    return NULL;
}

static void begin_waiting(struct waiting *w, bool again)
{
    w->again = again;
    w->timeout_s = w->timeout_s ? w->timeout_s : FAKE_WAIT_MS / 1000;
    w->err = (struct error){.code = ERR_IO, .msg = "its stream ended"};
    assert_int_equal(pthread_create(&w->thread, NULL, wait_thread, w), 0);
}

static void end_waiting(struct waiting *w, enum status expected)
{
    assert_int_equal(pthread_join(w->thread, NULL), 0);
    if (w->st != expected)
        fail_msg("expected %s, found %s: %s", status_name(expected), status_name(w->st),
                 w->st == OK ? "" : w->err.msg);
}

static struct attach *attach_to(const struct fake *f, const char *list, int rank, int world)
{
    struct attach *a = NULL;
    struct error err;
    const struct attach_options o = {.coordinator = list,
                                     .tls_dir = f->dir,
                                     .group = "left",
                                     .region = "",
                                     .incarnation = 1,
                                     .rank = rank,
                                     .world = world,
                                     .host = "here",
                                     .ranks_here = world};
    log_set_level(LOG_ERROR);
    if (attach_create(&o, &a, &err) != OK)
        fail_msg("%s", err.msg);
    return a;
}

static void give_plan(struct fake *f, int rank)
{
    const struct rank_plan plan = {.rank = rank, .layers = {0, 1}};
    const struct fake_plan p = {.dir = "none",
                                .layout = {1, 1, 1, 1},
                                .max_seqs = 1,
                                .context = 64,
                                .rows = 1,
                                .reattach_timeout_s = 60};
    fake_send_plan(f, &p, &plan, false);
}

/* Two coordinators, and the list of both. */
struct two {
    struct fake *first, *second;
    char list[160];
};

static struct two start_two(void)
{
    struct two t = {.first = fake_start()};
    t.second = fake_start_beside(t.first);
    snprintf(t.list, sizeof t.list, "%s,%s", t.first->address, t.second->address);
    return t;
}

static void end_two(struct two *t)
{
    fake_end(t->second);
    fake_end(t->first);
}

/* Where it listened. */
static void listen_again(struct fake *f)
{
    fake_listen(f, atoi(strrchr(f->address, ':') + 1));
}

/* A rank that the first has given a plan. */
static struct waiting loaded_at_first(const struct two *t, int rank, int world)
{
    struct waiting w = {.attach = attach_to(t->first, t->list, rank, world)};
    begin_waiting(&w, false);
    FAKE_WAIT(t->first, t->first->ranks[rank].hello);
    give_plan(t->first, rank);
    end_waiting(&w, OK);
    return w;
}

static void one_that_is_not_there_is_passed(void **state)
{
    (void)state;
    struct two t = start_two();
    fake_vanish(t.first);
    struct waiting w = {.attach = attach_to(t.first, t.list, 0, 1)};
    begin_waiting(&w, false);
    FAKE_WAIT(t.second, t.second->ranks[0].hello);
    give_plan(t.second, 0);
    end_waiting(&w, OK);
    assert_false(t.second->ranks[0].loaded);
    attach_close(w.attach, NULL);
    end_two(&t);
}

/* And from there, when that one dies, to the first again. */
static void ranks_go_to_the_one_that_lives(void **state)
{
    (void)state;
    struct two t = start_two();
    struct waiting w = loaded_at_first(&t, 0, 1);
    fake_vanish(t.first);
    begin_waiting(&w, true);
    FAKE_WAIT(t.second, t.second->ranks[0].hello);
    give_plan(t.second, 0);
    end_waiting(&w, OK);
    assert_true(t.second->ranks[0].loaded);
    assert_int_equal(t.first->ranks[0].hellos, 1);
    listen_again(t.first);
    fake_vanish(t.second);
    begin_waiting(&w, true);
    FAKE_WAIT(t.first, t.first->ranks[0].hellos == 2);
    give_plan(t.first, 0);
    end_waiting(&w, OK);
    attach_close(w.attach, NULL);
    end_two(&t);
}

/* One has found the second and the other, later, the first again. */
static void ranks_that_are_apart_meet_at_the_first(void **state)
{
    (void)state;
    struct two t = start_two();
    struct waiting w[2] = {loaded_at_first(&t, 0, 2), loaded_at_first(&t, 1, 2)};
    fake_vanish(t.first);
    begin_waiting(&w[0], true);
    FAKE_WAIT(t.second, t.second->ranks[0].hello);
    listen_again(t.first);
    usleep(ATTACH_GATHER_MS * 800); /* so that it does not leave as the other comes */
    begin_waiting(&w[1], true);
    FAKE_WAIT(t.first, t.first->ranks[1].hellos >= 2 && !t.first->ranks[1].closed);
    FAKE_WAIT(t.second, t.second->ranks[0].closed);
    FAKE_WAIT(t.first, t.first->ranks[0].hellos >= 2 && !t.first->ranks[0].closed &&
                           !t.first->ranks[1].closed);
    assert_true(t.first->ranks[0].loaded && t.first->ranks[1].loaded);
    give_plan(t.first, 0);
    give_plan(t.first, 1);
    for (int i = 0; i < 2; i++) {
        end_waiting(&w[i], OK);
        attach_close(w[i].attach, NULL);
    }
    end_two(&t);
}

/* One that refuses a rank may be configured wrongly; the first is the one that started it. */
static void the_first_ones_refusal_counts(void **state)
{
    (void)state;
    struct two t = start_two();
    struct waiting w = loaded_at_first(&t, 0, 1);
    fake_vanish(t.first);
    fake_refuse(t.second, RPC_NOT_FOUND);
    begin_waiting(&w, true);
    usleep(ATTACH_AGAIN_FIRST_MS * 2000); /* time to be refused by the second, before or after */
    listen_again(t.first);
    FAKE_WAIT(t.first, t.first->ranks[0].hellos == 2);
    give_plan(t.first, 0);
    end_waiting(&w, OK);
    fake_refuse(t.first, RPC_NOT_FOUND);
    fake_cut(t.first, 0, RPC_UNAVAILABLE);
    begin_waiting(&w, true);
    end_waiting(&w, ERR_IO);
    assert_non_null(strstr(w.err.msg, t.first->address));
    assert_non_null(strstr(w.err.msg, "NOT_FOUND"));
    attach_close(w.attach, NULL);
    end_two(&t);
}

static void all_that_were_tried_are_named(void **state)
{
    (void)state;
    struct two t = start_two();
    struct waiting w = loaded_at_first(&t, 0, 1);
    char who[256];
    snprintf(who, sizeof who, "none of the coordinators %s, %s has taken this rank back within 2 s",
             t.first->address, t.second->address);
    fake_vanish(t.first);
    fake_vanish(t.second);
    w.timeout_s = 2;
    begin_waiting(&w, true);
    end_waiting(&w, ERR_LIMIT);
    if (!strstr(w.err.msg, who) || !strstr(w.err.msg, "UNAVAILABLE"))
        fail_msg("%s", w.err.msg);
    attach_close(w.attach, NULL);
    end_two(&t);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(lists_are_read),
    cmocka_unit_test(bad_lists_are_refused),
    cmocka_unit_test(one_that_is_not_there_is_passed),
    cmocka_unit_test(ranks_go_to_the_one_that_lives),
    cmocka_unit_test(ranks_that_are_apart_meet_at_the_first),
    cmocka_unit_test(the_first_ones_refusal_counts),
    cmocka_unit_test(all_that_were_tried_are_named),
};

UNIT_MAIN(tests)
