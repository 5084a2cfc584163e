/* What constraint.c and constraint_coder.c share. */
#ifndef WITAN_PARTITION_CONSTRAINT_PRIVATE_H
#define WITAN_PARTITION_CONSTRAINT_PRIVATE_H

#include "partition/constraint.h"

enum mode {
    BEFORE,  /* white space, and then a head, or the object */
    MAYBE,   /* the same, or <think> */
    OPENING, /* `count` bytes of <think> */
    THOUGHT, /* free; its last `count` bytes may be the end of it */
    HEAD,    /* `at` bytes of those from `low` to `high` */
    TAIL,    /* `at` bytes */
    OBJECT,  /* it begins, and nothing stands before it */
    /* Of JSON: what follows is */
    FIRST_KEY, /* a member's name, or the end of the object */
    KEY,
    COLON,
    VALUE,
    FIRST_VALUE, /* a value, or the end of the array */
    AFTER,       /* a comma, or the end of what is innermost */
    /* Inside a string: */
    STRING,
    ESCAPE,
    HEX,       /* `pending` digits that may be any */
    HEX_FIRST, /* a zero, or the letter that surrogates have, matter */
    HEX_ZERO,  /* only zeros so far */
    HEX_D,
    HIGH,       /* of the first of two surrogates `pending` digits are missing */
    LOW_ESCAPE, /* a backslash, */
    LOW_U,      /* a u, */
    LOW_D,      /* a d, */
    LOW_SECOND, /* c to f, then two digits more */
    BYTES,      /* `pending` bytes of a character */
    BYTES_E0,   /* the second byte of a character whose first was this: */
    BYTES_ED,   /* it must not be too long a form, a surrogate, or beyond U+10FFFF */
    BYTES_F0,
    BYTES_F4,
    /* Inside a number: */
    MINUS,
    ZERO,
    INTEGER,
    POINT,
    FRACTION,
    EXPONENT,
    EXPONENT_SIGN,
    EXPONENT_DIGITS,
    WORD, /* `count` bytes of true, false or null */
    WHOLE,
    /* Of Qwen3-Coder's XML: what follows is */
    CODER_NEXT,   /* a parameter, or the tail, */
    CODER_LESS,   /* behind its first byte */
    CODER_OPEN,   /* the rest of <parameter=, of which there are `count` bytes */
    CODER_NAME,   /* the rest of a name: of parameter `low`, and others that begin alike, `at` bytes
                   */
    CODER_VALUE,  /* free; its last `count` bytes begin tag `word` */
    CODER_CLOSED, /* the end of the line that closes it */
};

static inline bool go(struct constraint_state *s, enum mode mode)
{
    s->mode = (uint8_t)mode;
    s->count = s->pending = s->word = 0;
    return true;
}

static inline bool go_pending(struct constraint_state *s, enum mode mode, uint8_t pending)
{
    go(s, mode);
    s->pending = pending;
    return true;
}

static inline bool go_counting(struct constraint_state *s, enum mode mode, int count)
{
    go(s, mode);
    s->count = (uint8_t)count;
    return true;
}

/* --- constraint_coder.c: `list` is what stands in the text behind a head, its parameters --------
 */

/* Behind the head. */
bool constraint_coder_begin(const struct constraint *c, struct constraint_state *s,
                            const char *list);
/* In one of its modes, as constraint_take and constraint_closing; but without the tail. */
bool constraint_coder_take(const struct constraint *c, struct constraint_state *s, unsigned char b);
int32_t constraint_coder_closing(const struct constraint *c, const struct constraint_state *s);
/* Bytes that a call needs between head and tail. */
int32_t constraint_coder_least(const char *list);
/* Does a value go on by it as by any text? `tag`: what may begin a tag stands before it. */
bool constraint_coder_runs_on(const unsigned char *bytes, size_t len, bool tag);
/* Is it one? */
enum status constraint_coder_check(const char *list, struct error *err);

#endif
