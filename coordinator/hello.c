/*
 * What a rank that attaches says and is told: its hello, whether it may attach, and its plan. On
 * the loop thread; no state.
 */
#include "base/check.h"
#include "base/log.h"
#include "coordinator/members_private.h"
#include "proto/pki.h"
#include "proto/versions.h"

#include <stdio.h>
#include <string.h>

typedef Witan__Cluster__V1__CoordinatorMessage coordinator_message;

void plain_text(char *s, size_t size)
{
    for (size_t i = 0; s[i]; i++) {
        if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
            s[i] = '?';
        if (i == size - 1)
            s[i] = '\0';
    }
}

void member_plain_hello(Witan__Cluster__V1__Hello *h)
{
    char *const texts[] = {h->software_version, h->group, h->host, h->region, h->numerics_class};
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        plain_text(texts[i], MEMBERS_MAX_WORD);
    if (h->hardware) {
        plain_text(h->hardware->processor, MEMBERS_MAX_WORD);
        plain_text(h->hardware->kernels, MEMBERS_MAX_WORD);
    }
    if (h->hardware && h->hardware->device) {
        plain_text(h->hardware->device->name, MEMBERS_MAX_WORD);
        plain_text(h->hardware->device->uuid, MEMBERS_MAX_WORD);
        plain_text(h->hardware->device->pci, MEMBERS_MAX_WORD);
    }
}

struct group *members_find(struct members *m, const char *name)
{
    for (uint32_t i = 0; i < m->count; i++)
        if (strcmp(m->groups[i].config->name, name) == 0)
            return &m->groups[i];
    return NULL;
}

/* All groups answer under one name, so all ranks must compute the same bits. */
static bool right_class(struct member *r, const Witan__Cluster__V1__Hello *h)
{
    const struct members *m = r->members;
    bool gpu = h->hardware && h->hardware->device, wanted = config_cuda(m->core->config);
    const char *expected = wanted ? NUMERICS_CLASS_CUDA : NUMERICS_CLASS_CPU;
    size_t same = wanted ? strlen(expected) : strlen(expected) + 1;
    if (gpu != wanted) {
        member_refuse(
            r, RPC_FAILED_PRECONDITION,
            "rank %u computes on %s, and model.device is %s: start witan-worker with --device "
            "%s, or change model.device",
            h->rank, gpu ? "a GPU" : "its processor", m->core->config->model.device,
            m->core->config->model.device);
        return false;
    }
    if (strncmp(h->numerics_class, expected, same) != 0) {
        member_refuse(r, RPC_FAILED_PRECONDITION, "numerics class %s: this coordinator serves %s",
                      h->numerics_class, expected);
        return false;
    }
    for (const struct member *other = m->open; other; other = other->next)
        if (other->hello && strcmp(other->hello->numerics_class, h->numerics_class) != 0) {
            member_refuse(
                r, RPC_FAILED_PRECONDITION,
                "numerics class %s: rank %u of group %s has %s, and one model is served in one "
                "class: give all groups GPUs of the same compute capability",
                h->numerics_class, other->hello->rank, other->hello->group,
                other->hello->numerics_class);
            return false;
        }
    return true;
}

/* What answers are told to have been computed by. */
static void class_of(const struct group *g, const Witan__Cluster__V1__Hello *h, char out[64])
{
    static const char *const kept[] = {[KV_BF16] = "", [KV_F32] = "-kv32", [KV_INT8] = "-kv8"};
    const struct served *s = &g->members->core->served;
    bool published = s->weights == WEIGHTS_PUBLISHED;
    snprintf(out, sizeof g->class, "%.40s%s%s%s", h->numerics_class, published ? "" : "-",
             published ? "" : weight_mode_name(s->weights), kept[g->deployment.limits.kv_dtype]);
}

static void note_class(struct group *g, const Witan__Cluster__V1__Hello *h)
{
    class_of(g, h, g->class);
    memcpy(g->members->core->served.numerics_class, g->class, sizeof g->class);
}

/* Groups that are served through peers count too. */
static bool class_of_peers(struct member *r, const struct group *g,
                           const Witan__Cluster__V1__Hello *h)
{
    const struct members *m = r->members;
    char class[64];
    class_of(g, h, class);
    for (uint32_t i = 0; i < m->count; i++)
        if (m->groups[i].via && strcmp(m->groups[i].class, class) != 0) {
            member_refuse(
                r, RPC_FAILED_PRECONDITION,
                "numerics class %s: group %s, through the coordinator at %s, has %s, and one "
                "model is served in one class",
                class, m->groups[i].config->name, share_address(m->groups[i].via),
                m->groups[i].class);
            return false;
        }
    return true;
}

/* Ranks that wait, loaded, for others of their start: when a new start comes, these will not. The
 * group has served nobody since, so that nothing is lost with those that wait. */
static void give_way(struct group *g, const Witan__Cluster__V1__Hello *h)
{
    if (g->state != GROUP_WAITING || g->incarnation == h->incarnation || h->loaded)
        return;
    for (int32_t i = 0; i < group_world(g); i++)
        if (g->ranks[i] && g->ranks[i]->hello->loaded)
            rpc_finish(g->ranks[i]->call, RPC_FAILED_PRECONDITION,
                       "its group has been started anew meanwhile: this rank ends");
}

struct group *member_admit(struct member *r, const Witan__Cluster__V1__Hello *h)
{
    struct members *m = r->members;
    struct error err;
    uint32_t oldest = h->protocol_oldest ? h->protocol_oldest : h->protocol_version;
    if (h->protocol_version < CLUSTER_PROTOCOL_OLDEST || oldest > CLUSTER_PROTOCOL_VERSION) {
        member_refuse(
            r, RPC_FAILED_PRECONDITION,
            "the rank (witan %s) speaks protocol version %u, this coordinator (witan %s) %d to "
            "%d: install releases next to each other",
            h->software_version, h->protocol_version, WITAN_VERSION, (int)CLUSTER_PROTOCOL_OLDEST,
            (int)CLUSTER_PROTOCOL_VERSION);
        return NULL;
    }
    if (pki_check_worker(r->uris, h->group, h->rank, h->region, &err) != OK) {
        member_refuse(r, RPC_PERMISSION_DENIED, "%s", err.msg);
        return NULL;
    }
    struct group *g = members_find(m, h->group);
    const char *peer = g ? share_elsewhere(m->share, g, h->incarnation, h->rank) : NULL;
    if (!g)
        member_refuse(r, RPC_NOT_FOUND, "this cluster has no group \"%s\"", h->group);
    else if (m->stopping)
        member_refuse(r, RPC_UNAVAILABLE, "the coordinator is stopping");
    else if (h->world != (uint32_t)group_world(g) || h->rank >= h->world)
        member_refuse(r, RPC_FAILED_PRECONDITION,
                      "rank %u of %u attaches, but the layout of group %s has %d ranks", h->rank,
                      h->world, h->group, group_world(g));
    else if (peer)
        member_refuse(r, RPC_UNAVAILABLE,
                      "group %s is served by the coordinator at %s: attach there", h->group, peer);
    else if (g->via || g->state == GROUP_LOST || g->state == GROUP_STOPPING ||
             (g->attached > 0 && g->incarnation != h->incarnation)) {
        give_way(g, h);
        member_refuse(r, RPC_ABORTED, "ranks of an earlier start of group %s have not gone yet",
                      h->group);
    } else if (g->ranks[h->rank])
        member_refuse(r, RPC_ALREADY_EXISTS, "rank %u of group %s is attached already", h->rank,
                      h->group);
    else if (m->core->config->retention.wipe && !h->wipes)
        member_refuse(r, RPC_FAILED_PRECONDITION,
                      "retention.wipe: the rank (witan %s) is of a release that wipes nothing: "
                      "install witan %s there too",
                      h->software_version, WITAN_VERSION);
    else if (right_class(r, h) && class_of_peers(r, g, h)) {
        note_class(g, h);
        return g;
    }
    return NULL;
}

void group_send_elsewhere(struct group *g)
{
    for (int32_t i = 0; g->state == GROUP_WAITING && i < group_world(g); i++) {
        struct member *r = g->ranks[i];
        const char *peer = r ? share_elsewhere(g->members->share, g, g->incarnation, (uint32_t)i)
                             : NULL;
        if (peer)
            member_refuse(r, RPC_UNAVAILABLE,
                          "group %s is served by the coordinator at %s: attach there",
                          g->config->name, peer);
    }
}

static void set_range(Witan__Cluster__V1__Range *out, struct range in)
{
    witan__cluster__v1__range__init(out);
    out->begin = in.begin;
    out->end = in.end;
}

void member_send_plan(struct group *g, struct member *r)
{
    const struct core *core = g->members->core;
    const struct rank_plan *p = &g->deployment.plan->ranks[r->hello->rank];
    const struct layout *l = &g->deployment.plan->layout;
    const struct engine_limits *n = &g->deployment.limits;
    Witan__Cluster__V1__Layout layout = WITAN__CLUSTER__V1__LAYOUT__INIT;
    Witan__Cluster__V1__Limits limits = WITAN__CLUSTER__V1__LIMITS__INIT;
    Witan__Cluster__V1__Slices slices = WITAN__CLUSTER__V1__SLICES__INIT;
    Witan__Cluster__V1__Manifest manifest = WITAN__CLUSTER__V1__MANIFEST__INIT;
    Witan__Cluster__V1__Plan plan = WITAN__CLUSTER__V1__PLAN__INIT;
    Witan__Cluster__V1__Range ranges[7];
    layout.pp = l->pp, layout.tp = l->tp, layout.ep = l->ep, layout.w = l->w;
    limits.max_rows = n->max_rows, limits.max_seqs = n->max_seqs, limits.context = n->context;
    limits.kv_blocks = n->kv_blocks, limits.threads = n->threads;
    limits.kv_f32 = n->kv_dtype == KV_F32, limits.kv_dtype = (int32_t)n->kv_dtype;
    limits.gpu_percent = n->gpu_percent;
    const struct range cuts[] = {p->layers,   p->q_heads,    p->kv_heads, p->experts,
                                 p->moe_cols, p->dense_cols, p->vocab};
    Witan__Cluster__V1__Range **fields[] = {&slices.layers,  &slices.q_heads,  &slices.kv_heads,
                                            &slices.experts, &slices.moe_cols, &slices.dense_cols,
                                            &slices.vocab};
    for (size_t i = 0; i < COUNT_OF(cuts); i++) {
        set_range(&ranges[i], cuts[i]);
        *fields[i] = &ranges[i];
    }
    slices.stage = p->stage;
    plan.model_dir = core->config->model.path;
    plan.model_name = core->config->model.name;
    plan.epoch = core->epoch;
    plan.layout = &layout;
    plan.limits = &limits;
    plan.vocab_limit = core->served.vocab;
    plan.weights = (int32_t)core->served.weights;
    plan.chunk = core->config->limits.chunk;
    plan.kernels = core->config->limits.kernels;
    plan.stall_ms = (uint32_t)core->config->limits.stall_ms;
    plan.speculate = core->config->limits.speculate;
    plan.no_prefix_cache = strcmp(core->config->limits.prefix_cache, "off") == 0;
    plan.wipe = core->config->retention.wipe;
    plan.slices = &slices;
    plan.heartbeat_ms = hang_beat_ms(core->config->limits.step_timeout_s);
    plan.reattach_timeout_s = (uint32_t)core->config->limits.reattach_timeout_s;
    if (core->served.manifest) {
        manifest.path = core->config->model.manifest;
        manifest.trust = core->config->model.trust;
        manifest.threshold = core->config->model.threshold;
        manifest.digest = (char *)manifest_digest(core->served.manifest); /* packed, not changed */
        plan.manifest = &manifest;
    }
    coordinator_message message = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    message.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_PLAN;
    message.plan = &plan;
    member_send(r, &message);
}
