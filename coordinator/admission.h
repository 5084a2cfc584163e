/*
 * Who is let in: how long a new request would wait in a group, and when one that is refused is to
 * come again. Arithmetic alone, all zeros are a fresh one. Owned by the loop thread.
 */
#ifndef WITAN_COORDINATOR_ADMISSION_H
#define WITAN_COORDINATOR_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

enum {
    ADMISSION_WINDOW_S = 32, /* the rate of ends is of this long */
    ADMISSION_RETRY_MIN_S = 1,
    ADMISSION_RETRY_MAX_S = 60,
    ADMISSION_CLASSES = 3, /* of priority: -1, 0, 1 */
};

/* --- how fast requests end --------------------------------------------------------------------
 */

struct admission {
    uint32_t ended[ADMISSION_WINDOW_S]; /* by second, modulo the window */
    int64_t first_s, last_s;            /* seconds of the clock; 0: nothing has ended */
};

/* A request has ended. */
void admission_ended(struct admission *a, int64_t now_ns);

/* Seconds until `ahead` requests (at least 1) will have ended at the rate of the window. */
int32_t admission_retry_s(const struct admission *a, int32_t ahead, int64_t now_ns);

/* `seconds` up to a fifth more or less, by a random number, so that those who were refused together
 * do not come back together: ADMISSION_RETRY_MIN_S to _MAX_S. */
int32_t admission_spread_s(double seconds, uint64_t random);

/* --- how long one waits in a group ------------------------------------------------------------
 */

/* The tokens of a group's requests whose first token has not come yet (prompts, and what of an
 * answer another group had drawn), and how fast they have gone on, which is measured while the
 * group has more of them than it can begin with at once: otherwise it would be the rate at which
 * clients ask. */
struct backlog {
    int32_t step_tokens, slots; /* what it begins with at once: set before the first use */
    int64_t tokens[ADMISSION_CLASSES];
    int32_t waiting, decoding; /* requests before their first token, and after */
    double begun, busy_s;      /* tokens that have gone on, in so many seconds of backlog */
    double count;              /* requests of these tokens */
    int64_t seen_ns;           /* up to when busy_s counts */
    int64_t saturated_ns;      /* when it last had so many */
    uint64_t told;             /* tokens of prompts, as the group last said */
    bool heard;                /* it has, since it attached */
    double fed; /* of these, those of requests that wait; below 0: begun, and not told yet */
};

void backlog_add(struct backlog *b, int32_t priority, int32_t tokens, int64_t now_ns);
/* Its first token has come. */
void backlog_begin(struct backlog *b, int32_t priority, int32_t tokens, int64_t now_ns);
/* It is gone: `tokens` 0 when it had begun. */
void backlog_remove(struct backlog *b, int32_t priority, int32_t tokens, int64_t now_ns);

/* The group has fed so many tokens of prompts by now: what of those that wait is done already. */
void backlog_fed(struct backlog *b, uint64_t tokens);
/* Its ranks come, or come again: what they have fed before says nothing. */
void backlog_attached(struct backlog *b);

/* Tokens of all that wait. */
int64_t backlog_tokens(const struct backlog *b);

/* Seconds that a request of this priority would wait behind those that go before it; 0 while the
 * group can begin with it at once, or has not shown how fast it is. What it has shown is forgotten
 * when it has had no more than it can begin with for 8 s. */
double backlog_wait_s(const struct backlog *b, int32_t priority, int64_t now_ns);

#endif
