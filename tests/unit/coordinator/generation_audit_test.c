/* Requests and the audit log: what is recorded, and that nothing is told before it is. */
#include "tests/unit/coordinator/generations.h"

#include "tests/unit/coordinator/audit_folder.h"

/* More lines of a cluster.yaml. */
static const char *yaml_of(const struct audit_folder *f, const char *more)
{
    static char yaml[1024];
    snprintf(yaml, sizeof yaml,
             "audit: {file: %s, key: %s, heads: %s, hmac_key: %s, head_s: 3600%s}\n", f->log,
             f->key, f->heads, f->hmac, more);
    return yaml;
}

static const char *text_at(const json_t *fields, const char *key)
{
    const char *s = json_string_value(json_object_get(fields, key));
    return s ? s : "";
}

static int64_t number_at(const json_t *fields, const char *key)
{
    const json_t *v = json_object_get(fields, key);
    assert_true(json_is_integer(v));
    return json_integer_value(v);
}

static void say(struct fake_rank *r, const told *m, int32_t position, int32_t id, bool last)
{
    fake_say_tokens(
        r, m->submit->request_id, m->submit->attempt, m->submit->epoch, position, &id, 1,
        last ? WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH : WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
}

/* Not a cancel, nor a probe. */
static const told *next_submit(struct fake_rank *r)
{
    const told *m;
    do {
        m = fake_next(r);
    } while (m->body_case != WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT ||
             m->submit->request_id == 0);
    return m;
}

static void wait_recorded(const struct audit_folder *f, const char *kind, int count)
{
    for (int i = 0; i < 3000 && kinds(f, kind, NULL) < count; i++)
        usleep(10000);
    assert_int_equal(kinds(f, kind, NULL), count);
}

static void a_request_is_recorded(void **state)
{
    (void)state;
    struct audit_folder f = audit_folder_make();
    struct audit_summary sum;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 2};
    struct audit_hmac_key key;
    struct error err;
    char hex[65];
    const int32_t ids[] = {'H' - 33, 'i' - 33};
    const told *m = begin(&c, &r, &a, yaml_of(&f, ""));
    say(&r, m, 0, ids[0], false);
    say(&r, m, 1, ids[1], true);
    wait_end(&a);
    assert_string_equal(a.text, "Hi");
    end(&c, &r);
    is_sound(&f, &sum);
    json_t *start = NULL, *ended = NULL, *rank = NULL;
    assert_int_equal(kinds(&f, "request_start", &start), 1);
    assert_int_equal(kinds(&f, "request_end", &ended), 1);
    done(audit_hmac_key_read(f.hmac, &key, &err), &err);
    done(audit_hmac(&key, "prompt", a.prompt, 3, hex, &err), &err);
    assert_string_equal(text_at(start, "hmac_prompt"), hex);
    done(audit_hmac(&key, "output", ids, 2, hex, &err), &err);
    assert_string_equal(text_at(ended, "hmac_output"), hex);
    assert_string_equal(text_at(start, "id"), text_at(ended, "id"));
    assert_string_equal(text_at(start, "group"), "g0");
    assert_string_equal(text_at(start, "layout"), "pp=1 tp=1 ep=1 w=1");
    assert_string_equal(text_at(start, "class"), NUMERICS_CLASS_CPU);
    assert_string_equal(text_at(start, "model"), "lexicon");
    assert_string_equal(text_at(start, "seed"), "0");
    assert_int_equal(number_at(start, "prompt_tokens"), 3);
    assert_int_equal(number_at(start, "max_tokens"), 2);
    assert_string_equal(text_at(ended, "outcome"), "length");
    assert_int_equal(number_at(ended, "completion_tokens"), 2);
    assert_int_equal(number_at(ended, "failovers"), 0);
    assert_true(json_is_null(json_object_get(ended, "joules")));
    assert_int_equal(kinds(&f, "start", NULL), 1);
    assert_int_equal(kinds(&f, "rank_joined", &rank), 1);
    assert_string_equal(text_at(rank, "host"), "test");
    assert_int_equal(kinds(&f, "weights", NULL), 1);
    assert_int_equal(kinds(&f, "rank_left", NULL), 1);
    assert_int_equal(kinds(&f, "stop", NULL), 1);
    json_decref(start);
    json_decref(ended);
    json_decref(rank);
    audit_folder_remove(&f);
}

static void a_request_that_is_cancelled_or_fails(void **state)
{
    (void)state;
    struct audit_folder f = audit_folder_make();
    struct audit_summary sum;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 5};
    json_t *fields = NULL;
    begin(&c, &r, &a, yaml_of(&f, ""));
    on_loop(&c, cancel, &a);
    struct answer b;
    start_as(&c, &b, 7);
    assert_int_equal(b.started, OK);
    fake_release(&r);
    wait_end(&b);
    cluster_wait_ready(&c, false);
    start_as(&c, &a, 7); /* refused: nothing was begun */
    assert_int_equal(a.started, ERR_PEER);
    cluster_stop(&c);
    is_sound(&f, &sum);
    assert_int_equal(kinds(&f, "request_start", &fields), 2);
    assert_string_equal(text_at(fields, "tenant"), "0000000000000007");
    assert_int_equal(kinds(&f, "request_end", &fields), 2);
    assert_string_equal(text_at(fields, "outcome"), "error");
    assert_int_equal(number_at(fields, "failovers"), 1);
    json_decref(fields);
    audit_folder_remove(&f);
}

/* Its start cannot be written: its tokens, though they are there, are told to nobody. */
static void nothing_is_told_before_it_is_recorded(void **state)
{
    (void)state;
    struct audit_folder f = audit_folder_make();
    struct audit_summary sum;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 2}, b;
    const told *m = begin(&c, &r, &a, yaml_of(&f, ""));
    say(&r, m, 0, 5, false);
    say(&r, m, 1, 6, true);
    wait_end(&a);
    assert_int_equal(a.end.reason, GENERATION_LENGTH);
    wait_recorded(&f, "request_end", 1);
    audit_bound_files((uint64_t)file_size(f.log) + 10);
    start_as(&c, &b, 0);
    assert_int_equal(b.started, OK); /* nobody knows yet */
    m = next_submit(&r);
    say(&r, m, 0, 5, false);
    say(&r, m, 1, 6, true);
    wait_end(&b);
    assert_int_equal(b.end.err.code, ERR_IO);
    assert_non_null(strstr(b.end.err.msg, "audit.on_error: refuse"));
    assert_int_equal(b.ids, 0);
    assert_string_equal(b.text, "");
    start_as(&c, &b, 0);
    assert_int_equal(b.started, ERR_IO);
    /* Room again: what waited is recorded, and requests are taken. */
    audit_bound_files(0);
    for (int i = 0; i < 3000; i++) {
        start_as(&c, &b, 0);
        if (b.started == OK)
            break;
        usleep(10000);
    }
    assert_int_equal(b.started, OK);
    m = next_submit(&r);
    say(&r, m, 0, 5, true);
    wait_end(&b);
    assert_int_equal(b.ids, 1);
    assert_int_equal(b.end.reason, GENERATION_LENGTH);
    end(&c, &r);
    is_sound(&f, &sum);
    assert_int_equal(kinds(&f, "request_start", NULL), kinds(&f, "request_end", NULL));
    audit_folder_remove(&f);
}

static void with_continue_requests_go_on(void **state)
{
    (void)state;
    struct audit_folder f = audit_folder_make();
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 2}, b;
    const told *m = begin(&c, &r, &a, yaml_of(&f, ", on_error: continue"));
    wait_recorded(&f, "request_start", 1);
    audit_bound_files((uint64_t)file_size(f.log) + 10);
    on_loop(&c, cancel, &a);
    start_as(&c, &b, 0);
    assert_int_equal(b.started, OK);
    m = next_submit(&r);
    say(&r, m, 0, 5, true);
    wait_end(&b);
    assert_int_equal(b.end.reason, GENERATION_LENGTH);
    audit_bound_files(0);
    end(&c, &r);
    struct audit_summary sum;
    is_sound(&f, &sum);
    audit_folder_remove(&f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_request_is_recorded),
    cmocka_unit_test(a_request_that_is_cancelled_or_fails),
    cmocka_unit_test(nothing_is_told_before_it_is_recorded),
    cmocka_unit_test(with_continue_requests_go_on),
};

UNIT_MAIN(tests)
