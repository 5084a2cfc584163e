/*
 * What the coordinator says, checked and made plain: protobuf goes no further into the worker than
 * this. The coordinator is authenticated, but a mistake there must end in a message, not in a
 * crash of a group.
 *
 * Pure, but for the clock that deadlines count from; any thread.
 */
#ifndef WITAN_WORKER_CONTROL_COMMAND_H
#define WITAN_WORKER_CONTROL_COMMAND_H

#include "partition/manifest.h"
#include "partition/plan.h"
#include "partition/thinking.h"
#include "proto/cluster.pb-c.h"
#include "worker/words.h"

#include <stdbool.h>
#include <stdint.h>

/* The ranges of a Slices message, named alike in struct rank_plan. */
#define SLICE_RANGES(X)                                                                            \
    X(layers)                                                                                      \
    X(q_heads)                                                                                     \
    X(kv_heads)                                                                                    \
    X(experts)                                                                                     \
    X(moe_cols)                                                                                    \
    X(dense_cols)                                                                                  \
    X(vocab)

struct slices {
    int32_t stage;
#define X(name) struct range name;
    SLICE_RANGES(X)
#undef X
};

/* A Plan: what this rank is to hold. */
struct assignment {
    char model_dir[4096];
    char model_name[256];
    char kernels[32];
    uint64_t epoch;
    struct layout layout;
    struct engine_limits limits; /* threads and kv_blocks may be 0: the rank's own choice */
    enum weight_mode weights;
    int32_t vocab_limit;
    int32_t chunk;
    int32_t stall_ms;  /* 0: no bound */
    int32_t speculate; /* limits.max_logits has room for it */
    bool no_prefix_cache;
    bool wipe; /* what has ended: KV blocks, and memory that is freed */
    int32_t heartbeat_ms;
    int32_t reattach_timeout_s; /* 0: a rank whose stream has ended ends */
    struct slices slices;
    struct {
        char path[4096], trust[4096]; /* path "": none */
        int32_t threshold;
        char digest[MANIFEST_DIGEST_HEX + 1];
    } manifest;
};

enum {
    HEARTBEAT_MIN_MS = 50,
    HEARTBEAT_MAX_MS = 60000,
    STALL_MAX_MS = 3600000,
    REATTACH_MAX_S = 604800,
};

/* What every message about a request carries (cluster.proto, fencing). */
struct request_key {
    uint64_t request_id;
    uint32_t attempt;
    uint64_t epoch;
};

enum command_kind { COMMAND_SUBMIT, COMMAND_CANCEL, COMMAND_WORDS };

struct command {
    enum command_kind kind;
    struct request_key key;
    /* Of a Submit: malloc()ed, `answer` and the arrays of `shaping` behind it; command_fini frees.
     */
    int32_t *prompt;
    int32_t prompt_len;
    const int32_t *answer;           /* [answer_len], which this request goes on behind */
    int32_t answer_len, prompt_told; /* as in struct request */
    int32_t max_tokens;
    bool ignore_eos;
    struct sampling sampling;
    struct shaping shaping;
    struct constraint constraint;
    struct thinking thinking;
    int32_t logprobs, prompt_logprobs; /* as in struct request */
    uint64_t tenant, prefix_domain;
    int32_t priority;
    int64_t deadline_ns; /* 0: none */
    struct words *words; /* of Words; owned until somebody takes them and leaves NULL */
};

/* Each refuses with ERR_INVALID, naming field, expected and found. */
enum status assignment_read(const Witan__Cluster__V1__Plan *plan, struct assignment *out,
                            struct error *err);
/* `a`: the plan that the request must fit; ids of its shaping lie below the plan's vocab_limit. Ids
 * of the prompt, and what a plan without a limit leaves open, are checked by engine_submit, which
 * knows the vocabulary. A deadline counts from here. */
enum status command_read_submit(const Witan__Cluster__V1__Submit *submit,
                                const struct assignment *a, struct command *out, struct error *err);
/* Sorts them, which takes a tenth of a second for a large vocabulary. */
enum status command_read_words(const Witan__Cluster__V1__Words *words, struct command *out,
                               struct error *err);
void command_fini(struct command *c);

/*
 * Is `theirs` the plan that this rank has loaded for, but for what holds anew with every plan: the
 * epoch, the model's name, which ranks do not use, heartbeats and the time to attach again? Else
 * ERR_INVALID names the first field that differs.
 */
enum status assignment_compare(const struct assignment *own, const struct assignment *theirs,
                               struct error *err);

/* Does the rank's own plan, made from its own config.json, agree? */
enum status slices_compare(const struct slices *theirs, const struct rank_plan *own,
                           struct error *err);

#endif
