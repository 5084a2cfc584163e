/* Handlers but those that generate, and the table of all: see http_api.h. No state. */
#include "coordinator/http_api.h"
#include "base/check.h"
#include "coordinator/dialect.h"
#include "coordinator/http_ollama.h"
#include "coordinator/page.h"
#include "coordinator/status_json.h"
#include "proto/versions.h"

#include <string.h>

enum { MAX_IDS = 1 << 24, MAX_ANSWER_BYTES = 256 << 20 };

/* --- what all share ----------------------------------------------------------------------------
 */

void http_refuse(struct exchange *x, const struct error *err)
{
    char seconds[16];
    switch (err->code) {
    case ERR_LIMIT:
        exchange_fail(x, 400, "context_length_exceeded", err->msg);
        break;
    case ERR_NO_MEMORY:
        http_tell_quota(x);
        snprintf(seconds, sizeof seconds, "%d", core_retry_s(x->core));
        exchange_header(x, "Retry-After", seconds);
        exchange_fail(x, 429, "too_many_requests", err->msg);
        break;
    case ERR_PEER:
        exchange_come_again(x);
        exchange_fail(x, 503, "not_ready", err->msg);
        break;
    case ERR_IO:
        exchange_come_again(x);
        exchange_fail(x, 503, "audit_log_failed", err->msg);
        break;
    case ERR_CONFLICT:
        exchange_header(x, "x-should-retry", "false"); /* OpenAI's clients would, for a 409 */
        exchange_fail(x, 409, "conflict", err->msg);
        break;
    case ERR_UNSUPPORTED:
        exchange_fail(x, 400, "unsupported", err->msg);
        break;
    default:
        exchange_fail(x, 400, NULL, err->msg);
    }
}

/* Ollama's clients may call a model without a tag by the tag "latest". */
static bool is_latest(const char *model, const char *served)
{
    size_t len = strlen(served);
    return strncmp(model, served, len) == 0 && strcmp(model + len, ":latest") == 0;
}

bool http_check_model(struct exchange *x, const char *model)
{
    char words[512];
    const char *served = x->core->served.name;
    if (!model || strcmp(model, served) == 0 || (x->dialect->latest && is_latest(model, served)))
        return true;
    snprintf(words, sizeof words, "model: this server has \"%.200s\" alone", served);
    exchange_fail(x, 404, "model_not_found", words);
    return false;
}

bool http_read_request(struct exchange *x, enum openai_kind *kind, struct openai_request *r)
{
    const char *body;
    size_t len;
    struct error err;
    exchange_body(x, &body, &len);
    if (dialect_read(x->dialect, kind, body, len, &x->core->served.defaults, r, &err) != OK) {
        http_refuse(x, &err);
        return false;
    }
    if (http_check_model(x, r->model))
        return true;
    openai_request_fini(r);
    return false;
}

static enum status encode(struct exchange *x, const struct openai_request *r, int32_t i,
                          struct token_ids *ids, bool *thinking, struct error *err)
{
    const struct chat_text *text = x->core->served.text;
    *thinking = false;
    if (r->messages)
        return chat_encode(text, r->messages, r->tool_choice == OPENAI_TOOLS_NONE ? NULL : r->tools,
                           r->kwargs, ids, thinking, err);
    const struct openai_prompt *p = &r->prompts[i];
    if (p->ids)
        return token_ids_append(ids, p->ids, p->len, err);
    enum tokenizer_mode mode = x->scopes & AUTH_RAW ? TOKENIZER_ADDED : TOKENIZER_PLAIN;
    return tokenizer_encode(text->tokenizer, text->scratch, p->text, p->len, mode, ids, err);
}

bool http_encode(struct exchange *x, const struct openai_request *r, int32_t i,
                 struct token_ids *ids, bool *thinking)
{
    struct error err;
    if (r->prompt_ids && !(x->scopes & AUTH_RAW)) {
        exchange_fail(x, 403, "insufficient_scope", "token ids need a key with the scope raw");
        return false;
    }
    token_ids_init(ids, MAX_IDS);
    if (encode(x, r, i, ids, thinking, &err) == OK)
        return true;
    token_ids_fini(ids);
    http_refuse(x, &err);
    return false;
}

static void reply(struct exchange *x, struct buf *b, enum status st, const struct error *err)
{
    if (st == OK)
        exchange_reply(x, 200, "application/json", b->data, b->len);
    else
        exchange_fail(x, 500, NULL, err->msg);
    buf_fini(b);
}

/* --- models ------------------------------------------------------------------------------------
 */

static struct openai_model model_of(const struct exchange *x)
{
    const struct served *s = &x->core->served;
    const struct manifest *m = s->manifest;
    return (struct openai_model){
        .id = s->name,
        .created = s->created,
        .max_model_len = s->context,
        .digest = m ? manifest_digest(m) : NULL,
        .signers = m ? manifest_signers(m) : NULL,
    };
}

static void models(struct exchange *x)
{
    struct buf b;
    struct error err;
    struct openai_model m = model_of(x);
    buf_init(&b, MAX_ANSWER_BYTES);
    enum status st = x->dialect->models(&b, &m, &err);
    reply(x, &b, st, &err);
}

static void model(struct exchange *x)
{
    struct buf b;
    struct error err;
    struct openai_model m = model_of(x);
    if (!http_check_model(x, x->rest))
        return;
    buf_init(&b, MAX_ANSWER_BYTES);
    enum status st = x->dialect->model(&b, &m, &err);
    reply(x, &b, st, &err);
}

/* --- the tokenizer -----------------------------------------------------------------------------
 */

static void tokenize(struct exchange *x)
{
    enum openai_kind kind = OPENAI_TOKENIZE;
    struct openai_request r;
    struct token_ids ids;
    struct buf b;
    struct error err;
    bool thinking;
    if (!http_read_request(x, &kind, &r))
        return;
    bool encoded = http_encode(x, &r, 0, &ids, &thinking);
    openai_request_fini(&r);
    if (!encoded)
        return;
    buf_init(&b, MAX_ANSWER_BYTES);
    enum status st = openai_write_tokens(&b, ids.data, ids.len, x->core->served.context, &err);
    token_ids_fini(&ids);
    reply(x, &b, st, &err);
}

/* Anthropic's: how long the prompt of a message would be. */
static void count_tokens(struct exchange *x)
{
    enum openai_kind kind = OPENAI_TOKENIZE;
    struct openai_request r;
    struct token_ids ids;
    struct buf b;
    struct error err;
    bool thinking;
    if (!http_read_request(x, &kind, &r))
        return;
    bool encoded = http_encode(x, &r, 0, &ids, &thinking);
    openai_request_fini(&r);
    if (!encoded)
        return;
    buf_init(&b, MAX_ANSWER_BYTES);
    enum status st = buf_printf(&b, &err, "{\"input_tokens\":%zu}", ids.len);
    token_ids_fini(&ids);
    reply(x, &b, st, &err);
}

static void detokenize(struct exchange *x)
{
    enum openai_kind kind = OPENAI_DETOKENIZE;
    struct openai_request r;
    struct buf text, b;
    struct error err;
    if (!http_read_request(x, &kind, &r))
        return;
    buf_init(&text, MAX_ANSWER_BYTES);
    enum status st = tokenizer_decode(x->core->served.text->tokenizer, r.prompts[0].ids,
                                      r.prompts[0].len, false, &text, &err);
    openai_request_fini(&r);
    if (st != OK) {
        error_prefix(&err, "tokens: ");
        http_refuse(x, &err);
        buf_fini(&text);
        return;
    }
    buf_init(&b, MAX_ANSWER_BYTES);
    st = openai_write_prompt(&b, text.data, text.len, &err);
    buf_fini(&text);
    reply(x, &b, st, &err);
}

/* --- what other servers have and this one has not ----------------------------------------------
 */

/* 404 as for any other path, and not 501, which OpenAI's clients would try again. */
static void not_offered(struct exchange *x)
{
    exchange_fail(x, 404, "unsupported",
                  "embeddings, audio and images are not offered: this server answers text with "
                  "text (GET / lists what there is)");
}

/* --- health and the front page -----------------------------------------------------------------
 */

static void live(struct exchange *x)
{
    static const char words[] = "{\"status\":\"live\"}";
    exchange_reply(x, 200, "application/json", words, sizeof words - 1);
}

static void ready(struct exchange *x)
{
    static const char words[] = "{\"status\":\"ready\"}";
    struct error err;
    struct buf b;
    if (core_ready(x->core, &err) == OK) {
        exchange_reply(x, 200, "application/json", words, sizeof words - 1);
        return;
    }
    buf_init(&b, MAX_ANSWER_BYTES);
    buf_puts(&b, "{\"status\":\"not ready\",\"reason\":", NULL);
    buf_json_string(&b, err.msg, strlen(err.msg), NULL);
    buf_puts(&b, "}", NULL);
    exchange_reply(x, 503, "application/json", b.data, b.len);
    buf_fini(&b);
}

static void metrics(struct exchange *x)
{
    struct buf b;
    struct error err;
    buf_init(&b, METRICS_MAX_PAGE_BYTES);
    if (metrics_page(x->core, &b, &err) == OK)
        exchange_reply(x, 200, "text/plain; version=0.0.4; charset=utf-8", b.data, b.len);
    else
        exchange_fail(x, 500, NULL, err.msg);
    buf_fini(&b);
}

/* What groups and ranks do, for the page's view of an operator. */
static void operator_status(struct exchange *x)
{
    struct buf b;
    struct error err;
    buf_init(&b, STATUS_JSON_MAX_BYTES);
    exchange_header(x, "Cache-Control", "no-store");
    enum status st = status_json(x->core, &b, &err);
    reply(x, &b, st, &err);
}

static void experts(struct exchange *x)
{
    struct buf b;
    struct error err;
    buf_init(&b, STATUS_JSON_MAX_BYTES);
    exchange_header(x, "Cache-Control", "no-store");
    enum status st = status_experts(x->core, x->rest, &b, &err);
    if (st == ERR_NOT_FOUND) {
        exchange_fail(x, 404, "not_found", err.msg);
        buf_fini(&b);
        return;
    }
    reply(x, &b, st, &err);
}

/* The page for browsers, words for everyone else. */
static void front(struct exchange *x)
{
    static const char words[] = "Witan " WITAN_VERSION
                                ": an inference server with an OpenAI-compatible API.\n"
                                "\n"
                                "POST /v1/chat/completions   answers to conversations\n"
                                "POST /v1/completions        continuations of text\n"
                                "POST /v1/responses          OpenAI's newer form of these\n"
                                "POST /v1/messages           Anthropic's; with count_tokens\n"
                                "POST /api/chat              Ollama's; with generate, tags, show\n"
                                "GET  /v1/models             what is served\n"
                                "POST /tokenize              text or messages to token ids\n"
                                "POST /detokenize            token ids to text\n"
                                "GET  /health/live           does this process answer\n"
                                "GET  /health/ready          does the model answer\n"
                                "GET  /metrics               figures for Prometheus\n"
                                "GET  /admin/status          groups and ranks as JSON\n"
                                "GET  /admin/experts/GROUP   how experts are used, as JSON\n"
                                "GET  /                      in a browser: a page to chat and to "
                                "look at groups\n";
    exchange_header(x, "Vary", "Accept");
    if (page_wanted(x)) {
        page_front(x);
        return;
    }
    exchange_reply(x, 200, "text/plain; charset=utf-8", words, sizeof words - 1);
}

const struct http_route http_routes[] = {
    {HTTP_POST, "/v1/chat/completions", AUTH_GENERATE, http_chat, &dialect_openai_chat},
    {HTTP_POST, "/v1/completions", AUTH_GENERATE, http_completion, &dialect_openai_completion},
    {HTTP_POST, "/v1/messages", AUTH_GENERATE, http_chat, &dialect_anthropic},
    {HTTP_POST, "/v1/messages/count_tokens", AUTH_GENERATE, count_tokens, &dialect_anthropic},
    {HTTP_POST, "/v1/responses", AUTH_GENERATE, http_chat, &dialect_responses},
    {HTTP_POST, "/api/chat", AUTH_GENERATE, http_ollama_ask, &dialect_ollama_chat},
    {HTTP_POST, "/api/generate", AUTH_GENERATE, http_ollama_ask, &dialect_ollama_generate},
    {HTTP_GET, "/api/tags", AUTH_GENERATE, http_ollama_tags, &dialect_ollama_chat},
    {HTTP_GET, "/api/ps", AUTH_GENERATE, http_ollama_tags, &dialect_ollama_chat},
    {HTTP_POST, "/api/show", AUTH_GENERATE, http_ollama_show, &dialect_ollama_chat},
    {HTTP_GET, "/api/version", AUTH_GENERATE, http_ollama_version, &dialect_ollama_chat},
    {HTTP_POST, "/api/*", AUTH_GENERATE, http_ollama_refuse, &dialect_ollama_chat},
    {HTTP_GET, "/v1/models", AUTH_GENERATE, models, NULL},
    {HTTP_GET, "/v1/models/*", AUTH_GENERATE, model, NULL},
    {HTTP_POST, "/v1/embeddings", AUTH_GENERATE, not_offered, NULL},
    {HTTP_POST, "/v1/audio/*", AUTH_GENERATE, not_offered, NULL},
    {HTTP_POST, "/v1/images/*", AUTH_GENERATE, not_offered, NULL},
    {HTTP_POST, "/tokenize", AUTH_GENERATE, tokenize, &dialect_openai_chat},
    {HTTP_POST, "/detokenize", AUTH_GENERATE, detokenize, &dialect_openai_chat},
    {HTTP_GET, "/health/live", 0, live, NULL},
    {HTTP_GET, "/health/ready", 0, ready, NULL},
    {HTTP_GET, "/metrics", AUTH_ADMIN, metrics, NULL},
    {HTTP_GET, "/admin/status", AUTH_ADMIN, operator_status, NULL},
    {HTTP_GET, "/admin/experts/*", AUTH_ADMIN, experts, NULL},
    {HTTP_GET, "/page/*", 0, page_file, NULL},
    {HTTP_GET, "/", 0, front, NULL},
};
const size_t http_route_count = COUNT_OF(http_routes);
