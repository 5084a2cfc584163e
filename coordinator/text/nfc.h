/*
 * Normalisation form C as of Unicode 9.0 (Unicode Standard Annex 15), from utf8proc's data where
 * those are the same (characters of 9.0 normalise alike in every later version) and without it for
 * characters that came later. Linear in the text's length, whatever the text.
 */
#ifndef WITAN_COORDINATOR_TEXT_NFC_H
#define WITAN_COORDINATOR_TEXT_NFC_H

#include "base/buf.h"

#include <stddef.h>
#include <stdint.h>

/* Code points of the stretch in work. Owned by one thread at a time. */
struct nfc_scratch {
    int32_t *points, *sorted;
    size_t cap;
};

void nfc_scratch_init(struct nfc_scratch *s);
void nfc_scratch_fini(struct nfc_scratch *s);

/* Appends the normal form of `len` bytes of valid UTF-8. `flags`: unicode_flags_create's. */
enum status nfc_append(struct buf *out, struct nfc_scratch *s, const uint8_t *flags,
                       const char *text, size_t len, struct error *err);

#endif
