/*
 * What an answer must be, byte by byte: an automaton that takes the bytes of an answer one after
 * another and refuses the first that cannot go on to a whole one. Coordinator and ranks know it;
 * ranks draw no token whose bytes it refuses (worker/masks.h).
 *
 * A JSON object is as RFC 8259 has it, in valid UTF-8, and within bounds that every reader keeps
 * to: CONSTRAINT_DEPTH levels, numbers that fit 64 bits or a double, no \u0000, no surrogate alone,
 * no byte behind the last brace. White space between two of its tokens is bounded too, since a
 * model may print it for ever.
 *
 * A state is plain memory and a function of the bytes taken; two that are equal are so by memcmp.
 */
#ifndef WITAN_PARTITION_CONSTRAINT_H
#define WITAN_PARTITION_CONSTRAINT_H

#include "partition/sampling.h"

#include <stddef.h>

enum constraint_kind {
    CONSTRAINT_NONE,
    CONSTRAINT_JSON_OBJECT,
    CONSTRAINT_CALL,  /* one of the heads, an object, and the tail */
    CONSTRAINT_CODER, /* one of the heads, parameters in Qwen3-Coder's XML, and the tail */
    CONSTRAINT_KINDS,
};

/* What may come before: a thought is free, but for its end. */
enum constraint_thought {
    CONSTRAINT_NO_THOUGHT,
    CONSTRAINT_MAY_THINK,  /* the answer may begin with <think> */
    CONSTRAINT_IN_THOUGHT, /* it begins inside one */
    CONSTRAINT_THOUGHTS,
};

enum {
    CONSTRAINT_DEPTH = 64,  /* objects and arrays inside one another */
    CONSTRAINT_SPACES = 32, /* bytes of white space between two tokens of JSON */
    CONSTRAINT_DIGITS = 18, /* of an integer or a fraction */
    CONSTRAINT_EXPONENT_DIGITS = 2,
    CONSTRAINT_MAX_HEADS = 512,
    CONSTRAINT_MAX_TEXT = 128 << 10, /* of heads and tail, each with a NUL */
    CONSTRAINT_MAX_PARAMETERS = 64,  /* behind a head */
};

struct constraint {
    enum constraint_kind kind;
    enum constraint_thought thought;
    /* Of calls: the tail, then `heads` strings, none empty, none the beginning of another, none
     * beginning with white space, <think> or a part of it alone, in strcmp's order; each of at most
     * UINT16_MAX bytes, with its NUL behind it. Of CONSTRAINT_CODER the parameters stand behind
     * their head, in the same string, each as byte 1, '!' where it is required or '?', and what
     * stands behind <parameter=, its name and ">\n"; in the order of these; the tail is "</...". */
    const char *text;
    uint32_t text_len;
    uint16_t heads;
    uint32_t name; /* of this text among those that one engine knows; 0 where there is none */
};

struct constraint_state {
    uint64_t levels; /* a bit each, the innermost lowest: 1 is an array; or parameters there were */
    uint8_t mode;    /* constraint.c's */
    uint8_t depth;
    uint8_t count;   /* white space so far, digits of a number's part, or bytes of a tag matched */
    uint8_t pending; /* hex digits or bytes of a character that are still to come */
    uint8_t word;    /* true, false, null: which */
    uint8_t key;     /* 1: the string is a member's name */
    uint16_t at;     /* bytes of head or tail so far */
    uint16_t low, high; /* heads that it may still be */
    uint32_t name;      /* of the constraint's text */
    uint32_t list;      /* where in it the parameters stand, */
    uint32_t rest;      /* and bytes that those of them take which are still to come */
};

void constraint_start(const struct constraint *c, struct constraint_state *out);

/* Takes one byte. False: it cannot stand here, and the state is void. */
bool constraint_take(const struct constraint *c, struct constraint_state *s, unsigned char byte);

/* The fewest bytes with which the answer is whole: 0 when it is. Each of them can be taken. */
int32_t constraint_closing(const struct constraint *c, const struct constraint_state *s);

/* Outside the object and the parameters: text of added tokens stands there like any other. */
bool constraint_is_free(const struct constraint_state *s);

/* Where most texts may follow, and all of them lead to one state. */
enum constraint_run {
    CONSTRAINT_NO_RUN,
    CONSTRAINT_STRING,
    CONSTRAINT_THOUGHT,
    CONSTRAINT_PARAMETER,
    CONSTRAINT_TAG, /* in a parameter, behind what may begin a tag */
    CONSTRAINT_RUNS,
};
enum constraint_run constraint_run(const struct constraint_state *s);
/* Is it such a text? Of a string: whole characters and no end of it; of a thought: nothing of its
 * end; of a parameter: no beginning of a tag, nor more of one. At least one byte. */
bool constraint_runs_on(enum constraint_run run, const unsigned char *bytes, size_t len);

/* Tokens that an answer of at most so many bytes needs: one each, and the end of the sequence. */
int32_t constraint_least_tokens(const struct constraint *c);

/* Can it be kept? ERR_INVALID names what stands against it: max_tokens (0: not known), and what
 * else forbids tokens or goes on behind the end, or heads that are none. */
enum status constraint_check(const struct constraint *c, const struct shaping *s, bool ignore_eos,
                             int32_t max_tokens, struct error *err);

#endif
