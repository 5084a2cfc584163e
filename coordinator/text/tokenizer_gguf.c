/*
 * Making a tokenizer from a GGUF's metadata: see tokenizer.h. They are written out as the
 * tokenizer.json that they stand for, and that is read as any other, so that one place knows what a
 * tokenizer may be.
 *
 * Keys and meanings: ggml's gguf.md and llama.cpp's converter. It writes a token for every row of
 * the embedding, those of the padding at the end as unused; texts as tokenizer.json spells them; a
 * merge as "a b". The pre-tokeniser is a name. Normalising is not mentioned: the model's own
 * tokenizer has NFC.
 */
#include "base/check.h"
#include "coordinator/text/gguf_words.h"
#include "coordinator/text/tokenizer_private.h"
#include "coordinator/text/utf8.h"
#include "partition/shown.h"

#include <stdlib.h>
#include <string.h>

#define PREFIX "tokenizer.ggml."

static const char tokens_key[] = PREFIX "tokens";
static const char types_key[] = PREFIX "token_type";
static const char merges_key[] = PREFIX "merges";

/* llama.cpp's token types. */
enum token_type { TOKEN_NORMAL = 1, TOKEN_CONTROL = 3, TOKEN_USER_DEFINED = 4, TOKEN_UNUSED = 5 };

/* What "qwen2" names: that of Qwen2, Qwen2.5 and Qwen3. */
static const char qwen2_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+"
    "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

struct reader {
    const struct gguf_words *w;
    json_t *vocab, *added, *merges; /* into the root */
    char *types;                    /* owned; 4 bytes each */
    uint64_t count;                 /* of tokens that are not padding */
};

/* The strings of an array, one after the other. */
struct strings {
    const struct gguf_words *w;
    const char *key;
    char *at, *end;
    uint64_t index; /* of the next */
};

static enum status no_memory(const struct gguf_words *w, struct error *err)
{
    return error_set(err, ERR_NO_MEMORY, "%s: no memory for a tokenizer", w->what);
}

static uint64_t take_le(const char *p, int bytes)
{
    uint64_t v = 0;
    for (int i = bytes; i-- > 0;)
        v = v << 8 | (unsigned char)p[i];
    return v;
}

/* The next string, terminated: it is moved over its length's last byte. The bounds are proven again
 * since the file may have changed after it was parsed. */
static enum status next_string(struct strings *s, char **text, size_t *len, struct error *err)
{
    uint64_t i = s->index++;
    size_t left = (size_t)(s->end - s->at);
    uint64_t n = left < 8 ? UINT64_MAX : take_le(s->at, 8);
    if (left < 8 || n > left - 8)
        return error_set(err, ERR_INVALID,
                         "%s: %s[%llu]: expected a string within the array's "
                         "bytes, found another: the file changed while it was read",
                         s->w->what, s->key, (unsigned long long)i);
    char *p = s->at + 7;
    memmove(p, p + 1, (size_t)n);
    p[n] = '\0';
    s->at += 8 + n;
    if (n < 1 || n > TOKENIZER_MAX_TOKEN_BYTES)
        return error_set(err, ERR_INVALID, "%s: %s[%llu]: expected 1 to %d bytes, found %llu",
                         s->w->what, s->key, (unsigned long long)i, (int)TOKENIZER_MAX_TOKEN_BYTES,
                         (unsigned long long)n);
    size_t valid = utf8_valid_prefix(p, (size_t)n);
    if (valid < n || memchr(p, '\0', (size_t)n))
        return error_set(err, ERR_INVALID,
                         "%s: %s[%llu]: expected UTF-8 without NUL, found 0x%02x at byte %zu",
                         s->w->what, s->key, (unsigned long long)i,
                         valid < n ? (unsigned char)p[valid] : 0, valid < n ? valid : strlen(p));
    *text = p;
    *len = (size_t)n;
    return OK;
}

/* --- settings ------------------------------------------------------------------------------- */

static enum status expect_words(const struct gguf_words *w, const char *key, const char *expected,
                                struct error *err)
{
    const char *found = NULL;
    TRY(gguf_get_string(w->gguf, w->what, key, true, &found, err));
    if (strcmp(found, expected) != 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: %s: expected \"%s\", found \"%s\": put the model's tokenizer.json "
                         "beside the GGUF",
                         w->what, key, expected, shown(found).s);
    return OK;
}

static enum status check_settings(const struct gguf_words *w, struct error *err)
{
    static const char *const off[] = {
        PREFIX "add_bos_token",    PREFIX "add_eos_token",        PREFIX "add_sep_token",
        PREFIX "add_space_prefix", PREFIX "normalizer.lowercase", PREFIX "remove_extra_whitespaces",
    };
    TRY(expect_words(w, PREFIX "model", "gpt2", err));
    TRY(expect_words(w, PREFIX "pre", "qwen2", err));
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        bool on = false;
        TRY(gguf_get_bool(w->gguf, w->what, off[i], false, &on, err));
        if (on)
            return error_set(err, ERR_UNSUPPORTED, "%s: %s: expected false, found true", w->what,
                             off[i]);
    }
    return OK;
}

/* Tokens that the metadata name by their ids must be there. */
static enum status check_ids(const struct gguf_words *w, uint64_t count, struct error *err)
{
    static const char *const keys[] = {
        PREFIX "bos_token_id", PREFIX "eos_token_id",     PREFIX "eot_token_id",
        PREFIX "eom_token_id", PREFIX "unknown_token_id", PREFIX "padding_token_id",
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int64_t id = 0;
        TRY(gguf_get_int(w->gguf, w->what, keys[i], false, 0, (int64_t)count - 1, &id, err));
    }
    return OK;
}

/* --- tokens --------------------------------------------------------------------------------- */

static int32_t type_of(const struct reader *r, uint64_t i)
{
    return (int32_t)(uint32_t)take_le(r->types + 4 * i, 4);
}

/* Reads the types; the padding, unused tokens at the end, is left out of r->count. */
static enum status read_types(struct reader *r, uint64_t tokens, struct error *err)
{
    struct gguf_place place;
    TRY(gguf_words_read(r->w, types_key, GGUF_INTS32, 4ul * TOKENIZER_MAX_VOCAB, &r->types, &place,
                        err));
    if (place.count != tokens)
        return error_set(err, ERR_INVALID, "%s: %s: expected %llu, one for each of %s, found %llu",
                         r->w->what, types_key, (unsigned long long)tokens, tokens_key,
                         (unsigned long long)place.count);
    r->count = tokens;
    while (r->count > 0 && type_of(r, r->count - 1) == TOKEN_UNUSED)
        r->count--;
    return OK;
}

static enum status add_added(struct reader *r, uint64_t id, const char *text, bool special,
                             struct error *err)
{
    json_t *token = json_pack("{s:I,s:s,s:b}", "id", (json_int_t)id, "content", text, "special",
                              special);
    return token && json_array_append_new(r->added, token) == 0 ? OK : no_memory(r->w, err);
}

static enum status add_token(struct reader *r, struct strings *s, struct error *err)
{
    char *text = NULL;
    size_t len = 0;
    uint64_t id = s->index;
    TRY(next_string(s, &text, &len, err));
    CHECK(text, "token %llu", (unsigned long long)id);
    const json_t *twin = json_object_get(r->vocab, text);
    if (twin)
        return error_set(
            err, ERR_INVALID,
            "%s: %s[%llu]: expected a token of its own, found \"%s\", which is [%lld], "
            "too",
            r->w->what, tokens_key, (unsigned long long)id, shown(text).s,
            (long long)json_integer_value(twin));
    if (json_object_set_new_nocheck(r->vocab, text, json_integer((json_int_t)id)) != 0)
        return no_memory(r->w, err);
    int32_t type = type_of(r, id);
    if (type == TOKEN_NORMAL)
        return OK;
    if (type != TOKEN_CONTROL && type != TOKEN_USER_DEFINED)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: %s[%llu]: expected 1 (normal), 3 (control), 4 (user-defined) or, "
                         "behind all others, 5 (unused), found %d",
                         r->w->what, types_key, (unsigned long long)id, (int)type);
    return add_added(r, id, text, type == TOKEN_CONTROL, err);
}

static enum status check_count(const struct gguf_words *w, uint64_t count, struct error *err)
{
    if (count < 1 || count > TOKENIZER_MAX_VOCAB)
        return error_set(err, ERR_LIMIT, "%s: %s: expected 1 to %d tokens, found %llu", w->what,
                         tokens_key, (int)TOKENIZER_MAX_VOCAB, (unsigned long long)count);
    if ((int64_t)count != w->rows)
        return error_set(err, ERR_INVALID,
                         "%s: %s: expected %lld tokens, as many as token_embd.weight has rows, "
                         "found %llu",
                         w->what, tokens_key, (long long)w->rows, (unsigned long long)count);
    return OK;
}

static enum status read_tokens(struct reader *r, struct error *err)
{
    char *data = NULL;
    struct gguf_place place;
    TRY(gguf_get_place(r->w->gguf, r->w->what, tokens_key, GGUF_STRINGS, &place, err));
    TRY(check_count(r->w, place.count, err));
    TRY(check_ids(r->w, place.count, err));
    TRY(read_types(r, place.count, err));
    TRY(gguf_words_read(r->w, tokens_key, GGUF_STRINGS, TOKENIZER_MAX_FILE_BYTES, &data, &place,
                        err));
    struct strings s = {r->w, tokens_key, data, data + place.bytes, 0};
    enum status st = OK;
    while (st == OK && s.index < r->count)
        st = add_token(r, &s, err);
    free(data);
    return st;
}

/* --- merges --------------------------------------------------------------------------------- */

static enum status add_merge(struct reader *r, struct strings *s, struct error *err)
{
    char *text = NULL;
    size_t len = 0;
    uint64_t rank = s->index;
    TRY(next_string(s, &text, &len, err));
    CHECK(text, "merge %llu", (unsigned long long)rank);
    const char *space = memchr(text, ' ', len);
    if (!space || space == text || !space[1] || strchr(space + 1, ' '))
        return error_set(err, ERR_INVALID, "%s: %s[%llu]: expected \"a b\", found \"%s\"",
                         r->w->what, merges_key, (unsigned long long)rank, shown(text).s);
    json_t *merge = json_stringn_nocheck(text, len);
    return json_array_append_new(r->merges, merge) == 0 ? OK : no_memory(r->w, err);
}

static enum status read_merges(struct reader *r, struct error *err)
{
    char *data = NULL;
    struct gguf_place place;
    TRY(gguf_words_read(r->w, merges_key, GGUF_STRINGS, TOKENIZER_MAX_FILE_BYTES, &data, &place,
                        err));
    enum status st = OK;
    if (place.count > TOKENIZER_MAX_VOCAB)
        st = error_set(err, ERR_LIMIT, "%s: %s: expected at most %d, found %llu", r->w->what,
                       merges_key, (int)TOKENIZER_MAX_VOCAB, (unsigned long long)place.count);
    struct strings s = {r->w, merges_key, data, data + place.bytes, 0};
    while (st == OK && s.index < place.count)
        st = add_merge(r, &s, err);
    free(data);
    return st;
}

/* --- the whole ------------------------------------------------------------------------------ */

/* The tokenizer.json without its tokens and merges. */
static json_t *frame(struct reader *r)
{
    return json_pack("{s:{s:s,s:o,s:o},s:{s:s},s:{s:s,s:[{s:s,s:s,s:{s:s}},{s:s,s:b,s:b}]},"
                     "s:{s:s},s:o}",
                     "model", "type", "BPE", "vocab", r->vocab, "merges", r->merges, "normalizer",
                     "type", "NFC", "pre_tokenizer", "type", "Sequence", "pretokenizers", "type",
                     "Split", "behavior", "Isolated", "pattern", "Regex", qwen2_pattern, "type",
                     "ByteLevel", "add_prefix_space", 0, "use_regex", 0, "decoder", "type",
                     "ByteLevel", "added_tokens", r->added);
}

enum status tokenizer_from_gguf(const struct gguf_words *w, struct tokenizer **out,
                                struct error *err)
{
    static const struct tokenizer_names names = {tokens_key, merges_key, tokens_key};
    if (!gguf_has(w->gguf, PREFIX "model"))
        return error_set(err, ERR_NOT_FOUND,
                         "%s: no tokenizer: expected " PREFIX "model, or a tokenizer.json beside "
                         "the GGUF",
                         w->what);
    TRY(check_settings(w, err));
    struct reader r = {
        .w = w, .vocab = json_object(), .added = json_array(), .merges = json_array()};
    json_t *root = frame(&r); /* takes the three over */
    enum status st = root ? read_tokens(&r, err) : no_memory(w, err);
    if (st == OK)
        st = read_merges(&r, err);
    if (st == OK)
        st = tokenizer_build(w->what, &names, root, out, err);
    json_decref(root);
    free(r.types);
    return st;
}
