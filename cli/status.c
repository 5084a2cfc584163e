/* `witan status`: what a coordinator says of its groups and ranks, as a page or as JSON. */
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/status.h"

#include "base/check.h"
#include "proto/inference.pb-c.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: witan status [--json] [FLAG...]\n"
    "Shows the coordinator's groups and ranks, and what a `witan serve` here keeps of them. Exit "
    "code "
    "0: every\n"
    "group is ready; 3: one is not; 1: the coordinator cannot be reached.\n"
    "  --run-dir DIR      of the `witan serve` that runs in this folder (default: the detached one "
    "of this user,\n"
    "                     where no address is given)\n";

enum { TIMEOUT_MS = 5000, NOT_READY = 3 };

typedef Witan__Inference__V1__GetStatusResponse reply;
typedef Witan__Inference__V1__Group group;
typedef Witan__Inference__V1__Rank rank;

static const double MB = 1e-6;

/* --- as a page, 100 columns --------------------------------------------------------------------
 */

void status_wrap(const char *text)
{
    enum { INDENT = 9, COLUMNS = 100 };
    int column = 0;
    while (*text) {
        int len = (int)strcspn(text, " ");
        if (column > 0 && column + 1 + len > COLUMNS) {
            putchar('\n');
            column = 0;
        }
        column += column == 0 ? printf("%*s%.*s", INDENT, "", len, text)
                              : printf(" %.*s", len, text);
        text += len + (text[len] == ' ');
    }
    putchar('\n');
}

static void show_memory(const rank *r)
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
        status_wrap(words);
    free(words);
}

static void show_device(const Witan__Inference__V1__Device *d)
{
    char *words = NULL;
    if (!d)
        return;
    CHECK(asprintf(&words, "on %s, compute capability %s, %.1f GB, driver for CUDA %s, %s at %s",
                   d->name, d->compute_capability, (double)d->memory_bytes * 1e-9, d->cuda_driver,
                   d->uuid, d->pci) > 0,
          "no memory for a line");
    status_wrap(words);
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
static void show_figures(const rank *r)
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
        status_wrap(words);
    free(words);
}

static void show_rank(const rank *r)
{
    printf("  rank %-3" PRIu32 " %.32s%s%.16s, process %" PRIu64 ": %.16s, step %" PRIu64
           ", heard %.1f s ago, %.10s\n",
           r->rank, r->host, *r->region ? " in " : "", r->region, r->pid, r->phase, r->step,
           r->heartbeat_seconds_ago, r->kernels);
    if (r->slowness > 1.5)
        printf("           computes %.1f times as long as its peers: they wait for it\n",
               r->slowness);
    show_device(r->device);
    show_figures(r);
    if (*r->holds)
        status_wrap(r->holds);
    show_memory(r);
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
static void show_losses(const group *g)
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
    status_wrap(words);
    free(words);
}

static void show_group(const group *g)
{
    printf("\ngroup %.40s: %.20s, %.40s", g->name, g->state, g->layout);
    if (g->drained || g->restarting)
        printf(", %s, %" PRIu32 " requests left", g->restarting ? "restarting" : "drained",
               g->requests);
    putchar('\n');
    if (*g->message && strcmp(g->message, g->last_loss) != 0)
        status_wrap(g->message);
    show_losses(g);
    if (g->n_ranks == 0)
        return;
    printf("  %" PRIu32 " running, %" PRIu32 " waiting, %" PRIu64 " preempted, %" PRIu32
           " of %" PRIu32 " KV blocks free (%" PRIu32 " cached),\n  %.0f %% of prompts' tokens "
           "found in the prefix cache, %" PRIu64 " tokens drawn, ",
           g->running, g->waiting, g->preempted, g->kv_blocks_free, g->kv_blocks,
           g->kv_blocks_cached, g->prefix_hit_rate * 100, g->tokens);
    if (g->wait_seconds > 0)
        printf("a new request waits about %.1f s, ", g->wait_seconds);
    if (g->proven_seconds_ago < 0)
        puts("not yet proven");
    else
        printf("proven %.1f s ago\n", g->proven_seconds_ago);
    for (size_t i = 0; i < g->n_ranks; i++)
        show_rank(g->ranks[i]);
}

static void show_manifest(const Witan__Inference__V1__Manifest *m)
{
    char *words = NULL;
    CHECK(asprintf(&words, "signed by %s", m->signers) > 0, "no memory for a line");
    printf("manifest SHA-256 %.64s\n", m->digest);
    status_wrap(words);
    free(words);
}

static void show(const reply *r)
{
    printf("%.60s  (witan %.20s, up %" PRIu64 " s, %" PRIu32 " requests running, %" PRIu64
           " done)\n",
           r->model, r->version, r->uptime_seconds, r->requests_running, r->requests_done);
    if (r->manifest)
        show_manifest(r->manifest);
    for (size_t i = 0; i < r->n_groups; i++)
        show_group(r->groups[i]);
}

/* --- as JSON -----------------------------------------------------------------------------------
 */

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)n);
}

/* null where the rank computes on its processor. */
static json_t *device_json(const Witan__Inference__V1__Device *d)
{
    if (!d)
        return json_null();
    return json_pack("{s:s, s:s, s:o, s:s, s:s, s:s}", "name", d->name, "compute_capability",
                     d->compute_capability, "memory_bytes", number(d->memory_bytes), "cuda_driver",
                     d->cuda_driver, "uuid", d->uuid, "pci", d->pci);
}

/* What is measured alone; null without a GPU. */
static json_t *gpu_json(const rank *r)
{
    if (!r->device)
        return json_null();
    json_t *o = json_object(), *reasons = json_array(), *xids = json_array();
    for (size_t i = 0; i < r->n_figures; i++)
        json_object_set_new(o, r->figures[i]->name, json_real(r->figures[i]->value));
    for (size_t i = 0; i < r->n_held_down_by; i++)
        json_array_append_new(reasons, json_string(r->held_down_by[i]));
    for (size_t i = 0; i < r->n_xids; i++)
        json_array_append_new(xids, number(r->xids[i]));
    json_object_set_new(o, "held_down_by", reasons);
    json_object_set_new(o, "xids", xids);
    return o;
}

static json_t *rank_json(const rank *r)
{
    json_t *memory = json_object();
    for (size_t i = 0; i < r->n_memory; i++)
        json_object_set_new(memory, r->memory[i]->name, number(r->memory[i]->bytes));
    return json_pack(
        "{s:o, s:s, s:o, s:s, s:s, s:o, s:f, s:s, s:s, s:o, s:o, s:s, s:s, s:o, s:o, s:f}", "rank",
        number(r->rank), "host", r->host, "pid", number(r->pid), "region", r->region, "phase",
        r->phase, "step", number(r->step), "heartbeat_seconds_ago", r->heartbeat_seconds_ago,
        "processor", r->processor, "kernels", r->kernels, "memory_bytes", memory, "resident_bytes",
        number(r->resident_bytes), "holds", r->holds, "manifest_digest", r->manifest_digest,
        "device", device_json(r->device), "gpu", gpu_json(r), "slowness", r->slowness);
}

/* Seconds are negative where it was never lost. */
static void put_losses_json(const group *g, json_t *out)
{
    json_object_set_new(out, "losses", number(g->losses));
    json_object_set_new(out, "failed_starts", number(g->failed_starts));
    json_object_set_new(out, "last_loss", json_string(g->last_loss));
    json_object_set_new(out, "last_loss_seconds_ago", json_real(g->last_loss_seconds_ago));
}

static json_t *group_json(const group *g)
{
    json_t *ranks = json_array();
    for (size_t i = 0; i < g->n_ranks; i++)
        json_array_append_new(ranks, rank_json(g->ranks[i]));
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:f, s:o, s:o, s:f, s:o, s:b, "
        "s:b, s:o, s:o, s:o, s:f}",
        "name", g->name, "state", g->state, "message", g->message, "layout", g->layout,
        "numerics_class", g->numerics_class, "through", g->through, "running", number(g->running),
        "waiting", number(g->waiting), "kv_blocks_free", number(g->kv_blocks_free), "kv_blocks",
        number(g->kv_blocks), "tokens", number(g->tokens), "proven_seconds_ago",
        g->proven_seconds_ago, "preempted", number(g->preempted), "kv_blocks_cached",
        number(g->kv_blocks_cached), "prefix_hit_rate", g->prefix_hit_rate, "ranks", ranks,
        "drained", g->drained, "restarting", g->restarting, "requests", number(g->requests),
        "times_ready", number(g->times_ready), "waiting_tokens", number(g->waiting_tokens),
        "wait_seconds", g->wait_seconds);
}

static void dump(json_t *all)
{
    CHECK(all, "no memory for the status");
    json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(all);
}

static void show_json(const reply *r, json_t *serve)
{
    json_t *groups = json_array();
    for (size_t i = 0; i < r->n_groups; i++) {
        json_t *o = group_json(r->groups[i]);
        put_losses_json(r->groups[i], o);
        json_array_append_new(groups, o);
    }
    json_t *manifest = r->manifest ? json_pack("{s:s, s:s}", "digest", r->manifest->digest,
                                               "signers", r->manifest->signers)
                                   : json_null();
    json_t *all = json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:O?}", "version", r->version,
                            "model", r->model, "model_dir", r->model_dir, "manifest", manifest,
                            "uptime_seconds", number(r->uptime_seconds), "requests_running",
                            number(r->requests_running), "requests_done", number(r->requests_done),
                            "groups", groups, "serve", serve);
    dump(all);
}

/* --- the command -------------------------------------------------------------------------------
 */

struct outcome {
    bool json;
    const char *run_dir; /* NULL: none was given */
    json_t *serve;       /* NULL: none is known; owned */
    bool ready;          /* every group is */
};

/* On the rpc thread, while the caller waits. */
static void on_reply(void *user, const ProtobufCMessage *message)
{
    struct outcome *o = user;
    const reply *r = (const reply *)message;
    o->ready = r->n_groups > 0;
    for (size_t i = 0; i < r->n_groups; i++)
        o->ready &= strcmp(r->groups[i]->state, "ready") == 0;
    if (o->json)
        show_json(r, o->serve);
    else
        show(r);
}

static enum status ask(const struct client_options *where, struct outcome *o, struct error *err)
{
    struct client *client;
    Witan__Inference__V1__GetStatusRequest request = WITAN__INFERENCE__V1__GET_STATUS_REQUEST__INIT;
    struct client_call call = {
        .method = "/witan.inference.v1.Admin/GetStatus",
        .request = &request.base,
        .reply = &witan__inference__v1__get_status_response__descriptor,
        .on_message = on_reply,
        .user = o,
        .timeout_ms = TIMEOUT_MS,
    };
    TRY(client_open(where, &client, err));
    enum status st = client_call(client, &call, err);
    client_close(client);
    return st;
}

/* Of the coordinator of the `witan serve` that is known, where no other address was given. */
static enum status find_and_ask(struct client_options *where, bool anywhere, struct outcome *o,
                                struct error *err)
{
    if (anywhere && o->serve) {
        where->address = status_serve_address(o->serve);
        if (!where->address)
            return error_set(
                err, ERR_NOT_FOUND,
                "this `witan serve` has no gRPC door: it is starting, or listen.grpc is "
                "off");
    }
    return ask(where, o, err);
}

/* What is known of `witan serve` is shown whether or not its coordinator answers. */
static int run(struct client_options *where, bool anywhere, struct outcome *o)
{
    struct error err;
    enum status st = OK;
    if (o->run_dir || anywhere)
        st = status_serve_read(o->run_dir, &o->serve, &err);
    if (st == OK) {
        st = find_and_ask(where, anywhere, o, &err);
        if (st != OK && o->serve && o->json)
            dump(json_pack("{s:O}", "serve", o->serve));
        if (o->serve && !o->json)
            status_serve_show(o->serve);
    }
    fflush(stdout);
    if (st != OK)
        fprintf(stderr, "witan status: %s\n", err.msg);
    json_decref(o->serve);
    return st != OK ? 1 : o->ready ? 0 : NOT_READY;
}

int cmd_status(int argc, char **argv)
{
    struct client_options where;
    struct outcome o = {0};
    client_init(&where);
    const char *nobody = where.address;
    for (int i = 1; i < argc; i++) {
        int taken = client_flag(&where, argc, argv, &i);
        if (taken < 0)
            return 2;
        if (taken > 0)
            continue;
        if (strcmp(argv[i], "--json") == 0) {
            o.json = true;
        } else if (strcmp(argv[i], "--run-dir") == 0 && i + 1 < argc) {
            o.run_dir = argv[++i];
        } else if (strcmp(argv[i], "--help") == 0) {
            printf("%s%s", usage, client_help);
            return 0;
        } else {
            fprintf(stderr, "%s%s", usage, client_help);
            return 2;
        }
    }
    return run(&where, where.address == nobody, &o);
}
