/* Starting a coordinator and its groups: see supervise_private.h. */
#include "base/check.h"
#include "base/clock.h"
#include "cli/launch.h"
#include "cli/supervise_private.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    MAX_GPU = 1023, /* as witan-worker takes it */
};

/* --- starting ----------------------------------------------------------------------------------
 */

/* Clients and ranks know the addresses of the one before. */
static enum status write_config(struct supervisor *s, struct error *err)
{
    struct config c = *s->o->config; /* what is not changed stays its */
    struct buf text;
    c.listen.cluster = s->cluster;
    if (s->http_at[0])
        c.listen.http = s->http_at;
    if (s->grpc_at[0])
        c.listen.grpc = s->grpc_at;
    buf_init(&text, CONFIG_MAX_BYTES);
    enum status st = config_print(&c, &text, err);
    if (st == OK)
        st = run_folder_write(s->o->run, RUN_FOLDER_CONFIG, text.data, text.len, err);
    buf_fini(&text);
    return st;
}

enum status jobs_start_coordinator(struct supervisor *s, struct error *err)
{
    char program[LAUNCH_MAX_PATH], config[RUN_FOLDER_MAX_PATH];
    int notify[2];
    TRY(launch_sibling("witan-coordinator", program, err));
    if (s->restart.served)
        TRY(write_config(s, err));
    run_folder_file(s->o->run->path, RUN_FOLDER_CONFIG, config);
    if (pipe2(notify, O_CLOEXEC | O_NONBLOCK) != 0)
        return error_errno(err, errno, "cannot make a pipe");
    struct words words = {0};
    words_add(&words, "%s", program);
    words_add(&words, "-c");
    words_add(&words, "%s", config);
    words_add(&words, "--notify-fd");
    words_add(&words, "%d", notify[1]);
    for (uint32_t i = 0; i < s->o->config->groups_count; i++)
        if (s->jobs[i].drained) {
            words_add(&words, "--drained");
            words_add(&words, "%s", s->jobs[i].group->name);
        }
    enum status st = launch_start(words.list, notify[1], NULL, &s->coordinator, err);
    s->starts += st == OK;
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

/* Where ranks attach: here, and where they are tried next, at the coordinators beside this one. */
static void coordinator_words(const struct supervisor *s, bool far, struct words *out)
{
    const struct config *c = s->o->config;
    char list[(CONFIG_MAX_PEERS + 1) * 600], one[600];
    supervise_dial_address(s->cluster, far, one);
    size_t n = (size_t)snprintf(list, sizeof list, "%s", one);
    for (uint32_t i = 0; i < c->peers_count; i++) {
        supervise_dial_address(c->peers[i], far, one);
        n += (size_t)snprintf(list + n, sizeof list - n, ",%s", one);
    }
    words_add(out, "--coordinator");
    words_add(out, "%s", list);
}

static void worker_words(const struct supervisor *s, const struct config_group *g,
                         const char *program, const char *region, struct words *out)
{
    const struct config *c = s->o->config;
    words_add(out, "%s", program);
    coordinator_words(s, g->hosts_count > 0 || g->external, out);
    const char *const fixed[] = {"--group", g->name, "--tls", c->pki};
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
        if (g->external) /* a machine of its own */
            words_add(out, "cuda");
        else
            words_add(out, "cuda:%d", gpus_before(c, g));
        words_add(out, "--collectives");
        words_add(out, "%s", c->model.collectives);
    }
    if (!config_sandbox(c))
        words_add(out, "--no-sandbox");
    if (c->core_dumps)
        words_add(out, "--core-dumps");
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

/* `scratch` is as launch.h has it. */
static void job_words(const struct supervisor *s, const struct config_group *g, const char *program,
                      const char *scratch, struct words *out)
{
    const struct config *c = s->o->config;
    struct launch_mpi mpi = {
        .verbose = c->verbose,
        .one_host = g->hosts_count <= 1,
        .preloaded = g->hosts_count == 0,
        .data_plane = g->data_plane,
        .scratch = scratch,
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
    char program[LAUNCH_MAX_PATH], loopback[LAUNCH_MAX_PATH], scratch[RUN_FOLDER_MAX_SCRATCH];
    struct words words = {0};
    TRY(launch_sibling("witan-worker", program, err));
    TRY(launch_loopback(loopback, err));
    bool here = j->group->hosts_count == 0;
    here = here && run_folder_job(s->o->run, (uint32_t)(j - s->jobs), scratch);
    job_words(s, j->group, program, here ? scratch : NULL, &words);
    setenv(SUPERVISE_GROUP_KEY, j->group->name, 1); /* this process has one thread */
    enum status st = launch_start(words.list, -1, j->group->hosts_count == 0 ? loopback : NULL,
                                  &j->pid, err);
    words_fini(&words);
    j->starts += st == OK;
    j->explained = false;
    if (st == OK)
        restart_begun(&j->restart, clock_now_ns());
    return st;
}

void job_say_elsewhere(const struct supervisor *s, const struct job *j, const char *words)
{
    struct words worker = {0};
    char line[1500];
    size_t len = 0;
    worker_words(s, j->group, "witan-worker", s->o->config->region, &worker);
    for (char **word = worker.list; *word && len < sizeof line; word++)
        len += (size_t)snprintf(line + len, sizeof line - len, " %s", *word);
    words_fini(&worker);
    supervise_say(
        "group %s: waiting for its ranks, which are started elsewhere: %s`srun --mpi=pmix "
        "-n %d%s`, or as your system has it",
        j->group->name, words, config_group_world(j->group), line);
}

enum status jobs_start(struct supervisor *s, struct error *err)
{
    launch_allow_root();
    for (uint32_t i = 0; i < s->o->config->groups_count; i++) {
        struct job *j = &s->jobs[i];
        if (j->group->external) {
            job_say_elsewhere(s, j, "");
            continue;
        }
        enum status st = start_job(s, j, err);
        if (st != OK) {
            error_prefix(err, "group %s (package openmpi-bin): ", j->group->name);
            return st;
        }
    }
    supervise_write_state(s);
    return OK;
}

/* --- starting again ----------------------------------------------------------------------------
 */

bool job_comes_again(const struct supervisor *s, const struct job *j)
{
    return j->restart.served && !j->group->external && s->phase < SETTLE;
}

static double plan_start(struct restart *r)
{
    uint32_t random = 0;
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) != (ssize_t)sizeof random)
        random = UINT32_MAX / 2; /* jitter is a courtesy */
    return restart_plan(r, clock_now_ns(), random) * 1e-3;
}

double job_plan_start(struct job *j)
{
    return plan_start(&j->restart);
}

/* How long it may take until the coordinator hears of what has been started. */
static int64_t start_until_ns(const struct supervisor *s)
{
    return clock_now_ns() + s->o->config->limits.start_timeout_s * (int64_t)1000000000;
}

/* Nobody has seen its ranks. Those of a group that was lost may attach again to the next
 * coordinator, and have as long for it as new ones; what was told to end is to. */
static void forget_ranks(const struct supervisor *s, struct job *j)
{
    snprintf(j->state, sizeof j->state, "waiting");
    j->said[0] = '\0';
    if (j->kill_ns != 0 && !j->restart.planned && j->restart.due_ns == 0)
        j->kill_ns = start_until_ns(s);
}

bool jobs_coordinator_ended(struct supervisor *s, pid_t pid, int status, const char *how)
{
    bool told = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!s->restart.served || s->phase != SERVE || told)
        return false;
    if (s->notify >= 0)
        close(s->notify);
    s->notify = -1;
    s->line_len = 0;
    s->explained = false;
    for (uint32_t i = 0; i < s->o->config->groups_count; i++)
        forget_ranks(s, &s->jobs[i]);
    last_end_note(&s->last, "process %d %s", (int)pid, how);
    supervise_say("the coordinator (process %d) %s; it is started again in %.1f s, and the groups "
                  "keep their weights",
                  (int)pid, how, plan_start(&s->restart));
    supervise_write_state(s);
    return true;
}

static void start_coordinator_again(struct supervisor *s)
{
    struct error err;
    s->restart.due_ns = 0;
    if (jobs_start_coordinator(s, &err) != OK)
        supervise_say("%s; trying again in %.1f s", err.msg, plan_start(&s->restart));
    supervise_write_state(s);
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
    supervise_signal_children(s, SIGKILL, j->group->name); /* they hold memory that it needs */
    supervise_say("group %s: starting again", j->group->name);
    int64_t most_ms = s->o->config->limits.start_timeout_s * (int64_t)1000;
    if (start_job(s, j, &err) == OK)
        j->kill_ns = clock_now_ns() + restart_patience_ms(&j->restart, most_ms) * 1000000;
    else
        supervise_say("group %s: %s; trying again in %.1f s", j->group->name, err.msg,
                      job_plan_start(j));
    supervise_write_state(s);
}

/* It was started, and its ranks are not there. */
static void give_up_start(struct job *j, int64_t now)
{
    double seconds = (double)(now - j->restart.begun_ns) * 1e-9;
    j->restart.unheard++;
    supervise_say(
        "group %s: its ranks are not all there %.0f s after they were started: ending mpirun "
        "(process %d), to start them again",
        j->group->name, seconds, (int)j->pid);
    last_end_note(&j->last, "its ranks were not all there %.0f s after they were started", seconds);
    j->explained = true;
}

void jobs_tend(struct supervisor *s)
{
    int64_t now = clock_now_ns();
    for (uint32_t i = 0; i < s->o->config->groups_count && s->phase < SETTLE; i++) {
        struct job *j = &s->jobs[i];
        if (j->kill_ns != 0 && now >= j->kill_ns) {
            if (j->pid > 0 && j->restart.begun_ns != 0)
                give_up_start(j, now);
            if (j->pid > 0)
                kill(-j->pid, SIGKILL);
            j->kill_ns = 0;
        }
        if (may_start(j) && now >= j->restart.due_ns)
            start_again(s, j);
    }
    if (s->phase < SETTLE && s->restart.due_ns != 0 && now >= s->restart.due_ns)
        start_coordinator_again(s);
}

int64_t jobs_next_ns(const struct supervisor *s)
{
    int64_t until = s->restart.due_ns != 0 ? s->restart.due_ns : INT64_MAX;
    for (uint32_t i = 0; i < s->o->config->groups_count; i++) {
        const struct job *j = &s->jobs[i];
        if (may_start(j) && j->restart.due_ns < until)
            until = j->restart.due_ns;
        if (j->kill_ns != 0 && j->kill_ns < until)
            until = j->kill_ns;
    }
    return until;
}
