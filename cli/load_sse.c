/* Server-sent events: see load_response.h. No state but the caller's. */
#include "cli/load_response.h"

#include <string.h>

void load_sse_init(struct load_sse *s)
{
    *s = (struct load_sse){0};
    buf_init(&s->line, LOAD_MAX_EVENT_BYTES);
    buf_init(&s->data, LOAD_MAX_EVENT_BYTES);
}

void load_sse_fini(struct load_sse *s)
{
    buf_fini(&s->line);
    buf_fini(&s->data);
}

void load_sse_reset(struct load_sse *s)
{
    buf_clear(&s->line);
    buf_clear(&s->data);
    s->begun = s->after_cr = s->has_data = false;
}

/* A whole line: a field, a comment, or the empty one that ends an event. */
static enum status take_line(struct load_sse *s, struct error *err)
{
    static const char mark[] = "\xef\xbb\xbf"; /* a byte order mark before the first line */
    const char *line = s->line.data ? s->line.data : "";
    size_t len = s->line.len;
    if (!s->begun && len >= 3 && memcmp(line, mark, 3) == 0) {
        line += 3;
        len -= 3;
    }
    s->begun = true;
    bool bare = len == 4 && memcmp(line, "data", 4) == 0;
    if (!bare && (len < 5 || memcmp(line, "data:", 5) != 0))
        return OK;
    size_t from = bare ? 4 : 5 + (len > 5 && line[5] == ' ');
    if (s->has_data)
        TRY(buf_append(&s->data, "\n", 1, err));
    s->has_data = true;
    return buf_append(&s->data, line + from, len - from, err);
}

/* The first CR or LF, or the end. */
static size_t line_length(const char *bytes, size_t len)
{
    const char *lf = memchr(bytes, '\n', len);
    size_t n = lf ? (size_t)(lf - bytes) : len;
    const char *cr = memchr(bytes, '\r', n);
    return cr ? (size_t)(cr - bytes) : n;
}

enum status load_sse_feed(struct load_sse *s, const char *bytes, size_t len,
                          enum status (*on_event)(void *user, const char *data, size_t len,
                                                  struct error *err),
                          void *user, struct error *err)
{
    for (size_t at = 0; at < len;) {
        if (s->after_cr && bytes[at] == '\n')
            at++; /* of a CRLF whose line is done */
        s->after_cr = false;
        size_t n = line_length(bytes + at, len - at);
        TRY(buf_append(&s->line, bytes + at, n, err));
        at += n;
        if (at == len)
            return OK;
        s->after_cr = bytes[at++] == '\r';
        if (s->line.len > 0) {
            TRY(take_line(s, err));
        } else if (s->has_data) {
            enum status st = on_event(user, s->data.data ? s->data.data : "", s->data.len, err);
            buf_clear(&s->data);
            s->has_data = false;
            TRY(st);
        }
        buf_clear(&s->line);
    }
    return OK;
}
