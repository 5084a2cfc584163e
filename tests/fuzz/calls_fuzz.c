/*
 * Any bytes as an answer that may hold tool calls, in any pieces. Beside the sanitizers it checks
 * that pieces make no difference, also to what is told before the end; that a call that is told as
 * whole has arguments that are one JSON object, and one that broke off has none; that what was told
 * as whole is taken back by every template; and that without a call all of the text is content.
 */
#include "base/check.h"
#include "coordinator/calls.h"
#include "coordinator/text/template.h"

#include <stdint.h>
#include <string.h>

enum { LIMIT_BYTES = 16 << 20 };

static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{"
    "\"i\":{\"type\":\"integer\"},\"n\":{\"type\":[\"null\",\"number\"]},\"b\":{\"type\":"
    "\"boolean\"},\"o\":{\"type\":\"object\"},\"a\":{\"type\":\"array\"},\"s\":{\"type\":"
    "\"string\"},"
    "\"t\":{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}}}}}]";

/* Told pieces in words: a NUL, a letter and the call's number before each kind. */
struct words {
    struct buf text;
    int32_t open; /* -1: content */
    struct buf arguments;
    bool called;
    bool checks; /* that calls are taken back */
};

/* A whole call as an earlier one of a conversation. Text that is no UTF-8 never gets here. */
static void check_taken(const char *json, size_t len)
{
    static const enum template_kind kinds[] = {TEMPLATE_QWEN3, TEMPLATE_QWEN2_5,
                                               TEMPLATE_QWEN3_CODER};
    struct error err;
    json_t *arguments = json_stringn(json, len), *normal = NULL;
    if (!arguments)
        return;
    json_t *messages = json_pack("[{s:s, s:s}, {s:s, s:[{s:s, s:o}]}]", "role", "user", "content",
                                 "u", "role", "assistant", "tool_calls", "name", "f", "arguments",
                                 arguments);
    CHECK(template_normalise(messages, &normal, &err) == OK, "%s", err.msg);
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        struct template_rendered r;
        CHECK(template_render(kinds[i], normal, NULL, NULL, LIMIT_BYTES, &r, &err) == OK, "%s",
              err.msg);
        template_rendered_fini(&r);
    }
    json_decref(normal);
    json_decref(messages);
}

static void close_call(struct words *w, bool whole)
{
    const char *json = w->arguments.data ? w->arguments.data : "";
    bool object = w->arguments.len > 0 && *json == '{' &&
                  json_scan_text(json, w->arguments.len, false);
    CHECK(object == whole, "call %d", w->open);
    if (whole && w->checks)
        check_taken(json, w->arguments.len);
    buf_clear(&w->arguments);
    w->open = -1;
}

static void take(struct words *w, struct calls *c)
{
    struct error err;
    for (size_t i = 0; i < c->count; i++) {
        const struct call_piece *p = &c->pieces[i];
        if (w->open >= 0 && p->index != w->open)
            close_call(w, false);
        CHECK(p->named == (p->index >= 0 && p->index != w->open), "call %d", p->index);
        if (p->named)
            buf_printf(&w->text, &err, "{%d %s|", p->index, c->out.data + p->name);
        w->called = w->called || p->named;
        w->open = p->index;
        buf_append(&w->text, c->out.data + p->begin, p->len, &err);
        if (p->index >= 0)
            buf_append(&w->arguments, c->out.data + p->begin, p->len, &err);
        if (p->end) {
            buf_puts(&w->text, "}", &err);
            close_call(w, true);
        }
    }
    calls_clear(c);
}

/* Pieces of lengths that `seed` says, 0: whole. */
static void tell(enum call_format format, const json_t *schema, const char *text, size_t len,
                 uint32_t seed, bool flush, struct words *w)
{
    struct calls c;
    struct error err;
    bool whole = seed == 0;
    *w = (struct words){.open = -1, .checks = whole && flush};
    buf_init(&w->text, LIMIT_BYTES);
    buf_init(&w->arguments, LIMIT_BYTES);
    calls_init(&c, format, schema, false);
    for (size_t at = 0, n; at < len; at += n) {
        seed = seed * 1664525u + 1013904223u;
        n = whole ? len : 1 + (seed >> 24) % 9;
        n = n < len - at ? n : len - at;
        CHECK(calls_push(&c, text + at, n, &err) == OK, "%s", err.msg);
        take(w, &c);
    }
    if (flush) {
        CHECK(calls_flush(&c, &err) == OK, "%s", err.msg);
        take(w, &c);
        if (w->open >= 0)
            close_call(w, false);
        CHECK(c.text.len == 0, "%zu bytes are left", c.text.len);
    }
    CHECK(c.begun <= CALLS_MAX && c.whole <= c.begun, "%d calls", c.begun);
    calls_fini(&c);
}

static void words_fini(struct words *w)
{
    buf_fini(&w->text);
    buf_fini(&w->arguments);
}

static void compare(const struct words *a, const struct words *b)
{
    CHECK(a->text.len == b->text.len &&
              (a->text.len == 0 || memcmp(a->text.data, b->text.data, a->text.len) == 0),
          "%zu and %zu bytes", a->text.len, b->text.len);
}

static void check(enum call_format format, const json_t *schema, const char *text, size_t len,
                  uint32_t seed)
{
    struct words whole, split, part, begun;
    tell(format, schema, text, len, 0, true, &whole);
    tell(format, schema, text, len, seed, true, &split);
    compare(&whole, &split);
    size_t some = len > 0 ? seed % (len + 1) : 0;
    tell(format, schema, text, some, 0, false, &part);
    tell(format, schema, text, some, seed, false, &begun);
    compare(&part, &begun);
    CHECK(part.text.len <= whole.text.len, "%zu bytes were taken back", part.text.len);
    CHECK(part.text.len == 0 || memcmp(part.text.data, whole.text.data, part.text.len) == 0,
          "what was told changed");
    CHECK(whole.called ||
              (whole.text.len == len && (len == 0 || memcmp(whole.text.data, text, len) == 0)),
          "%zu of %zu bytes", whole.text.len, len);
    words_fini(&whole);
    words_fini(&split);
    words_fini(&part);
    words_fini(&begun);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static json_t *schema;
    if (!schema)
        schema = json_loads(tools, 0, NULL);
    CHECK(schema, "the schema");
    if (size < 2)
        return 0;
    uint32_t seed = 1 + data[0] + 256u * data[1];
    check(CALLS_HERMES, schema, (const char *)data + 2, size - 2, seed);
    check(CALLS_CODER, schema, (const char *)data + 2, size - 2, seed);
    return 0;
}
