/* Loads over gRPC against a server that answers by the prompt's first id. */
#include "base/check.h"
#include "cli/load_drive.h"
#include "cli/load_grpc.h"
#include "proto/inference.pb-c.h"
#include "proto/rpc.h"
#include "tests/unit/unit.h"

#include <event2/thread.h>
#include <math.h>

typedef Witan__Inference__V1__GenerateRequest request;
typedef Witan__Inference__V1__GenerateResponse response;

/* What the prompt's only id asks for. */
enum { WHOLE, REFUSED, WRONG, UNFINISHED, SILENT, UNREADY, ANSWERS };

static void send_delta(struct rpc_call *call, size_t ids)
{
    int32_t drawn[4] = {1, 2, 3, 4};
    Witan__Inference__V1__Delta delta = WITAN__INFERENCE__V1__DELTA__INIT;
    response r = WITAN__INFERENCE__V1__GENERATE_RESPONSE__INIT;
    delta.ids = drawn;
    delta.n_ids = ids;
    r.body_case = WITAN__INFERENCE__V1__GENERATE_RESPONSE__BODY_DELTA;
    r.delta = &delta;
    rpc_send(call, &r.base, NULL);
}

static void send_finished(struct rpc_call *call)
{
    Witan__Inference__V1__Finished finished = WITAN__INFERENCE__V1__FINISHED__INIT;
    response r = WITAN__INFERENCE__V1__GENERATE_RESPONSE__INIT;
    finished.prompt_tokens = 1;
    finished.completion_tokens = 5;
    finished.cached_tokens = 1;
    r.body_case = WITAN__INFERENCE__V1__GENERATE_RESPONSE__BODY_FINISHED;
    r.finished = &finished;
    rpc_send(call, &r.base, NULL);
}

static void on_generate(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    (void)user;
    const request *q = (const request *)message;
    int asked = q->token_ids->ids[0] % ANSWERS;
    if (strcmp(q->model, "m") != 0 || q->max_tokens != 5 || !q->ignore_eos)
        asked = WRONG;
    if (asked == SILENT)
        return; /* until the deadline */
    if (asked == WHOLE || asked == UNFINISHED) {
        send_delta(call, 2);
        send_delta(call, 0); /* it says nothing */
        send_delta(call, 3);
    }
    if (asked == WHOLE)
        send_finished(call);
    rpc_finish(call,
               asked == REFUSED   ? RPC_RESOURCE_EXHAUSTED
               : asked == WRONG   ? RPC_INVALID_ARGUMENT
               : asked == UNREADY ? RPC_UNAVAILABLE
                                  : RPC_OK,
               "as asked");
}

static void on_models(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    (void)user, (void)message;
    Witan__Inference__V1__Model model = WITAN__INFERENCE__V1__MODEL__INIT, *one = &model;
    Witan__Inference__V1__ListModelsResponse r = WITAN__INFERENCE__V1__LIST_MODELS_RESPONSE__INIT;
    model.name = (char *)"m";
    model.vocabulary = 777;
    r.models = &one;
    r.n_models = 1;
    rpc_send(call, &r.base, NULL);
    rpc_finish(call, RPC_OK, NULL);
}

/* Two ranks with a meter, one without. */
static void on_status(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    (void)user, (void)message;
    Witan__Inference__V1__Figure power = WITAN__INFERENCE__V1__FIGURE__INIT, energy = power;
    Witan__Inference__V1__Figure *figures[] = {&power, &energy};
    Witan__Inference__V1__Rank metered = WITAN__INFERENCE__V1__RANK__INIT, bare = metered;
    Witan__Inference__V1__Rank *ranks[] = {&metered, &bare, &metered};
    Witan__Inference__V1__Group group = WITAN__INFERENCE__V1__GROUP__INIT, *one = &group;
    Witan__Inference__V1__GetStatusResponse r = WITAN__INFERENCE__V1__GET_STATUS_RESPONSE__INIT;
    power.name = (char *)"power_w";
    power.value = 300;
    energy.name = (char *)"energy_j";
    energy.value = 1000.5;
    metered.figures = figures;
    metered.n_figures = 2;
    group.ranks = ranks;
    group.n_ranks = 3;
    r.groups = &one;
    r.n_groups = 1;
    rpc_send(call, &r.base, NULL);
    rpc_finish(call, RPC_OK, NULL);
}

static void ignore_open(struct rpc_call *call, void *arg)
{
    (void)call, (void)arg;
}

static const struct rpc_method methods[] = {
    {.name = "/witan.inference.v1.Inference/Generate",
     .request = &witan__inference__v1__generate_request__descriptor,
     .on_open = ignore_open,
     .handlers = {.on_message = on_generate}},
    {.name = "/witan.inference.v1.Inference/ListModels",
     .request = &witan__inference__v1__list_models_request__descriptor,
     .on_open = ignore_open,
     .handlers = {.on_message = on_models}},
    {.name = "/witan.inference.v1.Admin/GetStatus",
     .request = &witan__inference__v1__get_status_request__descriptor,
     .on_open = ignore_open,
     .handlers = {.on_message = on_status}},
};

struct world {
    struct rpc *rpc;
    struct rpc_server *server;
    struct load_grpc *client;
    char address[32];
};

/* `count` methods are there. */
static void begin(struct world *w, size_t count, int timeout_ms)
{
    struct error err;
    if (rpc_create(1000, NULL, NULL, &w->rpc, &err) != OK ||
        rpc_server_create(w->rpc, "127.0.0.1:0", NULL, methods, count, &w->server, &err) != OK)
        fail_msg("%s", err.msg);
    snprintf(w->address, sizeof w->address, "127.0.0.1:%d", rpc_server_port(w->server));
    struct load_grpc_options o = {.address = w->address,
                                  .most = 16,
                                  .timeout_ms = timeout_ms,
                                  .model = "m",
                                  .ignore_eos = true};
    if (load_grpc_create(&o, &w->client, &err) != OK)
        fail_msg("%s", err.msg);
}

static void end(struct world *w)
{
    load_grpc_destroy(w->client);
    rpc_server_stop(w->server, 0);
    rpc_destroy(w->rpc);
}

/* 60 requests whose prompts are one id each. */
static void run(struct world *w, struct load_run *out)
{
    struct error err;
    struct load_dataset *dataset = NULL;
    struct load_dataset_options d = {.kind = LOAD_RANDOM,
                                     .vocabulary = 600,
                                     .input = {.a = 1},
                                     .output = {.a = 5},
                                     .prefix_groups = 1};
    struct load_plan plan = {.mode = LOAD_OPEN,
                             .arrivals = {.rate = INFINITY},
                             .requests = 60,
                             .max_in_flight = 16,
                             .timeout_ns = 600000000000};
    assert_int_equal(load_dataset_open(&d, &dataset, &err), OK);
    assert_int_equal(evthread_use_pthreads(), 0);
    struct event_base *base = event_base_new();
    struct load_drive *drive = load_drive_create(base, &plan, load_grpc_client(w->client), dataset);
    assert_int_equal(load_drive_measure(drive, &err), OK);
    load_drive_take(drive, out);
    load_drive_destroy(drive);
    event_base_free(base);
    load_dataset_destroy(dataset);
}

static void counts_answers_and_tells_failures_apart(void **state)
{
    (void)state;
    static const char *const expected[ANSWERS] = {
        "",
        "refused RESOURCE_EXHAUSTED: as asked",
        "answered INVALID_ARGUMENT: as asked",
        "lost: the call ended before the answer did",
        "timeout: ",
        "refused UNAVAILABLE: as asked",
    };
    struct world w;
    struct load_run r = {0};
    int seen[ANSWERS] = {0};
    begin(&w, 3, 5000);
    run(&w, &r);
    assert_int_equal(r.count, 60);
    for (size_t i = 0; i < r.count; i++) {
        const struct load_record *x = &r.records[i];
        int asked = 0;
        while (asked < ANSWERS &&
               (asked == WHOLE ? *x->error != '\0'
                               : strncmp(x->error, expected[asked], strlen(expected[asked])) != 0))
            asked++;
        CHECK(asked < ANSWERS, "found \"%s\"", x->error);
        seen[asked]++;
        assert_int_equal(x->chunks, asked == WHOLE || asked == UNFINISHED ? 2 : 0);
        assert_int_equal(x->usage, asked == WHOLE);
        assert_int_equal(x->output_tokens, asked == WHOLE ? 5 : x->chunks);
        assert_int_equal(x->cached_tokens, asked == WHOLE);
        if (x->chunks > 0)
            assert_true(x->sent_ns < x->first_ns && x->first_ns <= x->last_ns);
    }
    for (int i = 0; i < ANSWERS; i++)
        assert_true(seen[i] > 0);
    load_run_fini(&r);
    end(&w);
}

static void asks_for_models_and_energy(void **state)
{
    (void)state;
    struct world w;
    struct error err;
    char name[32];
    int32_t vocabulary = 0;
    begin(&w, 3, 60000);
    assert_int_equal(load_grpc_models(w.client, name, sizeof name, &vocabulary, &err), OK);
    assert_string_equal(name, "m");
    assert_int_equal(vocabulary, 777);
    assert_true(load_grpc_energy(w.client) == 2001);
    end(&w);
    begin(&w, 2, 60000); /* one that knows no GetStatus */
    assert_true(isnan(load_grpc_energy(w.client)));
    end(&w);
}

static void says_who_is_not_there(void **state)
{
    (void)state;
    struct world w;
    struct error err;
    char name[32];
    int32_t vocabulary;
    begin(&w, 3, 60000);
    rpc_server_stop(w.server, 0);
    w.server = NULL;
    assert_int_equal(load_grpc_models(w.client, name, sizeof name, &vocabulary, &err), ERR_PEER);
    assert_non_null(strstr(err.msg, ": is the server running there?"));
    end(&w);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(counts_answers_and_tells_failures_apart),
    cmocka_unit_test(asks_for_models_and_energy),
    cmocka_unit_test(says_who_is_not_there),
};

UNIT_MAIN(tests)
