/*
 * Bringing a rank up: read the config, prove the checkpoint, plan, split communicators, allocate,
 * load (model.h). Everything that a step needs is allocated here.
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/process.h"
#include "partition/manifest.h"
#include "transport/nccl.h"
#include "worker/cuda_backend.h"
#include "worker/gpu_memory.h"
#include "worker/model.h"
#include "worker/rope.h"
#include "worker/weights_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RECORDING_DRIVER = 12030 }; /* as cuda_device_info has it */

/* Rank 0's: a bar on a terminal, a line each tenth elsewhere, and at the end what it took. */
struct progress {
    bool terminal;
    int tenths;
    int64_t start_ns;
};

static void show_progress(void *arg, uint64_t done, uint64_t total)
{
    struct progress *p = arg;
    double seconds = (double)(clock_now_ns() - p->start_ns) * 1e-9, mb = (double)done * 1e-6;
    int tenths = (int)(done * 10 / (total ? total : 1));
    double rate = seconds > 0 ? mb / seconds : 0;
    double left = rate > 0 ? ((double)total * 1e-6 - mb) / rate : 0;
    if (done == total) {
        fputs(p->terminal ? "\r\033[K" : "", stderr);
        log_info("loaded: %.0f MB read in %.2f s, %.0f MB/s", mb, seconds, rate);
    } else if (p->terminal) {
        char bar[31];
        int fill = (int)(done * 30 / (total ? total : 1));
        for (int i = 0; i < 30; i++)
            bar[i] = i < fill ? '#' : '.';
        bar[30] = '\0';
        fprintf(stderr, "\rloading [%s] %.0f of %.0f MB, %.0f MB/s, %.0f s left \033[K", bar, mb,
                (double)total * 1e-6, rate, left);
    } else if (tenths > p->tenths) {
        p->tenths = tenths;
        log_info("loading: %d%%, %.0f of %.0f MB, %.0f MB/s, %.0f s left", tenths * 10, mb,
                 (double)total * 1e-6, rate, left);
    }
}

static enum status allocate(struct memory *memory, void *where, uint64_t bytes, const char *what,
                            struct error *err)
{
    void *p = memory->alloc(memory, bytes, true);
    if (!p)
        return error_set(err, ERR_NO_MEMORY, "no memory for %llu bytes of %s",
                         (unsigned long long)bytes, what);
    *(void **)where = p;
    return OK;
}

static enum status allocate_workspace(struct model *m, struct error *err)
{
    struct workspace *ws = &m->ws;
    struct memory *mem = m->memory;
    struct workspace_bytes n = plan_workspace(&m->config, m->plan, m->rank, &m->limits);
    TRY(allocate(mem, &ws->x, n.x, "activations", err));
    TRY(allocate(mem, &ws->xn, n.xn, "activations", err));
    TRY(allocate(mem, &ws->sum, n.sum, "activations", err));
    TRY(allocate(mem, &ws->q, n.q, "activations", err));
    TRY(allocate(mem, &ws->kv, n.kv, "activations", err));
    TRY(allocate(mem, &ws->attn, n.attn, "activations", err));
    TRY(allocate(mem, &ws->rope, n.rope, "RoPE angles", err));
    TRY(allocate(mem, &ws->router, n.router, "router logits", err));
    TRY(allocate(mem, &ws->h, n.h, "activations", err));
    TRY(allocate(mem, &ws->route.chosen, n.route, "routes", err));
    size_t slots = (size_t)m->limits.max_rows * (size_t)(m->config.top_k ? m->config.top_k : 1);
    ws->route.row = ws->route.chosen + slots;
    ws->route.chosen_weight = (float *)(void *)(ws->route.row + slots);
    ws->route.weight = ws->route.chosen_weight + slots;
    ws->route.first = (int32_t *)(void *)(ws->route.weight + slots);
    for (int32_t i = m->rank->layers.begin; i < m->rank->layers.end; i++)
        if (!m->config.layer_is_moe[i])
            ws->dense.first = ws->route.first + m->config.experts + 2;
    if (ws->dense.first) {
        ws->dense.row = ws->dense.first + 2;
        ws->dense.weight = (float *)(void *)(ws->dense.row + m->limits.max_rows);
    }
    if (n.logits > 0) {
        size_t shard = (size_t)m->limits.max_logits * (size_t)m->rank->vocab_padded;
        TRY(allocate(mem, &ws->shard, n.logits, "logits", err));
        /* One rank has the whole row in its shard. */
        ws->logits = m->plan->layout.w > 1 ? ws->shard + shard : ws->shard;
    }
    return OK;
}

static void own(struct model *m, struct comm *c)
{
    CHECK(m->owned_count < MODEL_MAX_COMMS, "%d communicators", m->owned_count);
    m->owned[m->owned_count++] = c;
}

static enum status split_comms(struct model *m, struct error *err)
{
    const struct rank_plan *r = m->rank;
    TRY(m->world->ops->split_node(m->world, &m->node, err));
    own(m, m->node);
    TRY(m->world->ops->split(m->world, r->stage, r->rank, &m->stage, err));
    own(m, m->stage);
    int color = r->stage * m->plan->layout.w + r->attn_dp;
    TRY(m->world->ops->split(m->world, color, r->rank, &m->attn, err));
    own(m, m->attn);
    m->pipe = m->world;
    return OK;
}

static bool meet_staged(void *arg)
{
    struct model *m = arg;
    return m->kernels->meet(m->backend, false);
}

static enum status get_staged(void *arg, void *to, const void *from, size_t bytes,
                              struct error *err)
{
    struct memory *memory = ((struct model *)arg)->memory;
    return memory->get(memory, to, from, bytes, err);
}

static enum status put_staged(void *arg, void *to, const void *from, size_t bytes,
                              struct error *err)
{
    struct memory *memory = ((struct model *)arg)->memory;
    return memory->put(memory, to, bytes, from, bytes, bytes, 1, err);
}

/* Ranks whose sums lie on a device meet by way of the host's memory. */
static enum status stage_comms(struct model *m, struct error *err)
{
    struct comm **comms[] = {&m->stage, &m->attn, &m->pipe};
    m->stage_buffer = malloc(MODEL_STAGE_BYTES);
    if (!m->stage_buffer)
        return error_set(err, ERR_NO_MEMORY, "no memory to meet other ranks by");
    const struct comm_stage stage = {meet_staged, get_staged,      put_staged,
                                     m,           m->stage_buffer, MODEL_STAGE_BYTES};
    for (size_t i = 0; i < COUNT_OF(comms); i++) {
        TRY(comm_staged(*comms[i], &stage, comms[i], err));
        own(m, *comms[i]);
    }
    return OK;
}

static bool meet_nccl(void *arg)
{
    struct model *m = arg;
    return m->kernels->meet(m->backend, m->captured);
}

/* Collective: the same status in all ranks. */
static enum status open_nccl(struct model *m, const struct model_options *o, struct error *err)
{
    struct cuda_device_info gpu = {.name = ""};
    enum status st = cuda_plugin_device(m->cuda, m->device, &gpu, err);
    TRY(comm_agree(m->world, st, err));
    const struct nccl_options n = {
        .library = o->nccl,
        .stream = cuda_backend_stream(m->backend),
        .gpu = gpu.uuid,
        .gpu_model = gpu.name,
        .init_ms = MODEL_CONNECT_TIMEOUT_S * 1000,
        .step_ms = (int64_t)o->step_timeout_s * 1000,
        .meet = meet_nccl,
        .arg = m,
    };
    return nccl_create(m->world, &n, &m->nccl, err);
}

/* Over `*c`, which becomes it, where it has more ranks than one. Collective over the world. */
static enum status nccl_over(struct model *m, struct comm **c, const char *name, struct error *err)
{
    if ((*c)->size == 1)
        return OK;
    TRY(comm_nccl(m->nccl, *c, name, c, err));
    own(m, *c);
    return OK;
}

static enum status nccl_comms(struct model *m, struct error *err)
{
    bool same = m->attn->size == m->stage->size;
    TRY(nccl_over(m, &m->stage, "its stage", err));
    if (same)
        m->attn = m->stage;
    else
        TRY(nccl_over(m, &m->attn, "its attention", err));
    if (m->plan->layout.pp > 1)
        TRY(nccl_over(m, &m->pipe, "all stages", err));
    double apart = m->plan->layout.pp > 1 && !comm_capturable(m->pipe);
    apart += !comm_capturable(m->stage) || !comm_capturable(m->attn);
    /* All or none: one that records an operation may wait for the others to begin it. */
    TRY(comm_allreduce_f64(m->world, &apart, 1, err));
    m->captured = apart == 0;
    if (m->world->rank == 0)
        log_info("%d ranks meet by NCCL %s%s", m->world->size, nccl_version(m->nccl),
                 m->captured ? "" : ", which does not record across machines in this version");
    return OK;
}

/* Makes the communicators for what lies on devices. */
static enum status connect_ranks(struct model *m, const struct model_options *o, struct error *err)
{
    bool choose = !o->collectives || strcmp(o->collectives, "auto") == 0;
    if (m->memory->host || m->world->size == 1)
        return OK;
    if (choose || strcmp(o->collectives, "nccl") == 0) {
        struct error why;
        enum status st = open_nccl(m, o, &why);
        if (st == OK)
            return nccl_comms(m, err);
        if (!choose || (st != ERR_NOT_FOUND && st != ERR_UNSUPPORTED)) {
            if (err)
                *err = why;
            return st;
        }
        if (m->world->rank == 0)
            log_warn("ranks meet by way of the host's memory, which is slow: %s", why.msg);
    }
    return comm_agree(m->world, stage_comms(m, err), err);
}

static enum status look_at_nccl(void *arg, const char *what, int64_t waited_ms, struct error *err)
{
    return nccl_watch(arg, what, waited_ms, err);
}

/* A one of each rank makes their number, over one row; then over as many as a step has. */
static enum status try_sum(struct model *m, struct comm *c, struct error *err)
{
    const double one = 1, zero = 0;
    double sum = 0, *at = m->ws.sum;
    size_t row = (size_t)m->config.hidden;
    TRY(m->memory->put(m->memory, at, sizeof one, &one, sizeof one, sizeof one, 1, err));
    TRY(comm_allreduce_f64(c, at, row, err));
    TRY(m->memory->get(m->memory, &sum, at, sizeof sum, err));
    TRY(m->memory->put(m->memory, at, sizeof zero, &zero, sizeof zero, sizeof zero, 1, err));
    if (sum != c->size)
        return error_set(err, ERR_IO,
                         "NCCL %s: the sum of ones of %d ranks: expected %d, found %g: run with "
                         "--collectives staged, and look at these GPUs",
                         nccl_version(m->nccl), c->size, c->size, sum);
    return comm_allreduce_f64(c, at, row * (size_t)m->limits.max_rows, err);
}

/* Logits, of one row and of as many as a step has. What is in them does not matter. */
static enum status try_gather(struct model *m, struct error *err)
{
    size_t row = (size_t)m->rank->vocab_padded * sizeof *m->ws.shard;
    if (!m->ws.shard || m->stage->size == 1)
        return OK;
    TRY(m->stage->ops->allgather(m->stage, m->ws.shard, row, m->ws.logits, err));
    return m->stage->ops->allgather(m->stage, m->ws.shard, row * (size_t)m->limits.max_logits,
                                    m->ws.logits, err);
}

/* A row from each stage to the next. */
static enum status try_pipe(struct model *m, struct error *err)
{
    int32_t w = m->plan->layout.w, rank = m->rank->rank;
    size_t bytes = (size_t)m->config.hidden * sizeof *m->ws.x;
    if (m->rank->stage > 0)
        TRY(m->pipe->ops->recv(m->pipe, rank - w, m->ws.x, bytes, err));
    if (m->rank->stage < m->plan->layout.pp - 1)
        TRY(m->pipe->ops->send(m->pipe, rank + w, m->ws.x, bytes, err));
    m->kernels->end(m->backend);
    return m->kernels->finish(m->backend, err);
}

/* NCCL connects ranks, and takes memory for it, at their first operation of each algorithm, which
 * it chooses by kind and size: before what is left of the memory goes to the KV cache, and before
 * steps are recorded. Collective, as a step is. */
static enum status try_ranks(struct model *m, struct error *err)
{
    if (!m->nccl)
        return OK;
    TRY(try_sum(m, m->stage, err));
    if (m->attn != m->stage)
        TRY(try_sum(m, m->attn, err));
    TRY(try_gather(m, err));
    return try_pipe(m, err);
}

/* From the first operation on. */
static void watch_ranks(struct model *m)
{
    if (m->nccl)
        cuda_backend_watch(m->backend, &(struct cuda_watch){look_at_nccl, m->nccl});
}

static enum status allocate_rope(struct model *m, struct error *err)
{
    uint64_t bytes = (uint64_t)m->config.head_dim / 2 * sizeof(float);
    float *frequency = malloc(bytes);
    if (!frequency)
        return error_set(err, ERR_NO_MEMORY, "no memory for RoPE frequencies");
    m->rope_scale = rope_frequencies(&m->config, frequency);
    enum status st = allocate(m->memory, &m->frequency, bytes, "RoPE frequencies", err);
    if (st == OK)
        st = m->memory->put(m->memory, m->frequency, bytes, frequency, bytes, bytes, 1, err);
    free(frequency);
    return st;
}

static void log_start(const struct model *m)
{
    char line[512];
    int n = 0;
#define X(field, words)                                                                            \
    n += snprintf(line + n, sizeof line - (size_t)n, "%s%s %.1f MB", n ? ", " : "", words,         \
                  (double)m->memory_plan.field * 1e-6);
    MEMORY_PURPOSES(X)
#undef X
    if (!m->cuda) /* a GPU's is told when its KV cache has been sized */
        log_info("memory: %s; in all %.1f MB", line,
                 (double)memory_plan_total(&m->memory_plan) * 1e-6);
    uint64_t blocks = ((uint64_t)m->limits.context + KV_BLOCK - 1) / KV_BLOCK;
    log_info("a sequence of %d tokens takes %.1f MB of the KV cache", m->limits.context,
             (double)(blocks * plan_kv_block_bytes(&m->config, m->rank, m->limits.kv_dtype)) *
                 1e-6);
    if (m->config.yarn.factor != 0)
        log_info("YaRN: %d trained positions made %d, in short prompts too",
                 m->config.yarn.original, m->config.max_position);
    if (m->config.experts > 0 && range_size(m->rank->moe_cols) == 0)
        log_warn("this rank holds no columns of any expert and only waits in their layers: cut "
                 "experts over fewer ranks with a larger --ep");
}

/* Bounds that no checkpoint states: what was asked for against what the model can do. */
static enum status check_limits(struct model *m, struct error *err)
{
    struct engine_limits *l = &m->limits;
    TRY(plan_check_context(&m->config, "context", l->context, l->kv_dtype, err));
    if (l->max_seqs < 1 || l->max_rows < l->max_seqs || l->max_logits < 1)
        return error_set(err, ERR_INVALID,
                         "%d rows a step: expected at least one for each of %d sequences",
                         l->max_rows, l->max_seqs);
    int64_t blocks = (int64_t)l->max_seqs * ((l->context + KV_BLOCK - 1) / KV_BLOCK);
    if (blocks > INT32_MAX)
        return error_set(err, ERR_INVALID, "%d sequences of %d tokens are too many KV blocks",
                         l->max_seqs, l->context);
    if (l->kv_blocks == 0 && !m->cuda) /* a GPU's is sized last */
        l->kv_blocks = (int32_t)blocks;
    return OK;
}

static enum status choose_device(struct model *m, const struct model_options *o, struct error *err)
{
    int devices = 1;
    TRY(cuda_plugin_devices(m->cuda, &devices, err));
    m->device = (o->first_gpu + m->node->rank) % devices;
    return OK;
}

static enum status create_backend(struct model *m, const struct model_options *o, struct error *err)
{
    if (o->cuda) {
        TRY(cuda_backend_create(o->cuda, m->device, &m->config, m->rank, &m->limits, &m->kernels,
                                &m->backend, err));
    } else if (m->limits.fast) {
        return error_set(err, ERR_INVALID, "--fast: expected --device cuda beside it, found cpu");
    } else {
        TRY(pool_create(m->limits.threads, o->spin, &m->pool, err));
        bool last = m->rank->stage == m->plan->layout.pp - 1;
        bool panels = o->weights == WEIGHTS_INT8 || o->weights == WEIGHTS_INT4;
        struct code_blocks codes = plan_code_blocks(&m->config, m->rank, &m->limits);
        TRY(cpu_backend_create(o->kernels, m->pool, plan_thread_scratch(&m->config, m->rank),
                               panels ? &codes : NULL, last ? batch_max_draws(&m->limits) : 0,
                               model_vocab_padded(m), &m->kernels, &m->backend, err));
    }
    m->memory = m->kernels->memory(m->backend);
    return OK;
}

/* Everything but the weights and the KV cache. */
static enum status allocate_rest(struct model *m, struct error *err)
{
    TRY(m->kernels->prepare(m->backend, m->weights, err));
    TRY(allocate_workspace(m, err));
    if (m->memory->host) /* a device's routes stay there */
        TRY(expert_counts_create(&m->config, m->plan, m->rank, &m->expert_counts, err));
    return allocate_rope(m, err);
}

static enum status allocate_cache(struct model *m, struct error *err)
{
    return kv_init(&m->kv, &m->config, m->rank, m->limits.kv_dtype, m->limits.kv_blocks, m->memory,
                   err);
}

/* Ends the recording where the step fails, too: memory cannot be freed while one goes on. */
static enum status record_step(struct model *m, const struct batch *b, struct error *err)
{
    enum status st = model_forward(m, b, err);
    if (st == OK)
        return m->kernels->finish(m->backend, err);
    m->kernels->end(m->backend);
    m->kernels->finish(m->backend, NULL);
    return st;
}

/* Older drivers load no kernel while a stream is recorded, and keep no launches that overlap. Ranks
 * record all or none: recorded steps may have more rows. Collective. */
static enum status may_record(struct model *m, bool *may, struct error *err)
{
    struct cuda_device_info gpu = {0};
    *may = false;
    TRY(comm_agree(m->world, cuda_plugin_device(m->cuda, m->device, &gpu, err), err));
    double older = gpu.driver < RECORDING_DRIVER;
    TRY(comm_allreduce_f64(m->world, &older, 1, err));
    *may = older == 0;
    if (!*may && m->world->rank == 0)
        log_warn("decode steps are not recorded, which makes them slower: expected drivers that "
                 "know CUDA %d.%d or later on all ranks: install newer ones",
                 RECORDING_DRIVER / 1000, RECORDING_DRIVER % 1000 / 10);
    return OK;
}

/* Steps that the backend would rather run from a recording. Collective. */
static enum status record_steps(struct model *m, struct error *err)
{
    struct batch b;
    bool may = false;
    if (m->kernels->record)
        TRY(may_record(m, &may, err));
    if (!may)
        return OK;
    for (int32_t i = 0; m->kernels->record(m->backend, i, &b); i++)
        TRY(record_step(m, &b, err));
    return OK;
}

/* Refused now, not by the kernel after minutes of loading. Collective over the machine's ranks. */
static enum status check_memory(struct model *m, struct error *err)
{
    uint64_t available = process_available_bytes();
    double need = (double)memory_plan_total(&m->memory_plan);
    if (m->cuda)
        need = MODEL_STAGE_BYTES;
    TRY(comm_allreduce_f64(m->node, &need, 1, err));
    if (available == 0 || need <= (double)available)
        return OK;
    return error_set(err, ERR_NO_MEMORY,
                     "%d rank%s of this machine need%s %.1f GB of memory, %.1f GB are available: "
                     "use more machines, fewer sequences (--max-seqs) or a shorter --context; "
                     "`witan plan` shows what takes it",
                     m->node->size, m->node->size == 1 ? "" : "s", m->node->size == 1 ? "s" : "",
                     need * 1e-9, (double)available * 1e-9);
}

static enum status read_weights(struct model *m, const struct model_options *o,
                                const struct inventory *inv, struct checkpoint *ck,
                                struct error *err)
{
    struct progress p = {.terminal = isatty(STDERR_FILENO) != 0, .start_ns = clock_now_ns()};
    bool show = o->progress && m->rank->rank == 0;
    return weights_load(m->weights, inv, ck, m->plan, m->rank, m->world, m->node,
                        show ? show_progress : NULL, &p, err);
}

/* From the cache, where every rank has a good one; else from the checkpoint, and into the cache. */
static enum status fill_weights(struct model *m, const struct model_options *o,
                                const struct inventory *inv, struct checkpoint *ck,
                                struct error *err)
{
    struct weights_cache *cache = NULL;
    bool loaded = false;
    enum status st = OK;
    if (o->weights_cache)
        st = weights_cache_open(o->weights_cache, o->manifest, inv, m->plan, m->rank, m->weights,
                                &cache, err);
    st = comm_agree(m->world, st, err);
    if (st == OK)
        st = weights_cache_load(cache, m->world, &loaded, err);
    if (st == OK && !loaded) {
        st = read_weights(m, o, inv, ck, err);
        if (st == OK)
            weights_cache_save(cache);
    }
    weights_cache_close(cache);
    return st;
}

static enum status load(struct model *m, const struct model_options *o, const struct inventory *inv,
                        struct checkpoint *ck, struct error *err)
{
    if (!m->cuda)
        m->memory_plan = plan_memory(&m->config, inv, m->plan, m->rank, &m->limits);
    log_start(m);
    TRY(comm_agree(m->world, check_memory(m, err), err));
    enum status st = weights_create(&m->config, inv, m->plan, m->rank, m->memory, &m->weights, err);
    TRY(comm_agree(m->world, st, err));
    if (o->random_weights)
        return comm_agree(m->world, weights_random(m->weights, 1 + (uint64_t)m->rank->rank, err),
                          err);
    return fill_weights(m, o, inv, ck, err);
}

/* Everything that can be refused without allocating for it. */
static enum status prove(struct model *m, const struct model_options *o, struct inventory **inv,
                         struct checkpoint **ck, struct error *err)
{
    struct generation_config ignored;
    TRY(config_load_proven(o->dir, o->manifest, &m->config, &ignored, err));
    TRY(check_limits(m, err));
    TRY(inventory_create(&m->config, inv, err));
    if (o->cuda && o->weights != WEIGHTS_PUBLISHED)
        return error_set(err, ERR_UNSUPPORTED,
                         "--weights: expected published with --device cuda, which takes weights as "
                         "they are stored, found %s",
                         weight_mode_name(o->weights));
    m->mode = o->cuda ? WEIGHTS_PACKED : o->weights;
    (*inv)->mode = m->mode;
    TRY(plan_create(&m->config, *inv, o->layout, &m->plan, err));
    if (m->plan->world != m->world->size)
        return error_set(err, ERR_INVALID, "the layout has %d ranks, but %d were started",
                         m->plan->world, m->world->size);
    m->rank = &m->plan->ranks[m->world->rank];
    if (o->random_weights)
        return OK;
    TRY(checkpoint_open_proven(o->dir, o->manifest, ck, err));
    return inventory_bind(*inv, &m->config, *ck, err);
}

/* Ranks sized differently would write past each other's buffers: all must have rank 0's limits. */
static enum status check_same_limits(struct model *m, struct error *err)
{
    struct engine_limits first = m->limits;
    TRY(comm_broadcast(m->world, 0, &first, sizeof first, err));
    const struct engine_limits *l = &m->limits;
    enum status st = OK;
    if (l->max_rows != first.max_rows || l->max_seqs != first.max_seqs ||
        l->max_logits != first.max_logits || l->context != first.context ||
        l->kv_blocks != first.kv_blocks || l->kv_dtype != first.kv_dtype ||
        l->gpu_percent != first.gpu_percent || l->fast != first.fast)
        st = error_set(err, ERR_INVALID,
                       "sized for %d rows, %d sequences of %d tokens, %d KV blocks, but rank 0 for "
                       "%d, %d of %d, %d: start all ranks with the same flags",
                       l->max_rows, l->max_seqs, l->context, l->kv_blocks, first.max_rows,
                       first.max_seqs, first.context, first.kv_blocks);
    return comm_agree(m->world, st, err);
}

/* The same of what weights become, which sums of one layer cannot be of two kinds of. */
static enum status check_same_weights(struct model *m, struct error *err)
{
    enum weight_mode first = m->mode;
    TRY(comm_broadcast(m->world, 0, &first, sizeof first, err));
    enum status st = OK;
    if (m->mode != first)
        st = error_set(err, ERR_INVALID,
                       "weights: expected %s, as rank 0 has them, found %s: start all ranks with "
                       "the same flags",
                       weight_mode_name(first), weight_mode_name(m->mode));
    return comm_agree(m->world, st, err);
}

/* Hosts have folders and manifests of their own: all ranks must load what rank 0 loads. */
static enum status check_same_manifest(struct model *m, const struct manifest *manifest,
                                       struct error *err)
{
    char own[MANIFEST_DIGEST_HEX + 1] = "none", first[MANIFEST_DIGEST_HEX + 1];
    if (manifest)
        memcpy(own, manifest_digest(manifest), sizeof own);
    memcpy(first, own, sizeof first);
    TRY(comm_broadcast(m->world, 0, first, sizeof first, err));
    enum status st = OK;
    if (strcmp(own, first) != 0)
        st = error_set(err, ERR_INVALID,
                       "manifest: expected rank 0's (SHA-256 %s), found %s: give every host the "
                       "same folder and manifest",
                       first, own);
    return comm_agree(m->world, st, err);
}

static enum status bring_up(struct model *m, const struct model_options *o, struct error *err)
{
    struct inventory *inv = NULL;
    struct checkpoint *ck = NULL;
    enum status st = comm_agree(m->world, prove(m, o, &inv, &ck, err), err);
    if (st == OK)
        st = check_same_limits(m, err);
    if (st == OK)
        st = check_same_weights(m, err);
    if (st == OK)
        st = check_same_manifest(m, o->manifest, err);
    if (st == OK)
        st = split_comms(m, err);
    if (st == OK && m->cuda)
        st = comm_agree(m->world, choose_device(m, o, err), err);
    if (st == OK && m->cuda)
        st = gpu_memory_check(m, inv, err);
    if (st == OK)
        st = comm_agree(m->world, create_backend(m, o, err), err);
    if (st == OK)
        st = connect_ranks(m, o, err);
    if (st == OK)
        st = load(m, o, inv, ck, err);
    /* After loading, whose buffers are given back by now. */
    if (st == OK)
        st = comm_agree(m->world, allocate_rest(m, err), err);
    if (st == OK)
        watch_ranks(m);
    if (st == OK)
        st = comm_agree(m->world, try_ranks(m, err), err);
    if (st == OK && m->cuda)
        st = gpu_memory_size_cache(m, err);
    if (st == OK)
        st = comm_agree(m->world, allocate_cache(m, err), err);
    if (st == OK)
        st = comm_agree(m->world, record_steps(m, err), err);
    checkpoint_close(ck);
    inventory_destroy(inv);
    return st;
}

enum status model_create(const struct model_options *options, struct comm *world,
                         struct model **out, struct error *err)
{
    struct model *m = calloc(1, sizeof *m);
    if (!m)
        return error_set(err, ERR_NO_MEMORY, "no memory for the model");
    m->world = world;
    m->limits = options->limits;
    m->cuda = options->cuda;
    m->progress = options->watched ? options->watched : &m->unwatched;
    enum status st = bring_up(m, options, err);
    if (st != OK) {
        model_destroy(m);
        return st;
    }
    *out = m;
    return OK;
}

void model_destroy(struct model *m)
{
    if (!m)
        return;
    weights_destroy(m->weights);
    expert_counts_destroy(m->expert_counts);
    kv_fini(&m->kv);
    struct workspace *ws = &m->ws;
    void *owned[] = {ws->x,    ws->xn,     ws->sum, ws->q,     ws->kv,           ws->attn,
                     ws->rope, ws->router, ws->h,   ws->shard, ws->route.chosen, m->frequency};
    for (size_t i = 0; m->memory && i < COUNT_OF(owned); i++)
        m->memory->free(m->memory, owned[i]);
    if (m->kernels) /* before communicators that recorded steps refer to */
        m->kernels->destroy(m->backend);
    pool_destroy(m->pool);
    while (m->owned_count > 0) {
        struct comm *c = m->owned[--m->owned_count];
        c->ops->destroy(c);
    }
    nccl_destroy(m->nccl);
    free(m->stage_buffer);
    plan_destroy(m->plan);
    free(m);
}
