/* GET /metrics: what there is of groups, ranks and this process (metrics.h). No state. */
#include "base/check.h"
#include "base/clock.h"
#include "base/process.h"
#include "coordinator/members_private.h"
#include "proto/versions.h"

#include <sys/resource.h>
#include <time.h>

/* Of a group, from rank 0's last heartbeat; NULL: it has none yet. */
static const Witan__Cluster__V1__Engine *engine_of(const struct group *g)
{
    return g->ranks[0] ? g->ranks[0]->engine : NULL;
}

static void label_group(struct metrics_labels *l, const struct group *g)
{
    *l = (struct metrics_labels){0};
    metrics_label(l, "group", g->config->name);
}

/* --- groups ------------------------------------------------------------------------------------
 */

/* X(metric, type, help, expression of `g`) */
#define GROUP_VALUES(X)                                                                            \
    X("witan_group_ready", METRICS_GAUGE, "1: the group serves.", g->state == GROUP_READY)         \
    X("witan_group_draining", METRICS_GAUGE,                                                       \
      "1: the group takes no new requests: it drains or restarts.",                                \
      g->drained || g->restart != RESTART_NONE)                                                    \
    X("witan_group_restarting", METRICS_GAUGE, "1: the group was told to restart.",                \
      g->restart != RESTART_NONE)                                                                  \
    X("witan_group_losses_total", METRICS_COUNTER, "Times that the group was lost as it served.",  \
      g->losses)                                                                                   \
    X("witan_group_failed_starts_total", METRICS_COUNTER,                                          \
      "Times that the group was lost before it was ready.", g->failed_starts)                      \
    X("witan_group_requests", METRICS_GAUGE, "Requests that were sent to the group.", g->active)   \
    X("witan_sequences_running", METRICS_GAUGE, "Sequences in the batch.", g->running)             \
    X("witan_sequences_waiting", METRICS_GAUGE, "Sequences that wait for room.", g->waiting)       \
    X("witan_waiting_tokens", METRICS_GAUGE, "Tokens of requests before their first one.",         \
      backlog_tokens(&g->backlog))                                                                 \
    X("witan_wait_seconds", METRICS_GAUGE,                                                         \
      "What a new request would wait for its turn, estimated.",                                    \
      backlog_wait_s(&g->backlog, 0, clock_now_ns()))                                              \
    X("witan_kv_blocks_capacity", METRICS_GAUGE, "KV blocks of the cache.", g->kv_blocks)

/* X(metric, help, field of Engine): counters. */
#define ENGINE_VALUES(X)                                                                           \
    X("witan_preemptions_total",                                                                   \
      "Times that a sequence gave its KV blocks away, to be computed "                             \
      "again.",                                                                                    \
      preempted)                                                                                   \
    X("witan_prefix_asked_tokens_total", "Tokens of prompts looked up in the prefix cache.",       \
      prefix_asked)                                                                                \
    X("witan_prefix_found_tokens_total", "Tokens of prompts found in the prefix cache.",           \
      prefix_found)                                                                                \
    X("witan_prefix_evicted_blocks_total", "KV blocks that the prefix cache gave up.",             \
      blocks_evicted)                                                                              \
    X("witan_drawn_tokens_total", "Tokens drawn, those that nobody wanted any more too.", drawn)   \
    X("witan_guessed_tokens_total", "Tokens guessed ahead by speculation.", guessed)               \
    X("witan_guessed_right_tokens_total", "Guessed tokens that came true.", guessed_right)

static void write_group_values(struct metrics_page *p, const struct members *m)
{
    struct metrics_labels l;
    const struct group *g, *end = m->groups + m->count;
#define X(name, type, help, value)                                                                 \
    metrics_family(p, name, type, help);                                                           \
    for (g = m->groups; g < end; g++) {                                                            \
        label_group(&l, g);                                                                        \
        metrics_sample(p, &l, (double)(value));                                                    \
    }
    GROUP_VALUES(X)
#undef X
#define X(name, help, field)                                                                       \
    metrics_family(p, name, METRICS_COUNTER, help);                                                \
    for (g = m->groups; g < end; g++) {                                                            \
        label_group(&l, g);                                                                        \
        if (engine_of(g))                                                                          \
            metrics_sample(p, &l, (double)engine_of(g)->field);                                    \
    }
    ENGINE_VALUES(X)
#undef X
}

static void write_labelled(struct metrics_page *p, const struct group *g, const char *label,
                           const char *word, double value)
{
    struct metrics_labels l;
    label_group(&l, g);
    metrics_label(&l, label, word);
    metrics_sample(p, &l, value);
}

static void write_hangs(struct metrics_page *p, const struct members *m)
{
    metrics_family(p, "witan_group_hangs_total", METRICS_COUNTER,
                   "Times that the group was lost because it stood still, by what was found.");
    for (uint32_t i = 0; i < m->count; i++)
        for (int kind = HANG_NONE + 1; kind < HANG_KIND_COUNT; kind++)
            write_labelled(p, &m->groups[i], "kind", hang_kind_name(kind),
                           (double)m->groups[i].hangs[kind]);
}

/* Every block is in one state. */
static void write_blocks(struct metrics_page *p, const struct members *m)
{
    metrics_family(p, "witan_kv_blocks", METRICS_GAUGE,
                   "KV blocks by state: of sequences, kept for their prefix alone, free.");
    for (uint32_t i = 0; i < m->count; i++) {
        const struct group *g = &m->groups[i];
        const Witan__Cluster__V1__Engine *e = engine_of(g);
        uint32_t free = g->kv_blocks_free < g->kv_blocks ? g->kv_blocks_free : g->kv_blocks;
        uint32_t cached = e && e->kv_blocks_cached < free ? e->kv_blocks_cached : e ? free : 0;
        write_labelled(p, g, "state", "used", g->kv_blocks - free);
        write_labelled(p, g, "state", "cached", cached);
        write_labelled(p, g, "state", "free", free - cached);
    }
}

/* Of the last minute or so, and left out where it would tell of chance alone. */
static void write_experts(struct metrics_page *p, const struct members *m)
{
    metrics_family(
        p, "witan_expert_imbalance_ratio", METRICS_GAUGE,
        "Tokens of a layer's busiest expert to the mean of its experts, of late: mean of "
        "the layers, their worst, and the same of the shares of expert parallelism.");
    for (uint32_t i = 0; i < m->count; i++) {
        const struct group *g = &m->groups[i];
        struct experts_summary s;
        experts_summary(&g->experts, g->deployment.plan, clock_now_ns(), &s);
        if (!s.enough)
            continue;
        write_labelled(p, g, "of", "layers", s.mean);
        write_labelled(p, g, "of", "worst_layer", s.worst);
        if (s.shares > 0)
            write_labelled(p, g, "of", "shares", s.shares);
    }
}

/* Groups that are not metered have no samples. */
static void write_energy(struct metrics_page *p, const struct members *m)
{
    struct metrics_labels l;
    metrics_family(p, "witan_energy_joules_total", METRICS_COUNTER,
                   "What the group's processors and GPUs have taken.");
    for (uint32_t i = 0; i < m->count; i++) {
        label_group(&l, &m->groups[i]);
        if (m->groups[i].joules.any)
            metrics_sample(p, &l, m->groups[i].joules.all);
    }
    metrics_family(
        p, "witan_energy_use_joules_total", METRICS_COUNTER,
        "Of it: requests by their shares of steps, the time between steps, other steps.");
    for (uint32_t i = 0; i < m->count; i++) {
        const struct group *g = &m->groups[i];
        if (!g->joules.any)
            continue;
        write_labelled(p, g, "use", "requests", g->joules.requests);
        write_labelled(p, g, "use", "idle", g->joules.idle);
        write_labelled(p, g, "use", "other", g->joules.other);
    }
    metrics_family(p, "witan_energy_pending_joules", METRICS_GAUGE,
                   "Of it: steps that are not told yet; below 0: told before ranks had counted.");
    for (uint32_t i = 0; i < m->count; i++) {
        label_group(&l, &m->groups[i]);
        if (m->groups[i].joules.any)
            metrics_sample(p, &l, m->groups[i].joules.pending);
    }
}

static void write_rows(struct metrics_page *p, const struct members *m)
{
    metrics_family(p, "witan_step_rows_total", METRICS_COUNTER,
                   "Rows that steps have fed: of prompts (again after a preemption), and drawn.");
    for (uint32_t i = 0; i < m->count; i++) {
        const struct group *g = &m->groups[i];
        const Witan__Cluster__V1__Engine *e = engine_of(g);
        if (!e)
            continue;
        write_labelled(p, g, "phase", "prompt", (double)e->prompt_rows);
        write_labelled(p, g, "phase", "decode", (double)e->decode_rows);
    }
}

/* One that does not hold together is left out. */
static void write_heard(struct metrics_page *p, const struct group *g, const char *phase,
                        const Witan__Cluster__V1__Histogram *h)
{
    struct metrics_labels l;
    label_group(&l, g);
    if (phase)
        metrics_label(&l, "phase", phase);
    if (h && h->n_counts == h->n_bounds + 1)
        metrics_buckets(p, &l, h->bounds, h->counts, h->n_bounds, h->sum);
}

static void write_group_histograms(struct metrics_page *p, const struct members *m)
{
    const struct group *g, *end = m->groups + m->count;
    metrics_family(p, "witan_step_seconds", METRICS_HISTOGRAM,
                   "A step, by whether it fed a prompt or decoded alone.");
    for (g = m->groups; g < end; g++) {
        if (!engine_of(g))
            continue;
        write_heard(p, g, "prompt", engine_of(g)->prompt_step_seconds);
        write_heard(p, g, "decode", engine_of(g)->decode_step_seconds);
    }
#define FAMILY(name, help, field)                                                                  \
    metrics_family(p, name, METRICS_HISTOGRAM, help);                                              \
    for (g = m->groups; g < end; g++)                                                              \
        if (engine_of(g))                                                                          \
            write_heard(p, g, NULL, engine_of(g)->field);
    FAMILY("witan_batch_sequences", "Sequences of a step.", batch_sequences)
    FAMILY("witan_queue_seconds",
           "From a request's arrival at its group to the first step that "
           "fed it.",
           queue_seconds)
    FAMILY("witan_step_overhead_seconds", "Of a step, outside the forward pass, on rank 0.",
           overhead_seconds)
#undef FAMILY
}

/* --- ranks -------------------------------------------------------------------------------------
 */

typedef void rank_writer(struct metrics_page *p, const struct metrics_labels *l,
                         const struct member *r, int kind);

static void each_rank(struct metrics_page *p, const struct members *m, rank_writer *write, int kind)
{
    for (uint32_t i = 0; i < m->count; i++) {
        const struct group *g = &m->groups[i];
        for (int32_t k = 0; k < group_world(g); k++) {
            struct metrics_labels l;
            label_group(&l, g);
            metrics_label_int(&l, "rank", k);
            if (g->ranks[k])
                write(p, &l, g->ranks[k], kind);
        }
    }
}

static void write_steps(struct metrics_page *p, const struct metrics_labels *l,
                        const struct member *r, int kind)
{
    (void)kind;
    metrics_sample(p, l, (double)r->step);
}

static void write_age(struct metrics_page *p, const struct metrics_labels *l,
                      const struct member *r, int kind)
{
    (void)kind;
    metrics_sample(p, l, (double)(clock_now_ns() - r->heartbeat_ns) * 1e-9);
}

enum { FORWARD, COLLECTIVE };

static void write_seconds(struct metrics_page *p, const struct metrics_labels *l,
                          const struct member *r, int kind)
{
    if (r->engine)
        metrics_sample(
            p, l, kind == FORWARD ? r->engine->forward_seconds : r->engine->collective_seconds);
}

static void write_slowness(struct metrics_page *p, const struct metrics_labels *l,
                           const struct member *r, int kind)
{
    (void)kind;
    if (r->slow.ratio > 0)
        metrics_sample(p, l, r->slow.ratio);
}

static void write_ranks(struct metrics_page *p, const struct members *m)
{
    metrics_family(p, "witan_rank_steps_total", METRICS_COUNTER, "Steps that the rank has run.");
    each_rank(p, m, write_steps, 0);
    metrics_family(p, "witan_rank_heartbeat_age_seconds", METRICS_GAUGE,
                   "Since the rank was last heard.");
    each_rank(p, m, write_age, 0);
    metrics_family(p, "witan_forward_seconds_total", METRICS_COUNTER,
                   "In the forward pass, collectives included.");
    each_rank(p, m, write_seconds, FORWARD);
    metrics_family(p, "witan_collective_seconds_total", METRICS_COUNTER,
                   "In collectives, waiting for other ranks included; 0 where they run on GPUs.");
    each_rank(p, m, write_seconds, COLLECTIVE);
    metrics_family(p, "witan_rank_slowness_ratio", METRICS_GAUGE,
                   "Of computing a step, to the median of the ranks that do the same work.");
    each_rank(p, m, write_slowness, 0);
}

/* Figures in base units; what a GPU does not measure has no sample. */
static const struct gpu_metric {
    int kind;
    const char *name, *help;
    enum metrics_type type;
    double scale;
} gpu_metrics[] = {
#define KIND(name) WITAN__CLUSTER__V1__FIGURE_KIND__FIGURE_##name
    {KIND(POWER_W), "witan_gpu_power_watts", "The GPU's power.", METRICS_GAUGE, 1},
    {KIND(ENERGY_J), "witan_gpu_energy_joules_total", "Since the rank started.", METRICS_COUNTER,
     1},
    {KIND(STEP_J), "witan_gpu_step_energy_joules", "Of a step.", METRICS_GAUGE, 1},
    {KIND(SM_MHZ), "witan_gpu_sm_clock_hertz", "Of its processors.", METRICS_GAUGE, 1e6},
    {KIND(MEMORY_MHZ), "witan_gpu_memory_clock_hertz", "Of its memory.", METRICS_GAUGE, 1e6},
    {KIND(TEMPERATURE_C), "witan_gpu_temperature_celsius", "Of the GPU.", METRICS_GAUGE, 1},
    {KIND(ECC_CORRECTED), "witan_gpu_ecc_corrected_errors_total", "Memory errors corrected.",
     METRICS_COUNTER, 1},
    {KIND(ECC_UNCORRECTED), "witan_gpu_ecc_uncorrected_errors_total",
     "Memory errors not corrected.", METRICS_COUNTER, 1},
#undef KIND
};

static void write_figure(struct metrics_page *p, const struct metrics_labels *l,
                         const struct member *r, int index)
{
    const struct gpu_metric *g = &gpu_metrics[index];
    if (r->gpu.has[g->kind])
        metrics_sample(p, l, r->gpu.value[g->kind] * g->scale);
}

static bool has_gpu(const struct member *r)
{
    return r->hello->hardware && r->hello->hardware->device;
}

enum { XIDS, HELD_DOWN };

static void write_gpu(struct metrics_page *p, const struct metrics_labels *l,
                      const struct member *r, int kind)
{
    if (has_gpu(r))
        metrics_sample(p, l, kind == XIDS ? (double)r->gpu.xid_count : r->gpu.held_down);
}

static void write_gpus(struct metrics_page *p, const struct members *m)
{
    for (size_t i = 0; i < COUNT_OF(gpu_metrics); i++) {
        metrics_family(p, gpu_metrics[i].name, gpu_metrics[i].type, gpu_metrics[i].help);
        each_rank(p, m, write_figure, (int)i);
    }
    metrics_family(p, "witan_gpu_xid_errors_total", METRICS_COUNTER,
                   "Error reports of the GPU's driver.");
    each_rank(p, m, write_gpu, XIDS);
    metrics_family(p, "witan_gpu_clocks_held_down", METRICS_GAUGE,
                   "1: power or heat hold the clocks down.");
    each_rank(p, m, write_gpu, HELD_DOWN);
}

/* --- this process ------------------------------------------------------------------------------
 */

static double seconds_of(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec * 1e-6;
}

/* Named as Prometheus' own client libraries name them. */
static void write_process(struct metrics_page *p, const struct core *core)
{
    struct rusage used = {0};
    struct rlimit files = {0};
    struct timespec now = {0};
    getrusage(RUSAGE_SELF, &used);
    getrlimit(RLIMIT_NOFILE, &files);
    clock_gettime(CLOCK_REALTIME, &now);
    double up = (double)(clock_now_ns() - core->started_ns) * 1e-9;
    metrics_one(p, "process_cpu_seconds_total", METRICS_COUNTER, "Of the coordinator.",
                seconds_of(used.ru_utime) + seconds_of(used.ru_stime));
    metrics_one(p, "process_resident_memory_bytes", METRICS_GAUGE, "Of the coordinator.",
                (double)process_resident_bytes());
    metrics_one(p, "process_open_fds", METRICS_GAUGE, "Of the coordinator.", process_open_files());
    metrics_one(p, "process_max_fds", METRICS_GAUGE, "That the coordinator may open.",
                (double)files.rlim_cur);
    metrics_one(p, "process_start_time_seconds", METRICS_GAUGE, "Since 1970.",
                (double)now.tv_sec + (double)now.tv_nsec * 1e-9 - up);
}

static void write_core(struct metrics_page *p, const struct core *core)
{
    struct metrics_labels l = {0};
    metrics_label(&l, "version", WITAN_VERSION);
    metrics_label(&l, "model", core->served.name);
    metrics_family(p, "witan_build_info", METRICS_GAUGE, "1, with what runs here and serves.");
    metrics_sample(p, &l, 1);
    metrics_one(p, "witan_ready", METRICS_GAUGE, "1: some group serves, as /health/ready says.",
                core_ready(core, NULL) == OK);
    metrics_one(p, "witan_requests_running", METRICS_GAUGE, "Requests under way.", core->running);
    metrics_one(p, "witan_requests_bytes", METRICS_GAUGE,
                "Memory that requests take, as limits.memory_mb counts it.",
                (double)(core->bytes + core->doors));
    metrics_one(p, "witan_requests_held", METRICS_GAUGE,
                "Requests that have lost their group and wait for another.", core->held);
}

static void write_audit(struct metrics_page *p, const struct core *core)
{
    struct audit_figures a = audit_figures(core->audit);
    if (!core->audit)
        return;
    metrics_one(p, "witan_audit_records_total", METRICS_COUNTER,
                "Records of the audit log that are on disk.", (double)a.records);
    metrics_one(p, "witan_audit_lost_records_total", METRICS_COUNTER,
                "Records of the audit log that were lost.", (double)a.lost);
    metrics_one(p, "witan_audit_failed_heads_total", METRICS_COUNTER,
                "Signed heads that audit.heads did not take.", (double)a.heads_failed);
    metrics_one(p, "witan_audit_failed", METRICS_GAUGE, "1: the audit log cannot be written.",
                a.failing);
}

static void write_by(struct metrics_page *p, const char *label, const char *word, double value)
{
    struct metrics_labels l = {0};
    metrics_label(&l, label, word);
    metrics_sample(p, &l, value);
}

/* Who was not let in, and the files that say who is. */
static void write_identity(struct metrics_page *p, const struct core *core)
{
    static const char *const files[] = {"keys", "jwks"};
    static const char *const reasons[] = {
#define X(name, words) words,
        AUTH_REFUSALS(X)
#undef X
    };
    struct identity_counts c;
    if (!core->identity)
        return;
    identity_count(core->identity, &c);
    metrics_family(p, "witan_auth_refused_total", METRICS_COUNTER,
                   "Requests without a key or token that is good, by why.");
    for (size_t i = 0; i < COUNT_OF(reasons); i++)
        write_by(p, "reason", reasons[i], (double)c.refused[i]);
#define FAMILY(name, type, help, field)                                                            \
    metrics_family(p, name, type, help);                                                           \
    for (size_t i = 0; i < COUNT_OF(files); i++)                                                   \
        if (c.files[i].used)                                                                       \
            write_by(p, "file", files[i], (double)c.files[i].field);
    FAMILY("witan_auth_keys", METRICS_GAUGE, "Keys in use.", keys)
    FAMILY("witan_auth_loads_total", METRICS_COUNTER, "Times that the file was read.", loads)
    FAMILY("witan_auth_load_failures_total", METRICS_COUNTER,
           "Times that the file was found unsound, or gone.", failures)
    FAMILY("witan_auth_stale", METRICS_GAUGE,
           "1: the file is unsound or gone, and what was read before is in use.", stale)
#undef FAMILY
}

enum status metrics_page(const struct core *core, struct buf *out, struct error *err)
{
    struct metrics_page p = {.out = out};
    const struct members *m = core->members;
    write_core(&p, core);
    write_audit(&p, core);
    metrics_write(&p, &core->metrics);
    write_identity(&p, core);
    write_group_values(&p, m);
    write_hangs(&p, m);
    write_blocks(&p, m);
    write_rows(&p, m);
    write_energy(&p, m);
    write_experts(&p, m);
    write_group_histograms(&p, m);
    write_ranks(&p, m);
    write_gpus(&p, m);
    share_metrics(&p, m->share);
    write_process(&p, core);
    if (p.status == OK)
        return OK;
    return error_set(err, p.status, "the metrics are longer than %zu bytes", out->limit);
}
