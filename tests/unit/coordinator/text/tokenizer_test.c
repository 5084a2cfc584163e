/*
 * The tokenizer with the small vocabulary of tests/golden/tokenizer: the reference's vectors, what
 * must hold for any text, and every way in which a tokenizer.json is refused.
 */
#include "tests/unit/unit.h"

#include "coordinator/text/nfc.h"
#include "coordinator/text/template.h"
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/unicode.h"
#include "coordinator/text/utf8.h"

#include <jansson.h>

static const char DIR[] = WITAN_SOURCE_DIR "/tests/golden/tokenizer";

struct fixture {
    struct tokenizer *tok;
    struct tokenizer_scratch *scratch;
    struct token_ids ids;
    struct buf text;
    uint64_t random;
};

static void setup(struct fixture *f)
{
    struct error err = {0};
    *f = (struct fixture){.random = 1};
    if (tokenizer_load(DIR, &f->tok, &err) != OK)
        fail_msg("%s", err.msg);
    assert_int_equal(tokenizer_scratch_create(f->tok, &f->scratch, &err), OK);
    token_ids_init(&f->ids, 1 << 24);
    buf_init(&f->text, 1 << 24);
}

static void teardown(struct fixture *f)
{
    token_ids_fini(&f->ids);
    buf_fini(&f->text);
    tokenizer_scratch_destroy(f->scratch);
    tokenizer_destroy(f->tok);
}

/* Into f->ids and f->text. */
static void encode(struct fixture *f, const char *text, size_t len, enum tokenizer_mode mode)
{
    struct error err = {0};
    token_ids_clear(&f->ids);
    if (tokenizer_encode(f->tok, f->scratch, text, len, mode, &f->ids, &err) != OK)
        fail_msg("%s", err.msg);
}

static void decode(struct fixture *f, bool skip_special)
{
    struct error err = {0};
    buf_clear(&f->text);
    if (tokenizer_decode(f->tok, f->ids.data, f->ids.len, skip_special, &f->text, &err) != OK)
        fail_msg("%s", err.msg);
}

static unsigned next_random(struct fixture *f, unsigned below)
{
    f->random = f->random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((f->random >> 33) % below);
}

/* --- vectors -------------------------------------------------------------------------------- */

static void expect_ids(const struct fixture *f, size_t line, const json_t *want)
{
    bool same = json_array_size(want) == f->ids.len;
    for (size_t i = 0; same && i < f->ids.len; i++)
        same = json_integer_value(json_array_get(want, i)) == (json_int_t)f->ids.data[i];
    if (!same)
        fail_msg("line %zu: ids differ", line);
}

static void expect_text(const struct fixture *f, size_t line, const json_t *want)
{
    size_t len = json_string_length(want);
    if (f->text.len != len || (len && memcmp(f->text.data, json_string_value(want), len) != 0))
        fail_msg("line %zu: expected \"%s\", found \"%s\"", line, json_string_value(want),
                 f->text.data);
}

static void take_ids(struct fixture *f, const json_t *ids)
{
    token_ids_clear(&f->ids);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        uint32_t id = (uint32_t)json_integer_value(json_array_get(ids, i));
        assert_int_equal(token_ids_append(&f->ids, &id, 1, NULL), OK);
    }
}

static void vectors_are_the_reference_ones(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    char path[4096];
    snprintf(path, sizeof path, "%s/vectors.jsonl", DIR);
    FILE *in = fopen(path, "r");
    assert_non_null(in);
    char *line = NULL;
    size_t cap = 0;
    size_t n = 0;
    while (getline(&line, &cap, in) > 0) {
        json_t *v = json_loads(line, JSON_ALLOW_NUL, NULL);
        assert_non_null(v);
        const json_t *text = json_object_get(v, "text");
        n++;
        encode(&f, json_string_value(text), json_string_length(text), TOKENIZER_ADDED);
        expect_ids(&f, n, json_object_get(v, "ids"));
        decode(&f, false);
        expect_text(&f, n, json_object_get(v, "decoded"));
        take_ids(&f, json_object_get(v, "any_ids"));
        decode(&f, false);
        expect_text(&f, n, json_object_get(v, "any_decoded"));
        decode(&f, true);
        expect_text(&f, n, json_object_get(v, "any_skipped"));
        json_decref(v);
    }
    assert_int_equal(n, 195);
    free(line);
    fclose(in);
    teardown(&f);
}

/* --- what holds for any text ---------------------------------------------------------------- */

static size_t random_text(struct fixture *f, char *out, size_t max)
{
    static const uint32_t pool[] = {' ',   '\n',  '\'',   's',    'e',    '0',   0x301,
                                    0x323, 0x5B4, 0x1100, 0x1161, 0x11A8, 0x17F, 0x10D4A};
    size_t len = 0;
    size_t count = next_random(f, 40);
    while (count-- > 0 && len + 4 <= max) {
        uint32_t c = pool[next_random(f, sizeof pool / sizeof pool[0])];
        if (next_random(f, 3) == 0)
            c = next_random(f, next_random(f, 2) ? 0x3000 : 0x110000);
        if (c >= 0xD800 && c < 0xE000)
            c = '<';
        len += utf8_encode(c, out + len);
    }
    return len;
}

static void decoding_gives_the_text_in_nfc(void **state)
{
    (void)state;
    struct fixture f;
    struct error err;
    struct nfc_scratch nfc;
    struct buf normal;
    uint8_t *flags;
    setup(&f);
    nfc_scratch_init(&nfc);
    buf_init(&normal, 1 << 16);
    assert_int_equal(unicode_flags_create(&flags, &err), OK);
    for (int i = 0; i < 20000; i++) {
        char text[256];
        size_t len = random_text(&f, text, sizeof text);
        encode(&f, text, len, TOKENIZER_PLAIN);
        decode(&f, false);
        buf_clear(&normal);
        assert_int_equal(nfc_append(&normal, &nfc, flags, text, len, &err), OK);
        assert_int_equal(f.text.len, normal.len);
        if (normal.len)
            assert_memory_equal(f.text.data, normal.data, normal.len);
    }
    free(flags);
    buf_fini(&normal);
    nfc_scratch_fini(&nfc);
    teardown(&f);
}

static void plain_text_never_gives_an_added_token(void **state)
{
    (void)state;
    static const char *const names[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>",
                                        "<think>",       "</think>",     "<thin"};
    struct fixture f;
    struct error err;
    setup(&f);
    uint32_t added[6];
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(tokenizer_id_of_token(f.tok, names[i], strlen(names[i]), &added[i], &err),
                         OK);
    for (int round = 0; round < 2000; round++) {
        char text[512] = "";
        for (int k = 0; k < 8; k++) {
            strcat(text, names[next_random(&f, 6)]);
            strcat(text, next_random(&f, 2) ? "\n" : "");
        }
        encode(&f, text, strlen(text), TOKENIZER_PLAIN);
        for (size_t i = 0; i < f.ids.len; i++)
            for (size_t k = 0; k < 6; k++)
                assert_int_not_equal(f.ids.data[i], added[k]);
        decode(&f, true);
        assert_string_equal(f.text.data, text);
    }
    teardown(&f);
}

static void a_stream_gives_whole_characters_and_the_same_text(void **state)
{
    (void)state;
    struct fixture f;
    struct error err;
    struct buf stream;
    setup(&f);
    buf_init(&stream, 1 << 16);
    for (int round = 0; round < 20000; round++) {
        struct detok d;
        token_ids_clear(&f.ids);
        buf_clear(&stream);
        bool skip = round % 2;
        detok_init(&d, f.tok, skip);
        for (unsigned n = next_random(&f, 12); n > 0; n--) {
            uint32_t id = next_random(&f, tokenizer_vocab_size(f.tok));
            assert_int_equal(token_ids_append(&f.ids, &id, 1, &err), OK);
            assert_int_equal(detok_push(&d, id, &stream, &err), OK);
            assert_int_equal(utf8_valid_prefix(stream.data, stream.len), stream.len);
        }
        assert_int_equal(detok_flush(&d, &stream, &err), OK);
        assert_int_equal(detok_flush(&d, &stream, &err), OK); /* nothing left */
        decode(&f, skip);
        assert_int_equal(stream.len, f.text.len);
        if (stream.len)
            assert_memory_equal(stream.data, f.text.data, stream.len);
    }
    buf_fini(&stream);
    teardown(&f);
}

static void a_failed_push_changes_nothing(void **state)
{
    (void)state;
    struct fixture f;
    struct error err;
    struct detok d;
    struct buf out;
    setup(&f);
    encode(&f, "\xE2\x82\xAC", 3, TOKENIZER_PLAIN); /* three bytes, three tokens */
    assert_int_equal(f.ids.len, 3);
    buf_init(&out, 2);
    detok_init(&d, f.tok, false);
    assert_int_equal(detok_push(&d, f.ids.data[0], &out, &err), OK);
    assert_int_equal(detok_push(&d, f.ids.data[1], &out, &err), OK);
    assert_int_equal(detok_push(&d, f.ids.data[2], &out, &err), ERR_LIMIT);
    assert_int_equal(detok_push(&d, 705, &out, &err), ERR_INVALID);
    assert_string_equal(err.msg, "token id 705: the vocabulary ends at 704");
    out.limit = 3;
    assert_int_equal(detok_push(&d, f.ids.data[2], &out, &err), OK);
    assert_string_equal(out.data, "\xE2\x82\xAC");
    buf_fini(&out);
    teardown(&f);
}

/* Long pieces are merged by another algorithm than short ones: a piece repeated must agree with
 * itself around the length where it changes, and a huge one must not take quadratic time. */
static void long_pieces_merge_as_short_ones(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    static const char unit[] = "memorythestatuserrorlimit";
    char text[200];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = unit[i % (sizeof unit - 1)];
    struct token_ids shorter;
    token_ids_init(&shorter, 1000);
    encode(&f, text, 48, TOKENIZER_PLAIN);
    assert_int_equal(token_ids_append(&shorter, f.ids.data, f.ids.len, NULL), OK);
    encode(&f, text, 200, TOKENIZER_PLAIN);
    for (size_t i = 0; i + 4 < shorter.len; i++)
        assert_int_equal(f.ids.data[i], shorter.data[i]);
    token_ids_fini(&shorter);
    enum { HUGE_BYTES = 4 << 20 };
    char *huge = malloc(HUGE_BYTES);
    assert_non_null(huge);
    memset(huge, ' ', HUGE_BYTES);
    encode(&f, huge, HUGE_BYTES, TOKENIZER_PLAIN);
    decode(&f, false);
    assert_int_equal(f.text.len, HUGE_BYTES);
    assert_memory_equal(f.text.data, huge, HUGE_BYTES);
    struct error err;
    token_ids_clear(&f.ids);
    f.ids.limit = 1000;
    assert_int_equal(
        tokenizer_encode(f.tok, f.scratch, huge, HUGE_BYTES, TOKENIZER_PLAIN, &f.ids, &err),
        ERR_LIMIT);
    assert_string_equal(err.msg, "more than 1000 tokens");
    free(huge);
    teardown(&f);
}

/* --- bounds --------------------------------------------------------------------------------- */

static void bad_input_is_an_error_and_changes_nothing(void **state)
{
    (void)state;
    struct fixture f;
    struct error err;
    setup(&f);
    encode(&f, "abc", 3, TOKENIZER_PLAIN);
    size_t before = f.ids.len;
    assert_int_equal(
        tokenizer_encode(f.tok, f.scratch, "ab\xC3(", 4, TOKENIZER_PLAIN, &f.ids, &err),
        ERR_INVALID);
    assert_string_equal(err.msg, "text: expected UTF-8, found 0xc3 at byte 2");
    assert_int_equal(f.ids.len, before);
    f.ids.limit = before + 1;
    assert_int_equal(tokenizer_encode(f.tok, f.scratch, "0123", 4, TOKENIZER_PLAIN, &f.ids, &err),
                     ERR_LIMIT);
    assert_int_equal(f.ids.len, before);
    assert_int_equal(tokenizer_encode(f.tok, f.scratch, NULL, 0, TOKENIZER_ADDED, &f.ids, &err),
                     OK);
    assert_int_equal(f.ids.len, before);
    char *huge = calloc(TOKENIZER_MAX_INPUT_BYTES + 1, 1);
    assert_non_null(huge);
    assert_int_equal(tokenizer_encode(f.tok, f.scratch, huge, TOKENIZER_MAX_INPUT_BYTES + 1,
                                      TOKENIZER_PLAIN, &f.ids, &err),
                     ERR_LIMIT);
    free(huge);
    teardown(&f);
}

static void spans_become_added_tokens_and_nothing_else_does(void **state)
{
    (void)state;
    struct fixture f;
    struct error err;
    setup(&f);
    const char *text = "<|im_start|>user\n<|im_end|> <think>\n<|im_end|>\n";
    size_t len = strlen(text);
    const struct template_span spans[] = {{0, 12, false}, {36, 46, false}};
    encode(&f, "user\n<|im_end|> <think>\n", 24, TOKENIZER_PLAIN);
    struct token_ids want;
    token_ids_init(&want, 1000);
    uint32_t id;
    assert_int_equal(tokenizer_id_of_token(f.tok, "<|im_start|>", 12, &id, &err), OK);
    assert_int_equal(token_ids_append(&want, &id, 1, &err), OK);
    assert_int_equal(token_ids_append(&want, f.ids.data, f.ids.len, &err), OK);
    assert_int_equal(tokenizer_id_of_token(f.tok, "<|im_end|>", 10, &id, &err), OK);
    assert_int_equal(token_ids_append(&want, &id, 1, &err), OK);
    encode(&f, "\n", 1, TOKENIZER_PLAIN);
    assert_int_equal(token_ids_append(&want, f.ids.data, f.ids.len, &err), OK);
    token_ids_clear(&f.ids);
    assert_int_equal(tokenizer_encode_spans(f.tok, f.scratch, text, len, spans, 2, &f.ids, &err),
                     OK);
    assert_int_equal(f.ids.len, want.len);
    assert_memory_equal(f.ids.data, want.data, want.len * sizeof *want.data);
    /* One that may be no token is text, and a token where it is one. */
    const struct template_span more[] = {{0, 12, true}, {12, 16, true}, {36, 46, true}};
    token_ids_clear(&f.ids);
    assert_int_equal(tokenizer_encode_spans(f.tok, f.scratch, text, len, more, 3, &f.ids, &err),
                     OK);
    assert_int_equal(f.ids.len, want.len);
    assert_memory_equal(f.ids.data, want.data, want.len * sizeof *want.data);
    token_ids_fini(&want);

    const struct template_span bad[][2] = {{{0, 12, false}, {11, 20, false}},
                                           {{0, 12, false}, {12, 12, true}},
                                           {{0, 12, false}, {36, 99, true}},
                                           {{0, 12, false}, {12, 16, false}}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        size_t before = f.ids.len;
        assert_int_not_equal(
            tokenizer_encode_spans(f.tok, f.scratch, text, len, bad[i], 2, &f.ids, &err), OK);
        assert_int_equal(f.ids.len, before);
    }
    assert_string_equal(err.msg, "no added token \"user\"");
    teardown(&f);
}

/* --- files that are refused ----------------------------------------------------------------- */

/* tokenizer.json with the first `find` replaced. */
static char *edited(const char *json, const char *find, const char *replace)
{
    const char *at = strstr(json, find);
    if (!at)
        fail_msg("no %s in tokenizer.json", find);
    size_t before = (size_t)(at - json);
    char *out = malloc(strlen(json) + strlen(replace) + 1);
    assert_non_null(out);
    memcpy(out, json, before);
    strcpy(out + before, replace);
    strcat(out, at + strlen(find));
    return out;
}

static const struct {
    const char *find, *replace;
    enum status status;
    const char *msg; /* its beginning */
} refused[] = {
    {"{\"version\"", "[", ERR_INVALID, "t.json: line 1"},
    {"\"BPE\"", "\"WordPiece\"", ERR_UNSUPPORTED,
     "t.json: model.type: expected \"BPE\", found \"WordPiece\""},
    {"\"BPE\"", "7", ERR_INVALID, "t.json: model.type: expected \"BPE\", found an integer"},
    {"\"model\"", "\"mode\"", ERR_INVALID, "t.json: model: expected an object, found nothing"},
    {"\"dropout\": null", "\"dropout\": 0.1", ERR_UNSUPPORTED,
     "t.json: model.dropout: expected none, found a real number"},
    {"\"unk_token\": null", "\"unk_token\": \"<unk>\"", ERR_UNSUPPORTED,
     "t.json: model.unk_token: expected none, found a string"},
    {"\"continuing_subword_prefix\": null", "\"continuing_subword_prefix\": \"##\"",
     ERR_UNSUPPORTED, "t.json: model.continuing_subword_prefix: expected none, found a string"},
    {"\"byte_fallback\": false", "\"byte_fallback\": true", ERR_UNSUPPORTED,
     "t.json: model.byte_fallback: expected none, found true"},
    {"\"ignore_merges\": false", "\"ignore_merges\": true", ERR_UNSUPPORTED,
     "t.json: model.ignore_merges: expected none, found true"},
    {"\"NFC\"", "\"NFKC\"", ERR_UNSUPPORTED,
     "t.json: normalizer.type: expected \"NFC\", found \"NFKC\""},
    {"\"normalizer\": {\"type\": \"NFC\"}", "\"normalizer\": null", ERR_INVALID,
     "t.json: normalizer: expected an object, found null"},
    {"\"Sequence\"", "\"Whitespace\"", ERR_UNSUPPORTED, "t.json: pre_tokenizer.type: expected"},
    {"\"pretokenizers\": [", "\"pretokenizers\": [{\"type\": \"Digits\"}, ", ERR_UNSUPPORTED,
     "t.json: pre_tokenizer.pretokenizers: expected Split and ByteLevel, found an array of 3"},
    {"\"Isolated\"", "\"Removed\"", ERR_UNSUPPORTED,
     "t.json: pre_tokenizer.pretokenizers[0].behavior: expected \"Isolated\", found \"Removed\""},
    {"\"invert\": false", "\"invert\": true", ERR_UNSUPPORTED,
     "t.json: pre_tokenizer.pretokenizers[0].invert: expected none, found true"},
    {"\"Regex\"", "\"String\"", ERR_UNSUPPORTED,
     "t.json: pre_tokenizer.pretokenizers[0].pattern.Regex: expected a string, found nothing"},
    {"\"(?i:'s", "\"(?<=a)(?i:'s", ERR_UNSUPPORTED,
     "t.json: pre_tokenizer.pretokenizers[0].pattern.Regex: unsupported regular expression at its "
     "byte 0: \"(?<=a)"},
    {"\"(?i:'s", "\"\\\\h|(?i:'s", ERR_UNSUPPORTED,
     "t.json: pre_tokenizer.pretokenizers[0].pattern.Regex: unsupported"},
    {"\"(?i:'s", "\"[a-z&&[b]]|(?i:'s", ERR_UNSUPPORTED,
     "t.json: pre_tokenizer.pretokenizers[0].pattern.Regex: unsupported"},
    {"\"(?i:'s", "\"((?i:'s", ERR_INVALID,
     "t.json: pre_tokenizer.pretokenizers[0].pattern.Regex: regular expression, byte "},
    {"\"(?i:'s", "\"a*|(?i:'s", ERR_UNSUPPORTED,
     "t.json: pre_tokenizer.pretokenizers[0].pattern.Regex: regular expression: expected one that "
     "matches no empty text"},
    {"\"add_prefix_space\": false", "\"add_prefix_space\": true", ERR_UNSUPPORTED,
     "t.json: pre_tokenizer.pretokenizers[1].add_prefix_space: expected none, found true"},
    {"\"use_regex\": false", "\"use_regex\": true", ERR_UNSUPPORTED,
     "t.json: pre_tokenizer.pretokenizers[1].use_regex: expected false, found true"},
    {"\"decoder\": {\"type\": \"ByteLevel\"", "\"decoder\": {\"type\": \"Fuse\"", ERR_UNSUPPORTED,
     "t.json: decoder.type: expected \"ByteLevel\", found \"Fuse\""},
    {"\"post_processor\": {\"type\": \"ByteLevel\"",
     "\"post_processor\": {\"type\": \"TemplateProcessing\"", ERR_UNSUPPORTED,
     "t.json: post_processor.type: expected \"ByteLevel\", found \"TemplateProcessing\""},
    {"\"truncation\": null", "\"truncation\": {}", ERR_UNSUPPORTED,
     "t.json: truncation: expected none, found an object"},
    {"\"padding\": null", "\"padding\": {}", ERR_UNSUPPORTED,
     "t.json: padding: expected none, found an object"},
    {"\"vocab\": {", "\"vocab\": 3, \"x\": {", ERR_INVALID,
     "t.json: model.vocab: expected an object, found an integer"},
    {"\"vocab\": {", "\"vocab\": {\"zzz\": \"a\", ", ERR_INVALID,
     "t.json: model.vocab: \"zzz\": expected an id, found a string"},
    {"\"vocab\": {", "\"vocab\": {\"zzz\": 706, ", ERR_INVALID,
     "t.json: model.vocab: \"zzz\": expected an id of 0 to 705 (ids have no gaps), found 706"},
    {"\"vocab\": {", "\"vocab\": {\"zzz\": -1, ", ERR_INVALID,
     "t.json: model.vocab: \"zzz\": expected an id of 0 to 705 (ids have no gaps), found -1"},
    {"\"vocab\": {", "\"vocab\": {\"zzz\": 0, ", ERR_INVALID, "t.json: model.vocab: \""},
    {"\"!\": ", "\"zzz\": ", ERR_UNSUPPORTED,
     "t.json: model.vocab: expected a token for every byte, found none for 0x21 (\"!\")"},
    {"\"merges\": [", "\"merges\": 3, \"x\": [", ERR_INVALID,
     "t.json: model.merges: expected an array, found an integer"},
    {"\"merges\": [", "\"merges\": [7, ", ERR_INVALID,
     "t.json: model.merges[0]: expected \"a b\" or [\"a\", \"b\"], found an integer"},
    {"\"merges\": [", "\"merges\": [\"ab\", ", ERR_INVALID,
     "t.json: model.merges[0]: expected \"a b\" or [\"a\", \"b\"], found a string: ab"},
    {"\"merges\": [", "\"merges\": [[\"a\", \"b\", \"c\"], ", ERR_INVALID,
     "t.json: model.merges[0]: expected \"a b\" or [\"a\", \"b\"], found an array"},
    {"\"merges\": [", "\"merges\": [\"a b c\", ", ERR_INVALID,
     "t.json: model.merges[0]: expected \"a b\" or"},
    {"\"merges\": [", "\"merges\": [\"q qqq\", ", ERR_INVALID,
     "t.json: model.merges[0]: expected tokens of model.vocab, found \"qqq\""},
    {"\"merges\": [", "\"merges\": [\"q q\", ", ERR_INVALID,
     "t.json: model.merges[0]: expected tokens of model.vocab, found \"qq\""},
    {"\"merges\": [", "\"merges\": [\"\\u0120 \\u0120\", ", ERR_INVALID,
     "t.json: model.merges[1]: expected a new pair, found the same pair as merge 0"},
    {"\"added_tokens\": [", "\"added_tokens\": 3, \"x\": [", ERR_INVALID,
     "t.json: added_tokens: expected an array, found an integer"},
    {"\"added_tokens\": [", "\"added_tokens\": [3, ", ERR_INVALID,
     "t.json: added_tokens[0]: expected an object, found an integer"},
    {"\"content\": \"<think>\"", "\"content\": \"\"", ERR_INVALID,
     "t.json: added_tokens[3].content: expected a string of 1 to 65536 bytes, found a string of 0"},
    {"\"content\": \"<think>\"", "\"content\": \"</think>\"", ERR_INVALID,
     "t.json: added_tokens: \"</think>\": expected once, found twice"},
    {"\"content\": \"<think>\"", "\"content\": \"!\"", ERR_INVALID,
     "t.json: added_tokens[3].id: expected "},
    {"\"lstrip\": false", "\"lstrip\": true", ERR_UNSUPPORTED,
     "t.json: added_tokens[0].lstrip: expected none, found true"},
    {"\"normalized\": false", "\"normalized\": true", ERR_UNSUPPORTED,
     "t.json: added_tokens[0].normalized: expected none, found true"},
    {"\"special\": true", "\"special\": 1", ERR_INVALID,
     "t.json: added_tokens[0]: special: expected true or false, found an integer"},
    {"\"id\": 701", "\"id\": 700", ERR_INVALID,
     "t.json: added_tokens: \"<think>\": expected an id of its own, found 700, the id of "
     "\"<|im_end|>\""},
};

static char *good_json(void)
{
    char path[4096];
    char *json;
    size_t len;
    snprintf(path, sizeof path, "%s/tokenizer.json", DIR);
    assert_int_equal(file_read_all(path, 1 << 20, &json, &len, NULL), OK);
    return json;
}

static void refused_files_say_why(void **state)
{
    (void)state;
    char *json = good_json();
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct error err = {0};
        struct tokenizer *tok = NULL;
        char *bad = edited(json, refused[i].find, refused[i].replace);
        enum status st = tokenizer_parse("t.json", bad, strlen(bad), &tok, &err);
        free(bad);
        if (st != refused[i].status ||
            strncmp(err.msg, refused[i].msg, strlen(refused[i].msg)) != 0)
            fail_msg("case %zu: expected %d \"%s\", found %d \"%s\"", i, refused[i].status,
                     refused[i].msg, st, err.msg);
        assert_null(strchr(err.msg, '\n'));
    }
    free(json);
}

/* Else "a" or " the" in a user's text would be a token that a template takes for its own. */
static void added_tokens_that_plain_text_gives_are_refused(void **state)
{
    (void)state;
    char *json = good_json();
    static const char *const texts[] = {"!", "\xC4\xA0the"};
    json_t *root = json_loads(json, 0, NULL);
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    for (size_t i = 0; i < 2; i++) {
        const json_t *id = json_object_get(vocab, texts[i]);
        assert_non_null(id);
        char with[256];
        snprintf(with, sizeof with, "\"added_tokens\": [{\"id\": %d, \"content\": \"%s\"}, ",
                 (int)json_integer_value(id), texts[i]);
        char *bad = edited(json, "\"added_tokens\": [", with);
        struct error err;
        struct tokenizer *tok;
        assert_int_equal(tokenizer_parse("t.json", bad, strlen(bad), &tok, &err), ERR_UNSUPPORTED);
        assert_non_null(strstr(err.msg, texts[i]));
        free(bad);
    }
    json_decref(root);
    free(json);
}

static void both_forms_of_merges_load_alike(void **state)
{
    (void)state;
    struct fixture f;
    struct error err = {0};
    setup(&f);
    char *json = good_json();
    json_t *root = json_loads(json, 0, NULL);
    json_t *merges = json_object_get(json_object_get(root, "model"), "merges");
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const char *pair = json_string_value(json_array_get(merges, i));
        const char *space = strchr(pair, ' ');
        json_array_set_new(merges, i, json_pack("[s#, s]", pair, (int)(space - pair), space + 1));
    }
    char *pairs = json_dumps(root, 0);
    struct tokenizer *tok = NULL;
    struct tokenizer_scratch *scratch = NULL;
    assert_int_equal(tokenizer_parse("t.json", pairs, strlen(pairs), &tok, &err), OK);
    assert_int_equal(tokenizer_scratch_create(tok, &scratch, &err), OK);
    struct token_ids ids;
    token_ids_init(&ids, 1000);
    static const char text[] = "the caller owns the memory; errors of the status";
    encode(&f, text, strlen(text), TOKENIZER_PLAIN);
    assert_int_equal(
        tokenizer_encode(tok, scratch, text, strlen(text), TOKENIZER_PLAIN, &ids, &err), OK);
    assert_int_equal(ids.len, f.ids.len);
    assert_memory_equal(ids.data, f.ids.data, ids.len * sizeof *ids.data);
    token_ids_fini(&ids);
    tokenizer_scratch_destroy(scratch);
    tokenizer_destroy(tok);
    free(pairs);
    json_decref(root);
    free(json);
    teardown(&f);
}

/* The text stays an error, not a hang. */
static void a_pattern_without_end_is_stopped(void **state)
{
    (void)state;
    char *json = good_json();
    char *bad = edited(json, "\"(?i:'s", "\"(?:q+)+!|(?i:'s");
    struct error err = {0};
    struct tokenizer *tok;
    struct tokenizer_scratch *scratch;
    struct token_ids ids;
    char text[200];
    memset(text, 'q', sizeof text);
    assert_int_equal(tokenizer_parse("t.json", bad, strlen(bad), &tok, &err), OK);
    assert_int_equal(tokenizer_scratch_create(tok, &scratch, &err), OK);
    token_ids_init(&ids, 1000);
    assert_int_equal(tokenizer_encode(tok, scratch, text, sizeof text, TOKENIZER_PLAIN, &ids, &err),
                     ERR_LIMIT);
    assert_string_equal(err.msg, "pre-tokenising at byte 0: match limit exceeded");
    token_ids_fini(&ids);
    tokenizer_scratch_destroy(scratch);
    tokenizer_destroy(tok);
    free(bad);
    free(json);
}

static void an_absent_file_is_named(void **state)
{
    (void)state;
    struct error err;
    struct tokenizer *tok;
    assert_int_equal(tokenizer_load("/nonexistent", &tok, &err), ERR_NOT_FOUND);
    assert_string_equal(err.msg, "/nonexistent/tokenizer.json: No such file or directory");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(vectors_are_the_reference_ones),
    cmocka_unit_test(decoding_gives_the_text_in_nfc),
    cmocka_unit_test(plain_text_never_gives_an_added_token),
    cmocka_unit_test(a_stream_gives_whole_characters_and_the_same_text),
    cmocka_unit_test(a_failed_push_changes_nothing),
    cmocka_unit_test(long_pieces_merge_as_short_ones),
    cmocka_unit_test(bad_input_is_an_error_and_changes_nothing),
    cmocka_unit_test(spans_become_added_tokens_and_nothing_else_does),
    cmocka_unit_test(refused_files_say_why),
    cmocka_unit_test(added_tokens_that_plain_text_gives_are_refused),
    cmocka_unit_test(both_forms_of_merges_load_alike),
    cmocka_unit_test(a_pattern_without_end_is_stopped),
    cmocka_unit_test(an_absent_file_is_named),
};

UNIT_MAIN(tests)
