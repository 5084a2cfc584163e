/*
 * Any bytes as a GGUF with a tokenizer: refused in one line that names the file, or a tokenizer
 * that decodes what it encodes, and whose padding no text gives. Its chat template is looked at,
 * too.
 */
#include "base/check.h"
#include "coordinator/text/gguf_words.h"
#include "coordinator/text/template.h"
#include "coordinator/text/tokenizer.h"
#include "tests/tools/gguf_writer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_refusal(enum status st, const struct error *err)
{
    CHECK(err->code == st && strncmp(err->msg, "m.gguf: ", 8) == 0, "%s", err->msg);
    CHECK(!strchr(err->msg, '\n'), "%s", err->msg);
}

/* The file's own bytes as text. */
static void use(const struct tokenizer *tok, int64_t rows, const char *text, size_t len)
{
    struct tokenizer_scratch *scratch;
    struct token_ids ids;
    struct buf out;
    struct error err;
    CHECK(tokenizer_vocab_size(tok) <= rows, "%u tokens", tokenizer_vocab_size(tok));
    CHECK(tokenizer_scratch_create(tok, &scratch, &err) == OK, "%s", err.msg);
    token_ids_init(&ids, 1 << 20);
    buf_init(&out, 1 << 24);
    if (tokenizer_encode(tok, scratch, text, len, TOKENIZER_ADDED, &ids, &err) == OK)
        CHECK(tokenizer_decode(tok, ids.data, ids.len, false, &out, &err) == OK, "%s", err.msg);
    for (size_t i = 0; i < ids.len; i++)
        CHECK(ids.data[i] < tokenizer_vocab_size(tok), "id %u", ids.data[i]);
    token_ids_fini(&ids);
    buf_fini(&out);
    tokenizer_scratch_destroy(scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf b = {.data = (char *)data, .len = size};
    struct gguf *g = NULL;
    struct error err = {.code = OK};
    struct gguf_words w = {.what = "m.gguf", .source = gguf_memory(&b)};
    if (gguf_parse("m.gguf", &w.source, &g, &err) != OK)
        return 0;
    w.gguf = g;
    /* As many rows as tokens: else only an embedding of that size would bring it further. */
    struct gguf_place tokens = {0};
    if (gguf_get_place(g, "m.gguf", "tokenizer.ggml.tokens", GGUF_STRINGS, &tokens, &err) == OK)
        CHECK(tokens.offset <= size && tokens.bytes <= size - tokens.offset, "place");
    w.rows = (int64_t)tokens.count;
    struct tokenizer *tok = NULL;
    enum status st = tokenizer_from_gguf(&w, &tok, &err);
    if (st == OK)
        use(tok, w.rows, (const char *)data, size < 256 ? size : 256);
    else
        check_refusal(st, &err);
    CHECK((st == OK) == (tok != NULL), "a tokenizer or an error");
    enum template_kind kind;
    st = template_in_gguf(&w, &kind, &err);
    if (st != OK)
        check_refusal(st, &err);
    tokenizer_destroy(tok);
    gguf_destroy(g);
    return 0;
}
