/* The HTTP door over real sockets: what it serves and refuses, how many at once, how it ends. */
#include "tests/unit/unit.h"
#include "tests/unit/coordinator/http_fixture.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <time.h>

/* --- what is served ----------------------------------------------------------------------------
 */

static void health_models_and_front(void **state)
{
    (void)state;
    begin();
    assert_int_equal(call("GET", "/health/live", "", "")->code, 200);
    assert_string_equal(answer.body.data, "{\"status\":\"live\"}");
    assert_int_equal(call("GET", "/health/ready", "", "")->code, 200);
    fake_ready = false;
    assert_int_equal(call("GET", "/health/ready", "", "")->code, 503);
    json_decref(body_of(&answer));
    assert_int_equal(call("GET", "/v1/models?x=1", "", "")->code, 200);
    json_decref(body_of(&answer));
    assert_int_equal(call("GET", "/v1/models/t%69ny", "", "")->code, 200);
    assert_refused(call("GET", "/v1/models/other", "", ""), 404, "model", "model_not_found");
    assert_int_equal(call("GET", "/", "", "")->code, 200);
    assert_non_null(strstr(answer.body.data, "/v1/chat/completions"));
    assert_non_null(header(&answer, "x-request-id"));
    assert_int_equal(call("GET", "/", "x-request-id: abc-1.2_3\r\n", "")->code, 200);
    assert_string_equal(header(&answer, "x-request-id"), "abc-1.2_3");
    call("GET", "/", "x-request-id: a b\r\n", "");
    assert_int_equal(strlen(header(&answer, "x-request-id")), 24);
    finish();
}

static void a_whole_answer(void **state)
{
    (void)state;
    begin();
    assert_int_equal(call("POST", CHAT, "Content-Type: text/plain\r\n",
                          "{" MESSAGES ",\"model\":\"tiny\",\"n\":2,\"seed\":100,\"max_tokens\":3}")
                         ->code,
                     200);
    assert_string_equal(header(&answer, "x-witan-seed"), "100,101");
    json_t *root = body_of(&answer);
    const json_t *second = json_array_get(json_object_get(root, "choices"), 1);
    const json_t *message = json_object_get(second, "message");
    assert_string_equal(json_string_value(json_object_get(message, "content")), "w0 w1 w2 ");
    assert_string_equal(json_string_value(json_object_get(message, "reasoning_content")), "hm");
    assert_string_equal(json_string_value(json_object_get(second, "finish_reason")), "length");
    const json_t *usage = json_object_get(root, "usage");
    assert_int_equal(json_integer_value(json_object_get(usage, "completion_tokens")), 6);
    assert_int_equal(json_integer_value(json_object_get(usage, "prompt_tokens")), fake_prompt_len);
    json_decref(root);
    assert_int_equal(active(false), 0);
    finish();
}

static void a_stream(void **state)
{
    (void)state;
    begin();
    assert_int_equal(call("POST", CHAT, "",
                          "{" MESSAGES ",\"stream\":true,\"n\":2,\"max_tokens\":4,"
                          "\"stream_options\":{\"include_usage\":true}}")
                         ->code,
                     200);
    assert_string_equal(header(&answer, "content-type"), "text/event-stream; charset=utf-8");
    assert_string_equal(header(&answer, "cache-control"), "no-cache");
    assert_string_equal(header(&answer, "x-accel-buffering"), "no");
    const char *text = answer.body.data;
    assert_int_equal(count_of(text, "\"role\":\"assistant\""), 2);
    assert_int_equal(count_of(text, "\"reasoning_content\":\"hm\""), 2);
    assert_int_equal(count_of(text, "\"delta\":{\"content\":\"w"), 8);
    assert_int_equal(count_of(text, "\"finish_reason\":\"length\""), 2);
    assert_int_equal(count_of(text, "\"completion_tokens\":8"), 1);
    assert_int_equal(count_of(text, "data: [DONE]\n\n"), 1);
    assert_string_equal(text + answer.body.len - 14, "data: [DONE]\n\n");
    finish();
}

static void completions_of_every_prompt(void **state)
{
    (void)state;
    begin();
    assert_int_equal(
        call("POST", "/v1/completions", "", "{\"prompt\":[\"a b\",\"c\"],\"n\":2,\"seed\":100}")
            ->code,
        200);
    assert_string_equal(header(&answer, "x-witan-seed"), "100,101,100,101");
    json_t *root = body_of(&answer);
    const json_t *choices = json_object_get(root, "choices");
    assert_int_equal(json_array_size(choices), 4);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(root, "usage"), "completion_tokens")),
        4 * OPENAI_DEFAULT_COMPLETION_TOKENS);
    json_decref(root);
    assert_int_equal(
        call("POST", "/v1/completions", "", "{\"prompt\":[1,2,3],\"max_tokens\":1}")->code, 200);
    assert_int_equal(fake_prompt_len, 3);
    call("POST", "/v1/completions", "", "{\"prompt\":\"x\",\"stream\":true,\"max_tokens\":2}");
    assert_int_equal(count_of(answer.body.data, "\"text\":\"w"), 2);
    finish();
}

static void tokenizes_and_back(void **state)
{
    (void)state;
    begin();
    assert_int_equal(call("POST", "/tokenize", "", "{\"prompt\":\"a cat\"}")->code, 200);
    json_t *root = body_of(&answer);
    assert_int_equal(json_integer_value(json_object_get(root, "max_model_len")), 4096);
    json_t *tokens = json_object_get(root, "tokens");
    assert_int_equal(json_integer_value(json_object_get(root, "count")), json_array_size(tokens));
    char *words = json_dumps(tokens, JSON_COMPACT), body[512];
    snprintf(body, sizeof body, "{\"tokens\":%s}", words);
    free(words);
    json_decref(root);
    assert_int_equal(call("POST", "/detokenize", "", body)->code, 200);
    assert_string_equal(answer.body.data, "{\"prompt\":\"a cat\"}");
    assert_int_equal(call("POST", "/tokenize", "", "{" MESSAGES "}")->code, 200);
    assert_refused(call("POST", "/detokenize", "", "{\"tokens\":[2000000000]}"), 400, "tokens",
                   NULL);
    finish();
}

/* --- what is refused ---------------------------------------------------------------------------
 */

static void bad_requests_are_refused(void **state)
{
    (void)state;
    begin();
    assert_refused(call("POST", CHAT, "", "{"), 400, NULL, NULL);
    assert_refused(call("POST", CHAT, "", ""), 400, NULL, NULL);
    assert_refused(call("POST", CHAT, "", "{" MESSAGES ",\"x\":1}"), 400, "x", NULL);
    assert_refused(call("POST", CHAT, "", "{" MESSAGES ",\"tools\":[1]}"), 400, "tools",
                   "unsupported");
    assert_refused(call("POST", CHAT, "", "{" MESSAGES ",\"model\":\"gpt\"}"), 404, "model",
                   "model_not_found");
    assert_refused(call("POST", CHAT, "", "{\"messages\":[{\"role\":\"user\",\"content\":[{}]}]}"),
                   400, "messages[0].content[0].type", NULL);
    assert_refused(call("POST", CHAT, "", STREAM(700, 1)), 400, "context",
                   "context_length_exceeded");
    assert_refused(call("POST", CHAT, "", STREAM(600, 1)), 429, NULL, "too_many_requests");
    assert_string_equal(header(&answer, "retry-after"), "1");
    assert_refused(call("POST", CHAT, "", STREAM(500, 1)), 503, NULL, "not_ready");
    assert_string_equal(header(&answer, "retry-after"), "5");
    /* The second of three generations does not start: the first is cancelled. */
    assert_refused(call("POST", CHAT, "", "{" MESSAGES ",\"n\":3,\"seed\":499}"), 503, NULL, NULL);
    assert_int_equal(fake_running, 0);
    assert_int_equal(active(false), 0);
    finish();
}

static void wrong_urls_and_methods(void **state)
{
    (void)state;
    begin();
    assert_refused(call("GET", "/v2", "", ""), 404, NULL, "not_found");
    assert_refused(call("GET", "/v1/models/", "", ""), 404, NULL, "not_found");
    assert_refused(call("GET", CHAT, "", ""), 405, NULL, "method_not_allowed");
    assert_string_equal(header(&answer, "allow"), "POST, OPTIONS");
    assert_refused(call("DELETE", "/v1/models", "", ""), 405, NULL, NULL);
    assert_refused(call("PATCH", "/v1/models", "", ""), 405, NULL, NULL);
    assert_refused(call("BREW", "/v1/models", "", ""), 405, NULL, NULL);
    assert_int_equal(call("OPTIONS", "/v1/models", "", "")->code, 204);
    assert_null(header(&answer, "access-control-allow-origin"));
    assert_int_equal(call("HEAD", "/v1/models", "", "")->code, 200);
    assert_true(atoi(header(&answer, "content-length")) > 50);
    assert_refused(call("OPTIONS", "*", "", ""), 404, NULL, NULL);
    call("CONNECT", "x:1", "", "");
    assert_int_equal(answer.code / 100, 4);
    finish();
}

/* A HEAD's answer has no body, or the next answer on the connection would be misread. */
static void head_keeps_the_connection(void **state)
{
    (void)state;
    begin();
    struct reader r = {.fd = dial()};
    put(r.fd, "HEAD /v1/models HTTP/1.1\r\nHost: x\r\n\r\nGET /health/live HTTP/1.1\r\nHost: "
              "x\r\n\r\n");
    assert_true(read_answer(&r, &answer, false));
    assert_true(read_answer(&r, &answer, true));
    assert_string_equal(answer.body.data, "{\"status\":\"live\"}");
    close(r.fd);
    finish();
}

static void keys_are_demanded(void **state)
{
    (void)state;
    char dir[] = "/tmp/witan-http-XXXXXX", path[64], key[AUTH_KEY_BYTES + 1];
    char plain[128], raw[128];
    struct error err;
    prepare();
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/keys", dir);
    assert_int_equal(auth_create_key(path, "a", AUTH_GENERATE, key, &err), OK);
    snprintf(plain, sizeof plain, "Authorization: Bearer %s\r\n", key);
    assert_int_equal(auth_create_key(path, "b", AUTH_GENERATE | AUTH_RAW, key, &err), OK);
    snprintf(raw, sizeof raw, "Authorization: Bearer %s\r\n", key);
    char admin[128];
    assert_int_equal(auth_create_key(path, "c", AUTH_ADMIN, key, &err), OK);
    snprintf(admin, sizeof admin, "Authorization: Bearer %s\r\n", key);
    assert_int_equal(auth_load(path, &core.auth, &err), OK);
    start();
    assert_int_equal(call("GET", "/health/live", "", "")->code, 200);
    assert_int_equal(call("GET", "/health/ready", "", "")->code, 200);
    assert_refused(call("GET", "/v1/models", "", ""), 401, NULL, "invalid_api_key");
    assert_string_equal(header(&answer, "www-authenticate"), "Bearer realm=\"witan\"");
    assert_refused(call("GET", "/v1/models", "Authorization: Bearer wk-x\r\n", ""), 401, NULL,
                   NULL);
    assert_refused(call("GET", "/v1/models", admin, ""), 403, NULL, "insufficient_scope");
    assert_non_null(strstr(answer.body.data, "generate"));
    assert_int_equal(call("POST", CHAT, plain, TALK(1))->code, 200);
    assert_refused(call("POST", "/v1/completions", plain, "{\"prompt\":[1]}"), 403, NULL,
                   "insufficient_scope");
    assert_int_equal(call("POST", "/v1/completions", raw, "{\"prompt\":[1]}")->code, 200);
    /* Only `raw` makes a special token of text that spells one. */
    call("POST", "/v1/completions", plain, "{\"prompt\":\"<|im_end|>\"}");
    assert_true(fake_prompt_len > 1);
    call("POST", "/v1/completions", raw, "{\"prompt\":\"<|im_end|>\"}");
    assert_int_equal(fake_prompt_len, 1);
    finish();
    unlink(path);
    rmdir(dir);
}

/* --- many and few ------------------------------------------------------------------------------
 */

static void connections_are_limited(void **state)
{
    (void)state;
    prepare();
    config.limits.connections = 8;
    config.limits.request_timeout_s = 20;
    start();
    int fds[8];
    for (int i = 0; i < 8; i++) {
        struct reader r = {.fd = fds[i] = dial()};
        put_request(r.fd, "GET", "/health/live", "", "");
        assert_true(read_answer(&r, &answer, true));
    }
    struct reader r = {.fd = dial()};
    assert_true(read_answer(&r, &answer, true));
    assert_int_equal(answer.code, 503);
    assert_true(is_closed(r.fd));
    close(r.fd);
    for (int i = 0; i < 8; i++)
        close(fds[i]);
    for (int i = 0;; i++) { /* until the closing is seen */
        r = (struct reader){.fd = dial()};
        put_request(r.fd, "GET", "/health/live", "", "");
        bool answered = read_answer(&r, &answer, true) && answer.code == 200;
        close(r.fd);
        if (answered)
            break;
        assert_true(i < 1000);
    }
    finish();
}

static void many_streams_at_once(void **state)
{
    (void)state;
    enum { MANY = 400 };
    prepare();
    config.limits.request_timeout_s = 30;
    start();
    static int fds[MANY];
    for (int i = 0; i < MANY; i++) {
        fds[i] = dial();
        put_request(fds[i], "POST", CHAT, "", STREAM(100, 20));
    }
    for (int i = 0; i < MANY; i++) {
        struct reader r = {.fd = fds[i]};
        assert_true(read_answer(&r, &answer, true));
        assert_true(answer.whole);
        assert_int_equal(count_of(answer.body.data, "data: [DONE]"), 1);
        close(fds[i]);
    }
    assert_int_equal(fake_ended, MANY);
    finish();
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A socket after which the process can have no other descriptor. */
static int last_socket(struct rlimit *old)
{
    struct timeval limit = {.tv_sec = 20};
    struct rlimit none;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    getrlimit(RLIMIT_NOFILE, old);
    none = *old;
    none.rlim_cur = (rlim_t)fd + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    while (fcntl(0, F_DUPFD, 0) >= 0) /* holes below the limit */
        ;
    return fd;
}

/* Without descriptors accepting waits instead of spinning, and goes on when there are some. */
static void accepting_waits_for_descriptors(void **state)
{
    (void)state;
    begin();
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct rlimit old;
    struct reader r = {.fd = last_socket(&old)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(r.fd, (struct sockaddr *)&a, sizeof a), 0);
    double before = cpu_seconds();
    usleep(700000);
    assert_true(cpu_seconds() - before < 0.2);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    put_request(r.fd, "GET", "/health/live", "", "");
    assert_true(read_answer(&r, &answer, true));
    assert_int_equal(answer.code, 200);
    close(r.fd);
    finish();
}

static void stopping_lets_answers_end(void **state)
{
    (void)state;
    begin();
    struct reader r = {.fd = dial()};
    int idle = dial();
    put_request(r.fd, "POST", CHAT, "", STREAM(100, 300));
    wait_for(&fake_running, 1);
    assert_int_equal(active(true), 1);
    assert_refused(call("POST", CHAT, "", TALK(1)), 503, NULL, "stopping");
    assert_string_equal(header(&answer, "connection"), "close");
    assert_int_equal(call("GET", "/health/live", "", "")->code, 200);
    assert_int_equal(call("GET", "/health/ready", "", "")->code, 503);
    assert_true(is_closed(idle));
    assert_true(read_answer(&r, &answer, true));
    assert_int_equal(count_of(answer.body.data, "data: [DONE]"), 1);
    assert_true(is_closed(r.fd));
    assert_int_equal(active(false), 0);
    close(idle);
    close(r.fd);
    finish();
}

static void destroying_cancels(void **state)
{
    (void)state;
    begin();
    int a = dial(), b = dial(), c = dial();
    put_request(a, "POST", CHAT, "", STREAM(100, 100000));
    put_request(b, "POST", CHAT, "", "{" MESSAGES ",\"seed\":200}");
    put(c, "POST");
    wait_for(&fake_running, 2);
    finish();
    assert_int_equal(fake_cancelled, 2);
    close(a);
    close(b);
    close(c);
}

static void off_is_no_server(void **state)
{
    (void)state;
    struct error err;
    prepare();
    free(config.listen.http);
    config.listen.http = strdup("off");
    core.config = &config;
    assert_int_equal(http_create(&core, &http, &err), OK);
    assert_null(http);
    http_stop(http);
    assert_int_equal(http_active(http) + http_port(http), 0);
    http_destroy(http);
    config_fini(&config);
}

static void a_taken_port_is_told(void **state)
{
    (void)state;
    struct http *second;
    struct error err;
    char address[64];
    begin();
    struct config other = config;
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    other.listen.http = address;
    core.config = &other;
    assert_int_not_equal(http_create(&core, &second, &err), OK);
    assert_non_null(strstr(err.msg, "listen.http"));
    assert_null(second);
    core.config = &config;
    finish();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(health_models_and_front),
    cmocka_unit_test(a_whole_answer),
    cmocka_unit_test(a_stream),
    cmocka_unit_test(completions_of_every_prompt),
    cmocka_unit_test(tokenizes_and_back),
    cmocka_unit_test(bad_requests_are_refused),
    cmocka_unit_test(wrong_urls_and_methods),
    cmocka_unit_test(head_keeps_the_connection),
    cmocka_unit_test(keys_are_demanded),
    cmocka_unit_test(connections_are_limited),
    cmocka_unit_test(many_streams_at_once),
    cmocka_unit_test(accepting_waits_for_descriptors),
    cmocka_unit_test(stopping_lets_answers_end),
    cmocka_unit_test(destroying_cancels),
    cmocka_unit_test(off_is_no_server),
    cmocka_unit_test(a_taken_port_is_told),
};

UNIT_MAIN(tests)
