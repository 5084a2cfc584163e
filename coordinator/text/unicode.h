/*
 * What the tokenizer's reference knows of Unicode. It normalises by Unicode 9.0 and classifies by
 * Unicode 16.0, while PCRE2 and utf8proc follow whatever version they were built with; these flags
 * mark the code points where that could differ, so that ids do not depend on a machine's libraries.
 */
#ifndef WITAN_COORDINATOR_TEXT_UNICODE_H
#define WITAN_COORDINATOR_TEXT_UNICODE_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

enum unicode_flag {
    /* In Unicode 9.0: a combining class, or NFC_Quick_Check is not Yes. Text without any such code
     * point is in NFC. */
    UNICODE_NFC_CHECK = 1,
    /* Not in Unicode 9.0: never reordered, decomposed or composed, and nothing composes with it. */
    UNICODE_NFC_NEW = 2,
    /* \p{L}, \p{N}, or neither and no white space, whatever the regex library says. */
    UNICODE_LETTER = 4,
    UNICODE_NUMBER = 8,
    UNICODE_OTHER = 16,
};

enum { UNICODE_CODE_POINTS = 0x110000, UNICODE_CLASS = 4 | 8 | 16 };

struct unicode_range {
    uint32_t first, last;
    uint32_t flags;
};

/* Sorted, no overlaps; code points in no range have no flags. Made by unicode_tables.py. */
extern const struct unicode_range unicode_ranges[];
extern const size_t unicode_range_count;

/* The ranges as one byte a code point, [UNICODE_CODE_POINTS], that the caller frees. */
enum status unicode_flags_create(uint8_t **flags, struct error *err);

/* The flags of all code points of `len` bytes of valid UTF-8, or-ed. */
unsigned unicode_flags_of_text(const uint8_t *flags, const char *text, size_t len);

#endif
