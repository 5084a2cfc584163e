/*
 * The control stream of one rank: `Cluster.Attach` at the coordinator, over mutual TLS. Messages
 * that come in go to a mailbox, which the engine thread empties; heartbeats go out by the runtime's
 * tick, whatever the engine thread does.
 *
 * The engine thread may wait inside the transport for a peer that will never come. So when the
 * stream has ended, or after a Stop nothing happens any more, and the engine thread has not called
 * attach_close within ATTACH_GRACE_MS, the rpc thread ends the process with a log line that says
 * why: a dead coordinator never leaves ranks behind. A rank that has loaded, and whose engine
 * thread has noticed, need not end with its stream: attach_again opens another one.
 * So a step that runs is awaited longer, ATTACH_STEP_MS, unless the coordinator has ended the
 * stream for another rank's sake: that one may be what the step waits for.
 */
#ifndef WITAN_WORKER_CONTROL_ATTACH_H
#define WITAN_WORKER_CONTROL_ATTACH_H

#include "worker/control/mailbox.h"
#include "worker/engine.h"

enum {
    ATTACH_GRACE_MS = 5000,
    ATTACH_LOST_MS = 1000,     /* the same, when the coordinator has said that the group is lost */
    ATTACH_STEP_MS = 30000,    /* the same, for a step that runs when a coordinator dies */
    ATTACH_CONNECT_MS = 30000, /* a coordinator that cannot be reached is tried again so long */
    ATTACH_RETRY_MS = 500,
    /* Between tries to attach again: half to all of this, doubling. */
    ATTACH_AGAIN_FIRST_MS = 250,
    ATTACH_AGAIN_MOST_MS = 2000,
    ATTACH_AGAIN_SOUND_MS = 10000, /* a stream that lasted so long after its plan was a good one */
    /* With several coordinators: a rank waits so long, to half as long again, where it has attached
     * for the others of its group; one that has not loaded, and may be the first of many, longer.
     */
    ATTACH_GATHER_MS = 5000,
    ATTACH_GATHER_FIRST_MS = 30000,
    ATTACH_CLOSE_MS = 2000, /* the coordinator's time to take a rank's last words */
    ATTACH_TICK_MS = 50,
    ATTACH_EXPERTS_MS = 3000, /* between two messages of what experts were given */
};

struct attach;
struct cuda_device_info;

struct attach_options {
    const char *coordinator; /* "host:port", or several (worker/control/addresses.h) */
    const char *tls_dir;     /* ca.pem, worker.pem, worker.key */
    const char *group, *region;
    uint64_t incarnation; /* of the job */
    int rank, world;
    const char *host;
    int ranks_here;                        /* ranks of the job on this host */
    const struct cuda_device_info *device; /* NULL: this rank computes on its processor */
    const struct rank_progress *progress;  /* of the engine thread; outlives this */
    bool counts_host, counts_gpu;          /* energy that is this rank's to count */
    const char *powercap;                  /* as struct energy_options has `root` */
    const char
        *nvml; /* with device: its library (worker/meter.h); NULL: where the loader finds it */
};

/* --- the engine thread --- */

/* Loads the certificates and starts to connect. `o` is copied but for its texts and device. */
enum status attach_create(const struct attach_options *o, struct attach **out, struct error *err);

/*
 * Waits until a coordinator has said what this rank is to hold, trying again while none can be
 * reached. Heartbeats begin. Of several they are tried in their order: the next at once where one
 * cannot be reached or ends, from the first again after a wait, and from the first too when no plan
 * has come for a while from one that is there, as other ranks may have found an earlier one. The
 * first's refusal comes with its status code and message; the others' only when time is over.
 */
enum status attach_wait_plan(struct attach *a, struct assignment *out, struct error *err);

/*
 * The stream of a rank that has loaded has ended, and its engine thread waits for nobody: attaches
 * again and waits for a plan, as attach_wait_plan does, for up to `timeout_s` seconds since the
 * last good stream ended. A refusal that is not for the moment comes at once. `err` holds why the
 * stream ended, and on failure why there is none.
 */
enum status attach_again(struct attach *a, int32_t timeout_s, struct assignment *out,
                         struct error *err);

/* `failed` (may be NULL): the coordinator is told that and why this rank gives up. Then says
 * goodbye, waits a bounded time for the other side and releases. NULL is fine. */
void attach_close(struct attach *a, const struct error *failed);

struct mailbox *attach_mailbox(struct attach *a);

/* What the heartbeats say. */
void attach_phase(struct attach *a, Witan__Cluster__V1__Phase phase);
void attach_stepped(struct attach *a); /* one step more */
struct attach_load {
    uint32_t running, waiting, kv_blocks_free, kv_blocks;
};
void attach_load(struct attach *a, const struct attach_load *load);
/* Copied; to be told after each step. */
void attach_figures(struct attach *a, const struct engine_figures *figures);

/* Of the engine thread's model, NULL where it counts none; once, and it outlives this. */
void attach_experts(struct attach *a, const struct expert_counts *counts);

/* Is the energy known that this rank counts? Then its tokens and heartbeats say it. */
bool attach_metered(struct attach *a);

/* Each queues one message. ERR_LIMIT when the coordinator has not read for long; ERR_CANCELLED when
 * the stream has ended. */
enum status attach_send_ready(struct attach *a, const Witan__Cluster__V1__Ready *ready,
                              struct error *err);
enum status attach_send_tokens(struct attach *a, const Witan__Cluster__V1__Tokens *tokens,
                               struct error *err);
enum status attach_send_wake_peers(struct attach *a, uint64_t generation, struct error *err);
/* Answers a request that cannot run. */
enum status attach_refuse(struct attach *a, const struct request_key *key, const char *why,
                          struct error *err);

#endif
