/*
 * Guessing what a sequence draws next from what it has said or been told already: the tokens that
 * followed the last time its last ones stood there (prompt look-up, n-gram speculation). Guesses
 * are fed behind the last token, one is drawn after each, and those that were right are kept, so
 * the tokens are those of plain decoding: a draw rests on its row, its parameters and its position.
 *
 * How many are guessed follows from how many were right, down to none: then the sequence decodes
 * plainly for a while and tries again, waiting longer each time that it fails.
 *
 * Pure. For the engine thread.
 */
#ifndef WITAN_WORKER_GUESS_H
#define WITAN_WORKER_GUESS_H

#include <stdint.h>

enum {
    GUESS_LOOKS_BACK = 4096, /* tokens that are searched */
    GUESS_LEAST_MATCH = 2,   /* tokens that must stand there again */
    GUESS_MATCH = 3,         /* and what is looked for */
};

/* Of one sequence. */
struct guess {
    int32_t most;   /* tokens a step; 0: never any */
    int32_t tries;  /* tokens to guess next; 0: it rests */
    int32_t rest;   /* draws until it tries again */
    int32_t pause;  /* the rest after the next failure */
    int32_t missed; /* times in a row that there was nothing to guess from */
};

void guess_init(struct guess *g, int32_t most);

/* Writes up to `most` guesses behind tokens[known] and returns how many. */
int32_t guess_next(int32_t *tokens, int32_t known, int32_t most);

/* What came of it: so many guesses, so many of them right, from the first on; 0 guesses: there was
 * nothing to guess from. A step of a sequence that rests is told by guess_rest. */
void guess_note(struct guess *g, int32_t guesses, int32_t right);
void guess_rest(struct guess *g);

#endif
