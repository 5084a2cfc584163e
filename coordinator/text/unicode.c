/* Flags of code points: see unicode.h. No state. */
#include "coordinator/text/unicode.h"
#include "coordinator/text/utf8.h"

#include <stdlib.h>
#include <string.h>

enum status unicode_flags_create(uint8_t **flags, struct error *err)
{
    uint8_t *f = calloc(UNICODE_CODE_POINTS, 1);
    if (!f)
        return error_set(err, ERR_NO_MEMORY, "no memory for %d bytes", UNICODE_CODE_POINTS);
    for (size_t i = 0; i < unicode_range_count; i++) {
        const struct unicode_range *r = &unicode_ranges[i];
        memset(f + r->first, (int)r->flags, r->last - r->first + 1);
    }
    *flags = f;
    return OK;
}

unsigned unicode_flags_of_text(const uint8_t *flags, const char *text, size_t len)
{
    unsigned all = 0;
    size_t i = 0;
    while (i < len) {
        size_t ascii = utf8_ascii_prefix(text + i, len - i);
        i += ascii;
        while (i < len && (unsigned char)text[i] >= 0x80)
            all |= flags[utf8_decode(text, &i)];
    }
    return all;
}
