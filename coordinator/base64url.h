/* base64url as tokens have it (RFC 4648, section 5, without padding). Any thread; no state. */
#ifndef WITAN_COORDINATOR_BASE64URL_H
#define WITAN_COORDINATOR_BASE64URL_H

#include <stdbool.h>
#include <stddef.h>

/* How many bytes `len` characters come to. */
static inline size_t base64url_bytes(size_t len)
{
    return len / 4 * 3 + len % 4 * 3 / 4;
}

/* Decodes into out[base64url_bytes(len)]. False: another character, a length that no bytes give, or
 * bits behind the last byte: every text of bytes has one form. */
bool base64url_decode(const char *text, size_t len, unsigned char *out);

#endif
