/*
 * Reading a rectangle of a weight that is not stored plainly, as fp32: the bytes that it needs and
 * no others, dequantised by quant.h. Every rectangle gives the values that the whole would, so a
 * weight may be cut anywhere. Any thread; memory is held during the call alone.
 */
#ifndef WITAN_PARTITION_WEIGHT_READ_H
#define WITAN_PARTITION_WEIGHT_READ_H

#include "partition/inventory.h"

/* `w` is bound and `inv` its inventory. `out` has rect->rows x rect->cols values. ERR_INVALID where
 * g_idx names a group that there is none of. */
enum status weight_read(const struct checkpoint *ck, const struct inventory *inv,
                        const struct weight *w, const struct quant_rect *rect, float *out,
                        struct error *err);

/* Bytes of the rectangle in the files, plain weights included, with the scales, zeros and indices
 * that belong to it. */
uint64_t weight_stored_bytes(const struct inventory *inv, const struct weight *w,
                             const struct quant_rect *rect);

#endif
