/* coordinator/quota: no minute has more than its limit, by a clock of the test's own. */
#include "tests/unit/unit.h"
#include "tests/unit/random.h"

#include "coordinator/quota.h"

static const int64_t S = 1000000000;
enum { TENANT = 7, OTHER = 8 };

static const struct quota_limits none;
static const struct quota_key nobody;

/* A request that ends at once, having used what it asked for. */
static bool ask(struct quota *q, const struct quota_key *key, uint64_t tenant, int64_t prompt,
                int64_t answer, int64_t now, struct quota_refusal *why)
{
    const struct quota_ask a = {.prompt = prompt, .answer = answer, .request = true};
    struct quota_ticket t;
    struct quota_refusal ignored;
    if (!quota_take(q, key, tenant, &a, now, &t, why ? why : &ignored))
        return false;
    quota_settle(&t, prompt + answer, now);
    return true;
}

static void without_limits_nothing_is_counted(void **state)
{
    (void)state;
    struct quota *q = quota_create(&none);
    struct quota_left requests, tokens;
    for (int i = 0; i < 1000; i++)
        assert_true(ask(q, &nobody, TENANT, 1 << 30, 1 << 30, i, NULL));
    quota_look(q, &nobody, TENANT, 0, &requests, &tokens);
    assert_true(requests.limit == 0 && tokens.limit == 0);
    quota_destroy(q);
    quota_destroy(NULL);
}

static void requests_of_a_minute(void **state)
{
    (void)state;
    struct quota *q = quota_create(&none);
    const struct quota_key key = {5, {.requests = 3}};
    struct quota_refusal why;
    struct quota_left requests, tokens;
    int64_t t = 1000 * S;
    quota_look(q, &key, TENANT, t, &requests, &tokens);
    assert_true(requests.limit == 3 && requests.left == 3 && requests.reset_ns == 0);
    assert_true(quota_check(q, &key, TENANT, t, &why));
    for (int i = 0; i < 3; i++)
        assert_true(ask(q, &key, TENANT, 1, 1, t + i * S, NULL));
    assert_false(ask(q, &key, TENANT, 1, 1, t + 10 * S, &why));
    assert_int_equal(why.limit, QUOTA_REQUESTS);
    assert_false(why.tenant);
    assert_true(why.most == 3 && why.used == 3 && why.wanted == 1);
    /* What is counted in a slot leaves when the slot is a minute behind. */
    assert_true(why.wait_ns == 55 * S);
    assert_false(quota_check(q, &key, TENANT, t + 10 * S, &why));
    quota_look(q, &key, TENANT, t + 10 * S, &requests, &tokens);
    assert_true(requests.left == 0 && requests.reset_ns == 55 * S && tokens.limit == 0);
    /* Another key and another tenant have their own. */
    assert_true(ask(q, &nobody, TENANT, 1, 1, t, NULL));
    assert_true(ask(q, &(struct quota_key){6, {.requests = 1}}, TENANT, 1, 1, t, NULL));
    assert_false(ask(q, &key, TENANT, 1, 1, t + 65 * S - 1, NULL));
    for (int i = 0; i < 3; i++)
        assert_true(ask(q, &key, TENANT, 1, 1, t + 65 * S, NULL));
    assert_false(ask(q, &key, TENANT, 1, 1, t + 65 * S, NULL));
    quota_destroy(q);
}

/* At any times: no 60 seconds have more than the limit, and what was refused is let in when it was
 * told to come back. */
static void no_minute_has_more(void **state)
{
    (void)state;
    enum { LIMIT = 20, ASKED = 20000 };
    static int64_t taken[ASKED];
    struct quota *q = quota_create(&(struct quota_limits){.requests = LIMIT});
    struct quota_refusal why;
    uint64_t r = 11;
    int64_t t = 0;
    int count = 0, refused = 0;
    for (int i = 0; i < ASKED; i++) {
        t += random_int(&r, 0, 4) == 0 ? (int64_t)random_int(&r, 0, 9000) * 1000000 : S / 100;
        if (ask(q, &nobody, TENANT, 1, 0, t, &why)) {
            taken[count++] = t;
            continue;
        }
        refused++;
        assert_true(why.tenant && why.wait_ns > 0 && why.wait_ns <= 65 * S);
        if (random_int(&r, 0, 9) > 0)
            continue;
        t += why.wait_ns;
        assert_true(ask(q, &nobody, TENANT, 1, 0, t, &why));
        taken[count++] = t;
    }
    assert_true(count > LIMIT * 10 && refused > 100);
    for (int i = LIMIT; i < count; i++)
        assert_true(taken[i] - taken[i - LIMIT] >= 60 * S);
    quota_destroy(q);
}

static void tokens_are_reserved_and_settled(void **state)
{
    (void)state;
    struct quota *q = quota_create(&(struct quota_limits){.tokens = 1000});
    const struct quota_ask a = {.prompt = 100, .answer = 300, .request = true};
    struct quota_ticket t[3];
    struct quota_refusal why;
    struct quota_left requests, tokens;
    int64_t now = 1000 * S;
    assert_true(quota_take(q, &nobody, TENANT, &a, now, &t[0], &why));
    assert_true(quota_take(q, &nobody, TENANT, &a, now, &t[1], &why));
    /* Together they could pass it: the third waits until one of them has said what it used. */
    assert_false(quota_take(q, &nobody, TENANT, &a, now, &t[2], &why));
    assert_int_equal(why.limit, QUOTA_TOKENS);
    assert_true(why.tenant && why.most == 1000 && why.used == 800 && why.wanted == 400);
    assert_true(why.wait_ns == 0); /* nobody knows when they end */
    quota_look(q, &nobody, TENANT, now, &requests, &tokens);
    assert_true(tokens.limit == 1000 && tokens.left == 200 && tokens.reset_ns > 0);
    quota_settle(&t[0], 150, now + S);
    assert_true(quota_take(q, &nobody, TENANT, &a, now + S, &t[2], &why));
    quota_settle(&t[1], 400, now + 2 * S);
    quota_return(&t[2], now + 2 * S);
    quota_look(q, &nobody, TENANT, now + 2 * S, &requests, &tokens);
    assert_true(tokens.left == 1000 - 550);
    assert_false(quota_take(q, &nobody, TENANT, &(struct quota_ask){.prompt = 451}, now + 2 * S,
                            &t[0], &why));
    assert_true(why.wait_ns == 63 * S);
    quota_look(q, &nobody, TENANT, now + 66 * S, &requests, &tokens);
    assert_true(tokens.left == 1000 && tokens.reset_ns == 0);
    quota_destroy(q);
}

/* Who says no bound for the answer reserves what is left, and may pass it by that one answer. */
static void answers_without_a_bound(void **state)
{
    (void)state;
    struct quota *q = quota_create(&(struct quota_limits){.tokens = 1000});
    const struct quota_ask open = {.prompt = 100, .answer = 30000, .open = true, .request = true};
    struct quota_ticket t[2];
    struct quota_refusal why;
    int64_t now = 1000 * S;
    assert_true(quota_take(q, &nobody, TENANT, &open, now, &t[0], &why));
    assert_false(quota_take(q, &nobody, TENANT, &open, now, &t[1], &why));
    quota_settle(&t[0], 300, now);
    assert_true(quota_take(q, &nobody, TENANT, &open, now, &t[0], &why));
    quota_settle(&t[0], 2000, now + S); /* drawn without a bound */
    assert_false(quota_take(q, &nobody, TENANT, &open, now + S, &t[0], &why));
    assert_true(why.used == 2300 && why.wait_ns == 64 * S);
    quota_destroy(q);
}

static void more_than_a_minute_has(void **state)
{
    (void)state;
    struct quota *q = quota_create(&(struct quota_limits){.tokens = 1000});
    const struct quota_ask large = {.prompt = 3000, .answer = 300, .request = true};
    const struct quota_ask small = {.prompt = 1, .request = true};
    struct quota_ticket t, other;
    struct quota_refusal why;
    int64_t now = 1000 * S;
    assert_true(quota_take(q, &nobody, TENANT, &large, now, &t, &why));
    assert_false(quota_take(q, &nobody, TENANT, &small, now, &other, &why));
    quota_settle(&t, 3001, now);
    assert_false(quota_take(q, &nobody, TENANT, &small, now + 64 * S, &t, &why));
    assert_true(quota_take(q, &nobody, TENANT, &small, now + 65 * S, &t, &why));
    assert_false(quota_take(q, &nobody, TENANT, &large, now + 65 * S, &other, &why));
    quota_settle(&t, 1, now + 65 * S);
    quota_destroy(q);
}

static void answers_at_once(void **state)
{
    (void)state;
    struct quota *q = quota_create(&(struct quota_limits){.concurrent = 2});
    const struct quota_key key = {9, {.concurrent = 1}};
    const struct quota_ask a = {.prompt = 1, .answer = 1, .request = true};
    struct quota_ticket t[3];
    struct quota_refusal why;
    assert_true(quota_take(q, &key, TENANT, &a, 0, &t[0], &why));
    assert_false(quota_take(q, &key, TENANT, &a, 0, &t[1], &why));
    assert_true(why.limit == QUOTA_CONCURRENT && !why.tenant && why.most == 1 && why.wait_ns == 0);
    assert_true(quota_take(q, &nobody, TENANT, &a, 0, &t[1], &why));
    assert_false(quota_take(q, &nobody, TENANT, &a, 0, &t[2], &why));
    assert_true(why.tenant && why.most == 2 && why.used == 2);
    assert_true(quota_take(q, &nobody, OTHER, &a, 0, &t[2], &why));
    quota_settle(&t[0], 2, 0);
    assert_true(quota_take(q, &key, TENANT, &a, 0, &t[0], &why));
    for (int i = 0; i < 3; i++)
        quota_settle(&t[i], 2, 0);
    quota_destroy(q);
}

/* Refused by its tenant's limit, a request leaves its key's as it was; more choices are one. */
static void what_is_refused_is_not_counted(void **state)
{
    (void)state;
    struct quota *q = quota_create(&(struct quota_limits){.requests = 1});
    const struct quota_key key = {9, {.requests = 5}};
    const struct quota_ask choice = {.answer = 1};
    struct quota_ticket t;
    struct quota_refusal why;
    struct quota_left requests, tokens;
    assert_true(ask(q, &key, TENANT, 1, 1, 0, NULL));
    for (int i = 0; i < 10; i++)
        assert_false(ask(q, &key, TENANT, 1, 1, 0, &why));
    assert_true(why.tenant);
    assert_true(quota_take(q, &key, TENANT, &choice, 0, &t, &why));
    quota_settle(&t, 1, 0);
    assert_true(ask(q, &key, OTHER, 1, 1, 0, NULL));
    quota_look(q, &key, OTHER, 0, &requests, &tokens);
    assert_true(requests.limit == 1 && requests.left == 0); /* the tenant's, which has less */
    quota_look(q, &key, 99, 0, &requests, &tokens);
    assert_true(requests.limit == 1 && requests.left == 1);
    /* What came to nothing is given back. */
    assert_true(quota_take(q, &nobody, 55, &(struct quota_ask){.request = true}, 0, &t, &why));
    quota_return(&t, 0);
    assert_true(ask(q, &nobody, 55, 1, 1, 0, NULL));
    quota_destroy(q);
}

/* More tenants than are known at once, in two minutes: those of the first are forgotten, and nobody
 * under way is. */
static void who_is_quiet_is_forgotten(void **state)
{
    (void)state;
    struct quota *q = quota_create(&(struct quota_limits){.requests = 1});
    const struct quota_ask a = {.request = true};
    struct quota_ticket held, t;
    struct quota_refusal why;
    assert_true(quota_take(q, &nobody, 1, &a, 0, &held, &why));
    for (uint64_t i = 2; i <= QUOTA_MAX; i++)
        assert_true(ask(q, &nobody, i * 0x9e3779b97f4a7c15u, 1, 1, S, NULL));
    assert_false(quota_take(q, &nobody, 5, &a, S, &t, &why));
    assert_int_equal(why.limit, QUOTA_FULL);
    assert_true(quota_check(q, &nobody, 5, S, &why));
    for (uint64_t i = 2; i <= QUOTA_MAX; i++)
        assert_true(ask(q, &nobody, i * 0x9e3779b97f4a7c15u + 1, 1, 1, 100 * S, NULL));
    quota_settle(&held, 1, 100 * S);
    assert_true(ask(q, &nobody, 1, 1, 1, 200 * S, NULL));
    quota_destroy(q);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(without_limits_nothing_is_counted),
    cmocka_unit_test(requests_of_a_minute),
    cmocka_unit_test(no_minute_has_more),
    cmocka_unit_test(tokens_are_reserved_and_settled),
    cmocka_unit_test(answers_without_a_bound),
    cmocka_unit_test(more_than_a_minute_has),
    cmocka_unit_test(answers_at_once),
    cmocka_unit_test(what_is_refused_is_not_counted),
    cmocka_unit_test(who_is_quiet_is_forgotten),
};

UNIT_MAIN(tests)
