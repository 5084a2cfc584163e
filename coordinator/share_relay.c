/* Requests of peers that run in groups here: see share_private.h. On the loop thread. */
#include "base/check.h"
#include "coordinator/share_private.h"

#include <stdlib.h>

static struct relay **place(struct share *s, uint64_t id)
{
    struct relay **at = &s->table[id % COUNT_OF(s->table)];
    while (*at && (*at)->id != id)
        at = &(*at)->chain;
    return at;
}

struct relay *relay_find(const struct share_stream *st, uint64_t peer_id)
{
    struct relay *r = st->relays;
    while (r && r->peer_id != peer_id)
        r = r->next;
    return r;
}

struct relay *relay_add(struct share_stream *st, struct group *g,
                        const Witan__Cluster__V1__Submit *q)
{
    struct share *s = st->share;
    struct relay *r = check_calloc(1, sizeof *r);
    r->stream = st;
    r->group = g;
    r->id = ++s->members->core->next_id;
    r->peer_id = q->request_id;
    r->peer_attempt = q->attempt;
    r->journal.params = (struct generation_params){.prompt = q->prompt,
                                                   .prompt_len = (int32_t)q->n_prompt,
                                                   .prefix_domain = q->prefix_domain,
                                                   .priority = q->priority};
    r->journal.answer_len = (int32_t)q->n_answer;
    group_place(g, &r->journal);
    r->journal.params.prompt = NULL; /* the message's */
    *place(s, r->id) = r;
    r->next = st->relays;
    r->at = &st->relays;
    if (r->next)
        r->next->at = &r->next;
    st->relays = r;
    st->count++;
    s->relays++;
    return r;
}

/* What its group has said of it and is not sent yet stays in the stream's batch. */
void relay_drop(struct relay *r, bool cancel)
{
    struct share *s = r->stream->share;
    if (cancel)
        members_cancel(r->group, r->id, 1);
    members_done(r->group, &r->journal);
    *place(s, r->id) = r->chain;
    *r->at = r->next;
    if (r->next)
        r->next->at = r->at;
    r->stream->count--;
    s->relays--;
    free(r);
}

static void drop_of_group(struct share *s, const struct group *g, bool cancel, const char *why)
{
    for (struct share_stream *st = s->streams; st; st = st->next)
        for (struct relay *r = st->relays, *next; r; r = next) {
            next = r->next;
            if (r->group != g)
                continue;
            if (why)
                share_home_return(st, r->peer_id, r->peer_attempt, why);
            relay_drop(r, cancel);
        }
}

void share_return_all(struct share *s, struct group *g, const char *why)
{
    drop_of_group(s, g, true, why);
}

void share_group_changed(struct share *s, struct group *g)
{
    if (!s)
        return;
    share_home_tell(s, g, false);
    if (g->state != GROUP_READY)
        drop_of_group(s, g, false, NULL);
}

/* --- tokens -----------------------------------------------------------------------------------
 */

static void flush(struct share_stream *st)
{
    Witan__Cluster__V1__Tokens tokens = WITAN__CLUSTER__V1__TOKENS__INIT;
    Witan__Cluster__V1__ShareReply reply = WITAN__CLUSTER__V1__SHARE_REPLY__INIT;
    tokens.sequences = st->batch;
    tokens.n_sequences = st->batched;
    reply.body_case = WITAN__CLUSTER__V1__SHARE_REPLY__BODY_TOKENS;
    reply.tokens = &tokens;
    st->batched = 0;
    share_home_send(st, &reply);
}

bool share_tokens(struct share *s, struct group *g, Witan__Cluster__V1__SequenceTokens *t)
{
    struct relay *r = *place(s, t->request_id);
    if (!r || r->group != g || t->attempt != 1 || t->epoch != s->members->core->epoch)
        return false;
    struct share_stream *st = r->stream;
    bool over = t->finish != WITAN__CLUSTER__V1__FINISH__FINISH_NONE;
    if (t->n_ids > 0 || over)
        members_prefilled(g, &r->journal);
    t->request_id = r->peer_id;
    t->attempt = r->peer_attempt;
    t->epoch = st->epoch;
    st->batch[st->batched++] = t;
    if (over)
        relay_drop(r, false);
    if (st->batched == SHARE_MOST_BATCH)
        flush(st);
    return true;
}

/* Before the message that they came in is freed. */
void share_flush(struct share *s)
{
    for (struct share_stream *st = s->streams; st; st = st->next)
        if (st->batched > 0)
            flush(st);
}
