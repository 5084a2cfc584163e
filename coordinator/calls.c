/* Content, and what the formats of tool calls share: see calls.h. */
#include "coordinator/calls_private.h"

#include <stdlib.h>
#include <string.h>

enum { TEXT_LIMIT = 64 << 20, PIECES_FIRST = 8 };

const char calls_open[] = "<tool_call>", calls_close[] = "</tool_call>";

enum call_format calls_format(enum template_kind template)
{
    if (template == TEMPLATE_COUNT || template == TEMPLATE_QWEN3GUARD_GEN)
        return CALLS_NONE;
    return template == TEMPLATE_QWEN3_CODER ? CALLS_CODER : CALLS_HERMES;
}

void calls_init(struct calls *c, enum call_format format, const json_t *tools, bool one)
{
    *c = (struct calls){.format = format, .one = one};
    c->tools = json_incref((json_t *)tools);
    buf_init(&c->text, TEXT_LIMIT);
    buf_init(&c->out, TEXT_LIMIT);
}

void calls_fini(struct calls *c)
{
    json_decref(c->tools);
    c->tools = NULL;
    buf_fini(&c->text);
    buf_fini(&c->out);
    free(c->pieces);
    c->pieces = NULL;
    c->count = c->cap = 0;
}

void calls_clear(struct calls *c)
{
    buf_clear(&c->out);
    c->count = 0;
}

int64_t calls_bytes(const struct calls *c)
{
    return (int64_t)(c->text.cap + c->out.cap + c->cap * sizeof *c->pieces);
}

/* --- text --------------------------------------------------------------------------------------
 */

bool calls_is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

enum calls_match calls_match_word(const char *text, size_t len, const char *word)
{
    size_t all = strlen(word), n = len < all ? len : all;
    if (memcmp(text, word, n) != 0)
        return CALLS_NO;
    return n == all ? CALLS_YES : CALLS_MAYBE;
}

void calls_take(struct calls *c, size_t len)
{
    c->begin += len;
    c->at = 0;
}

/* --- telling -----------------------------------------------------------------------------------
 */

static enum status add_piece(struct calls *c, int32_t index, struct error *err)
{
    if (c->count == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : PIECES_FIRST;
        struct call_piece *more = realloc(c->pieces, cap * sizeof *more);
        if (!more)
            return error_set(err, ERR_NO_MEMORY, "no memory for the answer's tool calls");
        c->pieces = more;
        c->cap = cap;
    }
    c->pieces[c->count++] = (struct call_piece){.index = index, .begin = c->out.len};
    return OK;
}

/* The piece that text of this call (-1: content) goes to. */
static enum status piece_of(struct calls *c, int32_t index, struct error *err)
{
    if (c->count > 0 && c->pieces[c->count - 1].index == index)
        return OK;
    return add_piece(c, index, err);
}

static enum status put(struct calls *c, int32_t index, const char *text, size_t len,
                       struct error *err)
{
    TRY(piece_of(c, index, err));
    TRY(buf_append(&c->out, text, len, err));
    c->pieces[c->count - 1].len += len;
    return OK;
}

enum status calls_tell_content(struct calls *c, size_t len, struct error *err)
{
    if (len == 0)
        return OK;
    TRY(put(c, -1, calls_text(c), len, err));
    calls_take(c, len);
    c->behind = c->closing = false;
    return OK;
}

enum status calls_tell_begin(struct calls *c, const char *name, size_t len, struct error *err)
{
    size_t at = c->out.len;
    TRY(buf_append(&c->out, name, len, err));
    TRY(buf_append(&c->out, "", 1, err));
    TRY(add_piece(c, c->begun, err));
    c->pieces[c->count - 1].named = true;
    c->pieces[c->count - 1].name = at;
    c->begun++;
    return OK;
}

enum status calls_tell(struct calls *c, const char *json, size_t len, struct error *err)
{
    return put(c, c->begun - 1, json, len, err);
}

enum status calls_tell_quoted(struct calls *c, const char *text, size_t len, struct error *err)
{
    struct buf quoted;
    buf_init(&quoted, c->out.limit);
    enum status st = buf_json_string(&quoted, text, len, err);
    if (st == OK)
        st = calls_tell(c, quoted.data + 1, quoted.len - 2, err);
    buf_fini(&quoted);
    return st;
}

enum status calls_tell_json(struct calls *c, const char *json, size_t len, struct error *err)
{
    struct json_scan scan;
    size_t from = 0;
    json_scan_init(&scan);
    for (size_t i = 0; i < len; i++) {
        if (scan.state == SCAN_STRING && (unsigned char)json[i] < ' ') {
            TRY(calls_tell(c, json + from, i - from, err));
            TRY(calls_tell_quoted(c, json + i, 1, err));
            from = i + 1;
        }
        json_scan_push(&scan, json[i]);
    }
    return calls_tell(c, json + from, len - from, err);
}

enum status calls_tell_end(struct calls *c, const char *json, size_t len, struct error *err)
{
    TRY(calls_tell(c, json, strlen(json), err));
    c->pieces[c->count - 1].end = true;
    c->whole++;
    c->inside = false;
    c->behind = c->closing = true;
    c->over = c->one;
    calls_take(c, len);
    return OK;
}

/* --- content -----------------------------------------------------------------------------------
 */

static enum status open_call(struct calls *c, bool last, enum calls_match *match, struct error *err)
{
    const char *text = calls_text(c) + c->at;
    *match = CALLS_NO;
    if (*text != '<' || c->begun == CALLS_MAX)
        return OK;
    return c->format == CALLS_CODER ? calls_coder_open(c, last, match, err)
                                    : calls_hermes_open(c, last, match, err);
}

/* The text is white space up to where it is read, and that is its end. */
static enum status end_space(struct calls *c, bool last, bool *on, struct error *err)
{
    *on = false;
    if (!last)
        return OK;
    if (!c->behind)
        return calls_tell_content(c, c->at, err);
    calls_take(c, c->at);
    return OK;
}

/* One word, with the white space before it. */
static enum status tell_word(struct calls *c, struct error *err)
{
    const char *text = calls_text(c);
    size_t len = calls_len(c), end = c->at + 1;
    while (end < len && text[end] != '<' && !calls_is_space(text[end]))
        end++;
    return calls_tell_content(c, end, err);
}

static enum status content_step(struct calls *c, bool last, bool *on, struct error *err)
{
    size_t len = calls_len(c);
    enum calls_match match = CALLS_NO;
    while (c->at < len && calls_is_space(calls_text(c)[c->at]))
        c->at++;
    if (c->at == len)
        return end_space(c, last, on, err);
    if (c->closing) {
        match = calls_match_word(calls_text(c) + c->at, len - c->at, calls_close);
        if (match == CALLS_YES || (match == CALLS_MAYBE && last)) {
            size_t rest = len - c->at, tag = strlen(calls_close);
            c->closing = false;
            calls_take(c, c->at + (rest < tag ? rest : tag));
            return OK;
        }
    }
    if (match == CALLS_NO)
        TRY(open_call(c, last, &match, err));
    if (match == CALLS_YES)
        return OK;
    *on = match == CALLS_NO || last;
    return *on ? tell_word(c, err) : OK;
}

static enum status run(struct calls *c, bool last, struct error *err)
{
    for (bool on = true; on && !c->over;) {
        if (!c->inside)
            TRY(content_step(c, last, &on, err));
        else if (c->format == CALLS_CODER)
            TRY(calls_coder_step(c, last, &on, err));
        else
            TRY(calls_hermes_step(c, last, &on, err));
    }
    if (c->over)
        calls_take(c, calls_len(c));
    if (c->begin > 0) {
        memmove(c->text.data, c->text.data + c->begin, calls_len(c));
        c->text.len = calls_len(c);
        c->begin = 0;
    }
    return OK;
}

enum status calls_push(struct calls *c, const char *text, size_t len, struct error *err)
{
    if (len == 0 || c->over)
        return OK;
    TRY(buf_append(&c->text, text, len, err));
    return run(c, false, err);
}

enum status calls_flush(struct calls *c, struct error *err)
{
    return run(c, true, err);
}
