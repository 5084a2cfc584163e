/* The tokenizer against the reference's vectors for Qwen3's own vocabulary, in ../shared/qwen3:
 * from its tokenizer.json, and from a GGUF's metadata as llama.cpp's converter writes them. */
#include "tests/unit/unit.h"

#include "coordinator/text/gguf_words.h"
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/utf8.h"

#include "tests/tools/gguf_writer.h"

enum { ROWS = 151936 }; /* of the published models' embeddings */

struct fixture {
    struct tokenizer *tok;
    struct tokenizer_scratch *scratch;
    struct token_ids ids;
    struct buf text;
};

static char *unpacked(size_t *len)
{
    char command[4200];
    snprintf(command, sizeof command, "xz -dc '%s'", shared_path("qwen3/tokenizer.json.xz"));
    FILE *f = popen(command, "r");
    assert_non_null(f);
    enum { LIMIT = 32 << 20 };
    char *text = malloc(LIMIT);
    assert_non_null(text);
    *len = fread(text, 1, LIMIT, f);
    assert_int_equal(pclose(f), 0);
    return text;
}

/* The tokenizer of a GGUF that holds this tokenizer.json. */
static enum status load_by_gguf(const char *json, size_t len, bool by_looks, struct tokenizer **tok,
                                struct error *err)
{
    struct gguf_writer writer;
    struct buf file;
    struct gguf *g = NULL;
    json_t *root = json_loadb(json, len, 0, NULL);
    assert_non_null(root);
    gguf_writer_init(&writer);
    gguf_put_tokenizer(&writer, root, ROWS, by_looks);
    gguf_writer_end(&writer, &file);
    json_decref(root);
    struct gguf_words w = {.what = "m.gguf", .source = gguf_memory(&file), .rows = ROWS};
    enum status st = gguf_parse("m.gguf", &w.source, &g, err);
    w.gguf = g;
    if (st == OK)
        st = tokenizer_from_gguf(&w, tok, err);
    gguf_destroy(g);
    buf_fini(&file);
    return st;
}

enum source { FROM_JSON, FROM_GGUF, FROM_GGUF_BY_LOOKS };

static void setup(struct fixture *f, enum source source)
{
    struct error err = {0};
    size_t len;
    char *json = unpacked(&len);
    enum status st = source == FROM_JSON
                         ? tokenizer_parse("tokenizer.json", json, len, &f->tok, &err)
                         : load_by_gguf(json, len, source == FROM_GGUF_BY_LOOKS, &f->tok, &err);
    if (st != OK)
        fail_msg("%s", err.msg);
    free(json);
    assert_int_equal(tokenizer_scratch_create(f->tok, &f->scratch, &err), OK);
    token_ids_init(&f->ids, 1 << 20);
    buf_init(&f->text, 1 << 20);
}

static void teardown(struct fixture *f)
{
    token_ids_fini(&f->ids);
    buf_fini(&f->text);
    tokenizer_scratch_destroy(f->scratch);
    tokenizer_destroy(f->tok);
}

static void check_ids(const struct fixture *f, size_t line, const char *key, const json_t *want)
{
    size_t n = json_array_size(want);
    bool same = n == f->ids.len;
    for (size_t i = 0; same && i < n; i++)
        same = json_integer_value(json_array_get(want, i)) == (json_int_t)f->ids.data[i];
    if (!same) {
        for (size_t i = 0; i < f->ids.len; i++)
            fprintf(stderr, "%u ", f->ids.data[i]);
        fail_msg("line %zu: %s differ", line, key);
    }
}

/* What decoding gives: the text in NFC, which the ids' own bytes spell. */
static void check_decodes(struct fixture *f, size_t line, const char *text, size_t len)
{
    struct error err;
    struct token_ids again;
    buf_clear(&f->text);
    assert_int_equal(tokenizer_decode(f->tok, f->ids.data, f->ids.len, false, &f->text, &err), OK);
    if (f->text.len == len && (len == 0 || memcmp(f->text.data, text, len) == 0))
        return;
    token_ids_init(&again, 1 << 20); /* not in NFC then: the normal form has the same ids */
    assert_int_equal(tokenizer_encode(f->tok, f->scratch, f->text.data, f->text.len,
                                      TOKENIZER_ADDED, &again, &err),
                     OK);
    if (again.len != f->ids.len ||
        memcmp(again.data, f->ids.data, again.len * sizeof *again.data) != 0)
        fail_msg("line %zu: decodes to \"%s\"", line, f->text.data);
    token_ids_fini(&again);
}

static void check_plain(struct fixture *f, size_t line, const char *text, size_t len,
                        const json_t *want)
{
    struct error err;
    token_ids_clear(&f->ids);
    assert_int_equal(
        tokenizer_encode(f->tok, f->scratch, text, len, TOKENIZER_PLAIN, &f->ids, &err), OK);
    if (want)
        check_ids(f, line, "ids_plain", want);
    for (size_t i = 0; i < f->ids.len; i++)
        assert_true(f->ids.data[i] < 151643); /* the first added token */
}

/* A vector's bytes, not UTF-8: refused as they are, and their lossy text is the vector's. */
static void check_hex(struct fixture *f, size_t line, const char *hex, const char *text, size_t len)
{
    struct error err;
    char bytes[256];
    size_t n = 0;
    for (; hex[2 * n]; n++) {
        unsigned byte;
        assert_true(n < sizeof bytes && sscanf(hex + 2 * n, "%2x", &byte) == 1);
        bytes[n] = (char)byte;
    }
    token_ids_clear(&f->ids);
    enum status want = utf8_valid_prefix(bytes, n) == n ? OK : ERR_INVALID;
    assert_int_equal(tokenizer_encode(f->tok, f->scratch, bytes, n, TOKENIZER_PLAIN, &f->ids, &err),
                     want);
    buf_clear(&f->text);
    assert_int_equal(utf8_append_lossy(&f->text, bytes, n, &err), OK);
    if (f->text.len != len || memcmp(f->text.data, text, len) != 0)
        fail_msg("line %zu: %s gives \"%s\"", line, hex, f->text.data);
}

static void check_vector(struct fixture *f, size_t line, const json_t *v)
{
    struct error err;
    const json_t *t = json_object_get(v, "text");
    const char *text = json_string_value(t);
    size_t len = json_string_length(t);
    const char *hex = json_string_value(json_object_get(v, "hex"));
    if (hex)
        check_hex(f, line, hex, text, len);
    token_ids_clear(&f->ids);
    if (tokenizer_encode(f->tok, f->scratch, text, len, TOKENIZER_ADDED, &f->ids, &err) != OK)
        fail_msg("line %zu: %s", line, err.msg);
    check_ids(f, line, "ids", json_object_get(v, "ids"));
    check_decodes(f, line, text, len);
    check_plain(f, line, text, len, json_object_get(v, "ids_plain"));
}

static void check_file(enum source source, const char *name, size_t want_lines)
{
    struct fixture f = {0};
    setup(&f, source);
    FILE *in = fopen(shared_path(name), "r");
    assert_non_null(in);
    char *line = NULL;
    size_t cap = 0;
    size_t count = 0;
    while (getline(&line, &cap, in) > 0) {
        json_error_t je;
        json_t *v = json_loads(line, JSON_ALLOW_NUL, &je);
        assert_non_null(v);
        check_vector(&f, ++count, v);
        json_decref(v);
    }
    assert_true(count >= want_lines);
    free(line);
    fclose(in);
    teardown(&f);
}

static void every_class_has_the_reference_ids(void **state)
{
    (void)state;
    check_file(FROM_JSON, "qwen3/golden_tokens.jsonl", 252);
}

static void unicode_versions_are_the_reference_ones(void **state)
{
    (void)state;
    check_file(FROM_JSON, "qwen3/golden_unicode_edge.jsonl", 25);
}

static void special_tokens_are_the_file_s(void **state)
{
    (void)state;
    struct fixture f = {0};
    struct error err;
    uint32_t id = 0;
    setup(&f, FROM_JSON);
    assert_int_equal(tokenizer_vocab_size(f.tok), 151669);
    assert_int_equal(tokenizer_id_of_token(f.tok, "<|im_end|>", 10, &id, &err), OK);
    assert_int_equal(id, 151645);
    assert_true(tokenizer_is_special(f.tok, id));
    assert_int_equal(tokenizer_id_of_token(f.tok, "</think>", 8, &id, &err), OK);
    assert_int_equal(id, 151668);
    assert_false(tokenizer_is_special(f.tok, id));
    assert_int_equal(tokenizer_id_of_token(f.tok, "hello", 5, &id, &err), ERR_NOT_FOUND);
    uint32_t outside = 151669;
    assert_int_equal(tokenizer_decode(f.tok, &outside, 1, false, &f.text, &err), ERR_INVALID);
    assert_string_equal(err.msg, "token id 151669: the vocabulary ends at 151668");
    teardown(&f);
}

static void a_gguf_has_the_reference_ids(void **state)
{
    (void)state;
    check_file(FROM_GGUF_BY_LOOKS, "qwen3/golden_tokens.jsonl", 252);
    check_file(FROM_GGUF_BY_LOOKS, "qwen3/golden_unicode_edge.jsonl", 25);
}

/* Every token, what it spells and whether it is special. The converter's guess makes six more
 * special: <|fim_...|>, <|repo_name|> and <|file_sep|>. */
static void a_gguf_has_the_same_tokens(void **state)
{
    (void)state;
    struct fixture json = {0}, gguf = {0}, looks = {0};
    const uint32_t last = 151668;
    uint32_t more = 0;
    setup(&json, FROM_JSON);
    setup(&gguf, FROM_GGUF);
    setup(&looks, FROM_GGUF_BY_LOOKS);
    assert_int_equal(tokenizer_vocab_size(gguf.tok), last + 1);
    assert_int_equal(tokenizer_vocab_size(looks.tok), last + 1);
    for (uint32_t id = 0; id <= last; id++) {
        const char *a = NULL, *b = NULL;
        size_t n = 0, m = 0;
        assert_int_equal(tokenizer_token_bytes(json.tok, id, &a, &n, NULL), OK);
        assert_int_equal(tokenizer_token_bytes(gguf.tok, id, &b, &m, NULL), OK);
        assert_true(n == m && memcmp(a, b, n) == 0);
        bool special = tokenizer_is_special(json.tok, id);
        assert_int_equal(tokenizer_is_special(gguf.tok, id), special);
        more += tokenizer_is_special(looks.tok, id) && !special;
    }
    assert_int_equal(more, 6);
    teardown(&json);
    teardown(&gguf);
    teardown(&looks);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_class_has_the_reference_ids),
    cmocka_unit_test(unicode_versions_are_the_reference_ones),
    cmocka_unit_test(special_tokens_are_the_file_s),
    cmocka_unit_test(a_gguf_has_the_reference_ids),
    cmocka_unit_test(a_gguf_has_the_same_tokens),
};

UNIT_MAIN(tests)
