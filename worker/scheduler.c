/* Continuous batching on rank 0: see scheduler.h. */
#include "worker/scheduler.h"
#include "base/check.h"

#include <stdlib.h>
#include <string.h>

struct sequence {
    struct request request;
    uint64_t id;
    struct sequence *next; /* in the waiting queue */
    int32_t slot;
    int32_t flights;  /* steps in flight that feed it */
    bool ended;       /* told so; released when no flight feeds it any more */
    int32_t computed; /* tokens whose K and V are in the cache, once all flights have landed */
    int32_t length;   /* tokens: prompt, drawn, and one that a flight is to draw */
    int32_t block_count;
    int32_t sent_blocks; /* of its blocks, those that the ranks know */
    int32_t *blocks;     /* [block_count], behind the tokens */
    int32_t tokens[];    /* [prompt_len + max_tokens] */
};

/* What a step feeds, until it has run. */
struct flight_part {
    struct sequence *sequence;
    int32_t pos, count;
    int32_t logits; /* enum step_logits */
    int32_t draw;
};

struct flight {
    int32_t count, draws;
    struct flight_part *parts; /* [max_seqs] */
};

struct scheduler {
    struct engine_limits limits;
    int32_t chunk;
    int32_t eos[MAX_EOS];
    int32_t eos_count;
    struct sequence *first, *last; /* waiting, in order of arrival */
    int32_t waiting;
    struct sequence **running; /* [max_seqs] in order of admission */
    int32_t running_count;
    int32_t *free_slots; /* stack */
    int32_t free_slot_count;
    int32_t *free_blocks; /* stack */
    int32_t free_block_count;
    struct flight flights[SCHED_MAX_FLIGHTS]; /* the oldest first */
    int32_t flight_count;
    uint64_t next_id;
};

enum status sched_create(const struct engine_limits *limits, int32_t chunk, const int32_t *eos,
                         int32_t eos_count, struct scheduler **out, struct error *err)
{
    struct scheduler *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, ERR_NO_MEMORY, "no memory for the scheduler");
    s->limits = *limits;
    s->chunk = chunk > 0 ? chunk : limits->max_rows;
    CHECK(eos_count <= MAX_EOS, "%d end-of-sequence tokens", eos_count);
    s->eos_count = eos_count;
    memcpy(s->eos, eos, (size_t)eos_count * sizeof *eos);
    s->running = calloc((size_t)limits->max_seqs, sizeof *s->running);
    bool flights = true;
    for (int i = 0; i < SCHED_MAX_FLIGHTS; i++) {
        s->flights[i].parts = calloc((size_t)limits->max_seqs, sizeof *s->flights[i].parts);
        flights = flights && s->flights[i].parts;
    }
    s->free_slots = calloc((size_t)limits->max_seqs, sizeof *s->free_slots);
    s->free_blocks = calloc((size_t)limits->kv_blocks, sizeof *s->free_blocks);
    if (!s->running || !flights || !s->free_slots || !s->free_blocks) {
        sched_destroy(s);
        return error_set(err, ERR_NO_MEMORY, "no memory for the scheduler");
    }
    for (int32_t i = limits->max_seqs - 1; i >= 0; i--)
        s->free_slots[s->free_slot_count++] = i;
    for (int32_t i = limits->kv_blocks - 1; i >= 0; i--)
        s->free_blocks[s->free_block_count++] = i;
    s->next_id = 1;
    *out = s;
    return OK;
}

void sched_destroy(struct scheduler *s)
{
    if (!s)
        return;
    while (s->first) {
        struct sequence *q = s->first;
        s->first = q->next;
        free(q);
    }
    for (int32_t i = 0; i < s->running_count; i++)
        free(s->running[i]);
    free(s->running);
    for (int i = 0; i < SCHED_MAX_FLIGHTS; i++)
        free(s->flights[i].parts);
    free(s->free_slots);
    free(s->free_blocks);
    free(s);
}

static int32_t blocks_for(int64_t tokens)
{
    return (int32_t)((tokens + KV_BLOCK - 1) / KV_BLOCK);
}

static enum status admissible(const struct scheduler *s, const struct request *r, struct error *err)
{
    int64_t total = (int64_t)r->prompt_len + r->max_tokens;
    if (r->prompt_len < 1)
        return error_set(err, ERR_INVALID, "the prompt is empty");
    if (r->max_tokens < 0)
        return error_set(err, ERR_INVALID, "max_tokens %d: expected 0 or more", r->max_tokens);
    if (total > s->limits.context)
        return error_set(err, ERR_LIMIT,
                         "prompt of %d tokens and max_tokens %d exceed the context of %d",
                         r->prompt_len, r->max_tokens, s->limits.context);
    if (blocks_for(total) > s->limits.kv_blocks)
        return error_set(err, ERR_LIMIT, "%lld tokens need %d KV blocks, the cache has %d",
                         (long long)total, blocks_for(total), s->limits.kv_blocks);
    if (s->waiting >= SCHED_MAX_WAITING)
        return error_set(err, ERR_LIMIT, "%d requests are waiting already", s->waiting);
    return sampling_check(&r->sampling, err);
}

enum status sched_submit(struct scheduler *s, const struct request *request, uint64_t *id,
                         struct error *err)
{
    TRY(admissible(s, request, err));
    size_t tokens = (size_t)request->prompt_len + (size_t)request->max_tokens;
    int32_t blocks = blocks_for((int64_t)tokens);
    struct sequence *q = calloc(1, sizeof *q + (tokens + (size_t)blocks) * sizeof(int32_t));
    if (!q)
        return error_set(err, ERR_NO_MEMORY, "no memory for a request of %zu tokens", tokens);
    q->request = *request;
    q->id = s->next_id++;
    q->length = request->prompt_len;
    q->block_count = blocks;
    q->blocks = q->tokens + tokens;
    memcpy(q->tokens, request->prompt, (size_t)request->prompt_len * sizeof *q->tokens);
    q->request.prompt = q->tokens;
    if (s->last)
        s->last->next = q;
    else
        s->first = q;
    s->last = q;
    s->waiting++;
    if (id)
        *id = q->id;
    return OK;
}

static void release(struct scheduler *s, struct sequence *q)
{
    int32_t index = 0;
    while (s->running[index] != q)
        index++;
    for (int32_t i = q->block_count - 1; i >= 0; i--)
        s->free_blocks[s->free_block_count++] = q->blocks[i];
    s->free_slots[s->free_slot_count++] = q->slot;
    memmove(s->running + index, s->running + index + 1,
            (size_t)(s->running_count - index - 1) * sizeof *s->running);
    s->running_count--;
    free(q);
}

/* Its request has been told. What is in flight still writes to its blocks. */
static void end(struct scheduler *s, struct sequence *q)
{
    q->ended = true;
    if (q->flights == 0)
        release(s, q);
}

bool sched_cancel(struct scheduler *s, uint64_t id)
{
    for (int32_t i = 0; i < s->running_count; i++) {
        if (s->running[i]->id != id || s->running[i]->ended)
            continue;
        struct request r = s->running[i]->request;
        end(s, s->running[i]);
        r.on_token(r.user, -1, FINISH_CANCELLED);
        return true;
    }
    struct sequence *before = NULL;
    for (struct sequence *q = s->first; q; before = q, q = q->next) {
        if (q->id != id)
            continue;
        *(before ? &before->next : &s->first) = q->next;
        if (s->last == q)
            s->last = before;
        s->waiting--;
        q->request.on_token(q->request.user, -1, FINISH_CANCELLED);
        free(q);
        return true;
    }
    return false;
}

static void admit(struct scheduler *s)
{
    while (s->first && s->free_slot_count > 0 && s->first->block_count <= s->free_block_count) {
        struct sequence *q = s->first;
        s->first = q->next;
        if (!s->first)
            s->last = NULL;
        s->waiting--;
        q->next = NULL;
        q->slot = s->free_slots[--s->free_slot_count];
        for (int32_t i = 0; i < q->block_count; i++)
            q->blocks[i] = s->free_blocks[--s->free_block_count];
        s->running[s->running_count++] = q;
    }
}

/* Tokens that the next step may feed; what is drawn last of all is fed no more. */
static int32_t unfed(const struct sequence *q)
{
    int32_t drawn = q->request.max_tokens > 0 ? q->request.max_tokens - 1 : 0;
    int32_t end = q->request.prompt_len + drawn;
    return q->ended ? 0 : (q->length < end ? q->length : end) - q->computed;
}

/* Puts `count` tokens of a sequence into the step. */
static void feed(struct step *step, struct flight *f, struct sequence *q, int32_t count)
{
    int32_t end = q->computed + count, need = blocks_for(end);
    bool complete = end == q->length;
    struct step_seq part = {
        .slot = q->slot,
        .pos = q->computed,
        .count = count,
        .first_block = q->sent_blocks,
        .blocks = need - q->sent_blocks,
        .logits = q->request.all_logits && q->computed < q->request.prompt_len ? STEP_LOGITS_ALL
                  : complete                                                   ? STEP_LOGITS_LAST
                                                                               : STEP_LOGITS_NONE,
        .draw = complete && q->request.max_tokens > 0,
        .sampling = q->request.sampling,
    };
    step_add(step, &part, q->tokens + q->computed, q->blocks + q->sent_blocks);
    f->parts[f->count++] = (struct flight_part){q, part.pos, count, part.logits, part.draw};
    q->flights++;
    q->sent_blocks = need;
    q->computed = end;
    if (part.draw)
        q->tokens[q->length++] = step_drawn_token(f->draws++);
}

bool sched_next(struct scheduler *s, struct step *step, int32_t vocab_limit)
{
    CHECK(s->flight_count < SCHED_MAX_FLIGHTS, "%d steps in flight", s->flight_count);
    admit(s);
    bool keep = false, any = false;
    for (int32_t i = 0; i < s->running_count; i++) {
        keep = keep || s->running[i]->request.on_logits != NULL;
        any = any || unfed(s->running[i]) > 0;
    }
    if (!any)
        return false;
    struct flight *f = &s->flights[s->flight_count++];
    f->count = f->draws = 0;
    step_begin(step, STEP_RUN, vocab_limit, keep);
    int32_t room = s->limits.max_rows;
    for (int32_t i = 0; i < s->running_count; i++) {
        struct sequence *q = s->running[i];
        if (unfed(q) == 1 && q->computed > 0) {
            feed(step, f, q, 1);
            room--;
        }
    }
    for (int32_t i = 0; i < s->running_count && room > 0; i++) {
        struct sequence *q = s->running[i];
        int32_t count = unfed(q);
        if (count == 0 || (count == 1 && q->computed > 0)) /* fed above */
            continue;
        count = count < s->chunk ? count : s->chunk;
        count = count < room ? count : room;
        feed(step, f, q, count);
        room -= count;
    }
    return true;
}

static bool is_eos(const struct scheduler *s, int32_t token)
{
    for (int32_t i = 0; i < s->eos_count; i++)
        if (s->eos[i] == token)
            return true;
    return false;
}

/* Takes in the token drawn for position `at` (-1: none could be drawn) and tells the request. */
static enum finish take_token(struct scheduler *s, struct sequence *q, int32_t at, int32_t token)
{
    enum finish f = FINISH_NONE;
    if (token < 0)
        f = FINISH_ERROR;
    else
        q->tokens[at] = token;
    if (token >= 0 && !q->request.ignore_eos && is_eos(s, token))
        f = FINISH_STOP;
    else if (at + 1 == q->request.prompt_len + q->request.max_tokens)
        f = f == FINISH_NONE ? FINISH_LENGTH : f;
    q->request.on_token(q->request.user, token, f);
    return f;
}

/* What one sequence got of a step. */
static enum finish land(struct scheduler *s, const struct flight_part *part, int32_t token)
{
    struct sequence *q = part->sequence;
    int32_t end = part->pos + part->count;
    if (part->draw)
        return take_token(s, q, end, token);
    if (end < q->request.prompt_len || q->request.max_tokens > 0)
        return FINISH_NONE;
    q->request.on_token(q->request.user, -1, FINISH_LENGTH);
    return FINISH_LENGTH;
}

void sched_done(struct scheduler *s, const int32_t *drawn, const float *logits, int64_t stride,
                int32_t vocab)
{
    CHECK(s->flight_count > 0, "no step is in flight");
    struct flight f = s->flights[0];
    for (int32_t i = 0; i < f.count; i++) {
        const struct flight_part *part = &f.parts[i];
        struct sequence *q = part->sequence;
        int32_t rows = part->logits == STEP_LOGITS_ALL    ? part->count
                       : part->logits == STEP_LOGITS_LAST ? 1
                                                          : 0;
        for (int32_t j = 0; j < rows && logits; j++, logits += stride)
            if (q->request.on_logits && !q->ended)
                q->request.on_logits(q->request.user, part->pos + part->count - rows + j, logits,
                                     vocab);
        int32_t token = part->draw ? *drawn++ : -1;
        q->flights--;
        if (q->ended || land(s, part, token) != FINISH_NONE)
            end(s, q);
    }
    memmove(s->flights, s->flights + 1, (SCHED_MAX_FLIGHTS - 1) * sizeof *s->flights);
    s->flights[SCHED_MAX_FLIGHTS - 1] = f; /* its memory serves again */
    s->flight_count--;
}

int32_t sched_running(const struct scheduler *s)
{
    return s->running_count;
}

int32_t sched_waiting(const struct scheduler *s)
{
    return s->waiting;
}

int32_t sched_free_blocks(const struct scheduler *s)
{
    return s->free_block_count;
}
