/* Requests on ranks that the test plays over the real protocol. On the test's thread, but for what
 * on_loop runs. */
#ifndef WITAN_TESTS_UNIT_COORDINATOR_GENERATIONS_H
#define WITAN_TESTS_UNIT_COORDINATOR_GENERATIONS_H

#include "tests/unit/coordinator/cluster.h"

#include "coordinator/members_private.h"

typedef Witan__Cluster__V1__CoordinatorMessage told;

struct answer {
    struct cluster *c;
    struct generation *g;
    enum status started;
    struct error err;
    char text[256];
    int32_t ids, seen_ids, seen_told;
    bool ended, seen_end;
    struct generation_end end;
    int32_t prompt[3];
    int32_t max_tokens, logprobs, prompt_logprobs, prompt_told;
    bool default_max_tokens, no_deadline, accepted, replaces;
    const char *stop[1];
    int32_t stops;
    uint64_t tenant;
    struct resume_at after;
    const char *class;
    bool split; /* parts told apart: all of it is `text` */
    enum call_format format;
    bool one_call;
};

static inline void on_text(void *user, enum part part, const char *text, size_t len)
{
    struct answer *a = user;
    size_t n = strlen(a->text);
    if (!a->split)
        assert_int_equal(part, PART_CONTENT);
    snprintf(a->text + n, sizeof a->text - n, "%.*s", (int)len, text);
}

/* A call as {NAME|ARGUMENTS}. */
static inline void on_pieces(void *user, const struct told_piece *pieces, int32_t count)
{
    struct answer *a = user;
    for (int32_t i = 0; i < count; i++) {
        const struct told_piece *p = &pieces[i];
        size_t n = strlen(a->text);
        snprintf(a->text + n, sizeof a->text - n, "%s%s%s%.*s%s", p->name ? "{" : "",
                 p->name ? p->name : "", p->name ? "|" : "", (int)p->len, p->text,
                 p->end ? "}" : "");
    }
}

static inline void on_ids(void *user, const int32_t *ids, const struct token_logprobs *logprobs,
                          int32_t count)
{
    (void)ids;
    (void)logprobs;
    ((struct answer *)user)->ids += count;
}

static inline void on_prompt(void *user, int32_t position, const struct token_logprobs *logprobs,
                             int32_t count)
{
    struct answer *a = user;
    assert_int_equal(position, 1 + a->prompt_told);
    for (int32_t i = 0; i < count; i++)
        assert_true(logprobs[i].logprob == -(float)(position + i));
    a->prompt_told += count;
}

static inline void on_end(void *user, const struct generation_end *end)
{
    struct answer *a = user;
    a->ended = true;
    a->end = *end;
}

static const struct generation_sink sink = {.on_text = on_text,
                                            .on_pieces = on_pieces,
                                            .on_ids = on_ids,
                                            .on_prompt = on_prompt,
                                            .on_end = on_end};

static inline void start(void *arg)
{
    struct answer *a = arg;
    struct generation_params p = {
        .prompt = a->prompt,
        .prompt_len = 3,
        .max_tokens = a->max_tokens,
        .default_max_tokens = a->default_max_tokens,
        .sampling = {.top_p = 1},
        .logprobs = a->logprobs,
        .prompt_logprobs = a->prompt_logprobs,
        .deadline_ms = a->no_deadline ? 0 : 2500,
        .tenant = a->tenant,
        .stop = a->stop,
        .stop_count = a->stops,
        .after = a->after,
        .numerics_class = a->class,
        .split_reasoning = a->split,
        .calls = a->format,
        .one_call = a->one_call,
        .accepted = a->accepted,
        .replaces = a->replaces,
    };
    a->started = generation_start(a->c->core, &p, &sink, a, &a->g, &a->err);
}

static inline void look(void *arg)
{
    struct answer *a = arg;
    a->seen_end = a->ended;
    a->seen_ids = a->ids;
    a->seen_told = a->prompt_told;
}

static inline void tick(void *arg)
{
    generation_tick(((struct cluster *)arg)->core);
}

/* Everything of the answer may be read after this. */
static inline void wait_end(struct answer *a)
{
    for (int i = 0; i < 10000 && !a->seen_end; i++) {
        on_loop(a->c, tick, a->c);
        on_loop(a->c, look, a);
        usleep(1000);
    }
    assert_true(a->seen_end);
}

/* A served cluster with one request submitted to it. */
static inline const told *begin(struct cluster *c, struct fake_rank *r, struct answer *a, const char *yaml)
{
    cluster_start(c, yaml);
    fake_serve(c, r);
    cluster_wait_ready(c, true);
    a->c = c;
    on_loop(c, start, a);
    if (a->started != OK)
        fail_msg("%s", a->err.msg);
    const told *m = fake_next(r);
    assert_int_equal(m->body_case, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT);
    return m;
}

static inline void end(struct cluster *c, struct fake_rank *r)
{
    fake_release(r);
    cluster_wait_ready(c, false);
    cluster_stop(c);
}

static inline void start_as(struct cluster *c, struct answer *a, uint64_t tenant)
{
    *a = (struct answer){.c = c, .prompt = {65, 66, 67}, .max_tokens = 5, .tenant = tenant};
    on_loop(c, start, a);
}

/* Logprobs of positions [from, to) of the prompt, with the first token where `drawn`. */
static inline void fake_say_prompt(struct fake_rank *r, const Witan__Cluster__V1__Submit *q,
                                   int32_t from, int32_t to, bool drawn)
{
    Witan__Cluster__V1__SequenceTokens s = WITAN__CLUSTER__V1__SEQUENCE_TOKENS__INIT;
    Witan__Cluster__V1__TokenLogprobs l[4], *pointers[4];
    int32_t token = 5;
    for (int32_t i = from; i < to; i++) {
        witan__cluster__v1__token_logprobs__init(&l[i - from]);
        l[i - from].logprob = -(float)i;
        pointers[i - from] = &l[i - from];
    }
    s.request_id = q->request_id;
    s.attempt = q->attempt;
    s.epoch = q->epoch;
    s.ids = &token;
    s.n_ids = drawn ? 1 : 0;
    s.prompt_position = from;
    s.prompt_logprobs = pointers;
    s.n_prompt_logprobs = (size_t)(to - from);
    s.finish = drawn ? WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH
                     : WITAN__CLUSTER__V1__FINISH__FINISH_NONE;
    fake_say_sequence(r, &s);
}

static inline void cancel(void *arg)
{
    generation_cancel(((struct answer *)arg)->g);
}

#endif
