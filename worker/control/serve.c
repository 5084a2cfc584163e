/* A rank under a coordinator, from hello to goodbye: see serve.h. */
#include "worker/control/serve.h"
#include "base/beat.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/pool.h"
#include "base/process.h"
#include "base/sandbox.h"
#include "base/wipe.h"
#include "worker/control/hello.h"
#include "worker/control/lead.h"
#include "worker/cuda_backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct rank {
    struct comm *world;
    struct rank_progress progress; /* of this thread, the engine thread */
    struct attach *attach;
    struct assignment plan;
    struct manifest *manifest; /* NULL: none is asked for */
    struct model *model;
    struct engine *engine;
    int64_t load_ns; /* how long loading took */
    uint64_t parks;  /* see lead.h */
    char host[HOST_NAME_BYTES];
    int ranks_here, rank_here;
    int gpus;                       /* of this host; 0: none are used */
    const struct cuda_plugin *cuda; /* NULL: on the processor */
    struct cuda_device_info device; /* with cuda: this rank's */
};

/* The same number on all ranks, another for every job. */
static enum status draw_incarnation(struct comm *world, uint64_t *out, struct error *err)
{
    enum status st = OK;
    if (world->rank == 0 && getrandom(out, sizeof *out, 0) != (ssize_t)sizeof *out)
        st = error_errno(err, errno, "random numbers");
    TRY(comm_agree(world, st, err));
    return comm_broadcast(world, 0, out, sizeof *out, err);
}

static enum status take_device(struct rank *r, int rank_here, struct error *err)
{
    int count = 1;
    TRY(cuda_plugin_open(NULL, &r->cuda, err));
    TRY(cuda_plugin_devices(r->cuda, &count, err));
    r->gpus = count;
    return cuda_plugin_device(r->cuda, rank_here % count, &r->device, err);
}

/* Before anybody is told of this rank, so that the launcher's log says what is missing here. */
static enum status open_device(struct rank *r, const struct serve_options *o, struct error *err)
{
    struct comm *node = NULL;
    if (!o->cuda)
        return OK;
    TRY(r->world->ops->split_node(r->world, &node, err));
    int rank_here = o->first_gpu + node->rank; /* as worker/setup.c takes it */
    node->ops->destroy(node);
    return comm_agree(r->world, take_device(r, rank_here, err), err);
}

static enum status start_attach(struct rank *r, const struct serve_options *o, struct error *err)
{
    uint64_t incarnation = 0;
    TRY(open_device(r, o, err));
    TRY(draw_incarnation(r->world, &incarnation, err));
    TRY(host_ranks(r->world, r->host, &r->ranks_here, &r->rank_here, err));
    const struct attach_options options = {
        .coordinator = o->coordinator,
        .tls_dir = o->tls_dir,
        .group = o->group,
        .region = o->region,
        .incarnation = incarnation,
        .rank = r->world->rank,
        .world = r->world->size,
        .host = r->host,
        .ranks_here = r->ranks_here,
        .progress = &r->progress,
        .device = r->cuda ? &r->device : NULL,
        .counts_host = r->rank_here == 0,
        .counts_gpu = r->rank_here < r->gpus,
        .powercap = o->powercap,
    };
    return comm_agree(r->world, attach_create(&options, &r->attach, err), err);
}

/* This host's own look at its folder: the manifest must be the coordinator's, signed by the keys
 * that this rank was started with, where it was. */
static enum status open_manifest(struct rank *r, const struct serve_options *o, struct error *err)
{
    const char *path = r->plan.manifest.path, *expected = r->plan.manifest.digest;
    int32_t threshold = r->plan.manifest.threshold;
    if (!*path && o->trust)
        return error_set(err, ERR_INVALID,
                         "plan: manifest: expected one, as this rank was started with --trust %s, "
                         "found none: give the coordinator model.manifest and model.trust",
                         o->trust);
    if (!*path)
        return OK;
    TRY(manifest_open(path, r->plan.model_dir, o->trust ? o->trust : r->plan.manifest.trust,
                      o->threshold > threshold ? o->threshold : threshold, &r->manifest, err));
    const char *found = manifest_digest(r->manifest);
    if (strcmp(found, expected) != 0)
        return error_set(err, ERR_INVALID,
                         "%s: expected the manifest that the coordinator has opened (SHA-256 %s), "
                         "found %s: give every host the same folder and manifest, and start the "
                         "coordinator again after a change",
                         path, expected, found);
    log_info("manifest: SHA-256 %s, signed by %s", found, manifest_signers(r->manifest));
    return OK;
}

/* What the coordinator thinks that this rank holds against what its own config.json gives. */
static enum status check_plan(const struct rank *r, struct error *err)
{
    struct model_config config;
    struct generation_config ignored;
    struct inventory *inv = NULL;
    struct plan *plan = NULL;
    TRY(config_load_proven(r->plan.model_dir, r->manifest, &config, &ignored, err));
    TRY(inventory_create(&config, &inv, err));
    enum status st = plan_create(&config, inv, r->plan.layout, &plan, err);
    if (st == OK && plan->world != r->world->size)
        st = error_set(err, ERR_INVALID, "plan: layout: %d ranks, but %d were started", plan->world,
                       r->world->size);
    if (st == OK)
        st = slices_compare(&r->plan.slices, &plan->ranks[r->world->rank], err);
    plan_destroy(plan);
    inventory_destroy(inv);
    return st;
}

static void on_phase(void *user, enum engine_phase phase)
{
    struct rank *r = user;
    struct engine_figures figures;
    if (phase == ENGINE_WAITING)
        attach_stepped(r->attach);
    if (phase == ENGINE_WAITING && r->world->rank != 0) { /* lead.c tells those of rank 0 */
        engine_figures(r->engine, &figures);
        attach_figures(r->attach, &figures);
    }
    attach_phase(r->attach, phase == ENGINE_FORWARD ? WITAN__CLUSTER__V1__PHASE__PHASE_FORWARD
                                                    : WITAN__CLUSTER__V1__PHASE__PHASE_WAITING);
}

static enum status load(struct rank *r, const struct serve_options *o, struct error *err)
{
    struct model_options options = {
        .dir = r->plan.model_dir,
        .manifest = r->manifest,
        .weights_cache = o->weights_cache,
        .weights = r->plan.weights,
        .layout = r->plan.layout,
        .limits = r->plan.limits,
        .kernels = r->plan.kernels,
        .cuda = r->cuda,
        .first_gpu = o->first_gpu,
        .collectives = o->collectives,
        .step_timeout_s = MODEL_STEP_TIMEOUT_S,
        .progress = true,
        .watched = &r->progress,
    };
    const struct engine_options eo = {
        .chunk = r->plan.chunk,
        .vocab_limit = r->plan.vocab_limit,
        .stall_ms = r->plan.stall_ms,
        .no_prefix_cache = r->plan.no_prefix_cache,
        .wipe = r->plan.wipe,
        .speculate = r->plan.speculate,
        .on_phase = on_phase,
        .user = r,
    };
    attach_phase(r->attach, WITAN__CLUSTER__V1__PHASE__PHASE_LOADING);
    pool_size(r->ranks_here, &options.limits.threads, &options.spin);
    TRY(model_create(&options, r->world, &r->model, err));
    TRY(engine_create(r->model, &eo, &r->engine, err));
    attach_experts(r->attach, r->model->expert_counts);
    return OK;
}

static enum status say_ready(struct rank *r, bool reattached, struct error *err)
{
    struct {
        const char *name;
        uint64_t bytes;
    } const purposes[] = {
#define X(field, words) {words, r->model->memory_plan.field},
        MEMORY_PURPOSES(X)
#undef X
    };
    Witan__Cluster__V1__Purpose purpose[COUNT_OF(purposes)];
    Witan__Cluster__V1__Purpose *pointers[COUNT_OF(purposes)];
    Witan__Cluster__V1__Ready ready = WITAN__CLUSTER__V1__READY__INIT;
    for (size_t i = 0; i < COUNT_OF(purposes); i++) {
        purpose[i] = (Witan__Cluster__V1__Purpose)WITAN__CLUSTER__V1__PURPOSE__INIT;
        purpose[i].name = (char *)(uintptr_t)purposes[i].name;
        purpose[i].bytes = purposes[i].bytes;
        pointers[i] = &purpose[i];
    }
    ready.load_seconds = (double)r->load_ns * 1e-9;
    ready.reattached = reattached;
    ready.n_memory = COUNT_OF(purposes);
    ready.memory = pointers;
    ready.resident_bytes = process_resident_bytes();
    if (r->manifest)
        ready.manifest_digest = (char *)(uintptr_t)manifest_digest(r->manifest);
    enum status st = attach_send_ready(r->attach, &ready, err);
    /* What ended the stream is the mailbox's to tell. */
    return st == ERR_CANCELLED ? OK : st;
}

static enum status work(struct rank *r, enum serve_scope *scope, struct error *err)
{
    bool lost = false;
    enum status st = r->world->rank == 0 ? lead(r->attach, r->engine, &r->model->limits,
                                                r->world->size, &r->parks, &lost, err)
                                         : follow(r->attach, r->engine, &r->parks, &lost, err);
    *scope = lost ? SERVE_ALONE : SERVE_BROKEN;
    return st;
}

/* The stream has ended, for the reason in `err`: attaches again, with what is loaded. */
static enum status reattach(struct rank *r, struct error *err)
{
    struct assignment *plan = malloc(sizeof *plan);
    if (!plan)
        return error_set(err, ERR_NO_MEMORY, "no memory for a plan");
    enum status st = attach_again(r->attach, r->plan.reattach_timeout_s, plan, err);
    if (st == OK)
        st = assignment_compare(&r->plan, plan, err);
    if (st == OK) {
        r->plan = *plan;
        st = say_ready(r, true, err);
    }
    free(plan);
    return st;
}

/* All libraries and devices are open, all memory is shared. */
static enum status seal(const struct serve_options *o, struct error *err)
{
    char words[SANDBOX_WORDS] = "";
    if (o->no_dumps)
        process_no_dumps();
    if (!o->sandbox)
        return OK;
    enum status st = sandbox_seal(words, err);
    if (st != OK)
        return error_advise(err, st, "--no-sandbox goes without");
    if (*words)
        log_info("sandbox: loaded: %s", words);
    return OK;
}

/* Until a Stop: one stream after another. */
static enum status work_on(struct rank *r, enum serve_scope *scope, struct error *err)
{
    for (;;) {
        enum status st = work(r, scope, err);
        if (st == OK || *scope != SERVE_ALONE || r->plan.reattach_timeout_s == 0 ||
            mailbox_stopped(attach_mailbox(r->attach)))
            return st;
        st = reattach(r, err);
        if (st != OK)
            return mailbox_stopped(attach_mailbox(r->attach)) ? OK : st;
    }
}

static enum status attached(struct rank *r, const struct serve_options *o, enum serve_scope *scope,
                            struct error *err)
{
    *scope = SERVE_ALONE;
    enum status st = attach_wait_plan(r->attach, &r->plan, err);
    if (mailbox_stopped(attach_mailbox(r->attach))) /* nothing is loaded for an end */
        return OK;
    TRY(st);
    *scope = SERVE_ALL;
    int64_t start = clock_now_ns();
    if (r->plan.wipe)
        wipe_on_free();
    TRY(comm_agree(r->world, open_manifest(r, o, err), err));
    TRY(comm_agree(r->world, check_plan(r, err), err));
    TRY(load(r, o, err));
    TRY(comm_agree(r->world, seal(o, err), err));
    *scope = SERVE_BROKEN;
    r->load_ns = clock_now_ns() - start;
    TRY(say_ready(r, false, err));
    return work_on(r, scope, err);
}

enum status serve(struct comm *world, const struct serve_options *o, enum serve_scope *scope,
                  struct error *err)
{
    struct rank r = {.world = world};
    *scope = SERVE_ALL;
    beat_count = &r.progress.count;
    enum status st = start_attach(&r, o, err);
    if (st == OK)
        st = attached(&r, o, scope, err);
    if (st == ERR_PEER && *scope == SERVE_ALL)
        *scope = SERVE_BROKEN;
    attach_close(r.attach, st == OK ? NULL : err);
    engine_destroy(r.engine);
    model_destroy(r.model);
    manifest_close(r.manifest);
    beat_count = NULL;
    return st;
}
