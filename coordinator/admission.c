/* Who is let in: see admission.h. */
#include "coordinator/admission.h"
#include "base/check.h"

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

int32_t admission_spread_s(double seconds, uint64_t random)
{
    double spread = 0.8 + 0.4 * (double)(random >> 11) * 0x1p-53;
    double most = ADMISSION_RETRY_MAX_S / 1.2; /* or all who wait long would be told the same */
    double s = ceil((seconds > most ? most : seconds) * spread);
    if (!(s > ADMISSION_RETRY_MIN_S))
        return ADMISSION_RETRY_MIN_S;
    return s < ADMISSION_RETRY_MAX_S ? (int32_t)s : ADMISSION_RETRY_MAX_S;
}

/* --- how long one waits in a group ------------------------------------------------------------
 */

/* The rate is of the last seconds of backlog, or of the last requests where they take longer: a
 * prompt counts when it is done, and may have taken minutes. */
static const double RATE_SECONDS = 8.0, RATE_REQUESTS = 32.0;
/* So long a group that has begun with nothing yet is not judged. */
static const double FIRST_SECONDS = 2.0;

int64_t backlog_tokens(const struct backlog *b)
{
    int64_t sum = 0;
    for (int i = 0; i < ADMISSION_CLASSES; i++)
        sum += b->tokens[i];
    return sum;
}

/* Does somebody wait for room, rather than for the step that is next? */
static bool saturated(const struct backlog *b)
{
    return backlog_tokens(b) > b->step_tokens ||
           (b->waiting > 0 && b->waiting + b->decoding > b->slots);
}

static double busy_s(const struct backlog *b, int64_t now_ns)
{
    return b->busy_s + (saturated(b) ? (double)(now_ns - b->seen_ns) * 1e-9 : 0.0);
}

/* What was measured before a pause says little of what comes after it: other requests, alone. */
static void forget(struct backlog *b)
{
    b->begun = b->busy_s = b->count = 0.0;
}

/* To be called before anything changes. */
static void look(struct backlog *b, int64_t now_ns)
{
    b->busy_s = busy_s(b, now_ns);
    b->seen_ns = now_ns;
    if (saturated(b))
        b->saturated_ns = now_ns;
    else if ((double)(now_ns - b->saturated_ns) * 1e-9 > RATE_SECONDS)
        forget(b);
}

static int64_t *tokens_of(struct backlog *b, int32_t priority)
{
    CHECK(priority >= -1 && priority <= 1, "priority %d", priority);
    return &b->tokens[priority + 1];
}

static void take_off(struct backlog *b, int32_t priority, int32_t tokens)
{
    *tokens_of(b, priority) -= tokens;
    b->waiting--;
    CHECK(*tokens_of(b, priority) >= 0 && b->waiting >= 0, "%lld tokens and %d requests wait",
          (long long)*tokens_of(b, priority), b->waiting);
    /* No more is done of those that are left than they have. */
    b->fed = fmin(b->fed, (double)backlog_tokens(b));
}

void backlog_add(struct backlog *b, int32_t priority, int32_t tokens, int64_t now_ns)
{
    look(b, now_ns);
    *tokens_of(b, priority) += tokens;
    b->waiting++;
}

void backlog_begin(struct backlog *b, int32_t priority, int32_t tokens, int64_t now_ns)
{
    bool counts = saturated(b);
    look(b, now_ns);
    b->fed -= tokens;
    take_off(b, priority, tokens);
    b->decoding++;
    if (!counts) { /* nothing of what waits is longer than a step */
        b->fed = fmin(b->fed, 0.0);
        return;
    }
    b->begun += tokens;
    b->count++;
    if (b->busy_s <= RATE_SECONDS || b->count <= RATE_REQUESTS)
        return;
    double keep = fmax(RATE_SECONDS / b->busy_s, RATE_REQUESTS / b->count);
    b->begun *= keep;
    b->busy_s *= keep;
    b->count *= keep;
    b->fed *= keep;
}

void backlog_remove(struct backlog *b, int32_t priority, int32_t tokens, int64_t now_ns)
{
    look(b, now_ns);
    if (tokens > 0)
        take_off(b, priority, tokens);
    else
        b->decoding--;
}

void backlog_fed(struct backlog *b, uint64_t tokens)
{
    bool goes_on = b->heard && tokens >= b->told;
    /* All that has begun is told by now: what is still owed had been cached. */
    b->fed = goes_on ? fmax(b->fed + (double)(tokens - b->told), 0.0) : 0.0;
    b->told = tokens;
    b->heard = true;
}

void backlog_attached(struct backlog *b)
{
    b->heard = false;
}

double backlog_wait_s(const struct backlog *b, int32_t priority, int64_t now_ns)
{
    double busy = busy_s(b, now_ns), ahead = 0.0;
    for (int i = 0; i <= priority + 1; i++)
        ahead += (double)b->tokens[i];
    if (!saturated(b) || ahead == 0.0 || (b->count < 1.0 && busy < FIRST_SECONDS))
        return 0.0;
    double fed = fmax(fmin(b->fed, ahead), 0.0);
    /* Where nothing has begun yet, the step that is under way counts as done. */
    double done = b->count < 1.0 ? b->step_tokens : b->begun;
    return (ahead - fed) * busy / (done + fed);
}
