/*
 * Byte-pair encoding of one piece of text: its bytes' ids, then, as long as two neighbours have a
 * merge, the pair of the lowest rank, the leftmost first. The table is filled at load and immutable
 * after; any number of threads, each with a scratch of its own.
 */
#ifndef WITAN_COORDINATOR_TEXT_BPE_H
#define WITAN_COORDINATOR_TEXT_BPE_H

#include "coordinator/text/token_ids.h"

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct bpe;
struct bpe_scratch;

/* `byte_ids`: the id of each byte. `merges`: how many bpe_add_merge will add at most. */
enum status bpe_create(const uint32_t byte_ids[256], size_t merges, struct bpe **out,
                       struct error *err);
void bpe_destroy(struct bpe *b);

/* The pair (left, right) becomes `merged`; ranks count up from 0 in the order of the calls.
 * ERR_INVALID when the pair has a merge already. */
enum status bpe_add_merge(struct bpe *b, uint32_t left, uint32_t right, uint32_t merged,
                          struct error *err);

/* For use with one table only: it remembers what short pieces became. About 1 MiB. */
enum status bpe_scratch_create(struct bpe_scratch **out, struct error *err);
void bpe_scratch_destroy(struct bpe_scratch *s);

/* Appends the ids of `len` bytes, any bytes, fewer than 2^31. Time n log n. */
enum status bpe_encode(const struct bpe *b, struct bpe_scratch *s, const char *piece, size_t len,
                       struct token_ids *out, struct error *err);

#endif
