/* Keys and positions of HTTP answers: see http_resume.h. */
#include "coordinator/http_resume.h"
#include "base/check.h"
#include "coordinator/dialect.h"
#include "coordinator/http_api.h"

#include <stdlib.h>
#include <time.h>

_Static_assert((int)OPENAI_MAX_CHOICES <= (int)RESUME_MAX_CHOICES, "every choice has a place");

bool http_resume_replaces(struct exchange *x)
{
    struct error err;
    struct resume_key k;
    const char *key, *body;
    size_t len;
    if (exchange_request_header(x, "Idempotency-Key", &key, &err) != OK || !key)
        return false;
    const struct resume_claim *older = resume_under_way(x->core->claims, x->tenant, key);
    if (!older)
        return false;
    exchange_body(x, &body, &len);
    return resume_key_init(&k, x->tenant, key, x->route, body, len, &err) == OK &&
           digest_equal(&k.request, &older->key.request);
}

static enum status read_headers(struct exchange *x, const struct openai_request *r,
                                const char **key, const char **last, struct error *err)
{
    TRY(exchange_request_header(x, "Idempotency-Key", key, err));
    TRY(exchange_request_header(x, "Last-Event-ID", last, err));
    if (*last && !*key)
        return error_set(err, ERR_INVALID,
                         "Last-Event-ID: a stream is resumed by the Idempotency-Key that it was "
                         "asked with: send that too");
    if (*last && !x->dialect->positions)
        return error_set(err, ERR_INVALID,
                         "Last-Event-ID: streams of %s have no places to go on from: send the "
                         "Idempotency-Key alone, which gives the answer again from its beginning",
                         x->route);
    if (*last && !r->stream)
        return error_set(err, ERR_INVALID, "Last-Event-ID: this answer is no stream: leave it out");
    return OK;
}

static enum status fill(struct http_resume *h, struct exchange *x, const char *key,
                        const char *last, int32_t choices, struct error *err)
{
    const char *body;
    size_t len;
    exchange_body(x, &body, &len);
    enum status st = resume_key_init(&h->claim.key, x->tenant, key, x->route, body, len, err);
    if (st != OK) {
        error_prefix(err, "Idempotency-Key: ");
        return st;
    }
    resume_begin(&h->position, &h->claim.key, choices, (int64_t)time(NULL));
    if (last && (st = resume_from(&h->position, last, err)) != OK) {
        error_prefix(err, "Last-Event-ID: ");
        return st;
    }
    st = resume_claim(&x->core->claims, &h->claim, err);
    if (st != OK)
        error_prefix(err, "Idempotency-Key: ");
    return st;
}

bool http_resume_create(struct exchange *x, const struct openai_request *r, int32_t choices,
                        void (*taken)(void *user, const struct error *why),
                        struct http_resume **out)
{
    struct error err;
    const char *key = NULL, *last = NULL;
    *out = NULL;
    if (read_headers(x, r, &key, &last, &err) != OK) {
        http_refuse(x, &err);
        return false;
    }
    if (!key)
        return true;
    struct http_resume *h = check_calloc(1, sizeof *h);
    h->claim.taken = taken;
    buf_init(&h->text, RESUME_MAX_POSITION);
    if (fill(h, x, key, last, choices, &err) != OK) {
        http_resume_destroy(h);
        http_refuse(x, &err);
        return false;
    }
    *out = h;
    return true;
}

void http_resume_destroy(struct http_resume *r)
{
    if (!r)
        return;
    resume_unclaim(&r->claim);
    buf_fini(&r->text);
    free(r);
}

const char *http_resume_text(struct http_resume *r)
{
    resume_print(&r->position, &r->text);
    return r->text.data;
}
