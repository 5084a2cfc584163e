/*
 * A coordinator and its groups, kept together: see supervise.h.
 *
 * Phases only go forward. START and SERVE: all is well. SETTLE: something died; the processes
 * around it get a moment to say what they know (the coordinator which rank, mpirun its exit code).
 * STOP: the coordinator ends in order and lets its groups go. TERMINATE, KILL: by signals.
 */
#include "cli/supervise_private.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/service.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* How long a phase may last. The coordinator lets answers end for up to 10 s; mpirun gives its
 * ranks a second. After a failure there is less to wait for. */
enum {
    SETTLE_MS = 1500,
    STOP_MS = 15000,
    STOP_FAILED_MS = 3000,
    TERMINATE_MS = 3000,
    KILL_EVERY_MS = 100,
    SAME_SIGNAL_MS = 300, /* `timeout` and some shells signal twice */
};

void supervise_say(const char *fmt, ...)
{
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    fprintf(stderr, "witan serve: %s\n", text);
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

/* What is left of one group, by the environment that mpirun of it was started with. */
static bool has_group(const char *pid, const char *group)
{
    char path[64], *word = NULL;
    size_t cap = 0, key = strlen(SUPERVISE_GROUP_KEY);
    bool found = false;
    snprintf(path, sizeof path, "/proc/%.16s/environ", pid);
    FILE *f = fopen(path, "re");
    while (f && !found && getdelim(&word, &cap, '\0', f) > 0)
        found = strncmp(word, SUPERVISE_GROUP_KEY "=", key + 1) == 0 &&
                strcmp(word + key + 1, group) == 0;
    free(word);
    if (f)
        fclose(f);
    return found;
}

void supervise_signal_children(const struct supervisor *s, int number, const char *group)
{
    DIR *all = opendir("/proc");
    if (!all)
        return;
    for (const struct dirent *e; (e = readdir(all));) {
        pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
        if (pid > 0 && parent_of(e->d_name) == getpid() &&
            (!group || (!started_here(s, pid) && has_group(e->d_name, group))))
            kill(pid, number);
    }
    closedir(all);
}

void supervise_enter(struct supervisor *s, enum phase phase)
{
    static const int lasts_ms[] = {
        [SETTLE] = SETTLE_MS, [STOP] = STOP_MS, [TERMINATE] = TERMINATE_MS, [KILL] = KILL_EVERY_MS};
    if (phase < s->phase || (phase == s->phase && phase != KILL))
        return;
    if (phase == STOP && s->coordinator == 0)
        phase = TERMINATE; /* nobody is left to ask the ranks */
    s->phase = phase;
    service_tell("STOPPING=1");
    int ms = phase == STOP && s->failed ? STOP_FAILED_MS : lasts_ms[phase];
    s->deadline_ns = clock_now_ns() + (int64_t)ms * 1000000;
    if (phase == STOP)
        kill(s->coordinator, SIGTERM);
    else if (phase >= TERMINATE) {
        signal_all(s, phase == KILL ? SIGKILL : SIGTERM);
        supervise_signal_children(s, phase == KILL ? SIGKILL : SIGTERM, NULL);
    }
    if (phase != KILL)
        supervise_write_state(s);
}

void supervise_fail(struct supervisor *s, const char *fmt, ...)
{
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    supervise_say("%s", text);
    s->failed = true;
    supervise_enter(s, SETTLE);
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

/* The coordinator has ended, and with it who lets ranks go: the rest gets no longer than this. */
static void hurry(struct supervisor *s, int most_ms)
{
    int64_t until = clock_now_ns() + (int64_t)most_ms * 1000000;
    if (until < s->deadline_ns)
        s->deadline_ns = until;
}

static void on_end(struct supervisor *s, pid_t pid, int status)
{
    char how[128];
    describe_end(status, how);
    if (pid == s->coordinator) {
        s->coordinator = 0;
        if (s->phase == STOP)
            hurry(s, STOP_FAILED_MS);
        if (s->phase > SETTLE || jobs_coordinator_ended(s, pid, status, how))
            return;
        if (!s->explained)
            supervise_fail(s, "the coordinator (process %d) %s", (int)pid, how);
        supervise_enter(s, STOP);
        return;
    }
    for (uint32_t i = 0; i < s->o->config->groups_count; i++) {
        if (s->jobs[i].pid != pid)
            continue;
        s->jobs[i].pid = 0;
        if (!s->jobs[i].restart.planned && !s->jobs[i].explained) /* the coordinator knows more */
            last_end_note(&s->jobs[i].last, "mpirun (process %d) %s", (int)pid, how);
        if (s->jobs[i].restart.planned && job_comes_again(s, &s->jobs[i])) {
            job_plan_start(&s->jobs[i]);
            supervise_say("group %s: its processes have ended as they were told to",
                          s->jobs[i].group->name);
        } else if (job_comes_again(s, &s->jobs[i])) {
            supervise_say("mpirun of group %s (process %d) %s; it is started again in %.1f s",
                          s->jobs[i].group->name, (int)pid, how, job_plan_start(&s->jobs[i]));
        } else if (s->phase <= SETTLE) {
            supervise_fail(
                s, "mpirun of group %s (process %d) %s%s", s->jobs[i].group->name, (int)pid, how,
                s->o->config->verbose || s->failed ? "" : " (--verbose shows its own words)");
        }
        if (s->phase < SETTLE)
            supervise_write_state(s);
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
        notify_drain(s);
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
                supervise_say("stopping; once more to hurry");
            supervise_enter(s, STOP);
        } else if (now - s->told_ns > (int64_t)SAME_SIGNAL_MS * 1000000) {
            supervise_enter(s, s->phase == STOP ? TERMINATE : KILL);
        }
        s->told_ns = now;
    }
}

static void on_deadline(struct supervisor *s)
{
    enum phase next = s->phase == KILL ? KILL : s->phase + 1;
    if (next == TERMINATE || (next == KILL && s->phase != KILL))
        supervise_say(next == TERMINATE ? "not all has ended: terminating the rest"
                                        : "not all has ended: killing the rest");
    supervise_enter(s, next);
}

static int wait_ms(const struct supervisor *s)
{
    int64_t until = s->phase < SETTLE ? jobs_next_ns(s) : s->deadline_ns;
    if (until == INT64_MAX)
        return -1;
    int64_t ms = (until - clock_now_ns()) / 1000000 + 1;
    return ms > 0 ? (int)ms : 0;
}

static void run_loop(struct supervisor *s)
{
    for (;;) {
        bool any = reap(s); /* which may plan a start */
        if (!any && (s->phase >= SETTLE || jobs_next_ns(s) == INT64_MAX))
            break;
        struct pollfd fds[] = {
            {.fd = s->signals, .events = POLLIN},
            {.fd = s->notify, .events = POLLIN},
            {.fd = s->ready_fd},
        };
        poll(fds, COUNT_OF(fds), wait_ms(s));
        if (fds[0].revents)
            on_signals(s);
        if (fds[1].revents)
            notify_drain(s);
        if (fds[2].revents && s->ready_fd >= 0) { /* nobody waits for us any more */
            close(s->ready_fd);
            s->ready_fd = -1;
            if (s->phase < STOP)
                supervise_enter(s, STOP);
        }
        jobs_tend(s);
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
        st = jobs_start_coordinator(&s, &err);
    if (st != OK)
        supervise_fail(&s, "%s", err.msg);
    supervise_write_state(&s);
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
