/*
 * The Cluster service: one stream a rank. Runs on the rpc thread and decides nothing: whatever
 * comes is handed to the loop thread in order (members.c).
 */
#include "base/check.h"
#include "base/clock.h"
#include "coordinator/members_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct handed {
    struct member *member;
    Witan__Cluster__V1__RankMessage *message;
    int code;
    char text[512];
};

static void run_opened(void *arg)
{
    member_opened(arg);
}

static void run_message(void *arg)
{
    struct handed *h = arg;
    member_message(h->member, h->message);
    free(h);
}

static void run_closed(void *arg)
{
    struct handed *h = arg;
    member_closed(h->member, h->code, h->text);
    free(h);
}

/* A loop with so much work waiting is stuck; nothing that this process promises holds any more. */
static void post(struct member *r, void (*fn)(void *arg), void *arg)
{
    struct error err;
    enum status st = loop_post(r->members->core->loop, fn, arg, &err);
    CHECK(st == OK, "%s", err.msg);
}

static void on_open(struct rpc_call *call, void *arg)
{
    struct member *r = check_calloc(1, sizeof *r);
    r->members = arg;
    r->call = rpc_call_ref(call);
    r->opened_ns = clock_now_ns();
    r->uris = strdup(rpc_peer_uris(call));
    CHECK(r->uris, "no memory");
    rpc_call_set_user(call, r);
    post(r, run_opened, r);
}

static void on_message(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    struct handed *h = check_calloc(1, sizeof *h);
    h->member = user;
    h->message = (Witan__Cluster__V1__RankMessage *)rpc_keep_message(call, message);
    post(user, run_message, h);
}

static void on_half_close(struct rpc_call *call, void *user)
{
    (void)user;
    rpc_finish(call, RPC_OK, NULL);
}

static void on_closed(struct rpc_call *call, void *user, int code, const char *message)
{
    (void)call;
    struct handed *h = check_calloc(1, sizeof *h);
    h->member = user;
    h->code = code;
    snprintf(h->text, sizeof h->text, "%s", message ? message : "");
    post(user, run_closed, h);
}

void attach_service(struct members *m, struct rpc_method *method)
{
    *method = (struct rpc_method){
        .name = "/witan.cluster.v1.Cluster/Attach",
        .request = &witan__cluster__v1__rank_message__descriptor,
        .client_streams = true,
        .on_open = on_open,
        .handlers = {.on_message = on_message,
                     .on_half_close = on_half_close,
                     .on_closed = on_closed},
        .arg = m,
    };
}
