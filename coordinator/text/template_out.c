/* Writing prompts and printing values as Python does: see template_out.h. No state. */
#include "coordinator/text/template_out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* The added tokens that the templates write. Qwen2.5's vocabulary lacks the optional ones. */
static const struct special {
    const char *text;
    bool optional;
} special_tokens[] = {
    {"<|im_start|>", false},   {"<|im_end|>", false},      {"<think>", false},
    {"</think>", false},       {"<tool_call>", false},     {"</tool_call>", false},
    {"<tool_response>", true}, {"</tool_response>", true},
};

/* The token that `s` begins with, or NULL. */
static const struct special *special_at(const char *s)
{
    for (size_t i = 0; i < sizeof special_tokens / sizeof *special_tokens; i++)
        if (strncmp(s, special_tokens[i].text, strlen(special_tokens[i].text)) == 0)
            return &special_tokens[i];
    return NULL;
}

static enum status add_span(struct template_out *o, size_t begin, const struct special *token,
                            struct error *err)
{
    if (o->span_count == o->span_cap) {
        size_t cap = o->span_cap ? o->span_cap * 2 : 16;
        struct template_span *p = realloc(o->spans, cap * sizeof *p);
        if (!p)
            return error_set(err, ERR_NO_MEMORY, "no memory for %zu spans", cap);
        o->spans = p;
        o->span_cap = cap;
    }
    o->spans[o->span_count++] = (struct template_span){
        .begin = begin, .end = begin + strlen(token->text), .optional = token->optional};
    return OK;
}

enum status template_literal(struct template_out *o, const char *words, struct error *err)
{
    size_t base = o->text.len;
    TRY(buf_puts(&o->text, words, err));
    for (const char *p = strchr(words, '<'); p; p = strchr(p + 1, '<')) {
        size_t begin = base + (size_t)(p - words);
        const struct special *token = special_at(p);
        if (token)
            TRY(add_span(o, begin, token, err));
    }
    return OK;
}

enum status template_plain(struct template_out *o, struct template_text t, struct error *err)
{
    return buf_append(&o->text, t.data, t.len, err);
}

/* ---- numbers ---- */

/* Adds one to the last of the digits; false when that would need one more digit. */
static bool next_digits(char *digits, int count)
{
    for (int i = count - 1; i >= 0; i--) {
        if (digits[i] != '9') {
            digits[i]++;
            return true;
        }
        digits[i] = '0';
    }
    return false;
}

/* Do the digits d.ddd × 10^exponent read as exactly `x`? */
static bool reads_as(const char *digits, int count, int exponent, double x)
{
    char text[48];
    snprintf(text, sizeof text, "%c.%.*se%d", digits[0], count - 1, digits + 1, exponent);
    return strtod(text, NULL) == x;
}

/* The shortest digits of a positive `x`, and its decimal exponent. The nearest decimal of n digits
 * can miss while the next one up hits: at a power of two the doubles above lie further apart. */
static int shortest_digits(double x, char digits[20], int *exponent)
{
    for (int count = 1;; count++) {
        char text[40];
        snprintf(text, sizeof text, "%.*e", count - 1, x);
        digits[0] = text[0];
        if (count > 1)
            memcpy(digits + 1, text + 2, (size_t)count - 1);
        *exponent = atoi(strchr(text, 'e') + 1);
        if (count == 17 || reads_as(digits, count, *exponent, x))
            return count;
        char up[20];
        memcpy(up, digits, (size_t)count);
        if (next_digits(up, count) && reads_as(up, count, *exponent, x)) {
            memcpy(digits, up, (size_t)count);
            return count;
        }
    }
}

void template_float(double x, char out[TEMPLATE_FLOAT_CHARS])
{
    char *p = out;
    if (__builtin_signbit(x)) {
        *p++ = '-';
        x = -x;
    }
    if (x == 0) {
        strcpy(p, "0.0");
        return;
    }
    char digits[20];
    int exponent;
    int count = shortest_digits(x, digits, &exponent);
    if (exponent < -4 || exponent >= 16) {
        *p++ = digits[0];
        if (count > 1)
            p += sprintf(p, ".%.*s", count - 1, digits + 1);
        sprintf(p, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
    } else if (exponent < 0) {
        sprintf(p, "0.%.*s%.*s", -exponent - 1, "000", count, digits);
    } else if (count <= exponent + 1) {
        sprintf(p, "%.*s%.*s.0", count, digits, exponent + 1 - count, "0000000000000000");
    } else {
        sprintf(p, "%.*s.%.*s", exponent + 1, digits, count - exponent - 1, digits + exponent + 1);
    }
}

/* ---- strings ---- */

/* Appends `t` with escape() of each character that has one; the rest as it is. escape() writes at
 * most 11 bytes, or "" for a character that stands for itself. */
typedef void escape_fn(utf8proc_int32_t c, char quote, char out[12]);

static enum status escaped(struct buf *b, struct template_text t, char quote, escape_fn *escape,
                           struct error *err)
{
    TRY(buf_append(b, &quote, 1, err));
    size_t start = 0;
    for (size_t i = 0; i < t.len;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)t.data + i,
                                              (utf8proc_ssize_t)(t.len - i), &c);
        if (n <= 0)
            return error_set(err, ERR_INVALID, "bad UTF-8 in a string at byte %zu", i);
        char esc[12];
        escape(c, quote, esc);
        if (esc[0]) {
            TRY(buf_append(b, t.data + start, i - start, err));
            TRY(buf_puts(b, esc, err));
            start = i + (size_t)n;
        }
        i += (size_t)n;
    }
    TRY(buf_append(b, t.data + start, t.len - start, err));
    return buf_append(b, &quote, 1, err);
}

/* The letter after the backslash for \b, \t, \n, \f, \r; 0 for other characters. */
static char short_escape(utf8proc_int32_t c)
{
    return c >= 8 && c <= 13 ? "btn\0fr"[c - 8] : '\0';
}

static void json_escape(utf8proc_int32_t c, char quote, char out[12])
{
    out[0] = '\0';
    if (c == quote || c == '\\')
        snprintf(out, 12, "\\%c", (char)c);
    else if (short_escape(c))
        snprintf(out, 12, "\\%c", short_escape(c));
    else if (c < 0x20)
        snprintf(out, 12, "\\u%04x", (unsigned)c);
}

/* str.isprintable: no control, format, private, unassigned or separator characters but space. */
static bool printable(utf8proc_int32_t c)
{
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    case UTF8PROC_CATEGORY_ZS:
        return c == ' ';
    default:
        return true;
    }
}

static void repr_escape(utf8proc_int32_t c, char quote, char out[12])
{
    out[0] = '\0';
    if (c == quote || c == '\\')
        snprintf(out, 12, "\\%c", (char)c);
    else if (c == '\n' || c == '\r' || c == '\t')
        snprintf(out, 12, "\\%c", short_escape(c));
    else if (printable(c))
        return;
    else if (c < 0x100)
        snprintf(out, 12, "\\x%02x", (unsigned)c);
    else if (c < 0x10000)
        snprintf(out, 12, "\\u%04x", (unsigned)c);
    else
        snprintf(out, 12, "\\U%08x", (unsigned)c);
}

/* ---- values ---- */

/* How the two languages spell what differs between them; their separators are the same. */
struct dialect {
    const char *true_word, *false_word, *null_word;
    bool repr_strings;
};

static const struct dialect json_dialect = {"true", "false", "null", false};
static const struct dialect python_dialect = {"True", "False", "None", true};

static enum status write_string(struct buf *b, struct template_text t, const struct dialect *d,
                                struct error *err)
{
    if (!d->repr_strings)
        return escaped(b, t, '"', json_escape, err);
    bool single = t.len && memchr(t.data, '\'', t.len);
    bool both = single && memchr(t.data, '"', t.len);
    return escaped(b, t, single && !both ? '"' : '\'', repr_escape, err);
}

static enum status write_value(struct buf *b, const json_t *v, const struct dialect *d, int depth,
                               struct error *err);

static enum status write_array(struct buf *b, const json_t *v, const struct dialect *d, int depth,
                               struct error *err)
{
    TRY(buf_puts(b, "[", err));
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (i)
            TRY(buf_puts(b, ", ", err));
        TRY(write_value(b, json_array_get(v, i), d, depth + 1, err));
    }
    return buf_puts(b, "]", err);
}

static enum status write_object(struct buf *b, const json_t *v, const struct dialect *d, int depth,
                                struct error *err)
{
    TRY(buf_puts(b, "{", err));
    const char *key, *comma = "";
    json_t *item;
    json_object_foreach((json_t *)v, key, item)
    {
        TRY(buf_puts(b, comma, err));
        TRY(write_string(b, (struct template_text){key, strlen(key)}, d, err));
        TRY(buf_puts(b, ": ", err));
        TRY(write_value(b, item, d, depth + 1, err));
        comma = ", ";
    }
    return buf_puts(b, "}", err);
}

static enum status write_value(struct buf *b, const json_t *v, const struct dialect *d, int depth,
                               struct error *err)
{
    if (depth > TEMPLATE_MAX_DEPTH)
        return error_set(err, ERR_INVALID, "nested deeper than %d", (int)TEMPLATE_MAX_DEPTH);
    char number[TEMPLATE_FLOAT_CHARS];
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return write_object(b, v, d, depth, err);
    case JSON_ARRAY:
        return write_array(b, v, d, depth, err);
    case JSON_STRING:
        return write_string(b, template_text_of(v), d, err);
    case JSON_INTEGER:
        return buf_printf(b, err, "%lld", (long long)json_integer_value(v));
    case JSON_REAL:
        template_float(json_real_value(v), number);
        return buf_puts(b, number, err);
    case JSON_TRUE:
        return buf_puts(b, d->true_word, err);
    case JSON_FALSE:
        return buf_puts(b, d->false_word, err);
    case JSON_NULL:
        break;
    }
    return buf_puts(b, d->null_word, err);
}

enum status template_json(struct template_out *o, const json_t *v, struct error *err)
{
    return write_value(&o->text, v, &json_dialect, 1, err);
}

enum status template_str(struct template_out *o, const json_t *v, struct error *err)
{
    if (json_is_string(v))
        return template_plain(o, template_text_of(v), err);
    return write_value(&o->text, v, &python_dialect, 1, err);
}

enum status template_str_stripped(struct template_out *o, const json_t *v, struct error *err)
{
    /* No repr() of anything else begins or ends with white space. */
    if (json_is_string(v))
        return template_plain(o, template_strip(template_text_of(v)), err);
    return template_str(o, v, err);
}

bool template_truth(const json_t *v)
{
    if (!v)
        return false;
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return json_object_size(v) > 0;
    case JSON_ARRAY:
        return json_array_size(v) > 0;
    case JSON_STRING:
        return json_string_length(v) > 0;
    case JSON_INTEGER:
        return json_integer_value(v) != 0;
    case JSON_REAL:
        return json_real_value(v) != 0;
    case JSON_TRUE:
        return true;
    case JSON_FALSE:
    case JSON_NULL:
        break;
    }
    return false;
}

/* ---- stripping ---- */

/* str.isspace */
static bool space(utf8proc_int32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

struct template_text template_strip(struct template_text t)
{
    while (t.len) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)t.data,
                                              (utf8proc_ssize_t)t.len, &c);
        if (n <= 0 || !space(c))
            break;
        t.data += n;
        t.len -= (size_t)n;
    }
    while (t.len) {
        size_t n = 1;
        while (n < t.len && n < 4 && ((unsigned char)t.data[t.len - n] & 0xc0) == 0x80)
            n++;
        utf8proc_int32_t c;
        utf8proc_ssize_t got = utf8proc_iterate((const utf8proc_uint8_t *)t.data + t.len - n,
                                                (utf8proc_ssize_t)n, &c);
        if (got != (utf8proc_ssize_t)n || !space(c))
            break;
        t.len -= n;
    }
    return t;
}

struct template_text template_lstrip_newlines(struct template_text t)
{
    while (t.len && t.data[0] == '\n') {
        t.data++;
        t.len--;
    }
    return t;
}

struct template_text template_rstrip_newlines(struct template_text t)
{
    while (t.len && t.data[t.len - 1] == '\n')
        t.len--;
    return t;
}
