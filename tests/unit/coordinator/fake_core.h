/*
 * A core without groups, for tests of the doors: generations that say what the test set, on the
 * loop thread. Included by one file of a program, whose definitions then stand for those of the
 * library. The seed of a request says how its generation behaves.
 */
#ifndef WITAN_TESTS_UNIT_COORDINATOR_FAKE_CORE_H
#define WITAN_TESTS_UNIT_COORDINATOR_FAKE_CORE_H

#include "base/check.h"
#include "coordinator/core.h"
#include "coordinator/status_json.h"

#include <event2/event.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum fake_behaviour {
    FAKE_TALKS = 100,  /* "w0 ", "w1 ", ... up to max_tokens, a thought first for chat */
    FAKE_QUIET = 200,  /* never a word */
    FAKE_FLOODS = 300, /* 64 KiB at a time without end */
    FAKE_BREAKS = 400, /* a word, then the group is lost */
    FAKE_NO_GROUP = 500,
    FAKE_FULL = 600,
    FAKE_TOO_LONG = 700,
    FAKE_PAGES = 800, /* 4 KiB at a time without end */
    FAKE_CALLS = 900, /* content and two tool calls, for those who would have them */
};

struct generation {
    struct core *core;
    const struct generation_sink *sink;
    void *user;
    struct event *timer;
    struct generation_end end;
    int32_t max_tokens;
    uint64_t behaviour;
    bool thinks, calling, cancelled;
    int32_t logprobs, prompt_logprobs, prompt_len;
};

/* What the last generation was asked. */
static struct generation_params fake_params;

/* What tests read from their own thread. */
static atomic_int fake_running, fake_cancelled, fake_ended;
static atomic_bool fake_ready = true;
static atomic_int fake_prompt_len;
static atomic_int fake_judged; /* generations that were to find room for themselves */
static atomic_bool fake_full;  /* for those, and for whoever asks before it starts one */
static atomic_int fake_said;   /* times that a generation has said something */

static void fake_release(struct generation *g)
{
    event_free(g->timer);
    free(g);
    fake_running--;
}

/* Each token is 'A', the likelier the higher its seed, with '!' and '"' as the likeliest. */
static void fake_logprobs(struct generation *g)
{
    static const int32_t ids[] = {0, 1};
    static const float logprobs[] = {-0.25f, -0.5f};
    const int32_t id = 'A' - 33;
    const struct token_logprobs l = {.logprob = -1.0f / (float)(1 + g->end.seed % 100),
                                     .rank = 3,
                                     .count = 2,
                                     .top_ids = ids,
                                     .top_logprobs = logprobs};
    const struct told_token t = {
        .id = id, .part = PART_CONTENT, .offset = 3 * g->end.completion_tokens, .logprobs = &l};
    for (int32_t i = 1; i < g->prompt_len && g->prompt_logprobs > 0 && !g->cancelled; i++)
        g->sink->on_prompt(g->user, i, &l, 1);
    g->prompt_logprobs = 0;
    if (g->cancelled)
        return;
    if (g->max_tokens > 0)
        g->sink->on_ids(g->user, &id, g->logprobs > 0 ? &l : NULL, 1);
    if (g->max_tokens > 0 && g->logprobs > 0)
        g->sink->on_told(g->user, &t);
}

static void fake_say(struct generation *g)
{
    static char flood[64 << 10];
    char word[16];
    g->calling = true;
    fake_said++;
    if (g->thinks && g->end.completion_tokens == 0)
        g->sink->on_text(g->user, PART_REASONING, "hm", 2);
    fake_logprobs(g);
    if (g->max_tokens == 0)
        return;
    snprintf(word, sizeof word, "w%d ", g->end.completion_tokens++);
    memset(flood, 'x', sizeof flood);
    if (g->cancelled)
        ;
    else if (g->behaviour == FAKE_FLOODS || g->behaviour == FAKE_PAGES)
        g->sink->on_text(g->user, PART_CONTENT, flood,
                         g->behaviour == FAKE_PAGES ? 4096 : sizeof flood);
    else
        g->sink->on_text(g->user, PART_CONTENT, word, strlen(word));
    g->calling = false;
}

/* What each step of FAKE_CALLS tells. */
static const struct {
    int32_t count;
    struct told_piece pieces[3];
} fake_calls[] = {
    {1, {{.call = -1, .text = "I look.", .len = 7}}},
    {1, {{.call = 0, .name = "f", .text = "{", .len = 1}}},
    {1, {{.call = 0, .text = "\"a\": \"b\"", .len = 8}}},
    {3,
     {{.call = 0, .text = "}", .len = 1, .end = true},
      {.call = 1, .name = "g", .text = "{}", .len = 2, .end = true},
      {.call = -1, .text = " Done.", .len = 6}}},
};

/* True: it was the last. */
static bool fake_say_calls(struct generation *g)
{
    int32_t i = g->end.completion_tokens++;
    const int32_t id = 65;
    g->calling = true;
    g->sink->on_ids(g->user, &id, NULL, 1);
    g->sink->on_pieces(g->user, fake_calls[i].pieces, fake_calls[i].count);
    g->calling = false;
    if (g->cancelled || i + 1 < (int32_t)COUNT_OF(fake_calls))
        return false;
    g->end.reason = GENERATION_STOP;
    g->end.calls = 2;
    fake_ended++;
    g->sink->on_end(g->user, &g->end);
    return true;
}

static void fake_step(evutil_socket_t fd, short what, void *generation)
{
    struct generation *g = generation;
    bool breaks = g->behaviour == FAKE_BREAKS && g->end.completion_tokens > 0;
    bool all_said = g->max_tokens > 0 && g->end.completion_tokens == g->max_tokens; /* before */
    (void)fd;
    (void)what;
    if (g->behaviour == FAKE_CALLS) {
        if (fake_say_calls(g) || g->cancelled)
            fake_release(g);
        return;
    }
    if (!breaks && !all_said)
        fake_say(g);
    if (!g->cancelled && (breaks || g->end.completion_tokens == g->max_tokens)) {
        g->end.reason = breaks ? GENERATION_FAILED : GENERATION_LENGTH;
        if (breaks)
            error_set(&g->end.err, ERR_PEER, "group g0 was lost");
        fake_ended++;
        g->sink->on_end(g->user, &g->end);
    } else if (!g->cancelled) {
        return;
    }
    fake_release(g);
}

enum status generation_start(struct core *core, const struct generation_params *params,
                             const struct generation_sink *sink, void *user,
                             struct generation **out, struct error *err)
{
    struct timeval often = {.tv_usec = 2000};
    uint64_t behaviour = params->sampling.seed / 100 * 100;
    fake_prompt_len = params->prompt_len;
    fake_params = *params;
    if (behaviour == FAKE_NO_GROUP)
        return error_set(err, ERR_PEER, "no group is ready");
    bool judged = !params->accepted && !params->replaces;
    fake_judged += judged;
    if (behaviour == FAKE_FULL || (judged && fake_full))
        return error_set(err, ERR_NO_MEMORY, "too many requests");
    if (behaviour == FAKE_TOO_LONG)
        return error_set(err, ERR_LIMIT, "context: the prompt has 9 tokens");
    struct generation *g = check_calloc(1, sizeof *g);
    *g = (struct generation){
        .core = core,
        .sink = sink,
        .user = user,
        .end = {.completion_tokens = params->after.tokens, /* as if said before */
                .prompt_tokens = params->prompt_len,
                .cached_tokens = params->prompt_len - 1,
                .seed = params->sampling.seed},
        .max_tokens = params->prompt_only  ? 0
                      : params->max_tokens ? params->max_tokens
                                           : 1 << 30,
        .logprobs = params->logprobs,
        .prompt_logprobs = params->prompt_logprobs,
        .prompt_len = params->prompt_len,
        .behaviour = behaviour,
        .thinks = params->split_reasoning,
    };
    g->timer = event_new(loop_base(core->loop), -1, EV_PERSIST, fake_step, g);
    CHECK(g->timer, "no memory");
    if (behaviour != FAKE_QUIET)
        event_add(g->timer, &often);
    fake_running++;
    *out = g;
    return OK;
}

void generation_cancel(struct generation *g)
{
    fake_cancelled++;
    g->cancelled = true;
    if (!g->calling)
        fake_release(g);
}

const char *generation_class(const struct generation *g)
{
    (void)g;
    return "cpu-1";
}

uint64_t core_draw_seed(void)
{
    return (uint64_t)FAKE_TALKS << 11;
}

enum status metrics_page(const struct core *core, struct buf *out, struct error *err)
{
    struct metrics_page p = {.out = out};
    (void)err;
    metrics_write(&p, &core->metrics);
    return p.status;
}

enum status status_json(const struct core *core, struct buf *out, struct error *err)
{
    (void)core;
    return buf_puts(out, "{\"groups\":[]}", err);
}

enum status status_experts(const struct core *core, const char *group, struct buf *out,
                           struct error *err)
{
    (void)core;
    return strcmp(group, "g0") == 0 ? buf_puts(out, "{\"layers\":[]}", err)
                                    : error_set(err, ERR_NOT_FOUND, "no group of this name");
}

enum status core_admit(struct core *core, const struct auth_caller *caller, int32_t priority,
                       uint32_t deadline_ms, struct error *err)
{
    (void)core, (void)caller, (void)priority, (void)deadline_ms;
    return fake_full ? error_set(err, ERR_NO_MEMORY, "too many requests") : OK;
}

int32_t core_retry_s(const struct core *core)
{
    (void)core;
    return 7;
}

enum status core_ready(const struct core *core, struct error *err)
{
    (void)core;
    return fake_ready ? OK : error_set(err, ERR_PEER, "group g0 is \"loading\"");
}

#endif
