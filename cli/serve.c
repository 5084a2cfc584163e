/*
 * `witan serve`: a coordinator and its worker groups on this machine, or those of a cluster.yaml,
 * in the foreground or detached. What keeps them together is supervise.c.
 */
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/run_folder.h"
#include "cli/supervise.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/pool.h"
#include "base/service.h"
#include "partition/plan.h"
#include "proto/pki.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char usage[] =
    "usage: witan serve --model DIR [FLAG...] [-- MPIRUN_FLAG...]\n"
    "       witan serve -c CLUSTER.YAML [FLAG...] [-- MPIRUN_FLAG...]\n"
    "       witan serve --stop [--run-dir DIR]\n"
    "Starts a coordinator and its worker groups and keeps them running until Ctrl-C; flags go "
    "over\n"
    "what the file says. What stands after -- is given to mpirun as it is.\n"
    "  --model DIR        checkpoint folder, the same on every host\n"
    "  --name NAME        the model's name to clients (default: the folder's)\n"
    "  --tp N --ep N --pp N --w N\n"
    "                     layout of each group, as of `witan run`\n"
    "  --device D         cpu (default) or cuda: a GPU for each rank of a machine, in turn\n"
    "  --collectives C    how ranks on GPUs meet: nccl, staged (through the host) or auto\n"
    "  --gpu-memory F     the part of a GPU's memory that its ranks may fill with it (default "
    "0.9)\n"
    "  --groups N         copies of the model, each a group of its own (default 1)\n"
    "  --listen ADDRESS   HTTP, \"host:port\" (default 127.0.0.1:8000; port 0: any; off: none)\n"
    "  --grpc ADDRESS     gRPC (default 127.0.0.1:8001)\n"
    "  --cluster ADDRESS  where ranks attach (default 127.0.0.1, any port)\n"
    "  --context N        tokens of one conversation (default: the model's, at most 32768)\n"
    "  --sequences N      running at once in a group (default 64)\n"
    "  --step-tokens N    tokens of one step over all sequences (default 512)\n"
    "  --stall-ms N       by so much, or by half, prompts lengthen a step in which others decode\n"
    "                     (default 100)\n"
    "  --speculate N      tokens guessed ahead from the text so far, each step (default: none)\n"
    "  --prefix-cache W   who shares the KV blocks of equal prompts: tenant (default), shared or "
    "off\n"
    "  --threads N        compute threads of a rank (default: the cores over the ranks)\n"
    "  --weights published|int8|int4\n"
    "                     what weights become in memory (default published; docs/operations.md)\n"
    "  --kv bf16|f32|int8 type of the KV cache (default bf16)\n"
    "  --keys FILE        API keys that clients must have\n"
    "  --cert FILE --key FILE\n"
    "                     TLS of HTTP and gRPC; with --keys demanded off loopback\n"
    "  --insecure         do not demand them\n"
    "  --manifest FILE    prove every byte of the folder that is read by this signed manifest\n"
    "  --trust KEYS       with --manifest: PEM public keys, a file or a folder of NAME.pem\n"
    "  --threshold N      with --manifest: how many of them must have signed (default 1)\n"
    "  --weights-cache DIR\n"
    "                     with --manifest: keep weights there as they lie in memory, for the next "
    "start\n"
    "  --pki DIR          certificates of coordinator and ranks (default: made for this run)\n"
    "  --no-sandbox       leave the processes all that their user may do (docs/security.md)\n"
    "  --core-dumps       let the system write core dumps, which hold prompts and answers\n"
    "  --verbose          say where memory and time go\n"
    "  --detach           go on in the background once ready; its log is serve.log in\n"
    "  --run-dir DIR      (default ~/.local/state/witan/serve; without --detach a temporary one);\n"
    "                     serve.json there tells its process and addresses\n"
    "  --stop             end the detached one and wait until it has ended\n";

enum { STOP_POLL_MS = 50, STOP_HURRY_MS = 20000, STOP_GIVE_UP_MS = 30000, LOG_POLL_MS = 50 };

struct flags {
    const char *file, *run_dir;
    const char *model, *name, *http, *grpc, *cluster, *weights, *kv, *keys, *cert, *key, *pki,
        *device;
    const char *gpu_memory, *collectives, *prefix_cache;
    const char *manifest, *trust, *weights_cache;
    int32_t tp, ep, pp, w, groups;
    int32_t context, sequences, step_tokens, threads, threshold, stall_ms, speculate;
    bool verbose, detach, stop, insecure, no_sandbox, core_dumps;
    char *const *mpirun_more;
};

/* --- the command line --------------------------------------------------------------------------
 */

static int bad(const char *flag, const char *expected, const char *found)
{
    fprintf(stderr, "witan serve: %s: expected %s, found %s\n", flag, expected,
            found ? found : "nothing");
    return -1;
}

static int take_text(struct flags *f, const char *flag, const char *value)
{
    const struct {
        const char *name;
        const char **out;
    } texts[] = {
        {"-c", &f->file},
        {"--run-dir", &f->run_dir},
        {"--model", &f->model},
        {"--name", &f->name},
        {"--listen", &f->http},
        {"--grpc", &f->grpc},
        {"--weights", &f->weights},
        {"--kv", &f->kv},
        {"--device", &f->device},
        {"--collectives", &f->collectives},
        {"--gpu-memory", &f->gpu_memory},
        {"--prefix-cache", &f->prefix_cache},
        {"--cluster", &f->cluster},
        {"--keys", &f->keys},
        {"--cert", &f->cert},
        {"--key", &f->key},
        {"--pki", &f->pki},
        {"--manifest", &f->manifest},
        {"--trust", &f->trust},
        {"--weights-cache", &f->weights_cache},
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        if (strcmp(flag, texts[i].name) != 0)
            continue;
        if (!value || !*value)
            return bad(flag, "a value", NULL);
        *texts[i].out = value;
        return 1;
    }
    return 0;
}

static int take_int(struct flags *f, const char *flag, const char *value)
{
    const struct {
        const char *name;
        int32_t *out;
    } ints[] = {
        {"--tp", &f->tp},
        {"--ep", &f->ep},
        {"--pp", &f->pp},
        {"--w", &f->w},
        {"--groups", &f->groups},
        {"--context", &f->context},
        {"--threads", &f->threads},
        {"--sequences", &f->sequences},
        {"--step-tokens", &f->step_tokens},
        {"--threshold", &f->threshold},
        {"--stall-ms", &f->stall_ms},
        {"--speculate", &f->speculate},
    };
    for (size_t i = 0; i < COUNT_OF(ints); i++) {
        if (strcmp(flag, ints[i].name) != 0)
            continue;
        char *end = NULL;
        errno = 0;
        long n = value ? strtol(value, &end, 10) : 0;
        if (!value || *end || errno || n < 1 || n > INT32_MAX)
            return bad(flag, "1 or more", value);
        *ints[i].out = (int32_t)n;
        return 1;
    }
    return 0;
}

static int take_bool(struct flags *f, const char *flag)
{
    const struct {
        const char *name;
        bool *out;
    } bools[] = {{"--verbose", &f->verbose},
                 {"--detach", &f->detach},
                 {"--stop", &f->stop},
                 {"--no-sandbox", &f->no_sandbox},
                 {"--core-dumps", &f->core_dumps},
                 {"--insecure", &f->insecure}};
    for (size_t i = 0; i < COUNT_OF(bools); i++) {
        if (strcmp(flag, bools[i].name) == 0)
            return *bools[i].out = true;
    }
    return 0;
}

/* 0: go on; else the exit code. */
static int parse(struct flags *f, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--") == 0) {
            f->mpirun_more = argv + i + 1;
            break;
        }
        if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            exit(0);
        }
        if (take_bool(f, argv[i]))
            continue;
        int taken = take_text(f, argv[i], value);
        if (taken == 0)
            taken = take_int(f, argv[i], value);
        if (taken < 0)
            return 2;
        if (taken == 0) {
            fprintf(stderr, "witan serve: unknown word %s; `witan serve --help` lists the flags\n",
                    argv[i]);
            return 2;
        }
        i++;
    }
    if (!f->stop && !f->model && !f->file) {
        fputs(usage, stderr);
        return 2;
    }
    return 0;
}

/* --- the configuration -------------------------------------------------------------------------
 */

static void set_text(char **to, const char *from)
{
    if (!from)
        return;
    free(*to);
    *to = strdup(from);
    CHECK(*to, "no memory for the configuration");
}

/* The other processes may run elsewhere. "." has no name of its own and is resolved. */
static void make_absolute(char **path)
{
    if (!*path || !**path)
        return;
    const char *slash = strrchr(*path, '/'), *last = slash ? slash + 1 : *path;
    char *full = NULL, *here = NULL;
    if (strcmp(last, ".") == 0 || strcmp(last, "..") == 0) {
        full = realpath(*path, NULL);
    } else if (**path != '/' && (here = getcwd(NULL, 0))) {
        if (asprintf(&full, "%s/%s", here, *path) < 0)
            full = NULL;
    }
    free(here);
    if (full) {
        free(*path);
        *path = full;
    }
}

static enum status make_groups(struct config *c, int32_t count, struct error *err)
{
    if (c->groups_count > 0)
        return error_set(err, ERR_INVALID, "--groups: the file names the groups already");
    if (count > CONFIG_MAX_GROUPS)
        return error_set(err, ERR_INVALID, "--groups: expected at most %d, found %d",
                         CONFIG_MAX_GROUPS, count);
    c->groups = check_calloc((size_t)count, sizeof *c->groups);
    c->groups_count = (uint32_t)count;
    for (int32_t i = 0; i < count; i++) {
        c->groups[i].pp = c->groups[i].tp = 1;
        CHECK(asprintf(&c->groups[i].name, "g%d", i) > 0, "no memory for the configuration");
    }
    return OK;
}

static void set_layouts(struct config *c, const struct flags *f)
{
    for (uint32_t i = 0; i < c->groups_count; i++) {
        struct config_group *g = &c->groups[i];
        g->tp = f->tp ? f->tp : g->tp;
        g->ep = f->ep ? f->ep : g->ep;
        g->pp = f->pp ? f->pp : g->pp;
        g->w = f->w ? f->w : g->w;
    }
}

static void set_limits(struct config *c, const struct flags *f)
{
    c->limits.context = f->context ? f->context : c->limits.context;
    c->limits.sequences = f->sequences ? f->sequences : c->limits.sequences;
    c->limits.step_tokens = f->step_tokens ? f->step_tokens : c->limits.step_tokens;
    c->limits.threads = f->threads ? f->threads : c->limits.threads;
    c->limits.stall_ms = f->stall_ms ? f->stall_ms : c->limits.stall_ms;
    c->limits.speculate = f->speculate ? f->speculate : c->limits.speculate;
}

/* A rank knows of its own group's ranks on this machine alone: several groups share the cores here.
 */
static void share_cores(struct config *c)
{
    int64_t ranks = 0;
    for (uint32_t i = 0; i < c->groups_count; i++) {
        if (c->groups[i].hosts_count > 0 || c->groups[i].external)
            return;
        ranks += config_group_world(&c->groups[i]);
    }
    if (c->limits.threads == 0 && c->groups_count > 1 && ranks > 0)
        c->limits.threads = cpu_count() > ranks ? (int32_t)(cpu_count() / ranks) : 1;
}

/* Two ways to the same: the file, then what the flags say. */
static enum status configure(struct config *c, const struct flags *f, struct error *err)
{
    if (f->file)
        TRY(config_read(f->file, c, err));
    else
        set_text(&c->listen.cluster, "127.0.0.1:0"); /* nobody needs to know it */
    const struct {
        char **to;
        const char *from;
    } texts[] = {
        {&c->model.path, f->model},
        {&c->model.name, f->name},
        {&c->listen.http, f->http},
        {&c->listen.grpc, f->grpc},
        {&c->listen.cluster, f->cluster},
        {&c->model.weights, f->weights},
        {&c->limits.kv, f->kv},
        {&c->limits.prefix_cache, f->prefix_cache},
        {&c->model.device, f->device},
        {&c->model.collectives, f->collectives},
        {&c->listen.keys, f->keys},
        {&c->listen.tls.cert, f->cert},
        {&c->listen.tls.key, f->key},
        {&c->pki, f->pki},
        {&c->model.manifest, f->manifest},
        {&c->model.trust, f->trust},
        {&c->model.weights_cache, f->weights_cache},
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        set_text(texts[i].to, texts[i].from);
    char **const paths[] = {&c->model.path,     &c->listen.keys,          &c->listen.tls.cert,
                            &c->listen.tls.key, &c->listen.tls.client_ca, &c->pki,
                            &c->model.manifest, &c->model.trust,          &c->model.weights_cache,
                            &c->auth.jwks};
    for (size_t i = 0; i < COUNT_OF(paths); i++)
        make_absolute(paths[i]);
    if (f->threshold && !c->model.manifest)
        return error_set(err, ERR_INVALID,
                         "--threshold: expected --manifest and --trust with it, found neither");
    c->model.threshold = f->threshold ? f->threshold : c->model.threshold;
    if (f->no_sandbox)
        set_text(&c->sandbox, "off");
    c->core_dumps |= f->core_dumps;
    c->verbose |= f->verbose;
    c->listen.insecure |= f->insecure;
    if (f->groups || c->groups_count == 0)
        TRY(make_groups(c, f->groups ? f->groups : 1, err));
    set_layouts(c, f);
    set_limits(c, f);
    if (f->gpu_memory && !flags_fraction(f->gpu_memory, &c->limits.gpu_percent))
        return error_set(err, ERR_INVALID, "--gpu-memory: expected 0.01 to 1, found %.40s",
                         f->gpu_memory);
    TRY(config_check(c, err));
    for (uint32_t i = 0; i < c->groups_count; i++)
        if (c->groups[i].external && !c->pki)
            return error_set(
                err, ERR_INVALID,
                "pki: group %s is started elsewhere and needs certificates that it can "
                "read (`witan pki`), found none",
                c->groups[i].name);
    share_cores(c);
    return OK;
}

/* --- running -----------------------------------------------------------------------------------
 */

static enum status fill_folder(struct config *c, const struct run_folder *run, struct error *err)
{
    char pki[RUN_FOLDER_MAX_PATH];
    struct buf text;
    if (!c->pki) {
        run_folder_file(run->path, RUN_FOLDER_PKI, pki);
        TRY(pki_ephemeral(pki, err));
        set_text(&c->pki, pki);
        make_absolute(&c->pki);
    }
    buf_init(&text, CONFIG_MAX_BYTES);
    enum status st = config_print(c, &text, err);
    if (st == OK)
        st = run_folder_write(run, RUN_FOLDER_CONFIG, text.data, text.len, err);
    buf_fini(&text);
    return st;
}

/* From here on our words and our children's go to the log; 'L' tells the starter that they do. */
static enum status open_log(const struct run_folder *run, int ready_fd, struct error *err)
{
    char path[RUN_FOLDER_MAX_PATH];
    run_folder_file(run->path, RUN_FOLDER_LOG, path);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int log = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (log < 0 || null < 0)
        return error_errno(err, errno, "%s", path);
    fflush(NULL);
    if (dup2(null, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 ||
        dup2(log, STDERR_FILENO) < 0 || write(ready_fd, "L", 1) != 1)
        return error_errno(err, errno, "%s", path);
    close(null);
    close(log);
    return OK;
}

/* ready_fd -1: in the foreground. Returns the exit code. */
static int serve(struct config *c, const struct flags *f, int ready_fd)
{
    struct error err;
    struct run_folder run = {.lock_fd = -1};
    service_open();
    enum status st = run_folder_create(f->run_dir, &run, &err);
    if (st == OK && ready_fd >= 0)
        st = open_log(&run, ready_fd, &err);
    if (st == OK)
        st = fill_folder(c, &run, &err);
    int code = 1;
    if (st == OK) {
        struct supervise_options o = {
            .config = c, .run = &run, .mpirun_more = f->mpirun_more, .ready_fd = ready_fd};
        code = supervise(&o);
    } else {
        fprintf(stderr, "witan serve: %s\n", err.msg);
    }
    run_folder_remove(&run, ready_fd >= 0 && code != 0);
    return code;
}

/* --- detached ----------------------------------------------------------------------------------
 */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

/* Shows what the log has got since the last call. */
static void copy_log(int log)
{
    char chunk[4096];
    ssize_t n;
    while (log >= 0 && (n = read(log, chunk, sizeof chunk)) > 0)
        fwrite(chunk, 1, (size_t)n, stderr);
}

/* Reads what comes from the pipe into `told`, showing the log meanwhile, until the pipe's end. */
static void follow(int from, pid_t child, const char *log_path, struct buf *told)
{
    int log = -1;
    bool passed_on = false;
    for (;;) {
        char chunk[4096];
        struct pollfd p = {.fd = from, .events = POLLIN};
        int ready = poll(&p, 1, LOG_POLL_MS);
        if (interrupted && !passed_on) {
            kill(child, SIGTERM);
            passed_on = true;
        }
        ssize_t n = ready > 0 ? read(from, chunk, sizeof chunk) : -1;
        if (n == 0)
            break;
        if (n > 0)
            buf_append(told, chunk, (size_t)n, NULL);
        if (log < 0 && told->len > 0)
            log = open(log_path, O_RDONLY | O_CLOEXEC);
        copy_log(log);
    }
    copy_log(log);
    if (log >= 0)
        close(log);
}

/* Starts the one that stays and waits until it is ready or has failed. */
static int detach(struct config *c, const struct flags *f)
{
    int told_fd[2];
    char log_path[RUN_FOLDER_MAX_PATH];
    run_folder_file(f->run_dir, RUN_FOLDER_LOG, log_path);
    if (pipe2(told_fd, O_CLOEXEC) != 0) {
        perror("witan serve: pipe");
        return 1;
    }
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        close(told_fd[0]);
        setsid();
        exit(serve(c, f, told_fd[1]));
    }
    close(told_fd[1]);
    if (child < 0) {
        perror("witan serve: fork");
        return 1;
    }
    struct sigaction act = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    struct buf told;
    buf_init(&told, 1 << 16);
    follow(told_fd[0], child, log_path, &told);
    close(told_fd[0]);
    int status = 0, code = 0;
    if (told.len > 1) {
        fwrite(told.data + 1, 1, told.len - 1, stdout);
    } else {
        waitpid(child, &status, 0);
        code = WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1;
    }
    buf_fini(&told);
    return code;
}

/* Until the process that has the lock has ended. */
static enum status wait_end(const char *dir, int *fd, pid_t pid, struct error *err)
{
    pid_t now = pid;
    for (int ms = 0; now == pid; ms += STOP_POLL_MS) {
        if (ms == STOP_HURRY_MS)
            kill(pid, SIGTERM);
        if (ms >= STOP_GIVE_UP_MS)
            return error_set(err, ERR_IO, "process %d in %s does not end; kill -9 %d", (int)pid,
                             dir, (int)pid);
        poll(NULL, 0, STOP_POLL_MS);
        TRY(run_folder_holder(dir, fd, &now, err));
    }
    return OK;
}

static int stop(const char *dir)
{
    struct error err;
    pid_t pid = 0;
    int fd = -1;
    enum status st = run_folder_holder(dir, &fd, &pid, &err);
    if (st == OK && pid > 0) {
        kill(pid, SIGTERM);
        st = wait_end(dir, &fd, pid, &err);
    } else if (st == OK) {
        st = run_folder_clear(dir, &err);
        if (st == OK)
            fprintf(stderr, "witan serve: nothing runs in %s\n", dir);
    }
    if (fd >= 0)
        close(fd);
    if (st != OK)
        fprintf(stderr, "witan serve: %s\n", err.msg);
    return st == OK ? 0 : 1;
}

int cmd_serve(int argc, char **argv)
{
    struct flags f = {0};
    struct error err;
    struct config c;
    char dir[RUN_FOLDER_MAX_PATH];
    int code = parse(&f, argc, argv);
    if (code != 0)
        return code;
    enum status st = OK;
    if ((f.detach || f.stop) && !f.run_dir) {
        st = run_folder_default(dir, &err);
        f.run_dir = dir;
    }
    if (st == OK && f.stop)
        return stop(f.run_dir);
    if (st == OK)
        st = config_init(&c, &err);
    if (st == OK) {
        st = configure(&c, &f, &err);
        if (st == OK)
            code = f.detach ? detach(&c, &f) : serve(&c, &f, -1);
        config_fini(&c);
    }
    if (st != OK)
        fprintf(stderr, "witan serve: %s\n", err.msg);
    return st == OK ? code : 1;
}
