/* Ranks slower than their peers: see slow.h. No state. */
#include "coordinator/slow.h"
#include "partition/plan.h"

#include <stdlib.h>
#include <string.h>

/* Seconds of computing a step since the window began; below 0: too few steps, or figures that went
 * back. */
static double step_seconds(const struct slow_rank *r, const struct slow_sample *now)
{
    uint64_t steps = now->steps - r->begin.steps;
    double s = now->compute_s - r->begin.compute_s;
    if (!r->begun || now->steps < r->begin.steps || steps < SLOW_STEPS || !(s >= 0))
        return -1;
    return s / (double)steps;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

void slow_window(struct slow_rank *const *ranks, const struct slow_sample *now, int32_t count,
                 int64_t now_ns)
{
    double each[MAX_WORLD], sorted[MAX_WORLD];
    bool whole = count >= 2 && count <= MAX_WORLD;
    for (int32_t i = 0; i < count && whole; i++) {
        sorted[i] = each[i] = step_seconds(ranks[i], &now[i]);
        whole = each[i] >= 0;
    }
    for (int32_t i = 0; i < count; i++) {
        ranks[i]->begin = now[i];
        ranks[i]->begun = true;
    }
    if (!whole)
        return; /* an idle window says nothing either way */
    qsort(sorted, (size_t)count, sizeof *sorted, ascending);
    double median = sorted[(count - 1) / 2]; /* of two the faster one */
    for (int32_t i = 0; i < count; i++) {
        struct slow_rank *r = ranks[i];
        r->step_s = each[i];
        r->ratio = median > 0 ? each[i] / median : 0;
        if (r->ratio * 100 <= SLOW_PERCENT)
            r->slow_ns = 0;
        else if (r->slow_ns == 0)
            r->slow_ns = now_ns;
    }
}

bool slow_tell(struct slow_rank *r, int64_t now_ns)
{
    const int64_t second = 1000000000;
    if (r->slow_ns == 0 || now_ns - r->slow_ns < SLOW_AFTER_S * second ||
        (r->told_ns != 0 && now_ns - r->told_ns < SLOW_EVERY_S * second))
        return false;
    r->told_ns = now_ns;
    return true;
}
