/* The tokenizer's insides, shared by tokenizer.c (its use), tokenizer_json.c and tokenizer_gguf.c
 * (its making), and detok.c. */
#ifndef WITAN_COORDINATOR_TEXT_TOKENIZER_PRIVATE_H
#define WITAN_COORDINATOR_TEXT_TOKENIZER_PRIVATE_H

#include "coordinator/text/bpe.h"
#include "coordinator/text/pretokenize.h"
#include "coordinator/text/tokenizer.h"

#include <jansson.h>

enum { TOKENIZER_MAX_TOKEN_BYTES = 1 << 16 };

struct added_token {
    const char *text; /* into tokenizer.added_text */
    uint32_t len;
    uint32_t id;
};

struct tokenizer {
    uint32_t vocab_size;
    struct buf bytes;  /* all tokens' bytes, by id */
    uint32_t *offsets; /* [vocab_size + 1] into `bytes` */
    bool *special;     /* [vocab_size] */
    size_t longest;    /* bytes of the longest token */
    struct bpe *bpe;
    struct pretokenizer *pretokenizer;
    uint8_t *unicode_flags;
    struct added_token *added; /* by text, in memcmp's order */
    size_t added_count;
    char *added_text;
    bool begins_added[256]; /* by the first byte */
};

/* What messages call the parts of a tokenizer.json. */
struct tokenizer_names {
    const char *vocab, *merges, *added;
};

/* Makes a tokenizer of a tokenizer.json's content. */
enum status tokenizer_build(const char *what, const struct tokenizer_names *names, json_t *root,
                            struct tokenizer **out, struct error *err);

#endif
