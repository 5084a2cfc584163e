/*
 * cluster.yaml: what a cluster is made of, read once at start and never changed. The same struct is
 * filled from flags by `witan serve`. Everything that is left out has the default written here.
 *
 * config_read refuses, with file, line, column and key: unknown keys, keys given twice, values of
 * another type or out of bounds, anchors, aliases and tags. config_check refuses, with the key:
 * what flags may have broken too, names used twice, a listener off loopback without TLS and keys.
 */
#ifndef WITAN_COORDINATOR_CONFIG_H
#define WITAN_COORDINATOR_CONFIG_H

#include "base/buf.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    CONFIG_MAX_GROUPS = 64,
    CONFIG_MAX_HOSTS = 1024,
    CONFIG_MAX_PEERS = 7,
    CONFIG_MAX_BYTES = 1 << 20,
    CONFIG_MAX_SPECULATE = 15, /* MAX_GUESSES of partition/plan.h */
};

struct config_host {
    char *name;    /* as ssh or Slurm knows it */
    int32_t ranks; /* started there; default 1 */
    char *region;  /* default: the cluster's */
};

/* One worker group: one MPI job with one copy of the model. */
struct config_group {
    char *name;
    int32_t pp, tp, ep; /* default 1, 1, 0 = the largest that works */
    int32_t w;          /* 0 = max(tp, ep) */
    bool external;      /* true: Slurm, Kubernetes or systemd start the ranks, not `witan serve` */
    struct config_host *hosts; /* none: all ranks on this machine */
    uint32_t hosts_count;
    /* Interfaces or CIDR subnets that MPI may use between hosts, comma-separated. Demanded when
     * there are hosts: the data plane is plaintext and carries prompts. */
    char *data_plane;
};

struct config_tls {
    char *cert, *key; /* PEM files; NULL: plaintext */
    char *client_ca;  /* demand client certificates of this root; NULL: none */
};

struct config {
    char *name;   /* of the cluster; default "witan" */
    char *region; /* default "" */
    struct {
        char *path; /* checkpoint folder, the same on every host */
        char *name; /* that clients use; default: the folder's last component */
        /* Signed list of the folder's files (docs/manifest.md), and the trusted keys: PEM, a file
         * or a folder. Both or neither; NULL: weights are used as they lie. */
        char *manifest, *trust;
        /* Folder on every host where the ranks that `witan serve` starts keep their weights for the
         * next start, with a manifest (worker/weights_cache.h); NULL: none. */
        char *weights_cache;
        int32_t threshold; /* trusted keys that must have signed; default 1 */
        /* Where all ranks compute: "cpu" (default), "cuda". Of the model and not of a group, since
         * all groups answer under its name and must give the same tokens. */
        char *device;
        /* What weights become in memory: "published" (default), "int8", "int4" (worker/model.h). */
        char *weights;
        /* How ranks on GPUs meet: "auto" (default), "nccl", "staged" (worker/model.h). */
        char *collectives;
    } model;
    struct {
        char *http;    /* "host:port"; default 127.0.0.1:8000; "off": none */
        char *grpc;    /* Inference and Admin; default 127.0.0.1:8001; "off" */
        char *cluster; /* ranks attach here; default 127.0.0.1:8002; port 0: any */
        /* TLS of http and grpc. Off loopback cert, key and keys are demanded unless `insecure`. */
        struct config_tls tls;
        char *keys;    /* file of API keys (auth.h); NULL: anyone who can connect may do all */
        bool insecure; /* "I know": no TLS or keys off loopback */
    } listen;
    /* Who else may ask, by tokens of an OIDC issuer (jwt.h), and how much anybody may. */
    struct {
        char *jwks;         /* file of the issuer's public keys; NULL: no tokens */
        char *issuer;       /* what "iss" must say; demanded with jwks */
        char *audience;     /* what "aud" must have; demanded with jwks */
        char *tenant_claim; /* default "sub": each subject is a tenant */
        char *scopes_claim; /* default "scope" */
        int32_t leeway_s;   /* by which clocks may differ; default 60 */
        struct {            /* of each tenant; 0, the default: no limit; over it 429 */
            int32_t requests_per_minute;
            int32_t tokens_per_minute; /* of prompts and answers */
            int32_t concurrent;
        } quotas;
    } auth;
    /* Folder made by `witan pki`: ca.pem, coordinator.pem and .key, worker.pem and .key. NULL:
     * `witan serve` makes one that lives as long as it does (single machine only). */
    char *pki;
    /* "on" (default): what processes may do is cut down once they have started (base/sandbox.h);
     * "off". */
    char *sandbox;
    bool core_dumps; /* true: the system may write them, with what is in memory; default false */
    struct {
        bool mlock; /* the coordinator's memory stays out of swap; default false */
        bool wipe;  /* KV blocks and memory are overwritten when they are released; default false */
    } retention;
    /* The audit log (audit.h); all NULL: none is kept. */
    struct {
        char *file, *key; /* both or neither */
        char *heads;      /* NULL: heads are in the log alone */
        char *on_error;   /* "refuse" (default), "continue" */
        char *hmac_key;   /* NULL: prompts and answers leave no HMAC */
        int32_t head_s;   /* default 60 */
    } audit;
    struct config_group *groups; /* default: one, "g0", on this machine */
    uint32_t groups_count;
    /* "host:port" of listen.cluster of the other coordinators of these groups; default: none. */
    char **peers;
    uint32_t peers_count;
    struct {
        int32_t context;           /* tokens of one sequence; 0: the model's, at most 32768 */
        int32_t sequences;         /* of one group at once; default 64 */
        int32_t step_tokens;       /* of one step; default 512 */
        int32_t chunk;             /* of one prompt a step; 0: step_tokens */
        int32_t kv_blocks;         /* 0: sequences x context, or what there is room for */
        int32_t threads;           /* of a rank; 0: the host's cores over its ranks */
        int32_t gpu_percent;       /* of a GPU's memory that its ranks may fill; default 90 */
        char *kv;                  /* "bf16" (default), "f32", "int8" */
        char *kernels;             /* "auto" (default); the others: worker/cpu/choose.c */
        int32_t requests;          /* in the coordinator at once; default 1024; over it 429 */
        int32_t connections;       /* of the HTTP door; default 4096 */
        int32_t body_kb;           /* of an HTTP request; default 8192; over it 413 */
        int32_t request_timeout_s; /* to receive a whole request; default 30 */
        int32_t answer_timeout_s;  /* for an answer; default 3600 */
        int32_t start_timeout_s;   /* for a group's ranks to attach and load; default 3600 */
        int32_t step_timeout_s;    /* silence of a rank, or a step that stands still; default 4 */
        int32_t probe_s;           /* an idle group proves itself this often; default 10 */
        int32_t stall_ms; /* prompts lengthen a step in which others decode by this, or half; 100 */
        int32_t speculate;      /* tokens guessed ahead each step; default 0: none */
        int32_t waiting;        /* requests that may wait in a group; default 1024; over it 429 */
        int32_t waiting_tokens; /* tokens of their prompts; default 16777216; over it 429 */
        int32_t waiting_ms;     /* as a new one would, estimated; default 60000; over it 429 */
        int32_t memory_mb; /* that requests take in the coordinator; default 1024; over it 429 */
        int32_t tenant_requests; /* of one tenant at once; 0, the default: no bound; over it 429 */
        int32_t queue_timeout_s; /* to a request's first token; 0, the default: no bound */
        int32_t read_timeout_s;  /* a client that reads nothing so long is cut off; default 30 */
        int32_t failovers; /* times that an answer goes on after its group was lost; default 3 */
        int32_t failover_timeout_s; /* it waits so long for a group that it can go on in; 300 */
        int32_t drain_timeout_s;    /* a group that drains keeps what it runs so long; 600 */
        int32_t
            reattach_timeout_s; /* ranks keep their weights so long without a coordinator; 300 */
        /* Who shares the KV blocks of equal prompts: "tenant" (default), each tenant's requests
         * among themselves; "shared", all; "off", nobody. */
        char *prefix_cache;
    } limits;
    bool verbose;
};

/* All defaults, no groups. Release with config_fini. */
enum status config_init(struct config *c, struct error *err);
void config_fini(struct config *c);

/* Reads the file over the defaults: what it does not say stays as it was. Does not yet check: flags
 * may follow. On failure `c` is as it was. */
enum status config_read(const char *path, struct config *c, struct error *err);
/* The same from text, for tests and fuzzers; `what` names it in messages. */
enum status config_read_text(const char *what, const char *text, size_t len, struct config *c,
                             struct error *err);

/* Fills what follows from other values (a group, model.name) and refuses what does not fit. Names
 * the key ("listen.http: ..."). Reads no other file. */
enum status config_check(struct config *c, struct error *err);

/* The effective configuration as YAML that config_read takes back. */
enum status config_print(const struct config *c, struct buf *out, struct error *err);

/* "127.0.0.1:8000", "[::1]:8000", "localhost:8000": is it reachable from this machine alone? */
bool address_is_loopback(const char *address);
/* Cuts "host:port" into host (brackets removed) and port 0..65535. */
enum status address_split(const char *address, char host[256], int *port, struct error *err);

/* Do the ranks compute on GPUs? */
bool config_cuda(const struct config *c);

/* Are processes to be cut down once they have started? */
bool config_sandbox(const struct config *c);

/* In which domain a tenant's requests share prefixes of prompts (limits.prefix_cache). */
uint64_t config_prefix_domain(const struct config *c, uint64_t tenant);

/* PP x W of a group. */
int32_t config_group_world(const struct config_group *g);

#endif
