/*
 * Pre-tokenising: see pretokenize.h. PCRE2 sees the text itself, unless a code point in it has
 * another class in PCRE2's Unicode than in the reference's (unicode.h): then it sees a copy where
 * each of those is replaced by an old character of the right class and of as many bytes.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "coordinator/text/pretokenize.h"
#include "coordinator/text/unicode.h"
#include "coordinator/text/utf8.h"

#include <pcre2.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Qwen's pattern goes back over a run of white space once, a step a byte. More than a few times
 * over the whole text is a pattern that never ends. */
enum { STEPS_A_BYTE = 4, STEPS_MIN = 1000 * 1000 };

enum { JIT_STACK_MIN = 32 << 10, JIT_STACK_MAX = 1 << 20 };

enum { KEEP_BYTES = 1 << 20 }; /* a larger copy is released after use */

struct pretokenizer {
    pcre2_code *code;
    bool jit;
    const uint8_t *flags;
};

struct pretokenizer_scratch {
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    struct buf stand_in;
    const char *text;    /* what pieces point into */
    const char *subject; /* what is matched: `text` or the copy */
    size_t len, at;
    size_t match_end; /* when past `at`: the match found after a gap, not given yet */
};

/* The length of the escape at p ("\s", "\p{L}", "\."), or 0 when it is not taken. */
static size_t escape_length(const char *p)
{
    if (strncmp(p, "\\p{L}", 5) == 0 || strncmp(p, "\\p{N}", 5) == 0 ||
        strncmp(p, "\\P{L}", 5) == 0 || strncmp(p, "\\P{N}", 5) == 0)
        return 5;
    return p[1] && strchr("sSrnt\\.*+?()[]{}|^$-/'\"", p[1]) ? 2 : 0;
}

/* The length of a class that begins at p with '[', or 0 when it is not taken; *bad is then where.
 */
static size_t class_length(const char *p, const char **bad)
{
    size_t i = p[1] == '^' ? 2 : 1;
    size_t first = i;
    while (p[i] && !(p[i] == ']' && i > first)) {
        size_t step = p[i] == '\\' ? escape_length(p + i) : 1;
        if (step == 0 || p[i] == '[' || p[i] == ']' || (p[i] == '&' && p[i + 1] == '&')) {
            *bad = p + i;
            return 0;
        }
        i += step;
    }
    *bad = p;
    return p[i] ? i + 1 : 0;
}

/* The length of "(", "(?:", ... at p, or 0 when it is not taken. */
static size_t group_length(const char *p)
{
    if (p[1] == '*')
        return 0;
    if (p[1] != '?')
        return 1;
    if (strncmp(p, "(?i:", 4) == 0)
        return 4;
    return p[2] && strchr(":=!", p[2]) ? 3 : 0;
}

/* The length of the quantifier "{n}", "{n,}" or "{n,m}" at p, or 0. "{n}+" and "{n}?" mean other
 * things to the two engines. */
static size_t count_length(const char *p)
{
    size_t i = 1 + strspn(p + 1, "0123456789");
    if (i == 1)
        return 0;
    if (p[i] == ',')
        i += 1 + strspn(p + i + 1, "0123456789");
    if (p[i] != '}' || (p[i + 1] && strchr("+?*{", p[i + 1])))
        return 0;
    return i + 1;
}

static enum status check_pattern(const char *pattern, struct error *err)
{
    const char *p = pattern;
    while (*p) {
        const char *bad = p;
        size_t step = 1;
        if (*p == '\\')
            step = escape_length(p);
        else if (*p == '[')
            step = class_length(p, &bad);
        else if (*p == '(')
            step = group_length(p);
        else if (*p == '{')
            step = count_length(p);
        else if (strchr("^$.]}", *p))
            step = 0;
        if (step == 0)
            return error_set(err, ERR_UNSUPPORTED,
                             "unsupported regular expression at its byte %zu: \"%.40s\"",
                             (size_t)(bad - pattern), bad);
        p += step;
    }
    return OK;
}

static enum status compile(const char *pattern, pcre2_code **out, struct error *err)
{
    int code = 0;
    PCRE2_SIZE at = 0;
    pcre2_code *c = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &at,
                                  NULL);
    if (!c) {
        PCRE2_UCHAR words[128];
        pcre2_get_error_message(code, words, sizeof words);
        return error_set(err, ERR_INVALID, "regular expression, byte %zu: %s", (size_t)at,
                         (const char *)words);
    }
    uint32_t empty = 1;
    pcre2_pattern_info(c, PCRE2_INFO_MATCHEMPTY, &empty);
    if (empty) {
        pcre2_code_free(c);
        return error_set(err, ERR_UNSUPPORTED,
                         "regular expression: expected one that matches no empty text");
    }
    *out = c;
    return OK;
}

enum status pretokenizer_create(const char *pattern, const uint8_t *flags,
                                struct pretokenizer **out, struct error *err)
{
    TRY(check_pattern(pattern, err));
    struct pretokenizer *p = calloc(1, sizeof *p);
    if (!p)
        return error_set(err, ERR_NO_MEMORY, "no memory for a pre-tokeniser");
    enum status st = compile(pattern, &p->code, err);
    if (st != OK) {
        free(p);
        return st;
    }
    p->jit = pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE) == 0; /* else: slower, the same */
    p->flags = flags;
    *out = p;
    return OK;
}

void pretokenizer_destroy(struct pretokenizer *p)
{
    if (!p)
        return;
    pcre2_code_free(p->code);
    free(p);
}

enum status pretokenizer_scratch_create(const struct pretokenizer *p,
                                        struct pretokenizer_scratch **out, struct error *err)
{
    struct pretokenizer_scratch *s = calloc(1, sizeof *s);
    if (s) {
        s->match = pcre2_match_data_create_from_pattern(p->code, NULL);
        s->context = pcre2_match_context_create(NULL);
        s->stack = p->jit ? pcre2_jit_stack_create(JIT_STACK_MIN, JIT_STACK_MAX, NULL) : NULL;
        buf_init(&s->stand_in, SIZE_MAX / 2);
    }
    if (!s || !s->match || !s->context || (p->jit && !s->stack)) {
        pretokenizer_scratch_destroy(s);
        return error_set(err, ERR_NO_MEMORY, "no memory for a pre-tokeniser's scratch");
    }
    if (s->stack)
        pcre2_jit_stack_assign(s->context, NULL, s->stack);
    *out = s;
    return OK;
}

void pretokenizer_scratch_destroy(struct pretokenizer_scratch *s)
{
    if (!s)
        return;
    pcre2_match_data_free(s->match);
    pcre2_match_context_free(s->context);
    pcre2_jit_stack_free(s->stack);
    buf_fini(&s->stand_in);
    free(s);
}

/* By the class and then the number of bytes: letters and digits without case, Unicode 3.1 or older.
 * No code point of one byte is replaced. */
static const char *stand_in(unsigned class, size_t bytes)
{
    static const char *const letter[] = {"\u05D0", "\u4E00", "\U00020000"};
    static const char *const number[] = {"\u0660", "\u0966", "\U0001D7CE"};
    static const char *const other[] = {"\u00A9", "\u2603", "\U0001D100"};
    const char *const *row = class & UNICODE_LETTER   ? letter
                             : class & UNICODE_NUMBER ? number
                                                      : other;
    return row[bytes - 2];
}

static void replace_classes(const uint8_t *flags, char *text, size_t len)
{
    size_t i = 0;
    while (i < len) {
        size_t at = i;
        unsigned class = flags[utf8_decode(text, &i)] & UNICODE_CLASS;
        if (class)
            memcpy(text + at, stand_in(class, i - at), i - at);
    }
}

enum status pretokenizer_start(const struct pretokenizer *p, struct pretokenizer_scratch *s,
                               const char *text, size_t len, unsigned text_flags, struct error *err)
{
    s->text = s->subject = text;
    s->len = len;
    s->at = s->match_end = 0;
    uint64_t steps = STEPS_MIN + (uint64_t)STEPS_A_BYTE * len;
    pcre2_set_match_limit(s->context, steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
    if (text_flags & UNICODE_CLASS) {
        buf_clear(&s->stand_in);
        TRY(buf_append(&s->stand_in, text, len, err));
        replace_classes(p->flags, s->stand_in.data, len);
        s->subject = s->stand_in.data;
    }
    return OK;
}

static void give(struct pretokenizer_scratch *s, size_t end, const char **piece, size_t *len)
{
    *piece = s->text + s->at;
    *len = end - s->at;
    s->at = end;
}

enum status pretokenizer_next(const struct pretokenizer *p, struct pretokenizer_scratch *s,
                              const char **piece, size_t *len, struct error *err)
{
    *len = 0;
    if (s->at == s->len)
        return OK;
    if (s->match_end > s->at) {
        give(s, s->match_end, piece, len);
        return OK;
    }
    PCRE2_SPTR subject = (PCRE2_SPTR)s->subject;
    int n = p->jit ? pcre2_jit_match(p->code, subject, s->len, s->at, 0, s->match, s->context)
                   : pcre2_match(p->code, subject, s->len, s->at, PCRE2_NO_UTF_CHECK, s->match,
                                 s->context);
    if (n == PCRE2_ERROR_NOMATCH) {
        give(s, s->len, piece, len);
        return OK;
    }
    if (n < 0) {
        PCRE2_UCHAR words[128];
        pcre2_get_error_message(n, words, sizeof words);
        return error_set(err, ERR_LIMIT, "pre-tokenising at byte %zu: %s", s->at,
                         (const char *)words);
    }
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(s->match);
    if (range[0] > s->at) {
        s->match_end = range[1];
        give(s, range[0], piece, len);
    } else {
        give(s, range[1], piece, len);
    }
    return OK;
}

void pretokenizer_end(struct pretokenizer_scratch *s)
{
    if (s->stand_in.cap <= KEEP_BYTES)
        return;
    buf_fini(&s->stand_in);
    buf_init(&s->stand_in, SIZE_MAX / 2);
}
