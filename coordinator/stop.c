/* Stop strings: see stop.h. The held text is never longer than the longest string plus one push. */
#include "coordinator/stop.h"

#include <stdlib.h>
#include <string.h>

enum { STOP_HELD_BYTES = 64 << 20 };

enum status stop_init(struct stop *s, const char *const *strings, int count, struct error *err)
{
    *s = (struct stop){0};
    buf_init(&s->held, STOP_HELD_BYTES);
    if (count > STOP_MAX_COUNT)
        return error_set(err, ERR_INVALID, "stop: expected at most %d strings, found %d",
                         (int)STOP_MAX_COUNT, count);
    for (int i = 0; i < count; i++) {
        size_t len = strlen(strings[i]);
        enum status st = OK;
        if (len == 0 || len > STOP_MAX_BYTES)
            st = error_set(err, ERR_INVALID, "stop[%d]: expected 1 to %d bytes, found %zu", i,
                           (int)STOP_MAX_BYTES, len);
        else if (!(s->strings[i] = strdup(strings[i])))
            st = error_set(err, ERR_NO_MEMORY, "no memory for stop strings");
        if (st != OK) {
            stop_fini(s);
            return st;
        }
        s->lengths[i] = len;
        s->count = i + 1;
    }
    return OK;
}

void stop_fini(struct stop *s)
{
    for (int i = 0; i < s->count; i++)
        free(s->strings[i]);
    s->count = 0;
    buf_fini(&s->held);
}

/* The stop string that is complete first, the longest of those, and where it begins, or `len`. What
 * ends first wins, so that the pieces in which the text comes make no difference. */
static size_t find(const struct stop *s, const char *text, size_t len, const char **found)
{
    size_t begin = len, end = len + 1;
    for (int i = 0; i < s->count; i++) {
        const char *at = memmem(text, len, s->strings[i], s->lengths[i]);
        if (!at)
            continue;
        size_t b = (size_t)(at - text), e = b + s->lengths[i];
        if (e < end || (e == end && b < begin)) {
            begin = b;
            end = e;
            *found = s->strings[i];
        }
    }
    return begin;
}

/* The longest end of the text that begins some stop string. */
static size_t pending(const struct stop *s, const char *text, size_t len)
{
    size_t longest = 0;
    for (int i = 0; i < s->count; i++) {
        size_t n = s->lengths[i] - 1 < len ? s->lengths[i] - 1 : len;
        for (; n > longest; n--)
            if (memcmp(text + len - n, s->strings[i], n) == 0)
                longest = n;
    }
    return longest;
}

enum status stop_push(struct stop *s, const char *text, size_t len, struct buf *out, bool *found,
                      struct error *err)
{
    *found = false;
    if (s->count == 0)
        return buf_append(out, text, len, err);
    TRY(buf_append(&s->held, text, len, err));
    if (s->held.len == 0)
        return OK;
    size_t end = find(s, s->held.data, s->held.len, &s->found);
    *found = end < s->held.len;
    size_t certain = *found ? end : s->held.len - pending(s, s->held.data, s->held.len);
    TRY(buf_append(out, s->held.data, certain, err));
    if (*found) {
        buf_clear(&s->held);
    } else {
        memmove(s->held.data, s->held.data + certain, s->held.len - certain);
        s->held.len -= certain;
    }
    return OK;
}

enum status stop_flush(struct stop *s, struct buf *out, struct error *err)
{
    TRY(buf_append(out, s->held.data ? s->held.data : "", s->held.len, err));
    buf_clear(&s->held);
    return OK;
}
