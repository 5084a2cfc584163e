/* How a request wants its tokens drawn: what travels from a client to the sampler
 * (worker/sampler.h) and the scheduler. Pure. */
#ifndef WITAN_PARTITION_SAMPLING_H
#define WITAN_PARTITION_SAMPLING_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct sampling {
    float temperature; /* 0 = greedy, else 0.001..1000 */
    float top_p;       /* (0, 1]; 1 = off: smallest set of likeliest tokens with this mass */
    float min_p;       /* [0, 1]; 0 = off: at least this share of the likeliest token's mass */
    int32_t top_k;     /* 0 = off */
    uint64_t seed;
};

enum {
    SAMPLING_MAX_BIASES = 1024,
    SAMPLING_MAX_STOP_IDS = 64,
    SAMPLING_MAX_LOGPROBS = 20, /* likeliest tokens listed beside a drawn one */
};

struct logit_bias {
    int32_t id;
    float bias; /* -100 to 100; -100 forbids the token */
};

/* What changes a row of logits before a token is drawn, in this order: repetition, the other two
 * penalties and the bias in one addition, the ban of end tokens. */
struct shaping {
    /* Of tokens in prompt or answer: a logit above 0 is divided by it, another multiplied. (0, 10];
     * 1 or 0 = off. (Keskar et al., CTRL, 2019.) */
    float repetition_penalty;
    /* Taken off the logits of tokens in the answer: once, and for each time. -2 to 2. */
    float presence_penalty, frequency_penalty;
    int32_t min_tokens; /* no end token or stop id is drawn before; at least 0 */
    int32_t bias_count; /* at most SAMPLING_MAX_BIASES, no id twice */
    const struct logit_bias *bias;
    int32_t stop_id_count;   /* at most SAMPLING_MAX_STOP_IDS */
    const int32_t *stop_ids; /* end the answer as an end-of-sequence token does */
};

/* ERR_INVALID naming the field and its bounds. */
enum status sampling_check(const struct sampling *s, struct error *err);
/* The same; `vocab`: token ids are below it. */
enum status shaping_check(const struct shaping *s, int32_t vocab, struct error *err);

/* Do the logits depend on the tokens before? */
bool shaping_needs_history(const struct shaping *s);

#endif
