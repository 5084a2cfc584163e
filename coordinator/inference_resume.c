/* Keys and positions of the gRPC door's answers: see inference_resume.h. */
#include "coordinator/inference_resume.h"
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef Witan__Inference__V1__GenerateRequest generate_request;

static char nothing[] = "";

/* Packed anew, without the field that a retry adds. */
static enum status digest(uint64_t tenant, generate_request *q, struct resume_key *out,
                          struct error *err)
{
    char *after = q->resume_after;
    q->resume_after = nothing;
    size_t len = witan__inference__v1__generate_request__get_packed_size(q);
    uint8_t *bytes = check_calloc(1, len + 1);
    witan__inference__v1__generate_request__pack(q, bytes);
    q->resume_after = after;
    enum status st = resume_key_init(out, tenant, q->idempotency_key, "Generate", bytes, len, err);
    free(bytes);
    return st;
}

bool inference_resume_replaces(const struct core *core, uint64_t tenant, generate_request *request)
{
    struct error err;
    struct resume_key k;
    const struct resume_claim *older = resume_under_way(core->claims, tenant,
                                                        request->idempotency_key);
    return older && digest(tenant, request, &k, &err) == OK &&
           digest_equal(&k.request, &older->key.request);
}

static enum status fill(struct inference_resume *r, struct core *core, uint64_t tenant,
                        generate_request *q, struct error *err)
{
    enum status st = digest(tenant, q, &r->claim.key, err);
    if (st != OK) {
        error_prefix(err, "idempotency_key: ");
        return st;
    }
    resume_begin(&r->position, &r->claim.key, 1, (int64_t)time(NULL));
    if (*q->resume_after && (st = resume_from(&r->position, q->resume_after, err)) != OK) {
        error_prefix(err, "resume_after: ");
        return st;
    }
    st = resume_claim(&core->claims, &r->claim, err);
    if (st != OK)
        error_prefix(err, "idempotency_key: ");
    return st;
}

enum status inference_resume_create(struct core *core, uint64_t tenant, generate_request *request,
                                    void (*taken)(void *user, const struct error *why), void *user,
                                    struct inference_resume **out, struct error *err)
{
    *out = NULL;
    if (!*request->idempotency_key && *request->resume_after)
        return error_set(err, ERR_INVALID,
                         "resume_after: an answer is resumed by the idempotency_key that it was "
                         "asked with: send that too");
    if (!*request->idempotency_key)
        return OK;
    struct inference_resume *r = check_calloc(1, sizeof *r);
    r->claim.taken = taken;
    r->claim.user = user;
    buf_init(&r->text, RESUME_MAX_POSITION);
    enum status st = fill(r, core, tenant, request, err);
    if (st == OK)
        *out = r;
    else
        inference_resume_destroy(r);
    return st;
}

void inference_resume_add(struct inference_resume *r, const struct generation *g,
                          const int32_t *ids, int32_t count)
{
    if (!r)
        return;
    struct resume_position *p = &r->position;
    if (!*p->class)
        snprintf(p->class, sizeof p->class, "%s", generation_class(g));
    resume_add(&p->at[0], ids, count);
}

void inference_resume_destroy(struct inference_resume *r)
{
    if (!r)
        return;
    resume_unclaim(&r->claim);
    buf_fini(&r->text);
    free(r);
}

void inference_resume_params(const struct inference_resume *r, bool has_seed,
                             struct generation_params *p)
{
    if (!r)
        return;
    if (!has_seed)
        p->sampling.seed = resume_seed(&r->claim.key);
    if (!r->position.resumed)
        return;
    p->after = r->position.at[0];
    p->numerics_class = *r->position.class ? r->position.class : NULL;
    p->prompt_logprobs = 0; /* they come before the first token, and so were told */
}

char *inference_resume_text(struct inference_resume *r, bool thought)
{
    if (!r || r->position.at[0].tokens == 0)
        return nothing;
    r->position.at[0].begun = true;
    r->position.at[0].thought = thought;
    resume_print(&r->position, &r->text);
    return r->text.data;
}
