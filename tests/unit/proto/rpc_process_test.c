/* The RPC runtime between processes: peers that are killed or stopped, and children of ours. */
#include "tests/unit/proto/rpc_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <signal.h>
#include <sys/wait.h>

struct child {
    pid_t pid;
    int output; /* what it prints */
};

/* This program again, as `mode` with an argument. */
static struct child spawn(const char *mode, const char *arg)
{
    struct child c;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        fail_msg("pipe: %s", strerror(errno));
    c.pid = fork();
    if (c.pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execl("/proc/self/exe", "rpc_test", mode, arg, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    c.output = ends[0];
    return c;
}

static void child_line(struct child *c, char *line, size_t size)
{
    size_t n = 0;
    while (n + 1 < size && read(c->output, line + n, 1) == 1 && line[n] != '\n')
        n++;
    line[n] = '\0';
}

static void child_end(struct child *c, int signal)
{
    if (signal)
        kill(c->pid, signal);
    assert_int_equal(waitpid(c->pid, NULL, 0), c->pid);
    close(c->output);
}

/* "--serve": a server that says its port and serves until it is killed. */
_Noreturn static void serve(void)
{
    struct world w;
    world_serve(&w, NULL);
    printf("%d\n", rpc_server_port(w.server));
    fflush(stdout);
    for (;;)
        pause();
}

/* "--attach ADDRESS": a client that holds an open call of Attach. */
_Noreturn static void attach(const char *address)
{
    struct error err = {0};
    struct rpc *rpc;
    struct rpc_channel *channel;
    struct seen s;
    assert_ok(rpc_create(0, NULL, NULL, &rpc, &err));
    assert_ok(rpc_channel_create(rpc, address, NULL, &channel, &err));
    call_attach(channel, &s);
    assert_ok(send_heartbeat(s.call, 0, &err));
    for (;;)
        pause();
}

/* "--descriptors": prints how many are open. */
static int count_descriptors(void)
{
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir))
        count++;
    closedir(dir);
    printf("%d\n", count);
    return 0;
}

static void say_whether_openssl_works(void)
{
    unsigned char byte;
    printf("%s\n", RAND_bytes(&byte, 1) == 1 ? "works" : "is gone");
}

/* "--exit": says so as it exits, after all that OpenSSL's first use and gRPC have registered. */
static int use_and_exit(void)
{
    struct world w;
    unsigned char byte;
    atexit(say_whether_openssl_works);
    CHECK(RAND_bytes(&byte, 1) == 1, "no random byte");
    world_open(&w);
    world_close(&w);
    return 0;
}

static int descriptors_of_a_child(void)
{
    char line[32];
    struct child c = spawn("--descriptors", "");
    child_line(&c, line, sizeof line);
    child_end(&c, 0);
    return atoi(line);
}

/* A client of a server in a process of its own. */
struct remote {
    struct child child;
    struct rpc *rpc;
    struct rpc_channel *channel;
    struct seen seen; /* of one call of Attach that has exchanged a message */
};

static void remote_open(struct remote *r)
{
    struct error err = {0};
    char line[32], address[64];
    r->child = spawn("--serve", "");
    child_line(&r->child, line, sizeof line);
    snprintf(address, sizeof address, "127.0.0.1:%s", line);
    assert_ok(rpc_create(0, NULL, NULL, &r->rpc, &err));
    assert_ok(rpc_channel_create(r->rpc, address, NULL, &r->channel, &err));
    call_attach(r->channel, &r->seen);
    assert_ok(send_heartbeat(r->seen.call, 0, &err));
    assert_true(seen_reaches(&r->seen, &r->seen.messages, 1, WAIT_MS));
}

static void remote_close(struct remote *r)
{
    seen_fini(&r->seen);
    rpc_channel_destroy(r->channel);
    rpc_destroy(r->rpc);
}

static void killed_server_is_noticed_within_a_second(void **state)
{
    (void)state;
    struct remote r;
    remote_open(&r);
    int64_t start = clock_now_ns();
    child_end(&r.child, SIGKILL);
    seen_ended(&r.seen, RPC_UNAVAILABLE);
    assert_in_range((r.seen.closed_ns - start) / 1000000, 0, 1000);
    remote_close(&r);
}

static void stopped_server_is_noticed_by_keepalive(void **state)
{
    (void)state;
    struct remote r;
    remote_open(&r);
    int64_t start = clock_now_ns();
    kill(r.child.pid, SIGSTOP);
    seen_ended(&r.seen, RPC_UNAVAILABLE);
    assert_in_range((r.seen.closed_ns - start) / 1000000, RPC_KEEPALIVE_TIMEOUT_MS / 2,
                    RPC_KEEPALIVE_MS + RPC_KEEPALIVE_TIMEOUT_MS + 2000);
    child_end(&r.child, SIGKILL);
    remote_close(&r);
}

static void client_in_another_process_ends(int signal, int within_ms)
{
    struct world w;
    world_serve(&w, NULL);
    struct child c = spawn("--attach", w.address);
    assert_true(seen_reaches(&w.seen, &w.seen.messages, 1, WAIT_MS));
    int64_t start = clock_now_ns();
    kill(c.pid, signal);
    seen_ended(&w.seen, RPC_CANCELLED);
    assert_int_equal(w.seen.half_closes, 0);
    assert_in_range((w.seen.closed_ns - start) / 1000000, 0, within_ms);
    child_end(&c, SIGKILL);
    world_close(&w);
}

static void killed_client_is_noticed_within_a_second(void **state)
{
    (void)state;
    client_in_another_process_ends(SIGKILL, 1000);
}

static void stopped_client_is_noticed_by_keepalive(void **state)
{
    (void)state;
    client_in_another_process_ends(SIGSTOP, RPC_KEEPALIVE_MS + RPC_KEEPALIVE_TIMEOUT_MS + 2000);
}

static void fork_and_exec_between_calls(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    int before = descriptors_of_a_child();
    world_open(&w);
    open_generate(&w, 0, &s);
    struct rpc_call *open = rpc_call_ref(w.seen.call);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(descriptors_of_a_child(), before); /* no socket of ours is inherited */
        list_models_works(w.channel);
    }
    rpc_finish(open, RPC_OK, NULL);
    rpc_call_unref(open);
    seen_ended(&s, RPC_OK);
    seen_fini(&s);
    world_close(&w);
}

static void openssl_outlives_exit(void **state)
{
    (void)state;
    char line[32];
    struct child c = spawn("--exit", "");
    child_line(&c, line, sizeof line);
    child_end(&c, 0);
    assert_string_equal(line, "works"); /* for threads of gRPC's that end then */
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(killed_server_is_noticed_within_a_second),
    cmocka_unit_test(stopped_server_is_noticed_by_keepalive),
    cmocka_unit_test(killed_client_is_noticed_within_a_second),
    cmocka_unit_test(stopped_client_is_noticed_by_keepalive),
    cmocka_unit_test(fork_and_exec_between_calls),
    cmocka_unit_test(openssl_outlives_exit),
};

/* A test that needs another process starts this program again. */
int main(int argc, char **argv)
{
    (void)shared_path;
    if (argc > 2 && strcmp(argv[1], "--serve") == 0)
        serve();
    if (argc > 2 && strcmp(argv[1], "--attach") == 0)
        attach(argv[2]);
    if (argc > 2 && strcmp(argv[1], "--descriptors") == 0)
        return count_descriptors();
    if (argc > 2 && strcmp(argv[1], "--exit") == 0)
        return use_and_exit();
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
