/*
 * The gRPC door: see inference.h. A session is one call: made by the rpc thread when it opens, then
 * the loop thread's until its closing has been handed over.
 */
#include "coordinator/inference.h"
#include "base/check.h"
#include "base/log.h"
#include "coordinator/inference_admin.h"
#include "coordinator/inference_logprobs.h"
#include "coordinator/inference_resume.h"
#include "partition/shown.h"
#include "proto/inference.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef Witan__Inference__V1__GenerateRequest generate_request;
typedef Witan__Inference__V1__GenerateResponse generate_response;

struct inference {
    struct core *core;
    struct rpc_server *server;
    struct rpc_method methods[5];
    struct session *sessions; /* that have asked */
    int active;
    bool stopping;
};

struct session {
    struct inference *door;
    struct session *prev, *next; /* of the door's, once it has asked */
    struct rpc_call *call;       /* a reference */
    int code;                    /* that it ended with, or NOT_ENDED */
    struct auth_caller caller;
    uint32_t scopes;           /* the caller's */
    uint64_t tenant;           /* whose it is (auth.h) */
    char key[AUTH_MAX_ID + 1]; /* its id */
    void (*handle)(struct session *s, ProtobufCMessage *message);
    struct generation *generation; /* while it runs */
    bool ids_only;
    bool asked;           /* a request has come */
    struct token_ids ids; /* drawn and not yet sent */
    struct delta_logprobs logprobs, prompt_logprobs;
    struct inference_resume *resume; /* while its generation runs; NULL: it has no key */
};

struct handed {
    struct session *session;
    ProtobufCMessage *message; /* NULL: the call is closed */
};

enum { MAX_PROMPT_IDS = 1 << 24, MAX_MESSAGES = 65536, NOT_ENDED = -1 };

/* The first end counts; later ones find the call ended. */
static void set_code(struct session *s, enum rpc_code code)
{
    s->code = s->code == NOT_ENDED ? (int)code : s->code;
}

static void finish(struct session *s, enum rpc_code code, const char *message)
{
    set_code(s, code);
    rpc_finish(s->call, code, message);
}

/* --- from the rpc thread to the loop -----------------------------------------------------------
 */

static void enlist(struct session *s)
{
    s->next = s->door->sessions;
    if (s->next)
        s->next->prev = s;
    s->door->sessions = s;
}

/* Fine for one that is not in it. */
static void strike(struct session *s)
{
    if (s->prev)
        s->prev->next = s->next;
    else if (s->door->sessions == s)
        s->door->sessions = s->next;
    if (s->next)
        s->next->prev = s->prev;
    s->prev = s->next = NULL;
}

static void release_key(struct session *s)
{
    inference_resume_destroy(s->resume);
    s->resume = NULL;
}

/* What is left of its generation goes now. */
static void cancel(struct session *s)
{
    release_key(s);
    if (!s->generation)
        return;
    generation_cancel(s->generation);
    s->generation = NULL;
    s->door->active--;
}

/* Its client does not read: its call is closed soon. */
static void drop(struct session *s)
{
    s->door->core->metrics.slow[METRICS_GRPC]++;
    set_code(s, RPC_CANCELLED);
    strike(s); /* once is enough */
    log_info("grpc: a client that takes nothing is cut off");
    cancel(s);
    rpc_cancel(s->call);
}

/* Another call of the same request takes its place. */
static void on_taken(void *user, const struct error *why)
{
    struct session *s = user;
    cancel(s);
    finish(s, RPC_ABORTED, why->msg);
}

static void run_handed(void *arg)
{
    struct handed *h = arg;
    struct session *s = h->session;
    if (h->message) {
        if (!s->asked) {
            enlist(s);
            s->handle(s, h->message);
        }
        s->asked = true;
        protobuf_c_message_free_unpacked(h->message, NULL);
    } else {
        cancel(s);
        set_code(s, RPC_CANCELLED); /* by its client */
        metrics_grpc(&s->door->core->metrics, s->code);
        strike(s);
        token_ids_fini(&s->ids);
        delta_logprobs_fini(&s->logprobs);
        delta_logprobs_fini(&s->prompt_logprobs);
        rpc_call_unref(s->call);
        free(s);
    }
    free(h);
}

static void hand_over(struct session *s, ProtobufCMessage *message)
{
    struct error err;
    struct handed *h = check_calloc(1, sizeof *h);
    *h = (struct handed){.session = s, .message = message};
    enum status st = loop_post(s->door->core->loop, run_handed, h, &err);
    CHECK(st == OK, "%s", err.msg);
}

static void open_session(struct rpc_call *call, struct inference *d, uint32_t scope,
                         const char *scope_name,
                         void (*handle)(struct session *s, ProtobufCMessage *message))
{
    struct session *s = check_calloc(1, sizeof *s);
    struct error err;
    *s = (struct session){
        .door = d, .call = rpc_call_ref(call), .code = NOT_ENDED, .handle = handle};
    token_ids_init(&s->ids, MAX_PROMPT_IDS);
    rpc_call_set_user(call, s);
    enum status st = identity_check(d->core->identity, rpc_metadata(call, "authorization"),
                                    time(NULL), &s->caller, &err);
    s->scopes = s->caller.scopes;
    s->tenant = s->caller.tenant;
    snprintf(s->key, sizeof s->key, "%s", s->caller.id);
    if (st != OK) {
        finish(s, RPC_UNAUTHENTICATED, err.msg);
        s->asked = true;
    } else if (!(s->scopes & scope)) {
        char text[128];
        snprintf(text, sizeof text, "the key lacks the scope %s", scope_name);
        finish(s, RPC_PERMISSION_DENIED, text);
        s->asked = true;
    }
}

static void on_message(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    hand_over(user, rpc_keep_message(call, message));
}

static void on_closed(struct rpc_call *call, void *user, int code, const char *message)
{
    (void)call, (void)code, (void)message;
    hand_over(user, NULL);
}

/* --- Generate ----------------------------------------------------------------------------------
 */

static void fail(struct session *s, enum status st, const struct error *err)
{
    enum rpc_code code = st == ERR_LIMIT ? RPC_INVALID_ARGUMENT
                         : st == ERR_IO  ? RPC_UNAVAILABLE /* of the audit log */
                                         : rpc_code_of(st);
    set_code(s, code);
    if (code == RPC_RESOURCE_EXHAUSTED)
        rpc_finish_retry(s->call, code, err->msg, core_retry_s(s->door->core) * 1000);
    else
        finish(s, code, err->msg);
}

static void send(struct session *s, const ProtobufCMessage *message)
{
    struct error err;
    if (rpc_send(s->call, message, &err) == ERR_LIMIT)
        drop(s);
}

static void send_delta(struct session *s, enum part part, const char *text, size_t len)
{
    char *copy = check_calloc(len + 1, 1);
    Witan__Inference__V1__Delta delta = WITAN__INFERENCE__V1__DELTA__INIT;
    generate_response response = WITAN__INFERENCE__V1__GENERATE_RESPONSE__INIT;
    memcpy(copy, text, len);
    for (char *nul; (nul = memchr(copy, 0, len)) != NULL;)
        *nul = ' '; /* a C string cannot hold it */
    *(part == PART_REASONING ? &delta.reasoning : &delta.text) = copy;
    delta.ids = (int32_t *)s->ids.data;
    delta.n_ids = s->ids.len;
    delta.logprobs = delta_logprobs_message(&s->logprobs);
    delta.n_logprobs = s->logprobs.count;
    delta.prompt_logprobs = delta_logprobs_message(&s->prompt_logprobs);
    delta.n_prompt_logprobs = s->prompt_logprobs.count;
    delta.position = inference_resume_text(s->resume, part == PART_REASONING);
    response.body_case = WITAN__INFERENCE__V1__GENERATE_RESPONSE__BODY_DELTA;
    response.delta = &delta;
    send(s, &response.base);
    s->ids.len = 0;
    delta_logprobs_clear(&s->logprobs);
    delta_logprobs_clear(&s->prompt_logprobs);
    free(copy);
}

static void on_text(void *user, enum part part, const char *text, size_t len)
{
    struct session *s = user;
    if (!s->ids_only)
        send_delta(s, part, text, len);
}

static void on_ids(void *user, const int32_t *ids, const struct token_logprobs *logprobs,
                   int32_t count)
{
    struct session *s = user;
    inference_resume_add(s->resume, s->generation, ids, count);
    token_ids_append(&s->ids, (const uint32_t *)ids, (size_t)count, NULL);
    if (logprobs)
        delta_logprobs_add(&s->logprobs, logprobs, count);
    if (s->ids_only)
        send_delta(s, PART_CONTENT, "", 0);
}

/* At once: a long prompt has more than one message holds. */
static void on_prompt(void *user, int32_t position, const struct token_logprobs *logprobs,
                      int32_t count)
{
    struct session *s = user;
    (void)position;
    delta_logprobs_add(&s->prompt_logprobs, logprobs, count);
    send_delta(s, PART_CONTENT, "", 0);
}

static void on_end(void *user, const struct generation_end *end)
{
    struct session *s = user;
    s->generation = NULL;
    s->door->active--;
    if (s->ids.len > 0)
        send_delta(s, PART_CONTENT, "", 0);
    release_key(s);
    if (end->reason == GENERATION_FAILED) {
        enum rpc_code code = end->err.code == ERR_CANCELLED  ? RPC_DEADLINE_EXCEEDED
                             : end->err.code == ERR_PEER     ? RPC_UNAVAILABLE
                             : end->err.code == ERR_IO       ? RPC_UNAVAILABLE
                             : end->err.code == ERR_CONFLICT ? RPC_ABORTED
                                                             : RPC_INTERNAL;
        finish(s, code, end->err.msg);
        return;
    }
    Witan__Inference__V1__Finished finished = WITAN__INFERENCE__V1__FINISHED__INIT;
    generate_response response = WITAN__INFERENCE__V1__GENERATE_RESPONSE__INIT;
    char id[48]; /* the coordinator's start and a count: no other request ever has it */
    core_request_id(s->door->core, end->id, id);
    finished.reason = end->reason == GENERATION_STOP ? "stop" : "length";
    finished.prompt_tokens = end->prompt_tokens;
    finished.cached_tokens = end->cached_tokens;
    finished.completion_tokens = end->completion_tokens;
    finished.seed = end->seed;
    finished.request_id = id;
    Witan__Inference__V1__Double joules = WITAN__INFERENCE__V1__DOUBLE__INIT;
    joules.value = end->joules;
    finished.energy_joules = end->metered ? &joules : NULL;
    response.body_case = WITAN__INFERENCE__V1__GENERATE_RESPONSE__BODY_FINISHED;
    response.finished = &finished;
    send(s, &response.base);
    finish(s, RPC_OK, NULL);
}

static const struct generation_sink sink = {
    .on_text = on_text, .on_ids = on_ids, .on_prompt = on_prompt, .on_end = on_end};

/* The templates pass over a message of another role. */
static bool is_role(const char *role)
{
    return strcmp(role, "system") == 0 || strcmp(role, "user") == 0 ||
           strcmp(role, "assistant") == 0;
}

static enum status encode_conversation(const struct core *core,
                                       const Witan__Inference__V1__Conversation *c,
                                       struct token_ids *ids, bool *thinking, struct error *err)
{
    if (c->n_messages == 0 || c->n_messages > MAX_MESSAGES)
        return error_set(err, ERR_INVALID, "conversation.messages: expected 1 to %d, found %zu",
                         (int)MAX_MESSAGES, c->n_messages);
    for (size_t i = 0; i < c->n_messages; i++)
        if (!is_role(c->messages[i]->role))
            return error_set(err, ERR_INVALID,
                             "conversation.messages[%zu].role: expected system, user or assistant, "
                             "found \"%.100s\"",
                             i, c->messages[i]->role);
    json_t *messages = json_array();
    enum status st = OK;
    for (size_t i = 0; st == OK && i < c->n_messages; i++) {
        json_t *m = json_pack("{s:s, s:s}", "role", c->messages[i]->role, "content",
                              c->messages[i]->content);
        if (!m || json_array_append_new(messages, m) != 0)
            st = error_set(err, ERR_INVALID, "conversation.messages[%zu]: not valid UTF-8", i);
    }
    json_t *kwargs = c->no_thinking ? json_pack("{s:b}", "enable_thinking", 0) : NULL;
    if (st == OK)
        st = chat_encode(core->served.text, messages, NULL, kwargs, ids, thinking, err);
    json_decref(kwargs);
    json_decref(messages);
    return st;
}

static enum status encode(struct session *s, const generate_request *q, struct token_ids *ids,
                          bool *thinking, struct error *err)
{
    const struct core *core = s->door->core;
    const struct chat_text *t = core->served.text;
    switch ((int)q->input_case) {
    case WITAN__INFERENCE__V1__GENERATE_REQUEST__INPUT_TEXT:
        return tokenizer_encode(t->tokenizer, t->scratch, q->text, strlen(q->text), TOKENIZER_PLAIN,
                                ids, err);
    case WITAN__INFERENCE__V1__GENERATE_REQUEST__INPUT_TOKEN_IDS:
        if (!(s->scopes & AUTH_RAW)) {
            finish(s, RPC_PERMISSION_DENIED, "the key lacks the scope raw");
            return error_set(err, ERR_CANCELLED, "refused");
        }
        return token_ids_append(ids, (const uint32_t *)q->token_ids->ids, q->token_ids->n_ids, err);
    case WITAN__INFERENCE__V1__GENERATE_REQUEST__INPUT_CONVERSATION:
        return encode_conversation(core, q->conversation, ids, thinking, err);
    default:
        return error_set(err, ERR_INVALID,
                         "input: expected one of text, token_ids and conversation");
    }
}

static struct sampling sampling_of(const struct core *core, const Witan__Inference__V1__Sampling *q)
{
    const struct generation_config *d = &core->served.defaults;
    struct sampling s = {
        .temperature = d->temperature, .top_p = d->top_p, .min_p = d->min_p, .top_k = d->top_k};
    s.seed = q && q->seed ? q->seed->value : core_draw_seed();
    if (q && q->temperature)
        s.temperature = q->temperature->value;
    if (q && q->top_p)
        s.top_p = q->top_p->value;
    if (q && q->min_p)
        s.min_p = q->min_p->value;
    if (q && q->top_k)
        s.top_k = q->top_k->value;
    return s;
}

/* Bounds are generation_start's to check, but for what a value that stands for "off" would hide. */
static enum status shaping_of(const struct core *core, const Witan__Inference__V1__Sampling *q,
                              struct logit_bias *bias, struct shaping *out, struct error *err)
{
    *out = (struct shaping){.repetition_penalty = core->served.defaults.repetition_penalty};
    if (!q)
        return OK;
    if (q->repetition_penalty)
        out->repetition_penalty = q->repetition_penalty->value;
    if (q->repetition_penalty && !(out->repetition_penalty > 0.0f))
        return error_set(err, ERR_INVALID, "repetition_penalty %g: expected above 0, at most 10",
                         (double)out->repetition_penalty);
    if (q->presence_penalty)
        out->presence_penalty = q->presence_penalty->value;
    if (q->frequency_penalty)
        out->frequency_penalty = q->frequency_penalty->value;
    if (q->n_logit_bias > SAMPLING_MAX_BIASES)
        return error_set(err, ERR_INVALID, "logit_bias: expected at most %d tokens, found %zu",
                         (int)SAMPLING_MAX_BIASES, q->n_logit_bias);
    if (q->n_stop_token_ids > SAMPLING_MAX_STOP_IDS)
        return error_set(err, ERR_INVALID, "stop_token_ids: expected at most %d, found %zu",
                         (int)SAMPLING_MAX_STOP_IDS, q->n_stop_token_ids);
    for (size_t i = 0; i < q->n_logit_bias; i++)
        bias[i] = (struct logit_bias){q->logit_bias[i]->id, q->logit_bias[i]->bias};
    out->bias = bias;
    out->bias_count = (int32_t)q->n_logit_bias;
    out->stop_ids = q->stop_token_ids;
    out->stop_id_count = (int32_t)q->n_stop_token_ids;
    out->min_tokens = q->min_tokens;
    return OK;
}

static enum status read_wanted(const char *field, const Witan__Inference__V1__Int *top,
                               int32_t *wanted, struct error *err)
{
    if (top && (top->value < 0 || top->value > SAMPLING_MAX_LOGPROBS))
        return error_set(err, ERR_INVALID, "%s: expected 0 to %d, found %d", field,
                         (int)SAMPLING_MAX_LOGPROBS, top->value);
    *wanted = top ? 1 + top->value : 0;
    return OK;
}

/* What must be refused before the prompt is encoded. */
static enum status check_request(struct session *s, const generate_request *q, struct error *err)
{
    const struct core *core = s->door->core;
    if (*q->model && strcmp(q->model, core->served.name) != 0)
        return error_set(err, ERR_NOT_FOUND, "model: there is no \"%.100s\", only \"%s\"", q->model,
                         core->served.name);
    if (q->n_stop > GENERATION_MAX_STOPS)
        return error_set(err, ERR_INVALID, "stop: expected at most %d strings, found %zu",
                         (int)GENERATION_MAX_STOPS, q->n_stop);
    if (*q->response_format && strcmp(q->response_format, "text") != 0 &&
        strcmp(q->response_format, "json_object") != 0)
        return error_set(err, ERR_INVALID,
                         "response_format: expected \"text\" or \"json_object\", found \"%s\"",
                         shown(q->response_format).s);
    if (q->thinking_budget &&
        (q->thinking_budget->value < 0 || q->thinking_budget->value == INT32_MAX))
        return error_set(err, ERR_INVALID, "thinking_budget: expected 0 to %d, found %d",
                         INT32_MAX - 1, q->thinking_budget->value);
    if (auth_check_priority(s->scopes, q->priority, err) != OK) {
        finish(s, RPC_PERMISSION_DENIED, err->msg);
        return err->code;
    }
    return OK;
}

static enum status start(struct session *s, generate_request *q, struct token_ids *ids,
                         struct error *err)
{
    struct core *core = s->door->core;
    struct logit_bias bias[SAMPLING_MAX_BIASES];
    bool thinking = false;
    TRY(check_request(s, q, err));
    bool replaces = inference_resume_replaces(core, s->tenant, q);
    if (!replaces)
        TRY(core_admit(core, &s->caller, q->priority, rpc_deadline_ms(s->call), err));
    TRY(encode(s, q, ids, &thinking, err));
    s->ids_only = q->token_ids_only;
    struct generation_params p = {
        .prompt = (const int32_t *)ids->data,
        .prompt_len = (int32_t)ids->len,
        .max_tokens = q->max_tokens,
        .sampling = sampling_of(core, q->sampling),
        .tenant = s->tenant,
        .quota = s->caller.quota,
        .prefix_domain = config_prefix_domain(core->config, s->tenant),
        .priority = q->priority,
        .deadline_ms = rpc_deadline_ms(s->call),
        .constraint.kind = strcmp(q->response_format, "json_object") == 0 ? CONSTRAINT_JSON_OBJECT
                                                                          : CONSTRAINT_NONE,
        .thinking_budget = q->thinking_budget ? 1 + q->thinking_budget->value : 0,
        .ignore_eos = q->ignore_eos,
        .replaces = replaces,
        .split_reasoning = q->input_case ==
                           WITAN__INFERENCE__V1__GENERATE_REQUEST__INPUT_CONVERSATION,
        .in_reasoning = thinking,
        .stop = (const char *const *)q->stop,
        .stop_count = (int32_t)q->n_stop,
        .origin = {.door = "grpc", .api = "Generate", .key = s->key},
    };
    TRY(shaping_of(core, q->sampling, bias, &p.shaping, err));
    TRY(read_wanted("logprobs", q->logprobs, &p.logprobs, err));
    TRY(read_wanted("prompt_logprobs", q->prompt_logprobs, &p.prompt_logprobs, err));
    TRY(inference_resume_create(core, s->tenant, q, on_taken, s, &s->resume, err));
    inference_resume_params(s->resume, q->sampling && q->sampling->seed, &p);
    return generation_start(core, &p, &sink, s, &s->generation, err);
}

static void handle_generate(struct session *s, ProtobufCMessage *message)
{
    struct error err = {0};
    struct token_ids ids;
    if (s->door->stopping) {
        finish(s, RPC_UNAVAILABLE, "the coordinator is stopping");
        return;
    }
    token_ids_init(&ids, MAX_PROMPT_IDS);
    enum status st = start(s, (generate_request *)message, &ids, &err);
    token_ids_fini(&ids);
    if (st == OK) {
        s->door->active++;
        return;
    }
    release_key(s);
    fail(s, st, &err);
}

/* --- ListModels, Admin -------------------------------------------------------------------------
 */

static void handle_list(struct session *s, ProtobufCMessage *message)
{
    (void)message;
    const struct served *served = &s->door->core->served;
    Witan__Inference__V1__Manifest manifest = WITAN__INFERENCE__V1__MANIFEST__INIT;
    Witan__Inference__V1__Model model = WITAN__INFERENCE__V1__MODEL__INIT;
    Witan__Inference__V1__Model *models[] = {&model};
    Witan__Inference__V1__ListModelsResponse r = WITAN__INFERENCE__V1__LIST_MODELS_RESPONSE__INIT;
    model.name = (char *)served->name;
    model.context = served->context;
    model.vocabulary = served->vocab;
    if (served->manifest) {
        manifest.digest = (char *)manifest_digest(served->manifest);
        manifest.signers = (char *)manifest_signers(served->manifest);
        model.manifest = &manifest;
    }
    r.models = models;
    r.n_models = 1;
    send(s, &r.base);
    finish(s, RPC_OK, NULL);
}

static void handle_admin(struct session *s, ProtobufCMessage *message)
{
    struct error err;
    ProtobufCMessage *response;
    enum rpc_code code = admin_answer(s->door->core, s->key, message, &response, &err);
    if (response)
        send(s, response);
    finish(s, code, response ? NULL : err.msg);
    protobuf_c_message_free_unpacked(response, NULL);
}

/* --- the service -------------------------------------------------------------------------------
 */

static void open_generate(struct rpc_call *call, void *arg)
{
    open_session(call, arg, AUTH_GENERATE, "generate", handle_generate);
}

static void open_list(struct rpc_call *call, void *arg)
{
    open_session(call, arg, AUTH_GENERATE, "generate", handle_list);
}

static void open_admin(struct rpc_call *call, void *arg)
{
    open_session(call, arg, AUTH_ADMIN, "admin", handle_admin);
}

static void fill_methods(struct inference *d)
{
    static const struct {
        const char *name;
        const ProtobufCMessageDescriptor *request;
        void (*on_open)(struct rpc_call *call, void *arg);
    } table[] = {
        {"/witan.inference.v1.Inference/Generate",
         &witan__inference__v1__generate_request__descriptor, open_generate},
        {"/witan.inference.v1.Inference/ListModels",
         &witan__inference__v1__list_models_request__descriptor, open_list},
        {"/witan.inference.v1.Admin/GetStatus",
         &witan__inference__v1__get_status_request__descriptor, open_admin},
        {"/witan.inference.v1.Admin/Drain", &witan__inference__v1__drain_request__descriptor,
         open_admin},
        {"/witan.inference.v1.Admin/Restart", &witan__inference__v1__restart_request__descriptor,
         open_admin},
    };
    _Static_assert(COUNT_OF(table) == COUNT_OF(d->methods), "every method");
    for (size_t i = 0; i < COUNT_OF(table); i++)
        d->methods[i] = (struct rpc_method){
            .name = table[i].name,
            .request = table[i].request,
            .on_open = table[i].on_open,
            .handlers = {.on_message = on_message, .on_closed = on_closed},
            .arg = d,
        };
}

static enum status read_pem(const char *path, char **out, struct error *err)
{
    size_t len;
    return path ? file_read_all(path, 1 << 20, out, &len, err) : OK;
}

enum status inference_create(struct core *core, struct rpc *rpc, struct inference **out,
                             struct error *err)
{
    struct inference *d = check_calloc(1, sizeof *d);
    const struct config_tls *files = &core->config->listen.tls;
    char *ca = NULL, *cert = NULL, *key = NULL;
    d->core = core;
    fill_methods(d);
    enum status st = read_pem(files->client_ca, &ca, err);
    if (st == OK)
        st = read_pem(files->cert, &cert, err);
    if (st == OK)
        st = read_pem(files->key, &key, err);
    struct rpc_tls tls = {.ca = ca, .cert = cert, .key = key};
    if (st == OK)
        st = rpc_server_create(rpc, core->config->listen.grpc, cert ? &tls : NULL, d->methods,
                               COUNT_OF(d->methods), &d->server, err);
    free(ca);
    free(cert);
    free(key);
    if (st != OK) {
        free(d);
        return st;
    }
    *out = d;
    return OK;
}

int inference_port(const struct inference *d)
{
    return rpc_server_port(d->server);
}

void inference_set_serving(struct inference *d, bool serving)
{
    rpc_server_set_serving(d->server, serving);
}

void inference_tick(struct inference *d)
{
    int64_t most = d->core->config->limits.read_timeout_s * 1000000000LL;
    for (struct session *s = d->sessions, *next; s; s = next) {
        next = s->next;
        if (rpc_stalled_ns(s->call) > most)
            drop(s);
    }
}

int inference_active(const struct inference *d)
{
    return d->active;
}

void inference_stop(struct inference *d)
{
    d->stopping = true;
    inference_set_serving(d, false);
}

void inference_destroy(struct inference *d)
{
    if (!d)
        return;
    rpc_server_stop(d->server, 0);
    loop_drain(d->core->loop);
    free(d);
}
