/* Logprobs as JSON: see openai_logprobs.h. No state. */
#include "coordinator/openai_logprobs.h"
#include "base/check.h"
#include "coordinator/text/utf8.h"

#include <string.h>

enum { CONTENT, REASONING };
enum { TOKENS, LOGPROBS, TOP, OFFSETS };

static const double LEAST = -9999.0;

void openai_logprobs_init(struct openai_logprobs *l, bool chat, bool top, size_t limit_bytes)
{
    *l = (struct openai_logprobs){.chat = chat, .top = top};
    for (size_t i = 0; i < COUNT_OF(l->lists); i++)
        buf_init(&l->lists[i], limit_bytes);
}

void openai_logprobs_fini(struct openai_logprobs *l)
{
    for (size_t i = 0; i < COUNT_OF(l->lists); i++)
        buf_fini(&l->lists[i]);
    l->count = 0;
}

void openai_logprobs_clear(struct openai_logprobs *l)
{
    for (size_t i = 0; i < COUNT_OF(l->lists); i++)
        buf_clear(&l->lists[i]);
    l->count = 0;
}

/* --- values ------------------------------------------------------------------------------------
 */

static enum status put_comma(struct buf *b, struct error *err)
{
    return b->len > 0 ? buf_puts(b, ",", err) : OK;
}

/* Nine digits: a float read back is the same one. */
static enum status put_logprob(struct buf *b, float logprob, struct error *err)
{
    return buf_printf(b, err, "%.9g", logprob >= LEAST ? (double)logprob : LEAST);
}

/* What is no character as \xHH (a backslash of the text stays one). */
static enum status put_shown(struct buf *out, const char *s, size_t len, struct error *err)
{
    while (len > 0) {
        size_t valid = utf8_valid_prefix(s, len);
        TRY(buf_append(out, s, valid, err));
        if (valid < len)
            TRY(buf_printf(out, err, "\\x%02x", (unsigned char)s[valid]));
        size_t taken = valid < len ? valid + 1 : valid;
        s += taken;
        len -= taken;
    }
    return OK;
}

/* The token as a JSON string. */
static enum status put_token(struct buf *b, const struct openai_token *t, bool chat,
                             struct error *err)
{
    struct buf shown;
    if (utf8_valid_prefix(t->bytes, t->len) == t->len)
        return buf_json_string(b, t->bytes, t->len, err);
    buf_init(&shown, b->limit);
    enum status st = chat ? OK : buf_puts(&shown, "bytes:", err);
    if (st == OK)
        st = put_shown(&shown, t->bytes, t->len, err);
    if (st == OK)
        st = buf_json_string(b, shown.data, shown.len, err);
    buf_fini(&shown);
    return st;
}

/* --- chat --------------------------------------------------------------------------------------
 */

/* An element without its closing brace. */
static enum status put_element(struct buf *b, const struct openai_token *t, struct error *err)
{
    TRY(buf_puts(b, "{\"token\":", err));
    TRY(put_token(b, t, true, err));
    TRY(buf_puts(b, ",\"logprob\":", err));
    TRY(put_logprob(b, t->logprob, err));
    TRY(buf_puts(b, ",\"bytes\":[", err));
    for (size_t i = 0; i < t->len; i++)
        TRY(buf_printf(b, err, "%s%d", i > 0 ? "," : "", (unsigned char)t->bytes[i]));
    return buf_puts(b, "]", err);
}

static enum status put_chat_token(struct buf *b, const struct openai_logprob *t, struct error *err)
{
    TRY(put_comma(b, err));
    TRY(put_element(b, &t->token, err));
    TRY(buf_puts(b, ",\"top_logprobs\":[", err));
    for (int32_t i = 0; i < t->top_count; i++) {
        if (i > 0)
            TRY(buf_puts(b, ",", err));
        TRY(put_element(b, &t->top[i], err));
        TRY(buf_puts(b, "}", err));
    }
    return buf_puts(b, "]}", err);
}

enum status openai_logprobs_add_chat(struct openai_logprobs *l, bool reasoning,
                                     const struct openai_logprob *t, struct error *err)
{
    TRY(put_chat_token(&l->lists[reasoning ? REASONING : CONTENT], t, err));
    l->count++;
    return OK;
}

/* --- completions -------------------------------------------------------------------------------
 */

static enum status put_pair(struct buf *b, const struct openai_token *t, struct error *err)
{
    TRY(put_token(b, t, false, err));
    TRY(buf_puts(b, ":", err));
    return put_logprob(b, t->logprob, err);
}

/* An object of the likeliest, the token itself among them in any case. */
static enum status put_top(struct buf *b, const struct openai_logprob *t, struct error *err)
{
    bool listed = false;
    TRY(buf_puts(b, "{", err));
    for (int32_t i = 0; i < t->top_count; i++) {
        if (i > 0)
            TRY(buf_puts(b, ",", err));
        TRY(put_pair(b, &t->top[i], err));
        listed = listed || t->top[i].id == t->token.id;
    }
    if (!listed && t->top_count > 0)
        TRY(buf_puts(b, ",", err));
    if (!listed)
        TRY(put_pair(b, &t->token, err));
    return buf_puts(b, "}", err);
}

enum status openai_logprobs_add_text(struct openai_logprobs *l, const struct openai_logprob *t,
                                     bool known, int64_t offset, struct error *err)
{
    for (size_t i = 0; i < COUNT_OF(l->lists); i++)
        TRY(put_comma(&l->lists[i], err));
    TRY(put_token(&l->lists[TOKENS], &t->token, false, err));
    TRY(known ? put_logprob(&l->lists[LOGPROBS], t->token.logprob, err)
              : buf_puts(&l->lists[LOGPROBS], "null", err));
    TRY(known ? put_top(&l->lists[TOP], t, err) : buf_puts(&l->lists[TOP], "null", err));
    TRY(buf_printf(&l->lists[OFFSETS], err, "%lld", (long long)offset));
    l->count++;
    return OK;
}

enum status openai_logprobs_join(struct openai_logprobs *l, const struct openai_logprobs *more,
                                 struct error *err)
{
    for (size_t i = 0; i < COUNT_OF(l->lists); i++) {
        const struct buf *from = &more->lists[i];
        if (from->len == 0)
            continue;
        TRY(put_comma(&l->lists[i], err));
        TRY(buf_append(&l->lists[i], from->data, from->len, err));
    }
    l->count += more->count;
    return OK;
}

/* --- the whole ---------------------------------------------------------------------------------
 */

static enum status put_list(struct buf *b, const char *name, const struct buf *list,
                            struct error *err)
{
    TRY(buf_puts(b, name, err));
    TRY(buf_append(b, list->data ? list->data : "", list->len, err));
    return buf_puts(b, "]", err);
}

static enum status write_chat(struct buf *b, const struct openai_logprobs *l, struct error *err)
{
    TRY(put_list(b, "{\"content\":[", &l->lists[CONTENT], err));
    if (l->lists[REASONING].len > 0)
        TRY(put_list(b, ",\"reasoning_content\":[", &l->lists[REASONING], err));
    return buf_puts(b, ",\"refusal\":null}", err);
}

static enum status write_text(struct buf *b, const struct openai_logprobs *l, struct error *err)
{
    TRY(put_list(b, "{\"tokens\":[", &l->lists[TOKENS], err));
    TRY(put_list(b, ",\"token_logprobs\":[", &l->lists[LOGPROBS], err));
    if (l->top)
        TRY(put_list(b, ",\"top_logprobs\":[", &l->lists[TOP], err));
    else
        TRY(buf_puts(b, ",\"top_logprobs\":null", err));
    TRY(put_list(b, ",\"text_offset\":[", &l->lists[OFFSETS], err));
    return buf_puts(b, "}", err);
}

enum status openai_logprobs_write(struct buf *b, const struct openai_logprobs *l, bool always,
                                  struct error *err)
{
    TRY(buf_puts(b, ",\"logprobs\":", err));
    if (!l || (l->count == 0 && !always))
        return buf_puts(b, "null", err);
    return l->chat ? write_chat(b, l, err) : write_text(b, l, err);
}

/* --- the prompt's ------------------------------------------------------------------------------
 */

static enum status put_prompt_token(struct buf *b, const struct openai_token *t, struct error *err)
{
    TRY(buf_printf(b, err, "\"%d\":{\"logprob\":", t->id));
    TRY(put_logprob(b, t->logprob, err));
    TRY(buf_printf(b, err, ",\"rank\":%d,\"decoded_token\":", t->rank));
    TRY(put_token(b, t, true, err));
    return buf_puts(b, "}", err);
}

enum status openai_prompt_logprobs_add(struct buf *list, const struct openai_logprob *t, bool known,
                                       struct error *err)
{
    TRY(put_comma(list, err));
    if (!known)
        return buf_puts(list, "null", err);
    TRY(buf_puts(list, "{", err));
    TRY(put_prompt_token(list, &t->token, err));
    for (int32_t i = 0; i < t->top_count; i++) {
        if (t->top[i].id == t->token.id)
            continue;
        TRY(buf_puts(list, ",", err));
        TRY(put_prompt_token(list, &t->top[i], err));
    }
    return buf_puts(list, "}", err);
}
