/*
 * The tokenizer of a checkpoint: text to token ids and back, as Hugging Face's tokenizers do it for
 * a byte-level BPE vocabulary of Qwen3's kind. Everything comes from the folder's tokenizer.json,
 * or from the metadata of a GGUF that has no such file beside it; what these ask and this does not
 * do is refused by name when it is loaded.
 *
 * A tokenizer is immutable once loaded: any number of threads use one, each with a scratch of its
 * own for encoding. Text is UTF-8 and may hold NUL bytes; it is never read past `len` and may be
 * NULL when that is 0.
 *
 * Plain text never becomes an added token (`<|im_end|>`, `<think>`, ...): those come only from
 * TOKENIZER_ADDED and from spans. A file whose merges could make one is refused.
 */
#ifndef WITAN_COORDINATOR_TEXT_TOKENIZER_H
#define WITAN_COORDINATOR_TEXT_TOKENIZER_H

#include "coordinator/text/token_ids.h"

#include "base/buf.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct template_span; /* template.h */

struct gguf_words; /* gguf_words.h */
struct manifest;
struct tokenizer;
struct tokenizer_scratch;

enum {
    TOKENIZER_MAX_INPUT_BYTES = 64 << 20,
    TOKENIZER_MAX_VOCAB = 1 << 20,
    TOKENIZER_MAX_FILE_BYTES = 256 << 20,
};

enum tokenizer_mode {
    TOKENIZER_PLAIN, /* all of the text is plain text */
    TOKENIZER_ADDED, /* where the text spells an added token, it becomes that token */
};

/* Reads DIR/tokenizer.json or, where there is none and the weights are GGUF, its metadata; where
 * there are both a log line says that the file is used. ERR_UNSUPPORTED and ERR_INVALID name file,
 * field or key, expected and found. */
enum status tokenizer_load(const char *dir, struct tokenizer **out, struct error *err);

/* The same with a manifest of the folder (NULL: none): what is read must be as it says. */
enum status tokenizer_load_proven(const char *dir, const struct manifest *manifest,
                                  struct tokenizer **out, struct error *err);

/* The same from a tokenizer.json in memory; `what` names it in messages. */
enum status tokenizer_parse(const char *what, const char *json, size_t len, struct tokenizer **out,
                            struct error *err);

/* The same from a GGUF's metadata. ERR_NOT_FOUND when they have no tokenizer. Its types of tokens
 * tell what is special: llama.cpp's converter writes every <|...|> as control, so that decoding
 * with skip_special leaves out more of them than with the model's tokenizer.json. */
enum status tokenizer_from_gguf(const struct gguf_words *w, struct tokenizer **out,
                                struct error *err);

void tokenizer_destroy(struct tokenizer *tok); /* NULL is fine */

/* Working memory of one thread, for this tokenizer alone: about 1 MiB, more during a call. */
enum status tokenizer_scratch_create(const struct tokenizer *tok, struct tokenizer_scratch **out,
                                     struct error *err);
void tokenizer_scratch_destroy(struct tokenizer_scratch *scratch); /* NULL is fine */

/* Ids are 0 to vocab_size - 1. A model's logits may have more rows: those are never sampled. */
uint32_t tokenizer_vocab_size(const struct tokenizer *tok);

/* The id of the added token that is spelled so; ERR_NOT_FOUND when there is none. */
enum status tokenizer_id_of_token(const struct tokenizer *tok, const char *text, size_t len,
                                  uint32_t *id, struct error *err);

/* Whether decoding with skip_special leaves the token out; false for an id outside. */
bool tokenizer_is_special(const struct tokenizer *tok, uint32_t id);

/* Whether it is an added token: one that plain text never becomes. */
bool tokenizer_is_added(const struct tokenizer *tok, uint32_t id);

/* The bytes that a token stands for, which may be part of a character; owned by `tok`.
 * ERR_INVALID for an id outside. */
enum status tokenizer_token_bytes(const struct tokenizer *tok, uint32_t id, const char **bytes,
                                  size_t *len, struct error *err);

/* Appends the ids of the text to `ids`. ERR_INVALID names the offset of the first byte that is not
 * UTF-8; ERR_LIMIT for text over TOKENIZER_MAX_INPUT_BYTES or ids over their limit. On failure
 * `ids` is as before. */
enum status tokenizer_encode(const struct tokenizer *tok, struct tokenizer_scratch *scratch,
                             const char *text, size_t len, enum tokenizer_mode mode,
                             struct token_ids *ids, struct error *err);

/* Appends the ids of a rendered template: each span (ascending, apart, inside the text) must spell
 * an added token, unless it is optional, and becomes it; what lies between two such is plain text,
 * encoded as one run. */
enum status tokenizer_encode_spans(const struct tokenizer *tok, struct tokenizer_scratch *scratch,
                                   const char *text, size_t len, const struct template_span *spans,
                                   size_t span_count, struct token_ids *ids, struct error *err);

/* Appends the text of the ids: their bytes joined, what is not UTF-8 replaced by U+FFFD.
 * ERR_INVALID names an id outside the vocabulary; `out` is then as before. */
enum status tokenizer_decode(const struct tokenizer *tok, const uint32_t *ids, size_t count,
                             bool skip_special, struct buf *out, struct error *err);

/*
 * Decoding a stream. Each push appends the text that is certain by then, always whole characters;
 * all that the pushes and the flush append, joined, is what tokenizer_decode gives. A failed push
 * changes nothing. Plain memory, no release; owned by one thread at a time; `tok` is borrowed.
 */
struct detok {
    const struct tokenizer *tok;
    bool skip_special;
    unsigned char pending_len;
    char pending[4]; /* bytes that begin a character */
};

void detok_init(struct detok *d, const struct tokenizer *tok, bool skip_special);
enum status detok_push(struct detok *d, uint32_t id, struct buf *out, struct error *err);
/* At the stream's end: a character that never became whole is one U+FFFD. */
enum status detok_flush(struct detok *d, struct buf *out, struct error *err);

#endif
