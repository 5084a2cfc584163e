/* `witan drain` and `witan restart`: groups taken out of service on purpose, and brought back. The
 * coordinator does it (coordinator/drain.h); what is here asks for it and watches. */
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/flags.h"

#include "base/check.h"
#include "base/clock.h"
#include "proto/inference.pb-c.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char drain_usage[] = "usage: witan drain GROUP [--undo] [--wait] [--force] "
                                  "[--stop [--within S]] [FLAG...]\n"
                                  "A group finishes what it runs and takes nothing new, until "
                                  "--undo. What still runs there after\n"
                                  "limits.drain_timeout_s goes on in another group. --wait: until "
                                  "nothing runs there. --force: though\n"
                                  "no other group takes requests. --stop: and then its ranks "
                                  "end, which others have started (Slurm,\n"
                                  "say); it takes requests again when it is back. --within S: what "
                                  "still runs there after S seconds\n"
                                  "goes on elsewhere, instead of limits.drain_timeout_s.\n";

static const char restart_usage[] = "usage: witan restart [GROUP...] [--force] [FLAG...]\n"
                                    "Restarts groups one after another, all of them unless named: "
                                    "each is drained, told to end, started\n"
                                    "again by whoever has started it, with the programs that lie "
                                    "there now, and awaited. Stops at the\n"
                                    "first that does not come back. --force: also one that no "
                                    "other can stand in for; requests wait.\n";

enum {
    TIMEOUT_MS = 5000,
    POLL_MS = 200,
    SLACK_S = 60, /* beyond the coordinator's own limits */
    MAX_GROUPS = 64,
};

struct asked {
    struct client_options where;
    const char *groups[MAX_GROUPS];
    int count;
    bool undo, wait, force, stop;
    int within_s; /* 0: as configured */
};

typedef Witan__Inference__V1__GetStatusResponse status_reply;
typedef Witan__Inference__V1__Group group;

/* One group, as the coordinator last said. */
struct view {
    const char *name;
    bool there, drained, restarting, ready;
    char state[32], message[1024];
    uint32_t requests;
    uint64_t times_ready;
};

/* --- calls -------------------------------------------------------------------------------------
 */

static enum status call(struct client *c, const char *method, const ProtobufCMessage *request,
                        const ProtobufCMessageDescriptor *reply,
                        void (*on_message)(void *user, const ProtobufCMessage *message), void *user,
                        struct error *err)
{
    const struct client_call asked = {.method = method,
                                      .request = request,
                                      .reply = reply,
                                      .on_message = on_message,
                                      .user = user,
                                      .timeout_ms = TIMEOUT_MS};
    return client_call(c, &asked, err);
}

static void on_status(void *user, const ProtobufCMessage *message)
{
    struct view *v = user;
    const status_reply *r = (const status_reply *)message;
    for (size_t i = 0; i < r->n_groups; i++) {
        const group *g = r->groups[i];
        if (strcmp(g->name, v->name) != 0)
            continue;
        v->there = true;
        v->drained = g->drained;
        v->restarting = g->restarting;
        v->ready = strcmp(g->state, "ready") == 0 || strcmp(g->state, "draining") == 0;
        v->requests = g->requests;
        v->times_ready = g->times_ready;
        snprintf(v->state, sizeof v->state, "%s", g->state);
        snprintf(v->message, sizeof v->message, "%s", g->message);
    }
}

static enum status look(struct client *c, struct view *v, struct error *err)
{
    Witan__Inference__V1__GetStatusRequest request = WITAN__INFERENCE__V1__GET_STATUS_REQUEST__INIT;
    v->there = false;
    TRY(call(c, "/witan.inference.v1.Admin/GetStatus", &request.base,
             &witan__inference__v1__get_status_response__descriptor, on_status, v, err));
    return v->there ? OK
                    : error_set(err, ERR_NOT_FOUND, "this cluster has no group \"%s\"", v->name);
}

static void on_names(void *user, const ProtobufCMessage *message)
{
    struct asked *a = user;
    const status_reply *r = (const status_reply *)message;
    for (size_t i = 0; i < r->n_groups && a->count < MAX_GROUPS; i++) {
        a->groups[a->count] = strdup(r->groups[i]->name); /* until the process ends */
        CHECK(a->groups[a->count], "no memory for a name");
        a->count++;
    }
}

static enum status all_groups(struct client *c, struct asked *a, struct error *err)
{
    Witan__Inference__V1__GetStatusRequest request = WITAN__INFERENCE__V1__GET_STATUS_REQUEST__INIT;
    return call(c, "/witan.inference.v1.Admin/GetStatus", &request.base,
                &witan__inference__v1__get_status_response__descriptor, on_names, a, err);
}

/* --- drain -------------------------------------------------------------------------------------
 */

struct drained {
    uint32_t requests;
    bool stops;
};

static void on_drained(void *user, const ProtobufCMessage *message)
{
    const Witan__Inference__V1__DrainResponse *r =
        (const Witan__Inference__V1__DrainResponse *)message;
    *(struct drained *)user = (struct drained){.requests = r->requests, .stops = r->stops};
}

/* Until nothing runs there; with --stop, until its ranks have been told to end and have gone. */
static enum status await_drained(struct client *c, struct view *v, bool stop, struct error *err)
{
    while (stop || v->requests > 0) {
        usleep(POLL_MS * 1000);
        TRY(look(c, v, err));
        bool gone = !v->ready && strcmp(v->state, "stopping") != 0;
        if (stop && gone) {
            printf("group %s: its ranks have gone\n", v->name);
            return OK;
        }
        if (!v->drained)
            return error_set(err, ERR_CANCELLED, "group %s: somebody has undone it", v->name);
    }
    printf("group %s: nothing runs there\n", v->name);
    return OK;
}

static enum status drain(struct client *c, struct asked *a, struct error *err)
{
    Witan__Inference__V1__DrainRequest request = WITAN__INFERENCE__V1__DRAIN_REQUEST__INIT;
    struct view v = {.name = a->groups[0]};
    struct drained told = {0};
    request.group = (char *)a->groups[0];
    request.undo = a->undo;
    request.force = a->force;
    request.stop = a->stop;
    request.within_s = (uint32_t)a->within_s;
    TRY(call(c, "/witan.inference.v1.Admin/Drain", &request.base,
             &witan__inference__v1__drain_response__descriptor, on_drained, &told, err));
    v.requests = told.requests;
    if (a->stop && !told.stops)
        return error_set(err, ERR_INVALID,
                         "--stop: the coordinator is of a release before it: group %s is drained, "
                         "and its ranks go on",
                         v.name);
    if (a->undo) {
        printf("group %s: takes requests again\n", v.name);
        return OK;
    }
    printf("group %s: takes nothing new; %u requests run there\n", v.name, v.requests);
    fflush(stdout);
    return a->wait && (a->stop || v.requests > 0) ? await_drained(c, &v, a->stop, err) : OK;
}

/* --- restart -----------------------------------------------------------------------------------
 */

struct begun {
    uint32_t requests, most_s;
};

static void on_begun(void *user, const ProtobufCMessage *message)
{
    const Witan__Inference__V1__RestartResponse *r =
        (const Witan__Inference__V1__RestartResponse *)message;
    struct begun *b = user;
    b->requests = r->requests;
    b->most_s = r->drain_timeout_s + r->start_timeout_s + SLACK_S;
}

static void tell(const struct view *v, const char *before)
{
    if (strcmp(before, v->state) == 0)
        return;
    printf("group %s: %s%s%s\n", v->name, v->state, *v->message ? ": " : "", v->message);
    fflush(stdout);
}

/* One that cannot be asked for a moment is asked again, up to the deadline. */
static enum status await(struct client *c, struct view *v, int64_t deadline_ns, struct error *err)
{
    uint64_t times = v->times_ready;
    for (;;) {
        char before[sizeof v->state];
        memcpy(before, v->state, sizeof before);
        usleep(POLL_MS * 1000);
        enum status st = look(c, v, err);
        if (st != OK && clock_now_ns() > deadline_ns)
            return st;
        if (st != OK)
            continue;
        if (v->ready && v->times_ready > times && !v->restarting)
            return OK;
        tell(v, before);
        if (!v->restarting || clock_now_ns() > deadline_ns)
            return error_set(err, ERR_PEER, "group %s was not restarted: it is %s%s%s", v->name,
                             v->state, *v->message ? ": " : "", v->message);
    }
}

static enum status restart_one(struct client *c, const char *name, bool force, struct error *err)
{
    Witan__Inference__V1__RestartRequest request = WITAN__INFERENCE__V1__RESTART_REQUEST__INIT;
    struct view v = {.name = name};
    struct begun b = {0};
    int64_t from = clock_now_ns();
    TRY(look(c, &v, err));
    request.group = (char *)name;
    request.force = force;
    TRY(call(c, "/witan.inference.v1.Admin/Restart", &request.base,
             &witan__inference__v1__restart_response__descriptor, on_begun, &b, err));
    printf("group %s: draining: %u requests run there\n", name, b.requests);
    fflush(stdout);
    snprintf(v.state, sizeof v.state, "draining");
    TRY(await(c, &v, from + b.most_s * (int64_t)1000000000, err));
    printf("group %s: ready again after %.1f s\n", name, (double)(clock_now_ns() - from) * 1e-9);
    fflush(stdout);
    return OK;
}

static enum status restart(struct client *c, struct asked *a, struct error *err)
{
    if (a->count == 0)
        TRY(all_groups(c, a, err));
    for (int i = 0; i < a->count; i++) {
        enum status st = restart_one(c, a->groups[i], a->force, err);
        if (st != OK && i + 1 < a->count)
            return error_advise(err, st, "the groups after it were left as they are");
        TRY(st);
    }
    return OK;
}

/* --- the commands ------------------------------------------------------------------------------
 */

/* 1: argv[*i] is a flag of `witan drain` alone, and *i its last word; 0: it is not; -1: bad. */
static int drain_flag(struct asked *a, int argc, char **argv, int *i)
{
    if (strcmp(argv[*i], "--undo") == 0)
        a->undo = true;
    else if (strcmp(argv[*i], "--wait") == 0)
        a->wait = true;
    else if (strcmp(argv[*i], "--stop") == 0)
        a->stop = true;
    else if (strcmp(argv[*i], "--within") != 0)
        return 0;
    else if (++*i >= argc)
        return -1;
    else
        return flags_int("witan drain", "--within", argv[*i], 1, 604800, &a->within_s) ? 1 : -1;
    return 1;
}

/* 0: go on; else the exit code, or -1: help was asked for and given. */
static int parse(int argc, char **argv, const char *usage, int most, struct asked *a)
{
    client_init(&a->where);
    for (int i = 1; i < argc; i++) {
        int taken = client_flag(&a->where, argc, argv, &i);
        if (taken == 0 && most == 1)
            taken = drain_flag(a, argc, argv, &i);
        if (taken < 0)
            return 2;
        if (taken > 0)
            continue;
        if (strcmp(argv[i], "--force") == 0) {
            a->force = true;
        } else if (strcmp(argv[i], "--help") == 0) {
            printf("%s%s", usage, client_help);
            return -1;
        } else if (argv[i][0] != '-' && a->count < most) {
            a->groups[a->count++] = argv[i];
        } else {
            fprintf(stderr, "%s%s", usage, client_help);
            return 2;
        }
    }
    return 0;
}

static int run(const char *command, struct asked *a,
               enum status (*fn)(struct client *c, struct asked *a, struct error *err))
{
    struct error err;
    struct client *c = NULL;
    enum status st = client_open(&a->where, &c, &err);
    if (st == OK)
        st = fn(c, a, &err);
    client_close(c);
    if (st != OK)
        fprintf(stderr, "witan %s: %s\n", command, err.msg);
    return st == OK ? 0 : 1;
}

int cmd_drain(int argc, char **argv)
{
    struct asked a = {0};
    int code = parse(argc, argv, drain_usage, 1, &a);
    if (code != 0)
        return code < 0 ? 0 : code;
    if (a.count != 1 || (a.undo && (a.wait || a.force || a.stop)) || (a.within_s > 0 && !a.stop)) {
        fprintf(stderr, "%s%s", drain_usage, client_help);
        return 2;
    }
    return run("drain", &a, drain);
}

int cmd_restart(int argc, char **argv)
{
    struct asked a = {0};
    int code = parse(argc, argv, restart_usage, MAX_GROUPS, &a);
    if (code != 0)
        return code < 0 ? 0 : code;
    return run("restart", &a, restart);
}
