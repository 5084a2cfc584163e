/*
 * Making a tokenizer from tokenizer.json: see tokenizer.h. The format is that of Hugging Face's
 * `tokenizers` library. First every setting is compared with the one way this tokenizer works, then
 * the tables are built; the file's JSON is gone afterwards.
 */
#include "coordinator/text/gguf_words.h"
#include "coordinator/text/tokenizer_private.h"
#include "coordinator/text/unicode.h"
#include "coordinator/text/utf8.h"

#include "base/check.h"
#include "base/file.h"
#include "base/json.h"
#include "partition/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The alphabet in which vocabularies spell bytes: printable Latin-1 stands for itself, the other
 * bytes, in order, for U+0100 and on. */
enum { ALPHABET_END = 0x144 };

struct alphabet {
    uint16_t point_of[256];
    int16_t byte_of[ALPHABET_END]; /* -1: none */
};

struct loader {
    const char *what;
    const struct tokenizer_names *names;
    json_t *root;
    json_t *model;
    json_t *vocab;
    json_t *merges;
    json_t *added;
    const char *pattern;
    const char **texts; /* [vocab_size], as the file spells them; into the JSON */
    struct alphabet alphabet;
    struct tokenizer *tok;
};

static void alphabet_init(struct alphabet *a)
{
    unsigned next = 256;
    for (unsigned i = 0; i < ALPHABET_END; i++)
        a->byte_of[i] = -1;
    for (unsigned b = 0; b < 256; b++) {
        bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) ||
                         (b >= 0xAE && b <= 0xFF);
        unsigned point = printable ? b : next++;
        a->point_of[b] = (uint16_t)point;
        a->byte_of[point] = (int16_t)b;
    }
}

/* --- settings ------------------------------------------------------------------------------- */

/* The object `key` of `obj`; `name` is its full name in messages. */
static enum status get_object(const struct loader *l, const json_t *obj, const char *key,
                              const char *name, json_t **out, struct error *err)
{
    json_t *v = json_object_get(obj, key);
    if (!json_is_object(v))
        return error_set(err, ERR_INVALID, "%s: %s: expected an object, found %s", l->what, name,
                         json_type_words(v));
    *out = v;
    return OK;
}

static enum status expect_string(const struct loader *l, const json_t *obj, const char *key,
                                 const char *name, const char *expected, struct error *err)
{
    const json_t *v = json_object_get(obj, key);
    if (!json_is_string(v))
        return error_set(err, ERR_INVALID, "%s: %s: expected \"%s\", found %s", l->what, name,
                         expected, json_type_words(v));
    if (strcmp(json_string_value(v), expected) != 0)
        return error_set(err, ERR_UNSUPPORTED, "%s: %s: expected \"%s\", found \"%.80s\"", l->what,
                         name, expected, json_string_value(v));
    return OK;
}

/* A setting that must be off: absent, null, false, or, where `or_empty`, "". */
static enum status expect_off(const struct loader *l, const json_t *obj, const char *key,
                              const char *name, bool or_empty, struct error *err)
{
    const json_t *v = json_object_get(obj, key);
    if (!v || json_is_null(v) || json_is_false(v))
        return OK;
    if (or_empty && json_is_string(v) && json_string_length(v) == 0)
        return OK;
    return error_set(err, ERR_UNSUPPORTED, "%s: %s: expected none, found %s", l->what, name,
                     json_is_true(v) ? "true" : json_type_words(v));
}

static enum status check_model(const struct loader *l, struct error *err)
{
    static const struct {
        const char *key, *name;
        bool or_empty;
    } off[] = {
        {"dropout", "model.dropout", false},
        {"unk_token", "model.unk_token", false},
        {"continuing_subword_prefix", "model.continuing_subword_prefix", true},
        {"end_of_word_suffix", "model.end_of_word_suffix", true},
        {"byte_fallback", "model.byte_fallback", false},
        {"ignore_merges", "model.ignore_merges", false},
    };
    TRY(expect_string(l, l->model, "type", "model.type", "BPE", err));
    for (size_t i = 0; i < sizeof off / sizeof off[0]; i++)
        TRY(expect_off(l, l->model, off[i].key, off[i].name, off[i].or_empty, err));
    return OK;
}

/* The pre-tokeniser: Sequence [Split by a regular expression, ByteLevel without one]. */
static enum status check_pre_tokenizer(struct loader *l, struct error *err)
{
    json_t *sequence = NULL;
    TRY(get_object(l, l->root, "pre_tokenizer", "pre_tokenizer", &sequence, err));
    TRY(expect_string(l, sequence, "type", "pre_tokenizer.type", "Sequence", err));
    const json_t *steps = json_object_get(sequence, "pretokenizers");
    if (!json_is_array(steps) || json_array_size(steps) != 2)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: pre_tokenizer.pretokenizers: expected Split and ByteLevel, found %s "
                         "of %zu",
                         l->what, json_type_words(steps), json_array_size(steps));
    const json_t *split = json_array_get(steps, 0);
    const json_t *bytes = json_array_get(steps, 1);
    TRY(expect_string(l, split, "type", "pre_tokenizer.pretokenizers[0].type", "Split", err));
    TRY(expect_string(l, split, "behavior", "pre_tokenizer.pretokenizers[0].behavior", "Isolated",
                      err));
    TRY(expect_off(l, split, "invert", "pre_tokenizer.pretokenizers[0].invert", false, err));
    TRY(expect_string(l, bytes, "type", "pre_tokenizer.pretokenizers[1].type", "ByteLevel", err));
    TRY(expect_off(l, bytes, "add_prefix_space", "pre_tokenizer.pretokenizers[1].add_prefix_space",
                   false, err));
    const json_t *use_regex = json_object_get(bytes, "use_regex");
    if (!json_is_false(use_regex)) /* absent means true */
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: pre_tokenizer.pretokenizers[1].use_regex: expected false, found %s",
                         l->what, json_is_true(use_regex) ? "true" : json_type_words(use_regex));
    const json_t *regex = json_object_get(json_object_get(split, "pattern"), "Regex");
    if (!json_is_string(regex))
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: pre_tokenizer.pretokenizers[0].pattern.Regex: expected a string, "
                         "found %s",
                         l->what, json_type_words(regex));
    l->pattern = json_string_value(regex);
    return OK;
}

/* `key` must be an object of this type. */
static enum status expect_type(const struct loader *l, const char *key, const char *name,
                               const char *type, struct error *err)
{
    json_t *v = NULL;
    TRY(get_object(l, l->root, key, key, &v, err));
    return expect_string(l, v, "type", name, type, err);
}

static enum status check_settings(struct loader *l, struct error *err)
{
    if (!json_is_object(l->root))
        return error_set(err, ERR_INVALID, "%s: expected an object, found %s", l->what,
                         json_type_words(l->root));
    TRY(get_object(l, l->root, "model", "model", &l->model, err));
    TRY(check_model(l, err));
    TRY(expect_type(l, "normalizer", "normalizer.type", "NFC", err));
    TRY(check_pre_tokenizer(l, err));
    TRY(expect_type(l, "decoder", "decoder.type", "ByteLevel", err));
    const json_t *post = json_object_get(l->root, "post_processor");
    if (post && !json_is_null(post)) /* ByteLevel's moves offsets only */
        TRY(expect_type(l, "post_processor", "post_processor.type", "ByteLevel", err));
    TRY(expect_off(l, l->root, "truncation", "truncation", false, err));
    TRY(expect_off(l, l->root, "padding", "padding", false, err));
    TRY(get_object(l, l->model, "vocab", "model.vocab", &l->vocab, err));
    l->merges = json_object_get(l->model, "merges");
    if (!json_is_array(l->merges))
        return error_set(err, ERR_INVALID, "%s: model.merges: expected an array, found %s", l->what,
                         json_type_words(l->merges));
    l->added = json_object_get(l->root, "added_tokens");
    if (l->added && !json_is_null(l->added) && !json_is_array(l->added))
        return error_set(err, ERR_INVALID, "%s: added_tokens: expected an array, found %s", l->what,
                         json_type_words(l->added));
    return OK;
}

/* --- ids ------------------------------------------------------------------------------------ */

/* Gives `text` its id; an id out of range or taken is refused. */
static enum status place(struct loader *l, const char *name, const char *text, const json_t *id,
                         struct error *err)
{
    json_int_t last = (json_int_t)l->tok->vocab_size - 1;
    if (!json_is_integer(id))
        return error_set(err, ERR_INVALID, "%s: %s: \"%.80s\": expected an id, found %s", l->what,
                         name, text, json_type_words(id));
    json_int_t i = json_integer_value(id);
    if (i < 0 || i > last)
        return error_set(err, ERR_INVALID,
                         "%s: %s: \"%.80s\": expected an id of 0 to %lld (ids have no gaps), found "
                         "%lld",
                         l->what, name, text, (long long)last, (long long)i);
    if (l->texts[i])
        return error_set(err, ERR_INVALID,
                         "%s: %s: \"%.80s\": expected an id of its own, found %lld, the id of "
                         "\"%.80s\"",
                         l->what, name, text, (long long)i, l->texts[i]);
    l->texts[i] = text;
    return OK;
}

/* One entry of added_tokens: its text, and whether it is new or one of model.vocab's too. */
static enum status read_added(struct loader *l, size_t i, struct added_token *t, bool *is_new,
                              struct error *err)
{
    static const char *const off[] = {"single_word", "lstrip", "rstrip", "normalized"};
    char name[64];
    snprintf(name, sizeof name, "%s[%zu]", l->names->added, i);
    const json_t *v = json_array_get(l->added, i);
    if (!json_is_object(v))
        return error_set(err, ERR_INVALID, "%s: %s: expected an object, found %s", l->what, name,
                         json_type_words(v));
    for (size_t k = 0; k < sizeof off / sizeof off[0]; k++) {
        char field[96];
        snprintf(field, sizeof field, "%s.%s", name, off[k]);
        TRY(expect_off(l, v, off[k], field, false, err));
    }
    const json_t *content = json_object_get(v, "content");
    const json_t *id = json_object_get(v, "id");
    size_t len = json_string_length(content);
    if (!json_is_string(content) || len == 0 || len > TOKENIZER_MAX_TOKEN_BYTES)
        return error_set(
            err, ERR_INVALID, "%s: %s.content: expected a string of 1 to %d bytes, found %s of %zu",
            l->what, name, (int)TOKENIZER_MAX_TOKEN_BYTES, json_type_words(content), len);
    *t = (struct added_token){.text = json_string_value(content), .len = (uint32_t)len};
    const json_t *twin = json_object_get(l->vocab, t->text);
    *is_new = twin == NULL;
    if (twin && !json_equal(twin, id))
        return error_set(err, ERR_INVALID,
                         "%s: %s.id: expected %lld, the id of \"%.80s\" in model.vocab, found %lld",
                         l->what, name, (long long)json_integer_value(twin), t->text,
                         (long long)json_integer_value(id));
    return OK;
}

static int by_text(const void *a, const void *b)
{
    const struct added_token *x = a;
    const struct added_token *y = b;
    int c = memcmp(x->text, y->text, x->len < y->len ? x->len : y->len);
    return c ? c : (x->len > y->len) - (x->len < y->len);
}

/* Moves the added tokens' texts out of the JSON and sorts them. */
static enum status keep_added(struct loader *l, struct error *err)
{
    struct tokenizer *tok = l->tok;
    size_t total = 1;
    for (size_t i = 0; i < tok->added_count; i++)
        total += tok->added[i].len;
    char *p = tok->added_text = malloc(total);
    if (!p)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for added_tokens", l->what);
    for (size_t i = 0; i < tok->added_count; i++) {
        struct added_token *t = &tok->added[i];
        CHECK(t->text, "added token %zu", i);
        memcpy(p, t->text, t->len);
        t->text = p;
        p += t->len;
        tok->begins_added[(unsigned char)t->text[0]] = true;
    }
    qsort(tok->added, tok->added_count, sizeof *tok->added, by_text);
    for (size_t i = 1; i < tok->added_count; i++)
        if (by_text(&tok->added[i - 1], &tok->added[i]) == 0)
            return error_set(err, ERR_INVALID, "%s: %s: \"%.*s\": expected once, found twice",
                             l->what, l->names->added,
                             (int)(tok->added[i].len < 80 ? tok->added[i].len : 80),
                             tok->added[i].text);
    return OK;
}

/* Reads added_tokens; tok->vocab_size then counts all tokens. */
static enum status count_tokens(struct loader *l, struct error *err)
{
    struct tokenizer *tok = l->tok;
    size_t total = json_object_size(l->vocab);
    size_t added = json_array_size(l->added);
    if (total > TOKENIZER_MAX_VOCAB || added > TOKENIZER_MAX_VOCAB - total)
        return error_set(err, ERR_LIMIT, "%s: expected at most %d tokens, found %zu", l->what,
                         (int)TOKENIZER_MAX_VOCAB, total + added);
    tok->added = calloc(added + 1, sizeof *tok->added);
    if (!tok->added)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for added_tokens", l->what);
    for (; tok->added_count < added; tok->added_count++) {
        bool is_new = false;
        TRY(read_added(l, tok->added_count, &tok->added[tok->added_count], &is_new, err));
        total += is_new;
    }
    tok->vocab_size = (uint32_t)total;
    l->texts = calloc(total + 1, sizeof *l->texts);
    tok->special = calloc(total + 1, sizeof *tok->special);
    tok->offsets = calloc(total + 1, sizeof *tok->offsets);
    if (!l->texts || !tok->special || !tok->offsets)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for %zu tokens", l->what, total);
    return OK;
}

static enum status place_tokens(struct loader *l, struct error *err)
{
    const char *text;
    json_t *id;
    json_object_foreach(l->vocab, text, id)
    {
        TRY(place(l, l->names->vocab, text, id, err));
    }
    for (size_t i = 0; i < l->tok->added_count; i++) {
        struct added_token *t = &l->tok->added[i];
        json_t *v = json_array_get(l->added, i);
        id = json_object_get(v, "id");
        if (!json_object_get(l->vocab, t->text))
            TRY(place(l, l->names->added, t->text, id, err));
        t->id = (uint32_t)json_integer_value(id);
        char name[512];
        snprintf(name, sizeof name, "%s: %s[%zu]", l->what, l->names->added, i);
        TRY(json_get_bool(v, name, "special", false, &l->tok->special[t->id], err));
    }
    return OK;
}

/* --- bytes and merges ----------------------------------------------------------------------- */

/* The bytes that a token spells: by the alphabet, or, when it has another character, as it is. */
static enum status append_bytes(struct loader *l, const char *text, struct error *err)
{
    struct buf *bytes = &l->tok->bytes;
    size_t begin = bytes->len;
    size_t len = strlen(text);
    for (size_t i = 0; i < len;) {
        uint32_t point = utf8_decode(text, &i);
        if (point >= ALPHABET_END || l->alphabet.byte_of[point] < 0) {
            bytes->len = begin;
            return buf_append(bytes, text, len, err);
        }
        char byte = (char)l->alphabet.byte_of[point];
        TRY(buf_append(bytes, &byte, 1, err));
    }
    return OK;
}

static enum status spell_tokens(struct loader *l, struct error *err)
{
    struct tokenizer *tok = l->tok;
    for (uint32_t id = 0; id < tok->vocab_size; id++) {
        TRY(append_bytes(l, l->texts[id], err));
        tok->offsets[id + 1] = (uint32_t)tok->bytes.len;
        size_t len = tok->offsets[id + 1] - tok->offsets[id];
        tok->longest = len > tok->longest ? len : tok->longest;
    }
    return OK;
}

/* Plain text must never give an added token: neither a byte nor a merge may be one. */
static bool is_added(const struct loader *l, const char *text)
{
    const struct tokenizer *tok = l->tok;
    struct added_token key = {.text = text, .len = (uint32_t)strlen(text)};
    return bsearch(&key, tok->added, tok->added_count, sizeof *tok->added, by_text) != NULL;
}

static enum status find_bytes(struct loader *l, uint32_t ids[256], struct error *err)
{
    for (unsigned b = 0; b < 256; b++) {
        char text[5] = {0};
        utf8_encode(l->alphabet.point_of[b], text);
        const json_t *id = json_object_get(l->vocab, text);
        if (!id)
            return error_set(
                err, ERR_UNSUPPORTED,
                "%s: %s: expected a token for every byte, found none for 0x%02x (\"%s\")", l->what,
                l->names->vocab, b, text);
        if (is_added(l, text))
            return error_set(err, ERR_UNSUPPORTED,
                             "%s: %s: \"%s\": expected no token that plain text gives, found byte "
                             "0x%02x",
                             l->what, l->names->added, text, b);
        ids[b] = (uint32_t)json_integer_value(id);
    }
    return OK;
}

/* One merge's halves, terminated, in `left` and `right`: from ["a", "b"] or "a b". */
static enum status read_merge(const struct loader *l, size_t rank, struct buf *left,
                              struct buf *right, struct error *err)
{
    const json_t *v = json_array_get(l->merges, rank);
    buf_clear(left);
    buf_clear(right);
    if (json_is_array(v) && json_array_size(v) == 2 && json_is_string(json_array_get(v, 0)) &&
        json_is_string(json_array_get(v, 1))) {
        TRY(buf_puts(left, json_string_value(json_array_get(v, 0)), err));
        return buf_puts(right, json_string_value(json_array_get(v, 1)), err);
    }
    const char *text = json_string_value(v);
    const char *space = text ? strchr(text, ' ') : NULL;
    if (!space || strchr(space + 1, ' '))
        return error_set(err, ERR_INVALID,
                         "%s: %s[%zu]: expected \"a b\" or [\"a\", \"b\"], found %s%s%.80s",
                         l->what, l->names->merges, rank, json_type_words(v), text ? ": " : "",
                         text ? text : "");
    TRY(buf_append(left, text, (size_t)(space - text), err));
    return buf_puts(right, space + 1, err);
}

static enum status id_of(const struct loader *l, size_t rank, const char *text, uint32_t *id,
                         struct error *err)
{
    const json_t *v = json_object_get(l->vocab, text);
    if (!v)
        return error_set(err, ERR_INVALID, "%s: %s[%zu]: expected tokens of %s, found \"%.80s\"",
                         l->what, l->names->merges, rank, l->names->vocab, text);
    *id = (uint32_t)json_integer_value(v);
    return OK;
}

static enum status add_merge(struct loader *l, size_t rank, struct buf *left, struct buf *right,
                             struct error *err)
{
    uint32_t a = 0;
    uint32_t b = 0;
    uint32_t merged = 0;
    TRY(read_merge(l, rank, left, right, err));
    TRY(id_of(l, rank, left->data, &a, err));
    TRY(id_of(l, rank, right->data, &b, err));
    TRY(buf_append(left, right->data, right->len, err));
    TRY(id_of(l, rank, left->data, &merged, err));
    if (is_added(l, left->data))
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: %s[%zu]: expected no token of %s, found \"%.80s\"", l->what,
                         l->names->merges, rank, l->names->added, left->data);
    enum status st = bpe_add_merge(l->tok->bpe, a, b, merged, err);
    if (st != OK)
        error_prefix(err, "%s: %s[%zu]: expected a new pair, found ", l->what, l->names->merges,
                     rank);
    return st;
}

static enum status load_merges(struct loader *l, struct error *err)
{
    uint32_t byte_ids[256];
    TRY(find_bytes(l, byte_ids, err));
    size_t count = json_array_size(l->merges);
    if (count > TOKENIZER_MAX_VOCAB)
        return error_set(err, ERR_LIMIT, "%s: %s: expected at most %d, found %zu", l->what,
                         l->names->merges, (int)TOKENIZER_MAX_VOCAB, count);
    TRY(bpe_create(byte_ids, count, &l->tok->bpe, err));
    struct buf left;
    struct buf right;
    buf_init(&left, TOKENIZER_MAX_FILE_BYTES);
    buf_init(&right, TOKENIZER_MAX_FILE_BYTES);
    enum status st = OK;
    for (size_t rank = 0; st == OK && rank < count; rank++)
        st = add_merge(l, rank, &left, &right, err);
    buf_fini(&left);
    buf_fini(&right);
    return st;
}

static enum status build(struct loader *l, struct error *err)
{
    struct tokenizer *tok = l->tok;
    buf_init(&tok->bytes, UINT32_MAX);
    alphabet_init(&l->alphabet);
    TRY(check_settings(l, err));
    TRY(count_tokens(l, err));
    TRY(place_tokens(l, err));
    TRY(spell_tokens(l, err));
    TRY(keep_added(l, err));
    TRY(load_merges(l, err));
    TRY(unicode_flags_create(&tok->unicode_flags, err));
    enum status st = pretokenizer_create(l->pattern, tok->unicode_flags, &tok->pretokenizer, err);
    if (st != OK)
        error_prefix(err, "%s: pre_tokenizer.pretokenizers[0].pattern.Regex: ", l->what);
    return st;
}

enum status tokenizer_build(const char *what, const struct tokenizer_names *names, json_t *root,
                            struct tokenizer **out, struct error *err)
{
    struct loader l = {.what = what, .names = names, .root = root};
    l.tok = calloc(1, sizeof *l.tok);
    enum status st = l.tok ? build(&l, err)
                           : error_set(err, ERR_NO_MEMORY, "%s: no memory for a tokenizer", what);
    free(l.texts);
    if (st != OK) {
        tokenizer_destroy(l.tok);
        return st;
    }
    *out = l.tok;
    return OK;
}

enum status tokenizer_parse(const char *what, const char *json, size_t len, struct tokenizer **out,
                            struct error *err)
{
    static const struct tokenizer_names names = {"model.vocab", "model.merges", "added_tokens"};
    json_t *root = NULL;
    TRY(json_parse(what, json, len, &root, err));
    enum status st = tokenizer_build(what, &names, root, out, err);
    json_decref(root);
    return st;
}

enum status tokenizer_load(const char *dir, struct tokenizer **out, struct error *err)
{
    return tokenizer_load_proven(dir, NULL, out, err);
}

static enum status load_from_gguf(const char *dir, const struct manifest *manifest,
                                  struct tokenizer **out, struct error *err)
{
    struct gguf_words w;
    TRY(gguf_words_open(dir, manifest, &w, err));
    enum status st = tokenizer_from_gguf(&w, out, err);
    gguf_words_close(&w);
    return st;
}

enum status tokenizer_load_proven(const char *dir, const struct manifest *manifest,
                                  struct tokenizer **out, struct error *err)
{
    static const char file[] = "tokenizer.json";
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/%s", dir, file);
    if (n < 0 || (size_t)n >= sizeof path)
        return error_set(err, ERR_INVALID, "%s: the path is too long", dir);
    char *text;
    size_t len;
    enum status st = file_read_proven(dir, file, manifest_proof(manifest), TOKENIZER_MAX_FILE_BYTES,
                                      &text, &len, err);
    if (st == ERR_NOT_FOUND && checkpoint_is_gguf(dir, manifest))
        return load_from_gguf(dir, manifest, out, err);
    TRY(st);
    st = tokenizer_parse(path, text, len, out, err);
    free(text);
    if (st == OK)
        gguf_words_say_file_wins(dir, manifest, file);
    return st;
}
