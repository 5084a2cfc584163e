/* Logprobs on their way into a Delta of the gRPC door: copied when they come, sent with the ids
 * that they belong to. One thread. */
#ifndef WITAN_COORDINATOR_INFERENCE_LOGPROBS_H
#define WITAN_COORDINATOR_INFERENCE_LOGPROBS_H

#include "coordinator/core.h"
#include "proto/inference.pb-c.h"

struct delta_logprob;

/* Starts zeroed. */
struct delta_logprobs {
    struct delta_logprob *items; /* [cap], owned */
    Witan__Inference__V1__TokenLogprobs **pointers;
    size_t count, cap;
};

void delta_logprobs_fini(struct delta_logprobs *d);

/* Copies them; there are at most as many as an answer has tokens. */
void delta_logprobs_add(struct delta_logprobs *d, const struct token_logprobs *logprobs,
                        int32_t count);

/* What a Delta's field points to, [d->count], until the next change; then: sent. */
Witan__Inference__V1__TokenLogprobs **delta_logprobs_message(struct delta_logprobs *d);
void delta_logprobs_clear(struct delta_logprobs *d);

#endif
