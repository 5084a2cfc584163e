/* coordinator/text/tokenizer_gguf: a tokenizer from a GGUF's metadata is the one of its
 * tokenizer.json, and every way in which metadata are refused. */
#include "tests/unit/partition/folder.h"

#include "coordinator/text/gguf_words.h"
#include "coordinator/text/template.h"
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/utf8.h"
#include "tests/tools/gguf_writer.h"

static const char GOLDEN[] = WITAN_SOURCE_DIR "/tests/golden/tokenizer";

/* --- the reference's vectors ------------------------------------------------------------------ */

static void take_ids(struct token_ids *ids, const json_t *from)
{
    token_ids_clear(ids);
    for (size_t i = 0; i < json_array_size(from); i++) {
        uint32_t id = (uint32_t)json_integer_value(json_array_get(from, i));
        assert_int_equal(token_ids_append(ids, &id, 1, NULL), OK);
    }
}

static void assert_decodes(const struct tokenizer *tok, const struct token_ids *ids, bool skip,
                           const json_t *want)
{
    struct buf text;
    buf_init(&text, 1 << 20);
    assert_int_equal(tokenizer_decode(tok, ids->data, ids->len, skip, &text, NULL), OK);
    assert_int_equal(text.len, json_string_length(want));
    assert_memory_equal(text.data ? text.data : "", json_string_value(want), text.len);
    buf_fini(&text);
}

static void check_vector(const struct tokenizer *tok, struct tokenizer_scratch *s, const json_t *v)
{
    struct token_ids ids, want;
    const json_t *text = json_object_get(v, "text");
    token_ids_init(&ids, 1 << 16);
    token_ids_init(&want, 1 << 16);
    take_ids(&want, json_object_get(v, "ids"));
    assert_int_equal(tokenizer_encode(tok, s, json_string_value(text), json_string_length(text),
                                      TOKENIZER_ADDED, &ids, NULL),
                     OK);
    assert_int_equal(ids.len, want.len);
    assert_memory_equal(ids.data ? ids.data : want.data, want.data, want.len * sizeof *want.data);
    assert_decodes(tok, &ids, false, json_object_get(v, "decoded"));
    take_ids(&want, json_object_get(v, "any_ids"));
    assert_decodes(tok, &want, false, json_object_get(v, "any_decoded"));
    assert_decodes(tok, &want, true, json_object_get(v, "any_skipped"));
    token_ids_fini(&ids);
    token_ids_fini(&want);
}

/* A file that the gguf package wrote: see tests/golden/tokenizer/PROVENANCE.md. */
static void the_packages_file_gives_the_reference_vectors(void **state)
{
    (void)state;
    struct tokenizer *tok = NULL;
    struct tokenizer_scratch *scratch = NULL;
    struct error err;
    char path[1024], *line = NULL;
    size_t cap = 0, count = 0;
    snprintf(path, sizeof path, "%s/gguf", GOLDEN);
    if (tokenizer_load(path, &tok, &err) != OK)
        fail_msg("%s", err.msg);
    assert_int_equal(tokenizer_scratch_create(tok, &scratch, &err), OK);
    assert_int_equal(tokenizer_vocab_size(tok), 705); /* without the padding */
    snprintf(path, sizeof path, "%s/vectors.jsonl", GOLDEN);
    FILE *in = fopen(path, "r");
    assert_non_null(in);
    for (; getline(&line, &cap, in) > 0; count++) {
        json_t *v = json_loads(line, JSON_ALLOW_NUL, NULL);
        assert_non_null(v);
        check_vector(tok, scratch, v);
        json_decref(v);
    }
    assert_true(count > 100);
    free(line);
    fclose(in);
    tokenizer_scratch_destroy(scratch);
    tokenizer_destroy(tok);
}

static void the_packages_file_has_a_template(void **state)
{
    (void)state;
    struct error err;
    enum template_kind kind;
    char path[1024];
    snprintf(path, sizeof path, "%s/gguf", GOLDEN);
    SAYS(
        template_detect(path, &kind, &err), ERR_UNSUPPORTED, &err,
        "tokenizer.gguf: tokenizer.chat_template: unknown chat template with SHA-256 26671585fab1");
}

/* --- metadata made here ----------------------------------------------------------------------- */

enum { BYTES = 256, MERGED = 256, SPECIAL, ADDED, PADS, TOKENS = PADS + 2 };

/* A tokenizer of the 256 bytes, "ab", two added tokens and two rows of padding. */
struct metadata {
    const char *model, *pre; /* NULL: left out */
    char texts[TOKENS][48];
    int32_t types[TOKENS];
    uint32_t tokens, type_count; /* 0: left out */
    const char *merges[4];       /* NULL: no more; none: left out */
    const char *on;              /* a boolean that is true */
    const char *id_key;          /* an id, of `id` */
    uint64_t id;
    int64_t rows;
    int nul_in; /* a token whose second byte is NUL; -1: none */
    uint64_t type_width;
};

static struct metadata sound(void)
{
    struct metadata m = {.model = "gpt2",
                         .pre = "qwen2",
                         .tokens = TOKENS,
                         .type_count = TOKENS,
                         .merges = {"a b"},
                         .rows = TOKENS,
                         .nul_in = -1,
                         .type_width = 5};
    uint32_t next = 256;
    for (uint32_t byte = 0; byte < BYTES; byte++) {
        bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
        utf8_encode(printable ? byte : next++, m.texts[byte]);
    }
    strcpy(m.texts[MERGED], "ab");
    strcpy(m.texts[SPECIAL], "<|im_end|>");
    strcpy(m.texts[ADDED], "<think>");
    strcpy(m.texts[PADS], "[PAD259]");
    strcpy(m.texts[PADS + 1], "[PAD260]");
    for (int i = 0; i < TOKENS; i++)
        m.types[i] = i < SPECIAL ? 1 : i == SPECIAL ? 3 : i == ADDED ? 4 : 5;
    return m;
}

static void put_tokens(const struct metadata *m, struct gguf_writer *w)
{
    gguf_put_array(&w->entries, "tokenizer.ggml.tokens", 8, m->tokens);
    for (uint32_t i = 0; i < m->tokens; i++) {
        gguf_put(&w->entries, strlen(m->texts[i]), 8);
        size_t at = w->entries.len;
        gguf_put_bytes(&w->entries, m->texts[i], strlen(m->texts[i]));
        if ((int)i == m->nul_in)
            w->entries.data[at + 1] = '\0';
    }
    w->entry_count++;
}

static void put_rest(const struct metadata *m, struct gguf_writer *w)
{
    size_t merges = 0;
    if (m->type_count > 0) {
        gguf_put_array(&w->entries, "tokenizer.ggml.token_type", m->type_width, m->type_count);
        for (uint32_t i = 0; i < m->type_count; i++)
            gguf_put(&w->entries, (uint32_t)m->types[i], m->type_width == 5 ? 4 : 8);
        w->entry_count++;
    }
    while (merges < 4 && m->merges[merges])
        merges++;
    if (merges > 0) {
        gguf_put_array(&w->entries, "tokenizer.ggml.merges", 8, merges);
        for (size_t i = 0; i < merges; i++)
            gguf_put_string(&w->entries, m->merges[i]);
        w->entry_count++;
    }
    if (m->on) {
        gguf_put_bool(&w->entries, m->on, true);
        w->entry_count++;
    }
    if (m->id_key) {
        gguf_put_int(&w->entries, m->id_key, m->id);
        w->entry_count++;
    }
}

static void write_metadata(const struct metadata *m, struct buf *file)
{
    struct gguf_writer w;
    gguf_writer_init(&w);
    if (m->model) {
        gguf_put_text(&w.entries, "tokenizer.ggml.model", m->model);
        w.entry_count++;
    }
    if (m->pre) {
        gguf_put_text(&w.entries, "tokenizer.ggml.pre", m->pre);
        w.entry_count++;
    }
    if (m->tokens > 0)
        put_tokens(m, &w);
    put_rest(m, &w);
    gguf_writer_end(&w, file);
}

/* `spoil` (may be NULL) changes the file after its header was proven. */
static enum status load_spoilt(const struct metadata *m,
                               void (*spoil)(struct buf *file, const struct gguf *g),
                               struct tokenizer **tok, struct error *err)
{
    struct buf file;
    struct gguf *g = NULL;
    write_metadata(m, &file);
    struct gguf_words w = {.what = "m.gguf", .source = gguf_memory(&file), .rows = m->rows};
    assert_int_equal(gguf_parse("m.gguf", &w.source, &g, err), OK);
    w.gguf = g;
    if (spoil)
        spoil(&file, g);
    enum status st = tokenizer_from_gguf(&w, tok, err);
    assert_true(st == OK || !*tok);
    gguf_destroy(g);
    buf_fini(&file);
    return st;
}

#define REFUSED(m, status, ...)                                                                    \
    do {                                                                                           \
        struct tokenizer *tok_ = NULL;                                                             \
        struct error err_;                                                                         \
        SAYS(load_spoilt(&(m), NULL, &tok_, &err_), status, &err_, "m.gguf: ", __VA_ARGS__);       \
    } while (0)

static void sound_metadata_give_a_tokenizer(void **state)
{
    (void)state;
    struct metadata m = sound();
    struct tokenizer *tok = NULL;
    struct tokenizer_scratch *scratch = NULL;
    struct token_ids ids;
    struct error err;
    static const uint32_t added[] = {'c', MERGED, SPECIAL, ADDED};
    if (load_spoilt(&m, NULL, &tok, &err) != OK)
        fail_msg("%s", err.msg);
    assert_int_equal(tokenizer_vocab_size(tok), PADS);
    assert_true(tokenizer_is_special(tok, SPECIAL) && !tokenizer_is_special(tok, ADDED));
    assert_int_equal(tokenizer_scratch_create(tok, &scratch, &err), OK);
    token_ids_init(&ids, 100);
    assert_int_equal(
        tokenizer_encode(tok, scratch, "cab<|im_end|><think>", 20, TOKENIZER_ADDED, &ids, &err),
        OK);
    assert_int_equal(ids.len, 4);
    assert_memory_equal(ids.data, added, sizeof added);
    token_ids_clear(&ids);
    assert_int_equal(tokenizer_encode(tok, scratch, "[PAD259]", 8, TOKENIZER_ADDED, &ids, &err),
                     OK);
    assert_int_equal(ids.len, 8); /* padding is no text */
    token_ids_fini(&ids);
    tokenizer_scratch_destroy(scratch);
    tokenizer_destroy(tok);
}

static void settings_that_are_refused(void **state)
{
    (void)state;
    static const char *const flags[] = {
        "tokenizer.ggml.add_bos_token",        "tokenizer.ggml.add_eos_token",
        "tokenizer.ggml.add_sep_token",        "tokenizer.ggml.add_space_prefix",
        "tokenizer.ggml.normalizer.lowercase", "tokenizer.ggml.remove_extra_whitespaces",
    };
    static const char *const ids[] = {
        "tokenizer.ggml.bos_token_id",     "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.eot_token_id",     "tokenizer.ggml.eom_token_id",
        "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id",
    };
    struct metadata m = sound();
    m.model = NULL;
    REFUSED(m, ERR_NOT_FOUND, "no tokenizer", "tokenizer.ggml.model", "tokenizer.json");
    m.model = "llama";
    REFUSED(m, ERR_UNSUPPORTED, "tokenizer.ggml.model: expected \"gpt2\", found \"llama\"",
            "put the model's tokenizer.json beside");
    m = sound();
    m.pre = NULL;
    REFUSED(m, ERR_INVALID, "tokenizer.ggml.pre: ", "found nothing");
    m.pre = "llama-bpe";
    REFUSED(m, ERR_UNSUPPORTED, "tokenizer.ggml.pre: expected \"qwen2\", found \"llama-bpe\"");
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        m = sound();
        m.on = flags[i];
        REFUSED(m, ERR_UNSUPPORTED, flags[i], "expected false, found true");
    }
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        m = sound();
        m.id_key = ids[i];
        m.id = TOKENS;
        REFUSED(m, ERR_INVALID, ids[i], "expected 0 to 260, found 261");
    }
}

static void tokens_that_are_refused(void **state)
{
    (void)state;
    struct metadata m = sound();
    m.tokens = 0;
    REFUSED(m, ERR_INVALID, "tokenizer.ggml.tokens: expected an array of strings, found nothing");
    m = sound();
    m.rows = 300;
    REFUSED(m, ERR_INVALID, "tokenizer.ggml.tokens: expected 300 tokens", "token_embd.weight",
            "found 261");
    m = sound();
    strcpy(m.texts[MERGED], "a");
    REFUSED(m, ERR_INVALID, "tokenizer.ggml.tokens[256]: ", "found \"a\", which is [97], too");
    m = sound();
    strcpy(m.texts[MERGED], "");
    REFUSED(m, ERR_INVALID, "tokenizer.ggml.tokens[256]: expected 1 to 65536 bytes, found 0");
    strcpy(m.texts[MERGED], "a\xff");
    REFUSED(m, ERR_INVALID, "tokenizer.ggml.tokens[256]: expected UTF-8 without NUL",
            "found 0xff at byte 1");
    m = sound();
    m.nul_in = SPECIAL;
    REFUSED(m, ERR_INVALID, "tokenizer.ggml.tokens[257]: ", "found 0x00 at byte 1");
    m = sound();
    strcpy(m.texts['a'], "aa");
    REFUSED(m, ERR_UNSUPPORTED, "tokenizer.ggml.tokens: expected a token for every byte",
            "none for 0x61");
}

static void types_that_are_refused(void **state)
{
    (void)state;
    struct metadata m = sound();
    m.type_count = 0;
    REFUSED(m, ERR_INVALID, "tokenizer.ggml.token_type: ", "32-bit integers, found nothing");
    m.type_count = TOKENS - 1;
    REFUSED(m, ERR_INVALID, "tokenizer.ggml.token_type: expected 261", "found 260");
    m = sound();
    m.type_width = 11;
    REFUSED(m, ERR_INVALID, "tokenizer.ggml.token_type: expected an array of 32-bit integers",
            "found an array, each an integer");
    static const int32_t bad[] = {0, 2, 5, 6, -1};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char found[32];
        snprintf(found, sizeof found, "found %d", (int)bad[i]);
        m = sound();
        m.types[MERGED] = bad[i];
        REFUSED(m, ERR_UNSUPPORTED, "tokenizer.ggml.token_type[256]: expected 1 (normal)", found);
    }
    /* What plain text spells must not be an added token. */
    m = sound();
    m.types['a'] = 3;
    REFUSED(m, ERR_UNSUPPORTED, "tokenizer.ggml.tokens: \"a\": expected no token that plain text");
    m = sound();
    m.types[MERGED] = 4;
    REFUSED(m, ERR_UNSUPPORTED, "tokenizer.ggml.merges[0]: expected no token of", "found \"ab\"");
}

static void merges_that_are_refused(void **state)
{
    (void)state;
    struct metadata m = sound();
    m.merges[0] = NULL;
    REFUSED(m, ERR_INVALID, "tokenizer.ggml.merges: expected an array of strings, found nothing");
    static const char *const bad[] = {"ab", " ab", "ab ", "a b c", "a  b", " "};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        m = sound();
        m.merges[1] = bad[i];
        REFUSED(m, ERR_INVALID, "tokenizer.ggml.merges[1]: expected \"a b\", found \"", bad[i]);
    }
    m = sound();
    m.merges[1] = "a c";
    REFUSED(m, ERR_INVALID, "tokenizer.ggml.merges[1]: expected tokens of tokenizer.ggml.tokens",
            "found \"ac\"");
    m.merges[1] = "xyz a";
    REFUSED(m, ERR_INVALID, "tokenizer.ggml.merges[1]: ", "found \"xyz\"");
    m.merges[1] = "a b";
    REFUSED(m, ERR_INVALID, "tokenizer.ggml.merges[1]: expected a new pair");
    m.merges[1] = "a \xc3";
    REFUSED(m, ERR_INVALID, "tokenizer.ggml.merges[1]: expected UTF-8", "0xc3 at byte 2");
}

static void lengthen_tokens(struct buf *file, const struct gguf *g)
{
    struct gguf_place p;
    assert_int_equal(gguf_get_place(g, "", "tokenizer.ggml.tokens", GGUF_STRINGS, &p, NULL), OK);
    memset(file->data + p.offset, 0xff, 8);
}

static void cut_merges(struct buf *file, const struct gguf *g)
{
    struct gguf_place p;
    assert_int_equal(gguf_get_place(g, "", "tokenizer.ggml.merges", GGUF_STRINGS, &p, NULL), OK);
    file->data[p.offset] = 1; /* the second of the two then begins in the first */
}

static void a_file_that_changes_is_refused(void **state)
{
    (void)state;
    struct metadata m = sound();
    struct tokenizer *tok = NULL;
    struct error err;
    SAYS(load_spoilt(&m, lengthen_tokens, &tok, &err), ERR_INVALID, &err,
         "m.gguf: tokenizer.ggml.tokens[0]: ", "the file changed");
    m.merges[1] = "b a";
    SAYS(load_spoilt(&m, cut_merges, &tok, &err), ERR_INVALID, &err,
         "m.gguf: tokenizer.ggml.merges[0]: ");
}

/* --- folders ---------------------------------------------------------------------------------- */

static void a_folder_without_words_says_so(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct tokenizer *tok = NULL;
    struct error err;
    enum template_kind kind;
    SAYS(tokenizer_load(f.path, &tok, &err), ERR_NOT_FOUND, &err, "tokenizer.json: No such file");
    struct metadata m = sound();
    struct buf file;
    m.model = NULL;
    write_metadata(&m, &file);
    folder_write(&f, "m.gguf", file.data, file.len);
    SAYS(tokenizer_load(f.path, &tok, &err), ERR_NOT_FOUND, &err, "m.gguf: no tokenizer");
    SAYS(template_detect(f.path, &kind, &err), ERR_NOT_FOUND, &err, "m.gguf: no chat template",
         "tokenizer.chat_template in a GGUF");
    folder_puts(&f, "m.gguf", "GGUX");
    SAYS(tokenizer_load(f.path, &tok, &err), ERR_INVALID, &err, "m.gguf: ", "begins with GGUF");
    assert_null(tok);
    buf_fini(&file);
    folder_remove(&f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(the_packages_file_gives_the_reference_vectors),
    cmocka_unit_test(the_packages_file_has_a_template),
    cmocka_unit_test(sound_metadata_give_a_tokenizer),
    cmocka_unit_test(settings_that_are_refused),
    cmocka_unit_test(tokens_that_are_refused),
    cmocka_unit_test(types_that_are_refused),
    cmocka_unit_test(merges_that_are_refused),
    cmocka_unit_test(a_file_that_changes_is_refused),
    cmocka_unit_test(a_folder_without_words_says_so),
};

UNIT_MAIN(tests)
