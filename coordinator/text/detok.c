/* Decoding, whole and as a stream: see tokenizer.h. */
#include "coordinator/text/tokenizer_private.h"
#include "coordinator/text/utf8.h"

#include <string.h>

static const char REPLACEMENT[] = "\xEF\xBF\xBD"; /* U+FFFD */

void detok_init(struct detok *d, const struct tokenizer *tok, bool skip_special)
{
    *d = (struct detok){.tok = tok, .skip_special = skip_special};
}

/* Completes the pending character with the first of *bytes, which then go on behind it. */
static enum status push_pending(struct detok *d, const char **bytes, size_t *len, struct buf *out,
                                struct error *err)
{
    while (d->pending_len > 0 && *len > 0) {
        d->pending[d->pending_len] = **bytes;
        struct utf8_head h = utf8_head(d->pending, d->pending_len + 1u);
        if (h.kind == UTF8_BAD) { /* the byte just added does not go on with it */
            TRY(buf_append(out, REPLACEMENT, 3, err));
            d->pending_len = 0;
            return OK;
        }
        ++*bytes;
        --*len;
        d->pending_len++;
        if (h.kind == UTF8_CHAR) {
            TRY(buf_append(out, d->pending, h.len, err));
            d->pending_len = 0;
        }
    }
    return OK;
}

static enum status push_bytes(struct detok *d, const char *bytes, size_t len, struct buf *out,
                              struct error *err)
{
    TRY(push_pending(d, &bytes, &len, out, err));
    while (len > 0) {
        size_t valid = utf8_valid_prefix(bytes, len);
        TRY(buf_append(out, bytes, valid, err));
        bytes += valid;
        len -= valid;
        if (len == 0)
            break;
        struct utf8_head h = utf8_head(bytes, len);
        if (h.kind == UTF8_INCOMPLETE) {
            memcpy(d->pending, bytes, h.len);
            d->pending_len = (unsigned char)h.len;
        } else {
            TRY(buf_append(out, REPLACEMENT, 3, err));
        }
        bytes += h.len;
        len -= h.len;
    }
    return OK;
}

static void cut(struct buf *out, size_t len)
{
    out->len = len;
    if (out->data)
        out->data[len] = '\0';
}

enum status detok_push(struct detok *d, uint32_t id, struct buf *out, struct error *err)
{
    const char *bytes = NULL;
    size_t len = 0;
    TRY(tokenizer_token_bytes(d->tok, id, &bytes, &len, err));
    if (d->skip_special && d->tok->special[id])
        return OK;
    struct detok before = *d;
    size_t old_len = out->len;
    enum status st = push_bytes(d, bytes, len, out, err);
    if (st != OK) {
        *d = before;
        cut(out, old_len);
    }
    return st;
}

enum status detok_flush(struct detok *d, struct buf *out, struct error *err)
{
    if (d->pending_len == 0)
        return OK;
    TRY(buf_append(out, REPLACEMENT, 3, err));
    d->pending_len = 0;
    return OK;
}

enum status tokenizer_decode(const struct tokenizer *tok, const uint32_t *ids, size_t count,
                             bool skip_special, struct buf *out, struct error *err)
{
    struct detok d;
    detok_init(&d, tok, skip_special);
    size_t old_len = out->len;
    enum status st = OK;
    for (size_t i = 0; st == OK && i < count; i++)
        st = detok_push(&d, ids[i], out, err);
    if (st == OK)
        st = detok_flush(&d, out, err);
    if (st != OK)
        cut(out, old_len);
    return st;
}
