/* How long steps take: see pace.h. */
#include "worker/pace.h"

#define FADING (7.0 / 8) /* of what older steps count */

void pace_note(struct pace *p, int32_t prompt_rows, int64_t step_ns)
{
    double ns = (double)step_ns - (prompt_rows > 0 ? p->decode_ns : 0.0);
    if (step_ns <= 0)
        return;
    if (prompt_rows == 0) {
        p->decode_ns = p->decode_ns > 0.0 ? p->decode_ns * FADING + ns * (1.0 - FADING) : ns;
        return;
    }
    p->rows = p->rows * FADING + prompt_rows;
    p->rows_ns = p->rows_ns * FADING + (ns > 0.0 ? ns : 0.0);
}

int32_t pace_prompt_rows(const struct pace *p, int32_t room)
{
    if (p->stall_ns == 0 || p->rows_ns <= 0.0)
        return room;
    double half = p->decode_ns / 2, stall = (double)p->stall_ns;
    double rows = (stall > half ? stall : half) * p->rows / p->rows_ns;
    if (rows >= room)
        return room;
    int32_t whole = rows > PACE_LEAST_ROWS ? (int32_t)rows : PACE_LEAST_ROWS;
    return whole < room ? whole : room;
}
