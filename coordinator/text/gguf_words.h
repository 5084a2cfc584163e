/*
 * A GGUF opened for the words in its metadata: the tokenizer and the chat template of a checkpoint
 * that has no files for them. Owned by one thread.
 */
#ifndef WITAN_COORDINATOR_TEXT_GGUF_WORDS_H
#define WITAN_COORDINATOR_TEXT_GGUF_WORDS_H

#include "partition/gguf.h"

#include <stddef.h>
#include <stdint.h>

struct manifest;

/* Made by hand in tests and fuzzers. Everything is borrowed but what gguf_words_open opened. */
struct gguf_words {
    const char *what; /* names the file in messages */
    const struct gguf *gguf;
    struct gguf_source source; /* the bytes that `gguf` was parsed from */
    int64_t rows;              /* of the embedding */
    struct checkpoint *ck;     /* owned */
    char *path;                /* owned: `what` */
};

/* Opens the folder's GGUF, the first of its parts; with a manifest (NULL: none) every byte that is
 * read is proven. ERR_NOT_FOUND when the folder's weights are no GGUF. */
enum status gguf_words_open(const char *dir, const struct manifest *manifest, struct gguf_words *w,
                            struct error *err);
void gguf_words_close(struct gguf_words *w);

/* The value's bytes, a NUL behind them, into memory that the caller frees; ERR_LIMIT when they are
 * more than `limit_bytes`, ERR_INVALID when the key is absent or of another kind. */
enum status gguf_words_read(const struct gguf_words *w, const char *key, enum gguf_kind kind,
                            size_t limit_bytes, char **data, struct gguf_place *place,
                            struct error *err);

/* One log line where a file of the folder is taken although a GGUF lies beside it. */
void gguf_words_say_file_wins(const char *dir, const struct manifest *manifest, const char *file);

#endif
