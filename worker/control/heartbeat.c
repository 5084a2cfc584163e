/* What heartbeats say of GPU and engine: see heartbeat.h. No state. */
#include "worker/control/heartbeat.h"

#define X(name)                                                                                    \
    _Static_assert((int)METER_##name == (int)WITAN__CLUSTER__V1__FIGURE_KIND__FIGURE_##name,       \
                   "kinds of figures are numbered alike");
METER_FIGURES(X)
#undef X

Witan__Cluster__V1__Gpu *heartbeat_gpu(struct meter *m, struct gpu_beat *b)
{
    if (!meter_read(m, &b->reading))
        return NULL;
    b->gpu = (Witan__Cluster__V1__Gpu)WITAN__CLUSTER__V1__GPU__INIT;
    for (int i = 0; i < METER_COUNT; i++) {
        if (!b->reading.has[i])
            continue;
        Witan__Cluster__V1__Figure *f = &b->figures[i];
        *f = (Witan__Cluster__V1__Figure)WITAN__CLUSTER__V1__FIGURE__INIT;
        f->kind = (Witan__Cluster__V1__FigureKind)i;
        f->value = b->reading.value[i];
        b->list[b->gpu.n_figures++] = f;
    }
    b->gpu.figures = b->list;
    b->gpu.xid_count = b->reading.xid_count;
    b->gpu.xids = b->reading.xids;
    b->gpu.n_xids = (size_t)b->reading.xids_held;
    return &b->gpu;
}

static Witan__Cluster__V1__Histogram *fill_histogram(Witan__Cluster__V1__Histogram *out,
                                                     struct histogram *h)
{
    *out = (Witan__Cluster__V1__Histogram)WITAN__CLUSTER__V1__HISTOGRAM__INIT;
    out->n_bounds = (size_t)h->bounds->count;
    out->bounds = (double *)(uintptr_t)h->bounds->at; /* the generated struct lacks the const */
    out->n_counts = out->n_bounds + 1;
    out->counts = h->counts;
    out->sum = h->sum;
    return out;
}

static void fill_counts(Witan__Cluster__V1__Engine *m, const struct engine_figures *f)
{
    m->forward_seconds = (double)f->stats.forward_ns * 1e-9;
    m->collective_seconds = (double)f->collective_ns * 1e-9;
    m->prompt_rows = f->stats.sched.prompt_rows;
    m->decode_rows = f->stats.sched.decode_rows;
    m->drawn = f->stats.sched.drawn;
    m->preempted = f->stats.sched.preempted;
    m->prefix_asked = f->stats.sched.prefix_asked;
    m->prefix_found = f->stats.sched.prefix_found;
    m->blocks_evicted = f->stats.sched.evicted;
    m->guessed = f->stats.sched.guessed;
    m->guessed_right = f->stats.sched.guessed_right;
    m->kv_blocks_cached = (uint32_t)f->kv_blocks_cached;
}

Witan__Cluster__V1__Engine *heartbeat_engine(struct engine_beat *b, bool leader)
{
    struct engine_figures *f = &b->figures;
    Witan__Cluster__V1__Engine *m = &b->engine;
    *m = (Witan__Cluster__V1__Engine)WITAN__CLUSTER__V1__ENGINE__INIT;
    fill_counts(m, f);
    if (leader) {
        m->prompt_step_seconds = fill_histogram(&b->prompt_step, &f->prompt_step);
        m->decode_step_seconds = fill_histogram(&b->decode_step, &f->decode_step);
        m->batch_sequences = fill_histogram(&b->sequences, &f->sequences);
        m->queue_seconds = fill_histogram(&b->queue, &f->queue);
        m->overhead_seconds = fill_histogram(&b->overhead, &f->overhead);
    }
    return m;
}

static Witan__Cluster__V1__Joules *fill_joules(Witan__Cluster__V1__Joules *out, double all,
                                               double steps)
{
    *out = (Witan__Cluster__V1__Joules)WITAN__CLUSTER__V1__JOULES__INIT;
    out->all = all;
    out->steps = steps;
    return out;
}

Witan__Cluster__V1__Energy *heartbeat_energy(struct energy_beat *b, bool host, bool gpu)
{
    const struct energy_reading *r = &b->reading;
    b->energy = (Witan__Cluster__V1__Energy)WITAN__CLUSTER__V1__ENERGY__INIT;
    b->energy.host = host ? fill_joules(&b->host, r->host, r->host_steps) : NULL;
    b->energy.gpu = gpu ? fill_joules(&b->gpu, r->gpu, r->gpu_steps) : NULL;
    return &b->energy;
}
