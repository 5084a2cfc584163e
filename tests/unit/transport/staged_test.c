/* Collectives by way of a buffer: whole ones from pieces of it, from and to what only get and put
 * may touch. */
#include "tests/unit/unit.h"

#include "tests/cluster/comm_cases.h"

typedef enum status (*case_fn)(struct comm *c, struct error *err);

/* A rank's device, which is memory of the host, and its buffer. */
struct device {
    case_fn fn;
    size_t bytes; /* of the buffer */
};

struct counts {
    bool meets;
    uint64_t met, copies;
};

static bool meet(void *arg)
{
    struct counts *n = arg;
    n->met++;
    return n->meets;
}

static enum status copy(void *arg, void *to, const void *from, size_t bytes, struct error *err)
{
    struct counts *n = arg;
    (void)err;
    n->copies++;
    memcpy(to, from, bytes);
    return OK;
}

static enum status run_staged(struct comm *world, void *arg, struct error *err)
{
    const struct device *d = arg;
    struct counts n = {.meets = true};
    struct comm *c = NULL;
    char *buffer = malloc(d->bytes);
    assert_non_null(buffer);
    const struct comm_stage stage = {meet, copy, copy, &n, buffer, d->bytes};
    enum status st = comm_staged(world, &stage, &c, err);
    if (st == OK) {
        st = d->fn(c, err);
        c->ops->destroy(c);
    }
    free(buffer);
    return st;
}

static void run_all(case_fn fn)
{
    static const int ranks[] = {1, 2, 3, 8};
    for (size_t i = 0; i < COUNT_OF(ranks); i++)
        for (size_t extra = 0; extra < 3; extra++) {
            struct device d = {fn, ((size_t)ranks[i] + 1) * 1024 + 8 * extra};
            struct error err = {0};
            if (comm_local_run(ranks[i], run_staged, &d, &err) != OK)
                fail_msg("%d ranks: %s", ranks[i], err.msg);
        }
}

static void allreduce(void **state)
{
    (void)state;
    run_all(cases_allreduce);
}

static void allgather(void **state)
{
    (void)state;
    run_all(cases_allgather);
}

static void messages_in_order(void **state)
{
    (void)state;
    run_all(cases_message_order);
}

/* Where it is not to be done nothing is copied and no rank waits for another. */
static enum status meet_not(struct comm *world, void *arg, struct error *err)
{
    (void)arg;
    struct counts n = {.meets = false};
    struct comm *c = NULL;
    double x[4] = {1, 2, 3, 4}, all[8] = {0}, buffer[8];
    const struct comm_stage stage = {meet, copy, copy, &n, buffer, sizeof buffer};
    TRY(comm_staged(world, &stage, &c, err));
    if (world->rank == 0) {
        TRY(c->ops->allreduce_f64(c, x, COUNT_OF(x), err));
        TRY(c->ops->allgather(c, x, sizeof x, all, err));
        TRY(c->ops->send(c, 1, x, sizeof x, err));
        TRY(c->ops->recv(c, 1, x, sizeof x, err));
        EXPECT(n.met == 4 && n.copies == 0 && x[0] == 1 && all[0] == 0);
    }
    c->ops->destroy(c);
    return OK;
}

static void ranks_that_do_not_meet(void **state)
{
    (void)state;
    struct error err = {0};
    if (comm_local_run(2, meet_not, NULL, &err) != OK)
        fail_msg("%s", err.msg);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(allreduce),
    cmocka_unit_test(allgather),
    cmocka_unit_test(messages_in_order),
    cmocka_unit_test(ranks_that_do_not_meet),
};

UNIT_MAIN(tests)
