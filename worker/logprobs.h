/*
 * Logarithms of probabilities from a row of logits as the model gave it, at temperature 1. A pure
 * function of the row: its sums have one order, whatever the layout and the instruction set.
 */
#ifndef WITAN_WORKER_LOGPROBS_H
#define WITAN_WORKER_LOGPROBS_H

#include "worker/scheduler.h"

/* Of `token`, below `vocab`, and of the `top` likeliest tokens (at most SAMPLING_MAX_LOGPROBS, and
 * no more than there are). A row that holds a NaN or no finite maximum gives -infinity. */
void logprobs_of(const float *logits, int32_t vocab, int32_t token, int32_t top,
                 struct logprobs *out);

#endif
