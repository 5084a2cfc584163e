/* JSON as text: see json_text.h. */
#include "coordinator/text/json_text.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SHALLOW = 32 }; /* an object of so many levels fits in any body */

/* --- spans -------------------------------------------------------------------------------------
 */

/* Behind the string that begins at `at`; `len` where it does not end. */
static size_t string_end(const char *text, size_t len, size_t at)
{
    for (at++; at < len && text[at] != '"'; at++)
        at += text[at] == '\\';
    return at < len ? at + 1 : len;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static size_t skip_space(const char *text, size_t len, size_t at)
{
    while (at < len && is_space(text[at]))
        at++;
    return at;
}

/* Behind the object or array that begins at `at`; *deepest: levels in it. */
static size_t container_end(const char *text, size_t len, size_t at, size_t *deepest)
{
    size_t depth = 0;
    *deepest = 0;
    while (at < len) {
        char c = text[at];
        at = c == '"' ? string_end(text, len, at) : at + 1;
        depth += c == '{' || c == '[';
        *deepest = depth > *deepest ? depth : *deepest;
        if ((c == '}' || c == ']') && --depth == 0)
            break;
    }
    return at;
}

/* Behind the value that begins at `at`. */
static size_t value_end(const char *text, size_t len, size_t at)
{
    if (text[at] == '"')
        return string_end(text, len, at);
    size_t deepest;
    if (text[at] == '{' || text[at] == '[')
        return container_end(text, len, at, &deepest);
    while (at < len && !is_space(text[at]) && !memchr(",}]", text[at], 3))
        at++;
    return at;
}

bool json_text_member(struct json_span object, size_t *at, struct json_span *name,
                      struct json_span *value)
{
    const char *text = object.data;
    size_t len = object.len, from = *at;
    while (from < len && (is_space(text[from]) || memchr("{,", text[from], 2)))
        from++;
    if (from == len || text[from] != '"')
        return false;
    size_t end = string_end(text, len, from), to = skip_space(text, len, end);
    if (to == len || text[to] != ':' || (to = skip_space(text, len, to + 1)) == len)
        return false;
    if ((*at = value_end(text, len, to)) == to)
        return false;
    *name = (struct json_span){text + from, end - from};
    *value = (struct json_span){text + to, *at - to};
    return true;
}

/* --- what jansson does not hold ----------------------------------------------------------------
 */

static enum status put(struct buf *b, const char *text, size_t len)
{
    return buf_append(b, text, len, NULL);
}

/* The unit that \uXXXX at `s` is; -1: it is none. */
static int32_t unit_of(const char *s, size_t len)
{
    int32_t unit = 0;
    if (len < 6 || s[0] != '\\' || s[1] != 'u')
        return -1;
    for (int i = 2; i < 6; i++) {
        const char *digits = "0123456789abcdef",
                   *d = memchr(digits, tolower((unsigned char)s[i]), 16);
        if (!d)
            return -1;
        unit = unit << 4 | (int32_t)(d - digits);
    }
    return unit;
}

static bool is_high(int32_t unit)
{
    return unit >= 0xd800 && unit < 0xdc00;
}

static bool is_low(int32_t unit)
{
    return unit >= 0xdc00 && unit < 0xe000;
}

/* Puts the escape at `s`; *used: its bytes. */
static enum status put_escape(struct buf *b, const char *s, size_t len, size_t *used)
{
    int32_t unit = unit_of(s, len);
    *used = unit >= 0 ? 6 : len < 2 ? len : 2;
    if (is_high(unit) && is_low(unit_of(s + 6, len - 6)))
        *used = 12;
    else if (unit == 0 || is_high(unit) || is_low(unit))
        return put(b, "\\ufffd", 6);
    return put(b, s, *used);
}

static enum status put_number(struct buf *b, const char *s, size_t len)
{
    size_t at = b->len;
    TRY(put(b, s, len));
    const char *number = b->data + at; /* a C string, as all of a buf is */
    bool minus = *number == '-', infinite = isinf(strtod(number, NULL));
    if (infinite) {
        b->len = at;
        return put(b, minus ? "-1e308" : "1e308", minus ? 6 : 5);
    }
    errno = 0;
    strtoll(number, NULL, 10);
    bool large = errno == ERANGE && strcspn(number, ".eE") == len;
    return large ? put(b, "e0", 2) : OK;
}

static enum status put_near(struct buf *b, const char *text, size_t len)
{
    bool in_string = false;
    for (size_t at = 0, used; at < len; at += used) {
        char c = text[at];
        used = 1;
        if (in_string && c == '\\') {
            TRY(put_escape(b, text + at, len - at, &used));
            continue;
        }
        in_string = in_string != (c == '"');
        bool number = !in_string && (c == '-' || (c >= '0' && c <= '9'));
        while (number && at + used < len && memchr("0123456789+-.eE", text[at + used], 15))
            used++;
        TRY(number ? put_number(b, text + at, used) : put(b, text + at, 1));
    }
    return OK;
}

json_t *json_text_load_near(const char *text, size_t len)
{
    struct buf b;
    buf_init(&b, len + len / 4 + 64);
    json_t *v = NULL;
    if (put_near(&b, text, len) == OK && b.len > 0)
        v = json_loadb(b.data, b.len, JSON_DECODE_ANY, NULL);
    buf_fini(&b);
    return v;
}

/* --- members as strings ------------------------------------------------------------------------
 */

/* Where the object begins that is the value of the name behind which `at` is; len: there is none.
 */
static size_t object_behind(const char *text, size_t len, size_t at)
{
    at = skip_space(text, len, at);
    if (at == len || text[at] != ':')
        return len;
    at = skip_space(text, len, at + 1);
    return at < len && text[at] == '{' ? at : len;
}

static bool is_held(const char *text, size_t len, size_t depth)
{
    json_t *v = depth <= SHALLOW ? json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL) : NULL;
    bool held = v != NULL;
    json_decref(v);
    return held;
}

enum status json_text_quote_members(const char *text, size_t len, const char *name, struct buf *out,
                                    struct error *err)
{
    size_t from = 0, named = strlen(name);
    for (size_t at = 0; at < len;) {
        size_t begin = at, depth;
        at = text[at] == '"' ? string_end(text, len, at) : at + 1;
        if (text[begin] != '"' || at - begin != named + 2 ||
            memcmp(text + begin + 1, name, named) != 0)
            continue;
        size_t to = object_behind(text, len, at);
        if (to == len)
            continue;
        size_t end = container_end(text, len, to, &depth);
        if (is_held(text + to, end - to, depth)) {
            at = end; /* and so is all within it */
            continue;
        }
        TRY(buf_append(out, text + from, to - from, err));
        TRY(buf_json_string(out, text + to, end - to, err));
        at = from = end;
    }
    return buf_append(out, text + from, len - from, err);
}
