/* The coordinator's messages, checked: see command.h. */
#include "worker/control/command.h"
#include "base/check.h"
#include "base/pool.h"

#include <stdlib.h>
#include <string.h>

static enum status take_text(const char *field, const char *text, char *out, size_t size,
                             struct error *err)
{
    size_t n = text ? strlen(text) : 0;
    if (n >= size)
        return error_set(err, ERR_INVALID, "plan: %s: expected at most %zu bytes, found %zu", field,
                         size - 1, n);
    memcpy(out, text ? text : "", n);
    out[n] = '\0';
    return OK;
}

struct bounded {
    const char *field;
    int64_t value, min, max;
};

static enum status check_bounds(const struct bounded *fields, size_t count, struct error *err)
{
    for (size_t i = 0; i < count; i++)
        if (fields[i].value < fields[i].min || fields[i].value > fields[i].max)
            return error_set(err, ERR_INVALID, "plan: %s: expected %lld to %lld, found %lld",
                             fields[i].field, (long long)fields[i].min, (long long)fields[i].max,
                             (long long)fields[i].value);
    return OK;
}

/* Bounds that hold for any model; the engine checks against the model at hand. */
static enum status check_numbers(const Witan__Cluster__V1__Plan *p, struct error *err)
{
    const Witan__Cluster__V1__Layout *y = p->layout;
    const Witan__Cluster__V1__Limits *l = p->limits;
    const struct bounded fields[] = {
        {"layout.pp", y->pp, 1, MAX_WORLD},
        {"layout.tp", y->tp, 1, MAX_WORLD},
        {"layout.ep", y->ep, 0, MAX_WORLD},
        {"layout.w", y->w, 0, MAX_WORLD},
        {"limits.max_rows", l->max_rows, 1, 1 << 20},
        {"limits.max_seqs", l->max_seqs, 1, 1 << 16},
        {"limits.context", l->context, 1, 1 << 24},
        {"limits.kv_blocks", l->kv_blocks, 0, INT32_MAX},
        {"limits.threads", l->threads, 0, POOL_MAX_THREADS},
        {"limits.gpu_percent", l->gpu_percent, 0, 100},
        {"vocab_limit", p->vocab_limit, 0, INT32_MAX},
        {"chunk", p->chunk, 0, INT32_MAX},
        {"heartbeat_ms", p->heartbeat_ms, HEARTBEAT_MIN_MS, HEARTBEAT_MAX_MS},
    };
    return check_bounds(fields, COUNT_OF(fields), err);
}

static enum status take_range(const char *field, const Witan__Cluster__V1__Range *r,
                              struct range *out, struct error *err)
{
    int32_t begin = r ? r->begin : 0, end = r ? r->end : 0; /* proto3 leaves [0, 0) out */
    if (begin < 0 || end < begin)
        return error_set(err, ERR_INVALID, "plan: slices.%s: expected a range, found [%d, %d)",
                         field, begin, end);
    *out = (struct range){begin, end};
    return OK;
}

static enum status take_slices(const Witan__Cluster__V1__Slices *s, struct slices *out,
                               struct error *err)
{
    out->stage = s->stage;
#define X(name) TRY(take_range(#name, s->name, &out->name, err));
    SLICE_RANGES(X)
#undef X
    return OK;
}

static enum status take_manifest(const Witan__Cluster__V1__Manifest *m, struct assignment *out,
                                 struct error *err)
{
    if (!m)
        return OK;
    const struct bounded threshold = {"manifest.threshold", m->threshold, 1, MANIFEST_MAX_KEYS};
    TRY(take_text("manifest.path", m->path, out->manifest.path, sizeof out->manifest.path, err));
    TRY(take_text("manifest.trust", m->trust, out->manifest.trust, sizeof out->manifest.trust,
                  err));
    TRY(take_text("manifest.digest", m->digest, out->manifest.digest, sizeof out->manifest.digest,
                  err));
    if (!*out->manifest.path || !*out->manifest.trust)
        return error_set(err, ERR_INVALID, "plan: manifest.%s: expected a path, found nothing",
                         *out->manifest.path ? "trust" : "path");
    if (strspn(out->manifest.digest, "0123456789abcdef") != MANIFEST_DIGEST_HEX)
        return error_set(err, ERR_INVALID,
                         "plan: manifest.digest: expected %d hex digits, found \"%s\"",
                         MANIFEST_DIGEST_HEX, out->manifest.digest);
    out->manifest.threshold = m->threshold;
    return check_bounds(&threshold, 1, err);
}

enum status assignment_read(const Witan__Cluster__V1__Plan *p, struct assignment *out,
                            struct error *err)
{
    if (!p->layout || !p->limits || !p->slices)
        return error_set(err, ERR_INVALID, "plan: %s: expected, found nothing",
                         !p->layout   ? "layout"
                         : !p->limits ? "limits"
                                      : "slices");
    memset(out, 0, sizeof *out);
    TRY(take_text("model_dir", p->model_dir, out->model_dir, sizeof out->model_dir, err));
    TRY(take_text("model_name", p->model_name, out->model_name, sizeof out->model_name, err));
    TRY(take_text("kernels", p->kernels, out->kernels, sizeof out->kernels, err));
    if (!*out->model_dir)
        return error_set(err, ERR_INVALID, "plan: model_dir: expected a folder, found nothing");
    if (!*out->kernels)
        memcpy(out->kernels, "auto", sizeof "auto");
    TRY(check_numbers(p, err));
    TRY(take_slices(p->slices, &out->slices, err));
    TRY(take_manifest(p->manifest, out, err));
    out->epoch = p->epoch;
    out->layout = (struct layout){
        .pp = p->layout->pp, .tp = p->layout->tp, .ep = p->layout->ep, .w = p->layout->w};
    out->limits = (struct engine_limits){
        .max_rows = p->limits->max_rows,
        .max_seqs = p->limits->max_seqs,
        .max_logits = p->limits->max_seqs,
        .context = p->limits->context,
        .kv_blocks = p->limits->kv_blocks,
        .threads = p->limits->threads,
        .gpu_percent = p->limits->gpu_percent,
        .kv_dtype = p->limits->kv_f32 ? KV_F32 : KV_BF16,
    };
    out->vocab_limit = p->vocab_limit;
    out->chunk = p->chunk;
    out->heartbeat_ms = (int32_t)p->heartbeat_ms;
    return OK;
}

static enum status check_submit(const Witan__Cluster__V1__Submit *s, const struct assignment *a,
                                struct error *err)
{
    if (s->epoch != a->epoch)
        return error_set(err, ERR_INVALID, "epoch: expected %llu of the plan, found %llu",
                         (unsigned long long)a->epoch, (unsigned long long)s->epoch);
    if (s->n_prompt < 1)
        return error_set(err, ERR_INVALID, "the prompt is empty");
    if (s->n_prompt > (size_t)a->limits.context)
        return error_set(err, ERR_LIMIT, "prompt of %zu tokens exceeds the context of %d",
                         s->n_prompt, a->limits.context);
    if (s->max_tokens < 0 || s->max_tokens > a->limits.context)
        return error_set(err, ERR_INVALID, "max_tokens %d: expected 0 to %d", s->max_tokens,
                         a->limits.context);
    if (!s->sampling)
        return error_set(err, ERR_INVALID, "sampling: expected, found nothing");
    return OK;
}

enum status command_read_submit(const Witan__Cluster__V1__Submit *s, const struct assignment *a,
                                struct command *out, struct error *err)
{
    TRY(check_submit(s, a, err));
    const Witan__Cluster__V1__Sampling *p = s->sampling;
    *out = (struct command){
        .kind = COMMAND_SUBMIT,
        .key = {.request_id = s->request_id, .attempt = s->attempt, .epoch = s->epoch},
        .prompt_len = (int32_t)s->n_prompt,
        .max_tokens = s->max_tokens,
        .ignore_eos = s->ignore_eos,
        .sampling = {.temperature = p->temperature,
                     .top_p = p->top_p,
                     .min_p = p->min_p,
                     .top_k = p->top_k,
                     .seed = p->seed},
    };
    TRY(sampling_check(&out->sampling, err));
    size_t bytes = s->n_prompt * sizeof *out->prompt;
    out->prompt = malloc(bytes);
    if (!out->prompt)
        return error_set(err, ERR_NO_MEMORY, "no memory for a prompt of %zu tokens", s->n_prompt);
    memcpy(out->prompt, s->prompt, bytes);
    return OK;
}

void command_fini(struct command *c)
{
    free(c->prompt);
    c->prompt = NULL;
}

static enum status compare_range(const char *field, struct range theirs, struct range own,
                                 struct error *err)
{
    if (theirs.begin == own.begin && theirs.end == own.end)
        return OK;
    /* An empty range lies anywhere. */
    if (range_size(theirs) == 0 && range_size(own) == 0)
        return OK;
    return error_set(
        err, ERR_INVALID,
        "plan: slices.%s: the coordinator says [%d, %d), this rank's config.json gives "
        "[%d, %d)",
        field, theirs.begin, theirs.end, own.begin, own.end);
}

enum status slices_compare(const struct slices *theirs, const struct rank_plan *own,
                           struct error *err)
{
    if (theirs->stage != own->stage)
        return error_set(err, ERR_INVALID,
                         "plan: slices.stage: the coordinator says %d, this rank's config.json "
                         "gives %d",
                         theirs->stage, own->stage);
#define X(name) TRY(compare_range(#name, theirs->name, own->name, err));
    SLICE_RANGES(X)
#undef X
    return OK;
}
