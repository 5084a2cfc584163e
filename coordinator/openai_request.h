/*
 * Bodies of the OpenAI-compatible door, parsed and checked into one plain struct. Pure: knows no
 * server and no model; any thread.
 *
 * A field that the API does not know is passed over, as the API itself does; one that it knows and
 * this build does not do is refused by name unless it has the value that changes nothing. Every
 * message begins with the field's path and a colon (`messages[0].role: expected a string, found an
 * integer`); openai_error_param gives the path back.
 */
#ifndef WITAN_COORDINATOR_OPENAI_REQUEST_H
#define WITAN_COORDINATOR_OPENAI_REQUEST_H

#include "base/json.h"
#include "partition/config.h"
#include "partition/sampling.h"

enum openai_kind {
    OPENAI_CHAT,       /* POST /v1/chat/completions */
    OPENAI_COMPLETION, /* POST /v1/completions */
    OPENAI_TOKENIZE,   /* POST /tokenize */
    OPENAI_DETOKENIZE, /* POST /detokenize */
    OPENAI_KINDS,
};

enum {
    OPENAI_MAX_N = 16,        /* answers to one prompt; of best_of too */
    OPENAI_MAX_CHOICES = 128, /* answers of one request: prompts x n, or x best_of */
    OPENAI_MAX_STOPS = 16,
    OPENAI_MAX_STOP_BYTES = 1024,
    OPENAI_MAX_MESSAGES = 1 << 16,
    OPENAI_MAX_TOOLS = 512,
    OPENAI_DEFAULT_COMPLETION_TOKENS = 16, /* max_tokens of /v1/completions where absent */
    OPENAI_PARAM_BYTES = 128,
};

enum openai_tool_choice {
    OPENAI_TOOLS_AUTO,
    OPENAI_TOOLS_NONE,     /* the model is not told of them */
    OPENAI_TOOLS_REQUIRED, /* of any tool */
    OPENAI_TOOLS_NAMED,    /* of tool_name */
};

/* A prompt that is no conversation: text, or ids when `ids` is set. */
struct openai_prompt {
    const char *text; /* [len] UTF-8, into the request's JSON */
    size_t len;
    uint32_t *ids; /* [len], owned; each fits an int32_t */
};

/* Release with openai_request_fini. */
struct openai_request {
    json_t *root;      /* owned; what points into it lives as long */
    const char *model; /* NULL: the one that is served */
    json_t *messages;  /* into root, roles made plain; NULL without */
    json_t *kwargs;    /* for the chat template, owned; NULL without */
    json_t *tools;     /* into root, an array of at least one; NULL without */
    enum openai_tool_choice tool_choice;
    const char *tool_name;         /* into root */
    bool parallel_tool_calls;      /* else the first call ends the answer */
    struct openai_prompt *prompts; /* owned */
    int32_t prompt_count;
    bool prompt_ids; /* the prompts are ids, which need the scope `raw` */
    bool stream;
    bool include_usage;
    bool continuous_usage; /* in every chunk */
    bool ignore_eos;
    bool echo;        /* completions: the prompt before the answer */
    bool prompt_only; /* max_tokens 0, with echo alone: nothing is drawn */
    int32_t n;
    int32_t best_of;         /* so many are drawn, the n likeliest told; at least n */
    int32_t max_tokens;      /* 0: up to the context */
    bool default_max_tokens; /* it was not asked for: cut to what fits */
    struct sampling sampling;
    bool has_seed;
    bool json_object;        /* response_format: the answer is to be one */
    int32_t thinking_budget; /* 1 + most tokens of a thought; 0: no bound */
    struct shaping shaping;  /* of arrays below; ids are not checked against a vocabulary */
    struct logit_bias *bias;
    int32_t *stop_ids;
    int32_t logprobs;        /* 1 + how many of the likeliest beside each drawn token; 0: none */
    int32_t prompt_logprobs; /* the same of the prompt's tokens */
    int32_t priority;        /* -1 to 1; lower goes first */
    const char *stop[OPENAI_MAX_STOPS]; /* into root */
    int32_t stop_count;
};

/* Sampling that the request does not name comes from `defaults`. ERR_INVALID: the body breaks the
 * format or its bounds; ERR_UNSUPPORTED: it asks for what this build does not do. On failure *out
 * is empty. */
enum status openai_request_parse(enum openai_kind kind, const char *body, size_t len,
                                 const struct generation_config *defaults,
                                 struct openai_request *out, struct error *err);
/* The same in two steps, between which a body may become another. openai_request_read takes `root`
 * over, whatever comes of it. */
enum status openai_body_parse(const char *body, size_t len, json_t **root, struct error *err);
enum status openai_request_read(enum openai_kind kind, json_t *root,
                                const struct generation_config *defaults,
                                struct openai_request *out, struct error *err);
void openai_request_fini(struct openai_request *r);

/* The path of the field that `msg` complains of, "" when it names none. */
void openai_error_param(const char *msg, char out[OPENAI_PARAM_BYTES]);

#endif
