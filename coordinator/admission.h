/*
 * How fast requests end, so that those that are refused can be told when to come again. Owned by
 * the loop thread; all zeros is a fresh one.
 */
#ifndef WITAN_COORDINATOR_ADMISSION_H
#define WITAN_COORDINATOR_ADMISSION_H

#include <stdint.h>

enum {
    ADMISSION_WINDOW_S = 32, /* the rate is of this long */
    ADMISSION_RETRY_MIN_S = 1,
    ADMISSION_RETRY_MAX_S = 60,
};

struct admission {
    uint32_t ended[ADMISSION_WINDOW_S]; /* by second, modulo the window */
    int64_t first_s, last_s;            /* seconds of the clock; 0: nothing has ended */
};

/* A request has ended. */
void admission_ended(struct admission *a, int64_t now_ns);

/* Seconds until `ahead` requests (at least 1) will have ended at the rate of the window. */
int32_t admission_retry_s(const struct admission *a, int32_t ahead, int64_t now_ns);

#endif
