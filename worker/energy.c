/* What one rank counts: see energy.h. State: the struct, under its lock. */
#include "worker/energy.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "worker/rapl.h"

#include <pthread.h>
#include <stdlib.h>

enum { IDLE_LEAST_MS = 100 }; /* a pause of which the power is known */

/* One counter, told apart into steps and what is between them. */
struct split {
    double last_j, total_j, steps_j;
    double idle_w; /* of the last long pause; below 0: none yet */
    int64_t at_ns, busy_ns;
    bool begun;
};

struct energy {
    pthread_mutex_t lock;
    struct rapl *rapl; /* NULL: not this rank's, or not known */
    struct meter *meter;
    bool host, gpu;
    bool in_step;
    int64_t now_ns, busy_ns; /* of the last call; of all steps until then */
    struct split processors, device;
};

/* The counter stands at `joules` now. */
static void split_take(struct split *s, double joules, int64_t now_ns, int64_t busy_ns)
{
    double delta = joules - s->last_j, steps;
    int64_t wall = now_ns - s->at_ns, busy = busy_ns - s->busy_ns, idle = wall - busy;
    bool begun = s->begun;
    s->begun = true;
    s->last_j = joules;
    s->at_ns = now_ns;
    s->busy_ns = busy_ns;
    if (!begun || delta < 0)
        return;
    if (busy <= 0 && wall >= (int64_t)IDLE_LEAST_MS * 1000000)
        s->idle_w = delta / ((double)wall * 1e-9);
    if (busy <= 0)
        steps = 0;
    else if (idle <= 0)
        steps = delta;
    else if (s->idle_w >= 0)
        steps = delta - s->idle_w * (double)idle * 1e-9;
    else
        steps = delta * (double)busy / (double)wall;
    s->total_j += delta;
    s->steps_j += steps > 0 ? steps : 0;
}

/* Under the lock. */
static void take(struct energy *e)
{
    int64_t now = clock_now_ns();
    struct meter_reading r;
    double joules;
    e->busy_ns += e->in_step ? now - e->now_ns : 0;
    e->now_ns = now;
    if (e->rapl) {
        struct error err;
        if (rapl_read(e->rapl, &joules, &err) == OK) {
            split_take(&e->processors, joules, now, e->busy_ns);
        } else {
            log_warn("energy: %s: that of requests is not known from here on", err.msg);
            rapl_close(e->rapl);
            e->rapl = NULL;
        }
    }
    /* One that stands is no reading: it is of about a second, or the GPU sleeps. */
    if (e->gpu && meter_read(e->meter, &r) && r.has[METER_ENERGY_J] &&
        (!e->device.begun || r.value[METER_ENERGY_J] != e->device.last_j))
        split_take(&e->device, r.value[METER_ENERGY_J], now, e->busy_ns);
}

/* What cannot be read is said once, by the one rank of the host that would. */
static void open_rapl(struct energy *e, const char *root)
{
    struct error err;
    enum status st = rapl_open(root ? root : RAPL_ROOT, &e->rapl, &err);
    if (st == ERR_UNSUPPORTED)
        log_info("energy: %s: that of requests is not known", err.msg);
    else if (st != OK)
        log_warn("energy: %s; until then that of requests is not known", err.msg);
}

enum status energy_create(const struct energy_options *o, struct energy **out, struct error *err)
{
    struct energy *e = calloc(1, sizeof *e);
    if (!e)
        return error_set(err, ERR_NO_MEMORY, "no memory for the energy meter");
    pthread_mutex_init(&e->lock, NULL);
    e->host = o->host;
    e->gpu = o->gpu;
    e->meter = o->meter;
    e->now_ns = clock_now_ns();
    e->processors.idle_w = e->device.idle_w = -1;
    if (e->host)
        open_rapl(e, o->root);
    take(e);
    *out = e;
    return OK;
}

void energy_destroy(struct energy *e)
{
    if (!e)
        return;
    rapl_close(e->rapl);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

void energy_phase(struct energy *e, bool in_step)
{
    if (!e)
        return;
    pthread_mutex_lock(&e->lock);
    take(e);
    e->in_step = in_step;
    pthread_mutex_unlock(&e->lock);
}

static bool read_it(struct energy *e, bool now, struct energy_reading *out)
{
    if (!e)
        return false;
    pthread_mutex_lock(&e->lock);
    if (now)
        take(e);
    *out = (struct energy_reading){.host = e->processors.total_j,
                                   .host_steps = e->processors.steps_j,
                                   .gpu = e->device.total_j,
                                   .gpu_steps = e->device.steps_j};
    bool known = (!e->host || e->rapl) && (!e->gpu || e->device.begun);
    pthread_mutex_unlock(&e->lock);
    return known;
}

bool energy_read(struct energy *e, struct energy_reading *out)
{
    return read_it(e, true, out);
}

bool energy_last(struct energy *e, struct energy_reading *out)
{
    return read_it(e, false, out);
}
