/* The RPC runtime and its servers: ticks, ports, stopping, health, and clients that mean no good.
 */
#include "tests/unit/proto/rpc_fixture.h"
#include "tests/unit/random.h"

#include <arpa/inet.h>
#include <sys/resource.h>
#include <sys/socket.h>

/* --- the runtime --- */

static double cpu_ms(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-3;
}

static void tick_runs_while_idle_at_no_cost(void **state)
{
    (void)state;
    struct gate g = GATE_INIT;
    struct world w;
    world_open_gated(&w, &g);
    list_models_works(w.channel);
    sleep_ms(200);
    int before = gate_ticks(&g);
    double cpu = cpu_ms();
    sleep_ms(2000);
    cpu = cpu_ms() - cpu;
    int ticks = gate_ticks(&g) - before;
    assert_in_range(ticks, 60, 205); /* of 200: the machine may be busy */
    if (cpu > 100)
        fail_msg("%.0f ms of processor time in 2 s of idling", cpu);
    world_close(&w);
}

static void idle_without_tick_costs_nothing(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    world_open(&w);
    open_generate(&w, 0, &s);
    sleep_ms(200);
    double cpu = cpu_ms();
    sleep_ms(2000);
    cpu = cpu_ms() - cpu;
    if (cpu > 50)
        fail_msg("%.0f ms of processor time in 2 s of idling", cpu);
    assert_int_equal(seen_get(&s, &s.closed), 0);
    rpc_cancel(s.call);
    seen_ended(&s, RPC_CANCELLED);
    seen_fini(&s);
    world_close(&w);
}

static void tick_runs_under_load(void **state)
{
    (void)state;
    struct gate g = GATE_INIT;
    struct world w;
    struct seen s;
    world_open_gated(&w, &g);
    call_generate(w.channel, "qwen3", 1 << 30, 0, &s);
    assert_true(seen_reaches(&s, &s.messages, 1, WAIT_MS));
    int before = gate_ticks(&g);
    sleep_ms(1000);
    assert_in_range(gate_ticks(&g) - before, 10, 110);
    rpc_cancel(s.call);
    seen_ended(&s, RPC_CANCELLED);
    seen_fini(&s);
    world_close(&w);
}

/* A stream that is sent and received as fast as the rpc thread can: gRPC polls its sockets only
 * when its queue is empty, and would keep no other connection alive. */
static void flood_starves_nobody(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct seen flood;
    struct rpc_channel *other;
    world_open(&w);
    assert_ok(rpc_channel_create(w.rpc, w.address, NULL, &other, &err));
    call_generate(w.channel, "qwen3", 1 << 30, 0, &flood);
    int64_t start = clock_now_ns();
    while (ms_since(start) < RPC_KEEPALIVE_MS + 2000) {
        int64_t before = clock_now_ns();
        list_models_works(other);
        /* Starved, it would wait for the flood's end; this long, and it is taken for dead. */
        assert_in_range(ms_since(before), 0, RPC_KEEPALIVE_TIMEOUT_MS);
        assert_int_equal(seen_get(&flood, &flood.closed), 0);
        sleep_ms(20);
    }
    rpc_cancel(flood.call);
    seen_ended(&flood, RPC_CANCELLED);
    assert_false(flood.out_of_order);
    seen_fini(&flood);
    rpc_channel_destroy(other);
    world_close(&w);
}

/* A batch started after the queue's shutdown would abort the process. */
static void destroy_right_after_cancel(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        struct world w;
        struct seen seen[20];
        world_open(&w);
        for (size_t i = 0; i < COUNT_OF(seen); i++)
            call_generate(w.channel, "qwen3", 1 << 30, 0, &seen[i]);
        sleep_ms(round);
        for (size_t i = 0; i < COUNT_OF(seen); i++)
            rpc_cancel(seen[i].call);
        rpc_channel_destroy(w.channel);
        w.channel = NULL;
        world_close(&w);
        for (size_t i = 0; i < COUNT_OF(seen); i++) {
            assert_int_equal(seen[i].closed, 1);
            seen_fini(&seen[i]);
        }
    }
}

static void destroy_waits_for_the_last_callback(void **state)
{
    (void)state;
    struct error err = {0};
    struct rpc *rpc;
    struct rpc_channel *channel;
    struct seen s;
    seen_init(&s);
    assert_ok(rpc_create(0, NULL, NULL, &rpc, &err));
    assert_ok(rpc_channel_create(rpc, "127.0.0.1:1", NULL, &channel, &err));
    assert_ok(rpc_call_start(channel, ATTACH, &witan__cluster__v1__coordinator_message__descriptor,
                             &seen_handlers, &s, 300, true, NULL, &s.call, &err));
    rpc_channel_destroy(channel);
    rpc_destroy(rpc);
    assert_int_equal(s.closed, 1);
    assert_int_equal(s.code, RPC_DEADLINE_EXCEEDED);
    seen_fini(&s);
}

static void code_names(void **state)
{
    (void)state;
    assert_string_equal(rpc_code_name(RPC_OK), "OK");
    assert_string_equal(rpc_code_name(RPC_UNAVAILABLE), "UNAVAILABLE");
    assert_string_equal(rpc_code_name(RPC_UNAUTHENTICATED), "UNAUTHENTICATED");
    assert_non_null(rpc_code_name(17));
    assert_non_null(rpc_code_name(-1));
    assert_int_equal(rpc_code_of(OK), RPC_OK);
    assert_int_equal(rpc_code_of(ERR_INVALID), RPC_INVALID_ARGUMENT);
    assert_int_equal(rpc_code_of(ERR_PEER), RPC_UNAVAILABLE);
}

/* --- servers: ports, stopping --- */

static void port_in_use_is_said(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct rpc_server *second = NULL;
    world_open(&w);
    assert_int_equal(
        rpc_server_create(w.rpc, w.address, NULL, w.methods, COUNT_OF(w.methods), &second, &err),
        ERR_IO);
    assert_null(second);
    assert_non_null(strstr(err.msg, w.address));
    assert_non_null(strstr(err.msg, "in use"));
    list_models_works(w.channel);
    world_close(&w);
}

static void bad_addresses_are_said(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",       "localhost",     "127.0.0.1:",    ":50",           "127.0.0.1:65536",
        "::1:50", "127.0.0.1:-1",  "127.0.0.1:5 0", "unix:/tmp/x:1", "host:50/x",
        "[]:50",  "127.0.0.1:50x", "127.0.0.1: 50", "a:b:50",        "[::1]50",
    };
    struct error err = {0};
    struct rpc *rpc;
    struct rpc_server *server;
    struct rpc_channel *channel;
    assert_ok(rpc_create(0, NULL, NULL, &rpc, &err));
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        if (rpc_server_create(rpc, bad[i], NULL, NULL, 0, &server, &err) != ERR_INVALID ||
            rpc_channel_create(rpc, bad[i], NULL, &channel, &err) != ERR_INVALID)
            fail_msg("\"%s\" was taken", bad[i]);
        assert_non_null(strstr(err.msg, "expected host:port"));
    }
    assert_int_equal(rpc_server_create(rpc, "192.0.2.1:0", NULL, NULL, 0, &server, &err), ERR_IO);
    assert_non_null(strstr(err.msg, "192.0.2.1:0: Cannot assign requested address"));
    rpc_destroy(rpc);
}

static void loopback_by_name_and_ipv6(void **state)
{
    (void)state;
    static const char *const hosts[] = {"localhost", "[::1]"};
    for (size_t i = 0; i < COUNT_OF(hosts); i++) {
        struct error err = {0};
        struct world w;
        char address[64];
        struct rpc_server *server;
        struct rpc_channel *channel;
        world_open(&w);
        snprintf(address, sizeof address, "%s:0", hosts[i]);
        enum status st = rpc_server_create(w.rpc, address, NULL, w.methods, COUNT_OF(w.methods),
                                           &server, &err);
        if (st == OK) { /* a machine may lack IPv6 */
            snprintf(address, sizeof address, "%s:%d", hosts[i], rpc_server_port(server));
            assert_ok(rpc_channel_create(w.rpc, address, NULL, &channel, &err));
            list_models_works(channel);
            rpc_channel_destroy(channel);
            rpc_server_stop(server, 1000);
        } else if (i == 0) {
            fail_msg("%s", err.msg);
        }
        world_close(&w);
    }
}

struct stopping {
    pthread_t thread;
    struct world *world;
    int grace_ms;
    _Atomic(int) took_ms; /* -1: not yet */
};

static void *stop_server(void *arg)
{
    struct stopping *s = arg;
    int64_t start = clock_now_ns();
    rpc_server_stop(s->world->server, s->grace_ms);
    s->took_ms = ms_since(start);
    return NULL;
}

static void stop_lets_open_calls_end(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct seen s, late;
    world_open(&w);
    open_generate(&w, 0, &s);
    struct stopping stopping = {.world = &w, .grace_ms = WAIT_MS, .took_ms = -1};
    pthread_create(&stopping.thread, NULL, stop_server, &stopping);
    sleep_ms(200);
    assert_int_equal(stopping.took_ms, -1);
    call_list_models(w.channel, 0, &late);
    seen_ended(&late, RPC_UNAVAILABLE);
    assert_ok(send_id(w.seen.call, 0, &err));
    rpc_finish(w.seen.call, RPC_OK, NULL);
    seen_ended(&s, RPC_OK);
    assert_int_equal(s.messages, 1);
    pthread_join(stopping.thread, NULL);
    assert_in_range(stopping.took_ms, 150, 5000);
    w.server = NULL;
    seen_fini(&s);
    seen_fini(&late);
    world_close(&w);
}

static void stop_cancels_after_the_grace(void **state)
{
    (void)state;
    struct world w;
    struct seen open, flowing;
    world_open(&w);
    call_generate(w.channel, "qwen3", 1 << 30, 0, &flowing);
    open_generate(&w, 0, &open);
    int64_t start = clock_now_ns();
    rpc_server_stop(w.server, 300);
    assert_in_range(ms_since(start), 290, 5000);
    w.server = NULL;
    assert_int_equal(w.seen.closed, 2);
    assert_int_equal(w.seen.code, RPC_CANCELLED);
    assert_true(seen_reaches(&open, &open.closed, 1, WAIT_MS));
    assert_true(seen_reaches(&flowing, &flowing.closed, 1, WAIT_MS));
    assert_int_not_equal(open.code, RPC_OK);
    assert_int_not_equal(flowing.code, RPC_OK);
    assert_false(flowing.out_of_order);
    seen_fini(&open);
    seen_fini(&flowing);
    world_close(&w);
}

static void stop_while_idle_is_quick(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    list_models_works(w.channel);
    int64_t start = clock_now_ns();
    rpc_server_stop(w.server, WAIT_MS);
    assert_in_range(ms_since(start), 0, 2000);
    w.server = NULL;
    world_close(&w);
}

static void server_comes_back_on_its_port(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct seen s;
    world_open(&w);
    list_models_works(w.channel);
    rpc_server_stop(w.server, 1000);
    call_list_models(w.channel, 0, &s);
    seen_ended(&s, RPC_UNAVAILABLE);
    seen_fini(&s);
    seen_init(&s);
    Witan__Inference__V1__ListModelsRequest request =
        WITAN__INFERENCE__V1__LIST_MODELS_REQUEST__INIT;
    assert_ok(rpc_call_start(w.channel, LIST_MODELS,
                             &witan__inference__v1__list_models_response__descriptor,
                             &seen_handlers, &s, WAIT_MS, true, NULL, &s.call, &err));
    assert_ok(rpc_send(s.call, &request.base, &err));
    sleep_ms(300);
    assert_int_equal(seen_get(&s, &s.closed), 0);
    int64_t start = clock_now_ns();
    assert_ok(
        rpc_server_create(w.rpc, w.address, NULL, w.methods, COUNT_OF(w.methods), &w.server, &err));
    seen_ended(&s, RPC_OK);
    assert_in_range(ms_since(start), 0, 3000);
    seen_fini(&s);
    world_close(&w);
}

static void nobody_listens(void **state)
{
    (void)state;
    struct error err = {0};
    struct rpc *rpc;
    struct rpc_channel *channel;
    struct seen s;
    assert_ok(rpc_create(0, NULL, NULL, &rpc, &err));
    assert_ok(rpc_channel_create(rpc, "127.0.0.1:1", NULL, &channel, &err));
    int64_t start = clock_now_ns();
    call_list_models(channel, 0, &s);
    seen_ended(&s, RPC_UNAVAILABLE);
    assert_in_range(ms_since(start), 0, 2000);
    seen_fini(&s);
    rpc_channel_destroy(channel);
    rpc_destroy(rpc);
}

static void streams_over_the_limit_wait(void **state)
{
    (void)state;
    enum { OVER = 20 };
    struct error err = {0};
    struct world w;
    struct seen s;
    static struct rpc_call *calls[RPC_MAX_STREAMS + OVER];
    world_open(&w);
    list_models_works(w.channel); /* the limit is known once the connection stands */
    seen_init(&s);
    for (size_t i = 0; i < COUNT_OF(calls); i++)
        assert_ok(rpc_call_start(w.channel, ATTACH,
                                 &witan__cluster__v1__coordinator_message__descriptor,
                                 &seen_handlers, &s, 0, false, NULL, &calls[i], &err));
    assert_true(seen_reaches(&w.seen, &w.seen.opened, 1 + RPC_MAX_STREAMS, 3 * WAIT_MS));
    sleep_ms(100);
    assert_int_equal(seen_get(&w.seen, &w.seen.opened), 1 + RPC_MAX_STREAMS);
    for (size_t i = 0; i < COUNT_OF(calls); i++) {
        rpc_cancel(calls[i]);
        rpc_call_unref(calls[i]);
    }
    assert_true(seen_reaches(&s, &s.closed, COUNT_OF(calls), 3 * WAIT_MS));
    seen_fini(&s);
    world_close(&w);
}

/* --- health --- */

enum { UNKNOWN, SERVING, NOT_SERVING, SERVICE_UNKNOWN }; /* as health.proto numbers them */

static void ask_health(struct world *w, const char *method, const char *service, struct seen *s)
{
    struct error err = {0};
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    request.service = (char *)service;
    call_method(w->channel, method, &grpc__health__v1__health_check_response__descriptor, 0, s);
    assert_ok(rpc_send(s->call, &request.base, &err));
    rpc_half_close(s->call);
}

static void check_health(struct world *w, const char *service, int status)
{
    struct seen s;
    ask_health(w, "/grpc.health.v1.Health/Check", service, &s);
    seen_ended(&s, RPC_OK);
    assert_int_equal(s.messages, 1);
    assert_int_equal(s.next, status + 1);
    seen_fini(&s);
}

static void health_check(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    world_open(&w);
    check_health(&w, "", NOT_SERVING);
    rpc_server_set_serving(w.server, true);
    check_health(&w, "", SERVING);
    check_health(&w, "witan.inference.v1.Inference", SERVING);
    check_health(&w, "grpc.health.v1.Health", SERVING);
    rpc_server_set_serving(w.server, false);
    check_health(&w, "witan.cluster.v1.Cluster", NOT_SERVING);
    ask_health(&w, "/grpc.health.v1.Health/Check", "witan.inference", &s);
    seen_ended(&s, RPC_NOT_FOUND);
    seen_fini(&s);
    world_close(&w);
}

/* The `count`-th message of a watch says `status`. */
static void watch_says(struct seen *s, int count, int status)
{
    assert_true(seen_reaches(s, &s->messages, count, WAIT_MS));
    pthread_mutex_lock(&s->mutex);
    assert_int_equal(s->messages, count);
    assert_int_equal(s->next, status + 1);
    pthread_mutex_unlock(&s->mutex);
}

static void health_watch(void **state)
{
    (void)state;
    struct world w;
    struct seen all, unknown, cancelled;
    world_open(&w);
    ask_health(&w, "/grpc.health.v1.Health/Watch", "", &all);
    ask_health(&w, "/grpc.health.v1.Health/Watch", "no.such.Service", &unknown);
    ask_health(&w, "/grpc.health.v1.Health/Watch", "witan.cluster.v1.Cluster", &cancelled);
    watch_says(&all, 1, NOT_SERVING);
    watch_says(&unknown, 1, SERVICE_UNKNOWN);
    watch_says(&cancelled, 1, NOT_SERVING);
    rpc_server_set_serving(w.server, true);
    watch_says(&all, 2, SERVING);
    watch_says(&cancelled, 2, SERVING);
    rpc_cancel(cancelled.call);
    seen_ended(&cancelled, RPC_CANCELLED);
    rpc_server_set_serving(w.server, true);
    rpc_server_set_serving(w.server, false);
    watch_says(&all, 3, NOT_SERVING);
    rpc_server_set_serving(w.server, true);
    watch_says(&all, 4, SERVING);
    int64_t start = clock_now_ns();
    rpc_server_stop(w.server, WAIT_MS); /* ends the watches, so it need not wait */
    assert_in_range(ms_since(start), 0, 5000);
    w.server = NULL;
    seen_ended(&all, RPC_UNAVAILABLE);
    assert_int_equal(all.next, NOT_SERVING + 1);
    seen_ended(&unknown, RPC_UNAVAILABLE);
    assert_int_equal(unknown.messages, 1);
    seen_fini(&all);
    seen_fini(&unknown);
    seen_fini(&cancelled);
    world_close(&w);
}

/* --- hostile and unlucky --- */

static int connect_raw(const struct world *w)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)rpc_server_port(w->server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        fail_msg("connect: %s", strerror(errno));
    return fd;
}

/* Bytes at random, behind a part of what HTTP/2 begins with. */
static void send_garbage(int fd, uint64_t *random)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                                  "\0\0\0\4\0\0\0\0\0"; /* and SETTINGS */
    uint8_t bytes[2000];
    size_t begin = (size_t)random_int(random, 0, sizeof preface - 1);
    size_t n = (size_t)random_int(random, (int)begin, sizeof bytes);
    memcpy(bytes, preface, begin);
    for (size_t i = begin; i < n; i++)
        bytes[i] = (uint8_t)random_int(random, 0, random_int(random, 0, 1) ? 255 : 9);
    send(fd, bytes, n, MSG_NOSIGNAL);
}

static void garbage_on_the_port(void **state)
{
    (void)state;
    uint64_t random = 1;
    struct world w;
    world_open(&w);
    for (int round = 0; round < 200; round++) {
        int fd = connect_raw(&w);
        send_garbage(fd, &random);
        if (random_int(&random, 0, 1))
            send_garbage(fd, &random);
        if (random_int(&random, 0, 1))
            shutdown(fd, SHUT_WR);
        close(fd);
    }
    list_models_works(w.channel);
    world_close(&w);
}

static void stop_with_silent_connections(void **state)
{
    (void)state;
    struct world w;
    int fds[10];
    world_open(&w);
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        fds[i] = connect_raw(&w);
    list_models_works(w.channel);
    int64_t start = clock_now_ns();
    rpc_server_stop(w.server, 500);
    assert_in_range(ms_since(start), 0, 5000);
    w.server = NULL;
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        close(fds[i]);
    world_close(&w);
}

/* gRPC's own log lines are for debugging: nothing appears unasked. */
static void nothing_is_printed(void **state)
{
    (void)state;
    struct error err = {0};
    uint64_t random = 2;
    FILE *file = tmpfile();
    int before = dup(STDERR_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    struct world w;
    struct seen s;
    struct rpc_channel *nobody;
    world_open(&w);
    for (int i = 0; i < 20; i++) {
        int fd = connect_raw(&w);
        send_garbage(fd, &random);
        close(fd);
    }
    assert_ok(rpc_channel_create(w.rpc, "127.0.0.1:1", NULL, &nobody, &err));
    call_list_models(nobody, 0, &s);
    seen_ended(&s, RPC_UNAVAILABLE);
    rpc_channel_destroy(nobody);
    seen_fini(&s);
    world_close(&w);
    dup2(before, STDERR_FILENO);
    close(before);
    assert_int_equal(lseek(fileno(file), 0, SEEK_END), 0);
    fclose(file);
}

/* Threads that open calls of all kinds, send on some, and cancel or leave them. */
struct stress {
    pthread_t thread;
    struct world *world;
    struct seen seen;
    uint64_t random;
    int started;
    int64_t until_ns;
};

static void stress_one(struct stress *t, struct rpc_call **out)
{
    static const char *const methods[] = {ATTACH, GENERATE, LIST_MODELS, "/no/Such"};
    struct error err = {0};
    Witan__Inference__V1__GenerateRequest request = WITAN__INFERENCE__V1__GENERATE_REQUEST__INIT;
    int kind = random_int(&t->random, 0, COUNT_OF(methods) - 1);
    request.model = random_int(&t->random, 0, 1) ? "open" : "";
    request.max_tokens = random_int(&t->random, 0, 300);
    enum status st = rpc_call_start(
        t->world->channel, methods[kind],
        kind ? &witan__inference__v1__generate_response__descriptor
             : &witan__cluster__v1__coordinator_message__descriptor,
        &seen_handlers, &t->seen, random_int(&t->random, 0, 9) ? 1000 : 1, false, NULL, out, &err);
    CHECK(st == OK, "%s", err.msg);
    t->started++;
    for (int n = random_int(&t->random, 0, 20); n > 0; n--)
        if (kind == 0)
            send_heartbeat(*out, 0, NULL);
        else
            rpc_send(*out, &request.base, NULL);
    if (random_int(&t->random, 0, 1))
        rpc_half_close(*out);
}

static void *stress_thread(void *arg)
{
    enum { OPEN = 50 };
    struct stress *t = arg;
    struct rpc_call *open[OPEN] = {0};
    while (clock_now_ns() < t->until_ns) {
        struct rpc_call **call = &open[random_int(&t->random, 0, OPEN - 1)];
        if (!*call) {
            stress_one(t, call);
            while (seen_get(&t->seen, &t->seen.closed) + 500 < t->started)
                sleep_ms(1);
            continue;
        }
        if (random_int(&t->random, 0, 3))
            rpc_cancel(*call);
        rpc_call_unref(*call);
        *call = NULL;
    }
    for (int i = 0; i < OPEN; i++) {
        if (open[i])
            rpc_cancel(open[i]);
        rpc_call_unref(open[i]);
    }
    return NULL;
}

static void stress_start(struct stress *threads, size_t count, struct world *w, int ms)
{
    for (size_t i = 0; i < count; i++) {
        struct stress *t = &threads[i];
        t->world = w;
        t->random = 100 + i;
        t->started = 0;
        t->until_ns = clock_now_ns() + ms * 1000000LL;
        seen_init(&t->seen);
        pthread_create(&t->thread, NULL, stress_thread, t);
    }
}

/* Each call has ended, once. */
static void stress_end(struct stress *threads, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct stress *t = &threads[i];
        pthread_join(t->thread, NULL);
        assert_true(seen_reaches(&t->seen, &t->seen.closed, t->started, WAIT_MS));
        assert_int_equal(t->seen.closed, t->started);
        seen_fini(&t->seen);
    }
}

static void calls_opened_and_cancelled_at_random(void **state)
{
    (void)state;
    struct world w;
    struct stress threads[3];
    world_open(&w);
    stress_start(threads, COUNT_OF(threads), &w, 2000);
    stress_end(threads, COUNT_OF(threads));
    list_models_works(w.channel);
    rpc_server_stop(w.server, 1000);
    w.server = NULL;
    assert_int_equal(w.seen.opened, w.seen.closed);
    world_close(&w);
}

static void stop_in_the_midst_of_calls(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct stress threads[3];
    world_open(&w);
    stress_start(threads, COUNT_OF(threads), &w, 1000);
    for (int i = 0; i < 3; i++) {
        sleep_ms(200);
        rpc_server_stop(w.server, i * 30);
        assert_int_equal(w.seen.opened, w.seen.closed);
        assert_ok(rpc_server_create(w.rpc, w.address, NULL, w.methods, COUNT_OF(w.methods),
                                    &w.server, &err));
    }
    stress_end(threads, COUNT_OF(threads));
    world_close(&w);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(tick_runs_while_idle_at_no_cost),
    cmocka_unit_test(idle_without_tick_costs_nothing),
    cmocka_unit_test(tick_runs_under_load),
    cmocka_unit_test(flood_starves_nobody),
    cmocka_unit_test(destroy_right_after_cancel),
    cmocka_unit_test(destroy_waits_for_the_last_callback),
    cmocka_unit_test(code_names),
    cmocka_unit_test(port_in_use_is_said),
    cmocka_unit_test(bad_addresses_are_said),
    cmocka_unit_test(loopback_by_name_and_ipv6),
    cmocka_unit_test(stop_lets_open_calls_end),
    cmocka_unit_test(stop_cancels_after_the_grace),
    cmocka_unit_test(stop_while_idle_is_quick),
    cmocka_unit_test(server_comes_back_on_its_port),
    cmocka_unit_test(nobody_listens),
    cmocka_unit_test(streams_over_the_limit_wait),
    cmocka_unit_test(health_check),
    cmocka_unit_test(health_watch),
    cmocka_unit_test(garbage_on_the_port),
    cmocka_unit_test(stop_with_silent_connections),
    cmocka_unit_test(nothing_is_printed),
    cmocka_unit_test(calls_opened_and_cancelled_at_random),
    cmocka_unit_test(stop_in_the_midst_of_calls),
};

UNIT_MAIN(tests)
