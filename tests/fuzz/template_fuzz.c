/*
 * Any bytes as a conversation: what parses is rendered with every template, plain and normalised.
 * Beside the sanitizers it checks that spans are special tokens, that no byte of one comes from the
 * conversation, that a second rendering gives the same, and that a limit of the text's own length
 * is enough and one byte less is not.
 */
#include "base/check.h"
#include "coordinator/text/template.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LIMIT_BYTES = 1 << 20 };

static void check_spans(const struct template_rendered *r)
{
    size_t end = 0;
    for (size_t i = 0; i < r->span_count; i++) {
        struct template_span s = r->spans[i];
        CHECK(s.begin >= end && s.begin < s.end && s.end <= r->len, "span %zu", i);
        CHECK(r->text[s.begin] == '<' && r->text[s.end - 1] == '>', "span %zu", i);
        end = s.end;
    }
    CHECK(r->text[r->len] == '\0', "%zu bytes", r->len);
}

static void check_limits(enum template_kind kind, const json_t *messages, const json_t *tools,
                         const json_t *kwargs, const struct template_rendered *r)
{
    struct template_rendered again;
    struct error err;
    enum status st = template_render(kind, messages, tools, kwargs, r->len, &again, &err);
    CHECK(st == OK && again.len == r->len && memcmp(again.text, r->text, r->len) == 0,
          "template %d", (int)kind);
    CHECK(again.span_count == r->span_count, "template %d", (int)kind);
    template_rendered_fini(&again);
    if (r->len) {
        st = template_render(kind, messages, tools, kwargs, r->len - 1, &again, &err);
        CHECK(st == ERR_LIMIT && !again.text && !again.spans, "template %d", (int)kind);
    }
}

static void render(const json_t *messages, const json_t *tools, const json_t *kwargs)
{
    for (int kind = 0; kind < TEMPLATE_COUNT; kind++) {
        struct template_rendered r;
        struct error err;
        enum status st = template_render((enum template_kind)kind, messages, tools, kwargs,
                                         LIMIT_BYTES, &r, &err);
        if (st != OK) {
            CHECK(!r.text && !r.spans && err.msg[0], "template %d", kind);
            continue;
        }
        check_spans(&r);
        check_limits((enum template_kind)kind, messages, tools, kwargs, &r);
        template_prompt_ends_in_reasoning(&r);
        template_rendered_fini(&r);
    }
}

static size_t span_count(const json_t *messages, const json_t *tools, const json_t *kwargs,
                         int kind)
{
    struct template_rendered r;
    struct error err;
    if (template_render((enum template_kind)kind, messages, tools, kwargs, LIMIT_BYTES, &r, &err) !=
        OK)
        return SIZE_MAX;
    size_t count = r.span_count;
    template_rendered_fini(&r);
    return count;
}

/* A conversation's text never adds a span: the count of a template that reads no tags in the text
 * is the same after each '<' of the input has become a '['. */
static void check_forging(enum template_kind kind, const uint8_t *data, size_t size,
                          const json_t *root)
{
    char *blank = malloc(size + 1);
    if (!blank)
        return;
    for (size_t i = 0; i < size; i++)
        blank[i] = data[i] == '<' ? '[' : (char)data[i];
    json_t *other = json_loadb(blank, size, JSON_ALLOW_NUL, NULL);
    free(blank);
    size_t with = span_count(json_object_get(root, "messages"), json_object_get(root, "tools"),
                             json_object_get(root, "kwargs"), kind);
    size_t without = span_count(json_object_get(other, "messages"), json_object_get(other, "tools"),
                                json_object_get(other, "kwargs"), kind);
    /* Blanking can make two keys one, or string arguments no object: then there is no comparison.
     */
    if (other && with != SIZE_MAX && without != SIZE_MAX)
        CHECK(with == without, "%zu spans, %zu without tags in the text", with, without);
    json_decref(other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum template_kind kind;
    struct error err;
    template_by_source((const char *)data, size, &kind, &err);
    json_t *root = json_loadb((const char *)data, size, JSON_ALLOW_NUL, NULL);
    if (!root)
        return 0;
    const json_t *messages = json_object_get(root, "messages");
    const json_t *tools = json_object_get(root, "tools");
    const json_t *kwargs = json_object_get(root, "kwargs");
    render(messages, tools, kwargs);
    check_forging(TEMPLATE_QWEN3_CODER, data, size, root);
    check_forging(TEMPLATE_QWEN2_5, data, size, root);
    check_forging(TEMPLATE_QWEN3GUARD_GEN, data, size, root);
    json_t *normal = NULL;
    if (template_normalise(messages, &normal, &err) == OK) {
        json_t *again = NULL;
        CHECK(template_normalise(normal, &again, &err) == OK && json_equal(normal, again),
              "normalising twice");
        render(normal, tools, kwargs);
        json_decref(again);
        json_decref(normal);
    }
    json_decref(root);
    return 0;
}
