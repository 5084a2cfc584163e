/* How a request wants its tokens drawn: what travels from a client to the sampler
 * (worker/sampler.h). Pure. */
#ifndef WITAN_PARTITION_SAMPLING_H
#define WITAN_PARTITION_SAMPLING_H

#include "base/error.h"

#include <stdint.h>

struct sampling {
    float temperature; /* 0 = greedy, else 0.001..1000 */
    float top_p;       /* (0, 1]; 1 = off: smallest set of likeliest tokens with this mass */
    float min_p;       /* [0, 1]; 0 = off: at least this share of the likeliest token's mass */
    int32_t top_k;     /* 0 = off */
    uint64_t seed;
};

/* ERR_INVALID naming the field and its bounds. */
enum status sampling_check(const struct sampling *s, struct error *err);

#endif
