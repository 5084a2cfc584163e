/*
 * The HTTP door against clients that send too much, too slowly or nonsense, that leave, or that do
 * not read. What evhttp leaves to its users has a case each.
 */
#include "tests/unit/unit.h"
#include "tests/unit/coordinator/http_fixture.h"

/* --- requests that are too large or unclear ----------------------------------------------------
 */

static void large_bodies_are_refused(void **state)
{
    (void)state;
    begin();
    size_t len = 4 << 20;
    char *body = malloc(len), head[128];
    memset(body, ' ', len);
    /* All of it is sent before the answer is read. */
    struct reader r = {.fd = dial()};
    snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nContent-Length: %zu\r\n\r\n", CHAT, len);
    put(r.fd, head);
    assert_true(put_bytes(r.fd, body, len));
    assert_true(read_answer(&r, &answer, true));
    assert_refused(&answer, 413, NULL, "request_too_large");
    assert_string_equal(header(&answer, "content-type"), "application/json");
    assert_non_null(strstr(answer.body.data, "the body is over 256 KiB"));
    assert_true(is_closed(r.fd));
    close(r.fd);
    /* The same as one chunk. */
    r = (struct reader){.fd = dial()};
    put(r.fd, "POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n400000\r\n");
    assert_true(read_answer(&r, &answer, true));
    assert_refused(&answer, 413, NULL, "request_too_large");
    close(r.fd);
    /* A body of the largest size is taken. */
    snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nContent-Length: %d\r\n\r\n", CHAT, 256 << 10);
    r = (struct reader){.fd = dial()};
    put(r.fd, head);
    memcpy(body, TALK(2), sizeof TALK(2) - 1);
    assert_true(put_bytes(r.fd, body, 256 << 10));
    assert_true(read_answer(&r, &answer, true));
    assert_int_equal(answer.code, 200);
    close(r.fd);
    free(body);
    finish();
}

/* evhttp keeps what could be a chunk's length for as long as no line ends. */
static void endless_chunk_lines_are_cut(void **state)
{
    (void)state;
    begin();
    char junk[16384];
    memset(junk, '0', sizeof junk);
    int fd = dial();
    put(fd, "POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    size_t sent = 0;
    while (sent < 64 << 20 && put_bytes(fd, junk, sizeof junk))
        sent += sizeof junk;
    assert_true(sent < 32 << 20);
    close(fd);
    assert_int_equal(call("GET", "/health/live", "", "")->code, 200);
    finish();
}

static void large_headers_are_refused(void **state)
{
    (void)state;
    begin();
    struct reader r = {.fd = dial()};
    char line[1100];
    memset(line, 'a', sizeof line);
    memcpy(line, "x: ", 3);
    memcpy(line + sizeof line - 3, "\r\n", 3);
    put(r.fd, "GET / HTTP/1.1\r\n");
    for (int i = 0; i < 100 && put_bytes(r.fd, line, strlen(line)); i++)
        ;
    if (read_answer(&r, &answer, true))
        assert_int_equal(answer.code, 400);
    close(r.fd);
    assert_int_equal(call("GET", "/health/live", "", "")->code, 200);
    finish();
}

static void doubtful_framing_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "POST /tokenize HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        "POST / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /tokenize HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST /tokenize HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST /tokenize HTTP/1.1\r\nContent-Length : 2\r\n\r\n{}",
        "POST /tokenize HTTP/1.1\r\nContent-Length: +2\r\n\r\n{}",
        "POST /tokenize HTTP/1.1\r\nContent-Length: -2\r\n\r\n{}",
        "HEAD / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        "TRACE / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        "GET / HTTP/0.9\r\n\r\n",
        "GET / HTTP/1.-1\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / FTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\n folded: x\r\n\r\n",
        "\x16\x03\x01\x02\x01\x01\xfc\x03\x03 hello of TLS\r\n\r\n",
        "POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST /tokenize HTTP/1.1\r\nExpect: the unexpected\r\nContent-Length: 2\r\n\r\n{}",
    };
    begin();
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct reader r = {.fd = dial()};
        put(r.fd, bad[i]);
        if (!read_answer(&r, &answer, strncmp(bad[i], "HEAD", 4) != 0))
            fail_msg("%s: no answer", bad[i]);
        if (answer.code < 400 || answer.code >= 500)
            fail_msg("%s: %d", bad[i], answer.code);
        if (strncmp(bad[i], "HEAD", 4) != 0)
            assert_refused(&answer, answer.code, NULL, NULL);
        assert_true(is_closed(r.fd));
        close(r.fd);
    }
    finish();
}

/* Found by schemathesis: QUERY's body was read as the next request on the connection. */
static void bodies_of_unknown_methods_are_no_requests(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "QUERY / HTTP/1.1\r\nContent-Length: 29\r\n\r\n",
        "BREW / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    };
    begin();
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct reader r = {.fd = dial()};
        put(r.fd, bad[i]);
        put(r.fd, "GET /health/live HTTP/1.1\r\n\r\n");
        assert_true(read_answer(&r, &answer, true));
        assert_int_equal(answer.code, 400);
        assert_non_null(strstr(answer.body.data, "bad_framing"));
        assert_true(is_closed(r.fd));
        close(r.fd);
    }
    finish();
}

/* --- clients that misbehave --------------------------------------------------------------------
 */

static void slow_requests_are_cut(void **state)
{
    (void)state;
    begin();
    int idle = dial(), half = dial(), drip = dial();
    int64_t began = clock_now_ns();
    put(half, "POST /tokenize HTTP/1.1\r\nContent-Length: 10\r\n\r\n{");
    put(drip, "GET / HTTP/1.1\r\n");
    /* A byte now and then does not make the time longer. */
    for (int i = 0; i < 12; i++) {
        usleep(250000);
        if (!put_bytes(drip, "x", 1))
            break;
    }
    assert_true(is_closed(idle) && is_closed(half) && is_closed(drip));
    assert_true(clock_now_ns() - began < 6000000000);
    close(idle);
    close(half);
    close(drip);
    finish();
}

static void requests_in_pieces_are_taken(void **state)
{
    (void)state;
    begin();
    struct reader r = {.fd = dial()};
    const char *request = "POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                          "7\r\n{\"promp\r\n8\r\nt\":\"cat\"\r\n1\r\n}\r\n0\r\n\r\n";
    for (const char *p = request; *p; p++) {
        assert_true(put_bytes(r.fd, p, 1));
        usleep(1000);
    }
    assert_true(read_answer(&r, &answer, true));
    assert_int_equal(answer.code, 200);
    close(r.fd);
    finish();
}

static void expecting_clients_are_told_to_go_on(void **state)
{
    (void)state;
    begin();
    struct reader r = {.fd = dial()};
    put(r.fd, "POST /tokenize HTTP/1.1\r\nContent-Length: 14\r\nExpect: 100-continue\r\n\r\n");
    assert_true(read_answer(&r, &answer, false));
    assert_int_equal(answer.code, 100);
    put(r.fd, "{\"prompt\":\"a\"}");
    assert_true(read_answer(&r, &answer, true));
    assert_int_equal(answer.code, 200);
    close(r.fd);
    finish();
}

/* Whole answers and streams, and requests sent ahead while others are answered: with evhttp's own
 * reading the first byte of the next request would end the process. */
static void pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    begin();
    struct reader r = {.fd = dial()};
    for (int i = 0; i < 20; i++) {
        put_request(r.fd, "POST", CHAT, "", i % 2 ? STREAM(100, 3) : TALK(3));
        if (i % 3 == 0)
            usleep(1000);
    }
    for (int i = 0; i < 20; i++) {
        assert_true(read_answer(&r, &answer, true));
        assert_true(answer.whole);
        assert_int_equal(answer.code, 200);
        assert_int_equal(count_of(answer.body.data, "data: [DONE]"), i % 2);
    }
    close(r.fd);
    finish();
}

/* What is sent during an answer is not kept without bound. */
static void sending_ahead_is_bounded(void **state)
{
    (void)state;
    begin();
    char junk[65536];
    memset(junk, 'x', sizeof junk);
    int fd = dial(), small = 1 << 16;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    put_request(fd, "POST", CHAT, "", STREAM(200, 1));
    wait_for(&fake_running, 1);
    struct timeval limit = {.tv_sec = 1};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    size_t sent = 0;
    while (sent < 256 << 20 && put_bytes(fd, junk, sizeof junk))
        sent += sizeof junk;
    assert_true(sent < 64 << 20);
    assert_int_equal(fake_running, 1);
    close(fd);
    finish();
}

static void leaving_cancels(void **state)
{
    (void)state;
    begin();
    static const char *const bodies[] = {STREAM(200, 1), "{" MESSAGES ",\"n\":3,\"seed\":200}",
                                         STREAM(100, 100000)};
    for (size_t i = 0; i < COUNT_OF(bodies); i++) {
        int fd = dial(), n = i == 1 ? 3 : 1;
        fake_cancelled = 0;
        put_request(fd, "POST", CHAT, "", bodies[i]);
        wait_for(&fake_running, n);
        assert_int_equal(active(false), 1);
        close(fd);
        wait_for(&fake_cancelled, n);
        wait_for(&fake_running, 0);
        assert_int_equal(active(false), 0);
    }
    finish();
}

/* The peer vanishes with a reset while bytes are on their way to it. */
static void resets_cancel(void **state)
{
    (void)state;
    begin();
    struct linger now = {.l_onoff = 1};
    for (int i = 0; i < 50; i++) {
        int fd = dial();
        put_request(fd, "POST", CHAT, "", STREAM(300, 100000));
        wait_for(&fake_running, 1);
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        close(fd);
        wait_for(&fake_running, 0);
    }
    finish();
}

/* A client of little room for what it does not read. */
static int dial_small(void)
{
    int fd = dial(), small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    return fd;
}

static void slow_readers_are_cut(void **state)
{
    (void)state;
    begin();
    int fd = dial_small();
    put_request(fd, "POST", CHAT, "", STREAM(300, 1000000));
    wait_for(&fake_cancelled, 1);
    assert_int_equal(active(false), 0);
    close(fd);
    finish();
}

/* Of so little that no buffer is ever full, none would notice: the client's closed window tells. */
static void who_reads_nothing_is_cut(void **state)
{
    (void)state;
    prepare();
    config.limits.read_timeout_s = 1;
    start();
    int fd = dial_small();
    put_request(fd, "POST", CHAT, "", STREAM(100, 100000));
    wait_for(&fake_running, 1);
    int64_t began = clock_now_ns();
    wait_for(&fake_cancelled, 1);
    assert_true(clock_now_ns() - began >= 1000000000);
    assert_int_equal(active(false), 0);
    assert_true(core.metrics.slow[METRICS_HTTP] == 1);
    close(fd);
    finish();
}

/* One that reads a little now and then stays. */
static void who_reads_slowly_is_not_cut(void **state)
{
    (void)state;
    char some[4096];
    int room = 32 << 10; /* with 4 KB the kernel opens its window again after seconds alone */
    prepare();
    config.limits.read_timeout_s = 1;
    start();
    int fd = dial();
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    put_request(fd, "POST", CHAT, "", STREAM(100, 100000));
    for (int i = 0; i < 30; i++) {
        usleep(100000);
        assert_true(recv(fd, some, sizeof some, 0) > 0);
    }
    assert_int_equal(fake_cancelled, 0);
    assert_int_equal(active(false), 1);
    close(fd);
    wait_for(&fake_cancelled, 1);
    assert_true(core.metrics.slow[METRICS_HTTP] == 0);
    finish();
}

/* A stream that says nothing for longer than any timeout goes on, and tells that it lives. */
static void quiet_streams_live(void **state)
{
    (void)state;
    begin();
    struct reader r = {.fd = dial()};
    char line[512] = "";
    put_request(r.fd, "POST", CHAT, "", STREAM(200, 1));
    int64_t began = clock_now_ns();
    while (strncmp(line, ": waiting", 9) != 0)
        assert_true(next_line(&r, line, sizeof line));
    assert_true(clock_now_ns() - began > (HTTP_COMMENT_S - 1) * 1000000000LL);
    assert_int_equal(fake_running, 1);
    close(r.fd);
    wait_for(&fake_cancelled, 1);
    finish();
}

static void lost_groups_are_told(void **state)
{
    (void)state;
    begin();
    assert_refused(call("POST", CHAT, "", "{" MESSAGES ",\"n\":2,\"seed\":400}"), 503, NULL, NULL);
    assert_int_equal(fake_cancelled, 1);
    assert_int_equal(call("POST", CHAT, "", STREAM(400, 9))->code, 200);
    assert_int_equal(count_of(answer.body.data, "data: {\"error\":"), 1);
    assert_int_equal(count_of(answer.body.data, "[DONE]"), 0);
    assert_int_equal(count_of(answer.body.data, "group g0 was lost"), 1);
    finish();
}

/* evhttp would promise a kept connection and a body of no bytes. */
static void http_1_0_streams_end_by_closing(void **state)
{
    (void)state;
    begin();
    struct reader r = {.fd = dial()};
    const char *body = STREAM(100, 3);
    char request[512];
    snprintf(request, sizeof request,
             "POST %s HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: %zu\r\n\r\n%s", CHAT,
             strlen(body), body);
    put(r.fd, request);
    assert_true(read_answer(&r, &answer, true));
    assert_null(header(&answer, "content-length"));
    assert_int_equal(count_of(answer.body.data, "data: [DONE]"), 1);
    assert_true(is_closed(r.fd));
    close(r.fd);
    finish();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(large_bodies_are_refused),
    cmocka_unit_test(endless_chunk_lines_are_cut),
    cmocka_unit_test(large_headers_are_refused),
    cmocka_unit_test(doubtful_framing_is_refused),
    cmocka_unit_test(bodies_of_unknown_methods_are_no_requests),
    cmocka_unit_test(slow_requests_are_cut),
    cmocka_unit_test(requests_in_pieces_are_taken),
    cmocka_unit_test(expecting_clients_are_told_to_go_on),
    cmocka_unit_test(pipelined_requests_are_answered_in_order),
    cmocka_unit_test(sending_ahead_is_bounded),
    cmocka_unit_test(leaving_cancels),
    cmocka_unit_test(resets_cancel),
    cmocka_unit_test(slow_readers_are_cut),
    cmocka_unit_test(who_reads_nothing_is_cut),
    cmocka_unit_test(who_reads_slowly_is_not_cut),
    cmocka_unit_test(quiet_streams_live),
    cmocka_unit_test(lost_groups_are_told),
    cmocka_unit_test(http_1_0_streams_end_by_closing),
};

UNIT_MAIN(tests)
