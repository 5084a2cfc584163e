/* UTF-8: see utf8.h. */
#include "coordinator/text/utf8.h"

#include <string.h>

/* Bytes of the character that `lead` begins and the bounds of its second byte; 0: begins none. */
static size_t sequence(unsigned char lead, unsigned char *low, unsigned char *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (lead < 0x80)
        return 1;
    if (lead < 0xC2 || lead > 0xF4)
        return 0;
    if (lead < 0xE0)
        return 2;
    if (lead == 0xE0)
        *low = 0xA0; /* shorter forms exist */
    else if (lead == 0xED)
        *high = 0x9F; /* surrogates */
    else if (lead == 0xF0)
        *low = 0x90;
    else if (lead == 0xF4)
        *high = 0x8F; /* past U+10FFFF */
    return lead < 0xF0 ? 3 : 4;
}

struct utf8_head utf8_head(const char *s, size_t len)
{
    unsigned char low, high;
    size_t want = sequence((unsigned char)s[0], &low, &high);
    if (want == 0)
        return (struct utf8_head){UTF8_BAD, 1};
    for (size_t i = 1; i < want; i++) {
        if (i == len)
            return (struct utf8_head){UTF8_INCOMPLETE, i};
        unsigned char c = (unsigned char)s[i];
        if (c < low || c > high)
            return (struct utf8_head){UTF8_BAD, i};
        low = 0x80;
        high = 0xBF;
    }
    return (struct utf8_head){UTF8_CHAR, want};
}

size_t utf8_ascii_prefix(const char *s, size_t len)
{
    size_t i = 0;
    for (; len - i >= 8; i += 8) {
        uint64_t word;
        memcpy(&word, s + i, 8);
        if (word & 0x8080808080808080u)
            break;
    }
    while (i < len && (unsigned char)s[i] < 0x80)
        i++;
    return i;
}

size_t utf8_valid_prefix(const char *s, size_t len)
{
    size_t i = 0;
    while (i < len) {
        i += utf8_ascii_prefix(s + i, len - i);
        while (i < len && (unsigned char)s[i] >= 0x80) {
            struct utf8_head h = utf8_head(s + i, len - i);
            if (h.kind != UTF8_CHAR)
                return i;
            i += h.len;
        }
    }
    return i;
}

uint32_t utf8_decode(const char *s, size_t *i)
{
    const unsigned char *p = (const unsigned char *)s + *i;
    if (p[0] < 0x80) {
        *i += 1;
        return p[0];
    }
    if (p[0] < 0xE0) {
        *i += 2;
        return (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
    }
    if (p[0] < 0xF0) {
        *i += 3;
        return (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
    }
    *i += 4;
    return (p[0] & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
}

size_t utf8_encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

enum status utf8_append_lossy(struct buf *out, const char *s, size_t len, struct error *err)
{
    size_t i = 0;
    while (i < len) {
        size_t valid = utf8_valid_prefix(s + i, len - i);
        TRY(buf_append(out, s + i, valid, err));
        i += valid;
        if (i < len) {
            TRY(buf_append(out, "\xEF\xBF\xBD", 3, err));
            i += utf8_head(s + i, len - i).len;
        }
    }
    return OK;
}
