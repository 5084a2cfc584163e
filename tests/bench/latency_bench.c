/*
 * What the coordinator and its doors add to a token:
 *   latency_bench MODEL_DIR [THREADS]      (the folder of the shipped model: deploy/lexicon/model)
 *
 * Added a token: the time between two tokens at a client of the server, less the time between two
 * tokens of the same engine without one (what `witan run --requests` runs, in this process),
 * with the same sequences, layout and threads. The server's rank is up meanwhile, parked.
 *
 * Delivery: from the moment at which the leader hands over a step's tokens to the moment at which a
 * client has them, with a leader that computes nothing and sends a step every STEP_US.
 *
 * The clients are epoll over plain sockets for server-sent events, and proto/rpc.h for gRPC, in
 * this process; they share the cores with the server.
 */
#include "base/check.h"
#include "base/log.h"
#include "proto/versions.h"
#include "tests/bench/latency/latency.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STEPS = 400, STEP_US = 5000, ROUNDS = 10 };

static const struct load {
    int streams, tokens;
} loads[] = {{1, 512}, {50, 128}};

typedef enum status (*client_run)(const char *address, struct arrivals *a, struct error *err);

/* --- samples -----------------------------------------------------------------------------------
 */

struct samples {
    double *ms;
    size_t count;
};

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts them. */
static double percentile(struct samples *s, double p)
{
    if (s->count == 0)
        return 0;
    qsort(s->ms, s->count, sizeof *s->ms, by_size);
    return s->ms[(size_t)(p * (double)(s->count - 1) + 0.5)];
}

static struct samples samples_of(const struct arrivals *a)
{
    return (struct samples){
        .ms = check_calloc((size_t)a->streams * (size_t)a->tokens, sizeof(double))};
}

static void add(struct samples *s, int64_t ns)
{
    s->ms[s->count++] = (double)ns * 1e-6;
}

/* --- added a token -----------------------------------------------------------------------------
 */

/* The mean time between two tokens of a stream, the median over the streams. A mean, since a client
 * that waits for a core gets several tokens at once. */
static enum status gap_ms(const char *address, client_run run, const struct load *load, double *ms,
                          struct error *err)
{
    struct arrivals a;
    arrivals_init(&a, load->streams, load->tokens);
    struct samples s = samples_of(&a);
    enum status st = run(address, &a, err);
    for (int i = 0; st == OK && i < load->streams; i++) {
        const int64_t *ns = a.ns + (ptrdiff_t)i * load->tokens;
        int last = a.count[i] - 1;
        if (last > 0)
            add(&s, (ns[last] - ns[0]) / (load->tokens - 1));
    }
    *ms = percentile(&s, 0.5);
    free(s.ms);
    arrivals_fini(&a);
    return st;
}

/* What was printed must have a reader, or the bench ends here, in order. */
static enum status tell(struct error *err)
{
    return fflush(stdout) == 0 ? OK : error_errno(err, errno, "standard output");
}

/* Keeps the best of several rounds, taken in turn: other load only ever adds. */
static enum status print_load(const struct place *p, const struct cluster *c, const struct load *l,
                              struct error *err)
{
    enum { ALONE, HTTP, GRPC, WAYS };
    double best[WAYS] = {1e30, 1e30, 1e30}, now[WAYS];
    for (int round = 0; round < ROUNDS; round++) {
        TRY(engine_gap_ms(p, l->streams, l->tokens, &now[ALONE], err));
        TRY(gap_ms(c->http, sse_run, l, &now[HTTP], err));
        TRY(gap_ms(c->grpc, grpc_run, l, &now[GRPC], err));
        for (int i = 0; i < WAYS; i++)
            best[i] = now[i] < best[i] ? now[i] : best[i];
    }
    printf("  %3d streams of %d: the engine alone %.3f ms; HTTP %.3f ms (%+.3f), gRPC %.3f "
           "ms (%+.3f)\n",
           l->streams, l->tokens, best[ALONE], best[HTTP], best[HTTP] - best[ALONE], best[GRPC],
           best[GRPC] - best[ALONE]);
    return tell(err);
}

static enum status print_added(const struct place *p, const struct cluster *c, struct error *err)
{
    for (size_t i = 0; i < COUNT_OF(loads); i++)
        TRY(print_load(p, c, &loads[i], err));
    return OK;
}

static enum status measure_added(const struct place *p, struct error *err)
{
    struct cluster c;
    enum status st = cluster_start(p, true, &c, err);
    printf("a token, greedy: the time between two, and what is added:\n");
    if (st == OK)
        st = print_added(p, &c, err);
    struct error other;
    enum status stopped = cluster_stop(&c, st == OK ? err : &other);
    return st == OK ? stopped : st;
}

/* --- delivery ----------------------------------------------------------------------------------
 */

struct pacing {
    struct leader *leader;
    int streams;
    int64_t sent_ns[STEPS];
    enum status st;
    struct error err;
};

static void *pace(void *arg)
{
    struct pacing *p = arg;
    p->st = leader_pace(p->leader, p->streams, STEPS, STEP_US, p->sent_ns, &p->err);
    return NULL;
}

static enum status run_paced(struct leader *leader, const char *address, client_run run,
                             struct pacing *p, struct arrivals *a, struct error *err)
{
    pthread_t thread;
    *p = (struct pacing){.leader = leader, .streams = a->streams};
    CHECK(pthread_create(&thread, NULL, pace, p) == 0, "no thread");
    enum status st = run(address, a, err);
    pthread_join(thread, NULL);
    if (st == OK && p->st != OK) {
        *err = p->err;
        st = p->st;
    }
    for (int i = 0; st == OK && i < a->streams; i++)
        if (a->count[i] < STEPS)
            st = error_set(err, ERR_PEER, "stream %d had %d tokens of %d", i, a->count[i],
                           (int)STEPS);
    return st;
}

static enum status print_delivery(struct leader *leader, const char *door, const char *address,
                                  client_run run, int streams, struct error *err)
{
    struct arrivals a;
    struct pacing *p = check_calloc(1, sizeof *p);
    arrivals_init(&a, streams, STEPS);
    struct samples s = samples_of(&a);
    enum status st = run_paced(leader, address, run, p, &a, err);
    for (int i = 0; st == OK && i < streams; i++)
        for (int k = 0; k < STEPS; k++)
            add(&s, a.ns[i * STEPS + k] - p->sent_ns[k]);
    if (st == OK) {
        double median = percentile(&s, 0.5), p99 = percentile(&s, 0.99);
        printf("  %3d streams, %s: median %.3f ms, p99 %.3f ms\n", streams, door, median, p99);
        st = tell(err);
    }
    free(s.ms);
    free(p);
    arrivals_fini(&a);
    return st;
}

static enum status print_deliveries(const struct cluster *c, struct leader *leader,
                                    struct error *err)
{
    for (size_t i = 0; i < COUNT_OF(loads); i++) {
        TRY(print_delivery(leader, "HTTP", c->http, sse_run, loads[i].streams, err));
        TRY(print_delivery(leader, "gRPC", c->grpc, grpc_run, loads[i].streams, err));
    }
    return OK;
}

/* The coordinator ends first, and lets the leader go. */
static enum status measure_delivery(const struct place *p, struct error *err)
{
    struct cluster c;
    struct leader *leader = NULL;
    enum status st = cluster_start(p, false, &c, err);
    printf("delivery, from the leader's send to the client's receipt, %d steps, one every %.1f "
           "ms:\n",
           (int)STEPS, STEP_US * 1e-3);
    if (st == OK)
        st = leader_attach(&c, &leader, err);
    if (st == OK)
        st = cluster_wait_ready(&c, err);
    if (st == OK)
        st = print_deliveries(&c, leader, err);
    struct error other;
    enum status stopped = cluster_stop(&c, st == OK ? err : &other);
    leader_detach(leader);
    return st == OK ? stopped : st;
}

/* --- the command -------------------------------------------------------------------------------
 */

/* What else runs here spoils the figures: the reader must see it. */
static double load_average(void)
{
    double load = 0;
    return getloadavg(&load, 1) == 1 ? load : 0;
}

static void print_machine(int argc, char **argv, const struct place *p)
{
    char line[256], model[256] = "unknown processor";
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "model name : %255[^\n]", model) == 1)
            break;
    if (f)
        fclose(f);
    printf("command:");
    for (int i = 0; i < argc; i++)
        printf(" %s", argv[i]);
    printf(
        "\nmachine: %s, %ld cores online, load %.1f before; witan %s, one rank with %d threads\n",
        model, sysconf(_SC_NPROCESSORS_ONLN), load_average(), WITAN_VERSION, p->threads);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct error err;
    struct place place = {0};
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: latency_bench MODEL_DIR [THREADS]\n");
        return 2;
    }
    place.model = argv[1];
    place.threads = argc == 3 ? atoi(argv[2]) : cores > 2 ? (int)cores / 2 : 1;
    if (place.threads < 1) {
        fprintf(stderr, "latency_bench: THREADS: expected 1 or more, found %s\n", argv[2]);
        return 2;
    }
    log_set_level(LOG_WARN);
    signal(SIGPIPE, SIG_IGN); /* tell() says it */
    enum status st = place_find(&place, &err);
    if (st == OK) {
        print_machine(argc, argv, &place);
        st = measure_delivery(&place, &err);
    }
    if (st == OK)
        st = measure_added(&place, &err);
    if (st != OK)
        fprintf(stderr, "latency_bench: %s\n", err.msg);
    return st == OK ? 0 : 1;
}
