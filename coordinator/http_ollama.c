/* Ollama's API: see http_ollama.h. No state. */
#include "coordinator/http_ollama.h"
#include "base/check.h"
#include "coordinator/calls.h"
#include "coordinator/dialect.h"
#include "coordinator/http_api.h"
#include "coordinator/ollama_request.h"
#include "partition/weight_format.h"
#include "proto/versions.h"

#include <time.h>

enum {
    MAX_ANSWER_BYTES = 1 << 20,
    MAX_LOADING_BYTES = 4096, /* of a body that only wants the model loaded */
};

/* Takes `v` over; NULL: no memory. */
static void reply(struct exchange *x, json_t *v)
{
    struct buf b;
    struct error err;
    buf_init(&b, MAX_ANSWER_BYTES);
    if (dialect_put(&b, v, &err) == OK)
        exchange_reply(x, 200, "application/json", b.data, b.len);
    else
        exchange_fail(x, 500, NULL, err.msg);
    buf_fini(&b);
}

/* --- the model ---------------------------------------------------------------------------------
 */

struct size {
    int64_t parameters, bytes;
};

/* Of the checkpoint as its config has it. */
static struct size size_of(const struct model_config *c)
{
    struct size s = {0};
    struct inventory *inv;
    if (inventory_create(c, &inv, NULL) != OK)
        return s;
    for (int32_t i = 0; i < inv->count; i++) {
        const struct weight *w = &inv->weights[i];
        int64_t count = w->rows * w->cols;
        s.parameters += count;
        s.bytes += w->quantized ? count * c->quant.bits / 8 : count * (int64_t)dtype_size(w->dtype);
    }
    inventory_destroy(inv);
    return s;
}

static const char *family_of(const struct model_config *c)
{
    return c->experts > 0 ? "qwen3moe" : c->qk_norm ? "qwen3" : "qwen2";
}

static json_t *details_of(const struct model_config *c, int64_t parameters)
{
    const char *family = family_of(c);
    char words[32];
    if (parameters >= 1000000000)
        snprintf(words, sizeof words, "%.1fB", (double)parameters / 1e9);
    else
        snprintf(words, sizeof words, "%.2fM", (double)parameters / 1e6);
    return json_pack("{s:s, s:s, s:[s], s:s, s:s}", "parent_model", "", "family", family,
                     "families", family, "parameter_size", words, "quantization_level",
                     c->quant.format == FORMAT_PLAIN ? dtype_name(c->dtype)
                                                     : weight_format_name(c->quant.format));
}

static json_t *time_of(const struct served *s)
{
    char words[32];
    time_t t = (time_t)s->created;
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(words, sizeof words, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_string(words);
}

void http_ollama_tags(struct exchange *x)
{
    const struct served *s = &x->core->served;
    struct size size = size_of(&s->config);
    reply(x, json_pack("{s:[{s:s, s:s, s:o, s:I, s:s, s:o}]}", "models", "name", s->name, "model",
                       s->name, "modified_at", time_of(s), "size", (json_int_t)size.bytes, "digest",
                       s->manifest ? manifest_digest(s->manifest) : "", "details",
                       details_of(&s->config, size.parameters)));
}

/* Adds "FAMILY.NAME": n. */
static void put_info(json_t *info, const char *family, const char *name, int64_t n)
{
    char key[64];
    snprintf(key, sizeof key, "%s.%s", family, name);
    json_object_set_new(info, key, json_integer((json_int_t)n));
}

static json_t *info_of(const struct served *s, int64_t parameters)
{
    const struct model_config *c = &s->config;
    const char *family = family_of(c);
    json_t *info = json_pack("{s:s, s:I}", "general.architecture", family,
                             "general.parameter_count", (json_int_t)parameters);
    put_info(info, family, "context_length", s->context);
    put_info(info, family, "block_count", c->layers);
    put_info(info, family, "embedding_length", c->hidden);
    put_info(info, family, "attention.head_count", c->q_heads);
    put_info(info, family, "attention.head_count_kv", c->kv_heads);
    if (c->experts > 0)
        put_info(info, family, "expert_count", c->experts);
    return info;
}

static json_t *capabilities_of(const struct chat_text *text)
{
    json_t *list = json_pack("[s]", "completion");
    enum template_kind t = text ? text->template : TEMPLATE_COUNT;
    if (calls_format(t) != CALLS_NONE)
        json_array_append_new(list, json_string("tools"));
    if (t == TEMPLATE_QWEN3 || t == TEMPLATE_QWEN3_REV || t == TEMPLATE_QWEN3_THINKING_2507)
        json_array_append_new(list, json_string("thinking"));
    return list;
}

/* "model", or what older clients call so. False: answered with an error. */
static bool read_name(struct exchange *x, json_t **root)
{
    const char *body;
    size_t len;
    struct error err;
    exchange_body(x, &body, &len);
    if (openai_body_parse(body, len, root, &err) != OK) {
        http_refuse(x, &err);
        return false;
    }
    const json_t *name = json_object_get(*root, "model");
    if (!name)
        name = json_object_get(*root, "name");
    if (json_is_string(name) && http_check_model(x, json_string_value(name)))
        return true;
    if (!json_is_string(name))
        exchange_fail(x, 400, NULL, "model: expected a string");
    json_decref(*root);
    return false;
}

void http_ollama_show(struct exchange *x)
{
    json_t *root;
    const struct served *s = &x->core->served;
    if (!read_name(x, &root))
        return;
    json_decref(root);
    struct size size = size_of(&s->config);
    reply(x, json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o}", "modelfile", "", "parameters", "",
                       "template", "", "details", details_of(&s->config, size.parameters),
                       "model_info", info_of(s, size.parameters), "capabilities",
                       capabilities_of(s->text), "modified_at", time_of(s)));
}

void http_ollama_version(struct exchange *x)
{
    reply(x, json_pack("{s:s}", "version", WITAN_VERSION));
}

void http_ollama_refuse(struct exchange *x)
{
    exchange_fail(x, 501, "unsupported",
                  "this server serves one model, which its operator gave it: it pulls, pushes, "
                  "makes, copies and embeds nothing");
}

/* --- asking ------------------------------------------------------------------------------------
 */

static void tell_loaded(struct exchange *x)
{
    const struct served *s = &x->core->served;
    bool chat = x->dialect == &dialect_ollama_chat;
    reply(x, json_pack("{s:s, s:o, s:b, s:s, s:o}", "model", s->name, "created_at", time_of(s),
                       "done", 1, "done_reason", "load", chat ? "message" : "response",
                       chat ? json_pack("{s:s, s:s}", "role", "assistant", "content", "")
                            : json_string("")));
}

void http_ollama_ask(struct exchange *x)
{
    const char *body;
    size_t len;
    json_t *root = NULL;
    exchange_body(x, &body, &len);
    bool loads = len <= MAX_LOADING_BYTES && openai_body_parse(body, len, &root, NULL) == OK &&
                 ollama_only_loads(root);
    json_decref(root);
    if (!loads) {
        http_chat(x);
    } else if (read_name(x, &root)) {
        json_decref(root);
        tell_loaded(x);
    }
}
