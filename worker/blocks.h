/*
 * The pool of KV blocks as rank 0 keeps it: who holds each block, and which blocks hold the K and V
 * of which tokens, so that sequences that begin alike share them (prefix caching).
 *
 * A full block may be kept under what it follows and its KV_BLOCK tokens; both are compared in full
 * when it is found, so a hit is exact and does not rest on a hash. What it follows is the serial
 * number of the block before, never given twice, or at the beginning of a sequence the prefix
 * domain of its request: nothing is found across domains. Several sequences may hold a block; one
 * that nobody holds any more stays until its memory is needed, the least recently released goes
 * first. A kept block whose predecessor has gone can be found no more and goes in its turn.
 *
 * Bookkeeping alone: no memory of a device, none allocated after creation. For the engine thread.
 */
#ifndef WITAN_WORKER_BLOCKS_H
#define WITAN_WORKER_BLOCKS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/* What a block follows. */
struct prefix {
    uint64_t id; /* serial number of a block, or a domain */
    bool domain;
};

struct blocks;

/* `cache` false: nothing is kept. */
enum status blocks_create(int32_t count, bool cache, struct blocks **out, struct error *err);
void blocks_destroy(struct blocks *b);

/* A block for its taker to write, held once; -1: all are held. */
int32_t blocks_take(struct blocks *b);

/* The block kept for these KV_BLOCK tokens after `after`, held once more; -1: there is none. */
int32_t blocks_find(struct blocks *b, struct prefix after, const int32_t *tokens);

/* Keeps a held block for these tokens, which it must hold before any later step reads it, and which
 * nobody may write again. Where the same is kept already, this one stays private. Returns what the
 * next block of the sequence follows. */
struct prefix blocks_keep(struct blocks *b, struct prefix after, const int32_t *tokens,
                          int32_t block);

/* What a block that follows this kept one follows. */
struct prefix blocks_prefix(const struct blocks *b, int32_t block);

/* Holds it once less. A sequence releases its last block first, so that what follows goes before
 * what it follows. */
void blocks_release(struct blocks *b, int32_t block);

/* From now on, notes which blocks nobody has any more and still hold somebody's K and V: those
 * released that are not kept, and those that the cache gave up. ERR_NO_MEMORY. */
enum status blocks_note_dirty(struct blocks *b, struct error *err);
/* How many there are, *list to them, each once. They are to be wiped before anything is written to
 * them: by the step that is made next. */
int32_t blocks_dirty(const struct blocks *b, const int32_t **list);
void blocks_wiped(struct blocks *b); /* all of them have been handed on */

int32_t blocks_free(const struct blocks *b);   /* that blocks_take can give */
int32_t blocks_cached(const struct blocks *b); /* of these, kept */
uint64_t blocks_evicted(const struct blocks *b);

/* CHECKs that every block is free, kept or held as often as `holds` [count] says. Slow: for tests.
 */
void blocks_check(const struct blocks *b, const int32_t *holds);

#endif
