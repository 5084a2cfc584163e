/* What a coordinator says of its groups and ranks, as a page: see status.h. */
#include "cli/status.h"

#include "base/check.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef Witan__Inference__V1__GetStatusResponse reply;
typedef Witan__Inference__V1__Group group;
typedef Witan__Inference__V1__Rank rank;

static const double MB = 1e-6;

void status_wrap(const struct status_page *p, const char *text)
{
    enum { INDENT = 9 };
    int column = 0;
    while (*text) {
        int len = (int)strcspn(text, " ");
        if (column > 0 && column + 1 + len > p->columns) {
            fputc('\n', p->f);
            column = 0;
        }
        column += column == 0 ? fprintf(p->f, "%*s%.*s", INDENT, "", len, text)
                              : fprintf(p->f, " %.*s", len, text);
        text += len + (text[len] == ' ');
    }
    fputc('\n', p->f);
}

static void show_memory(const struct status_page *p, const rank *r)
{
    uint64_t total = 0;
    char *words = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&words, &len);
    CHECK(f, "no memory for a line");
    for (size_t i = 0; i < r->n_memory; i++) {
        total += r->memory[i]->bytes;
        fprintf(f, "%s%s %.1f", i > 0 ? ", " : "", r->memory[i]->name,
                (double)r->memory[i]->bytes * MB);
    }
    fprintf(f, "; %.1f MB in all, resident %.1f MB", (double)total * MB,
            (double)r->resident_bytes * MB);
    fclose(f);
    if (total > 0)
        status_wrap(p, words);
    free(words);
}

static void show_device(const struct status_page *p, const Witan__Inference__V1__Device *d)
{
    char *words = NULL;
    if (!d)
        return;
    CHECK(asprintf(&words, "on %s, compute capability %s, %.1f GB, driver for CUDA %s, %s at %s",
                   d->name, d->compute_capability, (double)d->memory_bytes * 1e-9, d->cuda_driver,
                   d->uuid, d->pci) > 0,
          "no memory for a line");
    status_wrap(p, words);
    free(words);
}

static double figure(const rank *r, const char *name)
{
    for (size_t i = 0; i < r->n_figures; i++)
        if (strcmp(r->figures[i]->name, name) == 0)
            return r->figures[i]->value;
    return NAN;
}

/* The GPU's figures that are measured. */
static void show_figures(const struct status_page *p, const rank *r)
{
    static const struct {
        const char *name, *before, *after;
        int digits;
        double scale;
    } shown[] = {
        {"power_w", "", " W", 0, 1},
        {"energy_j", "", " kJ since the start", 3, 1e-3},
        {"step_j", "", " J a step", 3, 1},
        {"sm_mhz", "SM ", " MHz", 0, 1},
        {"memory_mhz", "memory ", " MHz", 0, 1},
        {"temperature_c", "", " C", 0, 1},
        {"ecc_corrected", "", " memory errors corrected", 0, 1},
        {"ecc_uncorrected", "", " not", 0, 1},
    };
    char *words = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&words, &len);
    CHECK(f, "no memory for a line");
    const char *between = "";
    for (size_t i = 0; i < COUNT_OF(shown); i++) {
        double value = figure(r, shown[i].name);
        if (isnan(value))
            continue;
        fprintf(f, "%s%s%.*f%s", between, shown[i].before, shown[i].digits, value * shown[i].scale,
                shown[i].after);
        between = ", ";
    }
    for (size_t i = 0; i < r->n_held_down_by; i++)
        fprintf(f, "%s%s", i > 0 ? ", " : "; clocks held down by ", r->held_down_by[i]);
    for (size_t i = 0; i < r->n_xids; i++)
        fprintf(f, "%s%" PRIu32, i > 0 ? ", " : "; Xid ", r->xids[i]);
    fclose(f);
    if (len > 0)
        status_wrap(p, words);
    free(words);
}

static void show_rank(const struct status_page *p, const char *in, const rank *r)
{
    fprintf(p->f,
            "  rank %-3" PRIu32 " %.32s%s%.16s, process %" PRIu64 ": %.16s, step %" PRIu64
            ", heard %.1f s ago, %.10s\n",
            r->rank, r->host, *r->region ? " in " : "", r->region, r->pid, r->phase, r->step,
            r->heartbeat_seconds_ago, r->kernels);
    if (r->slowness > 1.5)
        fprintf(p->f, "           computes %.1f times as long as its peers: they wait for it\n",
                r->slowness);
    status_show_rank_rates(p, in, r);
    show_device(p, r->device);
    show_figures(p, r);
    if (*r->holds)
        status_wrap(p, r->holds);
    show_memory(p, r);
}

const char *status_times(uint64_t n)
{
    return n == 1 ? "time" : "times";
}

void status_put_age(FILE *f, double seconds)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"s", 1}, {"min", 60}, {"h", 3600}, {"days", 86400}};
    size_t i = 0;
    while (i + 1 < COUNT_OF(units) && seconds >= 2 * units[i + 1].seconds)
        i++;
    fprintf(f, "%.0f %s ago", seconds / units[i].seconds, units[i].unit);
}

/* How often the group was lost, and why the last time: said also when it is ready again. */
static void show_losses(const struct status_page *p, const group *g)
{
    char *words = NULL;
    size_t len = 0;
    if (g->losses + g->failed_starts == 0)
        return;
    FILE *f = open_memstream(&words, &len);
    CHECK(f, "no memory for a line");
    if (g->losses > 0)
        fprintf(f, "lost %" PRIu64 " %s, ", g->losses, status_times(g->losses));
    if (g->failed_starts > 0)
        fprintf(f, "lost before it was ready %" PRIu64 " %s, ", g->failed_starts,
                status_times(g->failed_starts));
    fputs("last ", f);
    status_put_age(f, g->last_loss_seconds_ago);
    fprintf(f, ": %s", g->last_loss);
    fclose(f);
    status_wrap(p, words);
    free(words);
}

static void show_experts(const struct status_page *p, const Witan__Inference__V1__ExpertUse *e)
{
    if (!e)
        return;
    fprintf(p->f,
            "  a layer's busiest expert has %.1f times the mean of its layer (in layer %" PRIu32
            " expert %" PRIu32 ": %.1f)",
            e->mean, e->worst_layer, e->worst_expert, e->worst);
    if (e->shares > 0)
        fprintf(p->f, ", its busiest share of experts %.1f", e->shares);
    fputc('\n', p->f);
}

/* "energy 12.3 kJ: requests 81 %, between steps 17 %, other steps 2 %" */
static void show_energy(const struct status_page *p, const Witan__Inference__V1__Energy *e)
{
    if (!e || !(e->all > 0))
        return;
    fprintf(p->f,
            "  energy %.3f kJ%s: requests %.0f %%, between steps %.0f %%, other steps %.0f %%\n",
            e->all * 1e-3, e->known ? "" : " (some ranks do not tell it now)",
            e->requests / e->all * 100, e->idle / e->all * 100, e->other / e->all * 100);
}

static void show_group(const struct status_page *p, const group *g)
{
    fprintf(p->f, "\ngroup %.40s: %.20s, %.40s", g->name, g->state, g->layout);
    if (g->drained || g->restarting)
        fprintf(p->f, ", %s, %" PRIu32 " requests left", g->restarting ? "restarting" : "drained",
                g->requests);
    fputc('\n', p->f);
    if (*g->message && strcmp(g->message, g->last_loss) != 0)
        status_wrap(p, g->message);
    show_losses(p, g);
    if (g->n_ranks == 0)
        return;
    status_show_group_rates(p, g);
    fprintf(p->f,
            "  %" PRIu32 " running, %" PRIu32 " waiting, %" PRIu64 " preempted, %" PRIu32
            " of %" PRIu32 " KV blocks free (%" PRIu32 " cached),\n  %.0f %% of prompts' tokens "
            "found in the prefix cache, %" PRIu64 " tokens drawn, ",
            g->running, g->waiting, g->preempted, g->kv_blocks_free, g->kv_blocks,
            g->kv_blocks_cached, g->prefix_hit_rate * 100, g->tokens);
    if (g->wait_seconds > 0)
        fprintf(p->f, "a new request waits about %.1f s, ", g->wait_seconds);
    if (g->proven_seconds_ago < 0)
        fputs("not yet proven\n", p->f);
    else
        fprintf(p->f, "proven %.1f s ago\n", g->proven_seconds_ago);
    show_experts(p, g->experts);
    show_energy(p, g->energy);
    for (size_t i = 0; i < g->n_ranks; i++)
        show_rank(p, g->name, g->ranks[i]);
}

static void show_manifest(const struct status_page *p, const Witan__Inference__V1__Manifest *m)
{
    char *words = NULL;
    CHECK(asprintf(&words, "signed by %s", m->signers) > 0, "no memory for a line");
    fprintf(p->f, "manifest SHA-256 %.64s\n", m->digest);
    status_wrap(p, words);
    free(words);
}

void status_show(const struct status_page *p, const reply *r)
{
    fprintf(p->f,
            "%.60s  (witan %.20s, up %" PRIu64 " s, %" PRIu32 " requests running, %" PRIu64
            " done)\n",
            r->model, r->version, r->uptime_seconds, r->requests_running, r->requests_done);
    status_show_rates(p, r);
    if (r->manifest)
        show_manifest(p, r->manifest);
    for (size_t i = 0; i < r->n_groups; i++)
        show_group(p, r->groups[i]);
}
