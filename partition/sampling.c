/* Sampling parameters: see sampling.h. */
#include "partition/sampling.h"

enum status sampling_check(const struct sampling *s, struct error *err)
{
    if (!(s->temperature == 0.0f || (s->temperature >= 0.001f && s->temperature <= 1000.0f)))
        return error_set(err, ERR_INVALID, "temperature %g: expected 0 or 0.001 to 1000",
                         (double)s->temperature);
    if (!(s->top_p > 0.0f && s->top_p <= 1.0f))
        return error_set(err, ERR_INVALID, "top_p %g: expected above 0, at most 1",
                         (double)s->top_p);
    if (!(s->min_p >= 0.0f && s->min_p <= 1.0f))
        return error_set(err, ERR_INVALID, "min_p %g: expected 0 to 1", (double)s->min_p);
    if (s->top_k < 0)
        return error_set(err, ERR_INVALID, "top_k %d: expected 0 (off) or more", s->top_k);
    return OK;
}
