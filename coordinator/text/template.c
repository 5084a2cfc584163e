/* Which template a checkpoint has, and rendering with it: see template.h. No state. */
#include "coordinator/text/template.h"
#include "base/check.h"
#include "base/file.h"
#include "base/json.h"
#include "coordinator/text/gguf_words.h"
#include "coordinator/text/template_family.h"
#include "partition/manifest.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SOURCE_LIMIT_BYTES = 1 << 20,
    CONFIG_LIMIT_BYTES = 16 << 20,
    MAX_FOLDER_BYTES = 4000, /* of its path */
    SHA256_HEX = 64,
};

/* ---- names and sums ---- */

struct known {
    const char *name;
    const char *sha256; /* of the source as Qwen published it, a last newline included */
};

/* Qwen3Guard-Gen's sum is of a copy of its text; what the copy renders is what its tokenizer gave.
 */
static const struct known known[TEMPLATE_COUNT] = {
    [TEMPLATE_QWEN3] = {"qwen3",
                        "87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5"},
    [TEMPLATE_QWEN3_REV] = {"qwen3-rev",
                            "a55ee1b1660128b7098723e0abcd92caa0788061051c62d51cbe87d9cf1974d8"},
    [TEMPLATE_QWEN3_INSTRUCT_2507] =
        {"qwen3-instruct-2507", "64f85b198065d0fba2a81f37e10ed68161ce2c19a754c7100e67e0ca2ee9c326"},
    [TEMPLATE_QWEN3_THINKING_2507] =
        {"qwen3-thinking-2507", "3802169b2a02b81e6adb7ab4f64f91ff02db753c8c3a64a01c35192d3a61d8d7"},
    [TEMPLATE_QWEN3_CODER] = {"qwen3-coder",
                              "5a38bfa05833266240066aedc497decc9b00cc0d3e3b8cceea98cf530196ab06"},
    [TEMPLATE_QWEN2_5] = {"qwen2.5",
                          "cd8e9439f0570856fd70470bf8889ebd8b5d1107207f67a5efb46e342330527f"},
    [TEMPLATE_QWEN3GUARD_GEN] =
        {"qwen3guard-gen", "5a2916bcb33134c7c35604276162f21e4a4be9f382fb9a9968c9894f48328fd3"},
};

const char *template_name(enum template_kind kind)
{
    CHECK(kind < TEMPLATE_COUNT, "kind %d", (int)kind);
    return known[kind].name;
}

enum status template_by_name(const char *name, enum template_kind *kind, struct error *err)
{
    char names[256];
    size_t len = 0;
    for (int i = 0; i < TEMPLATE_COUNT; i++) {
        if (strcmp(name, known[i].name) == 0) {
            *kind = (enum template_kind)i;
            return OK;
        }
        len += (size_t)snprintf(names + len, sizeof names - len, "%s%s", i ? ", " : "",
                                known[i].name);
    }
    return error_set(err, ERR_NOT_FOUND, "template: expected one of %s, found \"%.80s\"", names,
                     name);
}

/* ---- by source ---- */

static enum status sha256_hex(const char *data, size_t len, const char *tail,
                              char hex[SHA256_HEX + 1], struct error *err)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned int sum_len = 0;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool done = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) &&
                EVP_DigestUpdate(ctx, data, len) && EVP_DigestUpdate(ctx, tail, strlen(tail)) &&
                EVP_DigestFinal_ex(ctx, sum, &sum_len);
    EVP_MD_CTX_free(ctx);
    if (!done || sum_len * 2 != SHA256_HEX)
        return error_set(err, ERR_NO_MEMORY, "SHA-256 of the chat template failed");
    for (unsigned i = 0; i < sum_len; i++)
        snprintf(hex + (size_t)i * 2, 3, "%02x", sum[i]);
    return OK;
}

static bool find_sum(const char *hex, enum template_kind *kind)
{
    for (int i = 0; i < TEMPLATE_COUNT; i++) {
        if (strcmp(hex, known[i].sha256) == 0) {
            *kind = (enum template_kind)i;
            return true;
        }
    }
    return false;
}

static enum status refuse_source(const char *hex, struct error *err)
{
    char list[400];
    size_t len = 0;
    for (int i = 0; i < TEMPLATE_COUNT; i++)
        len += (size_t)snprintf(list + len, sizeof list - len, "%s%s (%.8s)", i ? ", " : "",
                                known[i].name, known[i].sha256);
    return error_set(err, ERR_UNSUPPORTED,
                     "unknown chat template with SHA-256 %s; known are %s; if it is an edited copy "
                     "of one of these, name that one with --template",
                     hex, list);
}

enum status template_by_source(const char *source, size_t len, enum template_kind *kind,
                               struct error *err)
{
    size_t bare = len && source[len - 1] == '\n' ? len - 1 : len;
    char hex[SHA256_HEX + 1];
    char with_newline[SHA256_HEX + 1];
    TRY(sha256_hex(source, bare, "", hex, err));
    TRY(sha256_hex(source, bare, "\n", with_newline, err));
    if (find_sum(hex, kind) || find_sum(with_newline, kind))
        return OK;
    return refuse_source(bare == len ? hex : with_newline, err);
}

/* ---- by folder ---- */

static enum status no_template(const char *dir, struct error *err)
{
    return error_set(err, ERR_NOT_FOUND,
                     "%s: no chat template: expected chat_template.jinja, chat_template in "
                     "tokenizer_config.json, or tokenizer.chat_template in a GGUF",
                     dir);
}

/* The template's string in tokenizer_config.json's `value`: itself, or the list's "default". */
static enum status source_in_config(const char *path, const json_t *value, const json_t **source,
                                    struct error *err)
{
    *source = value;
    if (json_is_string(value))
        return OK;
    if (!json_is_array(value))
        return error_set(err, ERR_INVALID,
                         "%s: chat_template: expected a string or an array, found %s", path,
                         json_type_words(value));
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *name = json_object_get(json_array_get(value, i), "name");
        *source = json_object_get(json_array_get(value, i), "template");
        if (json_is_string(name) && json_is_string(*source) &&
            strcmp(json_string_value(name), "default") == 0)
            return OK;
    }
    return error_set(
        err, ERR_INVALID,
        "%s: chat_template: expected {\"name\": \"default\", \"template\": \"...\"} in "
        "the list of %zu, found none",
        path, json_array_size(value));
}

enum status template_in_gguf(const struct gguf_words *w, enum template_kind *kind,
                             struct error *err)
{
    static const char key[] = "tokenizer.chat_template";
    char *source = NULL;
    struct gguf_place place;
    if (!gguf_has(w->gguf, key))
        return no_template(w->what, err);
    TRY(gguf_words_read(w, key, GGUF_STRING, SOURCE_LIMIT_BYTES, &source, &place, err));
    enum status st = template_by_source(source, (size_t)place.bytes, kind, err);
    free(source);
    if (st != OK)
        error_prefix(err, "%s: %s: ", w->what, key);
    return st;
}

static enum status detect_in_gguf(const char *dir, const struct manifest *manifest,
                                  enum template_kind *kind, struct error *err)
{
    struct gguf_words w;
    if (!checkpoint_is_gguf(dir, manifest))
        return no_template(dir, err);
    TRY(gguf_words_open(dir, manifest, &w, err));
    enum status st = template_in_gguf(&w, kind, err);
    gguf_words_close(&w);
    return st;
}

static enum status detect_in_config(const char *dir, const struct file_proof *proof,
                                    enum template_kind *kind, struct error *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    json_t *root = NULL;
    char *text;
    size_t len;
    enum status st = file_read_proven(dir, "tokenizer_config.json", proof, CONFIG_LIMIT_BYTES,
                                      &text, &len, err);
    if (st == ERR_NOT_FOUND)
        return no_template(dir, err);
    TRY(st);
    st = json_parse(path, text, len, &root, err);
    free(text);
    TRY(st);
    const json_t *value = json_object_get(root, "chat_template");
    const json_t *source = NULL;
    if (!value || json_is_null(value))
        st = no_template(dir, err);
    else
        st = source_in_config(path, value, &source, err);
    if (st == OK) {
        st = template_by_source(json_string_value(source), json_string_length(source), kind, err);
        if (st != OK)
            error_prefix(err, "%s: ", path);
    }
    json_decref(root);
    return st;
}

enum status template_detect(const char *dir, enum template_kind *kind, struct error *err)
{
    return template_detect_proven(dir, NULL, kind, err);
}

static enum status detect_in_file(const char *dir, const struct file_proof *proof,
                                  enum template_kind *kind, struct error *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/chat_template.jinja", dir);
    char *source = NULL;
    size_t len = 0;
    TRY(file_read_proven(dir, "chat_template.jinja", proof, SOURCE_LIMIT_BYTES, &source, &len,
                         err));
    enum status st = template_by_source(source, len, kind, err);
    if (st != OK)
        error_prefix(err, "%s: ", path);
    free(source);
    return st;
}

enum status template_detect_proven(const char *dir, const struct manifest *manifest,
                                   enum template_kind *kind, struct error *err)
{
    static const struct {
        enum status (*detect)(const char *dir, const struct file_proof *proof,
                              enum template_kind *kind, struct error *err);
        const char *file;
    } places[] = {
        {detect_in_file, "chat_template.jinja"},
        {detect_in_config, "tokenizer_config.json"},
    };
    const struct file_proof *proof = manifest_proof(manifest);
    if (strlen(dir) > MAX_FOLDER_BYTES)
        return error_set(err, ERR_INVALID, "the folder's path is longer than %d bytes",
                         MAX_FOLDER_BYTES);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        enum status st = places[i].detect(dir, proof, kind, err);
        if (st == OK)
            gguf_words_say_file_wins(dir, manifest, places[i].file);
        if (st != ERR_NOT_FOUND)
            return st;
    }
    return detect_in_gguf(dir, manifest, kind, err);
}

/* ---- rendering ---- */

static enum status read_tools(const json_t *tools, const json_t **out, struct error *err)
{
    *out = NULL;
    if (!tools || json_is_null(tools))
        return OK;
    if (!json_is_array(tools))
        return template_mistyped("tools", "an array or null", tools, err);
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *tool = json_array_get(tools, i);
        if (!json_is_object(tool))
            return error_set(err, ERR_INVALID, "tools[%zu]: expected an object, found %s", i,
                             json_type_words(tool));
    }
    if (json_array_size(tools))
        *out = tools;
    return OK;
}

static enum status read_kwargs(const json_t *kwargs, struct template_input *in, struct error *err)
{
    if (!kwargs || json_is_null(kwargs))
        return OK;
    if (!json_is_object(kwargs))
        return template_mistyped("kwargs", "an object or null", kwargs, err);
    in->generation_prompt = template_truth(json_object_get(kwargs, "add_generation_prompt"));
    in->no_thinking = json_is_false(json_object_get(kwargs, "enable_thinking"));
    return OK;
}

static enum status render(enum template_kind kind, const struct template_input *in,
                          struct template_out *o, struct error *err)
{
    enum status st = kind == TEMPLATE_QWEN3_CODER      ? template_coder(in, o, err)
                     : kind == TEMPLATE_QWEN3GUARD_GEN ? template_guard(in, o, err)
                                                       : template_hermes(kind, in, o, err);
    if (st == ERR_LIMIT)
        error_set(err, st, "the rendered conversation: more than %zu bytes", o->text.limit);
    return st == OK ? buf_append(&o->text, "", 0, err) : st; /* never a NULL text */
}

enum status template_render(enum template_kind kind, const json_t *messages, const json_t *tools,
                            const json_t *kwargs, size_t limit_bytes, struct template_rendered *out,
                            struct error *err)
{
    CHECK(kind < TEMPLATE_COUNT, "kind %d", (int)kind);
    *out = (struct template_rendered){0};
    struct template_input in = {0};
    TRY(read_tools(tools, &in.tools, err));
    TRY(read_kwargs(kwargs, &in, err));
    TRY(template_conversation_init(&in.conversation, messages, err));
    struct template_out o = {0};
    buf_init(&o.text, limit_bytes);
    enum status st = render(kind, &in, &o, err);
    template_conversation_fini(&in.conversation);
    if (st != OK) {
        buf_fini(&o.text);
        free(o.spans);
        return st;
    }
    *out = (struct template_rendered){
        .text = o.text.data, .len = o.text.len, .spans = o.spans, .span_count = o.span_count};
    return OK;
}

void template_rendered_fini(struct template_rendered *r)
{
    free(r->text);
    free(r->spans);
    *r = (struct template_rendered){0};
}

bool template_prompt_ends_in_reasoning(const struct template_rendered *r)
{
    if (!r->span_count)
        return false;
    struct template_span last = r->spans[r->span_count - 1];
    return last.end - last.begin == strlen("<think>") &&
           memcmp(r->text + last.begin, "<think>", strlen("<think>")) == 0;
}
