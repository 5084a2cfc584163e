/* What the files of share share. */
#ifndef WITAN_COORDINATOR_SHARE_PRIVATE_H
#define WITAN_COORDINATOR_SHARE_PRIVATE_H

#include "coordinator/members_private.h"
#include "coordinator/share.h"

enum {
    SHARE_HELLO_S = 10,       /* for a peer that has opened a stream to say hello */
    SHARE_TELL_MS = 1000,     /* groups' states are told so often */
    SHARE_SILENT_S = 3,       /* a link may be silent so long, or limits.step_timeout_s */
    SHARE_RETRY_MIN_MS = 250, /* between two attempts to dial a peer, doubled up to */
    SHARE_RETRY_MAX_MS = 8000,
    SHARE_REFUSED_MS = 30000, /* after it has refused: only an operator can change that */
    SHARE_MOST_STREAMS = 64,  /* of peers, at once */
    SHARE_MOST_BATCH = 4096,  /* sequences of one Tokens message to a peer */
    SHARE_REFUSALS = 8,       /* that are remembered, so that each is logged once */
    SHARE_MAX_TEXT = 600,
};

struct relay;

/* A peer that has dialled this coordinator. Made by the rpc thread, then the loop thread's. */
struct share_stream {
    struct share *share;
    struct rpc_call *call; /* a reference */
    struct share_stream *next;
    char *uris; /* of its certificate */
    char name[80];
    int64_t opened_ns;
    uint64_t epoch; /* of the peer's Submits; 0: it has not said hello */
    bool ended;     /* told to end: what it still sends counts no more */
    struct relay *relays;
    int32_t count; /* of these */
    Witan__Cluster__V1__SequenceTokens *batch[SHARE_MOST_BATCH];
    size_t batched;
    struct share_told {
        bool ready, takes_new, has_leader;
        uint64_t start, incarnation;
    } told[CONFIG_MAX_GROUPS];
};

/* A request of a peer that runs in a group here. */
struct relay {
    struct relay *chain;      /* of the table */
    struct relay *next, **at; /* of the stream's list */
    struct share_stream *stream;
    struct group *group;
    uint64_t id;      /* here; its attempt is 1, its epoch the core's */
    uint64_t peer_id; /* there */
    uint32_t peer_attempt;
    struct journal journal; /* what it weighs on its group: params and arrays are empty */
};

/* A peer that is dialled. */
struct share_link {
    struct share *share;
    const char *address; /* config's */
    struct rpc_channel *channel;
    struct rpc_call *call; /* a reference; NULL: between two attempts */
    bool up;               /* it has welcomed this coordinator */
    bool ended;            /* cancelled: what still comes counts no more */
    uint64_t epoch;        /* of the peer, when it last welcomed this one; 0: never */
    bool twice;            /* told that another address leads to the same peer */
    int64_t heard_ns;      /* of the hang_clock */
    int64_t retry_ns;      /* monotonic: when it is dialled next */
    int32_t backoff_ms;
    char logged[SHARE_MAX_TEXT]; /* the failure that was logged last; "": none since it was up */
    bool strange;                /* told that it has groups which are not of this cluster */
    Witan__Cluster__V1__GroupState *said[CONFIG_MAX_GROUPS]; /* owned; NULL: nothing yet */
};

struct share {
    struct members *members;
    struct rpc *rpc;
    struct share_stream *streams;
    int32_t streams_count;
    struct relay *table[1024]; /* by id */
    int32_t relays;
    struct share_link links[CONFIG_MAX_PEERS];
    uint32_t links_count;
    bool leaving, stopping;
    int64_t told_ns; /* when all was told last; monotonic */
    char refused[SHARE_REFUSALS][SHARE_MAX_TEXT];
    uint32_t refusals;
};

/* --- share_check.c: pure --- */

/* What this coordinator says of itself. `shape`: memory for model_shape. */
void share_hello_fill(const struct core *core, Witan__Cluster__V1__ShareHello *out,
                      char shape[SHARE_MAX_TEXT]);
/* May a coordinator that says this use the groups here? ERR_CONFLICT: which field differs. */
enum status share_hello_check(const struct core *core, const Witan__Cluster__V1__ShareHello *h,
                              struct error *err);
/* Would generation_start have let this through, and is it whole? ERR_INVALID, with the field;
 * ERR_LIMIT: it does not fit into the context. */
enum status share_submit_check(const struct core *core, const Witan__Cluster__V1__Submit *q,
                               struct error *err);

/* --- share_relay.c --- */

struct relay *relay_add(struct share_stream *st, struct group *g,
                        const Witan__Cluster__V1__Submit *q);
struct relay *relay_find(const struct share_stream *st, uint64_t peer_id);
/* Gives it up: its group is told where `cancel` is set. */
void relay_drop(struct relay *r, bool cancel);

/* --- share_home.c --- */

/* Ends a stream; its requests are called off. */
void share_stream_end(struct share_stream *st, enum rpc_code code, const char *why);
void share_home_service(struct share *s, struct rpc_method *method);
void share_home_tick(struct share *s);
/* Says of a group what has changed, or all. */
void share_home_tell(struct share *s, const struct group *g, bool all);
void share_home_return(struct share_stream *st, uint64_t id, uint32_t attempt, const char *why);
/* ERR_LIMIT ends the stream. */
void share_home_send(struct share_stream *st, const Witan__Cluster__V1__ShareReply *reply);

/* --- share_link.c --- */

void share_links_tick(struct share *s, int64_t now_ns);
/* No group goes through it any more; at the end of this process they stay as they are. */
void share_link_lose(struct share_link *l, const char *why);

#endif
