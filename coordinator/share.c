/* Several coordinators of the same groups: see share.h. */
#include "coordinator/share.h"
#include "base/check.h"
#include "coordinator/share_private.h"
#include "proto/pki.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum status share_create(struct members *m, struct rpc *rpc, const struct rpc_tls *tls,
                         struct rpc_method *method, struct share **out, struct error *err)
{
    const struct config *c = m->core->config;
    struct rpc_tls client = tls ? *tls : (struct rpc_tls){0};
    struct share *s = check_calloc(1, sizeof *s);
    s->members = m;
    s->rpc = rpc;
    share_home_service(s, method);
    client.peer_name = PKI_COORDINATOR_NAME;
    enum status st = OK;
    for (uint32_t i = 0; st == OK && i < c->peers_count && i < CONFIG_MAX_PEERS; i++) {
        struct share_link *l = &s->links[i];
        l->share = s;
        l->address = c->peers[i];
        st = rpc_channel_create(rpc, c->peers[i], &client, &l->channel, err);
        if (st == OK)
            s->links_count++;
        else
            error_prefix(err, "peers[%u]: ", i);
    }
    if (st != OK) {
        share_destroy(s);
        return st;
    }
    *out = s;
    return OK;
}

static void free_said(struct share_link *l)
{
    for (size_t i = 0; i < COUNT_OF(l->said); i++)
        if (l->said[i])
            witan__cluster__v1__group_state__free_unpacked(l->said[i], NULL);
}

void share_destroy(struct share *s)
{
    if (!s)
        return;
    s->stopping = true;
    for (uint32_t i = 0; i < s->links_count; i++)
        if (s->links[i].call)
            rpc_cancel(s->links[i].call);
    /* What was cancelled says so at once; nobody else runs the loop any more. */
    loop_drain(s->members->core->loop);
    while (!share_gone(s)) {
        usleep(1000);
        loop_drain(s->members->core->loop);
    }
    for (uint32_t i = 0; i < s->links_count; i++) {
        rpc_channel_destroy(s->links[i].channel);
        free_said(&s->links[i]);
    }
    free(s);
}

void share_leave(struct share *s)
{
    s->leaving = true;
    share_home_tick(s);
}

int32_t share_relays(const struct share *s)
{
    return s->relays;
}

void share_stop(struct share *s, const char *reason)
{
    s->leaving = s->stopping = true;
    for (uint32_t i = 0; i < s->members->count; i++)
        share_home_tell(s, &s->members->groups[i], false);
    for (struct share_stream *st = s->streams; st; st = st->next)
        share_stream_end(st, RPC_UNAVAILABLE, reason);
    for (uint32_t i = 0; i < s->links_count; i++)
        if (s->links[i].call)
            rpc_half_close(s->links[i].call);
}

bool share_linked(const struct share *s)
{
    for (uint32_t i = 0; i < s->links_count; i++)
        if (s->links[i].up)
            return true;
    for (const struct share_stream *t = s->streams; t; t = t->next)
        if (t->epoch != 0 && !t->ended)
            return true;
    return false;
}

bool share_gone(const struct share *s)
{
    for (uint32_t i = 0; i < s->links_count; i++)
        if (s->links[i].call)
            return false;
    return s->streams == NULL;
}

void share_watch(struct share *s, int64_t now_ns)
{
    share_links_tick(s, now_ns);
    share_home_tick(s);
}

void share_metrics(struct metrics_page *p, const struct share *s)
{
    metrics_family(p, "witan_peer_linked", METRICS_GAUGE,
                   "1: this coordinator can use the groups of the peer that it dials.");
    for (uint32_t i = 0; i < s->links_count; i++) {
        struct metrics_labels l = {0};
        metrics_label(&l, "peer", s->links[i].address);
        metrics_sample(p, &l, s->links[i].up && !s->links[i].ended);
    }
    metrics_one(p, "witan_peer_streams", METRICS_GAUGE,
                "Other coordinators that have dialled this one.", s->streams_count);
    metrics_one(p, "witan_relayed_requests", METRICS_GAUGE,
                "Requests of other coordinators that run in groups here.", s->relays);
}
