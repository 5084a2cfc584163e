/* HTTP responses and events in them: the same whatever pieces they come in, and what is refused. */
#include "cli/load_answer.h"
#include "cli/load_response.h"
#include "tests/unit/unit.h"

/* What a text comes to: the body, joined, or the error. */
struct outcome {
    struct load_response r;
    enum status st;
    struct error err;
    char body[4096];
    size_t used;
};

static void feed(struct outcome *o, const char *text, size_t len, size_t piece)
{
    *o = (struct outcome){.st = OK};
    load_response_init(&o->r);
    size_t filled = 0;
    for (size_t at = 0; at < len && o->st == OK && !o->r.done;) {
        size_t n = piece < len - at ? piece : len - at;
        for (size_t from = 0, used; from < n && o->st == OK && !o->r.done; from += used) {
            const char *body;
            size_t body_len;
            o->st = load_response_feed(&o->r, text + at + from, n - from, &used, &body, &body_len,
                                       &o->err);
            if (o->st != OK)
                break;
            assert_true(used > 0 && filled + body_len < sizeof o->body);
            memcpy(o->body + filled, body, body_len);
            filled += body_len;
            o->used = at + from + used;
        }
        at += n;
    }
    load_response_fini(&o->r);
}

static void reads_responses_in_any_pieces(void **state)
{
    (void)state;
    static const struct {
        const char *text, *body;
        int status;
        bool keep, done;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", 200, true, true},
        {"HTTP/1.1 200 OK\nContent-Length:5 \n\nhello", "hello", 200, true, true},
        {"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", "", 404, true, true},
        {"HTTP/1.1 204 None\r\n\r\n", "", 204, true, true},
        {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi", 200, false, true},
        {"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nhi", "hi", 200,
         true, true},
        {"HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\nContent-Length: 2\r\n\r\nhi", "hi", 200, false,
         true},
        {"HTTP/1.1 200 OK\r\n\r\nto the end", "to the end", 200, false, false},
        {"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ny", "y",
         200, true, true},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\n00B\r\n, you "
         "there\r\n0\r"
         "\nTrailer: z\r\n\r\n",
         "hello, you there", 200, true, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t piece = 1; piece < 200; piece += piece < 12 ? 1 : 60) {
            struct outcome o;
            feed(&o, cases[i].text, strlen(cases[i].text), piece);
            if (o.st != OK)
                fail_msg("case %zu: %s", i, o.err.msg);
            assert_string_equal(o.body, cases[i].body);
            assert_int_equal(o.r.status, cases[i].status);
            assert_int_equal(o.r.keep_alive, cases[i].keep);
            assert_int_equal(o.r.done, cases[i].done);
        }
}

static void refuses_what_is_no_response(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "HTTP/2 200 OK\r\n",
        "HTTP/1.1 20 OK\r\n",
        "HTTP/1.1 099 No\r\n",
        "HTTP/1.12200 OK\r\n",
        "\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n",
        "HTTP/1.1 200 OK\r\n: nameless\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 999999999999999999999\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5x\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (size_t piece = 1; piece < 200; piece += 99) {
            struct outcome o;
            feed(&o, bad[i], strlen(bad[i]), piece);
            if (o.st != ERR_INVALID && o.st != ERR_UNSUPPORTED)
                fail_msg("took \"%s\"", bad[i]);
        }
}

static void header_lines_have_limits(void **state)
{
    (void)state;
    size_t size = 200000;
    char *text = malloc(size + 1);
    assert_non_null(text);
    struct outcome o;
    memset(text, 'a', size);
    memcpy(text, "HTTP/1.1 200 OK\r\n", 17);
    feed(&o, text, size, 1000);
    assert_int_equal(o.st, ERR_LIMIT);
    assert_true(o.used < 17 + LOAD_MAX_LINE_BYTES + 1000);
    for (size_t at = 17; at + 100 < size; at += 100) /* lines of 100 bytes without end */
        memcpy(text + at + 90, "x: y\r\nb: d", 10);
    feed(&o, text, size, 1000);
    assert_int_equal(o.st, ERR_LIMIT);
    assert_true(o.used < LOAD_MAX_HEAD_BYTES + 1000);
    free(text);
}

static void an_end_too_early_is_told(void **state)
{
    (void)state;
    struct load_response r;
    struct error err;
    const char *body;
    size_t used, len;
    static const char half[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell";
    static const char open_end[] = "HTTP/1.1 200 OK\r\n\r\n";
    load_response_init(&r);
    assert_int_equal(load_response_end(&r, &err), ERR_IO);
    assert_string_equal(err.msg, "the connection ended before an answer");
    assert_int_equal(load_response_feed(&r, half, sizeof half - 1, &used, &body, &len, &err), OK);
    assert_int_equal(load_response_end(&r, &err), ERR_IO);
    assert_string_equal(err.msg, "the connection ended in the middle of the answer");
    load_response_reset(&r);
    assert_int_equal(
        load_response_feed(&r, open_end, sizeof open_end - 1, &used, &body, &len, &err), OK);
    assert_int_equal(load_response_end(&r, &err), OK);
    assert_true(r.done);
    load_response_fini(&r);
}

static void reads_when_to_come_again(void **state)
{
    (void)state;
    struct outcome o;
    static const char said[] = "HTTP/1.1 429 No\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n";
    static const char date[] = "HTTP/1.1 429 No\r\nRetry-After: Fri, 1 Jan 2027 00:00:00 GMT\r\n"
                               "Content-Length: 0\r\n\r\n";
    feed(&o, said, sizeof said - 1, 5);
    assert_true(o.r.retry_after_s == 7);
    feed(&o, date, sizeof date - 1, 5);
    assert_true(o.r.retry_after_s == -1);
}

/* --- events ------------------------------------------------------------------------------------
 */

/* Events joined by '|'. */
static enum status join(void *user, const char *data, size_t len, struct error *err)
{
    (void)err;
    assert_int_equal(strlen(data), len);
    strcat(strcat(user, data), "|");
    return strcmp(data, "stop") == 0 ? ERR_CANCELLED : OK;
}

static void reads_events_in_any_pieces(void **state)
{
    (void)state;
    static const char text[] = "\xef\xbb\xbf"
                               "data: one\n\n"
                               ": a comment\r\ndata:two\r\ndata:  lines\r\nid: 5\r\n\r\n"
                               "data: three\r\revent: x\n\n"
                               "data\n\n"
                               "datax: no\nretry: 5\n\n\n\n"
                               "data: last\n\ndata: without an end\n";
    for (size_t piece = 1; piece < sizeof text + 1; piece++) {
        struct load_sse s;
        struct error err;
        char out[256] = "";
        load_sse_init(&s);
        for (size_t at = 0; at < sizeof text - 1; at += piece) {
            size_t n = piece < sizeof text - 1 - at ? piece : sizeof text - 1 - at;
            assert_int_equal(load_sse_feed(&s, text + at, n, join, out, &err), OK);
        }
        assert_string_equal(out, "one|two\n lines|three||last|");
        load_sse_fini(&s);
    }
}

static void events_end_when_told_and_have_limits(void **state)
{
    (void)state;
    struct load_sse s;
    struct error err;
    char out[64] = "", lines[1000];
    load_sse_init(&s);
    assert_int_equal(load_sse_feed(&s, "data: stop\n\ndata: go\n\n", 22, join, out, &err),
                     ERR_CANCELLED);
    assert_string_equal(out, "stop|");
    load_sse_reset(&s);
    memset(lines, 'x', sizeof lines);
    memcpy(lines, "data: ", 6);
    lines[999] = '\n';
    enum status st = OK;
    size_t fed = 0;
    for (; st == OK && fed < 3 * LOAD_MAX_EVENT_BYTES; fed += 1000)
        st = load_sse_feed(&s, lines, 1000, join, out, &err);
    assert_int_equal(st, ERR_LIMIT);
    assert_true(fed < LOAD_MAX_EVENT_BYTES + LOAD_MAX_EVENT_BYTES / 50);
    load_sse_fini(&s);
}

/* --- answers -----------------------------------------------------------------------------------
 */

static void tells_tokens_from_what_only_begins_and_ends(void **state)
{
    (void)state;
    static const struct {
        const char *event;
        int tokens;
    } cases[] = {
        {"{\"choices\":[{\"text\":\"x\"}]}", 1},
        {"{\"choices\":[{\"text\":\"\\u0000\"}]}", 1},
        {"{\"choices\":[{\"text\":\"\"}]}", 0},
        {"{\"choices\":[{\"text\":\"\"},{\"text\":\"y\"}]}", 1},
        {"{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}", 0},
        {"{\"choices\":[{\"delta\":{\"content\":null,\"reasoning_content\":\"z\"}}]}", 1},
        {"{\"choices\":[{\"delta\":{\"reasoning\":\"z\"}}]}", 1},
        {"{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0}]}}]}", 1},
        {"{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}", 0},
        {"{\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}", 0},
        {"{\"error\":null,\"choices\":[{\"text\":\"x\"}]}", 1},
        {"{}", 0},
        {"[DONE]", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct load_answer a = {0};
        struct error err;
        bool tokens;
        enum status st = load_answer_event(&a, cases[i].event, strlen(cases[i].event), &tokens,
                                           &err);
        if (st != OK || tokens != cases[i].tokens)
            fail_msg("%s: %s, tokens %d", cases[i].event, st == OK ? "taken" : err.msg, tokens);
        assert_int_equal(a.finished, strstr(cases[i].event, "stop") != NULL);
        assert_int_equal(a.done, *cases[i].event == '[');
        assert_int_equal(a.usage, strstr(cases[i].event, "usage") != NULL);
        assert_string_equal(a.failed, "");
    }
}

static void refuses_events_that_are_none(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "x",
        "[]",
        "5",
        "{\"choices\":",
        "{\"usage\":{}}",
        "{\"usage\":{\"prompt_tokens\":-1}}",
        "{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":4294967296}}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct load_answer a = {0};
        struct error err;
        bool tokens;
        if (load_answer_event(&a, bad[i], strlen(bad[i]), &tokens, &err) != ERR_INVALID)
            fail_msg("took %s", bad[i]);
        assert_false(a.usage);
    }
}

static void finds_the_words_of_errors(void **state)
{
    (void)state;
    static const struct {
        const char *body, *words;
    } cases[] = {
        {"{\"error\":{\"message\":\"one\\ntwo\",\"type\":\"t\"}}", "one?two"},
        {"{\"error\":\"plain\"}", "plain"},
        {"{\"object\":\"error\",\"message\":\"older\"}", "older"},
        {"<html>no</html>", "<html>no</html>"},
        {"{\"detail\":[]}", "{\"detail\":[]}"},
        {"", "without a word"},
    };
    char out[64];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        load_answer_error(cases[i].body, strlen(cases[i].body), out, sizeof out);
        assert_string_equal(out, cases[i].words);
    }
    char small[8];
    load_answer_error(cases[0].body, strlen(cases[0].body), small, sizeof small);
    assert_string_equal(small, "one?two");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(reads_responses_in_any_pieces),
    cmocka_unit_test(refuses_what_is_no_response),
    cmocka_unit_test(header_lines_have_limits),
    cmocka_unit_test(an_end_too_early_is_told),
    cmocka_unit_test(reads_when_to_come_again),
    cmocka_unit_test(reads_events_in_any_pieces),
    cmocka_unit_test(events_end_when_told_and_have_limits),
    cmocka_unit_test(tells_tokens_from_what_only_begins_and_ends),
    cmocka_unit_test(refuses_events_that_are_none),
    cmocka_unit_test(finds_the_words_of_errors),
};

UNIT_MAIN(tests)
