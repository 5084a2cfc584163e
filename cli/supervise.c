/*
 * A coordinator and its groups, kept together: see supervise.h.
 *
 * Phases only go forward. START and SERVE: all is well. SETTLE: something died; the processes
 * around it get a moment to say what they know (the coordinator which rank, mpirun its exit code).
 * STOP: the coordinator ends in order and lets its groups go. TERMINATE, KILL: by signals.
 */
#include "cli/supervise.h"

#include "base/check.h"
#include "base/clock.h"
#include "cli/launch.h"
#include "cli/restart.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum phase { START, SERVE, SETTLE, STOP, TERMINATE, KILL };

/* How long a phase may last. The coordinator lets answers end for up to 10 s; mpirun gives its
 * ranks a second. After a failure there is less to wait for. */
enum {
    SETTLE_MS = 1500,
    STOP_MS = 15000,
    STOP_FAILED_MS = 3000,
    TERMINATE_MS = 3000,
    KILL_EVERY_MS = 100,
    LOST_MS = 8000,       /* for what is left of a lost group, whose ranks give up after 5 s */
    SAME_SIGNAL_MS = 300, /* `timeout` and some shells signal twice */
    MAX_GPU = 1023,       /* as witan-worker takes it */
    MAX_LINE = 4096
};

struct job {
    const struct config_group *group;
    pid_t pid; /* mpirun; 0: not running */
    char layout[64];
    char state[16];
    char said[1200]; /* the last line shown of it */
    struct restart restart;
    int64_t kill_ns; /* when it is killed, lost or started and not heard of; 0: never */
    int64_t starts;
};

struct supervisor {
    const struct supervise_options *o;
    int signals, notify; /* signalfd; the coordinator's notify pipe, -1 when closed */
    pid_t coordinator;   /* 0: not running */
    struct job *jobs;    /* [config->groups_count] */
    char http[600], grpc[600], cluster[300]; /* "" until known */
    char manifest[80], signers[1100];        /* its SHA-256; "": none */
    char line[MAX_LINE];                     /* of the notify pipe, not yet whole */
    size_t line_len;
    enum phase phase;
    int64_t deadline_ns; /* of the phase, from SETTLE on */
    int64_t told_ns;     /* when a signal last told us to end */
    bool failed;
    bool explained; /* the coordinator has said itself why it ends */
    int ready_fd;
};

static void __attribute__((format(printf, 1, 2))) say(const char *fmt, ...)
{
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    fprintf(stderr, "witan serve: %s\n", text);
}

/* --- what others may read ----------------------------------------------------------------------
 */

static const char *scheme(const struct config *c)
{
    return c->listen.tls.cert ? "https" : "http";
}

static void write_state(struct supervisor *s)
{
    static const char *const words[] = {"starting", "ready",    "stopping",
                                        "stopping", "stopping", "stopping"};
    json_t *groups = json_array(), *state;
    for (uint32_t i = 0; i < s->o->config->groups_count; i++)
        json_array_append_new(groups, json_pack("{s:s, s:s, s:I, s:I}", "name",
                                                s->jobs[i].group->name, "state", s->jobs[i].state,
                                                "mpirun", (json_int_t)s->jobs[i].pid, "starts",
                                                (json_int_t)s->jobs[i].starts));
    state = json_pack("{s:I, s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:o}", "pid", (json_int_t)getpid(),
                      "state", words[s->phase], "model", s->o->config->model.name, "http", s->http,
                      "grpc", s->grpc, "cluster", s->cluster, "coordinator",
                      (json_int_t)s->coordinator, "manifest", s->manifest, "groups", groups);
    char *text = state ? json_dumps(state, JSON_INDENT(2)) : NULL;
    struct error err;
    size_t len = text ? strlen(text) : 0;
    if (text)
        text[len] = '\n'; /* in the terminator's place */
    if (text && run_folder_write(s->o->run, RUN_FOLDER_STATE, text, len + 1, &err) != OK)
        say("%s", err.msg);
    free(text);
    json_decref(state);
}

/* What an operator can do now. */
static void print_ready(const struct supervisor *s, FILE *out)
{
    const struct config *c = s->o->config;
    fprintf(out, "Witan serves %s\n", c->model.name);
    for (uint32_t i = 0; i < c->groups_count; i++)
        fprintf(out, "  %-9s ready: %d ranks, %s\n", c->groups[i].name,
                config_group_world(&c->groups[i]), s->jobs[i].layout);
    if (s->manifest[0])
        fprintf(out, "  %-9s SHA-256 %s,\n            signed by %s\n", "manifest", s->manifest,
                s->signers);
    if (s->http[0])
        fprintf(out, "  %-9s %s://%s/v1\n", "HTTP", scheme(c), s->http);
    const char *roots = c->listen.tls.cert ? " --ca ROOTS.pem" : "";
    if (s->grpc[0])
        fprintf(out,
                "  %-9s %s\n  %-9s witan chat --address %s%s\n"
                "  %-9s witan status --address %s%s\n",
                "gRPC", s->grpc, "chat", s->grpc, roots, "status", s->grpc, roots);
    if (s->http[0])
        fprintf(out,
                "  %-9s curl %s://%s/v1/chat/completions -H 'Content-Type: application/json' \\\n"
                "%s            -d '{\"model\": \"%s\", \"messages\": [{\"role\": \"user\", "
                "\"content\": \"What is a lighthouse?\"}]}'\n",
                "try", scheme(c), s->http,
                c->listen.keys ? "            -H \"Authorization: Bearer $WITAN_API_KEY\" \\\n"
                               : "",
                c->model.name);
    if (s->ready_fd >= 0)
        fprintf(out, "  %-9s witan serve --stop --run-dir %s\n", "stop", s->o->run->path);
    else
        fprintf(out, "  %-9s Ctrl-C\n", "stop");
    fflush(out);
}

static void tell_ready(struct supervisor *s)
{
    if (s->ready_fd < 0) {
        print_ready(s, stdout);
        return;
    }
    FILE *out = fdopen(s->ready_fd, "w");
    CHECK(out, "no memory for a file");
    print_ready(s, out);
    fclose(out);
    s->ready_fd = -1;
    if (s->manifest[0])
        say("manifest: SHA-256 %s, signed by %s", s->manifest, s->signers);
    say("ready: process %d", (int)getpid());
}

/* --- phases ------------------------------------------------------------------------------------
 */

static void signal_all(struct supervisor *s, int number)
{
    if (s->coordinator > 0)
        kill(-s->coordinator, number);
    for (uint32_t i = 0; i < s->o->config->groups_count; i++)
        if (s->jobs[i].pid > 0)
            kill(-s->jobs[i].pid, number);
}

static pid_t parent_of(const char *pid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%.16s/stat", pid);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = '\0';
    /* "PID (NAME) STATE PARENT ...", and a name may hold anything. */
    const char *end = strrchr(text, ')');
    long parent = 0;
    return end && sscanf(end + 1, " %*c %ld", &parent) == 1 ? (pid_t)parent : 0;
}

static bool started_here(const struct supervisor *s, pid_t pid)
{
    bool ours = pid == s->coordinator;
    for (uint32_t i = 0; i < s->o->config->groups_count; i++)
        ours = ours || pid == s->jobs[i].pid;
    return ours;
}

/* Processes whose parent died became our children: they are in none of the groups above. `orphans`:
 * these alone, which are a lost group's. */
static void signal_children(const struct supervisor *s, int number, bool orphans)
{
    DIR *all = opendir("/proc");
    if (!all)
        return;
    for (const struct dirent *e; (e = readdir(all));) {
        pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
        if (pid > 0 && parent_of(e->d_name) == getpid() && !(orphans && started_here(s, pid)))
            kill(pid, number);
    }
    closedir(all);
}

static void enter(struct supervisor *s, enum phase phase)
{
    static const int lasts_ms[] = {
        [SETTLE] = SETTLE_MS, [STOP] = STOP_MS, [TERMINATE] = TERMINATE_MS, [KILL] = KILL_EVERY_MS};
    if (phase < s->phase || (phase == s->phase && phase != KILL))
        return;
    if (phase == STOP && s->coordinator == 0)
        phase = TERMINATE; /* nobody is left to ask the ranks */
    s->phase = phase;
    int ms = phase == STOP && s->failed ? STOP_FAILED_MS : lasts_ms[phase];
    s->deadline_ns = clock_now_ns() + (int64_t)ms * 1000000;
    if (phase == STOP)
        kill(s->coordinator, SIGTERM);
    else if (phase >= TERMINATE) {
        signal_all(s, phase == KILL ? SIGKILL : SIGTERM);
        signal_children(s, phase == KILL ? SIGKILL : SIGTERM, false);
    }
    if (phase != KILL)
        write_state(s);
}

/* Says what failed. What follows from it is said too, and then everything ends. */
static void __attribute__((format(printf, 2, 3))) fail(struct supervisor *s, const char *fmt, ...)
{
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    say("%s", text);
    s->failed = true;
    enter(s, SETTLE);
}

/* Where others reach a listener: what it listens on, but for an address that means "any"; there, by
 * this host's name from afar. */
static void dial_address(const char *listening, bool far, char out[600])
{
    char host[256], name[256] = "127.0.0.1";
    int port = 0;
    snprintf(out, 600, "%s", listening);
    if (address_split(listening, host, &port, NULL) != OK ||
        (strcmp(host, "0.0.0.0") != 0 && strcmp(host, "::") != 0))
        return;
    if (far && gethostname(name, sizeof name) != 0)
        return;
    name[sizeof name - 1] = '\0';
    snprintf(out, 600, "%s:%d", name, port);
}

/* --- starting ----------------------------------------------------------------------------------
 */

static enum status start_coordinator(struct supervisor *s, struct error *err)
{
    char program[LAUNCH_MAX_PATH], config[RUN_FOLDER_MAX_PATH];
    int notify[2];
    TRY(launch_sibling("witan-coordinator", program, err));
    run_folder_file(s->o->run->path, RUN_FOLDER_CONFIG, config);
    if (pipe2(notify, O_CLOEXEC | O_NONBLOCK) != 0)
        return error_errno(err, errno, "cannot make a pipe");
    struct words words = {0};
    words_add(&words, "%s", program);
    words_add(&words, "-c");
    words_add(&words, "%s", config);
    words_add(&words, "--notify-fd");
    words_add(&words, "%d", notify[1]);
    enum status st = launch_start(words.list, notify[1], NULL, &s->coordinator, err);
    words_fini(&words);
    close(notify[1]);
    s->notify = notify[0];
    return st;
}

/* GPUs of this machine that groups before this one take. */
static int32_t gpus_before(const struct config *c, const struct config_group *group)
{
    int64_t gpus = 0;
    for (const struct config_group *g = c->groups; g != group && group->hosts_count == 0; g++)
        if (g->hosts_count == 0 && !g->external)
            gpus += config_group_world(g);
    return gpus > MAX_GPU ? MAX_GPU : (int32_t)gpus;
}

static void worker_words(const struct supervisor *s, const struct config_group *g,
                         const char *program, const char *region, struct words *out)
{
    const struct config *c = s->o->config;
    char address[600];
    dial_address(s->cluster, g->hosts_count > 0, address);
    const char *const fixed[] = {program, "--coordinator", address, "--group",
                                 g->name, "--tls",         c->pki};
    for (size_t i = 0; i < COUNT_OF(fixed); i++)
        words_add(out, "%s", fixed[i]);
    if (region && *region) {
        words_add(out, "--region");
        words_add(out, "%s", region);
    }
    if (c->model.trust) { /* by the launcher, so that the keys are not the coordinator's to say */
        words_add(out, "--trust");
        words_add(out, "%s", c->model.trust);
        words_add(out, "--threshold");
        words_add(out, "%d", c->model.threshold);
    }
    if (c->model.weights_cache) { /* for the same reason */
        words_add(out, "--weights-cache");
        words_add(out, "%s", c->model.weights_cache);
    }
    if (config_cuda(c)) {
        words_add(out, "--device");
        words_add(out, "cuda:%d", gpus_before(c, g));
        words_add(out, "--collectives");
        words_add(out, "%s", c->model.collectives);
    }
    if (c->verbose)
        words_add(out, "--verbose");
}

/* Hosts of one region after another are started as one program of the job. */
static uint32_t same_region(const struct config_group *g, uint32_t from)
{
    uint32_t to = from + 1;
    const char *first = g->hosts[from].region ? g->hosts[from].region : "";
    while (to < g->hosts_count &&
           strcmp(g->hosts[to].region ? g->hosts[to].region : "", first) == 0)
        to++;
    return to;
}

static void job_words(const struct supervisor *s, const struct config_group *g, const char *program,
                      struct words *out)
{
    const struct config *c = s->o->config;
    struct launch_mpi mpi = {
        .verbose = c->verbose,
        .one_host = g->hosts_count <= 1,
        .preloaded = g->hosts_count == 0,
        .data_plane = g->data_plane,
        .scratch = g->hosts_count == 0 && s->o->run->scratch[0] ? s->o->run->scratch : NULL,
        .more = s->o->mpirun_more,
    };
    launch_mpirun_words(&mpi, out);
    if (g->hosts_count == 0) {
        launch_ranks_words(config_group_world(g), NULL, 0, out);
        worker_words(s, g, program, c->region, out);
        return;
    }
    for (uint32_t from = 0, to; from < g->hosts_count; from = to) {
        int32_t ranks = 0;
        to = same_region(g, from);
        for (uint32_t i = from; i < to; i++)
            ranks += g->hosts[i].ranks;
        if (from > 0)
            words_add(out, ":");
        launch_ranks_words(ranks, g->hosts + from, to - from, out);
        const char *region = g->hosts[from].region;
        worker_words(s, g, program, region && *region ? region : c->region, out);
    }
}

static enum status start_job(struct supervisor *s, struct job *j, struct error *err)
{
    char program[LAUNCH_MAX_PATH], loopback[LAUNCH_MAX_PATH];
    struct words words = {0};
    TRY(launch_sibling("witan-worker", program, err));
    TRY(launch_loopback(loopback, err));
    job_words(s, j->group, program, &words);
    enum status st = launch_start(words.list, -1, j->group->hosts_count == 0 ? loopback : NULL,
                                  &j->pid, err);
    words_fini(&words);
    j->starts += st == OK;
    return st;
}

/* Once: when the coordinator listens. */
static enum status start_jobs(struct supervisor *s, struct error *err)
{
    launch_allow_root();
    for (uint32_t i = 0; i < s->o->config->groups_count; i++) {
        struct job *j = &s->jobs[i];
        if (j->group->external) {
            say("group %s: waiting for its ranks, which are started elsewhere", j->group->name);
            continue;
        }
        enum status st = start_job(s, j, err);
        if (st != OK) {
            error_prefix(err, "group %s (package openmpi-bin): ", j->group->name);
            return st;
        }
    }
    write_state(s);
    return OK;
}

/* --- starting again ----------------------------------------------------------------------------
 */

/* A group that has served is started again when it ends, while all else is well. */
static bool comes_again(const struct supervisor *s, const struct job *j)
{
    return j->restart.served && !j->group->external && s->phase < SETTLE;
}

static double plan_start(struct job *j)
{
    uint32_t random = 0;
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) != (ssize_t)sizeof random)
        random = UINT32_MAX / 2; /* jitter is a courtesy */
    return restart_plan(&j->restart, clock_now_ns(), random) * 1e-3;
}

/* The coordinator has seen the last of its ranks go. */
static bool may_start(const struct job *j)
{
    return j->pid == 0 && j->restart.due_ns != 0 && strcmp(j->state, "waiting") == 0;
}

static void start_again(struct supervisor *s, struct job *j)
{
    struct error err;
    j->restart.due_ns = j->kill_ns = 0;
    signal_children(s, SIGKILL, true); /* they hold memory that it needs */
    say("group %s: starting again", j->group->name);
    if (start_job(s, j, &err) == OK)
        j->kill_ns = clock_now_ns() + s->o->config->limits.start_timeout_s * (int64_t)1000000000;
    else
        say("group %s: %s; trying again in %.1f s", j->group->name, err.msg, plan_start(j));
    write_state(s);
}

static void tend_jobs(struct supervisor *s)
{
    int64_t now = clock_now_ns();
    for (uint32_t i = 0; i < s->o->config->groups_count && s->phase < SETTLE; i++) {
        struct job *j = &s->jobs[i];
        if (j->kill_ns != 0 && now >= j->kill_ns) {
            if (j->pid > 0)
                kill(-j->pid, SIGKILL);
            j->kill_ns = 0;
        }
        if (may_start(j) && now >= j->restart.due_ns)
            start_again(s, j);
    }
}

/* --- what the coordinator tells ----------------------------------------------------------------
 */

/* Cuts the first word off. */
static char *next_word(char **rest)
{
    char *word = *rest, *space = strchr(word, ' ');
    *rest = space ? space + 1 : word + strlen(word);
    if (space)
        *space = '\0';
    return word;
}

static void on_listening(struct supervisor *s, const char *what, const char *address)
{
    struct error err;
    bool tls = s->o->config->listen.tls.cert != NULL; /* its certificate bears a name */
    if (strcmp(what, "http") == 0)
        dial_address(address, tls, s->http);
    else if (strcmp(what, "grpc") == 0)
        dial_address(address, tls, s->grpc);
    else if (strcmp(what, "cluster") == 0 && !s->cluster[0]) {
        snprintf(s->cluster, sizeof s->cluster, "%s", address);
        if (s->phase == START && start_jobs(s, &err) != OK)
            fail(s, "%s", err.msg);
    }
    write_state(s);
}

static void on_group(struct supervisor *s, const char *name, const char *state, const char *message)
{
    for (uint32_t i = 0; i < s->o->config->groups_count; i++) {
        struct job *j = &s->jobs[i];
        if (strcmp(j->group->name, name) != 0)
            continue;
        char said[sizeof j->said];
        snprintf(said, sizeof said, "%s%s%s", state, *message ? ": " : "", message);
        bool news = strcmp(said, j->said) != 0;
        bool bad = strcmp(state, "failed") == 0 || strcmp(state, "lost") == 0;
        snprintf(j->state, sizeof j->state, "%s", state);
        memcpy(j->said, said, sizeof said);
        if (strcmp(state, "ready") == 0)
            restart_ready(&j->restart, clock_now_ns());
        if (strcmp(state, "loading") == 0 || strcmp(state, "ready") == 0)
            j->kill_ns = 0; /* from here on the coordinator sees to its end */
        if (bad && comes_again(s, j))
            j->kill_ns = clock_now_ns() + (int64_t)LOST_MS * 1000000;
        if (bad && !j->group->external && s->phase <= SETTLE && !comes_again(s, j))
            fail(s, "group %s %s%s%s", name, state, *message ? ": " : "", message);
        else if (news && s->phase < SETTLE)
            say("group %s: %s", name, said);
        write_state(s);
        return;
    }
}

static void on_line(struct supervisor *s, char *line)
{
    char *rest = line, *word = next_word(&rest);
    if (strcmp(word, "listening") == 0) {
        char *what = next_word(&rest);
        on_listening(s, what, rest);
    } else if (strcmp(word, "manifest") == 0) {
        snprintf(s->manifest, sizeof s->manifest, "%s", next_word(&rest));
        snprintf(s->signers, sizeof s->signers, "%s", rest);
    } else if (strcmp(word, "layout") == 0) {
        char *name = next_word(&rest);
        for (uint32_t i = 0; i < s->o->config->groups_count; i++)
            if (strcmp(s->jobs[i].group->name, name) == 0)
                snprintf(s->jobs[i].layout, sizeof s->jobs[i].layout, "%s", rest);
    } else if (strcmp(word, "group") == 0) {
        char *name = next_word(&rest), *state = next_word(&rest);
        on_group(s, name, state, rest);
    } else if (strcmp(word, "ready") == 0 && s->phase == START) {
        s->phase = SERVE;
        write_state(s);
        tell_ready(s);
    } else if (strcmp(word, "failed") == 0 && s->phase <= SETTLE) {
        s->explained = s->failed = true; /* on standard error, by itself */
        enter(s, SETTLE);
    }
}

/* Reads what is there. False: the pipe has ended. */
static bool read_notify(struct supervisor *s)
{
    for (;;) {
        if (s->line_len == sizeof s->line - 1)
            s->line_len = 0; /* no line is that long: drop it */
        ssize_t n = read(s->notify, s->line + s->line_len, sizeof s->line - 1 - s->line_len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        if (n == 0)
            return false;
        s->line_len += (size_t)n;
        s->line[s->line_len] = '\0';
        char *start = s->line, *end;
        while ((end = memchr(start, '\n', s->line_len - (size_t)(start - s->line)))) {
            *end = '\0';
            on_line(s, start);
            start = end + 1;
        }
        s->line_len -= (size_t)(start - s->line);
        memmove(s->line, start, s->line_len);
    }
}

static void drain_notify(struct supervisor *s)
{
    if (s->notify >= 0 && !read_notify(s)) {
        close(s->notify);
        s->notify = -1;
    }
}

/* --- what dies ---------------------------------------------------------------------------------
 */

/* "was killed by signal 9 (Killed)", "ended with exit code 1". */
static void describe_end(int status, char out[128])
{
    if (WIFSIGNALED(status))
        snprintf(out, 128, "was killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(out, 128, "ended with exit code %d", WEXITSTATUS(status));
}

static void on_end(struct supervisor *s, pid_t pid, int status)
{
    char how[128];
    describe_end(status, how);
    if (pid == s->coordinator) {
        s->coordinator = 0;
        if (s->phase > SETTLE)
            return;
        if (!s->explained)
            fail(s, "the coordinator (process %d) %s", (int)pid, how);
        enter(s, STOP);
        return;
    }
    for (uint32_t i = 0; i < s->o->config->groups_count; i++) {
        if (s->jobs[i].pid != pid)
            continue;
        s->jobs[i].pid = 0;
        if (comes_again(s, &s->jobs[i]))
            say("mpirun of group %s (process %d) %s; it is started again in %.1f s",
                s->jobs[i].group->name, (int)pid, how, plan_start(&s->jobs[i]));
        else if (s->phase <= SETTLE)
            fail(s, "mpirun of group %s (process %d) %s%s", s->jobs[i].group->name, (int)pid, how,
                 s->o->config->verbose || s->failed ? "" : " (--verbose shows its own words)");
    }
}

/* False: no child is left. */
static bool reap(struct supervisor *s)
{
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid <= 0)
            return pid == 0;
        /* Its last words first: they tell why. */
        drain_notify(s);
        on_end(s, pid, status);
    }
}

/* --- the loop ----------------------------------------------------------------------------------
 */

static void on_signals(struct supervisor *s)
{
    struct signalfd_siginfo info;
    while (read(s->signals, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            continue; /* reap() looks at every turn */
        int64_t now = clock_now_ns();
        if (s->phase < STOP) {
            if (!s->failed)
                say("stopping; once more to hurry");
            enter(s, STOP);
        } else if (now - s->told_ns > (int64_t)SAME_SIGNAL_MS * 1000000) {
            enter(s, s->phase == STOP ? TERMINATE : KILL);
        }
        s->told_ns = now;
    }
}

static void on_deadline(struct supervisor *s)
{
    enum phase next = s->phase == KILL ? KILL : s->phase + 1;
    if (next == TERMINATE || (next == KILL && s->phase != KILL))
        say(next == TERMINATE ? "not all has ended: terminating the rest"
                              : "not all has ended: killing the rest");
    enter(s, next);
}

static int wait_ms(const struct supervisor *s)
{
    int64_t until = s->phase < SETTLE ? INT64_MAX : s->deadline_ns;
    for (uint32_t i = 0; i < s->o->config->groups_count && s->phase < SETTLE; i++) {
        const struct job *j = &s->jobs[i];
        if (may_start(j) && j->restart.due_ns < until)
            until = j->restart.due_ns;
        if (j->kill_ns != 0 && j->kill_ns < until)
            until = j->kill_ns;
    }
    if (until == INT64_MAX)
        return -1;
    int64_t ms = (until - clock_now_ns()) / 1000000 + 1;
    return ms > 0 ? (int)ms : 0;
}

static void run_loop(struct supervisor *s)
{
    while (reap(s)) {
        struct pollfd fds[] = {
            {.fd = s->signals, .events = POLLIN},
            {.fd = s->notify, .events = POLLIN},
            {.fd = s->ready_fd},
        };
        poll(fds, COUNT_OF(fds), wait_ms(s));
        if (fds[0].revents)
            on_signals(s);
        if (fds[1].revents)
            drain_notify(s);
        if (fds[2].revents && s->ready_fd >= 0) { /* nobody waits for us any more */
            close(s->ready_fd);
            s->ready_fd = -1;
            if (s->phase < STOP)
                enter(s, STOP);
        }
        tend_jobs(s);
        if (s->phase >= SETTLE && clock_now_ns() >= s->deadline_ns)
            on_deadline(s);
    }
}

static enum status take_signals(struct supervisor *s, struct error *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->signals < 0)
        return error_errno(err, errno, "cannot take signals");
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
        return error_errno(err, errno, "cannot adopt processes");
    return OK;
}

int supervise(const struct supervise_options *o)
{
    struct error err;
    struct supervisor s = {.o = o, .signals = -1, .notify = -1, .ready_fd = o->ready_fd};
    s.jobs = check_calloc(o->config->groups_count, sizeof *s.jobs);
    for (uint32_t i = 0; i < o->config->groups_count; i++) {
        s.jobs[i].group = &o->config->groups[i];
        snprintf(s.jobs[i].state, sizeof s.jobs[i].state, "waiting");
    }
    enum status st = take_signals(&s, &err);
    if (st == OK)
        st = start_coordinator(&s, &err);
    if (st != OK)
        fail(&s, "%s", err.msg);
    write_state(&s);
    run_loop(&s);
    if (s.notify >= 0)
        close(s.notify);
    if (s.signals >= 0)
        close(s.signals);
    if (s.ready_fd >= 0)
        close(s.ready_fd);
    free(s.jobs);
    return s.failed ? 1 : 0;
}
