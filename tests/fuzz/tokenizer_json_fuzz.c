/*
 * Any bytes as a tokenizer.json: refused with a message, or a tokenizer that decodes what it
 * encodes. A whole vocabulary is out of a fuzzer's reach, so an input that has the marker "@@"
 * where a vocabulary would begin gets the 256 byte tokens there.
 */
#include "base/check.h"
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/utf8.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The byte tokens as members of a JSON object, ids 0 to 255. */
static void append_bytes(struct buf *b)
{
    uint32_t next = 256;
    for (uint32_t byte = 0; byte < 256; byte++) {
        bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
        char text[8] = {0};
        utf8_encode(printable ? byte : next++, text);
        CHECK(buf_json_string(b, text, strlen(text), NULL) == OK, "byte %u", byte);
        CHECK(buf_printf(b, NULL, ":%u%s", byte, byte < 255 ? "," : "") == OK, "byte %u", byte);
    }
}

static void append_json(struct buf *b, const char *text, size_t len)
{
    const char *marker = memmem(text, len, "@@", 2);
    size_t before = marker ? (size_t)(marker - text) : len;
    CHECK(buf_append(b, text, before, NULL) == OK, "%zu", before);
    if (!marker)
        return;
    append_bytes(b);
    CHECK(buf_append(b, marker + 2, len - before - 2, NULL) == OK, "%zu", len);
}

static void use(const struct tokenizer *tok, const char *text, size_t len)
{
    struct tokenizer_scratch *scratch;
    struct token_ids ids;
    struct buf out;
    struct error err;
    CHECK(tokenizer_scratch_create(tok, &scratch, &err) == OK, "%s", err.msg);
    token_ids_init(&ids, 1 << 20);
    buf_init(&out, 1 << 24);
    if (tokenizer_encode(tok, scratch, text, len, TOKENIZER_ADDED, &ids, &err) == OK)
        CHECK(tokenizer_decode(tok, ids.data, ids.len, false, &out, &err) == OK, "%s", err.msg);
    token_ids_fini(&ids);
    buf_fini(&out);
    tokenizer_scratch_destroy(scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf json;
    struct error err;
    struct tokenizer *tok = NULL;
    buf_init(&json, 1 << 24);
    append_json(&json, (const char *)data, size);
    enum status st = tokenizer_parse("fuzz", json.data ? json.data : "", json.len, &tok, &err);
    if (st == OK)
        use(tok, (const char *)data, size < 256 ? size : 256);
    else
        CHECK(err.msg[0] != '\0' && tok == NULL, "refused without a word");
    tokenizer_destroy(tok);
    buf_fini(&json);
    return 0;
}
