/*
 * Inside latency_bench: a server of this build, clients that write down when each token came, and a
 * leader that the bench plays itself. Everything that fails ends in an error; nothing is shared but
 * what a comment says.
 */
#ifndef WITAN_TESTS_BENCH_LATENCY_H
#define WITAN_TESTS_BENCH_LATENCY_H

#include "base/error.h"
#include "proto/rpc.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    LATENCY_PATH = 512,
    LATENCY_WAIT_S = 120,
    LATENCY_MAX_STREAMS = 256,
    LATENCY_SEQUENCES = 64, /* limits of the engine, with the server and without */
    LATENCY_CONTEXT = 1024,
};

/* --- processes: process.c --- */

struct place {
    char bin[LATENCY_PATH]; /* where this program and its siblings lie */
    const char *model;      /* a checkpoint folder */
    int threads;            /* of a rank */
};

/* A coordinator and, unless the bench plays it, its one rank. */
struct cluster {
    char dir[64]; /* configuration and certificates */
    char http[128], grpc[128], ranks[128];
    pid_t coordinator, worker;
    int notify;
};

enum status place_find(struct place *p, struct error *err);
enum status cluster_start(const struct place *p, bool with_worker, struct cluster *c,
                          struct error *err);
/* Until requests are taken; cluster_start has waited when it starts the worker. */
enum status cluster_wait_ready(struct cluster *c, struct error *err);
/* Fine after a failed start. The coordinator must end well. */
enum status cluster_stop(struct cluster *c, struct error *err);

/* --- the engine without a server: engine.c --- */

/* The mean time between two tokens of a stream, on one rank in this process, over the same
 * sequences. */
enum status engine_gap_ms(const struct place *p, int streams, int tokens, double *ms,
                          struct error *err);

/* --- clients: when each token of each stream came --- */

struct arrivals {
    int streams, tokens;
    int64_t *ns; /* [streams][tokens] */
    int *count;  /* [streams] */
};

void arrivals_init(struct arrivals *a, int streams, int tokens);
void arrivals_fini(struct arrivals *a);
/* One more token of a stream. A stream is one thread's. */
void arrivals_add(struct arrivals *a, int stream, int64_t now_ns);

/* What stream `i` asks; `out` holds LATENCY_PATH bytes. */
void prompt_of(int i, char *out);

/* Each asks for a->streams greedy answers of a->tokens tokens at once, and returns when all have
 * ended: sse.c over HTTP, by epoll; grpc.c over the RPC runtime. */
enum status sse_run(const char *address, struct arrivals *a, struct error *err);
enum status grpc_run(const char *address, struct arrivals *a, struct error *err);

/* --- the leader: leader.c --- */

struct leader;

/* Attaches as the one rank of the group, with certificates from c->dir. */
enum status leader_attach(const struct cluster *c, struct leader **out, struct error *err);
/* In a thread of its own: waits for `streams` requests, then gives each a token every step_us, all
 * in one message; sent_ns[tokens] is when that was handed over. */
enum status leader_pace(struct leader *l, int streams, int tokens, int step_us, int64_t *sent_ns,
                        struct error *err);
void leader_detach(struct leader *l);

#endif
