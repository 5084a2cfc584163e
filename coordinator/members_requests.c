/* What groups are asked and what they answer, between generations and the protocol: see
 * members_private.h. */
#include "base/check.h"
#include "coordinator/members_private.h"

#include <math.h>
#include <stdlib.h>

/* --- asking -----------------------------------------------------------------------------------
 */

static void fill_sampling(struct submit_parts *p, const struct sampling *s, const struct shaping *h)
{
    Witan__Cluster__V1__Sampling *out = &p->sampling;
    witan__cluster__v1__sampling__init(out);
    out->temperature = s->temperature;
    out->top_p = s->top_p;
    out->min_p = s->min_p;
    out->top_k = s->top_k;
    out->seed = s->seed;
    out->repetition_penalty = h->repetition_penalty;
    out->presence_penalty = h->presence_penalty;
    out->frequency_penalty = h->frequency_penalty;
    out->min_tokens = h->min_tokens;
    for (int32_t i = 0; i < h->bias_count; i++) {
        p->bias_ids[i] = h->bias[i].id;
        p->biases[i] = h->bias[i].bias;
    }
    out->bias_ids = p->bias_ids;
    out->biases = p->biases;
    out->n_bias_ids = out->n_biases = (size_t)h->bias_count;
    out->stop_ids = (int32_t *)h->stop_ids; /* packed, not changed */
    out->n_stop_ids = (size_t)h->stop_id_count;
}

static Witan__Cluster__V1__LogprobsWanted *fill_logprobs(Witan__Cluster__V1__LogprobsWanted *out,
                                                         int32_t wanted)
{
    witan__cluster__v1__logprobs_wanted__init(out);
    out->top = wanted - 1;
    return wanted > 0 ? out : NULL;
}

void submit_fill(struct submit_parts *p, const struct journal *j, int64_t now_ns)
{
    const struct generation_params *params = &j->params;
    int64_t left_ms = journal_left_ms(j, now_ns);
    Witan__Cluster__V1__Submit *out = &p->submit;
    witan__cluster__v1__submit__init(out);
    fill_sampling(p, &params->sampling, &params->shaping);
    out->prompt = (int32_t *)params->prompt; /* packed, not changed */
    out->n_prompt = (size_t)params->prompt_len;
    out->sampling = &p->sampling;
    out->ignore_eos = params->ignore_eos;
    out->tenant = params->tenant;
    out->prefix_domain = params->prefix_domain;
    out->priority = params->priority;
    out->deadline_ms = left_ms < 0 ? 1 : (uint32_t)left_ms;
    out->max_tokens = j->max_tokens;
    out->answer = j->answer;
    out->n_answer = (size_t)j->answer_len;
    /* A first attempt has nothing behind it; prompts are told from their second token on. */
    out->prompt_told = j->prompt_told > 1 ? j->prompt_told : 0;
    if (params->constraint.kind != CONSTRAINT_NONE) {
        witan__cluster__v1__constraint__init(&p->constraint);
        p->constraint.kind = (Witan__Cluster__V1__ConstraintKind)params->constraint.kind;
        p->constraint.thought = (Witan__Cluster__V1__Thought)params->constraint.thought;
        p->constraint.text.data = (uint8_t *)params->constraint.text; /* packed, not changed */
        p->constraint.text.len = params->constraint.text_len;
        p->constraint.heads = params->constraint.heads;
        out->constraint = &p->constraint;
    }
    if (params->thinking.count > 0) {
        const struct thinking *t = &params->thinking;
        witan__cluster__v1__thinking__init(&p->thinking);
        p->thinking.most = t->most;
        p->thinking.inside = t->inside;
        p->thinking.open = t->open;
        p->thinking.close = t->close;
        p->thinking.ids = (int32_t *)t->ids; /* packed, not changed */
        p->thinking.n_ids = (size_t)t->count;
        out->thinking = &p->thinking;
    }
    out->logprobs = fill_logprobs(&p->logprobs, params->logprobs);
    out->prompt_logprobs = fill_logprobs(&p->prompt_logprobs, params->prompt_logprobs);
}

/* --- answers ----------------------------------------------------------------------------------
 */

const char *tokens_wrong(const Witan__Cluster__V1__SequenceTokens *s)
{
    if (s->position < 0)
        return "position: expected 0 or more";
    if (s->n_logprobs != 0 && s->n_logprobs != s->n_ids)
        return "logprobs: expected one for each of ids";
    if (s->cached_tokens < 0)
        return "cached_tokens: expected 0 or more";
    if (s->metered && !(s->joules >= 0 && s->joules <= 1e15))
        return "joules: expected 0 to 1e15";
    if (s->n_prompt_logprobs > 0 && s->prompt_position < 1)
        return "prompt_position: expected 1 or more";
    for (size_t i = 0; i < s->n_logprobs + s->n_prompt_logprobs; i++) {
        const Witan__Cluster__V1__TokenLogprobs *l = i < s->n_logprobs
                                                         ? s->logprobs[i]
                                                         : s->prompt_logprobs[i - s->n_logprobs];
        if (l->n_top_ids != l->n_top_logprobs || l->n_top_ids > SAMPLING_MAX_LOGPROBS)
            return "logprobs: expected as many top_logprobs as top_ids, at most 20";
        if (isnan(l->logprob))
            return "logprobs: expected numbers";
    }
    return NULL;
}

static void plain_logprobs(Witan__Cluster__V1__TokenLogprobs *const *in, size_t count,
                           struct token_logprobs *out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (struct token_logprobs){
            .logprob = in[i]->logprob,
            .rank = in[i]->rank,
            .count = (int32_t)in[i]->n_top_ids,
            .top_ids = in[i]->top_ids,
            .top_logprobs = in[i]->top_logprobs,
        };
}

bool tokens_tell(struct core *core, const Witan__Cluster__V1__SequenceTokens *s)
{
    size_t count = s->n_logprobs + s->n_prompt_logprobs;
    struct token_logprobs *l = count > 0 ? check_calloc(count, sizeof *l) : NULL;
    bool late = s->finish == WITAN__CLUSTER__V1__FINISH__FINISH_DEADLINE;
    struct drawn d = {
        .id = s->request_id,
        .epoch = s->epoch,
        .attempt = s->attempt,
        .position = s->position,
        .ids = s->ids,
        .count = (int32_t)s->n_ids,
        .logprobs = s->n_logprobs > 0 ? l : NULL,
        .prompt_logprobs = s->n_prompt_logprobs > 0 ? l + s->n_logprobs : NULL,
        .prompt_position = s->prompt_position,
        .prompt_count = (int32_t)s->n_prompt_logprobs,
        .cached_tokens = s->cached_tokens,
        .stopped = s->finish == WITAN__CLUSTER__V1__FINISH__FINISH_STOP,
        .full = s->finish == WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH,
        .failed = s->finish == WITAN__CLUSTER__V1__FINISH__FINISH_ERROR ||
                  s->finish == WITAN__CLUSTER__V1__FINISH__FINISH_CANCELLED || late,
        .late = late,
        .metered = s->metered,
        .joules = s->joules,
        .error = late ? "deadline: the answer was not done in its time" : s->error,
    };
    if (count > 0) {
        plain_logprobs(s->logprobs, s->n_logprobs, l);
        plain_logprobs(s->prompt_logprobs, s->n_prompt_logprobs, l + s->n_logprobs);
    }
    bool taken = generation_tokens(core, &d);
    free(l);
    return taken;
}
