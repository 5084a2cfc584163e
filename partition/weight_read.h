/*
 * Cuts of weights: which bytes of which files a rectangle of a weight needs, no others, and what
 * they are as fp32 (quant.h). Every rectangle gives the values that the whole would, so a weight
 * may be cut anywhere. Pure but for weight_read; any thread.
 */
#ifndef WITAN_PARTITION_WEIGHT_READ_H
#define WITAN_PARTITION_WEIGHT_READ_H

#include "partition/inventory.h"

enum { WEIGHT_MAX_PIECES = 4 };

/* `rows` runs of `run` bytes of a file, `stride` bytes apart, the first at `offset`. */
struct weight_piece {
    int file;
    uint64_t offset, stride, run;
    int64_t rows;
    size_t at; /* where the runs lie, densely, among the bytes of the cut: a multiple of 8 */
};

struct weight_cut {
    const struct weight *weight;
    struct quant_rect rect;
    struct weight_piece pieces[WEIGHT_MAX_PIECES]; /* of a plain weight: one, its values by row */
    int count;
    size_t bytes; /* of all pieces, with the gaps between */
};

/* `w` is bound and `inv` its inventory. */
struct weight_cut weight_cut(const struct inventory *inv, const struct weight *w,
                             const struct quant_rect *rect);

/*
 * The cut's rows x cols values from its bytes, `staged` [cut->bytes], aligned to 8. ERR_INVALID
 * where g_idx names a group that there is none of.
 */
enum status weight_convert(const struct inventory *inv, const struct weight_cut *cut,
                           const void *staged, float *out, struct error *err);

/* Reads and converts a rectangle in one go: for tools. */
enum status weight_read(const struct checkpoint *ck, const struct inventory *inv,
                        const struct weight *w, const struct quant_rect *rect, float *out,
                        struct error *err);

/* Bytes of the rectangle in the files, plain weights included, with the scales, zeros and indices
 * that belong to it. */
uint64_t weight_stored_bytes(const struct inventory *inv, const struct weight *w,
                             const struct quant_rect *rect);

#endif
