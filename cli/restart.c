/* When a group is started again: see restart.h. */
#include "cli/restart.h"

void restart_ready(struct restart *r, int64_t now_ns)
{
    r->served = true;
    r->planned = false; /* it was told to end, and has come back as it was */
    r->ready_ns = now_ns;
}

void restart_begun(struct restart *r, int64_t now_ns)
{
    r->begun_ns = now_ns;
}

void restart_heard(struct restart *r, int64_t now_ns)
{
    int64_t ms = (now_ns - r->begun_ns) / 1000000 + 1;
    if (r->begun_ns != 0 && ms > r->heard_ms)
        r->heard_ms = ms;
    r->begun_ns = 0;
    r->unheard = 0;
}

int64_t restart_patience_ms(const struct restart *r, int64_t most_ms)
{
    int64_t ms = 4 * r->heard_ms > RESTART_HEARD_MS ? 4 * r->heard_ms : RESTART_HEARD_MS;
    for (int32_t i = 0; i < r->unheard && ms < most_ms; i++)
        ms *= 2;
    return r->heard_ms != 0 && ms < most_ms ? ms : most_ms;
}

int32_t restart_plan(struct restart *r, int64_t now_ns, uint32_t random)
{
    int64_t wait = RESTART_FIRST_MS;
    r->begun_ns = 0;
    if (r->planned) {
        r->planned = false;
        r->ready_ns = 0;
        r->due_ns = now_ns;
        return 0;
    }
    if (r->ready_ns != 0 && now_ns - r->ready_ns >= (int64_t)RESTART_SOUND_MS * 1000000)
        r->tries = 0;
    for (int32_t i = 0; i < r->tries && wait < RESTART_MOST_MS; i++)
        wait *= 2;
    wait = wait < RESTART_MOST_MS ? wait : RESTART_MOST_MS;
    if (wait < RESTART_MOST_MS)
        r->tries++;
    wait = wait / 2 + (int64_t)((uint64_t)wait / 2 * random >> 32);
    r->ready_ns = 0;
    r->due_ns = now_ns + wait * 1000000;
    return (int32_t)wait;
}
