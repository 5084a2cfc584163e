/*
 * What the doors (HTTP, gRPC) share: the model that is served, and generations: one sequence each,
 * from prompt ids to text. All on the loop thread.
 */
#ifndef WITAN_COORDINATOR_CORE_H
#define WITAN_COORDINATOR_CORE_H

#include "coordinator/admission.h"
#include "coordinator/audit.h"
#include "coordinator/auth.h"
#include "coordinator/config.h"
#include "coordinator/identity.h"
#include "coordinator/loop.h"
#include "coordinator/metrics.h"
#include "coordinator/resume.h"
#include "coordinator/text/chat_text.h"
#include "partition/config.h"
#include "partition/constraint.h"
#include "partition/inventory.h"
#include "partition/manifest.h"
#include "partition/sampling.h"
#include "partition/thinking.h"

#include <stdio.h>

struct members; /* the worker groups: members.h */

/* The model that is served. Immutable. */
struct served {
    const char *name;          /* config's */
    struct manifest *manifest; /* that all of it was proven by; NULL: none was asked for; owned */
    struct chat_text *text;
    struct model_config config;
    struct generation_config defaults;
    enum weight_mode weights; /* config's: what they become in ranks on CPUs */
    int32_t context;          /* most tokens of a sequence, prompt and answer */
    int32_t vocab;            /* ids below this exist */
    int64_t created;          /* unix time, for /v1/models */
    struct thinking
        thinking; /* what ends a thought; without a bound. None: its words have no tags */
    /* What fixes an answer's bits: the arithmetic of the ranks that attached last, what weights
     * have become there and what K and V are kept in ("cpu-1", "cpu-1-int4", "cuda-1-sm90-kv8");
     * "": none has attached. */
    char numerics_class[64];
};

/* How the served template's model writes tool calls. */
enum call_format {
    CALLS_NONE,   /* its tags are content */
    CALLS_HERMES, /* JSON between tags */
    CALLS_CODER,  /* Qwen3-Coder's XML */
};

struct core {
    const struct config *config;
    struct loop *loop;
    struct identity *identity;          /* who may ask; NULL: anybody */
    struct quota *quota;                /* how much; NULL: nobody has limits */
    struct audit *audit;                /* NULL: no log is kept */
    void (*audited)(struct core *core); /* it has changed: what is durable, or whether it can be
                                           written; on the loop thread */
    struct served served;
    struct members *members;
    uint64_t epoch;   /* of this coordinator */
    uint64_t next_id; /* of requests */
    int32_t running;  /* generations alive; at most limits.requests, and one for each claim */
    int32_t held;     /* of these, those that have lost their group and wait for another */
    bool ending;      /* none waits for a group any more: generation_end_held */
    uint64_t done;
    struct admission admission;
    int64_t bytes;   /* that generations take, buffers of their doors included */
    int64_t doors;   /* bytes that the HTTP door's connections hold besides, a tick old */
    int32_t retry_s; /* what the last that was refused was told */
    struct metrics metrics;
    struct resume_claim *claims;    /* of answers under way that have a key */
    int64_t started_ns;             /* monotonic */
    struct generation *table[4096]; /* by id: generation.c's */
};

/* Opens the model's manifest, where there is one, and loads config and words; nothing listens yet.
 * `config` is checked and stays the caller's. */
enum status core_create(const struct config *config, struct loop *loop, struct core **out,
                        struct error *err);
void core_destroy(struct core *core); /* after doors and members; NULL is fine */

/* --- generations --- */

enum part { PART_CONTENT, PART_REASONING };

enum generation_reason { GENERATION_STOP, GENERATION_LENGTH, GENERATION_FAILED };

/* By which door a request came, for the audit log; texts may be NULL. */
struct request_origin {
    const char *door;    /* "http", "grpc" */
    const char *api;     /* the route, or the method */
    const char *key;     /* id of the API key */
    const char *request; /* the door's own id of it */
    int32_t choice;      /* of the answer's */
};

struct generation_params {
    const int32_t *prompt; /* [prompt_len], copied */
    int32_t prompt_len;
    int32_t max_tokens;      /* 0: up to the context; more than fits is refused, or: */
    bool default_max_tokens; /* nobody asked for so many: cut to what fits */
    bool prompt_only;        /* draw nothing: for prompt_logprobs */
    struct sampling sampling;
    struct shaping shaping; /* arrays are copied */
    /* What its content must be; what comes before is for generation_start to say. */
    struct constraint constraint;
    /* 1 + the most tokens of a thought, with split_reasoning; 0: there is no bound. */
    int32_t thinking_budget;
    struct thinking thinking; /* what becomes of it: generation_start's to say */
    /* Where wanted, 1 + how many of the likeliest tokens to list beside; 0: none are. */
    int32_t logprobs, prompt_logprobs;
    uint64_t tenant;        /* whose it is: tenants get equal shares */
    struct quota_key quota; /* the key's own limits, where it has any */
    uint64_t prefix_domain; /* prefixes are shared within it alone */
    int32_t priority;       /* -1 goes before 0 goes before 1 */
    uint32_t deadline_ms;   /* in its group, to its last token; 0: none */
    bool ignore_eos;
    bool split_reasoning; /* tell PART_REASONING from PART_CONTENT; else all is content, tags too */
    bool in_reasoning;    /* the prompt ends inside a <think> block */
    enum call_format calls; /* tell calls from content */
    const json_t *tools;    /* as a request has them, by whose schemas CALLS_CODER converts values;
                               NULL: none; a reference is held */
    bool one_call;          /* the first that is whole ends the answer */
    const char *const
        *stop; /* [stop_count] strings, copied; the text ends before the first found */
    int32_t stop_count;
    /* An answer that was told up to here before: nothing of that is told again, and what is drawn
     * must be what was. All zero: it is told from its beginning. */
    struct resume_at after;
    const char *numerics_class; /* in no other; NULL: in any; copied */
    /* Let in with another of the same answer: queues of groups have room for it. limits.requests,
     * memory_mb and tenant_requests hold. */
    bool accepted;
    bool replaces;    /* one that was let in and has just ended for it: there is room for it */
    bool same_prompt; /* as the choice before it: counted once for quotas */
    struct request_origin origin; /* its texts are read during generation_start alone */
};

enum { GENERATION_MAX_STOPS = 16, GENERATION_MAX_STOP_BYTES = 1024 };

struct generation_end {
    uint64_t id; /* of the request, in this coordinator */
    enum generation_reason reason;
    struct error err; /* with GENERATION_FAILED: ERR_PEER the group was lost, ERR_CANCELLED time is
                         up, ERR_INVALID the model is broken, ERR_CONFLICT what was told before is
                         not of this answer, or no group computes as it was, ERR_IO the audit log
                         cannot be written */
    int32_t prompt_tokens;
    int32_t cached_tokens; /* of the prompt's, those that the prefix cache had */
    int32_t completion_tokens;
    int32_t reasoning_tokens;
    int32_t calls;    /* that are whole, those told before too */
    bool metered;     /* `joules` is known */
    double joules;    /* that its steps took, those of attempts that were lost too */
    const char *stop; /* the stop string that ended it, during on_end; NULL: none did */
    uint64_t seed;
};

/* Of one token; natural logarithms at temperature 1 of the model's own logits. */
struct token_logprobs {
    float logprob;
    int32_t rank;  /* 1: it was the likeliest */
    int32_t count; /* at most SAMPLING_MAX_LOGPROBS, likeliest first */
    const int32_t *top_ids;
    const float *top_logprobs;
};

/* A token whose text is told now. */
struct told_token {
    int32_t id;
    enum part part;
    bool end;       /* it ended the answer: no text is its */
    int64_t offset; /* characters of text before it */
    const struct token_logprobs *logprobs;
};

/* Some of an answer whose tool calls are told apart. */
struct told_piece {
    int32_t call;     /* which of the answer's, from 0; -1: content */
    const char *name; /* with a call's first piece alone, else NULL */
    const char *text; /* of the content, or JSON of the call's arguments; follows what was told */
    size_t len;
    bool end; /* the call is whole; of one that broke off never, whose arguments are then no JSON */
};

/* What becomes of a generation; all is valid during the call. Called on the loop thread, never
 * inside generation_start. */
struct generation_sink {
    /* Text that is certain, whole characters, at most one call a part for each step. */
    void (*on_text)(void *user, enum part part, const char *text, size_t len);
    /* May be NULL with CALLS_NONE. Else what a step tells of content and calls, in order, instead
     * of on_text of PART_CONTENT. */
    void (*on_pieces)(void *user, const struct told_piece *pieces, int32_t count);
    /* May be NULL. Ids drawn, before the text that they give; an end-of-sequence token included.
     * `logprobs`: [count], or NULL where they are not wanted. */
    void (*on_ids)(void *user, const int32_t *ids, const struct token_logprobs *logprobs,
                   int32_t count);
    /* May be NULL. Where logprobs are wanted: a token whose text begins in the on_text of its part
     * that follows, or that had none, before on_end. Not of tokens behind a stop string. */
    void (*on_told)(void *user, const struct told_token *token);
    /* May be NULL. Of the prompt's tokens, from `position` on: all from its second, in order,
     * before anything else. */
    void (*on_prompt)(void *user, int32_t position, const struct token_logprobs *logprobs,
                      int32_t count);
    /* Exactly once, last; the handle is gone with it. */
    void (*on_end)(void *user, const struct generation_end *end);
    /* May be NULL. What the door keeps of this answer in memory. */
    int64_t (*bytes)(const void *user);
};

struct generation;

/*
 * Starts one. ERR_INVALID: the parameters, naming the field as clients call it ("max_tokens",
 * "temperature", "stop"); ERR_LIMIT with "context" in err->msg's first words: prompt and max_tokens
 * do not fit into the context, or into any group's KV cache; ERR_NO_MEMORY: too many requests at
 * once (429, to come again after core_retry_s); ERR_PEER: no group is ready (503); ERR_CONFLICT:
 * what is ready computes in another numerics class; ERR_IO: the audit log cannot be written (503).
 *
 * With an audit log nothing is told before the record of its start is durable.
 */
enum status generation_start(struct core *core, const struct generation_params *params,
                             const struct generation_sink *sink, void *user,
                             struct generation **out, struct error *err);

/* Ends it here and in its group, without on_end. Fine from a sink's callback of the same one, but
 * on_end. */
void generation_cancel(struct generation *g);

/* The numerics class that it computes in; as long as its handle. "": no group was asked yet. */
const char *generation_class(const struct generation *g);

/* Would a request be let in by what is known before its prompt is? Costs little, unlike a prompt;
 * generation_start asks again. `deadline_ms` 0: it has none. ERR_NO_MEMORY: no. */
enum status core_admit(struct core *core, const struct auth_caller *caller, int32_t priority,
                       uint32_t deadline_ms, struct error *err);

/* ERR_NO_MEMORY with this text and behind it when to come again; counts the refusal. `wait_s`: the
 * least that it takes until there is room, where that is known, else 0. */
enum status core_refuse(struct core *core, enum metrics_limit limit, double wait_s,
                        struct error *err, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* Seconds after which the request that was refused last, with ERR_NO_MEMORY, may find room, 1 to
 * 65: those that its message says. */
int32_t core_retry_s(const struct core *core);

/* What a request is called: this coordinator's start and a count; no other ever has it. */
static inline void core_request_id(const struct core *core, uint64_t id, char out[48])
{
    snprintf(out, 48, "%016llx-%llu", (unsigned long long)core->epoch, (unsigned long long)id);
}

/* A random seed for a request that gives none. */
uint64_t core_draw_seed(void);

/* --- state, for health and status --- */

/* Is a group ready, proven by a forward pass over all its ranks in the last seconds? If not, `err`
 * says what is waited for or what failed. */
enum status core_ready(const struct core *core, struct error *err);

#endif
