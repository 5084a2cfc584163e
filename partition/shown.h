/*
 * Text of a file in an error message: cut to what leaves room for "expected" and "found", and
 * without control characters, so that a message stays one line whatever a tensor is called.
 */
#ifndef WITAN_PARTITION_SHOWN_H
#define WITAN_PARTITION_SHOWN_H

#include <stddef.h>

enum { SHOWN_BYTES = 200 };

struct shown {
    char s[SHOWN_BYTES + 4];
};

/* Used as error_set(err, code, "tensor %s", shown(name).s). */
static inline struct shown shown(const char *text)
{
    struct shown out;
    size_t n = 0;
    for (; n < SHOWN_BYTES && text[n]; n++) {
        unsigned char c = (unsigned char)text[n];
        out.s[n] = c < 0x20 || c == 0x7f ? '?' : text[n];
    }
    if (text[n]) {
        while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80) /* not inside a character */
            n--;
        for (int i = 0; i < 3; i++)
            out.s[n++] = '.';
    }
    out.s[n] = '\0';
    return out;
}

#endif
