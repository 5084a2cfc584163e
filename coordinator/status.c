/* What `witan status` shows: the groups of a GetStatusResponse (members.h). */
#include "base/check.h"
#include "base/clock.h"
#include "coordinator/members_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* protobuf-c frees what is not its own empty string. */
static char *text(const char *fmt, ...)
{
    char *out = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&out, fmt, ap);
    va_end(ap);
    CHECK(n >= 0, "no memory");
    return out;
}

static double seconds_since(int64_t ns)
{
    return (double)(clock_now_ns() - ns) * 1e-9;
}

static int put_range(char *out, size_t size, const char *what, struct range r)
{
    if (range_size(r) == 0)
        return snprintf(out, size, "%s none, ", what);
    return snprintf(out, size, "%s %d-%d, ", what, r.begin, r.end - 1);
}

static char *holds(const struct rank_plan *p)
{
    char line[512];
    size_t n = 0;
    n += (size_t)put_range(line + n, sizeof line - n, "layers", p->layers);
    n += (size_t)put_range(line + n, sizeof line - n, "query heads", p->q_heads);
    n += (size_t)put_range(line + n, sizeof line - n, "KV heads", p->kv_heads);
    n += (size_t)put_range(line + n, sizeof line - n, "experts", p->experts);
    n += (size_t)put_range(line + n, sizeof line - n, "expert columns", p->moe_cols);
    n += (size_t)put_range(line + n, sizeof line - n, "vocabulary", p->vocab);
    line[n - 2] = '\0';
    return text("%s", line);
}

static void put_memory(const struct member *r, Witan__Inference__V1__Rank *out)
{
    size_t n = r->ready ? r->ready->n_memory : 0;
    n = n < MEMBERS_MAX_PURPOSES ? n : MEMBERS_MAX_PURPOSES;
    out->memory = n ? check_calloc(n, sizeof *out->memory) : NULL;
    for (size_t i = 0; i < n; i++) {
        out->memory[i] = check_calloc(1, sizeof **out->memory);
        witan__inference__v1__purpose__init(out->memory[i]);
        out->memory[i]->name = text("%.60s", r->ready->memory[i]->name);
        out->memory[i]->bytes = r->ready->memory[i]->bytes;
    }
    out->n_memory = n;
    out->resident_bytes = r->ready ? r->ready->resident_bytes : 0;
}

static void put_device(const Witan__Cluster__V1__Device *d, Witan__Inference__V1__Rank *out)
{
    if (!d)
        return;
    out->device = check_calloc(1, sizeof *out->device);
    witan__inference__v1__device__init(out->device);
    out->device->name = text("%s", d->name);
    out->device->compute_capability = text("%u.%u", d->major, d->minor);
    out->device->memory_bytes = d->memory_bytes;
    out->device->cuda_driver = text("%u.%u", d->cuda_driver / 1000, d->cuda_driver % 1000 / 10);
    out->device->uuid = text("%s", d->uuid);
    out->device->pci = text("%s", d->pci);
}

static void put_rank(const struct member *r, const struct rank_plan *p,
                     Witan__Inference__V1__Rank *out)
{
    const Witan__Cluster__V1__Hardware *hw = r->hello->hardware;
    out->rank = r->hello->rank;
    out->host = text("%s", r->hello->host);
    out->pid = r->hello->pid;
    out->region = text("%s", r->hello->region);
    out->phase = text("%s", phase_name(r->phase));
    out->step = r->step;
    out->slowness = r->slow.ratio;
    out->heartbeat_seconds_ago = seconds_since(r->heartbeat_ns);
    out->processor = text("%s", hw ? hw->processor : "");
    out->kernels = text("%s", hw ? hw->kernels : "");
    out->holds = holds(p);
    out->manifest_digest = text("%s", r->ready ? r->ready->manifest_digest : "");
    put_memory(r, out);
    put_device(hw ? hw->device : NULL, out);
    gpu_put(&r->gpu, out);
}

/* Of rank 0's last heartbeat; nothing while there is none. */
static void put_engine(const struct group *g, Witan__Inference__V1__Group *out)
{
    const Witan__Cluster__V1__Engine *e = g->ranks[0] ? g->ranks[0]->engine : NULL;
    if (!e)
        return;
    out->kv_blocks_cached = e->kv_blocks_cached;
    out->preempted = e->preempted;
    if (e->prefix_asked > 0)
        out->prefix_hit_rate = (double)e->prefix_found / (double)e->prefix_asked;
}

static void put_experts(const struct group *g, Witan__Inference__V1__Group *out)
{
    struct experts_summary s;
    experts_summary(&g->experts, g->deployment.plan, clock_now_ns(), &s);
    if (!s.enough)
        return;
    out->experts = check_calloc(1, sizeof *out->experts);
    witan__inference__v1__expert_use__init(out->experts);
    out->experts->mean = s.mean;
    out->experts->worst = s.worst;
    out->experts->worst_layer = (uint32_t)s.worst_layer;
    out->experts->worst_expert = (uint32_t)s.worst_expert;
    out->experts->shares = s.shares;
}

static void put_energy(const struct group *g, Witan__Inference__V1__Group *out)
{
    const struct joules *j = &g->joules;
    if (!j->any)
        return;
    out->energy = check_calloc(1, sizeof *out->energy);
    witan__inference__v1__energy__init(out->energy);
    out->energy->all = j->all;
    out->energy->requests = j->requests;
    out->energy->idle = j->idle;
    out->energy->other = j->other;
    out->energy->pending = j->pending;
    out->energy->known = joules_known(j);
}

/* What its message says no longer when it is ready again. */
static void put_losses(const struct group *g, Witan__Inference__V1__Group *out)
{
    out->losses = g->losses;
    out->failed_starts = g->failed_starts;
    out->last_loss = text("%s", g->last_loss);
    out->last_loss_seconds_ago = g->last_loss_ns ? seconds_since(g->last_loss_ns) : -1;
}

/* Where others start the ranks, that is what it waits for; why it was lost is told besides. */
static char *message(const struct group *g)
{
    bool told = !*g->message || strcmp(g->message, g->last_loss) == 0;
    if (!g->config->external || g->state != GROUP_WAITING)
        return text("%s", g->message);
    return text("%s%sits ranks are started elsewhere: %d of %d are there", told ? "" : g->message,
                told ? "" : ": ", g->attached, group_world(g));
}

static void put_group(const struct group *g, Witan__Inference__V1__Group *out)
{
    const struct layout *l = &g->deployment.plan->layout;
    out->name = text("%s", g->config->name);
    bool draining = g->state == GROUP_READY && !group_takes_new(g);
    out->state = text("%s", draining ? "draining" : group_state_name(g->state));
    out->message = message(g);
    out->layout = text("pp=%d tp=%d ep=%d w=%d", l->pp, l->tp, l->ep, l->w);
    out->numerics_class = text("%s", g->ranks[0] || g->via ? g->class : "");
    out->through = text("%s", g->via ? share_address(g->via) : "");
    out->running = g->running;
    out->waiting = g->waiting;
    out->kv_blocks_free = g->kv_blocks_free;
    out->kv_blocks = g->kv_blocks;
    out->tokens = g->tokens;
    out->requests = (uint32_t)g->active;
    out->drained = g->drained;
    out->restarting = g->restart != RESTART_NONE;
    out->times_ready = g->times_ready;
    out->waiting_tokens = (uint64_t)backlog_tokens(&g->backlog);
    out->wait_seconds = backlog_wait_s(&g->backlog, 0, clock_now_ns());
    put_engine(g, out);
    put_experts(g, out);
    put_energy(g, out);
    put_losses(g, out);
    out->proven_seconds_ago = g->proven_ns ? seconds_since(g->proven_ns) : -1;
    out->ranks = check_calloc((size_t)group_world(g), sizeof(Witan__Inference__V1__Rank *));
    for (int32_t i = 0; i < group_world(g); i++) {
        if (!g->ranks[i])
            continue;
        Witan__Inference__V1__Rank *r = check_calloc(1, sizeof *r);
        witan__inference__v1__rank__init(r);
        put_rank(g->ranks[i], &g->deployment.plan->ranks[i], r);
        out->ranks[out->n_ranks++] = r;
    }
}

void members_status(const struct members *m, Witan__Inference__V1__GetStatusResponse *out)
{
    out->groups = check_calloc(m->count, sizeof(Witan__Inference__V1__Group *));
    for (uint32_t i = 0; i < m->count; i++) {
        out->groups[i] = check_calloc(1, sizeof(Witan__Inference__V1__Group));
        witan__inference__v1__group__init(out->groups[i]);
        put_group(&m->groups[i], out->groups[i]);
    }
    out->n_groups = m->count;
}
