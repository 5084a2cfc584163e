/* UTF-8 without tables or state. Any thread. */
#ifndef WITAN_COORDINATOR_TEXT_UTF8_H
#define WITAN_COORDINATOR_TEXT_UTF8_H

#include "base/buf.h"

#include <stddef.h>
#include <stdint.h>

/* What `len` > 0 bytes begin with. */
struct utf8_head {
    enum {
        UTF8_CHAR,       /* a whole character of `len` bytes */
        UTF8_INCOMPLETE, /* all `len` bytes may begin a character that is not here yet */
        UTF8_BAD,        /* `len` bytes that can begin none: one U+FFFD in their place */
    } kind;
    size_t len;
};

/* Unicode's "maximal subpart" practice (Unicode 16.0, section 3.9, table 3-8), which is what Rust's
 * from_utf8_lossy and Python's errors="replace" do. */
struct utf8_head utf8_head(const char *s, size_t len);

/* The length of the longest prefix of ASCII bytes. */
size_t utf8_ascii_prefix(const char *s, size_t len);

/* The length of the longest prefix of whole characters: `len` when all is valid. */
size_t utf8_valid_prefix(const char *s, size_t len);

/* The character at s[*i], which must be valid UTF-8, and *i moved past it. */
uint32_t utf8_decode(const char *s, size_t *i);

/* Writes the 1 to 4 bytes of a code point and returns their number. */
size_t utf8_encode(uint32_t code_point, char out[4]);

/* Appends `len` bytes with each bad part replaced by U+FFFD, an incomplete end too. */
enum status utf8_append_lossy(struct buf *out, const char *s, size_t len, struct error *err);

#endif
