/* Encoding text and looking up tokens: see tokenizer.h. tokenizer_json.c makes tokenizers. */
#include "coordinator/text/nfc.h"
#include "coordinator/text/template.h"
#include "coordinator/text/tokenizer_private.h"
#include "coordinator/text/unicode.h"
#include "coordinator/text/utf8.h"

#include <stdlib.h>
#include <string.h>

/* A larger buffer is released after the call. */
enum { KEEP_BYTES = 1 << 20 };

struct tokenizer_scratch {
    struct bpe_scratch *bpe;
    struct pretokenizer_scratch *pretokenizer;
    struct nfc_scratch nfc;
    struct buf normal; /* a run in normal form, where it was not */
};

enum status tokenizer_scratch_create(const struct tokenizer *tok, struct tokenizer_scratch **out,
                                     struct error *err)
{
    struct tokenizer_scratch *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, ERR_NO_MEMORY, "no memory for a tokenizer's scratch");
    nfc_scratch_init(&s->nfc);
    buf_init(&s->normal, SIZE_MAX / 2);
    enum status st = bpe_scratch_create(&s->bpe, err);
    if (st == OK)
        st = pretokenizer_scratch_create(tok->pretokenizer, &s->pretokenizer, err);
    if (st != OK) {
        tokenizer_scratch_destroy(s);
        return st;
    }
    *out = s;
    return OK;
}

void tokenizer_scratch_destroy(struct tokenizer_scratch *s)
{
    if (!s)
        return;
    bpe_scratch_destroy(s->bpe);
    pretokenizer_scratch_destroy(s->pretokenizer);
    nfc_scratch_fini(&s->nfc);
    buf_fini(&s->normal);
    free(s);
}

void tokenizer_destroy(struct tokenizer *tok)
{
    if (!tok)
        return;
    buf_fini(&tok->bytes);
    free(tok->offsets);
    free(tok->special);
    bpe_destroy(tok->bpe);
    pretokenizer_destroy(tok->pretokenizer);
    free(tok->unicode_flags);
    free(tok->added);
    free(tok->added_text);
    free(tok);
}

uint32_t tokenizer_vocab_size(const struct tokenizer *tok)
{
    return tok->vocab_size;
}

bool tokenizer_is_added(const struct tokenizer *tok, uint32_t id)
{
    for (size_t i = 0; i < tok->added_count; i++)
        if (tok->added[i].id == id)
            return true;
    return false;
}

bool tokenizer_is_special(const struct tokenizer *tok, uint32_t id)
{
    return id < tok->vocab_size && tok->special[id];
}

enum status tokenizer_token_bytes(const struct tokenizer *tok, uint32_t id, const char **bytes,
                                  size_t *len, struct error *err)
{
    if (id >= tok->vocab_size)
        return error_set(err, ERR_INVALID, "token id %u: the vocabulary ends at %u", id,
                         tok->vocab_size - 1);
    *bytes = tok->bytes.data + tok->offsets[id];
    *len = tok->offsets[id + 1] - tok->offsets[id];
    return OK;
}

/* Of the sorted added[low..high), which agree in their first n bytes and are longer: the first
 * whose byte n is at least `c`. */
static size_t first_from(const struct tokenizer *tok, size_t low, size_t high, size_t n, unsigned c)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((unsigned char)tok->added[middle].text[n] < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest added token that `len` bytes begin with, or NULL. added[low..high) are those that
 * agree with the first n bytes; each further byte narrows it. */
static const struct added_token *added_at(const struct tokenizer *tok, const char *text, size_t len)
{
    const struct added_token *longest = NULL;
    size_t low = 0;
    size_t high = tok->added_count;
    for (size_t n = 0; low < high; n++) {
        if (tok->added[low].len == n)
            longest = &tok->added[low++]; /* the shorter comes first */
        if (n == len)
            break;
        unsigned c = (unsigned char)text[n];
        low = first_from(tok, low, high, n, c);
        high = first_from(tok, low, high, n, c + 1);
    }
    return longest;
}

enum status tokenizer_id_of_token(const struct tokenizer *tok, const char *text, size_t len,
                                  uint32_t *id, struct error *err)
{
    const struct added_token *t = added_at(tok, text, len);
    if (!t || t->len != len)
        return error_set(err, ERR_NOT_FOUND, "no added token \"%.*s\"", (int)(len < 80 ? len : 80),
                         text);
    *id = t->id;
    return OK;
}

/* Plain text that is valid UTF-8, normalised and cut as one run. */
static enum status encode_run(const struct tokenizer *tok, struct tokenizer_scratch *s,
                              const char *text, size_t len, struct token_ids *ids,
                              struct error *err)
{
    if (len == 0)
        return OK;
    unsigned flags = unicode_flags_of_text(tok->unicode_flags, text, len);
    if (flags & UNICODE_NFC_CHECK) {
        buf_clear(&s->normal);
        TRY(nfc_append(&s->normal, &s->nfc, tok->unicode_flags, text, len, err));
        text = s->normal.data;
        len = s->normal.len;
    }
    TRY(pretokenizer_start(tok->pretokenizer, s->pretokenizer, text, len, flags, err));
    for (;;) {
        const char *piece = NULL;
        size_t n = 0;
        TRY(pretokenizer_next(tok->pretokenizer, s->pretokenizer, &piece, &n, err));
        if (n == 0)
            return OK;
        if (n / tok->longest > ids->limit - ids->len) /* before the work, not after it */
            return error_set(err, ERR_LIMIT, "more than %zu tokens", ids->limit);
        TRY(bpe_encode(tok->bpe, s->bpe, piece, n, ids, err));
    }
}

/* Text with its added tokens recognised, leftmost first and then longest, as they are written:
 * before normalising. */
static enum status encode_added(const struct tokenizer *tok, struct tokenizer_scratch *s,
                                const char *text, size_t len, struct token_ids *ids,
                                struct error *err)
{
    size_t begin = 0;
    size_t i = 0;
    while (i < len) {
        const struct added_token *t = NULL;
        if (tok->begins_added[(unsigned char)text[i]])
            t = added_at(tok, text + i, len - i);
        if (!t) {
            i++;
            continue;
        }
        TRY(encode_run(tok, s, text + begin, i - begin, ids, err));
        TRY(token_ids_append(ids, &t->id, 1, err));
        i += t->len;
        begin = i;
    }
    return encode_run(tok, s, text + begin, len - begin, ids, err);
}

static enum status encode_spans(const struct tokenizer *tok, struct tokenizer_scratch *s,
                                const char *text, size_t len, const struct template_span *spans,
                                size_t span_count, struct token_ids *ids, struct error *err)
{
    size_t begin = 0;
    for (size_t i = 0; i < span_count; i++) {
        const struct template_span *p = &spans[i];
        if (p->begin < begin || p->end <= p->begin || p->end > len)
            return error_set(err, ERR_INVALID,
                             "span %zu: expected bytes within %zu to %zu, found %zu to %zu", i,
                             begin, len, p->begin, p->end);
        uint32_t id = 0;
        enum status st = tokenizer_id_of_token(tok, text + p->begin, p->end - p->begin, &id, err);
        if (st == ERR_NOT_FOUND && p->optional)
            continue;
        TRY(st);
        TRY(encode_run(tok, s, text + begin, p->begin - begin, ids, err));
        TRY(token_ids_append(ids, &id, 1, err));
        begin = p->end;
    }
    return encode_run(tok, s, text + begin, len - begin, ids, err);
}

static enum status check_text(const char *text, size_t len, struct error *err)
{
    if (len > TOKENIZER_MAX_INPUT_BYTES)
        return error_set(err, ERR_LIMIT, "text: expected at most %d bytes, found %zu",
                         (int)TOKENIZER_MAX_INPUT_BYTES, len);
    size_t valid = utf8_valid_prefix(text, len);
    if (valid < len)
        return error_set(err, ERR_INVALID, "text: expected UTF-8, found 0x%02x at byte %zu",
                         (unsigned char)text[valid], valid);
    return OK;
}

/* What every encoding ends with: memory that a huge text needed is given back. */
static void end_encode(struct tokenizer_scratch *s, enum status st, struct token_ids *ids,
                       size_t old_len)
{
    if (st != OK)
        ids->len = old_len;
    if (s->normal.cap > KEEP_BYTES) {
        buf_fini(&s->normal);
        buf_init(&s->normal, SIZE_MAX / 2);
    }
    if (s->nfc.cap > KEEP_BYTES)
        nfc_scratch_fini(&s->nfc);
    pretokenizer_end(s->pretokenizer);
}

enum status tokenizer_encode(const struct tokenizer *tok, struct tokenizer_scratch *s,
                             const char *text, size_t len, enum tokenizer_mode mode,
                             struct token_ids *ids, struct error *err)
{
    text = len ? text : "";
    TRY(check_text(text, len, err));
    size_t old_len = ids->len;
    enum status st = mode == TOKENIZER_ADDED ? encode_added(tok, s, text, len, ids, err)
                                             : encode_run(tok, s, text, len, ids, err);
    end_encode(s, st, ids, old_len);
    return st;
}

enum status tokenizer_encode_spans(const struct tokenizer *tok, struct tokenizer_scratch *s,
                                   const char *text, size_t len, const struct template_span *spans,
                                   size_t span_count, struct token_ids *ids, struct error *err)
{
    text = len ? text : "";
    TRY(check_text(text, len, err));
    size_t old_len = ids->len;
    enum status st = encode_spans(tok, s, text, len, spans, span_count, ids, err);
    end_encode(s, st, ids, old_len);
    return st;
}
