/* Requests in flight and their tokens: see answers.h. */
#include "worker/control/answers.h"
#include "base/check.h"

#include <stdlib.h>

struct answer {
    struct answers *owner;
    struct request_key key;
    uint64_t id;   /* the scheduler's */
    int32_t drawn; /* tokens so far */
    bool used;
    struct answer *next_free;
};

struct answers {
    struct answer *table; /* [size] */
    int32_t size;
    struct answer *free;
    /* What was drawn: sequences[i] with the token ids[i], [cap]. */
    Witan__Cluster__V1__SequenceTokens *sequences;
    Witan__Cluster__V1__SequenceTokens **pointers;
    int32_t *ids;
    int32_t count, cap;
    Witan__Cluster__V1__Tokens message;
};

enum status answers_create(const struct engine_limits *limits, struct answers **out,
                           struct error *err)
{
    struct answers *a = calloc(1, sizeof *a);
    if (!a)
        return error_set(err, ERR_NO_MEMORY, "no memory for the answers");
    a->size = limits->max_seqs + ANSWERS_WAITING;
    a->cap = limits->max_seqs;
    a->table = calloc((size_t)a->size, sizeof *a->table);
    a->sequences = calloc((size_t)a->cap, sizeof *a->sequences);
    a->pointers = calloc((size_t)a->cap, sizeof *a->pointers);
    a->ids = calloc((size_t)a->cap, sizeof *a->ids);
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

void answers_destroy(struct answers *a)
{
    if (!a)
        return;
    free(a->table);
    free(a->sequences);
    free(a->pointers);
    free(a->ids);
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
    };
    return of[f];
}

/* The scheduler's callback. */
static void on_token(void *user, int32_t token, enum finish finish)
{
    static char not_finite[] = "the model's logits are not finite";
    struct answer *q = user;
    struct answers *a = q->owner;
    CHECK(a->count < a->cap, "%d sequences drew, room for %d", a->count + 1, a->cap);
    Witan__Cluster__V1__SequenceTokens *s = &a->sequences[a->count];
    *s = (Witan__Cluster__V1__SequenceTokens)WITAN__CLUSTER__V1__SEQUENCE_TOKENS__INIT;
    s->request_id = q->key.request_id;
    s->attempt = q->key.attempt;
    s->epoch = q->key.epoch;
    s->position = q->drawn;
    s->finish = finish_of(finish);
    if (finish == FINISH_ERROR)
        s->error = not_finite;
    if (token >= 0) {
        a->ids[a->count] = token;
        s->ids = &a->ids[a->count];
        s->n_ids = 1;
        q->drawn++;
    }
    a->count++;
    if (finish != FINISH_NONE) {
        q->used = false;
        q->next_free = a->free;
        a->free = q;
    }
}

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
        .ignore_eos = c->ignore_eos,
        .sampling = c->sampling,
        .on_token = on_token,
        .user = q,
    };
    TRY(engine_submit(e, &r, &q->id, err));
    a->free = q->next_free;
    q->key = c->key;
    q->drawn = 0;
    q->used = true;
    return OK;
}

void answers_cancel(struct answers *a, struct engine *e, const struct command *c)
{
    struct answer *q = find(a, &c->key);
    if (q)
        engine_cancel(e, q->id);
}

const Witan__Cluster__V1__Tokens *answers_message(struct answers *a, uint64_t step)
{
    a->message = (Witan__Cluster__V1__Tokens)WITAN__CLUSTER__V1__TOKENS__INIT;
    a->message.n_sequences = (size_t)a->count;
    a->message.sequences = a->pointers;
    a->message.step = step;
    return &a->message;
}

bool answers_full(const struct answers *a)
{
    return a->count == a->cap;
}

void answers_clear(struct answers *a)
{
    a->count = 0;
}
