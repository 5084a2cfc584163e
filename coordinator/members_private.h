/* What the files of members share: groups, ranks, and how messages reach the loop thread. */
#ifndef WITAN_COORDINATOR_MEMBERS_PRIVATE_H
#define WITAN_COORDINATOR_MEMBERS_PRIVATE_H

#include "coordinator/deployment.h"
#include "coordinator/events.h"
#include "coordinator/experts.h"
#include "coordinator/gpus.h"
#include "coordinator/hang.h"
#include "coordinator/joules.h"
#include "coordinator/members.h"
#include "coordinator/prefixes.h"
#include "coordinator/share.h"
#include "coordinator/slow.h"
#include "proto/cluster.pb-c.h"

#include <time.h>

enum {
    HELLO_TIMEOUT_S = 10,
    GROUP_STOP_S = 10,      /* for a group that was told to end */
    PROVEN_AT_LEAST_S = 30, /* a proof may be this old, or three probes if those are rarer */
    MEMBERS_MAX_PURPOSES = 16,
    MEMBERS_MAX_WORD = 256,      /* a text of a hello */
    MEMBERS_MOST_WAITING = 4096, /* what a leader has room for beyond those that run */
};

enum group_state {
    GROUP_WAITING,
    GROUP_LOADING,
    GROUP_PROVING,
    GROUP_READY,
    GROUP_STOPPING, /* told to end in order */
    GROUP_LOST,
};

/* How far it is with a restart that was asked for (drain.c). */
enum group_restart { RESTART_NONE, RESTART_DRAINING, RESTART_STOPPING, RESTART_STARTING };

/* One control stream. Made by the rpc thread when it opens, then the loop thread's. */
struct member {
    struct members *members;
    struct rpc_call *call; /* a reference; the user pointer of the call is this member */
    struct member *next;   /* of all open streams */
    struct group *group;   /* NULL before its hello */
    char *uris;            /* of its certificate */
    int64_t opened_ns;
    Witan__Cluster__V1__Hello *hello; /* owned */
    Witan__Cluster__V1__Ready *ready; /* owned; NULL until it has loaded */
    int64_t heartbeat_ns;
    uint64_t step;
    int phase;
    struct hang_rank hang;
    struct slow_rank slow;
    struct gpu_view gpu;
    double
        host_share; /* of its host's processors, of late: 1 over the groups that have ranks there */
    Witan__Cluster__V1__Engine *engine; /* of the last heartbeat that had it; owned; may be NULL */
    char failed[640];                   /* what the rank itself said before it gave up */
};

struct group {
    struct members *members;
    const struct config_group *config;
    struct deployment deployment;
    enum group_state state;
    char message[1024]; /* why it was lost last, or what it waits for */
    char class[64];     /* numerics class of its ranks, as answers are told it */
    uint64_t times_ready;
    bool drained, moved; /* takes nothing new; what ran there has been moved on */
    bool alone;          /* it restarts whether or not others take requests */
    bool ends; /* it is drained for its ranks to end, and takes requests when it is back */
    enum group_restart restart;
    int64_t drained_ns, restart_ns;  /* since when */
    int64_t end_by_ns;               /* with `ends`: what still runs there then is moved */
    uint64_t losses;                 /* times that it was lost after it was ready */
    uint64_t failed_starts;          /* and before */
    char last_loss[1024];            /* why, the last time; "": never */
    uint64_t hangs[HANG_KIND_COUNT]; /* of both, because it stood still */
    int64_t last_loss_ns;
    uint64_t incarnation;
    uint32_t protocol;     /* lowest version that one of its ranks speaks at most */
    uint32_t constraints;  /* the highest enum constraint_kind that its rank 0 can keep, or could */
    bool words_sent;       /* and it has been told the tokens' bytes for it */
    bool thinking;         /* it can end thoughts */
    bool heard;            /* some rank 0 has said all this */
    struct member **ranks; /* [world]; owned */
    int32_t attached, loaded;
    uint64_t wake;  /* highest generation that rank 0 asked for */
    int32_t active; /* requests on it */
    int64_t owed;   /* tokens of their prompts that it has to compute yet, as routing.c thinks */
    struct prefixes *prefixes; /* what it was sent; NULL: nobody asks */
    struct backlog backlog;    /* of these, those that wait */
    uint64_t tokens;
    int64_t since_ns;  /* of the state */
    int64_t proven_ns; /* 0: never */
    int64_t probe_ns;  /* when the probe that is under way was sent; 0: none */
    uint32_t running, waiting, kv_blocks_free, kv_blocks;
    struct experts experts;
    struct joules joules;
    /* A group that is served through a peer is ready without ranks here. */
    struct share_link *via; /* NULL: it is not */
    uint64_t via_start;     /* GroupState.start there */
    bool via_takes;         /* requests, as the peer says */
    double via_wait_s;      /* that a new one would wait there */
    int32_t others;         /* requests on it that are not this coordinator's */
};

struct members {
    struct core *core;
    struct rpc_server *server;
    void (*notify)(const char *group, const char *state, const char *message);
    struct rpc_method methods[2]; /* Attach, Share */
    struct share *share;
    struct member *open; /* all streams */
    struct group *groups;
    uint32_t count;
    uint64_t
        *hashes; /* [PREFIXES_CHAIN], of the prompt that is routed; NULL: no group is to choose */
    bool stopping;
    struct hang_clock clock;
    int64_t compare_ns; /* of that clock: when ranks' speeds are compared next */
    struct events events;
};

/* --- words.c --- */

/* Before a Submit is sent to a group whose ranks are here: tells its rank 0 the tokens' bytes,
 * where `q` has a constraint and it does not know them. Errors as of rpc_send. */
enum status words_send(struct group *g, const Witan__Cluster__V1__Submit *q, struct error *err);

/* --- members_requests.c: pure --- */

/* A Submit and all that it points to. */
struct submit_parts {
    Witan__Cluster__V1__Submit submit;
    Witan__Cluster__V1__Sampling sampling;
    Witan__Cluster__V1__LogprobsWanted logprobs, prompt_logprobs;
    Witan__Cluster__V1__Constraint constraint;
    Witan__Cluster__V1__Thinking thinking;
    int32_t bias_ids[SAMPLING_MAX_BIASES];
    float biases[SAMPLING_MAX_BIASES];
};

/* Parameters as generation_start has checked them; the key is left to the caller. */
void submit_fill(struct submit_parts *p, const struct journal *j, int64_t now_ns);

/* What a rank says of one sequence must hold together: what is wrong with it, or NULL. */
const char *tokens_wrong(const Witan__Cluster__V1__SequenceTokens *s);
/* Passes on to its generation what a step drew. False: nobody takes what it took. */
bool tokens_tell(struct core *core, const Witan__Cluster__V1__SequenceTokens *s);

/* --- room.c --- */

/* What a group has for one more request. */
struct room {
    enum metrics_limit limit; /* by which it refuses it; METRICS_LIMIT_COUNT: it does not */
    double wait_s;            /* that it would wait there */
    double until_s;           /* until there is room, by the same estimate; 0: not known */
};

/* `accepted`: it has lost another group or waited for one, or belongs to an answer that was let in,
 * and is not refused but by what a leader can hold. */
struct room group_room(const struct group *g, const struct generation_params *p, bool accepted);
bool room_is_there(const struct room *r);
/* ERR_NO_MEMORY, why; a new request is counted. */
enum status group_refuses(const struct group *g, const struct room *r, bool accepted,
                          struct error *err);

/* --- routing.c --- */

/* What keeps a group from serving, for the operator: ERR_PEER. */
enum status group_why_not(const struct group *g, struct error *err);

/* Counts the request as sent to the group, which will have its prompt in its cache: `owed` and
 * `waits` of the journal say what it weighs. */
void group_place(struct group *g, struct journal *j);

/* --- drain.c --- */

/* A ready group that is neither drained nor restarts. */
bool group_takes_new(const struct group *g);
/* About once a second. */
void group_drain_tick(struct group *g, int64_t now);
/* Its state has changed. */
void group_drain_state(struct group *g);

/* --- attach.c: the service, on the rpc thread --- */

/* Fills *method; its callbacks post to the functions below. */
void attach_service(struct members *m, struct rpc_method *method);

/* --- hello.c: on the loop thread --- */

/* A peer's words go into log lines and status: one line, of fewer bytes than `size`. In place. */
void plain_text(char *s, size_t size);
void member_plain_hello(Witan__Cluster__V1__Hello *h);
/* The group that a rank of this hello may attach to; NULL: none, and it is sent home. */
struct group *member_admit(struct member *r, const Witan__Cluster__V1__Hello *h);
void member_send_plan(struct group *g, struct member *r);
/* Ranks that wait here for others of a group whose home is at a peer are sent there. */
void group_send_elsewhere(struct group *g);
struct group *members_find(struct members *m, const char *name);

/* --- members.c: on the loop thread --- */

/* Ends the stream, with a log line. */
void member_refuse(struct member *r, enum rpc_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

void member_opened(struct member *r);
/* Takes the message over. */
void member_message(struct member *r, Witan__Cluster__V1__RankMessage *message);
/* The last of a stream; releases the member. */
void member_closed(struct member *r, int code, const char *message);

/* One that does not read what it is sent is sent home; one that is NULL or gone is sent nothing. */
void member_send(struct member *r, const Witan__Cluster__V1__CoordinatorMessage *message);

/* g->via is set: the group is ready, through the coordinator at this address. */
void group_through(struct group *g, const char *address);
/* It is so no more; its requests go on elsewhere. */
void group_lose_through(struct group *g, const char *why);
/* Tells its ranks to end in order; when the last has gone it waits again. */
void group_stop(struct group *g, const char *reason);
/* The group is lost, for this reason: its ranks are sent home, its requests go on elsewhere.
 * `code`: RPC_ABORTED: ranks keep their weights and attach again; RPC_FAILED_PRECONDITION: they
 * end. */
void group_lose(struct group *g, enum rpc_code code, const char *why);

/* --- watch.c: on the loop thread --- */

/* After r->hello is there. */
void watch_hello(struct member *r);
/* Silence counts from here on: heartbeats begin with the plan. */
void watch_anew(struct member *r);
void watch_heartbeat(struct member *r, const Witan__Cluster__V1__Heartbeat *h);

int32_t group_world(const struct group *g);
const char *group_state_name(enum group_state s);
const char *phase_name(int phase);

#endif
