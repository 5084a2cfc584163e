/* Reasoning and answer: see reasoning.h. */
#include "coordinator/reasoning.h"

#include <string.h>

enum { HELD_BYTES = 64 << 20 };

static const char OPEN[] = "<think>", CLOSE[] = "</think>";

void reasoning_init(struct reasoning *r, bool inside)
{
    *r = (struct reasoning){.state = inside ? REASONING_OPENED : REASONING_START};
    buf_init(&r->held, HELD_BYTES);
}

void reasoning_fini(struct reasoning *r)
{
    buf_fini(&r->held);
}

static void drop(struct buf *b, size_t n)
{
    memmove(b->data, b->data + n, b->len - n);
    b->len -= n;
}

static size_t newlines(const struct buf *b)
{
    size_t n = 0;
    while (n < b->len && (b->data[n] == '\n' || b->data[n] == '\r'))
        n++;
    return n;
}

/* START: is it the tag, not the tag, or not known yet? Returns true when the state changed. */
static bool start(struct reasoning *r)
{
    const struct buf *b = &r->held;
    size_t skip = 0, tag = sizeof OPEN - 1;
    while (skip < b->len && strchr(" \n\r\t", b->data[skip]))
        skip++;
    size_t n = b->len - skip < tag ? b->len - skip : tag;
    if (memcmp(b->data + skip, OPEN, n) != 0) {
        r->state = REASONING_ANSWER;
        return true;
    }
    if (n < tag)
        return false;
    drop(&r->held, skip + tag);
    r->state = REASONING_OPENED;
    return true;
}

/* Bytes before `end` that are newlines. */
static size_t newlines_before(const char *text, size_t end)
{
    size_t n = 0;
    while (n < end && (text[end - 1 - n] == '\n' || text[end - 1 - n] == '\r'))
        n++;
    return n;
}

/* INSIDE: everything up to the tag, or up to what may become newlines and the tag. */
static enum status inside(struct reasoning *r, struct buf *out, bool *changed, struct error *err)
{
    struct buf *b = &r->held;
    size_t tag = sizeof CLOSE - 1;
    const char *at = memmem(b->data, b->len, CLOSE, tag);
    size_t end = at ? (size_t)(at - b->data) : b->len;
    for (size_t n = tag - 1 < b->len ? tag - 1 : b->len; !at && n > 0; n--) {
        if (memcmp(b->data + b->len - n, CLOSE, n) == 0) {
            end = b->len - n;
            break;
        }
    }
    size_t certain = end - newlines_before(b->data, end);
    TRY(buf_append(out, b->data, certain, err));
    *changed = at != NULL;
    drop(b, at ? end + tag : certain);
    if (at)
        r->state = REASONING_CLOSED;
    return OK;
}

static enum status advance(struct reasoning *r, struct buf *reasoning, struct buf *answer,
                           bool *again, struct error *err)
{
    struct buf *b = &r->held;
    *again = false;
    switch (r->state) {
    case REASONING_START:
        *again = start(r);
        return OK;
    case REASONING_OPENED:
    case REASONING_CLOSED:
        drop(b, newlines(b));
        if (b->len > 0) {
            r->state = r->state == REASONING_OPENED ? REASONING_INSIDE : REASONING_ANSWER;
            *again = true;
        }
        return OK;
    case REASONING_INSIDE:
        return inside(r, reasoning, again, err);
    case REASONING_ANSWER:
        break;
    }
    TRY(buf_append(answer, b->data, b->len, err));
    buf_clear(b);
    return OK;
}

enum status reasoning_push(struct reasoning *r, const char *text, size_t len, struct buf *reasoning,
                           struct buf *answer, struct error *err)
{
    if (len == 0)
        return OK;
    TRY(buf_append(&r->held, text, len, err));
    for (bool again = true; again && r->held.len > 0;)
        TRY(advance(r, reasoning, answer, &again, err));
    return OK;
}

enum status reasoning_flush(struct reasoning *r, struct buf *reasoning, struct buf *answer,
                            struct error *err)
{
    bool thinking = r->state == REASONING_OPENED || r->state == REASONING_INSIDE;
    const char *held = r->held.data ? r->held.data : "";
    TRY(buf_append(thinking ? reasoning : answer, held, r->held.len, err));
    buf_clear(&r->held);
    return OK;
}
