/* The HTTP door over real sockets: what it serves and refuses, how many at once, how it ends. */
#include "tests/unit/unit.h"
#include "tests/unit/coordinator/exposition.h"
#include "tests/unit/coordinator/http_fixture.h"
#include "tests/unit/coordinator/json_at.h"

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

#define BROWSER "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n"

static void assert_page_headers(const struct answer *a)
{
    static const char *const wanted[] = {"default-src 'none'",     "script-src 'self'",
                                         "style-src 'self'",       "connect-src 'self'",
                                         "base-uri 'none'",        "form-action 'none'",
                                         "frame-ancestors 'none'", "img-src 'self' data:"};
    for (size_t i = 0; i < COUNT_OF(wanted); i++)
        assert_non_null(strstr(header(a, "content-security-policy"), wanted[i]));
    assert_null(strstr(header(a, "content-security-policy"), "unsafe"));
    assert_string_equal(header(a, "x-content-type-options"), "nosniff");
    assert_string_equal(header(a, "referrer-policy"), "no-referrer");
    assert_string_equal(header(a, "cache-control"), "no-cache");
    assert_non_null(header(a, "etag"));
}

/* Browsers get the page, others words; both are told that it depends. */
static void the_page(void **state)
{
    (void)state;
    char headers[256];
    begin();
    assert_int_equal(call("GET", "/", BROWSER, "")->code, 200);
    assert_string_equal(header(&answer, "content-type"), "text/html; charset=utf-8");
    assert_string_equal(header(&answer, "vary"), "Accept");
    assert_page_headers(&answer);
    assert_non_null(strstr(answer.body.data, "<script type=\"module\" src=\"/page/app.js\">"));
    snprintf(headers, sizeof headers, BROWSER "If-None-Match: %s\r\n", header(&answer, "etag"));
    assert_int_equal(call("GET", "/", headers, "")->code, 304);
    assert_int_equal(answer.body.len, 0);
    assert_int_equal(call("GET", "/", BROWSER "If-None-Match: \"0\"\r\n", "")->code, 200);
    assert_int_equal(call("HEAD", "/", BROWSER, "")->code, 200);
    assert_int_equal(call("GET", "/", "Accept: */*\r\n", "")->code, 200);
    assert_string_equal(header(&answer, "content-type"), "text/plain; charset=utf-8");
    assert_string_equal(header(&answer, "vary"), "Accept");
    finish();
}

/* By their names alone: there are no folders behind them. */
static void the_pages_files(void **state)
{
    (void)state;
    static const char *const none[] = {"/page/", "/page/x.js", "/page/../app.js", "/page/%2e%2e/x",
                                       "/page//app.js"};
    begin();
    assert_int_equal(call("GET", "/page/app.js", "", "")->code, 200);
    assert_string_equal(header(&answer, "content-type"), "text/javascript; charset=utf-8");
    assert_page_headers(&answer);
    assert_int_equal(call("GET", "/page/style.css", "", "")->code, 200);
    assert_string_equal(header(&answer, "content-type"), "text/css; charset=utf-8");
    assert_int_equal(call("GET", "/page/icon.svg", "", "")->code, 200);
    assert_string_equal(header(&answer, "content-type"), "image/svg+xml");
    for (size_t i = 0; i < COUNT_OF(none); i++)
        assert_refused(call("GET", none[i], "", ""), 404, NULL, "not_found");
    assert_int_equal(call("POST", "/page/app.js", "", "")->code, 405);
    assert_int_equal(call("GET", "/admin/status", "", "")->code, 200);
    assert_int_equal(call("GET", "/admin/experts/g0", "", "")->code, 200);
    assert_int_equal(call("GET", "/admin/experts/g1", "", "")->code, 404);
    assert_string_equal(header(&answer, "cache-control"), "no-store");
    json_decref(body_of(&answer));
    finish();
}

/* The page of this process' own figures; groups' are metrics_test.c's. */
static void metrics_count_answers(void **state)
{
    (void)state;
    static struct exposition page;
    begin();
    call("GET", "/health/live", "", "");
    call("GET", "/nowhere", "", "");
    call("POST", CHAT, "", STREAM(100, 2));
    call("GET", "/metrics", "", "");
    assert_int_equal(answer.code, 200);
    assert_string_equal(header(&answer, "content-type"),
                        "text/plain; version=0.0.4; charset=utf-8");
    exposition_read(&page, answer.body.data);
    assert_true(exposition_of(&page, "witan_http_responses_total{code=\"200\"}") == 2);
    assert_true(exposition_of(&page, "witan_http_responses_total{code=\"404\"}") == 1);
    assert_true(exposition_of(&page, "witan_http_connections") >= 1);
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
    const json_t *details = json_object_get(usage, "prompt_tokens_details");
    assert_int_equal(json_integer_value(json_object_get(details, "cached_tokens")),
                     fake_prompt_len - 1);
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

static json_t *completed(const char *body)
{
    assert_int_equal(call("POST", "/v1/completions", "", body)->code, 200);
    return body_of(&answer);
}

static void what_shapes_sampling_is_passed_on(void **state)
{
    (void)state;
    begin();
    json_decref(completed("{\"prompt\":\"x\",\"presence_penalty\":1,\"frequency_penalty\":-1,"
                          "\"repetition_penalty\":1.5,\"min_tokens\":2,\"priority\":1,"
                          "\"logit_bias\":{\"5\":7},\"stop_token_ids\":[6],\"max_tokens\":3}"));
    const struct shaping *s = &fake_params.shaping;
    assert_true(s->presence_penalty == 1.0f && s->frequency_penalty == -1.0f);
    assert_true(s->repetition_penalty == 1.5f);
    assert_int_equal(s->min_tokens, 2);
    assert_int_equal(s->bias_count, 1);
    assert_int_equal(s->stop_id_count, 1);
    assert_int_equal(fake_params.priority, 1);
    assert_false(fake_params.default_max_tokens);
    json_decref(completed("{\"prompt\":\"x\"}"));
    assert_true(fake_params.default_max_tokens);
    assert_int_equal(fake_params.logprobs + fake_params.prompt_logprobs, 0);
    finish();
}

static void logprobs_of_chat(void **state)
{
    (void)state;
    begin();
    assert_int_equal(call("POST", CHAT, "",
                          "{" MESSAGES ",\"seed\":101,\"max_tokens\":2,\"logprobs\":true,"
                          "\"top_logprobs\":1,\"prompt_logprobs\":0}")
                         ->code,
                     200);
    json_t *root = body_of(&answer);
    const json_t *content = at(root, "choices.0.logprobs.content");
    assert_int_equal(json_array_size(content), 2);
    assert_string_equal(json_string_value(at(content, "1.token")), "A");
    assert_true(json_number_value(at(content, "1.logprob")) == -0.5);
    assert_int_equal(json_array_size(at(content, "1.top_logprobs")), 1);
    assert_string_equal(json_string_value(at(content, "1.top_logprobs.0.token")), "!");
    assert_int_equal(json_array_size(at(root, "prompt_logprobs")), fake_prompt_len);
    assert_int_equal(json_object_size(at(root, "prompt_logprobs.1")), 1);
    json_decref(root);
    call("POST", CHAT, "", "{" MESSAGES ",\"max_tokens\":2,\"logprobs\":true,\"stream\":true}");
    assert_int_equal(count_of(answer.body.data, "\"logprobs\":{\"content\":[{\"token\":\"A\""), 2);
    assert_int_equal(count_of(answer.body.data, "\"logprobs\":null"), 3);
    finish();
}

static void echo_comes_before_the_answer(void **state)
{
    (void)state;
    begin();
    json_t *root = completed("{\"prompt\":[\"\u20acb\",\"c\"],\"echo\":true,\"logprobs\":1,\"n\":2,"
                             "\"max_tokens\":1,\"seed\":100}");
    assert_int_equal(json_array_size(at(root, "choices")), 4);
    for (int i = 0; i < 4; i++) {
        const json_t *c = json_array_get(at(root, "choices"), (size_t)i);
        assert_string_equal(json_string_value(at(c, "text")), i < 2 ? "\u20acbw0 " : "cw0 ");
        size_t count = json_array_size(at(c, "logprobs.tokens"));
        assert_true(count >= 2);
        assert_int_equal(json_array_size(at(c, "logprobs.token_logprobs")), count);
        assert_true(json_is_null(at(c, "logprobs.token_logprobs.0")));
        assert_true(json_is_null(at(c, "logprobs.top_logprobs.0")));
        assert_int_equal(json_array_size(at(c, "logprobs.top_logprobs")), count);
        const json_t *offsets = at(c, "logprobs.text_offset");
        assert_int_equal(json_integer_value(json_array_get(offsets, 0)), 0);
        assert_int_equal(json_integer_value(json_array_get(offsets, count - 1)), i < 2 ? 2 : 1);
        assert_null(at(c, "prompt_logprobs"));
    }
    json_decref(root);
    root = completed("{\"prompt\":\"xyz\",\"echo\":true,\"max_tokens\":0,\"logprobs\":0}");
    assert_string_equal(json_string_value(at(root, "choices.0.text")), "xyz");
    assert_int_equal(json_array_size(at(root, "choices.0.logprobs.tokens")), fake_prompt_len);
    assert_int_equal(json_integer_value(at(root, "usage.completion_tokens")), 0);
    json_decref(root);
    call("POST", "/v1/completions", "",
         "{\"prompt\":\"xyz\",\"echo\":true,\"max_tokens\":1,\"stream\":true}");
    assert_int_equal(count_of(answer.body.data, "\"text\":\"xyz\""), 1);
    finish();
}

static void the_best_of_many_are_told(void **state)
{
    (void)state;
    begin();
    json_t *root = completed("{\"prompt\":[\"a\",\"b\"],\"n\":2,\"best_of\":4,\"seed\":100,"
                             "\"max_tokens\":2}");
    assert_int_equal(json_array_size(at(root, "choices")), 4);
    assert_int_equal(json_integer_value(at(root, "choices.3.index")), 3);
    assert_true(json_is_null(at(root, "choices.0.logprobs")));
    assert_int_equal(json_integer_value(at(root, "usage.completion_tokens")), 16);
    assert_string_equal(header(&answer, "x-witan-seed"), "103,102,103,102");
    assert_int_equal(fake_params.logprobs, 1);
    assert_int_equal(fake_judged, 1); /* once for all choices of all prompts */
    json_decref(root);
    finish();
}

static void lists_are_not_endless(void **state)
{
    (void)state;
    struct buf b;
    begin();
    buf_init(&b, 1 << 20);
    buf_puts(&b, "{\"max_tokens\":1,\"prompt_logprobs\":20,\"prompt\":[1", NULL);
    for (int i = 0; i < 100000; i++)
        buf_puts(&b, ",1", NULL);
    buf_puts(&b, "]}", NULL);
    assert_refused(call("POST", "/v1/completions", "", b.data), 400, "logprobs", NULL);
    assert_non_null(strstr(answer.body.data, "would list more than 2097152 tokens"));
    wait_for(&fake_running, 0);
    buf_fini(&b);
    finish();
}

static void usage_so_far_is_told(void **state)
{
    (void)state;
    begin();
    call("POST", "/v1/completions", "",
         "{\"prompt\":\"xyz\",\"max_tokens\":3,\"stream\":true,"
         "\"stream_options\":{\"continuous_usage_stats\":true}}");
    for (int i = 1; i <= 3; i++) {
        char words[64];
        snprintf(words, sizeof words, "\"completion_tokens\":%d,", i);
        assert_int_equal(count_of(answer.body.data, words), i < 3 ? 1 : 2);
    }
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
    assert_refused(call("POST", CHAT, "", "{" MESSAGES ",\"n\":\"1\"}"), 400, "n", NULL);
    assert_refused(call("POST", CHAT, "", "{" MESSAGES ",\"tools\":[1]}"), 400, "tools[0]", NULL);
    assert_refused(call("POST", CHAT, "", "{" MESSAGES ",\"functions\":[1]}"), 400, "functions",
                   "unsupported");
    assert_refused(call("POST", CHAT, "", "{" MESSAGES ",\"model\":\"gpt\"}"), 404, "model",
                   "model_not_found");
    assert_refused(call("POST", CHAT, "", "{\"messages\":[{\"role\":\"user\",\"content\":[{}]}]}"),
                   400, "messages[0].content[0].type", NULL);
    assert_refused(call("POST", CHAT, "", STREAM(700, 1)), 400, "context",
                   "context_length_exceeded");
    assert_refused(call("POST", CHAT, "", STREAM(600, 1)), 429, NULL, "too_many_requests");
    assert_string_equal(header(&answer, "retry-after"), "7");
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
    assert_refused(call("POST", "/v1/embeddings", "", "{}"), 404, NULL, "unsupported");
    assert_refused(call("POST", "/v1/audio/speech", "", ""), 404, NULL, "unsupported");
    assert_refused(call("POST", "/v1/images/generations", "", ""), 404, NULL, "unsupported");
    assert_non_null(strstr(answer.body.data, "images are not offered"));
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
    char plain[128], raw[128], bare[128];
    struct error err;
    prepare();
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/keys", dir);
    assert_int_equal(auth_create_key(path, "a", NULL, AUTH_GENERATE, key, &err), OK);
    snprintf(plain, sizeof plain, "Authorization: Bearer %s\r\n", key);
    snprintf(bare, sizeof bare, "X-Api-Key: %s\r\n", key);
    assert_int_equal(auth_create_key(path, "b", NULL, AUTH_GENERATE | AUTH_RAW, key, &err), OK);
    snprintf(raw, sizeof raw, "Authorization: Bearer %s\r\n", key);
    char admin[128];
    assert_int_equal(auth_create_key(path, "c", NULL, AUTH_ADMIN, key, &err), OK);
    snprintf(admin, sizeof admin, "Authorization: Bearer %s\r\n", key);
    config.listen.keys = strdup(path);
    assert_int_equal(identity_create(&config, &core.identity, &err), OK);
    start();
    assert_int_equal(call("GET", "/health/live", "", "")->code, 200);
    assert_int_equal(call("GET", "/health/ready", "", "")->code, 200);
    assert_refused(call("GET", "/v1/models", "", ""), 401, NULL, "invalid_api_key");
    assert_string_equal(header(&answer, "www-authenticate"), "Bearer realm=\"witan\"");
    assert_refused(call("GET", "/v1/models", "Authorization: Bearer wk-x\r\n", ""), 401, NULL,
                   NULL);
    assert_int_equal(call("GET", "/v1/models", bare, "")->code, 200);
    assert_refused(call("GET", "/metrics", bare, ""), 403, NULL, "insufficient_scope");
    assert_refused(call("GET", "/v1/models", "x-api-key: wk-x\r\n", ""), 401, NULL, NULL);
    bare[strlen(bare) - 2] = '\0';
    snprintf(bare + strlen(bare), sizeof bare - strlen(bare), "x\r\n");
    assert_refused(call("GET", "/v1/models", bare, ""), 401, NULL, NULL);
    assert_refused(call("GET", "/v1/models", admin, ""), 403, NULL, "insufficient_scope");
    assert_non_null(strstr(answer.body.data, "generate"));
    assert_int_equal(call("GET", "/metrics", admin, "")->code, 200);
    assert_refused(call("GET", "/metrics", raw, ""), 403, NULL, "insufficient_scope");
    assert_refused(call("GET", "/metrics", "", ""), 401, NULL, "invalid_api_key");
    assert_int_equal(call("POST", CHAT, plain, TALK(1))->code, 200);
    assert_refused(call("POST", "/v1/completions", plain, "{\"prompt\":[1]}"), 403, NULL,
                   "insufficient_scope");
    assert_int_equal(call("POST", "/v1/completions", raw, "{\"prompt\":[1]}")->code, 200);
    assert_refused(call("POST", CHAT, plain, "{" MESSAGES ",\"priority\":-1}"), 403, NULL,
                   "insufficient_scope");
    assert_int_equal(
        call("POST", CHAT, plain, "{" MESSAGES ",\"priority\":1,\"max_tokens\":1}")->code, 200);
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
    cmocka_unit_test(the_page),
    cmocka_unit_test(the_pages_files),
    cmocka_unit_test(metrics_count_answers),
    cmocka_unit_test(a_whole_answer),
    cmocka_unit_test(a_stream),
    cmocka_unit_test(completions_of_every_prompt),
    cmocka_unit_test(what_shapes_sampling_is_passed_on),
    cmocka_unit_test(logprobs_of_chat),
    cmocka_unit_test(echo_comes_before_the_answer),
    cmocka_unit_test(the_best_of_many_are_told),
    cmocka_unit_test(lists_are_not_endless),
    cmocka_unit_test(usage_so_far_is_told),
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
