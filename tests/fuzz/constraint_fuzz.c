/*
 * Any bytes as an answer that must be a JSON object, or a call: one of some heads, an object and a
 * tail, or parameters in Qwen3-Coder's XML. The first byte says which and what may come before it;
 * for a call tail and heads follow, with tabs between them, as far as the second byte says. As far
 * as the bytes of the answer are taken, as many more as constraint_closing says make it whole, what
 * is whole is an object for jansson, and around it stand a head and the tail.
 */
#include "base/check.h"
#include "partition/constraint.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_PARTS = 9, RUN_BYTES = 6 };
enum shape { OBJECT, HERMES, ANY_HEADS, CODER, SHAPES };

/* --- heads and tail ----------------------------------------------------------------------------
 */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What stands between the tabs of `text`; the first is the tail, the others are sorted. */
static int parts_of(char *text, char *parts[MAX_PARTS])
{
    int count = 0;
    for (char *at = text; at && count < MAX_PARTS; count++) {
        parts[count] = at;
        at = strchr(at, '\t');
        if (at)
            *at++ = '\0';
    }
    qsort(parts + 1, (size_t)(count - 1), sizeof *parts, by_text);
    return count;
}

/* As calls_must writes it, but with these parts; of CODER's heads each ends in its parameters. */
static char *text_of(const uint8_t *data, size_t size, enum shape shape, struct constraint *c)
{
    const char *before = shape == HERMES  ? "<tool_call>\n{\"name\": \""
                         : shape == CODER ? "<tool_call>\n<function="
                                          : "";
    const char *behind = shape == HERMES ? "\", \"arguments\": " : "";
    char *parts[MAX_PARTS], *own = check_calloc(1, size + 1);
    memcpy(own, data, size);
    int count = parts_of(own, parts);
    char *text = check_calloc(1, size + MAX_PARTS * 50), *at = text;
    for (int i = 0; i < count; i++) {
        const char *words[] = {i > 0            ? before
                               : shape == CODER ? "</"
                                                : "",
                               parts[i], i > 0 ? behind : ""};
        for (size_t k = 0; k < 3; k++)
            at = stpcpy(at, words[k]);
        at++;
    }
    free(own);
    c->kind = shape == CODER ? CONSTRAINT_CODER : CONSTRAINT_CALL;
    c->text = text;
    c->text_len = (uint32_t)(at - text);
    c->heads = (uint16_t)(count - 1);
    return text;
}

/* --- answers -----------------------------------------------------------------------------------
 */

/* What has been taken, and where in it the object stands. */
struct answer {
    char *text;
    size_t len, begin, end;
    bool inside;
};

static void add(struct answer *a, const struct constraint *c, const struct constraint_state *s,
                unsigned char byte)
{
    a->text[a->len++] = (char)byte;
    if (constraint_is_free(s)) {
        a->end = a->inside && a->end == 0 ? a->len : a->end;
    } else if (!a->inside) { /* the last byte of a head, or the object's first */
        a->inside = true;
        a->begin = c->heads > 0 ? a->len : a->len - 1;
    }
}

/* The byte that brings a state one nearer to its end. */
static unsigned char nearer(const struct constraint *c, struct constraint_state *s)
{
    int32_t left = constraint_closing(c, s);
    for (int b = 0; b < 256; b++) {
        struct constraint_state next = *s;
        if (constraint_take(c, &next, (unsigned char)b) &&
            constraint_closing(c, &next) == left - 1) {
            *s = next;
            return (unsigned char)b;
        }
    }
    CHECK(false, "no byte leads to the end, %d away", left);
    return 0;
}

/* What may run on leads to the state to which any such text does. */
static void check_run(const struct constraint *c, const struct constraint_state *s,
                      const uint8_t *bytes, size_t len)
{
    enum constraint_run run = constraint_run(s);
    len = len < RUN_BYTES ? len : RUN_BYTES;
    if (run == CONSTRAINT_NO_RUN || len == 0 || !constraint_runs_on(run, bytes, len))
        return;
    struct constraint_state any = *s, plain = *s;
    for (size_t i = 0; i < len; i++)
        CHECK(constraint_take(c, &any, bytes[i]), "byte %zu of a run", i);
    CHECK(constraint_take(c, &plain, 'x') && memcmp(&any, &plain, sizeof any) == 0,
          "two texts of a run lead to different states");
}

static void check_whole(const struct constraint *c, const struct answer *a)
{
    json_error_t error;
    size_t end = a->end > 0 ? a->end : a->len;
    json_t *v = json_loadb(a->text + a->begin, end - a->begin, 0, &error);
    CHECK(json_is_object(v), "%.*s: %s", (int)(end - a->begin), a->text + a->begin, error.text);
    json_decref(v);
    const char *s = c->text;
    bool headed = c->heads == 0;
    for (int i = 0; i <= c->heads && s; i++, s += strlen(s) + 1) {
        size_t n = strlen(s);
        if (i == 0)
            CHECK(a->len - end == n && memcmp(a->text + end, s, n) == 0, "not the tail");
        else
            headed |= a->begin >= n && memcmp(a->text + a->begin - n, s, n) == 0;
    }
    CHECK(headed, "no head stands before the object");
}

static void check(const struct constraint *c, const uint8_t *data, size_t size)
{
    struct constraint_state s;
    constraint_start(c, &s);
    /* Whatever was taken, what is missing is as much as at first, and one parameter more. */
    struct answer a = {.text = check_calloc(1, size + 4 * (size_t)c->text_len + 4096)};
    CHECK(constraint_least_tokens(c) == constraint_closing(c, &s) + 1, "the least");
    for (size_t i = 0; i < size; i++) {
        struct constraint_state next = s;
        int32_t before = constraint_closing(c, &s);
        check_run(c, &s, data + i, size - i);
        if (!constraint_take(c, &next, data[i]))
            break;
        CHECK(constraint_closing(c, &next) >= before - 1, "%d after %d",
              constraint_closing(c, &next), before);
        s = next;
        add(&a, c, &s, data[i]);
    }
    for (int32_t left = constraint_closing(c, &s); left > 0; left--) {
        unsigned char byte = nearer(c, &s);
        add(&a, c, &s, byte);
    }
    CHECK(constraint_closing(c, &s) == 0 && !constraint_take(c, &s, ' '), "the end is not the end");
    size_t tail = c->kind == CONSTRAINT_CODER ? strlen(c->text) : 0;
    if (c->kind != CONSTRAINT_CODER)
        check_whole(c, &a);
    CHECK(a.len >= tail && (tail == 0 || memcmp(a.text + a.len - tail, c->text, tail) == 0),
          "not the tail");
    free(a.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct shaping none;
    if (size < 2)
        return 0;
    struct constraint c = {.kind = CONSTRAINT_JSON_OBJECT,
                           .thought = data[0] % CONSTRAINT_THOUGHTS};
    enum shape shape = (enum shape)(data[0] / CONSTRAINT_THOUGHTS % SHAPES);
    if (shape == OBJECT) {
        check(&c, data + 1, size - 1);
        return 0;
    }
    size_t parts = data[1] < size - 2 ? data[1] : size - 2;
    char *text = text_of(data + 2, parts, shape, &c);
    if (constraint_check(&c, &none, false, 0, NULL) == OK)
        check(&c, data + 2 + parts, size - 2 - parts);
    free(text);
    return 0;
}
