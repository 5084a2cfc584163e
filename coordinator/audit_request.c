/* What the audit log says of requests, groups and ranks: see audit_request.h. No state. */
#include "coordinator/audit_request.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/members_private.h"
#include "proto/versions.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static json_t *text_or_null(const char *s)
{
    return s && *s ? json_string(s) : json_null();
}

static json_t *manifest_of(const struct core *core)
{
    const struct manifest *m = core->served.manifest;
    return m ? json_string(manifest_digest(m)) : json_null();
}

/* --- the log ----------------------------------------------------------------------------------
 */

static void run_wake(void *arg)
{
    struct core *core = arg;
    audit_awake(core->audit);
    core->audited(core);
}

/* On the writer's thread. A loop that takes nothing more looks by itself each second. */
static void post_wake(void *arg)
{
    struct core *core = arg;
    struct error ignored;
    loop_post(core->loop, run_wake, core, &ignored);
}

enum status audit_start(struct core *core, void (*audited)(struct core *core), struct error *err)
{
    const struct config *c = core->config;
    if (!c->audit.file)
        return OK;
    core->audited = audited;
    bool go_on = strcmp(c->audit.on_error, "continue") == 0;
    const struct audit_options o = {
        .file = c->audit.file,
        .key = c->audit.key,
        .heads = c->audit.heads,
        .hmac_key = c->audit.hmac_key,
        .name = c->name,
        .head_s = c->audit.head_s,
        .on_error = go_on ? AUDIT_CONTINUE : AUDIT_REFUSE,
        .wake = post_wake,
        .wake_arg = core,
    };
    char host[256] = "", epoch[24];
    TRY(audit_open(&o, &core->audit, err));
    gethostname(host, sizeof host - 1);
    snprintf(epoch, sizeof epoch, "%016llx", (unsigned long long)core->epoch);
    const struct manifest *m = core->served.manifest;
    audit_event(core->audit, "start",
                json_pack("{s:s, s:s, s:s, s:i, s:s, s:o, s:o, s:s, s:o}", "coordinator", c->name,
                          "epoch", epoch, "host", host, "pid", (int)getpid(), "model",
                          core->served.name, "manifest", manifest_of(core), "signers",
                          m ? json_string(manifest_signers(m)) : json_null(), "version",
                          WITAN_VERSION, "region", text_or_null(c->region)));
    return OK;
}

/* --- where ------------------------------------------------------------------------------------
 */

/* The regions of a group's ranks, each once. */
static json_t *regions_of(const struct group *g)
{
    json_t *list = json_array();
    for (int32_t i = 0; i < group_world(g); i++) {
        const char *region = g->ranks[i] && g->ranks[i]->hello ? g->ranks[i]->hello->region : NULL;
        bool there = !region;
        for (size_t k = 0; !there && k < json_array_size(list); k++)
            there = strcmp(json_string_value(json_array_get(list, k)), region) == 0;
        if (!there)
            json_array_append_new(list, json_string(region));
    }
    return list;
}

/* Adds group, layout, regions and through; nulls where no group has it. */
static void put_group(json_t *fields, const struct group *g)
{
    char layout[80] = "";
    if (g) {
        const struct layout *l = &g->deployment.plan->layout;
        snprintf(layout, sizeof layout, "pp=%d tp=%d ep=%d w=%d", l->pp, l->tp, l->ep, l->w);
    }
    json_object_set_new(fields, "group", text_or_null(g ? g->config->name : NULL));
    json_object_set_new(fields, "layout", text_or_null(layout));
    json_object_set_new(fields, "regions", g && !g->via ? regions_of(g) : json_null());
    json_object_set_new(fields, "through",
                        text_or_null(g && g->via ? share_address(g->via) : NULL));
}

/* --- requests ---------------------------------------------------------------------------------
 */

static json_t *sampling_of(const struct generation_params *p)
{
    const struct sampling *s = &p->sampling;
    const struct shaping *h = &p->shaping;
    return json_pack("{s:f, s:f, s:f, s:i, s:f, s:f, s:f, s:i, s:i, s:i}", "temperature",
                     (double)s->temperature, "top_p", (double)s->top_p, "min_p", (double)s->min_p,
                     "top_k", s->top_k, "repetition_penalty", (double)h->repetition_penalty,
                     "presence_penalty", (double)h->presence_penalty, "frequency_penalty",
                     (double)h->frequency_penalty, "min_tokens", h->min_tokens, "logit_bias",
                     h->bias_count, "stop_token_ids", h->stop_id_count);
}

static const char *form_of(const struct generation_params *p)
{
    return p->constraint.kind == CONSTRAINT_NONE          ? "none"
           : p->constraint.kind == CONSTRAINT_JSON_OBJECT ? "json_object"
                                                          : "call";
}

static json_t *hmac_of(const struct core *core, const char *what, const int32_t *ids, int32_t count)
{
    char hex[65];
    return audit_hmac_ids(core->audit, what, ids, count, hex) ? json_string(hex) : json_null();
}

static json_t *asked(const struct core *core, const struct generation_params *p,
                     const struct journal *j)
{
    char seed[24], tenant[24];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)p->sampling.seed);
    snprintf(tenant, sizeof tenant, "%016llx", (unsigned long long)p->tenant);
    const struct request_origin *o = &p->origin;
    return json_pack(
        "{s:o, s:o, s:i, s:s, s:s, s:b, s:o, s:o, s:i, s:s, s:i, s:b, s:i, s:o, s:i, s:s, s:o, s:i,"
        " s:s, s:i}",
        "api", text_or_null(o->api), "door", text_or_null(o->door), "choice", o->choice, "class",
        j->class, "form", form_of(p), "ignore_eos", p->ignore_eos, "key", text_or_null(o->key),
        "manifest", manifest_of(core), "max_tokens", j->max_tokens, "model", core->served.name,
        "priority", p->priority, "prompt_only", p->prompt_only, "prompt_tokens", p->prompt_len,
        "request", text_or_null(o->request), "resumed_after", p->after.tokens, "seed", seed,
        "sampling", sampling_of(p), "stop", p->stop_count, "tenant", tenant, "thinking_budget",
        p->thinking_budget);
}

uint64_t audit_request_start(const struct core *core, uint64_t id,
                             const struct generation_params *params, const struct journal *j,
                             const struct group *group)
{
    char name[48];
    if (!core->audit)
        return 0;
    json_t *f = asked(core, params, j);
    if (f) {
        core_request_id(core, id, name);
        json_object_set_new(f, "id", json_string(name));
        json_object_set_new(f, "hmac_prompt",
                            hmac_of(core, "prompt", params->prompt, params->prompt_len));
        put_group(f, group);
    }
    return audit_event(core->audit, "request_start", f);
}

void audit_request_moved(const struct core *core, uint64_t id, const struct group *group,
                         const char *why)
{
    char name[48];
    if (!core->audit)
        return;
    core_request_id(core, id, name);
    json_t *f = json_pack("{s:s, s:s}", "id", name, "why", why);
    if (f)
        put_group(f, group);
    audit_event(core->audit, "request_moved", f);
}

static json_t *ms_or_null(int64_t from_ns, int64_t to_ns)
{
    return to_ns > 0 ? json_integer((to_ns - from_ns) / 1000000) : json_null();
}

void audit_request_end(const struct core *core, const struct audit_ended *e)
{
    static const char *const outcomes[] = {
#define X(name, words) [METRICS_##name] = words,
        METRICS_ENDS(X)
#undef X
    };
    char name[48];
    const struct generation_end *end = e->end;
    if (!core->audit)
        return;
    core_request_id(core, end->id, name);
    bool failed = e->how == METRICS_FAILED || e->how == METRICS_TIMED_OUT;
    json_t *f = json_pack(
        "{s:i, s:i, s:s, s:i, s:i, s:o, s:o, s:s, s:o, s:i, s:i, s:o}", "cached_tokens",
        end->cached_tokens, "completion_tokens", end->completion_tokens, "id", name, "failovers",
        (int)e->failovers, "moves", (int)e->moves, "hmac_output",
        hmac_of(core, "output", e->journal->answer, e->journal->answer_len), "joules",
        e->joules >= 0 ? json_real(e->joules) : json_null(), "outcome", outcomes[e->how], "error",
        failed ? json_string(status_name(end->err.code)) : json_null(), "prompt_tokens",
        end->prompt_tokens, "reasoning_tokens", end->reasoning_tokens, "first_token_ms",
        ms_or_null(e->began_ns, e->first_ns));
    if (f) {
        json_object_set_new(f, "class", json_string(e->journal->class));
        json_object_set_new(f, "milliseconds", ms_or_null(e->began_ns, clock_now_ns()));
        put_group(f, e->group);
    }
    audit_event(core->audit, "request_end", f);
}

/* --- ranks and operators ----------------------------------------------------------------------
 */

void audit_rank(const struct core *core, const char *kind, const struct member *r, const char *why)
{
    if (!core->audit || !r->hello || !r->group)
        return;
    const Witan__Cluster__V1__Hello *h = r->hello;
    json_t *f = json_pack(
        "{s:s, s:i, s:s, s:I, s:o, s:s, s:s, s:o}", "group", r->group->config->name, "rank",
        (int)h->rank, "host", h->host, "pid", (json_int_t)h->pid, "region", text_or_null(h->region),
        "class", h->numerics_class, "version", h->software_version, "why", text_or_null(why));
    if (f && r->ready) {
        json_object_set_new(f, "manifest", text_or_null(r->ready->manifest_digest));
        json_object_set_new(f, "reattached", json_boolean(r->ready->reattached));
    }
    audit_event(core->audit, kind, f);
}

void audit_admin(const struct core *core, const char *action, const char *target, const char *key,
                 bool force, const char *why)
{
    if (!core->audit)
        return;
    audit_event(core->audit, "admin",
                json_pack("{s:s, s:s, s:o, s:b, s:b, s:o}", "action", action, "group", target,
                          "key", text_or_null(key), "force", force, "done", why == NULL, "error",
                          text_or_null(why)));
}
