/*
 * How long steps take, and so how many rows of prompts a step may feed beside sequences that decode
 * without holding these up for longer than was asked, or than half of what a step takes anyway,
 * where that is longer: a third of the time is then left to prompts. Chunks of any size give the
 * same tokens, so this is the one decision of the scheduler that time may make.
 *
 * A step is reckoned to take what one without prompts takes, and so much for each row of a prompt;
 * both are means of steps that have been timed, the last of which count most.
 */
#ifndef WITAN_WORKER_PACE_H
#define WITAN_WORKER_PACE_H

#include <stdint.h>

struct pace {
    int64_t stall_ns;     /* 0: no bound */
    double decode_ns;     /* of a step without prompts; 0: none has been timed */
    double rows, rows_ns; /* of prompts, fading, and what they took; 0: none have been timed */
};

enum { PACE_LEAST_ROWS = 16 };

/* A step with so many rows of prompts took `step_ns`; 0: not known. */
void pace_note(struct pace *p, int32_t prompt_rows, int64_t step_ns);

/* Of `room` rows, those that a step in which others decode may give to prompts. */
int32_t pace_prompt_rows(const struct pace *p, int32_t room);

#endif
