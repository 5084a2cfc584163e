/*
 * What the tests of the scheduler share: requests, and steps run over a model of the KV cache. The
 * model has two layers: in each every row first writes its cell of the block that the step's tables
 * say, then reads all cells of its sequence through them, and what it draws is a hash of what it
 * has read. So a block that was shared wrongly, given away too early or fed the wrong token gives
 * another answer than the request has alone, which is worked out without scheduler and cache.
 */
#ifndef WITAN_TESTS_UNIT_WORKER_SCHEDULER_BENCH_H
#define WITAN_TESTS_UNIT_WORKER_SCHEDULER_BENCH_H

#include "tests/unit/unit.h"

#include "base/check.h"
#include "tests/unit/random.h"
#include "worker/scheduler.h"

enum { OPEN = 8, CLOSE = 9, END_FIRST = 10, MOST_END = 9 }; /* of thoughts */
enum { REQUESTS = 60, EOS = 7, FIRST_TOKEN = 16, TOKENS = 4000, VOCAB = 4, CONTEXT = 400 };

struct client {
    int32_t index;
    uint64_t id;
    int32_t prompt_len, max_tokens;
    int32_t answered; /* of max_tokens, those that another scheduler has drawn */
    int32_t eos_at;   /* draws EOS as its n-th token; 0: never */
    bool ignore_eos, all_logits, history, no_logits;
    struct thinking thinking; /* its count: where a thought is ended; 0: nowhere */
    int32_t close_at;         /* draws CLOSE as its n-th token; 0: never */
    int32_t repeats;          /* what it draws is mostly what stood so far back; 0: never */
    int32_t text;             /* which beginning it shares with others */
    int32_t shared;
    uint64_t tenant, domain;
    int32_t priority;
    int64_t deadline_ns;
    int32_t *tokens; /* [prompt_len + max_tokens]: what it must be alone */
    int32_t known;   /* of these, prompt and those told */
    int32_t logits_next;
    int32_t starts, cached, fed, rows;
    int32_t finishes;
    enum finish finish;
    bool cancelled;
    double share; /* seconds of the last step that fed it */
};

struct cell {
    uint64_t layer[2];
};

/* A step under way. */
struct flown {
    int32_t seqs, draws, logits;
    struct client *clients[REQUESTS]; /* [seqs] */
    struct step_seq parts[REQUESTS];
    int32_t *tokens, *pos, *tables; /* [rows], [rows], [max_seqs][table] */
    int32_t *seq;                   /* [rows] */
    bool *wanted;                   /* [rows]: its logits */
    int32_t *wipes, wipe_count;     /* blocks to be zeroed before it */
};

struct bench {
    struct scheduler *sched;
    struct step step;
    struct engine_limits limits;
    int32_t chunk, speculate;
    struct client clients[REQUESTS];
    int32_t count;
    struct cell *cells; /* [kv_blocks][KV_BLOCK] */
    int64_t now_ns;
    int32_t last_started;
    bool one_tenant;
    bool ahead;              /* each step is made before the one before has run */
    struct flown flights[2]; /* the oldest first */
    int flying;
    int32_t first_steps; /* for which the first of those that run has got on by nothing */
    int32_t first_index, first_fed;
};

static uint64_t fold(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9E3779B97F4A7C15u;
    return h ^ (h >> 31);
}

static int32_t token_of(const struct client *c, int32_t at, uint64_t read)
{
    read = fold(read, (uint64_t)c->index);
    if (c->eos_at > 0 && at - c->prompt_len + 1 == c->eos_at)
        return EOS;
    if (c->close_at > 0 && at - c->prompt_len + 1 == c->close_at)
        return CLOSE;
    if (c->thinking.count > 0 && at == c->prompt_len && read % 4 != 0)
        return OPEN;
    if (c->repeats > 0 && at >= c->repeats && read % 16 != 0)
        return c->tokens[at - c->repeats];
    return FIRST_TOKEN + (int32_t)(read % TOKENS);
}

/* Of an answer whose tokens before are known: what stands at `at`, where `drawn` is drawn. */
static int32_t end_of_thought(const struct client *c, int32_t at, int32_t drawn)
{
    const struct thinking *t = &c->thinking;
    int32_t index = at - c->prompt_len, from = t->most + (t->inside ? 0 : 1);
    bool thinks = t->inside || (index > 0 && c->tokens[c->prompt_len] == OPEN);
    for (int32_t i = 0; i < from && i < index; i++)
        thinks = thinks && c->tokens[c->prompt_len + i] != CLOSE;
    if (index > from)
        thinks = thinks && c->tokens[c->prompt_len + from] == t->ids[0];
    thinks = thinks && !(index == from && drawn == CLOSE);
    return thinks && index >= from && index < from + t->count ? t->ids[index - from] : drawn;
}

/* The prompt, and what the model draws after it with nothing else about. */
static void run_alone(struct client *c)
{
    uint64_t keys = 0, values = 0;
    for (int32_t i = 0; i < c->prompt_len + c->max_tokens; i++) {
        if (i < c->prompt_len)
            c->tokens[i] = FIRST_TOKEN +
                           (i < c->shared ? c->text * 100 + i % 90 : 1000 + c->index * 40 + i % 30);
        else
            c->tokens[i] = end_of_thought(c, i, token_of(c, i, values));
        keys = fold(keys, fold((uint64_t)c->tokens[i], (uint64_t)i));
        values = fold(values, keys);
    }
}

static void on_token(void *user, int32_t token, enum finish finish)
{
    struct client *c = user;
    assert_int_equal(c->finishes, 0);
    if (finish == FINISH_CANCELLED || finish == FINISH_ERROR || finish == FINISH_DEADLINE ||
        (finish == FINISH_LENGTH && c->max_tokens == 0))
        assert_int_equal(token, -1);
    else
        assert_int_equal(token, c->tokens[c->known]);
    if (token >= 0)
        c->known++;
    if (finish != FINISH_NONE)
        c->finishes++;
    c->finish = finish;
}

/* Rows come in order of positions and once, all of the prompt's where asked, else from its last. */
static void on_logits(void *user, int32_t pos, const float *logits, int32_t vocab)
{
    struct client *c = user;
    assert_int_equal(vocab, VOCAB);
    assert_int_equal(pos, c->logits_next);
    assert_true(logits[0] == (float)c->index && logits[1] == (float)pos);
    c->logits_next++;
}

static void on_start(void *user, int32_t cached)
{
    struct client *c = user;
    assert_int_equal(c->starts++, 0);
    assert_true(cached % KV_BLOCK == 0 || (c->answered > 0 && cached == c->prompt_len));
    assert_in_range(cached, 0, c->answered > 0 ? c->prompt_len : c->prompt_len - 1);
    c->cached = cached;
}

/* Seconds of steps that clients were told to be theirs. */
static double bench_shared;

static void on_share(void *user, double seconds)
{
    struct client *c = user;
    assert_true(c->starts == 1 && c->finishes == 0 && seconds >= 0);
    c->share = seconds;
    bench_shared += seconds;
}

static struct bench *bench_with(struct engine_limits limits, struct sched_options options)
{
    static const int32_t eos[] = {EOS};
    struct bench *b = check_calloc(1, sizeof *b);
    struct error err;
    options.eos = eos;
    options.eos_count = 1;
    limits.max_logits = limits.max_logits > 0 ? limits.max_logits : limits.max_seqs;
    b->limits = limits;
    b->speculate = options.speculate;
    b->chunk = options.chunk > 0 ? options.chunk : limits.max_rows;
    b->cells = check_calloc((size_t)limits.kv_blocks * KV_BLOCK, sizeof *b->cells);
    b->last_started = b->first_index = -1;
    assert_int_equal(sched_create(&limits, &options, &b->sched, &err), OK);
    assert_int_equal(step_init(&b->step, &limits, 64, &err), OK);
    return b;
}

static struct bench *bench_of(struct engine_limits limits, int32_t chunk)
{
    return bench_with(limits, (struct sched_options){.chunk = chunk});
}

static void bench_destroy(struct bench *b)
{
    for (int32_t i = 0; i < b->count; i++)
        free(b->clients[i].tokens);
    sched_destroy(b->sched);
    step_fini(&b->step);
    free(b->cells);
    free(b);
}

static struct client *submit(struct bench *b, struct client with)
{
    struct client *c = &b->clients[b->count];
    *c = with;
    c->index = b->count++;
    c->known = c->prompt_len + c->answered;
    c->logits_next = c->all_logits && c->answered == 0 ? 0 : c->known - 1;
    c->no_logits = c->no_logits && !c->all_logits;
    c->tokens = check_calloc((size_t)(c->prompt_len + c->max_tokens), sizeof *c->tokens);
    run_alone(c);
    struct request r = {.prompt = c->tokens,
                        .prompt_len = c->prompt_len,
                        .max_tokens = c->max_tokens,
                        .answer = c->tokens + c->prompt_len,
                        .answer_len = c->answered,
                        .ignore_eos = c->ignore_eos,
                        .all_logits = c->all_logits,
                        .sampling = {.top_p = 1.0f, .seed = (uint64_t)c->index},
                        .shaping = {.presence_penalty = c->history ? 1.0f : 0.0f},
                        .thinking = c->thinking,
                        .tenant = c->tenant,
                        .prefix_domain = c->domain,
                        .priority = c->priority,
                        .deadline_ns = c->deadline_ns,
                        .on_token = on_token,
                        .on_logits = c->no_logits ? NULL : on_logits,
                        .on_start = on_start,
                        .on_share = on_share,
                        .user = c};
    struct error err;
    if (sched_submit(b->sched, &r, &c->id, &err) != OK)
        fail_msg("%s", err.msg);
    return c;
}

/* One sequence of a step, which its seed names: tokens that its client has, in the right place. */
static struct client *check_seq(struct bench *b, const struct step_seq *q, const int32_t *tokens)
{
    struct client *c = &b->clients[q->sampling.seed];
    assert_true(c < b->clients + b->count && c->finishes == 0 && c->starts == 1);
    bool guesses = q->draw > 1;
    assert_in_range(q->count, 1, guesses ? 1 + b->speculate : b->chunk);
    for (int32_t i = 0; i < q->count; i++)
        assert_true(q->pos + i < c->known ? tokens[i] == c->tokens[q->pos + i]
                                          : (tokens[i] >= 0) == guesses);
    if (guesses)
        assert_true(q->draw == q->count && q->pos == c->known - 1 && c->no_logits);
    else
        assert_true(q->pos + q->count <= c->known + (b->flying > 0 && !c->history));
    assert_true(q->pos + q->count < c->prompt_len + c->max_tokens || c->max_tokens == 0);
    if (c->index > b->last_started)
        b->last_started = c->index;
    c->rows += q->count;
    c->fed = q->pos + q->count;
    return c;
}

/* A presence penalty of 1 for each token of the answer so far, and nothing else. */
static void check_edits(const struct client *c, const struct step_seq *q, const struct draw *d)
{
    assert_int_equal(d->edits, q->edits);
    for (int32_t i = 0; i < d->edits; i++)
        assert_true(d->edit[i].add == -1.0f && d->edit[i].repeated == 0);
    int32_t expected = 0;
    for (int32_t i = c->prompt_len; i < c->known && c->history; i++) {
        bool again = false, there = false;
        for (int32_t k = c->prompt_len; k < i; k++)
            again = again || c->tokens[k] == c->tokens[i];
        for (int32_t k = 0; k < d->edits; k++)
            there = there || d->edit[k].id == c->tokens[i];
        assert_true(there);
        expected += !again;
    }
    assert_int_equal(d->edits, expected);
}

/* Copies of what the step says, as it is made anew before it has run. */
static struct flown copy_step(struct bench *b, const struct batch *batch)
{
    size_t rows = (size_t)batch->rows;
    size_t tables = (size_t)b->limits.max_seqs * (size_t)b->step.table;
    struct flown f = {.seqs = b->step.header.seqs, .logits = batch->logits, .draws = batch->draws};
    f.tokens = check_calloc(rows, sizeof *f.tokens);
    f.pos = check_calloc(rows, sizeof *f.pos);
    f.seq = check_calloc(rows, sizeof *f.seq);
    f.wanted = check_calloc(rows, sizeof *f.wanted);
    f.tables = check_calloc(tables, sizeof *f.tables);
    memcpy(f.tokens, batch->token, rows * sizeof *f.tokens);
    memcpy(f.pos, batch->pos, rows * sizeof *f.pos);
    memcpy(f.tables, b->step.tables, tables * sizeof *f.tables);
    memcpy(f.parts, b->step.seqs, (size_t)f.seqs * sizeof f.parts[0]);
    for (int32_t i = 0; i < batch->logits; i++)
        f.wanted[batch->logit_row[i]] = true;
    return f;
}

static void free_flown(struct flown *f)
{
    free(f->tokens);
    free(f->pos);
    free(f->seq);
    free(f->wanted);
    free(f->tables);
    free(f->wipes);
}

static void wipe_cells(struct bench *b, const int32_t *blocks, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        assert_in_range(blocks[i], 0, b->limits.kv_blocks - 1);
        memset(b->cells + blocks[i] * KV_BLOCK, 0, KV_BLOCK * sizeof *b->cells);
    }
}

/* After the last step: what no cached block holds is zero. */
static void check_wiped(struct bench *b)
{
    int32_t used = 0;
    step_begin(&b->step, STEP_PARK, 0, false);
    sched_wipe(b->sched, &b->step);
    wipe_cells(b, b->step.wipes, b->step.header.wipes);
    for (int32_t i = 0; i < b->limits.kv_blocks; i++) {
        bool zero = true;
        for (int32_t j = 0; j < KV_BLOCK; j++)
            zero = zero && b->cells[i * KV_BLOCK + j].layer[0] == 0 &&
                   b->cells[i * KV_BLOCK + j].layer[1] == 0;
        used += !zero;
    }
    assert_true(used <= sched_cached_blocks(b->sched));
}

/* The first of those that have begun, by class and age, gets on, if not in every step then in few:
 * where all are of one tenant, as otherwise it may wait for another's turn. */
static void check_first(struct bench *b)
{
    struct client *first = NULL;
    for (int32_t i = 0; i < b->count; i++) {
        struct client *c = &b->clients[i];
        if (c->starts == 1 && c->finishes == 0 && (!first || c->priority < first->priority))
            first = c;
    }
    if (!first || !b->one_tenant)
        return;
    bool on = first->index != b->first_index || first->rows > b->first_fed;
    b->first_steps = on ? 0 : b->first_steps + 1;
    b->first_index = first->index;
    b->first_fed = first->rows;
    assert_true(b->first_steps < 12);
}

/* Makes the next step; false: there is none. */
static bool begin_step(struct bench *b)
{
    bool next = sched_next(b->sched, &b->step, 1000000, b->now_ns++);
    sched_check(b->sched);
    if (!next)
        return false;
    struct batch batch;
    step_batch(&b->step, &batch);
    assert_in_range(batch.rows, 1, b->limits.max_rows);
    assert_true(batch.logits <= b->limits.max_logits);
    struct flown f = copy_step(b, &batch);
    f.wipe_count = b->step.header.wipes;
    f.wipes = check_calloc((size_t)f.wipe_count + 1, sizeof *f.wipes);
    memcpy(f.wipes, b->step.wipes, (size_t)f.wipe_count * sizeof *f.wipes);
    for (int32_t i = 0, row = 0, draw = 0; i < f.seqs; i++) {
        f.clients[i] = check_seq(b, &f.parts[i], f.tokens + row);
        if (f.parts[i].draw)
            check_edits(f.clients[i], &f.parts[i], &batch.draw[draw]);
        draw += f.parts[i].draw;
        for (int32_t j = 0; j < f.parts[i].count; j++)
            f.seq[row++] = i;
    }
    b->flights[b->flying++] = f;
    return true;
}

static struct cell *cell_of(struct bench *b, const struct flown *f, int32_t row, int32_t pos)
{
    const int32_t *table = f->tables + f->parts[f->seq[row]].slot * b->step.table;
    int32_t block = table[pos / KV_BLOCK];
    assert_in_range(block, 0, b->limits.kv_blocks - 1);
    return &b->cells[block * KV_BLOCK + pos % KV_BLOCK];
}

/* Both layers of a step over the cache, in `read` what each row has read of the last. */
static void run_model(struct bench *b, const struct flown *f, int32_t rows, uint64_t *read)
{
    for (int layer = 0; layer < 2; layer++) {
        for (int32_t i = 0; i < rows; i++) /* all write */
            cell_of(b, f, i, f->pos[i])->layer[layer] =
                layer ? read[i] : fold((uint64_t)f->tokens[i], (uint64_t)f->pos[i]);
        for (int32_t i = 0; i < rows; i++) { /* before any reads */
            read[i] = 0;
            for (int32_t k = 0; k <= f->pos[i]; k++)
                read[i] = fold(read[i], cell_of(b, f, i, k)->layer[layer]);
        }
    }
}

/* The oldest step has run. */
static void end_step(struct bench *b)
{
    struct flown f = b->flights[0];
    int32_t drawn[16 * REQUESTS], rows = 0, draws = 0, out = 0;
    for (int32_t i = 0; i < f.seqs; i++)
        rows += f.parts[i].count;
    uint64_t *read = check_calloc((size_t)rows, sizeof *read);
    float *logits = check_calloc((size_t)f.logits * VOCAB + 1, sizeof *logits);
    wipe_cells(b, f.wipes, f.wipe_count);
    run_model(b, &f, rows, read);
    for (int32_t i = 0, row = 0; i < f.seqs; i++) {
        const struct step_seq *q = &f.parts[i];
        for (int32_t j = 0; j < q->count; j++, row++) {
            if (q->draw && j >= q->count - q->draw)
                drawn[draws++] = token_of(f.clients[i], f.pos[row] + 1, read[row]);
            if (!f.wanted[row])
                continue;
            logits[out * VOCAB] = (float)f.clients[i]->index;
            logits[out++ * VOCAB + 1] = (float)f.pos[row];
        }
    }
    b->flights[0] = b->flights[1];
    b->flying--;
    if (b->flying > 0) /* the next step finds in its places what this one has drawn */
        for (int32_t i = 0; i < b->step.header.rows; i++)
            if (b->flights[0].tokens[i] < 0)
                b->flights[0].tokens[i] = drawn[-1 - b->flights[0].tokens[i]];
    int64_t step_ns = 1000000 + 10000 * (int64_t)f.seqs * f.seqs; /* no mean of any others */
    bool alive = false;
    for (int32_t i = 0; i < f.seqs; i++)
        alive = alive || f.clients[i]->finishes == 0;
    bench_shared = 0; /* all of a step is theirs, unless all whom it fed have ended meanwhile */
    sched_done(b->sched, drawn, logits, VOCAB, VOCAB, step_ns);
    double stepped = alive ? (double)step_ns * 1e-9 : 0;
    assert_true(bench_shared > stepped - 1e-9 && bench_shared < stepped + 1e-9);
    sched_check(b->sched);
    check_first(b);
    free(logits);
    free(read);
    free_flown(&f);
}

static bool run_step(struct bench *b)
{
    bool next = begin_step(b);
    if (!next && b->flying == 0)
        return false;
    if (b->flying > (b->ahead && next ? 1 : 0))
        end_step(b);
    return true;
}

static void run_out(struct bench *b)
{
    while (run_step(b))
        continue;
}

#endif
