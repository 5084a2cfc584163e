/* The coordinator's messages, checked: see command.h. */
#include "worker/control/command.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/pool.h"

#include <stdio.h>
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
        {"limits.kv_dtype", l->kv_dtype, KV_BF16, KV_INT8},
        {"vocab_limit", p->vocab_limit, 0, INT32_MAX},
        {"chunk", p->chunk, 0, INT32_MAX},
        {"stall_ms", p->stall_ms, 0, STALL_MAX_MS},
        {"speculate", p->speculate, 0, MAX_GUESSES},
        {"weights", p->weights, WEIGHTS_PUBLISHED, WEIGHTS_INT4},
        {"heartbeat_ms", p->heartbeat_ms, HEARTBEAT_MIN_MS, HEARTBEAT_MAX_MS},
        {"reattach_timeout_s", p->reattach_timeout_s, 0, REATTACH_MAX_S},
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
        .context = p->limits->context,
        .kv_blocks = p->limits->kv_blocks,
        .threads = p->limits->threads,
        .gpu_percent = p->limits->gpu_percent,
        .kv_dtype = p->limits->kv_f32 ? KV_F32 : (enum kv_dtype)p->limits->kv_dtype,
    };
    out->limits.max_logits = plan_max_logits(&out->limits, p->speculate);
    out->stall_ms = (int32_t)p->stall_ms;
    out->speculate = p->speculate;
    out->no_prefix_cache = p->no_prefix_cache;
    out->wipe = p->wipe;
    out->vocab_limit = p->vocab_limit;
    out->weights = (enum weight_mode)p->weights;
    out->chunk = p->chunk;
    out->heartbeat_ms = (int32_t)p->heartbeat_ms;
    out->reattach_timeout_s = (int32_t)p->reattach_timeout_s;
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
    if (s->n_answer > 0 && s->n_answer >= (size_t)s->max_tokens)
        return error_set(err, ERR_INVALID,
                         "answer: expected fewer tokens than max_tokens, %d, found %zu",
                         s->max_tokens, s->n_answer);
    if (s->prompt_told < 0 || (size_t)s->prompt_told > s->n_prompt)
        return error_set(err, ERR_INVALID, "prompt_told: expected 0 to %zu, found %d", s->n_prompt,
                         s->prompt_told);
    if (!s->sampling)
        return error_set(err, ERR_INVALID, "sampling: expected, found nothing");
    return OK;
}

/* 1 + how many of the likeliest tokens to list; 0: none are wanted. */
static enum status take_logprobs(const char *field, const Witan__Cluster__V1__LogprobsWanted *w,
                                 int32_t *out, struct error *err)
{
    if (w && (w->top < 0 || w->top > SAMPLING_MAX_LOGPROBS))
        return error_set(err, ERR_INVALID, "%s: expected 0 to %d, found %d", field,
                         (int)SAMPLING_MAX_LOGPROBS, w->top);
    *out = w ? 1 + w->top : 0;
    return OK;
}

static enum status take_constraint(const Witan__Cluster__V1__Constraint *c, struct constraint *out,
                                   struct error *err)
{
    int32_t kind = c ? (int32_t)c->kind : 0, thought = c ? (int32_t)c->thought : 0;
    if (kind < 0 || kind >= CONSTRAINT_KINDS || thought < 0 || thought >= CONSTRAINT_THOUGHTS)
        return error_set(err, ERR_INVALID,
                         "constraint: expected a kind below %d and a thought below %d, found %d "
                         "and %d",
                         (int)CONSTRAINT_KINDS, (int)CONSTRAINT_THOUGHTS, kind, thought);
    if (c && (c->text.len > CONSTRAINT_MAX_TEXT || c->heads > CONSTRAINT_MAX_HEADS))
        return error_set(err, ERR_INVALID,
                         "constraint: expected at most %d bytes and %d heads, found %zu and %u",
                         (int)CONSTRAINT_MAX_TEXT, (int)CONSTRAINT_MAX_HEADS, c->text.len,
                         c->heads);
    *out = (struct constraint){.kind = (enum constraint_kind)kind,
                               .thought = (enum constraint_thought)thought,
                               .text_len = c ? (uint32_t)c->text.len : 0,
                               .heads = c ? (uint16_t)c->heads : 0};
    return OK;
}

/* Whether it holds together engine_submit sees, which knows the vocabulary. */
static enum status take_thinking(const Witan__Cluster__V1__Thinking *t, struct thinking *out,
                                 struct error *err)
{
    *out = (struct thinking){0};
    if (!t)
        return OK;
    if (t->n_ids < 1 || t->n_ids > THINKING_MAX_END)
        return error_set(err, ERR_INVALID, "thinking: expected 1 to %d ids, found %zu",
                         (int)THINKING_MAX_END, t->n_ids);
    out->count = (int32_t)t->n_ids;
    out->most = t->most;
    out->open = t->open;
    out->close = t->close;
    out->inside = t->inside;
    memcpy(out->ids, t->ids, t->n_ids * sizeof *t->ids);
    return OK;
}

/* Numbers alone; what is copied comes after. */
static enum status take_terms(const Witan__Cluster__V1__Submit *s, struct command *out,
                              struct error *err)
{
    TRY(take_logprobs("logprobs", s->logprobs, &out->logprobs, err));
    TRY(take_logprobs("prompt_logprobs", s->prompt_logprobs, &out->prompt_logprobs, err));
    if (s->priority < -1 || s->priority > 1)
        return error_set(err, ERR_INVALID, "priority: expected -1 to 1, found %d", s->priority);
    TRY(take_constraint(s->constraint, &out->constraint, err));
    TRY(take_thinking(s->thinking, &out->thinking, err));
    out->priority = s->priority;
    out->tenant = s->tenant;
    out->prefix_domain = s->prefix_domain;
    out->deadline_ns = s->deadline_ms > 0 ? clock_now_ns() + (int64_t)s->deadline_ms * 1000000 : 0;
    return OK;
}

/* The lists are bounded before anything is allocated for them. */
static enum status check_lists(const Witan__Cluster__V1__Sampling *p, struct error *err)
{
    if (p->n_bias_ids != p->n_biases)
        return error_set(err, ERR_INVALID,
                         "biases: expected %zu, one for each of bias_ids, found "
                         "%zu",
                         p->n_bias_ids, p->n_biases);
    if (p->n_bias_ids > SAMPLING_MAX_BIASES)
        return error_set(err, ERR_INVALID, "bias_ids: expected at most %d, found %zu",
                         (int)SAMPLING_MAX_BIASES, p->n_bias_ids);
    if (p->n_stop_ids > SAMPLING_MAX_STOP_IDS)
        return error_set(err, ERR_INVALID, "stop_ids: expected at most %d, found %zu",
                         (int)SAMPLING_MAX_STOP_IDS, p->n_stop_ids);
    return OK;
}

/* Copies prompt, answer and lists into one piece of memory. */
static enum status copy_arrays(const Witan__Cluster__V1__Submit *s, struct command *out,
                               struct error *err)
{
    const Witan__Cluster__V1__Sampling *p = s->sampling;
    size_t prompt = s->n_prompt * sizeof *out->prompt;
    size_t answer = s->n_answer * sizeof *out->answer;
    size_t stops = p->n_stop_ids * sizeof *out->shaping.stop_ids;
    size_t biases = p->n_bias_ids * sizeof *out->shaping.bias;
    size_t form = out->constraint.text_len;
    out->prompt = malloc(prompt + answer + stops + biases + form);
    if (!out->prompt)
        return error_set(err, ERR_NO_MEMORY, "no memory for a prompt of %zu tokens", s->n_prompt);
    int32_t *drawn = out->prompt + s->n_prompt, *stop_ids = drawn + s->n_answer;
    struct logit_bias *bias = (struct logit_bias *)(void *)(stop_ids + p->n_stop_ids);
    memcpy(out->prompt, s->prompt, prompt);
    if (answer > 0)
        memcpy(drawn, s->answer, answer);
    if (stops > 0)
        memcpy(stop_ids, p->stop_ids, stops);
    for (size_t i = 0; i < p->n_bias_ids; i++)
        bias[i] = (struct logit_bias){p->bias_ids[i], p->biases[i]};
    if (form > 0) {
        char *text = (char *)(bias + p->n_bias_ids);
        memcpy(text, s->constraint->text.data, form);
        out->constraint.text = text;
    }
    out->answer = drawn;
    out->shaping.stop_ids = stop_ids;
    out->shaping.stop_id_count = (int32_t)p->n_stop_ids;
    out->shaping.bias = bias;
    out->shaping.bias_count = (int32_t)p->n_bias_ids;
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
        .answer_len = (int32_t)s->n_answer,
        .prompt_told = s->prompt_told,
        .max_tokens = s->max_tokens,
        .ignore_eos = s->ignore_eos,
        .sampling = {.temperature = p->temperature,
                     .top_p = p->top_p,
                     .min_p = p->min_p,
                     .top_k = p->top_k,
                     .seed = p->seed},
        .shaping = {.repetition_penalty = p->repetition_penalty,
                    .presence_penalty = p->presence_penalty,
                    .frequency_penalty = p->frequency_penalty,
                    .min_tokens = p->min_tokens},
    };
    TRY(sampling_check(&out->sampling, err));
    TRY(take_terms(s, out, err));
    TRY(check_lists(p, err));
    TRY(copy_arrays(s, out, err));
    enum status st = shaping_check(&out->shaping, a->vocab_limit > 0 ? a->vocab_limit : INT32_MAX,
                                   err);
    if (st != OK)
        command_fini(out);
    return st;
}

enum status command_read_words(const Witan__Cluster__V1__Words *w, struct command *out,
                               struct error *err)
{
    *out = (struct command){.kind = COMMAND_WORDS};
    if (w->kinds.len != w->n_lengths)
        return error_set(err, ERR_INVALID,
                         "words: kinds: expected %zu, one for each of lengths, found %zu",
                         w->n_lengths, w->kinds.len);
    return words_create((const char *)w->text.data, w->text.len, w->lengths, w->kinds.data,
                        w->n_lengths, &out->words, err);
}

void command_fini(struct command *c)
{
    words_destroy(c->words);
    c->words = NULL;
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

/* --- two plans ---------------------------------------------------------------------------------
 */

static enum status differs(const char *field, const char *own, const char *theirs,
                           struct error *err)
{
    return error_set(err, ERR_INVALID,
                     "plan: %s: this rank has loaded with %.200s, and the coordinator now says "
                     "%.200s: the group starts again",
                     field, *own ? own : "none", *theirs ? theirs : "none");
}

static enum status compare_numbers(const struct assignment *own, const struct assignment *theirs,
                                   struct error *err)
{
#define NUMBER(field)                                                                              \
    {                                                                                              \
#field, own->field, theirs->field                                                          \
    }
    const struct {
        const char *field;
        int64_t own, theirs;
    } numbers[] = {
        NUMBER(layout.pp),
        NUMBER(layout.tp),
        NUMBER(layout.ep),
        NUMBER(layout.w),
        NUMBER(limits.max_rows),
        NUMBER(limits.max_seqs),
        NUMBER(limits.context),
        NUMBER(limits.kv_blocks),
        NUMBER(limits.threads),
        NUMBER(limits.kv_dtype),
        NUMBER(limits.gpu_percent),
        NUMBER(limits.max_logits),
        NUMBER(weights),
        NUMBER(vocab_limit),
        NUMBER(chunk),
        NUMBER(stall_ms),
        NUMBER(speculate),
        NUMBER(no_prefix_cache),
        NUMBER(wipe),
        NUMBER(manifest.threshold),
    };
#undef NUMBER
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        char a[32], b[32];
        snprintf(a, sizeof a, "%lld", (long long)numbers[i].own);
        snprintf(b, sizeof b, "%lld", (long long)numbers[i].theirs);
        if (numbers[i].own != numbers[i].theirs)
            return differs(numbers[i].field, a, b, err);
    }
    return OK;
}

static enum status compare_slices(const struct slices *own, const struct slices *theirs,
                                  struct error *err)
{
    char a[64], b[64];
#define X(name)                                                                                    \
    if (own->name.begin != theirs->name.begin || own->name.end != theirs->name.end) {              \
        snprintf(a, sizeof a, "[%d, %d)", own->name.begin, own->name.end);                         \
        snprintf(b, sizeof b, "[%d, %d)", theirs->name.begin, theirs->name.end);                   \
        return differs("slices." #name, a, b, err);                                                \
    }
    SLICE_RANGES(X)
#undef X
    snprintf(a, sizeof a, "%d", own->stage);
    snprintf(b, sizeof b, "%d", theirs->stage);
    return own->stage == theirs->stage ? OK : differs("slices.stage", a, b, err);
}

enum status assignment_compare(const struct assignment *own, const struct assignment *theirs,
                               struct error *err)
{
    const struct {
        const char *field, *own, *theirs;
    } texts[] = {
        {"model_dir", own->model_dir, theirs->model_dir},
        {"kernels", own->kernels, theirs->kernels},
        {"manifest.path", own->manifest.path, theirs->manifest.path},
        {"manifest.trust", own->manifest.trust, theirs->manifest.trust},
        {"manifest.digest", own->manifest.digest, theirs->manifest.digest},
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        if (strcmp(texts[i].own, texts[i].theirs) != 0)
            return differs(texts[i].field, texts[i].own, texts[i].theirs, err);
    TRY(compare_numbers(own, theirs, err));
    return compare_slices(&own->slices, &theirs->slices, err);
}
