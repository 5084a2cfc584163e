/* When to come again: see admission.h. */
#include "coordinator/admission.h"

#include <math.h>
#include <string.h>

static const int64_t SECOND_NS = 1000000000;

/* Seconds that have passed without an end are cleared. */
void admission_ended(struct admission *a, int64_t now_ns)
{
    int64_t now = now_ns / SECOND_NS;
    if (a->last_s == 0 || now - a->last_s >= ADMISSION_WINDOW_S)
        memset(a->ended, 0, sizeof a->ended);
    for (int64_t s = a->last_s + 1;
         a->last_s != 0 && s <= now && now - a->last_s < ADMISSION_WINDOW_S; s++)
        a->ended[s % ADMISSION_WINDOW_S] = 0;
    a->first_s = a->first_s ? a->first_s : now;
    a->last_s = now;
    a->ended[now % ADMISSION_WINDOW_S]++;
}

int32_t admission_retry_s(const struct admission *a, int32_t ahead, int64_t now_ns)
{
    int64_t now = now_ns / SECOND_NS, span = ADMISSION_WINDOW_S;
    double ended = 0.5; /* where none has, one is about to */
    if (a->first_s != 0 && now - a->first_s + 1 < span)
        span = now - a->first_s + 1;
    for (int64_t s = now - span + 1; s <= now; s++)
        if (s >= a->first_s && s <= a->last_s && a->last_s - s < ADMISSION_WINDOW_S)
            ended += a->ended[s % ADMISSION_WINDOW_S];
    double seconds = ceil((ahead > 1 ? ahead : 1) * (double)span / ended);
    if (!(seconds > ADMISSION_RETRY_MIN_S))
        return ADMISSION_RETRY_MIN_S;
    return seconds < ADMISSION_RETRY_MAX_S ? (int32_t)seconds : ADMISSION_RETRY_MAX_S;
}
