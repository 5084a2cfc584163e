/* Requests in flight and their tokens: see answers.h. */
#include "worker/control/answers.h"
#include "base/check.h"
#include "base/clock.h"

#include <stdlib.h>

struct answer {
    struct answers *owner;
    struct request_key key;
    uint64_t id;   /* the scheduler's */
    int32_t drawn; /* tokens so far, those of attempts before counted */
    int32_t prompt_len;
    int32_t cached;       /* of the prompt, tokens that the prefix cache had */
    int64_t submitted_ns; /* 0: it has begun */
    bool used;
    struct answer *next_free;
};

/* Of one token; the message points to the lists. */
struct told_logprobs {
    Witan__Cluster__V1__TokenLogprobs message;
    int32_t ids[SAMPLING_MAX_LOGPROBS];
    float logprobs[SAMPLING_MAX_LOGPROBS];
};

struct answers {
    struct answer *table; /* [size] */
    int32_t size;
    struct answer *free;
    /* What was drawn: ids and logprobs of sequences[i] are runs of the arrays below. */
    Witan__Cluster__V1__SequenceTokens *sequences; /* [cap] */
    Witan__Cluster__V1__SequenceTokens **pointers; /* [cap] */
    const struct answer *last; /* whose the last of sequences is and may grow; NULL: nobody's */
    int32_t count, cap;
    int32_t *ids; /* [rows] */
    int32_t id_count;
    struct told_logprobs *logprobs; /* [rows]; NULL until they are asked for */
    Witan__Cluster__V1__TokenLogprobs **logprob_pointers; /* [rows] */
    int32_t logprob_count;
    int32_t rows; /* most tokens, drawn or of prompts, between two clears */
    Witan__Cluster__V1__Tokens message;
    struct histogram queue; /* seconds from submission to the first step */
    bool shares;            /* of steps are told */
};

/* Every request may end in a step, and those that run draw in each that lands. */
static void size_up(struct answers *a, const struct engine_limits *limits)
{
    int32_t rows = limits->max_seqs * ANSWERS_STEP_TOKENS;
    a->size = limits->max_seqs + ANSWERS_WAITING;
    a->cap = a->size + SCHED_MAX_FLIGHTS * limits->max_seqs;
    a->rows = SCHED_MAX_FLIGHTS * (rows > limits->max_logits ? rows : limits->max_logits);
}

enum status answers_create(const struct engine_limits *limits, struct answers **out,
                           struct error *err)
{
    struct answers *a = calloc(1, sizeof *a);
    if (!a)
        return error_set(err, ERR_NO_MEMORY, "no memory for the answers");
    size_up(a, limits);
    histogram_init(&a->queue, &histogram_seconds);
    a->table = calloc((size_t)a->size, sizeof *a->table);
    a->sequences = calloc((size_t)a->cap, sizeof *a->sequences);
    a->pointers = calloc((size_t)a->cap, sizeof *a->pointers);
    a->ids = calloc((size_t)a->rows, sizeof *a->ids);
    if (!a->table || !a->sequences || !a->pointers || !a->ids) {
        answers_destroy(a);
        return error_set(err, ERR_NO_MEMORY, "no memory for %d answers",
                         limits->max_seqs + ANSWERS_WAITING);
    }
    for (int32_t i = a->size - 1; i >= 0; i--) {
        a->table[i].owner = a;
        a->table[i].next_free = a->free;
        a->free = &a->table[i];
    }
    for (int32_t i = 0; i < a->cap; i++)
        a->pointers[i] = &a->sequences[i];
    *out = a;
    return OK;
}

/* The first request that wants logprobs pays for them. */
static enum status reserve_logprobs(struct answers *a, struct error *err)
{
    if (a->logprobs)
        return OK;
    struct told_logprobs *l = calloc((size_t)a->rows, sizeof *l);
    Witan__Cluster__V1__TokenLogprobs **p = calloc((size_t)a->rows, sizeof *p);
    if (!l || !p) {
        free(l);
        free(p);
        return error_set(err, ERR_NO_MEMORY, "no memory for the logprobs of %d tokens", a->rows);
    }
    for (int32_t i = 0; i < a->rows; i++)
        p[i] = &l[i].message;
    a->logprobs = l;
    a->logprob_pointers = p;
    return OK;
}

void answers_destroy(struct answers *a)
{
    if (!a)
        return;
    free(a->table);
    free(a->sequences);
    free(a->pointers);
    free(a->ids);
    free(a->logprobs);
    free(a->logprob_pointers);
    free(a);
}

static Witan__Cluster__V1__Finish finish_of(enum finish f)
{
    static const Witan__Cluster__V1__Finish of[] = {
        [FINISH_NONE] = WITAN__CLUSTER__V1__FINISH__FINISH_NONE,
        [FINISH_STOP] = WITAN__CLUSTER__V1__FINISH__FINISH_STOP,
        [FINISH_LENGTH] = WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH,
        [FINISH_CANCELLED] = WITAN__CLUSTER__V1__FINISH__FINISH_CANCELLED,
        [FINISH_ERROR] = WITAN__CLUSTER__V1__FINISH__FINISH_ERROR,
        [FINISH_DEADLINE] = WITAN__CLUSTER__V1__FINISH__FINISH_DEADLINE,
    };
    return of[f];
}

/* --- the scheduler's callbacks ----------------------------------------------------------------
 */

/* Where the request's next words go: behind its last ones when those were the last said. */
static Witan__Cluster__V1__SequenceTokens *words_of(struct answer *q)
{
    struct answers *a = q->owner;
    if (a->last == q)
        return &a->sequences[a->count - 1];
    CHECK(a->count < a->cap, "%d sequences drew, room for %d", a->count + 1, a->cap);
    Witan__Cluster__V1__SequenceTokens *s = &a->sequences[a->count++];
    *s = (Witan__Cluster__V1__SequenceTokens)WITAN__CLUSTER__V1__SEQUENCE_TOKENS__INIT;
    s->request_id = q->key.request_id;
    s->attempt = q->key.attempt;
    s->epoch = q->key.epoch;
    s->position = q->drawn;
    s->cached_tokens = q->drawn == 0 ? q->cached : 0;
    a->last = q;
    return s;
}

static void on_start(void *user, int32_t cached)
{
    struct answer *q = user;
    q->cached = cached;
    if (q->submitted_ns != 0)
        histogram_add(&q->owner->queue, (double)(clock_now_ns() - q->submitted_ns) * 1e-9);
    q->submitted_ns = 0;
}

static void on_logprobs(void *user, int32_t pos, const struct logprobs *l)
{
    struct answer *q = user;
    struct answers *a = q->owner;
    Witan__Cluster__V1__SequenceTokens *s = words_of(q);
    CHECK(a->logprob_count < a->rows, "logprobs of %d tokens, room for %d", a->logprob_count + 1,
          a->rows);
    struct told_logprobs *t = &a->logprobs[a->logprob_count];
    Witan__Cluster__V1__TokenLogprobs **at = &a->logprob_pointers[a->logprob_count++];
    witan__cluster__v1__token_logprobs__init(&t->message);
    t->message.logprob = l->logprob;
    t->message.rank = l->rank;
    t->message.n_top_ids = t->message.n_top_logprobs = (size_t)l->count;
    t->message.top_ids = t->ids;
    t->message.top_logprobs = t->logprobs;
    for (int32_t i = 0; i < l->count; i++) {
        t->ids[i] = l->top[i].id;
        t->logprobs[i] = l->top[i].logprob;
    }
    if (pos >= q->prompt_len) {
        s->logprobs = s->n_logprobs > 0 ? s->logprobs : at;
        s->n_logprobs++;
    } else if (s->n_prompt_logprobs++ == 0) {
        s->prompt_logprobs = at;
        s->prompt_position = pos;
    }
}

static void on_share(void *user, double seconds)
{
    struct answer *q = user;
    if (q->owner->shares)
        words_of(q)->step_seconds += seconds;
}

static void on_token(void *user, int32_t token, enum finish finish)
{
    static char not_finite[] = "the model's logits are not finite";
    struct answer *q = user;
    struct answers *a = q->owner;
    Witan__Cluster__V1__SequenceTokens *s = words_of(q);
    s->finish = finish_of(finish);
    if (finish == FINISH_ERROR)
        s->error = not_finite;
    if (token >= 0) {
        CHECK(a->id_count < a->rows, "%d tokens, room for %d", a->id_count + 1, a->rows);
        s->ids = s->n_ids > 0 ? s->ids : &a->ids[a->id_count];
        a->ids[a->id_count++] = token;
        s->n_ids++;
        q->drawn++;
    }
    if (finish != FINISH_NONE) {
        a->last = NULL;
        q->used = false;
        q->next_free = a->free;
        a->free = q;
    }
}

/* --- requests ---------------------------------------------------------------------------------
 */

/* A look through the table costs microseconds, and only submits and cancels ask for it. */
static struct answer *find(struct answers *a, const struct request_key *key)
{
    for (int32_t i = 0; i < a->size; i++) {
        struct answer *q = &a->table[i];
        if (q->used && q->key.request_id == key->request_id && q->key.attempt == key->attempt &&
            q->key.epoch == key->epoch)
            return q;
    }
    return NULL;
}

enum status answers_submit(struct answers *a, struct engine *e, const struct command *c,
                           struct error *err)
{
    struct answer *q = a->free;
    if (find(a, &c->key))
        return OK;
    if (!q)
        return error_set(err, ERR_LIMIT, "%d requests are in flight already", a->size);
    struct request r = {
        .prompt = c->prompt,
        .prompt_len = c->prompt_len,
        .max_tokens = c->max_tokens,
        .answer = c->answer,
        .answer_len = c->answer_len,
        .prompt_told = c->prompt_told,
        .ignore_eos = c->ignore_eos,
        .sampling = c->sampling,
        .shaping = c->shaping,
        .constraint = c->constraint,
        .thinking = c->thinking,
        .logprobs = c->logprobs,
        .prompt_logprobs = c->prompt_logprobs,
        .tenant = c->tenant,
        .prefix_domain = c->prefix_domain,
        .priority = c->priority,
        .deadline_ns = c->deadline_ns,
        .on_token = on_token,
        .on_start = on_start,
        .on_share = on_share,
        .user = q,
    };
    if (c->logprobs > 0 || c->prompt_logprobs > 0) {
        TRY(reserve_logprobs(a, err));
        r.on_logprobs = on_logprobs;
    }
    TRY(engine_submit(e, &r, &q->id, err));
    a->free = q->next_free;
    q->key = c->key;
    q->drawn = c->answer_len;
    q->cached = 0;
    q->prompt_len = c->prompt_len;
    q->submitted_ns = clock_now_ns();
    q->used = true;
    return OK;
}

void answers_cancel(struct answers *a, struct engine *e, const struct command *c)
{
    struct answer *q = find(a, &c->key);
    if (q)
        engine_cancel(e, q->id);
}

void answers_abandon(struct answers *a, struct engine *e)
{
    answers_clear(a);
    for (int32_t i = 0; i < a->size; i++)
        if (a->table[i].used)
            engine_cancel(e, a->table[i].id);
    answers_clear(a);
}

const Witan__Cluster__V1__Tokens *answers_message(struct answers *a, uint64_t step)
{
    a->message = (Witan__Cluster__V1__Tokens)WITAN__CLUSTER__V1__TOKENS__INIT;
    a->message.n_sequences = (size_t)a->count;
    a->message.sequences = a->pointers;
    a->message.step = step;
    return &a->message;
}

void answers_tell_shares(struct answers *a, bool tell)
{
    a->shares = tell;
}

bool answers_full(const struct answers *a)
{
    return a->count == a->cap;
}

void answers_clear(struct answers *a)
{
    a->count = a->id_count = a->logprob_count = 0;
    a->last = NULL;
}

const struct histogram *answers_queue(const struct answers *a)
{
    return &a->queue;
}
