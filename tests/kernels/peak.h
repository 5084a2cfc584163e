/*
 * What a machine can do, for measurements to be put beside: reading memory, and fused multiply-adds
 * in registers. On the calling thread; the caller takes the time.
 */
#ifndef WITAN_TESTS_KERNELS_PEAK_H
#define WITAN_TESTS_KERNELS_PEAK_H

#include <stddef.h>

/* `bytes`: a multiple of 64. */
void peak_read(const void *p, size_t bytes);

/* On vectors of `lanes` floats, 8 or 16. Returns how many operations (two a lane) these were; 0
 * where this processor has no such vectors. */
double peak_fma(int lanes);

#endif
