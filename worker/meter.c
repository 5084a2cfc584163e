/*
 * A GPU's figures: see meter.h. State: the struct, shared by its owner and the thread that asks;
 * `mutex` guards what both write and is never held during a call of NVML. The last of the two
 * releases it.
 *
 * Declarations are our own, of what is used alone: NVIDIA's "NVML API Reference Guide" for CUDA 13.
 */
#include "worker/meter.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- NVML ---------------------------------------------------------------------------------------
 */

enum { NVML_SUCCESS = 0 };
enum { CLOCK_SM = 1, CLOCK_MEMORY = 2 };       /* nvmlClockType_t */
enum { TEMPERATURE_GPU = 0 };                  /* nvmlTemperatureSensors_t */
enum { ERRORS_CORRECTED, ERRORS_UNCORRECTED }; /* nvmlMemoryErrorType_t */
enum { VOLATILE_ECC = 0 }; /* nvmlEccCounterType_t: since the driver was loaded */
enum { EVENT_XID = 8 };    /* nvmlEventTypeXidCriticalError */

typedef void *device_handle;
typedef void *event_set;

struct event { /* nvmlEventData_t */
    device_handle device;
    unsigned long long type, data; /* of an Xid: its number */
    unsigned gpu_instance, compute_instance;
};

struct nvml {
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error_string)(int code);
    int (*by_uuid)(const char *uuid, device_handle *out);
    int (*by_pci)(const char *pci, device_handle *out);
    /* The rest may be missing, or refused by the device. */
    int (*power_mw)(device_handle d, unsigned *out);
    int (*energy_mj)(device_handle d, unsigned long long *out);
    int (*clock_mhz)(device_handle d, int clock, unsigned *out);
    int (*throttle)(device_handle d, unsigned long long *out);
    int (*temperature)(device_handle d, int sensor, unsigned *out);
    int (*ecc_errors)(device_handle d, int errors, int counter, unsigned long long *out);
    int (*events_create)(event_set *out);
    int (*events_destroy)(event_set set);
    int (*events_register)(device_handle d, unsigned long long types, event_set set);
    int (*events_wait)(event_set set, struct event *out, unsigned timeout_ms);
};

static const struct symbol {
    const char *name, *older; /* the name in older drivers; NULL: the same */
    size_t at;                /* in struct nvml */
    bool needed;
} symbols[] = {
    {"nvmlInit_v2", NULL, offsetof(struct nvml, init), true},
    {"nvmlShutdown", NULL, offsetof(struct nvml, shutdown), true},
    {"nvmlErrorString", NULL, offsetof(struct nvml, error_string), true},
    {"nvmlDeviceGetHandleByUUID", NULL, offsetof(struct nvml, by_uuid), true},
    {"nvmlDeviceGetHandleByPciBusId_v2", NULL, offsetof(struct nvml, by_pci), true},
    {"nvmlDeviceGetPowerUsage", NULL, offsetof(struct nvml, power_mw), false},
    {"nvmlDeviceGetTotalEnergyConsumption", NULL, offsetof(struct nvml, energy_mj), false},
    {"nvmlDeviceGetClockInfo", NULL, offsetof(struct nvml, clock_mhz), false},
    {"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons",
     offsetof(struct nvml, throttle), false},
    {"nvmlDeviceGetTemperature", NULL, offsetof(struct nvml, temperature), false},
    {"nvmlDeviceGetTotalEccErrors", NULL, offsetof(struct nvml, ecc_errors), false},
    {"nvmlEventSetCreate", NULL, offsetof(struct nvml, events_create), false},
    {"nvmlEventSetFree", NULL, offsetof(struct nvml, events_destroy), false},
    {"nvmlDeviceRegisterEvents", NULL, offsetof(struct nvml, events_register), false},
    {"nvmlEventSetWait_v2", "nvmlEventSetWait", offsetof(struct nvml, events_wait), false},
};

/* --- the meter ----------------------------------------------------------------------------------
 */

struct meter {
    char library[256], uuid[64], pci[40];
    int rank;
    int64_t period_ns;
    atomic_int refs; /* owner and thread */
    atomic_ullong steps;
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* `stop` or `ended` */
    bool stop, ended;
    struct meter_reading reading;
    int64_t read_ns;  /* of the reading; 0: none yet */
    int64_t asked_ns; /* when NVML was asked what it has not yet answered; 0: nothing */
    bool warned;
};

/* The thread's own. */
struct probe {
    struct nvml nvml;
    void *so;
    device_handle device;
    event_set events; /* NULL: none */
    struct meter_reading next;
    bool energy_known;
    unsigned long long energy_mj; /* of the last reading */
    double total_j;               /* since the first */
    double step_from_j;           /* at the last reading that saw a step end */
    unsigned long long step_from; /* steps then */
};

static void release(struct meter *m)
{
    if (atomic_fetch_sub(&m->refs, 1) > 1)
        return;
    pthread_mutex_destroy(&m->mutex);
    pthread_cond_destroy(&m->changed);
    free(m);
}

static void mark_asked(struct meter *m, int64_t now)
{
    pthread_mutex_lock(&m->mutex);
    m->asked_ns = now;
    pthread_mutex_unlock(&m->mutex);
}

static bool find_symbols(const struct meter *m, struct probe *p)
{
    for (size_t i = 0; i < COUNT_OF(symbols); i++) {
        const struct symbol *s = &symbols[i];
        void *found = dlsym(p->so, s->name);
        if (!found && s->older)
            found = dlsym(p->so, s->older);
        if (!found && s->needed) {
            log_info("NVML: %s has no %s: no figures of the GPU's power and health", m->library,
                     s->name);
            return false;
        }
        memcpy((char *)&p->nvml + s->at, &found, sizeof found); /* POSIX: void * to a function */
    }
    return true;
}

static bool find_device(const struct meter *m, struct probe *p)
{
    int e = p->nvml.by_uuid(m->uuid, &p->device);
    if (e != NVML_SUCCESS)
        e = p->nvml.by_pci(m->pci, &p->device);
    if (e != NVML_SUCCESS)
        log_info("NVML: GPU %s at %s: %s: no figures of its power and health", m->uuid, m->pci,
                 p->nvml.error_string(e));
    return e == NVML_SUCCESS;
}

static void watch_events(struct probe *p)
{
    const struct nvml *n = &p->nvml;
    if (!n->events_create || !n->events_destroy || !n->events_register || !n->events_wait ||
        n->events_create(&p->events) != NVML_SUCCESS) {
        p->events = NULL;
        return;
    }
    if (n->events_register(p->device, EVENT_XID, p->events) == NVML_SUCCESS)
        return;
    n->events_destroy(p->events);
    p->events = NULL;
}

static bool open_nvml(const struct meter *m, struct probe *p)
{
    p->so = dlopen(m->library, RTLD_NOW | RTLD_LOCAL);
    if (!p->so) {
        log_info("NVML: %s: no figures of the GPU's power and health", dlerror());
        return false;
    }
    if (!find_symbols(m, p))
        return false;
    int e = p->nvml.init();
    if (e != NVML_SUCCESS) {
        log_info("NVML: %s: no figures of the GPU's power and health", p->nvml.error_string(e));
        return false;
    }
    bool found = find_device(m, p);
    if (found)
        watch_events(p);
    else
        p->nvml.shutdown();
    return found;
}

static void close_nvml(struct probe *p, bool open)
{
    if (open && p->events)
        p->nvml.events_destroy(p->events);
    if (open)
        p->nvml.shutdown();
    if (p->so)
        dlclose(p->so);
}

static void put(struct meter_reading *r, enum meter_figure figure, bool has, double value)
{
    r->has[figure] = has;
    r->value[figure] = has ? value : 0;
}

/* The counter begins anew when the driver is loaded again: then it has counted from 0. */
static void take_energy(struct meter *m, struct probe *p)
{
    unsigned long long now = 0, steps = atomic_load(&m->steps);
    bool has = p->nvml.energy_mj && p->nvml.energy_mj(p->device, &now) == NVML_SUCCESS;
    if (!has) {
        put(&p->next, METER_ENERGY_J, false, 0);
        put(&p->next, METER_STEP_J, false, 0);
        return;
    }
    if (p->energy_known)
        p->total_j += (double)(now >= p->energy_mj ? now - p->energy_mj : now) * 1e-3;
    else
        p->step_from = steps;
    p->energy_known = true;
    p->energy_mj = now;
    put(&p->next, METER_ENERGY_J, true, p->total_j);
    if (steps <= p->step_from) {
        p->step_from_j = p->total_j; /* idle: no step's */
        return;
    }
    put(&p->next, METER_STEP_J, true,
        (p->total_j - p->step_from_j) / (double)(steps - p->step_from));
    p->step_from = steps;
    p->step_from_j = p->total_j;
}

static void take_clocks(struct probe *p)
{
    static const struct {
        int clock;
        enum meter_figure figure;
    } clocks[] = {{CLOCK_SM, METER_SM_MHZ}, {CLOCK_MEMORY, METER_MEMORY_MHZ}};
    const struct nvml *n = &p->nvml;
    for (size_t i = 0; i < COUNT_OF(clocks); i++) {
        unsigned mhz = 0;
        bool has = n->clock_mhz && n->clock_mhz(p->device, clocks[i].clock, &mhz) == NVML_SUCCESS;
        put(&p->next, clocks[i].figure, has, mhz);
    }
    unsigned long long bits = 0;
    bool has = n->throttle && n->throttle(p->device, &bits) == NVML_SUCCESS;
    put(&p->next, METER_THROTTLE, has, (double)bits);
}

static void take_errors(struct probe *p)
{
    static const struct {
        int errors;
        enum meter_figure figure;
    } counts[] = {{ERRORS_CORRECTED, METER_ECC_CORRECTED},
                  {ERRORS_UNCORRECTED, METER_ECC_UNCORRECTED}};
    const struct nvml *n = &p->nvml;
    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        unsigned long long count = 0;
        bool has = n->ecc_errors &&
                   n->ecc_errors(p->device, counts[i].errors, VOLATILE_ECC, &count) == NVML_SUCCESS;
        put(&p->next, counts[i].figure, has, (double)count);
    }
}

static void take_xids(struct probe *p)
{
    struct meter_reading *r = &p->next;
    struct event e = {0};
    for (int i = 0; p->events && i < METER_XIDS; i++) {
        if (p->nvml.events_wait(p->events, &e, 0) != NVML_SUCCESS)
            return;
        if (!(e.type & EVENT_XID))
            continue;
        if (r->xids_held == METER_XIDS)
            memmove(r->xids, r->xids + 1, (METER_XIDS - 1) * sizeof *r->xids);
        else
            r->xids_held++;
        r->xids[r->xids_held - 1] = (uint32_t)e.data;
        r->xid_count++;
    }
}

static void sample(struct meter *m, struct probe *p)
{
    unsigned value = 0;
    const struct nvml *n = &p->nvml;
    mark_asked(m, clock_now_ns());
    bool has = n->power_mw && n->power_mw(p->device, &value) == NVML_SUCCESS;
    put(&p->next, METER_POWER_W, has, value * 1e-3);
    has = n->temperature && n->temperature(p->device, TEMPERATURE_GPU, &value) == NVML_SUCCESS;
    put(&p->next, METER_TEMPERATURE_C, has, value);
    take_energy(m, p);
    take_clocks(p);
    take_errors(p);
    take_xids(p);
    pthread_mutex_lock(&m->mutex);
    m->reading = p->next;
    m->read_ns = clock_now_ns();
    m->asked_ns = 0;
    m->warned = false;
    pthread_mutex_unlock(&m->mutex);
}

static struct timespec until(int64_t ns)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    ns += t.tv_nsec;
    t.tv_sec += (time_t)(ns / 1000000000);
    t.tv_nsec = (long)(ns % 1000000000);
    return t;
}

/* Waits a period; false: the meter is to end. */
static bool pause_meter(struct meter *m)
{
    struct timespec t = until(m->period_ns);
    int late = 0;
    pthread_mutex_lock(&m->mutex);
    while (!m->stop && late != ETIMEDOUT)
        late = pthread_cond_timedwait(&m->changed, &m->mutex, &t);
    bool on = !m->stop;
    pthread_mutex_unlock(&m->mutex);
    return on;
}

static void *meter_main(void *arg)
{
    struct meter *m = arg;
    struct probe p = {0};
    log_set_rank(m->rank);
    mark_asked(m, clock_now_ns());
    bool open = open_nvml(m, &p);
    mark_asked(m, 0);
    if (open)
        do
            sample(m, &p);
        while (pause_meter(m));
    close_nvml(&p, open);
    pthread_mutex_lock(&m->mutex);
    m->ended = true;
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->mutex);
    release(m);
    return NULL;
}

static void init_lock(struct meter *m)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&m->mutex, NULL);
    pthread_cond_init(&m->changed, &attr);
    pthread_condattr_destroy(&attr);
}

enum status meter_create(const struct meter_options *o, struct meter **out, struct error *err)
{
    struct meter *m = calloc(1, sizeof *m);
    if (!m)
        return error_set(err, ERR_NO_MEMORY, "no memory for the GPU's meter");
    snprintf(m->library, sizeof m->library, "%s", o->library ? o->library : "libnvidia-ml.so.1");
    snprintf(m->uuid, sizeof m->uuid, "%s", o->uuid);
    snprintf(m->pci, sizeof m->pci, "%s", o->pci);
    m->rank = o->rank;
    m->period_ns = (int64_t)(o->period_ms > 0 ? o->period_ms : METER_PERIOD_MS) * 1000000;
    atomic_store(&m->refs, 2);
    init_lock(m);
    pthread_t thread;
    int e = pthread_create(&thread, NULL, meter_main, m);
    if (e != 0) {
        atomic_store(&m->refs, 1);
        release(m);
        return error_errno(err, e, "a thread for the GPU's meter");
    }
    pthread_detach(thread); /* it may hang in NVML for good */
    *out = m;
    return OK;
}

void meter_destroy(struct meter *m)
{
    if (!m)
        return;
    struct timespec t = until((int64_t)METER_CLOSE_MS * 1000000);
    int late = 0;
    pthread_mutex_lock(&m->mutex);
    m->stop = true;
    pthread_cond_broadcast(&m->changed);
    while (!m->ended && late != ETIMEDOUT)
        late = pthread_cond_timedwait(&m->changed, &m->mutex, &t);
    pthread_mutex_unlock(&m->mutex);
    release(m);
}

void meter_stepped(struct meter *m)
{
    if (m)
        atomic_fetch_add(&m->steps, 1);
}

bool meter_read(struct meter *m, struct meter_reading *out)
{
    const int64_t stale = (int64_t)METER_STALE_MS * 1000000;
    if (!m)
        return false;
    int64_t now = clock_now_ns();
    pthread_mutex_lock(&m->mutex);
    bool fresh = m->read_ns != 0 && now - m->read_ns <= stale;
    bool warn = !m->warned && m->asked_ns != 0 && now - m->asked_ns > stale;
    m->warned |= warn;
    if (fresh)
        *out = m->reading;
    pthread_mutex_unlock(&m->mutex);
    if (warn)
        log_warn("NVML: no answer for %d s: the engine goes on; no figures of GPU %s until it "
                 "answers",
                 METER_STALE_MS / 1000, m->uuid);
    return fresh;
}
