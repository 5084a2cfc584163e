/* Loads over HTTP against a server that follows a script: what the records say of each answer. */
#include "cli/load_drive.h"
#include "cli/load_http.h"
#include "tests/unit/cli/fake_server.h"
#include "tests/unit/unit.h"

#include <event2/thread.h>
#include <math.h>
#include <signal.h>

#define HEAD(status, type)                                                                         \
    "HTTP/1.1 " status "\r\nContent-Type: " type "\r\nTransfer-Encoding: chunked\r\n\r\n"
#define STREAM HEAD("200 OK", "text/event-stream; charset=utf-8")
#define TOKEN(text) "data: {\"choices\":[{\"index\":0,\"text\":\"" text "\"}]}\n\n"
#define FINISH "data: {\"choices\":[{\"index\":0,\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n"
#define USAGE(prompt, output, cached)                                                              \
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":" prompt ",\"completion_tokens\":" output  \
    ",\"prompt_tokens_details\":{\"cached_tokens\":" cached "}}}\n\n"
#define DONE "data: [DONE]\n\n"

/* One chunk of the transfer encoding, whose size the test need not count. */
static const char *chunk(const char *body)
{
    static char texts[16][2048];
    static int next;
    char *text = texts[next++ % 16];
    snprintf(text, sizeof texts[0], "%zx\r\n%s\r\n", strlen(body), body);
    return text;
}

static const char last[] = "0\r\n\r\n";

static const struct fake_step *whole_answer(void)
{
    static struct fake_step steps[] = {
        {FAKE_SEND, STREAM, 0}, {FAKE_SEND, NULL, 0}, {FAKE_SEND, last, 0}, {FAKE_END, NULL, 0}};
    static char text[1024];
    snprintf(text, sizeof text, "%s",
             chunk(TOKEN("a") TOKEN("b") TOKEN("c") FINISH USAGE("5", "4", "2") DONE));
    steps[1].text = text;
    return steps;
}

struct bench {
    struct fake_server server;
    struct event_base *base;
    struct load_http_options options;
    struct load_http *http;
    struct load_dataset *dataset;
    struct load_plan plan;
    struct load_run run;
    char url[64];
};

static void begin(struct bench *b, const struct fake_step *const *scripts, int count)
{
    struct error err;
    struct load_dataset_options d = {.kind = LOAD_RANDOM,
                                     .vocabulary = 100,
                                     .input = {.a = 3},
                                     .output = {.a = 4},
                                     .prefix_groups = 1};
    *b = (struct bench){0};
    fake_start(&b->server, scripts, count);
    snprintf(b->url, sizeof b->url, "http://127.0.0.1:%d/v1", b->server.port);
    assert_int_equal(evthread_use_pthreads(), 0);
    b->base = event_base_new();
    b->options = (struct load_http_options){.url = b->url,
                                            .most = 32,
                                            .model = "m",
                                            .ignore_eos = true,
                                            .usage = true,
                                            .timeout_ms = 60000};
    b->plan = (struct load_plan){.mode = LOAD_CLOSED,
                                 .concurrency = 1,
                                 .requests = count,
                                 .speed = 1,
                                 .max_in_flight = 16,
                                 .timeout_ns = 120000000000};
    assert_int_equal(load_http_create(b->base, &b->options, &b->http, &err), OK);
    assert_int_equal(load_dataset_open(&d, &b->dataset, &err), OK);
}

static enum status run(struct bench *b)
{
    struct error err;
    struct load_drive *d = load_drive_create(b->base, &b->plan, load_http_client(b->http),
                                             b->dataset);
    enum status st = load_drive_warm_up(d, &err);
    if (st == OK)
        st = load_drive_measure(d, &err);
    load_drive_take(d, &b->run);
    load_drive_destroy(d);
    return st;
}

static void end(struct bench *b)
{
    load_run_fini(&b->run);
    load_http_destroy(b->http);
    load_dataset_destroy(b->dataset);
    event_base_free(b->base);
    fake_stop(&b->server);
}

/* --- answers -----------------------------------------------------------------------------------
 */

static void records_what_the_server_says(void **state)
{
    (void)state;
    struct bench b;
    const struct fake_step *const scripts[] = {whole_answer()};
    begin(&b, scripts, 1);
    b.plan.requests = 3;
    b.plan.warm_up = 2;
    assert_int_equal(run(&b), OK);
    assert_int_equal(b.run.count, 5);
    for (size_t i = 0; i < 5; i++) {
        const struct load_record *r = &b.run.records[i];
        assert_string_equal(r->error, "");
        assert_int_equal(r->warm_up, i < 2);
        assert_int_equal(r->http_status, 200);
        assert_true(r->usage);
        assert_int_equal(r->prompt_tokens, 5);
        assert_int_equal(r->output_tokens, 4);
        assert_int_equal(r->cached_tokens, 2);
        assert_int_equal(r->chunks, 3); /* the finish has no token */
        assert_int_equal(r->intended_ns, r->sent_ns);
        assert_true(r->sent_ns <= b.server.seen[i].received_ns);
        assert_true(b.server.seen[i].received_ns <= r->first_ns);
        assert_true(r->first_ns == r->chunk_ns[0] && r->last_ns == r->chunk_ns[2]);
        assert_int_equal(b.server.seen[i].connection, 0); /* one after another on one */
    }
    assert_true(b.run.began_ns == b.run.records[2].intended_ns);
    const char *text = b.server.seen[0].text;
    assert_non_null(strstr(text, "POST /v1/completions HTTP/1.1\r\n"));
    assert_non_null(strstr(text, "\"max_tokens\":4,\"stream\":true,\"stream_options\":"
                                 "{\"include_usage\":true},\"ignore_eos\":true}"));
    end(&b);
}

/* Comments, CRLF, CR, an event over two lines, in pieces that cut everything. */
static void reads_any_way_of_writing_events(void **state)
{
    (void)state;
    struct bench b;
    static char pieces[2048][2];
    static struct fake_step steps[2048];
    char text[1024];
    snprintf(
        text, sizeof text,
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Fine\r\ncontent-type:TEXT/EVENT-STREAM\r\n"
        "Connection: close\r\n\r\n"
        ": hello\r\n\r\nevent: message\r\ndata: {\"choices\":[{\"delta\":\r\ndata:{\"content\":"
        "\"x\"}}]}\r\n\r\n: ping\n\ndata: {\"choices\":[{\"delta\":{\"reasoning_content\":"
        "\"y\"}}],\"usage\":null}\r\rid: 4\ndata: {\"choices\":[{\"delta\":{\"role\":"
        "\"assistant\",\"content\":\"\"}}]}\n\n" FINISH DONE);
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++) {
        pieces[i][0] = text[i];
        steps[i] = (struct fake_step){FAKE_SEND, pieces[i], 0};
    }
    steps[len] = (struct fake_step){FAKE_CLOSE, NULL, 0};
    const struct fake_step *const scripts[] = {steps};
    begin(&b, scripts, 1);
    b.plan.requests = 2;
    assert_int_equal(run(&b), OK);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(b.run.records[i].error, "");
        assert_int_equal(b.run.records[i].chunks, 2);
        assert_false(b.run.records[i].usage);
        assert_int_equal(b.run.records[i].output_tokens, 2); /* chunks, as nobody counted */
        assert_int_equal(b.run.records[i].prompt_tokens, 3); /* what was asked */
        assert_int_equal(b.server.seen[i].connection, i);
    }
    end(&b);
}

/* The first piece of an answer is read while its next waits for a request that is sent later. */
static void times_are_those_of_reading(void **state)
{
    (void)state;
    struct bench b;
    char first[512], rest[512];
    snprintf(first, sizeof first, "%s", chunk(TOKEN("a")));
    snprintf(rest, sizeof rest, "%s", chunk(TOKEN("b") FINISH DONE));
    const struct fake_step slow[] = {
        {FAKE_SEND, STREAM, 0}, {FAKE_SEND, first, 0}, {FAKE_TELL, NULL, 0}, {FAKE_AWAIT, NULL, 3},
        {FAKE_SEND, rest, 0},   {FAKE_SEND, last, 0},  {FAKE_END, NULL, 0}};
    const struct fake_step quick[] = {{FAKE_HEAR, NULL, 1},
                                      {FAKE_SEND, STREAM, 0},
                                      {FAKE_SEND, rest, 0},
                                      {FAKE_SEND, last, 0},
                                      {FAKE_END, NULL, 0}};
    const struct fake_step *const scripts[] = {slow, quick, quick};
    begin(&b, scripts, 3);
    b.plan.concurrency = 2;
    assert_int_equal(run(&b), OK);
    const struct load_record *slowest = NULL;
    for (int i = 0; i < 3; i++)
        if (b.run.records[i].chunks == 2)
            slowest = &b.run.records[i];
    CHECK(slowest, "no answer of two pieces");
    assert_true(slowest->chunk_ns[0] <= b.server.seen[2].received_ns);
    assert_true(slowest->chunk_ns[1] >= b.server.seen[2].received_ns);
    end(&b);
}

/* --- failures ----------------------------------------------------------------------------------
 */

/* Each of these answers alone, and what the record says of it. */
static void tells_failures_apart(void **state)
{
    (void)state;
    static const char cut[] = "8\r\ndata: {\"";
    const struct {
        struct fake_step steps[4];
        const char *error; /* how it begins */
        int status, chunks;
    } cases[] = {
        {{{FAKE_SEND,
           "HTTP/1.1 429 Slow\r\nRetry-After: 0\r\nContent-Length: 35\r\n\r\n"
           "{\"error\":{\"message\":\"queue\\nfull\"}}",
           0}},
         "refused 429: queue?full",
         429,
         0},
        {{{FAKE_SEND, "HTTP/1.1 503 Oh\r\nContent-Length: 0\r\nRetry-After: 0\r\n\r\n", 0}},
         "refused 503: without a word",
         503,
         0},
        {{{FAKE_SEND, "HTTP/1.1 400 Bad\r\nContent-Length: 5\r\n\r\nwrong", 0}},
         "answered 400: wrong",
         400,
         0},
        {{{FAKE_SEND,
           "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
           "Content-Length: 2\r\n\r\n{}",
           0}},
         "malformed: Content-Type: expected text/event-stream, found application/json",
         200,
         0},
        {{{FAKE_SEND, "SSH-2.0-Other\r\n", 0}},
         "malformed: expected an HTTP/1.1 status line",
         0,
         0},
        {{{FAKE_SEND, STREAM "zz\r\n", 0}}, "malformed: expected a chunk's size", 200, 0},
        {{{FAKE_SEND, STREAM "c\r\ndata: nope\n\n\r\n", 0}}, "malformed: event: column", 200, 0},
        {{{FAKE_SEND, STREAM, 0}, {FAKE_CLOSE, NULL, 0}}, "lost: 127.0.0.1", 200, 0},
        {{{FAKE_SEND, STREAM, 0}, {FAKE_SEND, cut, 0}, {FAKE_RESET, NULL, 0}}, "lost: ", -1, 0},
        {{{FAKE_SEND, STREAM "0\r\n\r\n", 0}}, "lost: the stream ended before the answer", 200, 0},
        {{{FAKE_SEND, NULL, 1}}, "failed: the model is gone", 200, 1},
        {{{FAKE_CLOSE, NULL, 0}}, "lost: ", 0, 0},
    };
    enum { COUNT = sizeof cases / sizeof *cases };
    char error_event[512];
    snprintf(error_event, sizeof error_event, STREAM "%s0\r\n\r\n",
             chunk(TOKEN("a") "data: {\"error\":{\"message\":\"the model is gone\"}}\n\n"));
    struct fake_step own[COUNT][4];
    const struct fake_step *scripts[COUNT];
    for (int i = 0; i < COUNT; i++) {
        memcpy(own[i], cases[i].steps, sizeof own[i]);
        if (own[i][0].what == FAKE_SEND && !own[i][0].text)
            own[i][0].text = error_event;
        scripts[i] = own[i];
    }
    for (int i = 0; i < COUNT; i++) {
        struct bench b;
        begin(&b, scripts + i, 1);
        assert_int_equal(run(&b), OK);
        const struct load_record *r = &b.run.records[0];
        if (strncmp(r->error, cases[i].error, strlen(cases[i].error)) != 0)
            fail_msg("answer %d: expected \"%s\", found \"%s\"", i, cases[i].error, r->error);
        if (cases[i].status >= 0) /* a reset may overtake what came before it */
            assert_int_equal(r->http_status, cases[i].status);
        assert_int_equal(r->chunks, cases[i].chunks);
        end(&b);
    }
}

/* A kept connection that the server closes as the next request comes: that is no failure. */
static void sends_again_what_met_a_closed_connection(void **state)
{
    (void)state;
    struct bench b;
    static const struct fake_step gone[] = {{FAKE_CLOSE, NULL, 0}};
    const struct fake_step *const scripts[] = {whole_answer(), gone, whole_answer()};
    begin(&b, scripts, 3);
    b.plan.requests = 2;
    assert_int_equal(run(&b), OK);
    assert_int_equal(b.run.count, 2);
    assert_string_equal(b.run.records[0].error, "");
    assert_string_equal(b.run.records[1].error, "");
    assert_int_equal(b.server.requests, 3);
    assert_string_equal(b.server.seen[1].text, b.server.seen[2].text);
    end(&b);
}

/* A slot that was refused does not hammer. */
static void waits_as_it_was_told(void **state)
{
    (void)state;
    struct bench b;
    static const struct fake_step busy[] = {
        {FAKE_SEND, "HTTP/1.1 429 No\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n", 0},
        {FAKE_END, NULL, 0}};
    const struct fake_step *const scripts[] = {busy, whole_answer()};
    begin(&b, scripts, 2);
    assert_int_equal(run(&b), OK);
    assert_string_equal(b.run.records[0].error, "refused 429: without a word");
    assert_string_equal(b.run.records[1].error, "");
    assert_true(b.run.records[1].sent_ns - b.server.seen[0].received_ns >= 1000000000);
    end(&b);
}

static void ends_what_takes_too_long(void **state)
{
    (void)state;
    struct bench b;
    static const struct fake_step hang[] = {{FAKE_SEND, STREAM, 0}, {FAKE_HANG, NULL, 0}};
    const struct fake_step *const scripts[] = {hang};
    begin(&b, scripts, 1);
    b.plan.timeout_ns = 50000000;
    assert_int_equal(run(&b), OK);
    assert_string_equal(b.run.records[0].error, "timeout: not answered in 0.05 s");
    end(&b);
}

static void stops_when_nobody_is_there(void **state)
{
    (void)state;
    struct bench b;
    struct error err;
    char name[64];
    const struct fake_step *const scripts[] = {whole_answer()};
    begin(&b, scripts, 1);
    fake_refuse(&b.server);
    assert_int_equal(load_http_models(b.http, name, sizeof name, &err), ERR_PEER);
    assert_non_null(strstr(err.msg, "Connection refused: is the server running there?"));
    b.plan.concurrency = 16;
    b.plan.requests = 1000;
    assert_int_equal(run(&b), ERR_PEER);
    assert_true(b.run.count >= 32 && b.run.count < 100);
    assert_string_equal(
        b.run.records[0].error + strlen("unreachable: 127.0.0.1:") +
            strcspn(b.run.records[0].error + strlen("unreachable: 127.0.0.1:"), ":"),
        ": Connection refused");
    end(&b);
}

/* Ctrl-C while the second request hangs. */
static void *interrupt(void *server)
{
    fake_await(server, 2, 0);
    kill(getpid(), SIGINT);
    return NULL;
}

static void keeps_what_there_is_when_interrupted(void **state)
{
    (void)state;
    struct bench b;
    pthread_t sender;
    static const struct fake_step hang[] = {{FAKE_HANG, NULL, 0}};
    const struct fake_step *const scripts[] = {whole_answer(), hang};
    begin(&b, scripts, 2);
    b.plan.requests = 10;
    assert_int_equal(pthread_create(&sender, NULL, interrupt, &b.server), 0);
    assert_int_equal(run(&b), ERR_CANCELLED);
    pthread_join(sender, NULL);
    assert_int_equal(b.run.count, 1);
    assert_true(b.run.interrupted);
    assert_string_equal(b.run.records[0].error, "");
    end(&b);
}

/* --- the open loop -----------------------------------------------------------------------------
 */

/* All at once, two under way: what waits counts from when it was due. */
static void counts_from_the_intended_time(void **state)
{
    (void)state;
    struct bench b;
    const struct fake_step *const scripts[] = {whole_answer()};
    begin(&b, scripts, 1);
    b.plan.mode = LOAD_OPEN;
    b.plan.arrivals = (struct load_arrivals){.rate = INFINITY, .burst = 1};
    b.plan.max_in_flight = 2;
    b.plan.requests = 20;
    assert_int_equal(run(&b), OK);
    assert_int_equal(b.run.count, 20);
    assert_int_equal(b.run.held_back, 18);
    for (int i = 0; i < 20; i++) {
        const struct load_record *r = &b.run.records[i];
        assert_string_equal(r->error, "");
        assert_true(r->intended_ns == b.run.began_ns && r->sent_ns >= r->intended_ns);
    }
    end(&b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(records_what_the_server_says),
    cmocka_unit_test(reads_any_way_of_writing_events),
    cmocka_unit_test(times_are_those_of_reading),
    cmocka_unit_test(tells_failures_apart),
    cmocka_unit_test(sends_again_what_met_a_closed_connection),
    cmocka_unit_test(waits_as_it_was_told),
    cmocka_unit_test(ends_what_takes_too_long),
    cmocka_unit_test(stops_when_nobody_is_there),
    cmocka_unit_test(keeps_what_there_is_when_interrupted),
    cmocka_unit_test(counts_from_the_intended_time),
};

UNIT_MAIN(tests)
