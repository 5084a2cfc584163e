/* `witan audit replay`: see audit_replay.h. */
#include "cli/audit_replay.h"

#include "base/check.h"
#include "cli/client.h"
#include "cli/flags.h"
#include "coordinator/audit_check.h"
#include "coordinator/dialect.h"
#include "coordinator/text/chat_text.h"
#include "proto/inference.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef Witan__Inference__V1__GenerateRequest generate_request;
typedef Witan__Inference__V1__GenerateResponse generate_response;

enum { MAX_BODY_BYTES = 256 << 20, MAX_IDS = 1 << 24, LOOK_MS = 10000 };

/* What the log says of the request. */
struct recorded {
    json_t *start, *end; /* fields; owned, NULL: not found */
    const char *id;      /* of `start` */
    const char *class, *model, *manifest, *layout, *form, *api, *hmac_prompt, *hmac_output;
    const char *seed;
    int64_t choice, prompt_tokens, completion_tokens, thinking_budget;
    int64_t bias_count, stop_id_count, top_k, min_tokens;
    double temperature, top_p, min_p, repetition, presence, frequency;
    bool ignore_eos;
};

struct replay {
    const char *id, *log, *body, *hmac, *model;
    int choice;
    struct client_options where;
    struct recorded r;
    struct audit_hmac_key key;
    struct openai_request request;
    struct token_ids prompt, answer;
    char class[64], layout[80], name[256], manifest[80]; /* as the server says */
    bool looked, served;
};

/* --- the log ----------------------------------------------------------------------------------
 */

static bool is_text(const json_t *fields, const char *key, const char *value)
{
    const char *s = json_string_value(json_object_get(fields, key));
    return s && strcmp(s, value) == 0;
}

/* By the log's id, or by the door's with the choice. */
static bool is_meant(const struct replay *p, const json_t *fields)
{
    if (is_text(fields, "id", p->id))
        return true;
    return is_text(fields, "request", p->id) &&
           json_integer_value(json_object_get(fields, "choice")) == p->choice;
}

static enum status on_line(void *arg, const char *line, size_t len, bool whole, struct error *err)
{
    struct replay *p = arg;
    struct audit_record rec;
    (void)err;
    if (!whole || audit_line_read("it", line, len, &rec, NULL) != OK)
        return OK; /* `witan audit verify` says so */
    if (!p->r.start && strcmp(rec.kind, "request_start") == 0 && is_meant(p, rec.fields)) {
        p->r.start = json_incref((json_t *)rec.fields);
        p->r.id = json_string_value(json_object_get(rec.fields, "id"));
    } else if (p->r.id && strcmp(rec.kind, "request_end") == 0 &&
               is_text(rec.fields, "id", p->r.id)) {
        p->r.end = json_incref((json_t *)rec.fields);
    }
    json_decref(rec.root);
    return p->r.end ? ERR_CANCELLED : OK;
}

static enum status read_sampling(struct recorded *r, const char *what, struct error *err)
{
    const json_t *s = json_object_get(r->start, "sampling");
    TRY(json_get_real(s, what, "temperature", true, 0, 1000, &r->temperature, err));
    TRY(json_get_real(s, what, "top_p", true, 0, 1, &r->top_p, err));
    TRY(json_get_real(s, what, "min_p", true, 0, 1, &r->min_p, err));
    TRY(json_get_int(s, what, "top_k", true, 0, INT32_MAX, &r->top_k, err));
    TRY(json_get_real(s, what, "repetition_penalty", true, 0, 10, &r->repetition, err));
    TRY(json_get_real(s, what, "presence_penalty", true, -2, 2, &r->presence, err));
    TRY(json_get_real(s, what, "frequency_penalty", true, -2, 2, &r->frequency, err));
    TRY(json_get_int(s, what, "min_tokens", true, 0, INT32_MAX, &r->min_tokens, err));
    TRY(json_get_int(s, what, "logit_bias", true, 0, SAMPLING_MAX_BIASES, &r->bias_count, err));
    return json_get_int(s, what, "stop_token_ids", true, 0, SAMPLING_MAX_STOP_IDS,
                        &r->stop_id_count, err);
}

static enum status read_recorded(struct replay *p, struct error *err)
{
    struct recorded *r = &p->r;
    const char *what = "request_start";
    r->manifest = r->layout = r->api = r->hmac_prompt = r->hmac_output = "";
    TRY(json_get_string(r->end, "request_end", "class", true, &r->class, err));
    TRY(json_get_string(r->start, what, "model", true, &r->model, err));
    TRY(json_get_string(r->start, what, "manifest", false, &r->manifest, err));
    TRY(json_get_string(r->start, what, "layout", false, &r->layout, err));
    TRY(json_get_string(r->start, what, "form", true, &r->form, err));
    TRY(json_get_string(r->start, what, "api", false, &r->api, err));
    TRY(json_get_string(r->start, what, "hmac_prompt", false, &r->hmac_prompt, err));
    TRY(json_get_string(r->start, what, "seed", true, &r->seed, err));
    TRY(json_get_int(r->start, what, "choice", true, 0, INT32_MAX, &r->choice, err));
    TRY(json_get_int(r->start, what, "prompt_tokens", true, 1, MAX_IDS, &r->prompt_tokens, err));
    TRY(json_get_int(r->start, what, "thinking_budget", true, 0, INT32_MAX, &r->thinking_budget,
                     err));
    TRY(json_get_bool(r->start, what, "ignore_eos", true, &r->ignore_eos, err));
    TRY(read_sampling(r, what, err));
    TRY(json_get_string(r->end, "request_end", "hmac_output", false, &r->hmac_output, err));
    TRY(json_get_int(r->end, "request_end", "completion_tokens", true, 0, MAX_IDS,
                     &r->completion_tokens, err));
    if (!*r->hmac_prompt || !*r->hmac_output)
        return error_set(
            err, ERR_UNSUPPORTED,
            "%s: request %s was recorded without HMACs (audit.hmac_key): nothing can be "
            "compared",
            p->log, r->id);
    if (strcmp(r->form, "none") != 0 || r->thinking_budget > 0)
        return error_set(
            err, ERR_UNSUPPORTED,
            "%s: request %s was held to a form (%s) or had a bound of its thought, which "
            "token ids alone do not ask for again: this one cannot be replayed",
            p->log, r->id, r->form);
    return OK;
}

static enum status find_request(struct replay *p, struct error *err)
{
    enum status st = audit_each_line(p->log, on_line, p, err);
    if (st != OK && st != ERR_CANCELLED)
        return st;
    if (!p->r.start)
        return error_set(err, ERR_NOT_FOUND, "%s: no request is called %s (choice %d)", p->log,
                         p->id, p->choice);
    if (!p->r.end)
        return error_set(err, ERR_NOT_FOUND,
                         "%s: request %s has begun and no end of it is recorded: it runs, or the "
                         "coordinator died",
                         p->log, p->r.id);
    return read_recorded(p, err);
}

/* --- the body ---------------------------------------------------------------------------------
 */

/* By the route that it was sent to; what came by gRPC is given as OpenAI's. */
static const struct dialect *dialect_of(const char *api, const json_t *root, enum openai_kind *kind)
{
    static const struct {
        const char *api;
        const struct dialect *dialect;
        enum openai_kind kind;
    } routes[] = {
        {"/v1/chat/completions", &dialect_openai_chat, OPENAI_CHAT},
        {"/v1/completions", &dialect_openai_completion, OPENAI_COMPLETION},
        {"/v1/messages", &dialect_anthropic, OPENAI_CHAT},
        {"/v1/responses", &dialect_responses, OPENAI_CHAT},
        {"/api/chat", &dialect_ollama_chat, OPENAI_CHAT},
        {"/api/generate", &dialect_ollama_generate, OPENAI_CHAT},
    };
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        if (strcmp(api, routes[i].api) == 0) {
            *kind = routes[i].kind;
            return routes[i].dialect;
        }
    bool chat = json_object_get(root, "messages") != NULL;
    *kind = chat ? OPENAI_CHAT : OPENAI_COMPLETION;
    return chat ? &dialect_openai_chat : &dialect_openai_completion;
}

static enum status read_body(struct replay *p, struct error *err)
{
    static const struct generation_config defaults = {.temperature = 1, .top_p = 1};
    char *text;
    size_t len;
    json_t *root = NULL;
    enum openai_kind kind;
    TRY(file_read_all(p->body, MAX_BODY_BYTES, &text, &len, err));
    enum status st = json_parse(p->body, text, len, &root, err);
    if (st == OK) {
        const struct dialect *d = dialect_of(p->r.api, root, &kind);
        st = dialect_read(d, &kind, text, len, &defaults, &p->request, err);
        if (st != OK)
            error_prefix(err, "%s: ", p->body);
    }
    json_decref(root);
    free(text);
    if (st == OK && (p->request.shaping.bias_count != p->r.bias_count ||
                     p->request.shaping.stop_id_count != p->r.stop_id_count))
        st = error_set(err, ERR_INVALID,
                       "%s: expected %lld entries of logit_bias and %lld of stop_token_ids, as "
                       "recorded, found %d and %d",
                       p->body, (long long)p->r.bias_count, (long long)p->r.stop_id_count,
                       p->request.shaping.bias_count, p->request.shaping.stop_id_count);
    return st;
}

/* Are these the ids that were recorded? */
static bool is_prompt(struct replay *p)
{
    char hex[65];
    return audit_hmac(&p->key, "prompt", (const int32_t *)p->prompt.data, (int32_t)p->prompt.len,
                      hex, NULL) == OK &&
           strcmp(hex, p->r.hmac_prompt) == 0;
}

/* A text's special tokens count as such where the key may have them: by HMAC. */
static enum status encode_text(struct replay *p, const struct chat_text *t,
                               const struct openai_prompt *q, struct error *err)
{
    static const enum tokenizer_mode modes[] = {TOKENIZER_ADDED, TOKENIZER_PLAIN};
    for (int i = 0; i < 2 && !is_prompt(p); i++) {
        token_ids_clear(&p->prompt);
        TRY(tokenizer_encode(t->tokenizer, t->scratch, q->text, q->len, modes[i], &p->prompt, err));
    }
    return OK;
}

static enum status encode(struct replay *p, const struct chat_text *t, struct error *err)
{
    const struct openai_request *r = &p->request;
    bool thinking;
    if (r->messages)
        return chat_encode(t, r->messages, r->tool_choice == OPENAI_TOOLS_NONE ? NULL : r->tools,
                           r->kwargs, &p->prompt, &thinking, err);
    int64_t i = p->r.choice / (r->best_of > 0 ? r->best_of : 1);
    if (i >= r->prompt_count)
        return error_set(err, ERR_INVALID, "%s: expected at least %lld prompts, found %d", p->body,
                         (long long)i + 1, r->prompt_count);
    const struct openai_prompt *q = &r->prompts[i];
    return q->ids ? token_ids_append(&p->prompt, q->ids, q->len, err) : encode_text(p, t, q, err);
}

static enum status make_prompt(struct replay *p, struct error *err)
{
    struct chat_text *t = NULL;
    const struct openai_request *r = &p->request;
    bool ids = !r->messages && r->prompt_ids;
    if (!ids && !p->model)
        return error_set(
            err, ERR_INVALID,
            "--model: expected the checkpoint's folder, whose tokenizer makes token ids "
            "of the body's text, found none");
    if (!ids)
        TRY(chat_text_load(p->model, false, &t, err));
    enum status st = encode(p, t, err);
    chat_text_destroy(t);
    if (st == OK && !is_prompt(p))
        st = error_set(
            err, ERR_INVALID,
            "the prompt DIFFERS: the body's %zu token ids are not those that were "
            "recorded (%lld, by their HMAC-SHA256): another text, another key, or another "
            "tokenizer",
            p->prompt.len, (long long)p->r.prompt_tokens);
    return st;
}

/* --- the server -------------------------------------------------------------------------------
 */

static void on_status(void *user, const ProtobufCMessage *message)
{
    struct replay *p = user;
    const Witan__Inference__V1__GetStatusResponse *s = (const void *)message;
    for (size_t i = 0; i < s->n_groups && !*p->class; i++) {
        snprintf(p->class, sizeof p->class, "%s", s->groups[i]->numerics_class);
        snprintf(p->layout, sizeof p->layout, "%s", s->groups[i]->layout);
    }
    p->looked = true;
}

static void on_models(void *user, const ProtobufCMessage *message)
{
    struct replay *p = user;
    const Witan__Inference__V1__ListModelsResponse *s = (const void *)message;
    if (s->n_models == 0)
        return;
    snprintf(p->name, sizeof p->name, "%s", s->models[0]->name);
    if (s->models[0]->manifest)
        snprintf(p->manifest, sizeof p->manifest, "%s", s->models[0]->manifest->digest);
    p->served = true;
}

/* The same weights, in the same arithmetic? */
static enum status look(struct replay *p, struct client *c, struct error *err)
{
    Witan__Inference__V1__ListModelsRequest list = WITAN__INFERENCE__V1__LIST_MODELS_REQUEST__INIT;
    Witan__Inference__V1__GetStatusRequest status = WITAN__INFERENCE__V1__GET_STATUS_REQUEST__INIT;
    const struct client_call models = {
        .method = "/witan.inference.v1.Inference/ListModels",
        .request = &list.base,
        .reply = &witan__inference__v1__list_models_response__descriptor,
        .on_message = on_models,
        .user = p,
        .timeout_ms = LOOK_MS,
    };
    const struct client_call groups = {
        .method = "/witan.inference.v1.Admin/GetStatus",
        .request = &status.base,
        .reply = &witan__inference__v1__get_status_response__descriptor,
        .on_message = on_status,
        .user = p,
        .timeout_ms = LOOK_MS,
    };
    TRY(client_call(c, &models, err));
    if (strcmp(p->manifest, p->r.manifest) != 0)
        return error_set(err, ERR_CONFLICT,
                         "the weights DIFFER: recorded with manifest %s, and %s serves %s",
                         *p->r.manifest ? p->r.manifest : "none", p->where.address,
                         *p->manifest ? p->manifest : "none");
    struct error ignored;
    if (client_call(c, &groups, &ignored) != OK || !*p->class) {
        printf("class     not compared: %s\n",
               p->looked ? "no group has ranks" : "this key lacks the scope admin");
        return OK;
    }
    if (strcmp(p->class, p->r.class) != 0)
        return error_set(err, ERR_CONFLICT,
                         "the numerics class DIFFERS: recorded in %s, and %s computes in %s, whose "
                         "tokens are others",
                         p->r.class, p->where.address, p->class);
    printf("class     %s, as recorded; layout %s, recorded %s\n", p->class, p->layout,
           *p->r.layout ? p->r.layout : "none");
    return OK;
}

static void on_answer(void *user, const ProtobufCMessage *message)
{
    struct replay *p = user;
    const generate_response *r = (const void *)message;
    if (r->body_case == WITAN__INFERENCE__V1__GENERATE_RESPONSE__BODY_DELTA)
        (void)token_ids_append(&p->answer, (const uint32_t *)r->delta->ids, r->delta->n_ids, NULL);
}

/* A request for Generate and all that it points to. */
struct question {
    generate_request q;
    Witan__Inference__V1__Sampling sampling;
    Witan__Inference__V1__TokenIds ids;
    Witan__Inference__V1__Float floats[6];
    Witan__Inference__V1__Int top_k;
    Witan__Inference__V1__Seed seed;
    Witan__Inference__V1__LogitBias bias[SAMPLING_MAX_BIASES], *biases[SAMPLING_MAX_BIASES];
};

static void fill_shaping(struct question *q, const struct shaping *h)
{
    for (int32_t i = 0; i < h->bias_count; i++) {
        witan__inference__v1__logit_bias__init(&q->bias[i]);
        q->bias[i].id = h->bias[i].id;
        q->bias[i].bias = h->bias[i].bias;
        q->biases[i] = &q->bias[i];
    }
    q->sampling.logit_bias = q->biases;
    q->sampling.n_logit_bias = (size_t)h->bias_count;
    q->sampling.stop_token_ids = (int32_t *)h->stop_ids; /* packed, not changed */
    q->sampling.n_stop_token_ids = (size_t)h->stop_id_count;
}

static void fill_sampling(struct question *q, const struct recorded *r)
{
    const double values[] = {r->temperature, r->top_p,    r->min_p,
                             r->repetition,  r->presence, r->frequency};
    Witan__Inference__V1__Float **fields[] = {&q->sampling.temperature,
                                              &q->sampling.top_p,
                                              &q->sampling.min_p,
                                              &q->sampling.repetition_penalty,
                                              &q->sampling.presence_penalty,
                                              &q->sampling.frequency_penalty};
    witan__inference__v1__sampling__init(&q->sampling);
    witan__inference__v1__int__init(&q->top_k);
    witan__inference__v1__seed__init(&q->seed);
    for (int i = 0; i < 6; i++) {
        witan__inference__v1__float__init(&q->floats[i]);
        q->floats[i].value = (float)values[i];
        *fields[i] = &q->floats[i];
    }
    if (!(r->repetition > 0)) /* off: 0 in the log */
        q->floats[3].value = 1.0f;
    q->top_k.value = (int32_t)r->top_k;
    q->sampling.top_k = &q->top_k;
    q->seed.value = strtoull(r->seed, NULL, 10);
    q->sampling.seed = &q->seed;
    q->sampling.min_tokens = (int32_t)(r->min_tokens < r->completion_tokens ? r->min_tokens
                                                                            : r->completion_tokens);
}

/* As many tokens as were drawn: what ended the answer, a stop string or a client, need not be
 * known, and a token depends on none behind it. */
static enum status ask(struct replay *p, struct client *c, struct error *err)
{
    struct question *q = check_calloc(1, sizeof *q);
    witan__inference__v1__generate_request__init(&q->q);
    witan__inference__v1__token_ids__init(&q->ids);
    fill_sampling(q, &p->r);
    fill_shaping(q, &p->request.shaping);
    q->ids.ids = (int32_t *)p->prompt.data;
    q->ids.n_ids = p->prompt.len;
    q->q.model = p->name;
    q->q.input_case = WITAN__INFERENCE__V1__GENERATE_REQUEST__INPUT_TOKEN_IDS;
    q->q.token_ids = &q->ids;
    q->q.max_tokens = (int32_t)p->r.completion_tokens;
    q->q.sampling = &q->sampling;
    q->q.ignore_eos = p->r.ignore_eos;
    q->q.token_ids_only = true;
    const struct client_call call = {
        .method = "/witan.inference.v1.Inference/Generate",
        .request = &q->q.base,
        .reply = &witan__inference__v1__generate_response__descriptor,
        .on_message = on_answer,
        .user = p,
    };
    enum status st = client_call(c, &call, err);
    free(q);
    return st;
}

static enum status compare(struct replay *p, struct error *err)
{
    char hex[65];
    TRY(audit_hmac(&p->key, "output", (const int32_t *)p->answer.data, (int32_t)p->answer.len, hex,
                   err));
    if (strcmp(hex, p->r.hmac_output) == 0) {
        printf("answer    %zu tokens, as recorded, bit for bit\n", p->answer.len);
        return OK;
    }
    return error_set(err, ERR_CONFLICT,
                     "the answer DIFFERS: %zu tokens now, %lld recorded, with another HMAC-SHA256",
                     p->answer.len, (long long)p->r.completion_tokens);
}

/* --- the command ------------------------------------------------------------------------------
 */

static enum status run_on_server(struct replay *p, struct error *err)
{
    struct client *c = NULL;
    TRY(client_open(&p->where, &c, err));
    enum status st = look(p, c, err);
    if (st == OK && p->r.completion_tokens > 0)
        st = ask(p, c, err);
    client_close(c);
    return st == OK ? compare(p, err) : st;
}

static enum status run(struct replay *p, struct error *err)
{
    TRY(audit_hmac_key_read(p->hmac, &p->key, err));
    TRY(find_request(p, err));
    printf("request   %s: model %s, seed %s, %lld tokens of prompt, %lld of answer\n", p->r.id,
           p->r.model, p->r.seed, (long long)p->r.prompt_tokens, (long long)p->r.completion_tokens);
    TRY(read_body(p, err));
    TRY(make_prompt(p, err));
    printf("prompt    as recorded, by its HMAC-SHA256\n");
    return run_on_server(p, err);
}

/* 1: taken with its value; 0: none of these; -1: bad, said. */
static int take(struct replay *p, int argc, char **argv, int i)
{
    const char *choice = NULL;
    const struct {
        const char *name;
        const char **out;
    } flags[] = {{"--log", &p->log},
                 {"--prompt-file", &p->body},
                 {"--hmac-key", &p->hmac},
                 {"--model", &p->model},
                 {"--choice", &choice}};
    for (size_t k = 0; k < sizeof flags / sizeof *flags; k++) {
        if (strcmp(argv[i], flags[k].name) != 0)
            continue;
        if (i + 1 >= argc) {
            fprintf(stderr, "witan audit: %s: expected a value, found nothing\n", argv[i]);
            return -1;
        }
        *flags[k].out = argv[i + 1];
        if (choice &&
            !flags_int("witan audit", "--choice", choice, 0, OPENAI_MAX_CHOICES, &p->choice))
            return -1;
        return 1;
    }
    return 0;
}

static bool parse(struct replay *p, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        int taken = client_flag(&p->where, argc, argv, &i);
        if (taken == 0 && (taken = take(p, argc, argv, i)) > 0)
            i++;
        if (taken < 0)
            return false;
        if (taken > 0)
            continue;
        if (p->id || argv[i][0] == '-') {
            fprintf(stderr, "witan audit: replay: unknown argument %s\n", argv[i]);
            return false;
        }
        p->id = argv[i];
    }
    return p->id && p->log && p->body && p->hmac;
}

int audit_replay(int argc, char **argv)
{
    struct replay p = {0};
    struct error err;
    client_init(&p.where);
    if (!parse(&p, argc, argv))
        return 2;
    token_ids_init(&p.prompt, MAX_IDS);
    token_ids_init(&p.answer, MAX_IDS);
    enum status st = run(&p, &err);
    if (st != OK)
        fprintf(stderr, "witan audit: %s\n", err.msg);
    openai_request_fini(&p.request);
    token_ids_fini(&p.prompt);
    token_ids_fini(&p.answer);
    json_decref(p.r.start);
    json_decref(p.r.end);
    return st == OK && fflush(stdout) == 0 ? 0 : 1;
}
