/* What coordinators hold against each other, and what a peer may ask: see share_private.h. Pure. */
#include "base/check.h"
#include "coordinator/share_private.h"
#include "proto/versions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef Witan__Cluster__V1__ShareHello share_hello;
typedef Witan__Cluster__V1__Submit submit;
typedef Witan__Cluster__V1__LogprobsWanted wanted;

/* --- hello ------------------------------------------------------------------------------------
 */

/* What two models of one name are told apart by, where no manifest says it exactly. */
static void put_shape(const struct model_config *m, char out[SHARE_MAX_TEXT])
{
    snprintf(out, SHARE_MAX_TEXT,
             "%d layers of width %d, %d query and %d KV heads of %d, %d experts, %d a token, "
             "vocabulary %d",
             m->layers, m->hidden, m->q_heads, m->kv_heads, m->head_dim, m->experts, m->top_k,
             m->vocab);
}

void share_hello_fill(const struct core *core, share_hello *out, char shape[SHARE_MAX_TEXT])
{
    const struct served *s = &core->served;
    witan__cluster__v1__share_hello__init(out);
    put_shape(&s->config, shape);
    out->protocol_version = CLUSTER_PROTOCOL_VERSION;
    out->protocol_oldest = CLUSTER_PROTOCOL_OLDEST;
    out->software_version = WITAN_VERSION;
    out->epoch = core->epoch;
    out->model_name = (char *)s->name; /* packed, not changed; so are the others */
    if (s->manifest)
        out->manifest_digest = (char *)manifest_digest(s->manifest);
    out->model_shape = shape;
    out->vocab_limit = s->vocab;
    out->weights = (char *)weight_mode_name(s->weights);
    out->kv_dtype = core->config->limits.kv;
    out->context = s->context;
    out->device = core->config->model.device;
}

static enum status differs(const char *field, const char *here, const char *there,
                           struct error *err)
{
    return error_set(err, ERR_CONFLICT,
                     "%s: the coordinator that was dialled has \"%.200s\", the one that dials "
                     "\"%.200s\": coordinators that share groups must give equal answers: give "
                     "both the same, and start the one that is wrong again",
                     field, *here ? here : "none", *there ? there : "none");
}

static enum status same_number(const char *field, int32_t here, int32_t there, struct error *err)
{
    char a[16], b[16];
    snprintf(a, sizeof a, "%d", here);
    snprintf(b, sizeof b, "%d", there);
    return here == there ? OK : differs(field, a, b, err);
}

enum status share_hello_check(const struct core *core, const share_hello *h, struct error *err)
{
    char shape[SHARE_MAX_TEXT];
    share_hello own;
    uint32_t oldest = h->protocol_oldest ? h->protocol_oldest : h->protocol_version;
    share_hello_fill(core, &own, shape);
    const struct {
        const char *field, *here, *there;
    } texts[] = {
        {"model.name", own.model_name, h->model_name},
        {"model.manifest (SHA-256)", own.manifest_digest, h->manifest_digest},
        {"the model's config.json", own.model_shape, h->model_shape},
        {"model.weights", own.weights, h->weights},
        {"model.device", own.device, h->device},
        {"limits.kv", own.kv_dtype, h->kv_dtype},
    };
    if (h->protocol_version < CLUSTER_PROTOCOL_OLDEST || oldest > CLUSTER_PROTOCOL_VERSION)
        return error_set(err, ERR_CONFLICT,
                         "the coordinator that dials (witan %.40s) speaks protocol version %u, the "
                         "one that was dialled (witan %s) %d to %d: install releases next to each "
                         "other",
                         h->software_version, h->protocol_version, WITAN_VERSION,
                         (int)CLUSTER_PROTOCOL_OLDEST, (int)CLUSTER_PROTOCOL_VERSION);
    if (h->epoch == core->epoch)
        return error_set(err, ERR_CONFLICT,
                         "peers: a coordinator dials itself: leave its own address out");
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        if (strcmp(texts[i].here, texts[i].there) != 0)
            return differs(texts[i].field, texts[i].here, texts[i].there, err);
    TRY(same_number("the tokenizer's vocabulary", own.vocab_limit, h->vocab_limit, err));
    return same_number("limits.context", own.context, h->context, err);
}

/* --- submit -----------------------------------------------------------------------------------
 */

/* 1 + top as generation_params have it; what does not fit stays out of bounds. */
static int32_t wanted_of(const wanted *w)
{
    return !w ? 0 : w->top < 0 || w->top > SAMPLING_MAX_LOGPROBS ? -1 : w->top + 1;
}

/* The same: a kind that this release does not know is none that it has. */
static struct constraint constraint_of(const Witan__Cluster__V1__Constraint *c)
{
    bool known = c && (int)c->kind >= 0 && (int)c->kind < CONSTRAINT_KINDS &&
                 (int)c->thought >= 0 && (int)c->thought < CONSTRAINT_THOUGHTS;
    if (!c)
        return (struct constraint){0};
    known = known && c->text.len <= CONSTRAINT_MAX_TEXT && c->heads <= CONSTRAINT_MAX_HEADS;
    return (struct constraint){.kind = known ? (enum constraint_kind)c->kind : CONSTRAINT_KINDS,
                               .thought = known ? (enum constraint_thought)c->thought : 0,
                               .text = c->text.len > 0 ? (const char *)c->text.data : NULL,
                               .text_len = known ? (uint32_t)c->text.len : 0,
                               .heads = known ? (uint16_t)c->heads : 0};
}

/* More ids than there may be are none that generation_check lets pass. */
static struct thinking thinking_of(const Witan__Cluster__V1__Thinking *t)
{
    struct thinking out = {0};
    if (!t)
        return out;
    bool fits = t->n_ids > 0 && t->n_ids <= THINKING_MAX_END;
    out.count = fits ? (int32_t)t->n_ids : -1;
    out.most = t->most;
    out.open = t->open;
    out.close = t->close;
    out.inside = t->inside;
    if (fits)
        memcpy(out.ids, t->ids, t->n_ids * sizeof *t->ids);
    return out;
}

static enum status check_sampling_arrays(const Witan__Cluster__V1__Sampling *s, struct error *err)
{
    if (s->n_bias_ids != s->n_biases || s->n_bias_ids > SAMPLING_MAX_BIASES)
        return error_set(err, ERR_INVALID,
                         "logit_bias: expected as many biases as ids, at most %d, found %zu and "
                         "%zu",
                         (int)SAMPLING_MAX_BIASES, s->n_biases, s->n_bias_ids);
    if (s->n_stop_ids > SAMPLING_MAX_STOP_IDS)
        return error_set(err, ERR_INVALID, "stop_token_ids: expected at most %d, found %zu",
                         (int)SAMPLING_MAX_STOP_IDS, s->n_stop_ids);
    return OK;
}

/* What an attempt on another group has told. */
static enum status check_answer(const struct core *core, const submit *q, struct error *err)
{
    if (q->n_answer > 0 && (int64_t)q->n_answer >= q->max_tokens)
        return error_set(err, ERR_INVALID, "answer: expected fewer than max_tokens, %d, found %zu",
                         q->max_tokens, q->n_answer);
    for (size_t i = 0; i < q->n_answer; i++)
        if (q->answer[i] < 0 || q->answer[i] >= core->served.vocab)
            return error_set(err, ERR_INVALID,
                             "answer[%zu]: expected a token id from 0 to %d, found %d", i,
                             core->served.vocab - 1, q->answer[i]);
    if (q->prompt_told < 0 || (size_t)q->prompt_told > q->n_prompt)
        return error_set(err, ERR_INVALID, "prompt_told: expected 0 to %zu, found %d", q->n_prompt,
                         q->prompt_told);
    return OK;
}

static void fill_params(const submit *q, struct logit_bias *bias, struct generation_params *p)
{
    const Witan__Cluster__V1__Sampling *s = q->sampling;
    for (size_t i = 0; i < s->n_bias_ids; i++)
        bias[i] = (struct logit_bias){s->bias_ids[i], s->biases[i]};
    *p = (struct generation_params){
        .prompt = q->prompt,
        .prompt_len = (int32_t)q->n_prompt,
        .max_tokens = q->max_tokens,
        .prompt_only = q->max_tokens == 0,
        .default_max_tokens = true, /* the peer has cut it, and min_tokens may be beyond */
        .sampling = {.temperature = s->temperature,
                     .top_p = s->top_p,
                     .min_p = s->min_p,
                     .top_k = s->top_k,
                     .seed = s->seed},
        .shaping = {.repetition_penalty = s->repetition_penalty,
                    .presence_penalty = s->presence_penalty,
                    .frequency_penalty = s->frequency_penalty,
                    .min_tokens = s->min_tokens,
                    .bias_count = (int32_t)s->n_bias_ids,
                    .bias = bias,
                    .stop_id_count = (int32_t)s->n_stop_ids,
                    .stop_ids = s->stop_ids},
        .constraint = constraint_of(q->constraint),
        .thinking = thinking_of(q->thinking),
        .ignore_eos = q->ignore_eos,
        .logprobs = wanted_of(q->logprobs),
        .prompt_logprobs = wanted_of(q->prompt_logprobs),
        .priority = q->priority,
    };
}

enum status share_submit_check(const struct core *core, const submit *q, struct error *err)
{
    struct logit_bias bias[SAMPLING_MAX_BIASES];
    struct generation_params p;
    if (!q->sampling)
        return error_set(err, ERR_INVALID, "sampling: expected it, found none");
    if (q->n_prompt > (size_t)core->served.context || q->max_tokens > core->served.context ||
        (int64_t)q->n_prompt + q->max_tokens > core->served.context)
        return error_set(err, ERR_LIMIT,
                         "context: prompt and max_tokens: expected at most %d together, found %zu "
                         "and %d",
                         core->served.context, q->n_prompt, q->max_tokens);
    TRY(check_sampling_arrays(q->sampling, err));
    fill_params(q, bias, &p);
    TRY(generation_check(core, &p, err));
    return check_answer(core, q, err);
}
