/* GPUs of ranks: see gpus.h. No state. */
#include "coordinator/gpus.h"
#include "base/check.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double GPU_MOST = 1e15; /* no figure is larger */

#define KIND(name) WITAN__CLUSTER__V1__FIGURE_KIND__FIGURE_##name

/* As status names them, units last. Bits of clocks go into words instead. */
static const char *const figure_names[GPU_FIGURES] = {
    [KIND(POWER_W)] = "power_w",
    [KIND(ENERGY_J)] = "energy_j",
    [KIND(STEP_J)] = "step_j",
    [KIND(SM_MHZ)] = "sm_mhz",
    [KIND(MEMORY_MHZ)] = "memory_mhz",
    [KIND(TEMPERATURE_C)] = "temperature_c",
    [KIND(ECC_CORRECTED)] = "ecc_corrected",
    [KIND(ECC_UNCORRECTED)] = "ecc_uncorrected",
    [KIND(THROTTLE)] = NULL,
};

/* Why clocks are lower than they could be: NVML's nvmlClocksEventReason... bits. Idle GPUs and
 * clocks that an operator has set are as they should be. */
static const struct {
    uint64_t bit;
    const char *words;
} reasons[] = {
    {0x04, "its power limit"},
    {0x08, "the hardware, by power or heat"},
    {0x20, "heat"},
    {0x40, "heat (hardware)"},
    {0x80, "the power supply"},
};

/* Common ones, after NVIDIA's "Xid Errors" guide. */
static const struct {
    uint32_t number;
    const char *words;
} xids[] = {
    {31, "a kernel touched memory that is not its own: report it with this log; the group starts "
         "anew"},
    {43,
     "a program's work on the GPU was ended: look at the lines before, in the kernel's log too"},
    {48, "an uncorrectable memory error: drain the machine and reset the GPU"},
    {63, "a bad memory row was put aside, for good after the next reset: reset the GPU when idle"},
    {64, "a bad memory row could not be put aside: take the GPU out of service"},
    {74, "an NVLink error: look at `nvidia-smi nvlink -e`, at cables and switches"},
    {79, "the GPU has fallen off the bus: restart the machine; look at power, heat and seating"},
    {94, "a memory error that was contained: the group starts anew; reset the GPU when idle"},
    {95, "a memory error that was not contained: drain the machine and reset the GPU"},
    {119, "the GPU's own processor (GSP) does not answer: reset the GPU or restart the machine"},
};

static const char *xid_words(uint32_t number)
{
    for (size_t i = 0; i < COUNT_OF(xids); i++)
        if (xids[i].number == number)
            return xids[i].words;
    return "look it up in NVIDIA's list of Xid errors, and at the kernel's log";
}

static uint64_t throttle_of(const struct gpu_view *v)
{
    double bits = v->has[KIND(THROTTLE)] ? v->value[KIND(THROTTLE)] : 0;
    return (uint64_t)bits;
}

static void take_figures(struct gpu_view *v, const Witan__Cluster__V1__Gpu *gpu)
{
    memset(v->has, 0, sizeof v->has);
    for (size_t i = 0; gpu && i < gpu->n_figures; i++) {
        const Witan__Cluster__V1__Figure *f = gpu->figures[i];
        if ((int)f->kind < 0 || (int)f->kind >= GPU_FIGURES ||
            !(f->value >= 0 && f->value <= GPU_MOST))
            continue;
        v->has[f->kind] = true;
        v->value[f->kind] = f->value;
    }
}

/* "its power limit, heat" */
static void put_reasons(uint64_t bits, char *out, size_t size)
{
    size_t n = 0;
    *out = '\0';
    for (size_t i = 0; i < COUNT_OF(reasons) && n < size; i++)
        if (bits & reasons[i].bit)
            n += (size_t)snprintf(out + n, size - n, "%s%s", n > 0 ? ", " : "", reasons[i].words);
}

static void warn_clocks(struct gpu_view *v, const char *who, int64_t now_ns)
{
    char why[160], at[96] = "";
    size_t n = 0;
    put_reasons(throttle_of(v), why, sizeof why);
    bool was = v->held_down;
    v->held_down = *why != '\0';
    if (!v->held_down || was ||
        (v->warned_ns != 0 && now_ns - v->warned_ns < (int64_t)GPU_WARN_EVERY_S * 1000000000))
        return;
    v->warned_ns = now_ns;
    static const struct {
        int kind;
        const char *unit;
    } shown[] = {{KIND(SM_MHZ), "MHz"}, {KIND(POWER_W), "W"}, {KIND(TEMPERATURE_C), "C"}};
    for (size_t i = 0; i < COUNT_OF(shown) && n < sizeof at; i++)
        if (v->has[shown[i].kind])
            n += (size_t)snprintf(at + n, sizeof at - n, "%s%.0f %s", n > 0 ? ", " : " (",
                                  v->value[shown[i].kind], shown[i].unit);
    log_warn("%s: the GPU's clocks are held down by %s%s%s: steps take longer; look at its power "
             "limit and cooling",
             who, why, at, n > 0 ? ")" : "");
}

/* A rank that starts on a GPU with errors of before is told of too. */
static void warn_errors(struct gpu_view *v, const char *who)
{
    if (!v->has[KIND(ECC_UNCORRECTED)])
        return;
    double now = v->value[KIND(ECC_UNCORRECTED)], before = v->errors_known ? v->errors : 0;
    v->errors = now;
    v->errors_known = true;
    if (now > before)
        log_warn("%s: %.0f uncorrected memory errors of the GPU since its driver was loaded, %.0f "
                 "more than before: drain the machine and reset the GPU",
                 who, now, now - before);
}

static void take_xids(struct gpu_view *v, const char *who, const Witan__Cluster__V1__Gpu *gpu)
{
    size_t held = gpu->n_xids < GPU_MAX_XIDS ? gpu->n_xids : GPU_MAX_XIDS;
    const uint32_t *last = gpu->xids + (gpu->n_xids - held);
    uint64_t fresh = gpu->xid_count > v->xid_count ? gpu->xid_count - v->xid_count : 0;
    for (size_t i = fresh < held ? held - (size_t)fresh : 0; i < held; i++)
        log_error("%s: Xid %u of the GPU's driver: %s", who, last[i], xid_words(last[i]));
    if (fresh == 0)
        return;
    v->xid_count = gpu->xid_count;
    v->xids_held = (int32_t)held;
    if (held > 0)
        memcpy(v->xids, last, held * sizeof *last);
}

void gpu_heard(struct gpu_view *v, const char *who, const Witan__Cluster__V1__Gpu *gpu,
               int64_t now_ns)
{
    take_figures(v, gpu);
    if (!gpu)
        return;
    warn_clocks(v, who, now_ns);
    warn_errors(v, who);
    take_xids(v, who, gpu);
}

static char *copy(const char *text)
{
    char *out = strdup(text);
    CHECK(out, "no memory for a status");
    return out;
}

void gpu_put(const struct gpu_view *v, Witan__Inference__V1__Rank *out)
{
    out->figures = check_calloc(GPU_FIGURES, sizeof *out->figures);
    for (int i = 0; i < GPU_FIGURES; i++) {
        if (!v->has[i] || !figure_names[i])
            continue;
        Witan__Inference__V1__Figure *f = check_calloc(1, sizeof *f);
        witan__inference__v1__figure__init(f);
        f->name = copy(figure_names[i]);
        f->value = v->value[i];
        out->figures[out->n_figures++] = f;
    }
    out->held_down_by = check_calloc(COUNT_OF(reasons), sizeof *out->held_down_by);
    for (size_t i = 0; i < COUNT_OF(reasons); i++)
        if (throttle_of(v) & reasons[i].bit)
            out->held_down_by[out->n_held_down_by++] = copy(reasons[i].words);
    out->xids = check_calloc(GPU_MAX_XIDS, sizeof *out->xids);
    memcpy(out->xids, v->xids, (size_t)v->xids_held * sizeof *v->xids);
    out->n_xids = (size_t)v->xids_held;
}
