/* When tokens came, and what is asked: see latency.h. */
#include "base/check.h"
#include "tests/bench/latency/latency.h"

#include <stdio.h>
#include <stdlib.h>

void arrivals_init(struct arrivals *a, int streams, int tokens)
{
    *a = (struct arrivals){.streams = streams, .tokens = tokens};
    a->ns = check_calloc((size_t)streams * (size_t)tokens, sizeof *a->ns);
    a->count = check_calloc((size_t)streams, sizeof *a->count);
}

void arrivals_fini(struct arrivals *a)
{
    free(a->ns);
    free(a->count);
}

void arrivals_add(struct arrivals *a, int stream, int64_t now_ns)
{
    if (a->count[stream] < a->tokens)
        a->ns[stream * a->tokens + a->count[stream]++] = now_ns;
}

void prompt_of(int i, char *out)
{
    snprintf(out, LATENCY_PATH, "%d times I asked what a lighthouse is", i);
}
