/* The headers Idempotency-Key and Last-Event-ID over real sockets: what they give, what is refused,
 * which of two requests with one key goes on. That resumed tokens are the same ones is shown with a
 * model, in tests/clients. */
#include "tests/unit/unit.h"
#include "tests/unit/coordinator/http_fixture.h"
#include "tests/unit/coordinator/json_at.h"

#define COMPLETIONS "/v1/completions"
#define KEY "Idempotency-Key: k1\r\n"
#define WORDS "{\"prompt\":\"x\",\"stream\":true,\"max_tokens\":4,\"seed\":100}"
#define QUIET(n) "{\"prompt\":\"x\",\"stream\":" n ",\"seed\":200}"

/* The id of the event that holds `text`, in place; "" when it has none. */
static const char *id_of(const char *events, const char *text)
{
    static char id[512];
    const char *data = strstr(events, text);
    assert_non_null(data);
    while (data > events && data[-1] != '\n')
        data--;
    const char *line = data;
    if (line > events)
        for (line--; line > events && line[-1] != '\n';)
            line--;
    id[0] = '\0';
    if (strncmp(line, "id: ", 4) == 0)
        snprintf(id, sizeof id, "%.*s", (int)strcspn(line + 4, "\n"), line + 4);
    return id;
}

/* Headers with a key and a position. */
static const char *from(const char *id)
{
    static char headers[700];
    snprintf(headers, sizeof headers, KEY "Last-Event-ID: %s\r\n", id);
    return headers;
}

static void events_have_ids_with_a_key_alone(void **state)
{
    (void)state;
    begin();
    assert_int_equal(call("POST", COMPLETIONS, "", WORDS)->code, 200);
    assert_int_equal(count_of(answer.body.data, "id: "), 0);
    assert_int_equal(call("POST", COMPLETIONS, KEY, WORDS)->code, 200);
    assert_int_equal(count_of(answer.body.data, "id: "), 5); /* four words, the reason */
    assert_non_null(strstr(id_of(answer.body.data, "\"w1 \""), "/cpu-1/"));
    assert_non_null(strstr(id_of(answer.body.data, "\"w1 \""), "/2-"));
    assert_non_null(strstr(id_of(answer.body.data, "\"length\""), "-end"));
    assert_string_equal(id_of(answer.body.data, "[DONE]"), "");
    finish();
}

/* Each position of a stream gives what follows it, and the same id and time. */
static void a_stream_goes_on_behind_each_event(void **state)
{
    (void)state;
    static const char *const events[] = {"\"w0 \"", "\"w1 \"",    "\"w2 \"",
                                         "\"w3 \"", "\"length\"", "\"total_tokens\""};
    static const char body[] = "{\"prompt\":\"x\",\"stream\":true,\"max_tokens\":4,\"seed\":100,"
                               "\"stream_options\":{\"include_usage\":true}}";
    begin();
    call("POST", COMPLETIONS, KEY, body);
    char *whole = strdup(answer.body.data);
    for (size_t i = 0; i < COUNT_OF(events); i++) {
        const char *rest = strstr(strstr(whole, events[i]), "\n\n") + 2;
        assert_int_equal(call("POST", COMPLETIONS, from(id_of(whole, events[i])), body)->code, 200);
        assert_string_equal(answer.body.data, rest);
    }
    free(whole);
    finish();
}

static void choices_go_on_each_by_itself(void **state)
{
    (void)state;
    static const char body[] = "{" MESSAGES
                               ",\"stream\":true,\"max_tokens\":3,\"seed\":100,\"n\":2,"
                               "\"chat_template_kwargs\":{\"enable_thinking\":false}}";
    begin();
    call("POST", CHAT, KEY, body);
    assert_int_equal(count_of(answer.body.data, "\"role\":\"assistant\""), 2);
    char id[512], *cut = strstr(answer.body.data, "\"w1 \"");
    snprintf(id, sizeof id, "%s", id_of(cut, "\"w2 \""));
    call("POST", CHAT, from(id), body);
    assert_int_equal(count_of(answer.body.data, "\"role\":\"assistant\""), 0);
    assert_int_equal(count_of(answer.body.data, "\"w0 \""), 0);
    assert_true(count_of(answer.body.data, "\"w2 \"") == 1);
    assert_int_equal(count_of(answer.body.data, "\"length\""), 2);
    /* One that was begun, and one that was not. */
    char *comma = strchr(strrchr(id, '/'), ',');
    comma[1] = '\0';
    call("POST", CHAT, from(id), body);
    assert_int_equal(count_of(answer.body.data, "\"role\":\"assistant\""), 1);
    assert_int_equal(count_of(answer.body.data, "\"w0 \""), 1);
    finish();
}

/* No seed was given: the key gives one, which is the body's too. */
static void a_key_gives_the_seed_and_the_id(void **state)
{
    (void)state;
    static const char body[] = "{\"prompt\":\"x\",\"max_tokens\":1%s}";
    char seeds[3][64], ids[3][64], words[64];
    begin();
    for (int i = 0; i < 3; i++) {
        snprintf(words, sizeof words, body, i == 2 ? ",\"n\":1" : "");
        assert_int_equal(call("POST", COMPLETIONS, KEY, words)->code, 200);
        snprintf(seeds[i], sizeof seeds[i], "%s", header(&answer, "x-witan-seed"));
        json_t *root = body_of(&answer);
        snprintf(ids[i], sizeof ids[i], "%s", json_string_value(at(root, "id")));
        json_decref(root);
    }
    assert_string_equal(seeds[0], seeds[1]);
    assert_string_equal(ids[0], ids[1]);
    assert_string_not_equal(seeds[0], seeds[2]);
    assert_string_not_equal(ids[0], ids[2]);
    finish();
}

/* The message begins with the header's name. */
static void assert_header_refused(const struct answer *a, int code, const char *header)
{
    char words[64];
    assert_refused(a, code, NULL, code == 409 ? "conflict" : NULL);
    snprintf(words, sizeof words, "\"message\":\"%s: ", header);
    assert_non_null(strstr(a->body.data, words));
}

static void bad_headers_are_refused(void **state)
{
    (void)state;
    char id[512], too_long[400], headers[700];
    begin();
    call("POST", COMPLETIONS, KEY, WORDS);
    snprintf(id, sizeof id, "%s", id_of(answer.body.data, "\"w1 \""));
    snprintf(too_long, sizeof too_long, "Idempotency-Key: %0256d\r\n", 0);
    const char *const key = "Idempotency-Key", *const last = "Last-Event-ID";
    assert_header_refused(call("POST", COMPLETIONS, too_long, WORDS), 400, key);
    assert_header_refused(call("POST", COMPLETIONS, "Idempotency-Key: a b\r\n", WORDS), 400, key);
    assert_header_refused(call("POST", COMPLETIONS, "Idempotency-Key: \xc3\xa9\r\n", WORDS), 400,
                          key);
    assert_header_refused(call("POST", COMPLETIONS, "Idempotency-Key:\r\n", WORDS), 400, key);
    assert_header_refused(call("POST", COMPLETIONS, KEY "idempotency-key: k2\r\n", WORDS), 400,
                          key);
    assert_header_refused(call("POST", COMPLETIONS, "Last-Event-ID: 7\r\n", WORDS), 400, last);
    assert_header_refused(call("POST", COMPLETIONS, from("7"), WORDS), 400, last);
    assert_header_refused(call("POST", COMPLETIONS, from(""), WORDS), 400, last);
    assert_header_refused(
        call("POST", COMPLETIONS, from(id), "{\"prompt\":\"x\",\"max_tokens\":4,\"seed\":100}"),
        400, last);
    /* Of another body, key or path. */
    assert_refused(call("POST", COMPLETIONS, from(id), WORDS " "), 409, NULL, "conflict");
    assert_string_equal(header(&answer, "x-should-retry"), "false");
    snprintf(headers, sizeof headers, "Idempotency-Key: k2\r\nLast-Event-ID: %s\r\n", id);
    assert_refused(call("POST", COMPLETIONS, headers, WORDS), 409, NULL, "conflict");
    assert_int_equal(call("POST", COMPLETIONS, from(id), WORDS)->code, 200);
    assert_null(core.claims);
    finish();
}

static void wait_active(int wanted)
{
    for (int i = 0; i < 5000 && active(false) != wanted; i++)
        usleep(2000);
    assert_int_equal(active(false), wanted);
}

/* A half-dead connection is given up for the retry; what asks for something else waits its turn. */
static void a_retry_takes_over(void **state)
{
    (void)state;
    begin();
    for (int i = 0; i < 2; i++) {
        const char *body = i == 0 ? QUIET("true") : QUIET("false");
        struct reader older = {.fd = dial()}, newer = {.fd = dial()};
        struct answer told = {0};
        put_request(older.fd, "POST", COMPLETIONS, KEY, body);
        wait_for(&fake_running, 1);
        assert_header_refused(call("POST", COMPLETIONS, KEY, WORDS), 409, "Idempotency-Key");
        assert_string_equal(header(&answer, "x-should-retry"), "false");
        assert_int_equal(call("POST", COMPLETIONS, "Idempotency-Key: k2\r\n", WORDS)->code, 200);
        put_request(newer.fd, "POST", COMPLETIONS, KEY, body);
        assert_true(read_answer(&older, &told, true) && told.whole);
        assert_int_equal(told.code, i == 0 ? 200 : 409);
        assert_non_null(strstr(told.body.data, "taken over by a retry with the same idempotency "
                                               "key"));
        assert_int_equal(fake_running, 1);
        close(older.fd);
        close(newer.fd);
        wait_for(&fake_running, 0);
        wait_active(0);
        buf_fini(&told.body);
    }
    /* Its end frees the key. */
    assert_int_equal(call("POST", COMPLETIONS, KEY, WORDS)->code, 200);
    assert_null(core.claims);
    finish();
}

/* Where there is room for nobody, the half-dead one's own place is enough; a stranger's is not. */
static void a_take_over_needs_no_room(void **state)
{
    (void)state;
    static const char body[] = "{\"prompt\":\"x\",\"stream\":true,\"seed\":200,\"n\":3}";
    begin();
    struct reader older = {.fd = dial()};
    struct answer told = {0};
    put_request(older.fd, "POST", COMPLETIONS, KEY, body);
    wait_for(&fake_running, 3);
    fake_full = true;
    assert_refused(call("POST", COMPLETIONS, "Idempotency-Key: k2\r\n", body), 429, NULL,
                   "too_many_requests");
    assert_refused(call("POST", COMPLETIONS, KEY, WORDS), 429, NULL, "too_many_requests");
    assert_refused(call("POST", COMPLETIONS, KEY "Idempotency-Key: k1\r\n", body), 429, NULL,
                   "too_many_requests");
    assert_int_equal(fake_cancelled, 0);
    struct reader newer = {.fd = dial()};
    put_request(newer.fd, "POST", COMPLETIONS, KEY, body);
    assert_true(read_answer(&older, &told, true) && told.whole);
    assert_non_null(strstr(told.body.data, "taken over by a retry"));
    wait_for(&fake_running, 3);
    assert_true(fake_params.accepted && !fake_params.replaces); /* the first alone */
    fake_full = false;
    close(older.fd);
    close(newer.fd);
    wait_for(&fake_running, 0);
    wait_active(0);
    buf_fini(&told.body);
    assert_null(core.claims);
    finish();
}

/* One whose start fails leaves nothing behind. */
static void a_refused_request_claims_nothing(void **state)
{
    (void)state;
    begin();
    assert_refused(call("POST", COMPLETIONS, KEY, "{\"prompt\":\"x\",\"seed\":500}"), 503, NULL,
                   "not_ready");
    assert_refused(call("POST", COMPLETIONS, KEY, "{\"prompt\":\"x\",\"seed\":600}"), 429, NULL,
                   "too_many_requests");
    assert_int_equal(call("POST", COMPLETIONS, KEY, "{\"prompt\":[1],\"max_tokens\":1}")->code,
                     200);
    assert_null(core.claims);
    finish();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(events_have_ids_with_a_key_alone),
    cmocka_unit_test(a_stream_goes_on_behind_each_event),
    cmocka_unit_test(choices_go_on_each_by_itself),
    cmocka_unit_test(a_key_gives_the_seed_and_the_id),
    cmocka_unit_test(bad_headers_are_refused),
    cmocka_unit_test(a_retry_takes_over),
    cmocka_unit_test(a_take_over_needs_no_room),
    cmocka_unit_test(a_refused_request_claims_nothing),
};

UNIT_MAIN(tests)
