/*
 * Is this JSON so far? A byte at a time, without building anything: for text that streams and may
 * stop being JSON. RFC 8259, but that control characters may stand in strings, which models write.
 * A plain struct of one thread.
 */
#ifndef WITAN_COORDINATOR_JSON_SCAN_H
#define WITAN_COORDINATOR_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { JSON_SCAN_MAX_DEPTH = 128 };

/* What the next byte may be. */
enum json_scan_state {
    SCAN_VALUE,      /* the begin of a value, or white space */
    SCAN_FIRST_ITEM, /* that, or "]" */
    SCAN_FIRST_KEY,  /* a quote or "}" */
    SCAN_KEY,        /* a quote */
    SCAN_COLON,      /* behind a key */
    SCAN_AFTER,      /* behind a value: a comma or the end of what it stands in */
    SCAN_STRING,     /* inside a string */
    SCAN_ESCAPE,     /* behind its backslash */
    SCAN_HEX,        /* the digits of \u */
    SCAN_LITERAL,    /* the rest of true, false or null */
    SCAN_MINUS,      /* a digit */
    SCAN_ZERO,       /* a whole number; no more digits */
    SCAN_INTEGER,    /* a whole number */
    SCAN_POINT,      /* a digit behind the point */
    SCAN_FRACTION,   /* a whole number */
    SCAN_E,          /* a sign or digit */
    SCAN_E_SIGN,     /* a digit */
    SCAN_EXPONENT,   /* a whole number */
    SCAN_WHOLE,      /* white space alone: the value is whole */
    SCAN_BAD,        /* nothing: it is no JSON */
};

struct json_scan {
    enum json_scan_state state;
    int32_t depth;                       /* containers open */
    bool key;                            /* the string is a key */
    int32_t left;                        /* hex digits to come */
    const char *literal;                 /* what is to come of it */
    uint8_t object[JSON_SCAN_MAX_DEPTH]; /* [depth] is that container an object? */
};

void json_scan_init(struct json_scan *s);

/* False: with this byte it is no JSON any more, or deeper than JSON_SCAN_MAX_DEPTH. */
bool json_scan_push(struct json_scan *s, char byte);

/* Is the whole text one value (white space around it), as strict as the RFC or not? */
bool json_scan_text(const char *text, size_t len, bool strict);

#endif
