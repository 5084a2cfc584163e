/*
 * A rank's weights as they lay in memory, kept in a file for the next start: no cutting, no
 * converting, and each rank reads only what is its own. One file a rank, in a folder that the
 * operator names; its name and key say which manifest, layout, rank and slices it is of. On a CPU
 * its pages become the weights, locked in memory; where they may not be locked, and for weights on
 * a device, it is read. Every chunk is proven in the memory that is then used (for weights on a
 * device: before it goes there).
 *
 *   byte 0     "witan weights 2\n"
 *   16         SHA-256 of the key (weights_cache.c)
 *   48         bytes of matrices, 56 of vectors, 64 chunks of LOADER_CHUNK that both make
 *   72         SHA-256 of the table; then zeros up to 4096
 *   4096       the table: XXH3's 128 bits of one chunk after the other, in the canonical order of
 *              xxhash.h; then zeros up to a page's border
 *   after it   from the next border of 2 MiB on, struct weights' arena
 *
 * Numbers are of 64 bits, little-endian. The file's sums are its own: who may write to it decides
 * what is served. So the folder must be this user's and nobody else may write to it.
 */
#ifndef WITAN_WORKER_WEIGHTS_CACHE_H
#define WITAN_WORKER_WEIGHTS_CACHE_H

#include "worker/weights.h"

struct weights_cache;

/*
 * The cache of these weights in `dir`; nothing is read yet. `w` is used until it is closed. Without
 * a manifest, or in a folder that others may write to: ERR_INVALID. Not collective.
 */
enum status weights_cache_open(const char *dir, const struct manifest *manifest,
                               const struct inventory *inv, const struct plan *plan,
                               const struct rank_plan *rank, struct weights *w,
                               struct weights_cache **out, struct error *err);
void weights_cache_close(struct weights_cache *c); /* NULL is fine */

/*
 * Reads the weights of every rank, or of none: *loaded says which, the same on all. Collective over
 * `world` (NULL: this rank alone). Ranks without a cache give NULL, and then none is read. What is
 * read and not mapped goes around the page cache where the file system can. A file that is not as
 * it must be is a warning; where not all was loaded the weights are any.
 */
enum status weights_cache_load(struct weights_cache *c, struct comm *world, bool *loaded,
                               struct error *err);

/* Writes the weights, unless the file was found good: beside its place, synced and moved there.
 * What fails is a warning, and nothing is left. Not collective; NULL is fine. */
void weights_cache_save(struct weights_cache *c);

#endif
