/* Processes of this build that the bench starts and ends: see latency.h. */
#include "base/check.h"
#include "base/clock.h"
#include "proto/pki.h"
#include "tests/bench/latency/latency.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { MAX_ARGS = 16, LINE_BYTES = 1024 };

/* --- starting and waiting ----------------------------------------------------------------------
 */

enum status place_find(struct place *p, struct error *err)
{
    ssize_t n = readlink("/proc/self/exe", p->bin, sizeof p->bin - 1);
    if (n < 0)
        return error_errno(err, errno, "/proc/self/exe");
    p->bin[n] = '\0';
    *strrchr(p->bin, '/') = '\0';
    return OK;
}

/* In the child: becomes the program, which ends when the bench does, however that ends. */
static _Noreturn void become(char *const *argv, pid_t parent)
{
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1); /* it died before the line above */
    signal(SIGPIPE, SIG_DFL);
    if (nothing >= 0 && dup2(nothing, STDIN_FILENO) >= 0 && dup2(nothing, STDOUT_FILENO) >= 0)
        execv(argv[0], argv);
    _exit(127);
}

/* Standard output goes nowhere. A program that is not there ends with code 127. */
static enum status start(const struct place *p, const char *program, const char *const *args,
                         pid_t *pid, struct error *err)
{
    char path[2 * LATENCY_PATH], *argv[MAX_ARGS] = {path};
    int argc = 1;
    snprintf(path, sizeof path, "%s/%s", p->bin, program);
    for (; args[argc - 1]; argc++) {
        CHECK(argc + 1 < MAX_ARGS, "%d arguments", argc);
        argv[argc] = (char *)(uintptr_t)args[argc - 1]; /* execv changes no argument */
    }
    pid_t parent = getpid();
    *pid = fork();
    if (*pid == 0)
        become(argv, parent);
    return *pid > 0 ? OK : error_errno(err, errno, "%s", path);
}

static enum status finish(pid_t pid, const char *program, struct error *err)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return error_errno(err, errno, "%s", program);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return OK;
    return error_set(err, ERR_INVALID, "%s ended with %s %d", program,
                     WIFEXITED(status) ? "code" : "signal",
                     WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

/* --- a cluster ---------------------------------------------------------------------------------
 */

static enum status write_config(const struct place *p, const struct cluster *c, char *path,
                                size_t size, struct error *err)
{
    snprintf(path, size, "%s/cluster.yaml", c->dir);
    FILE *f = fopen(path, "we");
    if (!f)
        return error_errno(err, errno, "%s", path);
    fprintf(f,
            "model: {path: \"%s\", name: \"bench\"}\n"
            "listen: {http: \"127.0.0.1:0\", grpc: \"127.0.0.1:0\", cluster: \"127.0.0.1:0\"}\n"
            "pki: \"%s/pki\"\n"
            "limits: {context: %d, sequences: %d, threads: %d}\n",
            p->model, c->dir, (int)LATENCY_CONTEXT, (int)LATENCY_SEQUENCES, p->threads);
    return fclose(f) == 0 ? OK : error_errno(err, errno, "%s", path);
}

/* One line that the coordinator tells, without its end. */
static enum status read_line(int fd, int64_t until_ns, char line[LINE_BYTES], struct error *err)
{
    for (size_t n = 0; n + 1 < LINE_BYTES; n++) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        int64_t left_ms = (until_ns - clock_now_ns()) / 1000000;
        if (left_ms <= 0 || poll(&ready, 1, (int)left_ms) <= 0)
            return error_set(err, ERR_LIMIT, "the coordinator was not ready in %d s",
                             (int)LATENCY_WAIT_S);
        if (read(fd, &line[n], 1) != 1)
            return error_set(err, ERR_PEER, "the coordinator ended before it was ready");
        line[n + 1] = '\0';
        if (line[n] == '\n') {
            line[n] = '\0';
            return OK;
        }
    }
    return error_set(err, ERR_LIMIT, "the coordinator tells a line without end");
}

/* Reads until a line begins with `last`. */
static enum status listen_to(struct cluster *c, const char *last, struct error *err)
{
    struct {
        const char *prefix;
        char *out;
        size_t size;
    } const told[] = {{"listening http ", c->http, sizeof c->http},
                      {"listening grpc ", c->grpc, sizeof c->grpc},
                      {"listening cluster ", c->ranks, sizeof c->ranks}};
    int64_t until = clock_now_ns() + (int64_t)LATENCY_WAIT_S * 1000000000;
    char line[LINE_BYTES] = "";
    do {
        TRY(read_line(c->notify, until, line, err));
        for (size_t i = 0; i < COUNT_OF(told); i++)
            if (strncmp(line, told[i].prefix, strlen(told[i].prefix)) == 0)
                snprintf(told[i].out, told[i].size, "%s", line + strlen(told[i].prefix));
        if (strncmp(line, "failed", 6) == 0)
            return error_set(err, ERR_PEER, "the coordinator: %s", line);
    } while (strncmp(line, last, strlen(last)) != 0);
    return OK;
}

static enum status start_coordinator(const struct place *p, struct cluster *c, struct error *err)
{
    char config[LATENCY_PATH], number[16];
    int ends[2];
    TRY(write_config(p, c, config, sizeof config, err));
    if (pipe(ends) != 0 || fcntl(ends[0], F_SETFD, FD_CLOEXEC) != 0)
        return error_errno(err, errno, "a pipe");
    c->notify = ends[0];
    snprintf(number, sizeof number, "%d", ends[1]);
    const char *const args[] = {"-c", config, "--notify-fd", number, NULL};
    enum status st = start(p, "witan-coordinator", args, &c->coordinator, err);
    close(ends[1]);
    return st;
}

enum status cluster_wait_ready(struct cluster *c, struct error *err)
{
    return listen_to(c, "ready", err);
}

enum status cluster_start(const struct place *p, bool with_worker, struct cluster *c,
                          struct error *err)
{
    char pki[LATENCY_PATH];
    *c = (struct cluster){.notify = -1};
    strcpy(c->dir, "/tmp/witan-bench-XXXXXX");
    if (!mkdtemp(c->dir))
        return error_errno(err, errno, "%s", c->dir);
    snprintf(pki, sizeof pki, "%s/pki", c->dir);
    TRY(pki_ephemeral(pki, err));
    TRY(start_coordinator(p, c, err));
    TRY(listen_to(c, "listening grpc ", err));
    if (!with_worker)
        return OK;
    const char *const args[] = {"--coordinator", c->ranks, "--group", "g0", "--tls", pki, NULL};
    TRY(start(p, "witan-worker", args, &c->worker, err));
    return cluster_wait_ready(c, err);
}

static void remove_folder(const char *dir)
{
    pid_t pid;
    int status;
    char *argv[] = {"rm", "-rf", (char *)(uintptr_t)dir, NULL};
    if (posix_spawnp(&pid, "rm", NULL, NULL, argv, environ) == 0)
        waitpid(pid, &status, 0);
}

enum status cluster_stop(struct cluster *c, struct error *err)
{
    enum status st = OK;
    if (c->coordinator > 0) {
        kill(c->coordinator, SIGTERM);
        st = finish(c->coordinator, "witan-coordinator", err);
    }
    if (c->worker > 0) {
        if (st != OK)
            kill(c->worker, SIGTERM);
        struct error other;
        enum status ended = finish(c->worker, "witan-worker", st == OK ? err : &other);
        st = st == OK ? ended : st;
    }
    if (c->notify >= 0)
        close(c->notify);
    remove_folder(c->dir);
    return st;
}
