/*
 * How fast the tokenizer is, on one core: tokenizer_bench DIR [FILE...] loads DIR/tokenizer.json
 * and encodes each file as plain text, then texts that are hard for a careless tokenizer. One line
 * each.
 */
#include "base/clock.h"
#include "coordinator/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HARD_BYTES = 10 << 20 };

struct bench {
    struct tokenizer *tok;
    struct tokenizer_scratch *scratch;
    struct token_ids ids;
    struct buf text;
};

static void fail(const struct error *err)
{
    fprintf(stderr, "tokenizer_bench: %s\n", err->msg);
    exit(1);
}

static double since(int64_t start_ns)
{
    return (double)(clock_now_ns() - start_ns) / 1e9;
}

static void measure(struct bench *b, const char *name, const char *text, size_t len)
{
    struct error err;
    token_ids_clear(&b->ids);
    int64_t start = clock_now_ns();
    if (tokenizer_encode(b->tok, b->scratch, text, len, TOKENIZER_PLAIN, &b->ids, &err) != OK)
        fail(&err);
    double encode_s = since(start);
    buf_clear(&b->text);
    start = clock_now_ns();
    if (tokenizer_decode(b->tok, b->ids.data, b->ids.len, false, &b->text, &err) != OK)
        fail(&err);
    double decode_s = since(start);
    double mb = (double)len / 1e6;
    printf("%-28s %8.2f MB %9zu tokens  encode %7.1f MB/s  decode %7.1f MB/s\n", name, mb,
           b->ids.len, mb / encode_s, mb / decode_s);
}

static void measure_repeated(struct bench *b, const char *name, const char *unit)
{
    size_t n = strlen(unit);
    char *text = malloc(HARD_BYTES);
    if (!text)
        exit(1);
    size_t len = 0;
    for (; len + n <= HARD_BYTES; len += n)
        memcpy(text + len, unit, n);
    measure(b, name, text, len);
    free(text);
}

/* The marks of one class and then those of a lower one: all of the latter move over the former. */
static void measure_marks(struct bench *b)
{
    char *text = malloc(HARD_BYTES);
    if (!text)
        exit(1);
    for (size_t i = 0; i + 1 < HARD_BYTES; i += 2)
        memcpy(text + i, i < HARD_BYTES / 2 ? "\u0301" : "\u0323", 2);
    measure(b, "combining marks to reorder", text, HARD_BYTES);
    free(text);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name, *unit;
    } hard[] = {
        {"one letter", "a"},
        {"spaces", " "},
        {"newlines", "\n"},
        {"spaces and a newline", "                \n"},
        {"digits", "7"},
        {"punctuation", "<"},
        {"random-looking letters", "qzxjkvbwpyghfdm"},
        {"combining acute", "\u0301"},
        {"letters with two marks", "a\u0301\u0323"},
        {"Hangul jamo", "\u1112\u1161\u11AB"},
        {"one Chinese character", "\u6F22"},
        {"letters of Unicode 16", "\U00010D4A"},
    };
    if (argc < 2) {
        fprintf(stderr, "usage: tokenizer_bench DIR [FILE...]\n");
        return 2;
    }
    struct error err;
    struct bench b = {0};
    int64_t start = clock_now_ns();
    if (tokenizer_load(argv[1], &b.tok, &err) != OK)
        fail(&err);
    printf("load %.3f s, %u tokens\n", since(start), tokenizer_vocab_size(b.tok));
    if (tokenizer_scratch_create(b.tok, &b.scratch, &err) != OK)
        fail(&err);
    token_ids_init(&b.ids, SIZE_MAX / 8);
    buf_init(&b.text, SIZE_MAX / 8);
    for (int i = 2; i < argc; i++) {
        char *text;
        size_t len;
        if (file_read_all(argv[i], TOKENIZER_MAX_INPUT_BYTES, &text, &len, &err) != OK)
            fail(&err);
        measure(&b, argv[i], text, len);
        free(text);
    }
    for (size_t i = 0; i < sizeof hard / sizeof hard[0]; i++)
        measure_repeated(&b, hard[i].name, hard[i].unit);
    measure_marks(&b);
    token_ids_fini(&b.ids);
    buf_fini(&b.text);
    tokenizer_scratch_destroy(b.scratch);
    tokenizer_destroy(b.tok);
    return 0;
}
