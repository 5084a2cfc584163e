/* What a process may do after sandbox_begin and sandbox_seal: each in a child, which cannot undo
 * it. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "base/process.h"
#include "base/sandbox.h"
#include "base/wipe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif

enum { NET_ABI = 4, SCOPE_ABI = 6 };

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: %s: errno %d\n", __LINE__, #condition, errno);               \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* The folder and port that children are told of. */
static char folder[64], inside[96], outside[96];
static int open_port, closed_port;

static long landlock_abi(void)
{
    return syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, 1);
}

static void skip_as(const char *why)
{
    fprintf(stderr, "skipped: %s\n", why);
    exit(77);
}

static void run_child(void (*body)(void))
{
    if (!sandbox_here())
        skip_as("builds with sanitizers have no sandbox: their runtimes want what it forbids");
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        body();
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int listen_somewhere(int *fd)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    *fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(*fd >= 0 && bind(*fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(*fd, 4) == 0);
    assert_int_equal(getsockname(*fd, (struct sockaddr *)&a, &n), 0);
    return ntohs(a.sin_port);
}

/* 0, or the errno. */
static int connect_to(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int e = connect(fd, (struct sockaddr *)&a, sizeof a) == 0 ? 0 : errno;
    close(fd);
    return e;
}

static int try_write(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT, 0600), e = errno;
    if (fd < 0)
        return e;
    close(fd);
    return 0;
}

static void begin(struct sandbox *s)
{
    char words[SANDBOX_WORDS] = "";
    struct error err;
    if (sandbox_begin(s, words, &err) != OK || sandbox_seal(words, &err) != OK) {
        fprintf(stderr, "%s\n", err.msg);
        _exit(1);
    }
    EXPECT(*words);
}

static void write_child(void)
{
    struct sandbox s = {0};
    sandbox_may_write(&s, inside);
    sandbox_may_write(&s, "/there/is/no/such/path");
    sandbox_may_write(&s, NULL);
    begin(&s);
    char path[128], other[128];
    snprintf(path, sizeof path, "%s/new", inside);
    EXPECT(try_write(path) == 0);
    EXPECT(unlink(path) == 0);
    snprintf(other, sizeof other, "%s/old", outside);
    EXPECT(try_write(other) == EACCES);
    EXPECT(truncate(other, 0) != 0 || landlock_abi() < 3);
    EXPECT(unlink(other) != 0);
    EXPECT(mkdir(outside, 0700) != 0);
    EXPECT(open(other, O_RDONLY) >= 0); /* reading is another matter */
    EXPECT(open("/etc/passwd", O_RDONLY) >= 0);
}

static void files_are_written_where_they_may(void **state)
{
    (void)state;
    if (landlock_abi() < 1)
        skip_as("this kernel has no Landlock");
    strcpy(folder, "/tmp/witan-sandbox-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(inside, sizeof inside, "%s/in", folder);
    snprintf(outside, sizeof outside, "%s/out", folder);
    assert_int_equal(mkdir(inside, 0700), 0);
    assert_int_equal(mkdir(outside, 0700), 0);
    char old[128];
    snprintf(old, sizeof old, "%s/old", outside);
    assert_int_equal(try_write(old), 0);
    run_child(write_child);
    unlink(old);
    rmdir(inside);
    rmdir(outside);
    rmdir(folder);
}

static void connect_child(void)
{
    struct sandbox s = {.connects = true};
    EXPECT(connect_to(closed_port) == 0); /* as long as it is not shut */
    sandbox_may_connect(&s, open_port);
    begin(&s);
    EXPECT(connect_to(open_port) == 0);
    EXPECT(connect_to(closed_port) == EACCES);
}

static void connections_go_where_they_may(void **state)
{
    (void)state;
    int one, two;
    if (landlock_abi() < NET_ABI)
        skip_as("this kernel's Landlock does not know connections (ABI 4)");
    open_port = listen_somewhere(&one);
    closed_port = listen_somewhere(&two);
    run_child(connect_child);
    close(one);
    close(two);
}

static void calls_child(void)
{
    struct sandbox s = {0};
    char *words[] = {(char *)"/bin/true", NULL};
    begin(&s);
    execv(words[0], words);
    EXPECT(errno == EPERM);
    EXPECT(ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0 && errno == EPERM);
    EXPECT(unshare(CLONE_NEWUSER) != 0 && errno == EPERM);
    EXPECT(syscall(SYS_bpf, 0, NULL, 0) != 0 && errno == EPERM);
    EXPECT(syscall(SYS_keyctl, 0, 0, 0, 0, 0) != 0 && errno == EPERM);
    EXPECT(syscall(SYS_io_uring_setup, 1, NULL) != 0 && errno == EPERM);
    EXPECT(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    EXPECT(fork() >= 0); /* what is not forbidden goes on */
}

static void calls_are_forbidden(void **state)
{
    (void)state;
    run_child(calls_child);
}

static pthread_barrier_t sealed;

static void *other_thread(void *arg)
{
    char *words[] = {(char *)"/bin/true", NULL};
    (void)arg;
    pthread_barrier_wait(&sealed);
    execv(words[0], words);
    EXPECT(errno == EPERM);
    return NULL;
}

static void threads_child(void)
{
    pthread_t thread;
    char words[SANDBOX_WORDS] = "";
    pthread_barrier_init(&sealed, NULL, 2);
    EXPECT(pthread_create(&thread, NULL, other_thread, NULL) == 0);
    EXPECT(sandbox_seal(words, NULL) == OK);
    pthread_barrier_wait(&sealed);
    EXPECT(pthread_join(thread, NULL) == 0);
}

static void threads_that_run_are_sealed(void **state)
{
    (void)state;
    run_child(threads_child);
}

/* The permitted ones, as /proc has them. */
static uint64_t capabilities(void)
{
    char line[256];
    unsigned long long n = UINT64_MAX;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "CapPrm: %llx", &n) == 1)
            break;
    if (f)
        fclose(f);
    return n;
}

static void capabilities_child(void)
{
    uint64_t keep = UINT64_C(1) << CAP_NET_BIND_SERVICE, had = capabilities();
    struct sandbox s = {.any_file = true, .keep = keep};
    begin(&s);
    EXPECT(capabilities() == (had & keep));
}

static void capabilities_are_dropped(void **state)
{
    (void)state;
    run_child(capabilities_child);
}

static void alone_child(void)
{
    struct sandbox s = {.alone = true};
    begin(&s);
    EXPECT(kill(getppid(), 0) != 0 && errno == EPERM);
    EXPECT(kill(getpid(), 0) == 0);
}

static void others_get_no_signals(void **state)
{
    (void)state;
    if (landlock_abi() < SCOPE_ABI)
        skip_as("this kernel's Landlock does not know signals (ABI 6)");
    run_child(alone_child);
}

static void dumps_child(void)
{
    struct rlimit l;
    process_no_dumps();
    EXPECT(getrlimit(RLIMIT_CORE, &l) == 0 && l.rlim_cur == 0 && l.rlim_max == 0);
    EXPECT(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
}

static void no_dumps(void **state)
{
    (void)state;
    run_child(dumps_child);
}

static void lock_child(void)
{
    struct error err;
    struct sandbox s = {.any_file = true};
    const struct rlimit little = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
    begin(&s); /* root may lock without a limit */
    EXPECT(setrlimit(RLIMIT_MEMLOCK, &little) == 0);
    EXPECT(process_lock_memory(UINT64_C(1) << 30, &err) == ERR_LIMIT);
    EXPECT(strstr(err.msg, "found 1 MiB: raise it (`ulimit -l unlimited`"));
}

static void memory_is_locked_or_the_limit_named(void **state)
{
    (void)state;
    run_child(lock_child);
}

static void wipe_child(void)
{
    static const char text[] = "a canary in a coal mine, of more than thirty-two bytes";
    EXPECT(wipe_on_free());
    for (size_t n = sizeof text; n <= 1 << 20; n *= 4) {
        char *p = malloc(n), *volatile kept = p;
        memcpy(p + n - sizeof text, text, sizeof text);
        free(p);
        /* The allocator's own words may stand at its beginning; its pages are still there. */
        if (n < 64 << 10)
            EXPECT(memcmp(kept + n - sizeof text + 16, text + 16, sizeof text - 16) != 0);
        char *q = malloc(sizeof text), *volatile old = q;
        memcpy(q, text, sizeof text);
        q = realloc(q, n + 4096);
        EXPECT(q && memcmp(q, text, sizeof text) == 0);
        if (q != old)
            EXPECT(memcmp(old + 16, text + 16, sizeof text - 16) != 0);
        q = realloc(q, 8);
        EXPECT(q && memcmp(q, text, 8) == 0);
        free(q);
    }
    free(NULL);
}

static void what_is_freed_is_wiped(void **state)
{
    (void)state;
    run_child(wipe_child);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_written_where_they_may),
        cmocka_unit_test(connections_go_where_they_may),
        cmocka_unit_test(calls_are_forbidden),
        cmocka_unit_test(threads_that_run_are_sealed),
        cmocka_unit_test(capabilities_are_dropped),
        cmocka_unit_test(others_get_no_signals),
        cmocka_unit_test(no_dumps),
        cmocka_unit_test(memory_is_locked_or_the_limit_named),
        cmocka_unit_test(what_is_freed_is_wiped),
    };
    (void)shared_path;
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
