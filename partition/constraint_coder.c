/*
 * Behind the head of a call in Qwen3-Coder's XML (see constraint.h): parameters that its tool has,
 * each once and in any order, those that are required among them; then the tail.
 *
 *     <parameter=NAME>\nVALUE</parameter>\n
 *
 * A value is free, with the line that ends it, but for NULs and the tags of the format, which would
 * end it for who reads it (coordinator/calls_coder.c). No state of its own.
 */
#include "partition/constraint_private.h"

#include <string.h>

static const char parameter_open[] = "<parameter=", parameter_closed[] = "</parameter>\n";
enum { OPEN_BYTES = sizeof parameter_open - 1, CLOSED_BYTES = sizeof parameter_closed - 1 };

/* What no value has, in order: the second ends it. */
static const char *const tags[] = {"</function>", "</parameter>", "</tool_call>", "<parameter="};
enum { TAGS = sizeof tags / sizeof *tags, END_TAG = 1 };

/* --- lists of parameters ------------------------------------------------------------------------
 */

struct parameter {
    const char *name; /* and ">\n" */
    int32_t len;
    bool required;
};

/* The next of a list; false: there is none. */
static bool next(const char **list, struct parameter *out)
{
    if (**list == '\0')
        return false;
    *out = (struct parameter){
        .name = *list + 2, .len = (int32_t)strcspn(*list + 2, "\1"), .required = (*list)[1] == '!'};
    *list = out->name + out->len;
    return true;
}

static int32_t bytes_of(const struct parameter *p)
{
    return OPEN_BYTES + p->len + CLOSED_BYTES;
}

int32_t constraint_coder_least(const char *list)
{
    struct parameter p;
    int32_t least = 0;
    while (next(&list, &p))
        least += p.required ? bytes_of(&p) : 0;
    return least;
}

static const char *list_of(const struct constraint *c, const struct constraint_state *s)
{
    return c->text + s->list;
}

/* Those that may still come and begin with these bytes: the index of the first of which the next
 * byte is `b` (-1: of any), -1: none. *least: the fewest bytes that one of them makes the rest of
 * the call take from here, its own beginning left out. */
static int first_like(const struct constraint *c, const struct constraint_state *s,
                      const char *begin, int32_t len, int b, struct parameter *out, int32_t *least)
{
    const char *list = list_of(c, s);
    struct parameter p;
    int found = -1;
    *least = INT32_MAX;
    for (int i = 0; next(&list, &p); i++) {
        if (s->levels >> i & 1 || p.len <= len || memcmp(p.name, begin, (size_t)len) != 0 ||
            (b >= 0 && (unsigned char)p.name[len] != b))
            continue;
        int32_t rest = (int32_t)s->rest - (p.required ? bytes_of(&p) : 0) + bytes_of(&p);
        *least = rest < *least ? rest : *least;
        if (found < 0)
            *out = p;
        found = found < 0 ? i : found;
    }
    return found;
}

static const char *name_at(const struct constraint *c, const struct constraint_state *s)
{
    const char *list = list_of(c, s);
    struct parameter p = {0};
    for (int i = 0; i <= s->low && next(&list, &p); i++)
        continue;
    return p.name;
}

/* --- bytes --------------------------------------------------------------------------------------
 */

bool constraint_coder_begin(const struct constraint *c, struct constraint_state *s,
                            const char *list)
{
    s->levels = 0;
    s->list = (uint32_t)(list - c->text);
    s->rest = (uint32_t)constraint_coder_least(list);
    return go(s, CODER_NEXT);
}

static bool less(const struct constraint *c, struct constraint_state *s, unsigned char b)
{
    struct parameter p;
    int32_t least;
    if (b == 'p')
        return first_like(c, s, "", 0, -1, &p, &least) >= 0 && go_counting(s, CODER_OPEN, 2);
    if (b != '/' || s->rest > 0)
        return false;
    s->levels = 0;
    s->list = 0;
    s->at = 2;
    return go(s, TAIL);
}

static bool open(const struct constraint *c, struct constraint_state *s, unsigned char b)
{
    struct parameter p;
    int32_t least;
    if (b != (unsigned char)parameter_open[s->count])
        return false;
    if (++s->count < OPEN_BYTES)
        return true;
    s->at = 0;
    s->low = (uint16_t)first_like(c, s, "", 0, -1, &p, &least);
    return go(s, CODER_NAME);
}

static bool name(const struct constraint *c, struct constraint_state *s, unsigned char b)
{
    struct parameter p;
    int32_t least;
    int found = first_like(c, s, name_at(c, s), s->at, b, &p, &least);
    if (found < 0)
        return false;
    s->low = (uint16_t)found;
    if (++s->at < p.len)
        return true;
    s->levels |= UINT64_C(1) << found;
    s->rest -= p.required ? (uint32_t)bytes_of(&p) : 0;
    s->low = s->at = 0;
    return go(s, CODER_VALUE);
}

static bool value(struct constraint_state *s, unsigned char b)
{
    if (b == '\0')
        return false;
    for (uint8_t i = s->word; s->count > 0 && i < TAGS; i++) {
        if (strncmp(tags[i], tags[s->word], s->count) != 0 || (unsigned char)tags[i][s->count] != b)
            continue;
        if (tags[i][s->count + 1] == '\0')
            return i == END_TAG && go(s, CODER_CLOSED);
        s->word = i;
        s->count++;
        return true;
    }
    return go_counting(s, CODER_VALUE, b == '<');
}

bool constraint_coder_take(const struct constraint *c, struct constraint_state *s, unsigned char b)
{
    switch (s->mode) {
    case CODER_NEXT:
        return b == '<' && go(s, CODER_LESS);
    case CODER_LESS:
        return less(c, s, b);
    case CODER_OPEN:
        return open(c, s, b);
    case CODER_NAME:
        return name(c, s, b);
    case CODER_VALUE:
        return value(s, b);
    default: /* CODER_CLOSED */
        return b == '\n' && go(s, CODER_NEXT);
    }
}

int32_t constraint_coder_closing(const struct constraint *c, const struct constraint_state *s)
{
    struct parameter p;
    int32_t rest = (int32_t)s->rest, least;
    switch (s->mode) {
    case CODER_NEXT:
        return rest;
    case CODER_LESS: /* of the tail, where nothing is missing */
        return rest - 1;
    case CODER_OPEN:
        first_like(c, s, "", 0, -1, &p, &least);
        return least - s->count;
    case CODER_NAME:
        first_like(c, s, name_at(c, s), s->at, -1, &p, &least);
        return least - OPEN_BYTES - s->at;
    case CODER_VALUE: {
        bool ends = strncmp(tags[s->word], parameter_closed, s->count) == 0;
        return rest + CLOSED_BYTES - (ends ? s->count : 0);
    }
    default: /* CODER_CLOSED */
        return rest + 1;
    }
}

bool constraint_coder_runs_on(const unsigned char *bytes, size_t len, bool tag)
{
    static const char goes_on[] =
        "/=>_acefilmnoprtu"; /* all that stands in tags behind their first */
    return memchr(bytes, '<', len) == NULL && memchr(bytes, '\0', len) == NULL &&
           !(tag && memchr(goes_on, bytes[0], sizeof goes_on - 1));
}

/* --- what came over a wire ----------------------------------------------------------------------
 */

enum status constraint_coder_check(const char *list, struct error *err)
{
    struct parameter before = {0}, p;
    bool fits = true;
    int count = 0;
    for (; fits && *list; before = p, count++) {
        fits = list[0] == '\1' && (list[1] == '!' || list[1] == '?');
        if (!fits || !next(&list, &p))
            break;
        const char *end = memchr(p.name, '>', (size_t)p.len);
        fits = p.len > 2 && end == p.name + p.len - 2 && end[1] == '\n' &&
               !memchr(p.name, '\n', (size_t)p.len - 2) &&
               (count == 0 || strcmp(before.name, p.name) < 0);
    }
    if (!fits || count > CONSTRAINT_MAX_PARAMETERS)
        return error_set(err, ERR_INVALID,
                         "constraint: expected at most %d parameters behind a head, in order, each "
                         "with its mark and its name, then \">\" and a newline",
                         (int)CONSTRAINT_MAX_PARAMETERS);
    return OK;
}
