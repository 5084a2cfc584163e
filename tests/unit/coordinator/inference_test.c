/* The gRPC door before a core that is faked: clients that leave, that do not read, that are too
 * many. What answers hold is for tests/clients. */
#include "tests/unit/coordinator/fake_core.h"
#include "tests/unit/unit.h"

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/inference.h"
#include "coordinator/inference_admin.h"
#include "proto/inference.pb-c.h"

#include <pthread.h>

#define GENERATE "/witan.inference.v1.Inference/Generate"

/* In place of the library's, whose file would bring the real core. */
enum rpc_code admin_answer(struct core *c, const char *key, const ProtobufCMessage *request,
                           ProtobufCMessage **response, struct error *err)
{
    (void)c, (void)key, (void)request, (void)response, (void)err;
    return RPC_UNIMPLEMENTED;
}

static struct config config;
static struct core core;
static struct inference *door;
static struct rpc *server, *client; /* runtimes of their own: a client may hold its thread up */
static struct rpc_channel *channel;
static pthread_t thread;

static void *run(void *arg)
{
    loop_run(arg);
    return NULL;
}

static void begin(int read_timeout_s)
{
    struct error err;
    char address[64];
    log_set_level(LOG_ERROR);
    core = (struct core){0};
    fake_running = fake_cancelled = fake_ended = fake_said = 0;
    metrics_init(&core.metrics);
    assert_int_equal(config_init(&config, &err), OK);
    free(config.listen.grpc);
    config.listen.grpc = strdup("127.0.0.1:0");
    config.limits.read_timeout_s = read_timeout_s;
    core.config = &config;
    assert_int_equal(loop_create(&core.loop, &err), OK);
    core.served = (struct served){
        .name = "tiny",
        .context = 4096,
        .defaults = {.temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = 1.0f},
    };
    if (chat_text_load(WITAN_SOURCE_DIR "/deploy/lexicon/model", false, &core.served.text, &err))
        fail_msg("%s", err.msg);
    core.served.vocab = chat_vocab(core.served.text);
    assert_int_equal(rpc_create(1000, NULL, NULL, &server, &err), OK);
    assert_int_equal(rpc_create(1000, NULL, NULL, &client, &err), OK);
    if (inference_create(&core, server, &door, &err) != OK)
        fail_msg("%s", err.msg);
    snprintf(address, sizeof address, "127.0.0.1:%d", inference_port(door));
    assert_int_equal(rpc_channel_create(client, address, NULL, &channel, &err), OK);
    assert_int_equal(pthread_create(&thread, NULL, run, core.loop), 0);
}

static void finish(void)
{
    rpc_channel_destroy(channel);
    rpc_destroy(client);
    loop_stop(core.loop);
    pthread_join(thread, NULL);
    inference_destroy(door);
    rpc_destroy(server);
    assert_int_equal(fake_running, 0);
    loop_destroy(core.loop);
    chat_text_destroy(core.served.text);
    config_fini(&config);
}

/* --- on the loop thread --- */

struct posted {
    atomic_bool done;
    int active;
    uint64_t slow, codes[METRICS_GRPC_CODES];
};

static void tick(void *arg)
{
    struct posted *p = arg;
    inference_tick(door);
    p->active = inference_active(door);
    p->slow = core.metrics.slow[METRICS_GRPC];
    memcpy(p->codes, core.metrics.grpc, sizeof p->codes);
    p->done = true;
}

static struct posted look(void)
{
    struct posted p = {0};
    assert_int_equal(loop_post(core.loop, tick, &p, NULL), OK);
    while (!p.done)
        usleep(500);
    return p;
}

static void wait_for(atomic_int *value, int wanted)
{
    for (int i = 0; i < 10000 && *value != wanted; i++) {
        look();
        usleep(1000);
    }
    assert_int_equal(*value, wanted);
}

/* --- a client --- */

struct caller {
    struct rpc_call *call;
    atomic_int messages, closed, code;
    atomic_bool stares; /* the thread that would read waits */
    char text[256];
};

static void on_message(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    struct caller *c = user;
    (void)call, (void)message;
    c->messages++;
    while (c->stares)
        usleep(1000);
}

static void on_closed(struct rpc_call *call, void *user, int code, const char *message)
{
    struct caller *c = user;
    (void)call;
    snprintf(c->text, sizeof c->text, "%s", message);
    c->code = code;
    c->closed++;
}

static void ask_with(struct caller *c, uint64_t behaviour, char *key, char *after)
{
    static const struct rpc_call_handlers handlers = {.on_message = on_message,
                                                      .on_closed = on_closed};
    Witan__Inference__V1__GenerateRequest q = WITAN__INFERENCE__V1__GENERATE_REQUEST__INIT;
    Witan__Inference__V1__Sampling sampling = WITAN__INFERENCE__V1__SAMPLING__INIT;
    Witan__Inference__V1__Seed seed = WITAN__INFERENCE__V1__SEED__INIT;
    struct error err;
    seed.value = behaviour;
    sampling.seed = &seed;
    q.sampling = &sampling;
    q.input_case = WITAN__INFERENCE__V1__GENERATE_REQUEST__INPUT_TEXT;
    q.text = "hi";
    q.idempotency_key = key;
    q.resume_after = after;
    if (rpc_call_start(channel, GENERATE, &witan__inference__v1__generate_response__descriptor,
                       &handlers, c, 0, true, NULL, &c->call, &err) != OK ||
        rpc_send(c->call, &q.base, &err) != OK)
        fail_msg("%s", err.msg);
    rpc_half_close(c->call);
}

static void ask(struct caller *c, uint64_t behaviour)
{
    ask_with(c, behaviour, "", "");
}

static void wait_closed(struct caller *c)
{
    for (int i = 0; i < 10000 && !c->closed; i++)
        usleep(1000);
    assert_int_equal(c->closed, 1);
    rpc_call_unref(c->call);
}

static void who_leaves_is_forgotten_at_once(void **state)
{
    (void)state;
    static const uint64_t behaviours[] = {FAKE_QUIET, FAKE_TALKS, FAKE_PAGES};
    begin(30);
    for (size_t i = 0; i < COUNT_OF(behaviours); i++) {
        struct caller c = {0};
        fake_cancelled = 0;
        ask(&c, behaviours[i]);
        wait_for(&fake_running, 1);
        assert_int_equal(look().active, 1);
        rpc_cancel(c.call);
        wait_for(&fake_cancelled, 1);
        assert_int_equal(fake_running, 0);
        wait_closed(&c);
    }
    struct posted p = look();
    assert_int_equal(p.active, 0);
    assert_true(p.slow == 0);
    assert_true(p.codes[RPC_CANCELLED] == COUNT_OF(behaviours));
    finish();
}

/* Neither the bound of queued messages nor that of bytes is reached so soon. */
static void who_reads_nothing_is_cut_off(void **state)
{
    (void)state;
    struct caller c = {.stares = true};
    begin(1);
    ask(&c, FAKE_PAGES);
    wait_for(&fake_running, 1);
    int64_t began = clock_now_ns();
    wait_for(&fake_cancelled, 1);
    assert_true(clock_now_ns() - began >= 1000000000);
    struct posted p = look();
    assert_int_equal(p.active, 0);
    assert_true(p.slow == 1);
    assert_true(fake_said < RPC_MAX_QUEUED); /* or it was the bound that cut it off */
    c.stares = false;
    wait_closed(&c);
    assert_int_not_equal(c.code, RPC_OK);
    finish();
}

/* A client that reads what there is may wait for more as long as it likes. */
static void who_waits_is_not_cut_off(void **state)
{
    (void)state;
    struct caller c[2] = {0};
    begin(1);
    ask(&c[0], FAKE_QUIET);
    ask(&c[1], FAKE_TALKS);
    wait_for(&fake_running, 2);
    for (int i = 0; i < 25; i++) {
        usleep(100000);
        look();
    }
    assert_int_equal(fake_running, 2);
    for (int i = 0; i < 2; i++) {
        rpc_cancel(c[i].call);
        wait_closed(&c[i]);
    }
    wait_for(&fake_running, 0);
    assert_true(look().slow == 0);
    finish();
}

static void too_many_are_refused(void **state)
{
    (void)state;
    struct caller c = {0};
    begin(30);
    ask(&c, FAKE_FULL);
    wait_closed(&c);
    assert_int_equal(c.code, RPC_RESOURCE_EXHAUSTED);
    assert_string_equal(c.text, "too many requests");
    for (int i = 0; i < 5000 && look().codes[RPC_RESOURCE_EXHAUSTED] == 0; i++)
        usleep(1000);
    assert_true(look().codes[RPC_RESOURCE_EXHAUSTED] == 1);
    finish();
}

static void a_retry_takes_over(void **state)
{
    (void)state;
    struct caller older = {0}, other = {0}, newer = {0};
    begin(30);
    ask_with(&older, FAKE_QUIET, "k", "");
    wait_for(&fake_running, 1);
    ask_with(&other, FAKE_TALKS, "k", "");
    wait_closed(&other);
    assert_int_equal(other.code, RPC_ABORTED);
    assert_non_null(strstr(other.text, "idempotency_key: a request with this key and another"));
    ask_with(&newer, FAKE_QUIET, "k", "");
    wait_closed(&older);
    assert_int_equal(older.code, RPC_ABORTED);
    assert_string_equal(older.text, "taken over by a retry with the same idempotency key");
    wait_for(&fake_running, 1);
    assert_int_equal(look().active, 1);
    rpc_cancel(newer.call);
    wait_closed(&newer);
    wait_for(&fake_running, 0);
    assert_null(core.claims);
    finish();
}

/* Where there is room for nobody, the half-dead one's own place is enough. */
static void a_take_over_needs_no_room(void **state)
{
    (void)state;
    struct caller older = {0}, other = {0}, newer = {0};
    begin(30);
    ask_with(&older, FAKE_QUIET, "k", "");
    wait_for(&fake_running, 1);
    fake_full = true;
    ask_with(&other, FAKE_TALKS, "k", "");
    wait_closed(&other);
    assert_int_equal(other.code, RPC_RESOURCE_EXHAUSTED);
    ask_with(&newer, FAKE_QUIET, "k", "");
    wait_closed(&older);
    assert_int_equal(older.code, RPC_ABORTED);
    fake_full = false;
    wait_for(&fake_running, 1);
    assert_int_equal(look().active, 1);
    rpc_cancel(newer.call);
    wait_closed(&newer);
    wait_for(&fake_running, 0);
    finish();
}

static void keys_and_positions_that_are_none(void **state)
{
    (void)state;
    static const struct {
        char *key, *after;
        int code;
        const char *words;
    } bad[] = {
        {"a b", "", RPC_INVALID_ARGUMENT, "idempotency_key: expected visible ASCII"},
        {"", "7", RPC_INVALID_ARGUMENT,
         "resume_after: an answer is resumed by the idempotency_key"},
        {"k", "7", RPC_INVALID_ARGUMENT, "resume_after: expected the id of an event"},
        {"k", "1/cpu-1/00000000/1-811c9dc5", RPC_ABORTED, "resume_after: it is of another request"},
    };
    begin(30);
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct caller c = {0};
        ask_with(&c, FAKE_TALKS, bad[i].key, bad[i].after);
        wait_closed(&c);
        assert_int_equal(c.code, bad[i].code);
        assert_non_null(strstr(c.text, bad[i].words));
    }
    assert_null(core.claims);
    finish();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(who_leaves_is_forgotten_at_once),
    cmocka_unit_test(who_reads_nothing_is_cut_off),
    cmocka_unit_test(who_waits_is_not_cut_off),
    cmocka_unit_test(too_many_are_refused),
    cmocka_unit_test(a_retry_takes_over),
    cmocka_unit_test(a_take_over_needs_no_room),
    cmocka_unit_test(keys_and_positions_that_are_none),
};

UNIT_MAIN(tests)
