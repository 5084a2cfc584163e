/* Who comes next of those that wait. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "worker/queue.h"

static struct sequence *enter(struct queue *q, uint64_t id, uint64_t tenant, int32_t priority)
{
    struct sequence *s = check_calloc(1, sizeof *s);
    s->id = id;
    s->request.tenant = tenant;
    s->request.priority = priority;
    queue_enter(q, s);
    queue_add(q, s);
    return s;
}

static void leave(struct queue *q, struct sequence *s)
{
    queue_leave(q, s);
    free(s);
}

/* Takes the next one, charges its tenant and says who it was. */
static uint64_t serve(struct queue *q, int32_t rows)
{
    struct sequence *s = queue_first(q);
    uint64_t id = s ? s->id : 0;
    if (!s)
        return 0;
    queue_remove(q, s);
    queue_charge(s, rows);
    leave(q, s);
    return id;
}

static struct queue *make(void)
{
    struct queue *q;
    struct error err;
    assert_int_equal(queue_create(&q, &err), OK);
    return q;
}

static void first_come_first_served(void **state)
{
    (void)state;
    struct queue *q = make();
    for (uint64_t id = 1; id <= 5; id++)
        enter(q, id, 9, 0);
    struct sequence *first = queue_first(q);
    queue_remove(q, first); /* runs, and is preempted */
    assert_int_equal(serve(q, 1), 2);
    queue_add(q, first);
    for (uint64_t id = 1; id <= 5; id++)
        if (id != 2)
            assert_int_equal(serve(q, 1), id);
    assert_int_equal(queue_count(q), 0);
    assert_null(queue_first(q));
    assert_null(queue_oldest(q));
    queue_destroy(q);
}

static void classes_go_in_order(void **state)
{
    (void)state;
    struct queue *q = make();
    enter(q, 1, 1, 1);
    enter(q, 2, 2, 0);
    enter(q, 3, 1, -1);
    enter(q, 4, 1, 0);
    assert_int_equal(serve(q, 100), 3); /* of tenant 1, who then has had more */
    assert_int_equal(serve(q, 1), 2);
    assert_int_equal(serve(q, 1), 4);
    assert_int_equal(serve(q, 1), 1);
    queue_destroy(q);
}

/* Equal shares of rows, not of requests. */
static void the_least_served_tenant_is_next(void **state)
{
    (void)state;
    struct queue *q = make();
    for (uint64_t i = 0; i < 40; i++) {
        enter(q, 2 * i + 1, 1, 0);
        enter(q, 2 * i + 2, 2, 0);
    }
    int32_t served[3] = {0};
    for (int i = 0; i < 40; i++) {
        uint64_t tenant = queue_first(q)->request.tenant;
        served[tenant]++;
        serve(q, tenant == 1 ? 30 : 10);
    }
    assert_int_equal(served[1], 10);
    assert_int_equal(served[2], 30);
    while (serve(q, 1) > 0)
        continue;
    queue_destroy(q);
}

/* Who comes late has not saved up turns, and nobody is punished for having run alone. */
static void idling_saves_nothing_up(void **state)
{
    (void)state;
    struct queue *q = make();
    enter(q, 1, 2, 0);
    serve(q, 5); /* tenant 2 has had 5, long ago */
    for (uint64_t id = 10; id < 30; id++)
        enter(q, id, 1, 0);
    for (int i = 0; i < 10; i++)
        serve(q, 100);
    for (uint64_t id = 40; id < 50; id++)
        enter(q, id, 2, 0);
    int32_t of_two = 0;
    for (int i = 0; i < 10; i++)
        of_two += serve(q, 100) >= 40;
    assert_int_equal(of_two, 5);
    while (serve(q, 1) > 0)
        continue;
    queue_destroy(q);
}

/* More tenants than are remembered: idle ones are forgotten, active ones share a turn. */
static void tenants_are_bounded(void **state)
{
    (void)state;
    struct queue *q = make();
    for (uint64_t id = 1; id <= 3 * QUEUE_TENANTS; id++) {
        enter(q, id, id, 0);
        assert_int_equal(serve(q, 1), id);
    }
    for (uint64_t id = 1; id <= 2 * QUEUE_TENANTS; id++)
        enter(q, id, id, 0);
    assert_int_equal(queue_count(q), 2 * QUEUE_TENANTS);
    bool *seen = check_calloc(2 * QUEUE_TENANTS + 1, sizeof *seen);
    for (int32_t i = 0; i < 2 * QUEUE_TENANTS; i++) {
        uint64_t id = serve(q, 1);
        assert_true(id >= 1 && id <= 2 * QUEUE_TENANTS && !seen[id]);
        seen[id] = true;
    }
    assert_int_equal(queue_count(q), 0);
    free(seen);
    queue_destroy(q);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(first_come_first_served),
    cmocka_unit_test(classes_go_in_order),
    cmocka_unit_test(the_least_served_tenant_is_next),
    cmocka_unit_test(idling_saves_nothing_up),
    cmocka_unit_test(tenants_are_bounded),
};

UNIT_MAIN(tests)
