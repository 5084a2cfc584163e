/*
 * What idempotency_key and resume_after make of an answer of the gRPC door: see resume.h. On the
 * loop thread.
 */
#ifndef WITAN_COORDINATOR_INFERENCE_RESUME_H
#define WITAN_COORDINATOR_INFERENCE_RESUME_H

#include "coordinator/core.h"
#include "proto/inference.pb-c.h"

struct inference_resume {
    struct resume_claim claim;
    struct resume_position position; /* of what is told */
    struct buf text;                 /* the position in words */
};

/* Is an answer to the very same request under way? Then this one takes its place, and needs no more
 * room than there is. */
bool inference_resume_replaces(const struct core *core, uint64_t tenant,
                               Witan__Inference__V1__GenerateRequest *request);

/* Claims the request's key; an older answer of the same request ends with that, by `taken`. *out:
 * NULL without a key, else released with inference_resume_destroy. ERR_INVALID, ERR_CONFLICT: as
 * resume.h has them, with the field's name. */
enum status inference_resume_create(struct core *core, uint64_t tenant,
                                    Witan__Inference__V1__GenerateRequest *request,
                                    void (*taken)(void *user, const struct error *why), void *user,
                                    struct inference_resume **out, struct error *err);
void inference_resume_destroy(struct inference_resume *r); /* NULL is fine */

/* Seed, and where to go on. */
void inference_resume_params(const struct inference_resume *r, bool has_seed,
                             struct generation_params *p);

/* These tokens come next. NULL is fine. */
void inference_resume_add(struct inference_resume *r, const struct generation *g,
                          const int32_t *ids, int32_t count);

/* What a Delta's field points to, until the next call: "" for NULL, or before the first token. */
char *inference_resume_text(struct inference_resume *r, bool thought);

#endif
