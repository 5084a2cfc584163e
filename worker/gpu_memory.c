/* A GPU's memory: see gpu_memory.h. No state. */
#include "worker/gpu_memory.h"
#include "base/check.h"
#include "base/file.h"
#include "base/log.h"
#include "worker/cuda_backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_PERCENT = 90, LINE = 400 };

static int32_t context_blocks(const struct engine_limits *l)
{
    return (l->context + KV_BLOCK - 1) / KV_BLOCK;
}

struct gpu_need gpu_need_of(const struct cuda_plugin *cuda, const struct model_config *config,
                            const struct inventory *inv, const struct plan *plan,
                            const struct rank_plan *rank, const struct engine_limits *limits)
{
    struct engine_limits l = *limits;
    if (l.kv_blocks == 0)
        l.kv_blocks = context_blocks(&l);
    struct memory_plan p = plan_memory(config, inv, plan, rank, &l);
    struct workspace_bytes w = plan_workspace(config, plan, rank, &l);
    struct cuda_backend_bytes b = cuda_backend_bytes(cuda, config, rank, &l);
    return (struct gpu_need){
        .weights = (p.weights / FILE_PAGE + 1) * FILE_PAGE, /* as weights_create rounds them */
        .kv_cache = p.kv_cache,
        .activations = p.activations + w.rope +
                       (uint64_t)config->head_dim / 2 * sizeof(float), /* of RoPE */
        .batch = b.batch + b.tables + b.sampling,
        .logits = w.logits,
        .partial = b.partial,
        .fast = b.fast,
    };
}

uint64_t gpu_need_total(const struct gpu_need *n)
{
    uint64_t total = 0;
#define X(field, words) total += n->field;
    GPU_PURPOSES(X)
#undef X
    return total;
}

static int32_t percent(const struct engine_limits *l)
{
    return l->gpu_percent > 0 ? l->gpu_percent : DEFAULT_PERCENT;
}

/* What ranks may still take of a GPU; UINT64_MAX where it does not say what it has. */
static uint64_t room_of(const struct cuda_device_info *info, const struct engine_limits *l)
{
    uint64_t taken = info->bytes - info->free_bytes;
    uint64_t most = info->bytes / 100 * (uint64_t)percent(l);
    if (info->bytes == UINT64_MAX)
        return UINT64_MAX;
    return most > taken ? most - taken : 0;
}

/* What a rank tells the others of its machine. */
struct tenant {
    char uuid[48];
    uint64_t need;
};

/* The ranks on this rank's GPU, and what they need together. */
static enum status ask_tenants(struct model *m, const struct cuda_device_info *info, uint64_t need,
                               int32_t *ranks, uint64_t *sum, struct error *err)
{
    struct tenant mine = {.need = need};
    memcpy(mine.uuid, info->uuid, sizeof mine.uuid);
    *ranks = 1;
    *sum = need;
    if (m->node->size == 1)
        return OK;
    struct tenant *all = check_calloc((size_t)m->node->size, sizeof *all);
    enum status st = m->node->ops->allgather(m->node, &mine, sizeof mine, all, err);
    *ranks = 0;
    *sum = 0;
    for (int32_t i = 0; st == OK && i < m->node->size; i++)
        if (strncmp(all[i].uuid, mine.uuid, sizeof mine.uuid) == 0) {
            ++*ranks;
            *sum += all[i].need;
        }
    CHECK(st != OK || *ranks > 0, "GPU %s has no rank", mine.uuid);
    free(all);
    return st;
}

static void put_need(const struct gpu_need *n, char line[LINE])
{
    size_t at = 0;
#define X(field, words)                                                                            \
    at += (size_t)snprintf(line + at, LINE - at, "%s%s %.1f MB", at ? ", " : "", words,            \
                           (double)n->field * 1e-6);
    GPU_PURPOSES(X)
#undef X
}

/* Like limits, for fewer sequences. */
static struct engine_limits with_seqs(const struct engine_limits *limits, int32_t seqs)
{
    struct engine_limits l = *limits;
    l.max_seqs = seqs;
    if (l.max_logits == limits->max_seqs)
        l.max_logits = seqs;
    if (l.max_rows == limits->max_seqs)
        l.max_rows = seqs;
    return l;
}

/* The most sequences, fewer than the limits', with which `ranks` like this one fit; 0: none. */
static int32_t seqs_that_fit(const struct model *m, const struct inventory *inv, int32_t ranks,
                             uint64_t room)
{
    int32_t fit = 0, end = m->limits.max_seqs; /* the first that is known not to */
    while (end - fit > 1) {
        int32_t middle = fit + (end - fit) / 2;
        struct engine_limits l = with_seqs(&m->limits, middle);
        struct gpu_need n = gpu_need_of(m->cuda, &m->config, inv, m->plan, m->rank, &l);
        if (gpu_need_total(&n) <= room / (uint64_t)ranks)
            fit = middle;
        else
            end = middle;
    }
    return fit;
}

static enum status refuse(const struct model *m, const struct inventory *inv,
                          const struct cuda_device_info *info, const struct gpu_need *mine,
                          int32_t ranks, uint64_t sum, struct error *err)
{
    char line[LINE], fewer[96] = "";
    uint64_t room = room_of(info, &m->limits);
    int32_t seqs = seqs_that_fit(m, inv, ranks, room);
    put_need(mine, line);
    if (seqs > 0)
        snprintf(fewer, sizeof fewer, "%d sequences (--max-seqs, limits.sequences) fit; or ", seqs);
    return error_set(err, ERR_NO_MEMORY,
                     "GPU %d (%.40s): %d rank%s need%s %.1f MB, expected at most %.1f MB (%d %% of "
                     "%.1f MB, less %.1f MB that CUDA and other programs hold): %s with a KV cache "
                     "of %s: %suse more GPUs (--tp, --pp), a shorter --context or fewer "
                     "--step-tokens, or fill more of it (--gpu-memory)",
                     m->device, info->name, ranks, ranks == 1 ? "" : "s", ranks == 1 ? "s" : "",
                     (double)sum * 1e-6, (double)room * 1e-6, percent(&m->limits),
                     (double)info->bytes * 1e-6, (double)(info->bytes - info->free_bytes) * 1e-6,
                     line, m->limits.kv_blocks > 0 ? "limits.kv_blocks" : "one full context",
                     fewer);
}

/* Everything that the rank takes, for `Ready` and `witan status`. */
static void fill_plan(struct model *m, const struct gpu_need *n)
{
    m->memory_plan = (struct memory_plan){
        .weights = n->weights,
        .kv_cache = n->kv_cache,
        .activations = n->activations,
        .logits = n->logits,
        .scratch = n->batch + n->partial + n->fast,
    };
}

enum status gpu_memory_check(struct model *m, const struct inventory *inv, struct error *err)
{
    struct cuda_device_info info = {0};
    int32_t ranks = 1;
    uint64_t sum = 0;
    /* Twice: what CUDA itself takes is taken once all ranks have opened their GPUs. */
    TRY(comm_agree(m->world, cuda_plugin_device(m->cuda, m->device, &info, err), err));
    TRY(comm_agree(m->world, cuda_plugin_device(m->cuda, m->device, &info, err), err));
    struct gpu_need n = gpu_need_of(m->cuda, &m->config, inv, m->plan, m->rank, &m->limits);
    fill_plan(m, &n);
    TRY(ask_tenants(m, &info, gpu_need_total(&n), &ranks, &sum, err));
    enum status st = OK;
    if (sum > room_of(&info, &m->limits))
        st = refuse(m, inv, &info, &n, ranks, sum, err);
    return comm_agree(m->world, st, err);
}

static void log_gpu(const struct model *m, const struct cuda_device_info *info)
{
    const struct memory_plan *p = &m->memory_plan;
    int32_t full = context_blocks(&m->limits);
    log_info("GPU %d (%.40s): weights %.1f MB, KV cache %.1f MB, activations %.1f MB, logits %.1f "
             "MB, batch, tables and partial results %.1f MB",
             m->device, info->name, (double)p->weights * 1e-6, (double)p->kv_cache * 1e-6,
             (double)p->activations * 1e-6, (double)p->logits * 1e-6, (double)p->scratch * 1e-6);
    if (info->bytes != UINT64_MAX)
        log_info("GPU %d: before the KV cache %.1f of %.1f MB are free, of which ranks may fill "
                 "%.1f MB (%d %% of all)",
                 m->device, (double)info->free_bytes * 1e-6, (double)info->bytes * 1e-6,
                 (double)room_of(info, &m->limits) * 1e-6, percent(&m->limits));
    log_info("KV cache: %d blocks of %d tokens, %.1f of %d sequences of %d tokens",
             m->limits.kv_blocks, KV_BLOCK, (double)m->limits.kv_blocks / full, m->limits.max_seqs,
             m->limits.context);
}

/* The least of all ranks': a step's blocks are the same on each. */
static enum status agree_blocks(struct model *m, int64_t *blocks, struct error *err)
{
    if (m->world->size == 1)
        return OK;
    int64_t *all = check_calloc((size_t)m->world->size, sizeof *all);
    int64_t mine = *blocks;
    enum status st = m->world->ops->allgather(m->world, &mine, sizeof mine, all, err);
    for (int32_t i = 0; st == OK && i < m->world->size; i++)
        *blocks = all[i] < *blocks ? all[i] : *blocks;
    free(all);
    return st;
}

enum status gpu_memory_size_cache(struct model *m, struct error *err)
{
    struct cuda_device_info info = {0};
    struct engine_limits *l = &m->limits;
    uint64_t one = plan_kv_block_bytes(&m->config, m->rank, l->kv_dtype), ignored = 0;
    int64_t least = context_blocks(l), blocks = (int64_t)l->max_seqs * least;
    int32_t ranks = 1;
    /* Nobody allocates on before all have looked: agreeing on the blocks sees to that. */
    TRY(comm_agree(m->world, cuda_plugin_device(m->cuda, m->device, &info, err), err));
    if (l->kv_blocks == 0) {
        TRY(ask_tenants(m, &info, 0, &ranks, &ignored, err));
        uint64_t share = room_of(&info, l) / (uint64_t)(ranks > 0 ? ranks : 1);
        uint64_t fit = share / (one > 0 ? one : 1);
        blocks = fit < (uint64_t)blocks ? (int64_t)fit : blocks;
        TRY(agree_blocks(m, &blocks, err));
        if (blocks < least)
            return error_set(
                err, ERR_NO_MEMORY,
                "GPU %d (%.40s): %.1f MB are left for the KV cache on the fullest GPU, "
                "expected %.1f MB for one sequence of %d tokens: use more GPUs (--tp, "
                "--pp), a shorter --context or fewer --step-tokens",
                m->device, info.name, (double)blocks * (double)one * 1e-6,
                (double)least * (double)one * 1e-6, l->context);
        l->kv_blocks = (int32_t)blocks;
    }
    m->memory_plan.kv_cache = (uint64_t)l->kv_blocks * one;
    log_gpu(m, &info);
    return OK;
}
