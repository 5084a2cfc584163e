/* What the coordinator tells, and what others may read of it: see supervise_private.h. */
#include "base/check.h"
#include "base/clock.h"
#include "base/service.h"
#include "cli/supervise_private.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    LOST_MS = 5000,     /* for what is left of a lost group, whose ranks give up after 1 s */
    ATTACH_MS = 15000,  /* for ranks that live to attach again, once all streams have ended */
    PLANNED_MS = 20000, /* for a group that was told to end */
};

void supervise_dial_address(const char *listening, bool far, char out[600])
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

/* --- what others may read ----------------------------------------------------------------------
 */

void last_end_note(struct last_end *l, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(l->why, sizeof l->why, fmt, ap);
    va_end(ap);
    for (char *c = l->why; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    l->at = time(NULL);
}

static json_t *job_json(const struct job *j)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:b, s:I, s:s, s:I}", "name", j->group->name, "state",
                     j->state, "mpirun", (json_int_t)j->pid, "starts", (json_int_t)j->starts,
                     "drained", j->drained, "losses", (json_int_t)j->losses, "last_end",
                     j->last.why, "last_end_at", (json_int_t)j->last.at);
}

static const char *scheme(const struct config *c)
{
    return c->listen.tls.cert ? "https" : "http";
}

void supervise_write_state(struct supervisor *s)
{
    static const char *const words[] = {"starting", "ready",    "stopping",
                                        "stopping", "stopping", "stopping"};
    bool again = s->phase == SERVE && s->restart.ready_ns == 0;
    json_t *groups = json_array(), *state;
    for (uint32_t i = 0; i < s->o->config->groups_count; i++)
        json_array_append_new(groups, job_json(&s->jobs[i]));
    state = json_pack("{s:I, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:s, s:I, s:s, s:o}", "pid",
                      (json_int_t)getpid(), "state", again ? "restarting" : words[s->phase],
                      "model", s->o->config->model.name, "http", s->http, "grpc", s->grpc,
                      "cluster", s->cluster, "coordinator", (json_int_t)s->coordinator,
                      "coordinator_starts", (json_int_t)s->starts, "coordinator_last_end",
                      s->last.why, "coordinator_last_end_at", (json_int_t)s->last.at, "manifest",
                      s->manifest, "groups", groups);
    char *text = state ? json_dumps(state, JSON_INDENT(2)) : NULL;
    struct error err;
    size_t len = text ? strlen(text) : 0;
    if (text)
        text[len] = '\n'; /* in the terminator's place */
    if (text && run_folder_write(s->o->run, RUN_FOLDER_STATE, text, len + 1, &err) != OK)
        supervise_say("%s", err.msg);
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
    service_tell("READY=1\nSTATUS=serves %s", s->o->config->model.name);
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
        supervise_say("manifest: SHA-256 %s, signed by %s", s->manifest, s->signers);
    supervise_say("ready: process %d", (int)getpid());
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
    if (strcmp(what, "http") == 0) {
        snprintf(s->http_at, sizeof s->http_at, "%s", address);
        supervise_dial_address(address, tls, s->http);
    } else if (strcmp(what, "grpc") == 0) {
        snprintf(s->grpc_at, sizeof s->grpc_at, "%s", address);
        supervise_dial_address(address, tls, s->grpc);
    } else if (strcmp(what, "cluster") == 0 && !s->cluster[0]) {
        snprintf(s->cluster, sizeof s->cluster, "%s", address);
        if (s->phase == START && jobs_start(s, &err) != OK)
            supervise_fail(s, "%s", err.msg);
    }
    supervise_write_state(s);
}

/* A group is ready: so its coordinator serves. */
static void on_serving(struct supervisor *s)
{
    if (s->restart.ready_ns != 0)
        return;
    if (s->restart.served)
        supervise_say("the coordinator (process %d) serves again", (int)s->coordinator);
    service_tell("STATUS=serves %s", s->o->config->model.name);
    restart_ready(&s->restart, clock_now_ns());
}

/* For ranks that live to attach again; with peers they may be on their way to one of them, for as
 * long as they keep their weights. */
static int64_t attach_ms(const struct supervisor *s)
{
    const struct config *c = s->o->config;
    int64_t most = c->limits.reattach_timeout_s * (int64_t)1000;
    return c->peers_count > 0 && most > ATTACH_MS ? most : ATTACH_MS;
}

/* Until when what is left of a group may be silent. */
static void set_patience(struct supervisor *s, struct job *j, const char *before, const char *state,
                         bool bad)
{
    int64_t now = clock_now_ns();
    if (strcmp(state, "loading") == 0 || strcmp(state, "ready") == 0) {
        j->kill_ns = 0; /* from here on the coordinator sees to its end */
        restart_heard(&j->restart, now);
    } else if (j->elsewhere)
        return; /* it is another's link that has ended; ranks that find no coordinator end by
                   themselves */
    else if (strcmp(state, "stopping") == 0)
        j->kill_ns = now + (int64_t)PLANNED_MS * 1000000;
    else if (bad && job_comes_again(s, j))
        j->kill_ns = now + (int64_t)LOST_MS * 1000000;
    else if (strcmp(before, "lost") == 0 && j->kill_ns != 0) /* "waiting" */
        j->kill_ns = now + attach_ms(s) * 1000000;
}

/* What is kept of how it fares. */
static void note_state(struct job *j, const char *state, const char *message)
{
    if (strcmp(state, "lost") == 0) {
        j->losses++;
        j->explained = true;
        last_end_note(&j->last, "%s", message);
    } else if (strcmp(state, "ready") == 0) {
        j->explained = false;
    }
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
        set_patience(s, j, j->state, state, bad);
        if (strcmp(state, "loading") == 0 || strcmp(state, "ready") == 0)
            j->elsewhere = strncmp(message, "through ", strlen("through ")) == 0;
        snprintf(j->state, sizeof j->state, "%s", state);
        memcpy(j->said, said, sizeof said);
        if (strcmp(state, "ready") == 0)
            restart_ready(&j->restart, clock_now_ns());
        if (strcmp(state, "stopping") == 0) /* `witan restart` */
            j->restart.planned = true;
        if (bad && !j->group->external && s->phase <= SETTLE && !job_comes_again(s, j))
            supervise_fail(s, "group %s %s%s%s", name, state, *message ? ": " : "", message);
        else if (j->group->external && strcmp(state, "waiting") == 0 && s->phase < SETTLE)
            job_say_elsewhere(s, j,
                              "those that live attach again by themselves; where they have ended, "
                              "start all of them again: ");
        else if (news && s->phase < SETTLE)
            supervise_say("group %s: %s", name, said);
        note_state(j, state, message);
        if (strcmp(state, "ready") == 0 && s->phase == SERVE)
            on_serving(s);
        supervise_write_state(s);
        return;
    }
}

static void on_drained(struct supervisor *s, const char *name, bool drained)
{
    for (uint32_t i = 0; i < s->o->config->groups_count; i++)
        if (strcmp(s->jobs[i].group->name, name) == 0)
            s->jobs[i].drained = drained;
    supervise_write_state(s);
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
    } else if (strcmp(word, "drained") == 0 || strcmp(word, "undrained") == 0) {
        on_drained(s, rest, strcmp(word, "drained") == 0);
    } else if (strcmp(word, "ready") == 0 && s->phase == START) {
        s->phase = SERVE;
        on_serving(s);
        supervise_write_state(s);
        tell_ready(s);
    } else if (strcmp(word, "failed") == 0 && s->phase <= SETTLE) {
        s->explained = true; /* on standard error, by itself */
        s->failed |= !s->restart.served;
        if (!s->restart.served) /* else it is started again */
            supervise_enter(s, SETTLE);
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

void notify_drain(struct supervisor *s)
{
    if (s->notify >= 0 && !read_notify(s)) {
        close(s->notify);
        s->notify = -1;
    }
}
