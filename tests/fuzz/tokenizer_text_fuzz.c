/*
 * Any bytes as text: refused where they are not UTF-8, else encoded so that decoding gives the text
 * in NFC, whole or as a stream, and no added token comes from plain text. Bytes read as ids decode
 * to UTF-8.
 */
#include "base/check.h"
#include "coordinator/text/nfc.h"
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/unicode.h"
#include "coordinator/text/utf8.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Byte tokens, some merges, added tokens: made once, for the process's life. */
struct world {
    struct tokenizer *tok;
    struct tokenizer_scratch *scratch;
    uint8_t *flags;
};

static const char *const merges[][2] = {{"a", "b"}, {"ab", "ab"}, {"a", "a"},    {"aa", "aa"},
                                        {"t", "h"}, {"th", "e"},  {"b", "a"},    {"e", "e"},
                                        {"1", "1"}, {"<", "|"},   {"abab", "e"}, {"the", "the"}};

static const char head[] =
    "{\"added_tokens\":[{\"id\":268,\"content\":\"<|a|>\",\"special\":true},"
    "{\"id\":269,\"content\":\"<|a\"},{\"id\":270,\"content\":\"\u20AC\"}],"
    "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\","
    "\"pretokenizers\":[{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":"
    "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}"
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}},"
    "{\"type\":\"ByteLevel\",\"use_regex\":false}]},\"decoder\":{\"type\":\"ByteLevel\"},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{";

static void append_vocab(struct buf *b)
{
    uint32_t next = 256;
    for (uint32_t byte = 0; byte < 256; byte++) {
        bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
        char text[8] = {0};
        utf8_encode(printable ? byte : next++, text);
        buf_json_string(b, text, strlen(text), NULL);
        buf_printf(b, NULL, ":%u,", 255 - byte);
    }
    for (uint32_t i = 0; i < COUNT_OF(merges); i++)
        buf_printf(b, NULL, "\"%s%s\":%u%s", merges[i][0], merges[i][1], 256 + i,
                   i + 1 < COUNT_OF(merges) ? "," : "},\"merges\":[");
    for (uint32_t i = 0; i < COUNT_OF(merges); i++)
        buf_printf(b, NULL, "[\"%s\",\"%s\"]%s", merges[i][0], merges[i][1],
                   i + 1 < COUNT_OF(merges) ? "," : "]}}");
}

static struct world make_world(void)
{
    struct world w = {0};
    struct buf b;
    struct error err;
    buf_init(&b, 1 << 20);
    buf_puts(&b, head, NULL);
    append_vocab(&b);
    CHECK(tokenizer_parse("fuzz", b.data, b.len, &w.tok, &err) == OK, "%s", err.msg);
    CHECK(tokenizer_scratch_create(w.tok, &w.scratch, &err) == OK, "%s", err.msg);
    CHECK(unicode_flags_create(&w.flags, &err) == OK, "%s", err.msg);
    buf_fini(&b);
    return w;
}

static void check_same(const struct buf *a, const struct buf *b, const char *what)
{
    CHECK(a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0),
          "%s: %zu bytes against %zu", what, a->len, b->len);
}

static void check_stream(const struct world *w, const uint32_t *ids, size_t count,
                         const struct buf *whole)
{
    struct detok d;
    struct buf out;
    struct error err;
    buf_init(&out, 1 << 24);
    detok_init(&d, w->tok, false);
    for (size_t i = 0; i < count; i++) {
        CHECK(detok_push(&d, ids[i], &out, &err) == OK, "%s", err.msg);
        CHECK(utf8_valid_prefix(out.data, out.len) == out.len, "half a character");
    }
    CHECK(detok_flush(&d, &out, &err) == OK, "%s", err.msg);
    check_same(whole, &out, "stream");
    buf_fini(&out);
}

static void check_text(const struct world *w, const char *text, size_t len)
{
    struct token_ids ids;
    struct buf out, normal;
    struct nfc_scratch nfc;
    struct error err;
    token_ids_init(&ids, 1 << 24);
    buf_init(&out, 1 << 24);
    buf_init(&normal, 1 << 24);
    nfc_scratch_init(&nfc);
    enum status st = tokenizer_encode(w->tok, w->scratch, text, len, TOKENIZER_PLAIN, &ids, &err);
    bool valid = utf8_valid_prefix(text, len) == len;
    CHECK(st == (valid ? OK : ERR_INVALID), "status %d", (int)st);
    if (valid) {
        for (size_t i = 0; i < ids.len; i++)
            CHECK(ids.data[i] < 268, "an added token from plain text");
        CHECK(tokenizer_decode(w->tok, ids.data, ids.len, true, &out, &err) == OK, "%s", err.msg);
        CHECK(nfc_append(&normal, &nfc, w->flags, text, len, &err) == OK, "%s", err.msg);
        check_same(&normal, &out, "decoded");
        check_stream(w, ids.data, ids.len, &out);
        st = tokenizer_encode(w->tok, w->scratch, text, len, TOKENIZER_ADDED, &ids, &err);
        CHECK(st == OK, "%s", err.msg);
    }
    token_ids_fini(&ids);
    buf_fini(&out);
    buf_fini(&normal);
    nfc_scratch_fini(&nfc);
}

static void check_ids(const struct world *w, const uint8_t *data, size_t size)
{
    struct token_ids ids;
    struct buf out;
    struct error err;
    token_ids_init(&ids, 1 << 24);
    buf_init(&out, 1 << 24);
    for (size_t i = 0; i < size; i++) {
        uint32_t id = data[i] < 250 ? data[i] : data[i] + 15u;
        CHECK(token_ids_append(&ids, &id, 1, &err) == OK, "%s", err.msg);
    }
    CHECK(tokenizer_decode(w->tok, ids.data, ids.len, false, &out, &err) == OK, "%s", err.msg);
    check_stream(w, ids.data, ids.len, &out);
    token_ids_fini(&ids);
    buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world world;
    if (!world.tok)
        world = make_world();
    check_text(&world, (const char *)data, size);
    check_ids(&world, data, size);
    return 0;
}
