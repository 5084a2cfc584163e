/* What tenants used, from records. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "coordinator/usage.h"

#include <unistd.h>

static enum status try_add(struct usage *u, const char *kind, const char *time, const char *fields,
                           struct error *err)
{
    json_t *f = NULL;
    assert_int_equal(json_parse("a record", fields, strlen(fields), &f, err), OK);
    enum status st = usage_add(u, kind, time, f, err);
    json_decref(f);
    return st;
}

static void add(struct usage *u, const char *kind, const char *time, const char *fields)
{
    struct error err;
    if (try_add(u, kind, time, fields, &err) != OK)
        fail_msg("%s", err.msg);
}

static void begins(struct usage *u, const char *time, const char *id, const char *tenant)
{
    char f[200];
    snprintf(f, sizeof f, "{\"id\": \"%s\", \"tenant\": \"%s\", \"prompt_tokens\": 5}", id, tenant);
    add(u, "request_start", time, f);
}

static void ends(struct usage *u, const char *time, const char *id, int tokens, const char *joules)
{
    char f[300];
    snprintf(f, sizeof f,
             "{\"id\": \"%s\", \"prompt_tokens\": %d, \"cached_tokens\": %d, "
             "\"completion_tokens\": %d, \"reasoning_tokens\": 1, \"joules\": %s}",
             id, 10 * tokens, tokens, 2 * tokens, joules);
    add(u, "request_end", time, f);
}

static struct usage *begin(const char *from, const char *to)
{
    struct usage *u = NULL;
    struct error err;
    if (usage_create(from, to, &u, &err) != OK)
        fail_msg("%s", err.msg);
    return u;
}

static void fill(struct usage *u)
{
    begins(u, "2026-03-01T23:59:59.000Z", "a-1", "red");
    begins(u, "2026-03-01T23:59:59.500Z", "a-2", "blue");
    ends(u, "2026-03-01T23:59:59.900Z", "a-2", 100, "1800.0");
    ends(u, "2026-03-02T00:00:01.000Z", "a-1", 10, "null"); /* of the day on which it began */
    begins(u, "2026-03-02T08:00:00.000Z", "a-3", "red");
    ends(u, "2026-03-02T08:00:02.000Z", "a-3", 1, "360");
    begins(u, "2026-03-02T08:00:00.000Z", "a-4", "red"); /* under way */
    ends(u, "2026-03-03T08:00:02.000Z", "b-9", 1, "7");  /* of an earlier log */
    add(u, "weights", "2026-03-03T08:00:02.000Z", "{}");
}

static void adds_up_by_day_and_tenant(void **state)
{
    (void)state;
    struct usage *u = begin(NULL, NULL);
    size_t count;
    fill(u);
    const struct usage_row *r = usage_rows(u, &count);
    assert_int_equal(count, 4);
    assert_string_equal(r[0].day, "2026-03-01");
    assert_string_equal(r[0].tenant, "blue");
    assert_int_equal(r[0].counts.prompt_tokens, 1000);
    assert_int_equal(r[0].counts.cached_tokens, 100);
    assert_int_equal(r[0].counts.completion_tokens, 200);
    assert_true(r[0].counts.joules == 1800 && r[0].counts.metered == 1);
    assert_string_equal(r[1].tenant, "red");
    assert_true(r[1].counts.finished == 1 && r[1].counts.metered == 0 && r[1].counts.joules == 0);
    assert_true(r[2].counts.requests == 2 && r[2].counts.finished == 1);
    assert_string_equal(r[3].tenant, "unknown");
    struct usage_counts all = usage_total(u);
    assert_true(all.requests == 5 && all.finished == 4 && all.metered == 3);
    assert_true(all.joules == 2167 && all.reasoning_tokens == 4);
    assert_false(usage_has_refusals(u));
    usage_destroy(u);
    u = begin("2026-03-02", "2026-03-02");
    fill(u);
    usage_rows(u, &count);
    assert_int_equal(count, 1);
    usage_destroy(u);
}

static void wrong_words_are_named(void **state)
{
    (void)state;
    struct usage *u = NULL;
    struct error err;
    assert_int_equal(usage_create("yesterday", NULL, &u, &err), ERR_INVALID);
    assert_non_null(strstr(err.msg, "--from: expected a day like 2026-01-31, found yesterday"));
    assert_int_equal(usage_create(NULL, "2026-13-01", &u, &err), ERR_INVALID);
    assert_int_equal(usage_create("2026-02-02", "2026-02-01", &u, &err), ERR_INVALID);
    u = begin(NULL, NULL);
    static const struct {
        const char *kind, *time, *fields, *words;
    } bad[] = {
        {"request_start", "2026-01-01T", "{\"tenant\": \"a\"}", "id"},
        {"request_start", "2026-01-01T", "{\"id\": \"a\"}", "tenant"},
        {"request_start", "noon", "{\"id\": \"a\", \"tenant\": \"t\"}", "time"},
        {"request_end", "2026-01-01T", "{\"id\": \"a\"}", "prompt_tokens"},
        {"request_end", "2026-01-01T",
         "{\"id\": \"a\", \"prompt_tokens\": 1, \"cached_tokens\": 1, \"completion_tokens\": -1, "
         "\"reasoning_tokens\": 0}",
         "completion_tokens"},
        {"request_end", "2026-01-01T",
         "{\"id\": \"a\", \"prompt_tokens\": 1, \"cached_tokens\": 1, \"completion_tokens\": 1, "
         "\"reasoning_tokens\": 0, \"joules\": -2}",
         "joules"},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_int_equal(try_add(u, bad[i].kind, bad[i].time, bad[i].fields, &err), ERR_INVALID);
        if (!strstr(err.msg, bad[i].words))
            fail_msg("expected %s, found: %s", bad[i].words, err.msg);
    }
    usage_destroy(u);
}

static struct usage_prices prices_of(const char *text, enum status expected, struct error *err)
{
    char path[] = "/tmp/witan-prices-XXXXXX";
    struct usage_prices p;
    int fd = mkstemp(path);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    assert_int_equal(usage_prices_read(path, &p, err), expected);
    unlink(path);
    return p;
}

static void prices_make_costs(void **state)
{
    (void)state;
    struct error err;
    struct usage_prices p = prices_of(
        "{\"currency\": \"EUR\", \"prompt\": 2, \"completion\": 10, \"kwh\": 0.5}", OK, &err);
    struct usage_counts c = {
        .prompt_tokens = 3000000, .cached_tokens = 1000000, .completion_tokens = 500000};
    assert_true(usage_cost_tokens(&c, &p) == 11);
    p = prices_of("{\"currency\": \"EUR\", \"prompt\": 2, \"cached\": 0.5, \"kwh\": 0.5}", OK,
                  &err);
    assert_true(usage_cost_tokens(&c, &p) == 4.5);
    c.joules = 7.2e6;
    assert_true(usage_cost_energy(&c, &p) == 1);
    prices_of("{\"prompt\": 2}", ERR_INVALID, &err);
    assert_non_null(strstr(err.msg, "currency"));
    prices_of("{\"currency\": \"EUR\", \"prmopt\": 2}", ERR_INVALID, &err);
    assert_non_null(strstr(err.msg, "prmopt: not a price"));
    prices_of("{\"currency\": \"EUR\", \"kwh\": -1}", ERR_INVALID, &err);
    prices_of("[]", ERR_INVALID, &err);
}

static void written(struct usage *u, const struct usage_prices *p, enum usage_format format,
                    struct buf *b)
{
    struct error err;
    buf_init(b, 1 << 20);
    if (usage_write(u, p, format, b, &err) != OK)
        fail_msg("%s", err.msg);
    assert_int_equal(buf_append(b, "", 1, &err), OK);
}

static void says_it_three_ways(void **state)
{
    (void)state;
    const struct usage_prices none = {0}, p = {.currency = "EUR", .completion = 1e6, .kwh = 3.6};
    struct usage *u = begin(NULL, NULL);
    struct buf b;
    struct error err;
    json_t *o = NULL;
    fill(u);
    written(u, &none, USAGE_CSV, &b);
    assert_non_null(strstr(b.data, "day,tenant,requests,unfinished,refused,prompt_tokens,"
                                   "cached_tokens,completion_tokens,reasoning_tokens,"
                                   "metered_requests,joules,wh\n"));
    assert_non_null(strstr(b.data, "\n2026-03-01,\"red\",1,0,,100,10,20,1,0,,\n"));
    assert_non_null(strstr(b.data, "\n2026-03-02,\"red\",2,1,,10,1,2,1,1,360.000000,0.100000\n"));
    buf_fini(&b);
    begins(u, "2026-03-05T08:00:00.000Z", "c-1", "=1+\\\"1");
    add(u, "request_refused", "2026-03-05T08:00:00.000Z", "{\"tenant\": \"red\"}");
    written(u, &p, USAGE_CSV, &b);
    assert_non_null(strstr(b.data, "\n2026-03-05,\"'=1+\"\"1\",1,1,0,0,0,0,0,0,,,0.000000,,"
                                   "0.000000,\"EUR\"\n"));
    assert_non_null(strstr(b.data, "\n2026-03-05,\"red\",0,0,1,"));
    buf_fini(&b);
    written(u, &p, USAGE_JSON, &b);
    assert_int_equal(json_parse("the report", b.data, b.len - 1, &o, &err), OK);
    json_t *total = json_object_get(o, "total");
    assert_int_equal(json_integer_value(json_object_get(total, "refused")), 1);
    assert_int_equal(json_array_size(json_object_get(o, "rows")), 6);
    assert_true(json_number_value(json_object_get(total, "joules")) == 2167);
    json_decref(o);
    buf_fini(&b);
    written(u, &none, USAGE_TEXT, &b);
    assert_non_null(strstr(b.data, "2 requests have no end in this log."));
    assert_non_null(strstr(b.data, "The energy of 1 of 4 requests is not known"));
    buf_fini(&b);
    usage_destroy(u);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(adds_up_by_day_and_tenant),
    cmocka_unit_test(wrong_words_are_named),
    cmocka_unit_test(prices_make_costs),
    cmocka_unit_test(says_it_three_ways),
};

UNIT_MAIN(tests)
