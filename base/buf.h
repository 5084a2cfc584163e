/*
 * A growable byte buffer with a limit given at creation: output text, token ids, JSON lines. Owned
 * by one thread at a time. The bytes are always followed by a NUL that `len` does not count.
 */
#ifndef WITAN_BASE_BUF_H
#define WITAN_BASE_BUF_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct buf {
    char *data; /* owned; NULL until the first append */
    size_t len;
    size_t cap;
    size_t limit; /* len never passes it */
};

void buf_init(struct buf *b, size_t limit_bytes);
void buf_fini(struct buf *b);
void buf_clear(struct buf *b); /* keeps the memory */

/* Each fails with ERR_LIMIT past the limit, ERR_NO_MEMORY without memory, then changes nothing. */
enum status buf_append(struct buf *b, const void *data, size_t len, struct error *err);
enum status buf_puts(struct buf *b, const char *s, struct error *err);
enum status buf_printf(struct buf *b, struct error *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Appends `len` bytes of UTF-8 as a quoted JSON string (control characters, quote and backslash
 * escaped; everything else as it is). */
enum status buf_json_string(struct buf *b, const char *s, size_t len, struct error *err);

/* The whole file into memory that the caller frees, NUL-terminated; ERR_LIMIT when it is larger. */
enum status file_read_all(const char *path, size_t limit_bytes, char **data, size_t *len,
                          struct error *err);

#endif
