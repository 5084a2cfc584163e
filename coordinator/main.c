/*
 * witan-coordinator: the front of a cluster. Reads cluster.yaml, listens for ranks and clients,
 * runs the event loop until a signal ends it in order.
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/service.h"
#include "coordinator/confine.h"
#include "coordinator/drain.h"
#include "coordinator/hang.h"
#include "coordinator/http.h"
#include "coordinator/inference.h"
#include "coordinator/members.h"
#include "proto/pki.h"

#include <event2/event.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: witan-coordinator -c cluster.yaml [--drained GROUP]... [--notify-fd N]\n"
    "  --drained GROUP this group takes no requests, as after `witan drain GROUP`\n"
    "  --notify-fd N   lines on this descriptor: `manifest SHA-256 SIGNERS`, `layout GROUP "
    "LAYOUT`,\n"
    "                  `listening WHAT HOST:PORT`, `group NAME STATE MESSAGE`, `drained GROUP`,\n"
    "                  `undrained GROUP`, `ready`, `failed MESSAGE` (`witan serve` reads them)\n";

enum { GRACE_S = 10, STOP_S = 10, STEP_MS = 50 };

enum stage { RUNNING, GRACE, STOPPING };

struct coordinator {
    struct config config;
    struct loop *loop;
    struct rpc *rpc;
    struct core *core;
    struct http *http;
    struct inference *inference;
    struct event *signals[2], *hangup, *second, *watch, *step;
    enum stage stage;
    int64_t deadline_ns; /* of the stage */
    bool was_ready, told_ready;
    const char *drained[CONFIG_MAX_GROUPS]; /* by --drained */
    uint32_t drained_count;
};

static int notify_fd = -1;

static void notify(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void notify(const char *fmt, ...)
{
    char line[2048];
    va_list ap;
    if (notify_fd < 0)
        return;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line - 1, fmt, ap);
    va_end(ap);
    n = n < (int)sizeof line - 2 ? n : (int)sizeof line - 2;
    line[n] = '\n';
    ssize_t ignored = write(notify_fd, line, (size_t)n + 1);
    (void)ignored;
}

/* --- the end -----------------------------------------------------------------------------------
 */

static int active(const struct coordinator *c)
{
    return (c->http ? http_active(c->http) : 0) +
           (c->inference ? inference_active(c->inference) : 0) + members_relays(c->core->members);
}

static void begin_stage(struct coordinator *c, enum stage stage, int seconds)
{
    c->stage = stage;
    c->deadline_ns = clock_now_ns() + (int64_t)seconds * 1000000000;
}

static void on_step(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct coordinator *c = arg;
    bool late = clock_now_ns() > c->deadline_ns;
    if (c->stage == GRACE && (active(c) == 0 || late)) {
        if (late)
            log_warn("%d answers did not end in time and are cut off", active(c));
        members_stop(c->core->members, "the coordinator is stopping");
        begin_stage(c, STOPPING, STOP_S);
    } else if (c->stage == STOPPING && (members_gone(c->core->members) || late)) {
        if (late)
            log_warn("some ranks did not end in time");
        loop_stop(c->loop);
    }
}

/* The first signal lets answers end; another one cuts them off. */
static void on_signal(evutil_socket_t number, short what, void *arg)
{
    (void)what;
    struct coordinator *c = arg;
    struct timeval every = {.tv_usec = STEP_MS * 1000};
    if (c->stage != RUNNING) {
        c->deadline_ns = 0;
        return;
    }
    service_tell("STOPPING=1");
    log_info("%s: stopping", number == SIGINT ? "SIGINT" : "SIGTERM");
    if (c->http)
        http_stop(c->http);
    if (c->inference)
        inference_stop(c->inference);
    generation_end_held(c->core);
    members_leave(c->core->members);
    begin_stage(c, GRACE, GRACE_S);
    evtimer_add(c->step, &every);
}

/* Keys and the issuer's are read again, whether their files look new or not. */
static void on_hangup(evutil_socket_t number, short what, void *arg)
{
    (void)number, (void)what;
    struct coordinator *c = arg;
    identity_reload(c->core->identity);
}

/* Once a second. */
static void on_second(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct coordinator *c = arg;
    struct error err;
    members_tick(c->core->members);
    generation_tick(c->core);
    identity_tick(c->core->identity);
    if (c->inference)
        inference_tick(c->inference);
    bool ready = c->stage == RUNNING && core_ready(c->core, &err) == OK;
    if (ready != c->was_ready && c->inference)
        inference_set_serving(c->inference, ready);
    c->was_ready = ready;
}

static void on_watch(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct coordinator *c = arg;
    members_watch(c->core->members);
}

static struct coordinator *the_coordinator; /* for on_group, which has no argument of its own */

static void on_group(const char *group, const char *state, const char *message)
{
    struct coordinator *c = the_coordinator;
    if (strcmp(state, "drained") == 0 || strcmp(state, "undrained") == 0) {
        notify("%s %s", state, group);
        return;
    }
    notify("group %s %s %s", group, state, message);
    if (!c->told_ready && c->core->members && members_all_ready(c->core->members)) {
        c->told_ready = true;
        notify("ready");
        log_info("ready: %s", c->core->served.name);
        service_tell("STATUS=serves %s", c->core->served.name);
    }
    if (c->core->members)
        on_second(-1, 0, c);
}

/* --- the start ---------------------------------------------------------------------------------
 */

/* "127.0.0.1:0" and the port that it became. */
static void tell_listening(const char *what, const char *address, int port)
{
    char host[256];
    int ignored;
    struct error err;
    if (address_split(address, host, &ignored, &err) != OK)
        return;
    bool six = strchr(host, ':') != NULL;
    log_info("listening for %s on %s%s%s:%d", what, six ? "[" : "", host, six ? "]" : "", port);
    notify("listening %s %s%s%s:%d", what, six ? "[" : "", host, six ? "]" : "", port);
}

/* What the model was proven by, and the layouts that follow from it. */
static void tell_served(const struct coordinator *c)
{
    const struct manifest *m = c->core->served.manifest;
    if (m)
        notify("manifest %s %s", manifest_digest(m), manifest_signers(m));
    Witan__Inference__V1__GetStatusResponse *r = check_calloc(1, sizeof *r);
    witan__inference__v1__get_status_response__init(r);
    members_status(c->core->members, r);
    for (size_t i = 0; i < r->n_groups; i++)
        notify("layout %s %s", r->groups[i]->name, r->groups[i]->layout);
    witan__inference__v1__get_status_response__free_unpacked(r, NULL);
}

static enum status open_cluster(struct coordinator *c, struct error *err)
{
    struct pki_files files;
    if (!c->config.pki)
        return error_set(err, ERR_INVALID,
                         "pki: expected the folder of this cluster's "
                         "certificates (`witan pki init`; `witan serve` on one "
                         "machine makes its own)");
    TRY(pki_load(c->config.pki, "coordinator", &files, err));
    struct rpc_tls tls = {.ca = files.ca, .cert = files.cert, .key = files.key};
    enum status st = members_create(c->core, c->rpc, &tls, on_group, &c->core->members, err);
    pki_files_fini(&files);
    if (st == OK)
        tell_served(c);
    if (st == OK)
        tell_listening("cluster", c->config.listen.cluster, members_port(c->core->members));
    return st;
}

static enum status open_doors(struct coordinator *c, struct error *err)
{
    TRY(open_cluster(c, err));
    if (strcmp(c->config.listen.http, "off") != 0) {
        TRY(http_create(c->core, &c->http, err));
        tell_listening("http", c->config.listen.http, http_port(c->http));
    }
    if (strcmp(c->config.listen.grpc, "off") != 0) {
        TRY(inference_create(c->core, c->rpc, &c->inference, err));
        tell_listening("grpc", c->config.listen.grpc, inference_port(c->inference));
    }
    return OK;
}

static enum status watch(struct coordinator *c, struct error *err)
{
    struct event_base *base = loop_base(c->loop);
    struct timeval second = {.tv_sec = 1}, tick = {.tv_usec = HANG_TICK_MS * 1000};
    c->signals[0] = evsignal_new(base, SIGINT, on_signal, c);
    c->signals[1] = evsignal_new(base, SIGTERM, on_signal, c);
    c->hangup = evsignal_new(base, SIGHUP, on_hangup, c);
    c->second = event_new(base, -1, EV_PERSIST, on_second, c);
    c->watch = event_new(base, -1, EV_PERSIST, on_watch, c);
    c->step = event_new(base, -1, EV_PERSIST, on_step, c);
    if (!c->signals[0] || !c->signals[1] || !c->hangup || !c->second || !c->watch || !c->step ||
        event_add(c->signals[0], NULL) != 0 || event_add(c->signals[1], NULL) != 0 ||
        event_add(c->hangup, NULL) != 0 || event_add(c->second, &second) != 0 ||
        event_add(c->watch, &tick) != 0)
        return error_set(err, ERR_NO_MEMORY, "cannot watch for signals");
    return OK;
}

/* Those that were drained in the coordinator before this one. */
static enum status drain_again(struct coordinator *c, struct error *err)
{
    for (uint32_t i = 0; i < c->drained_count; i++) {
        uint32_t requests;
        enum status st = drain_group(c->core->members, c->drained[i], false, true, &requests, err);
        if (st != OK) {
            error_prefix(err, "--drained: ");
            return st;
        }
    }
    return OK;
}

static enum status start(struct coordinator *c, const char *path, struct error *err)
{
    TRY(config_init(&c->config, err));
    TRY(config_read(path, &c->config, err));
    TRY(config_check(&c->config, err));
    log_set_level(c->config.verbose ? LOG_INFO : LOG_WARN);
    TRY(confine(&c->config, err)); /* from here on no more than is configured */
    TRY(loop_create(&c->loop, err));
    TRY(watch(c, err));
    TRY(rpc_create(1000, NULL, NULL, &c->rpc, err));
    TRY(core_create(&c->config, c->loop, &c->core, err));
    TRY(open_doors(c, err));
    return drain_again(c, err); /* nobody has been let in yet: the loop does not run */
}

static void finish(struct coordinator *c)
{
    struct event *events[] = {c->signals[0], c->signals[1], c->hangup,
                              c->second,     c->watch,      c->step};
    inference_destroy(c->inference);
    http_destroy(c->http);
    if (c->core)
        members_destroy(c->core->members);
    if (c->rpc)
        rpc_destroy(c->rpc);
    core_destroy(c->core);
    for (size_t i = 0; i < COUNT_OF(events); i++)
        if (events[i])
            event_free(events[i]);
    loop_destroy(c->loop);
    config_fini(&c->config);
}

static int parse(int argc, char **argv, struct coordinator *c, const char **config)
{
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            exit(0);
        } else if ((strcmp(argv[i], "-c") == 0 || strcmp(argv[i], "--config") == 0) && more) {
            *config = argv[++i];
        } else if (strcmp(argv[i], "--notify-fd") == 0 && more) {
            notify_fd = atoi(argv[++i]);
        } else if (strcmp(argv[i], "--drained") == 0 && more &&
                   c->drained_count < CONFIG_MAX_GROUPS) {
            c->drained[c->drained_count++] = argv[++i];
        } else {
            fputs(usage, stderr);
            return 2;
        }
    }
    if (!*config)
        fputs(usage, stderr);
    return *config ? 0 : 2;
}

int main(int argc, char **argv)
{
    struct coordinator c = {0};
    struct error err = {0};
    const char *path = NULL;
    int code = parse(argc, argv, &c, &path);
    if (code != 0)
        return code;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may grow no more is an error of the write */
    service_open();
    the_coordinator = &c;
    enum status st = start(&c, path, &err);
    if (st == OK) {
        service_tell("READY=1\nSTATUS=listens, waits for ranks"); /* which start after it */
        loop_run(c.loop);
    } else {
        fprintf(stderr, "witan-coordinator: %s\n", err.msg);
        notify("failed %s", err.msg);
    }
    finish(&c);
    return st == OK ? 0 : 1;
}
