/*
 * The scheduler under random workloads. Every token says whose it is and where it stands
 * (token_of), so that each step can be checked against what its sequences must be fed next.
 */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "tests/unit/random.h"
#include "worker/scheduler.h"

enum { REQUESTS = 60, STRIDE = 4096, EOS = 7, VOCAB = 4 };

struct client {
    int32_t index;
    uint64_t id;
    int32_t prompt_len, max_tokens;
    int32_t eos_at; /* draws EOS as its n-th token; 0: never */
    bool ignore_eos, all_logits;
    bool started, cancelled;
    int32_t fed;     /* tokens that steps have taken */
    int32_t known;   /* prompt and drawn */
    int32_t pending; /* tokens that a step under way is to draw: 0 or 1 */
    int32_t flights; /* steps under way that feed it */
    int32_t logits_next;
    int32_t finishes;
    enum finish finish;
};

/* A step under way. */
struct flown {
    int32_t count, draws;
    struct client *clients[REQUESTS]; /* [count] */
    struct client *drawers[REQUESTS]; /* [draws] */
    float *logits;
};

struct bench {
    struct scheduler *sched;
    struct step step;
    struct engine_limits limits;
    int32_t chunk;
    struct client clients[REQUESTS];
    int32_t count;
    int32_t *owner; /* [kv_blocks]: client + 1 that a block serves, 0 none */
    int32_t last_started;
    bool ahead;              /* each step is made before the one before has run */
    struct flown flights[2]; /* the oldest first */
    int flying;
};

/* Token at `pos` of a client; EOS is none of them. */
static int32_t token_of(int32_t client, int32_t pos)
{
    return (client + 1) * STRIDE + pos;
}

static void on_token(void *user, int32_t token, enum finish finish)
{
    struct client *c = user;
    assert_int_equal(c->finishes, 0);
    if (finish == FINISH_CANCELLED || finish == FINISH_ERROR ||
        (finish == FINISH_LENGTH && c->max_tokens == 0))
        assert_int_equal(token, -1);
    else
        assert_true(token == EOS || token == token_of(c->index, c->known));
    if (token >= 0)
        c->known++;
    if (finish != FINISH_NONE)
        c->finishes++;
    c->finish = finish;
}

/* Rows come in order of positions, all of the prompt's where asked, else from its last on. */
static void on_logits(void *user, int32_t pos, const float *logits, int32_t vocab)
{
    struct client *c = user;
    assert_int_equal(vocab, VOCAB);
    assert_int_equal(pos, c->logits_next);
    assert_true(logits[0] == (float)c->index && logits[1] == (float)pos);
    c->logits_next++;
}

static struct bench *bench_of(struct engine_limits limits, int32_t chunk)
{
    static const int32_t eos[] = {EOS};
    struct bench *b = check_calloc(1, sizeof *b);
    struct error err;
    b->limits = limits;
    b->chunk = chunk > 0 ? chunk : limits.max_rows;
    b->owner = check_calloc((size_t)limits.kv_blocks, sizeof *b->owner);
    b->last_started = -1;
    assert_int_equal(sched_create(&limits, chunk, eos, 1, &b->sched, &err), OK);
    assert_int_equal(step_init(&b->step, &limits, &err), OK);
    return b;
}

static void bench_destroy(struct bench *b)
{
    sched_destroy(b->sched);
    step_fini(&b->step);
    free(b->owner);
    free(b);
}

static struct client *submit(struct bench *b, struct client with)
{
    struct client *c = &b->clients[b->count];
    *c = with;
    c->index = b->count++;
    c->known = c->prompt_len;
    c->logits_next = c->all_logits ? 0 : c->prompt_len - 1;
    int32_t *prompt = check_calloc((size_t)c->prompt_len, sizeof *prompt);
    for (int32_t i = 0; i < c->prompt_len; i++)
        prompt[i] = token_of(c->index, i);
    struct request r = {.prompt = prompt,
                        .prompt_len = c->prompt_len,
                        .max_tokens = c->max_tokens,
                        .ignore_eos = c->ignore_eos,
                        .all_logits = c->all_logits,
                        .sampling = {.top_p = 1.0f},
                        .on_token = on_token,
                        .on_logits = on_logits,
                        .user = c};
    struct error err;
    if (sched_submit(b->sched, &r, &c->id, &err) != OK)
        fail_msg("%s", err.msg);
    free(prompt); /* it was copied */
    return c;
}

/* Whose token it is: of what is not drawn yet, by its place among the draws under way. */
static struct client *owner_of(struct bench *b, int32_t token)
{
    if (token >= 0)
        return &b->clients[token / STRIDE - 1];
    assert_true(b->flying > 0);
    const struct flown *f = &b->flights[b->flying - 1];
    for (int32_t i = 0; i < f->draws; i++)
        if (step_drawn_token(i) == token)
            return f->drawers[i];
    fail_msg("token %d of %d draws", token, f->draws);
    return NULL;
}

/* One sequence of a step: the next tokens of its client, in blocks that no other holds. */
static struct client *check_seq(struct bench *b, const struct step_seq *q, const int32_t *tokens,
                                const int32_t *table)
{
    struct client *c = owner_of(b, tokens[0]);
    assert_true(c >= b->clients && c < b->clients + b->count && c->finishes == 0);
    int32_t known = c->known + c->pending;
    assert_int_equal(q->pos, c->fed);
    assert_true(q->count >= 1 && q->count <= b->chunk && c->fed + q->count <= known);
    for (int32_t i = 0; i < q->count; i++) {
        if (c->fed + i < c->known)
            assert_int_equal(tokens[i], token_of(c->index, c->fed + i));
        else
            assert_ptr_equal(owner_of(b, tokens[i]), c);
        int32_t block = table[(c->fed + i) / KV_BLOCK];
        assert_in_range(block, 0, b->limits.kv_blocks - 1);
        assert_true(b->owner[block] == 0 || b->owner[block] == c->index + 1);
        b->owner[block] = c->index + 1;
    }
    if (!c->started) { /* first come, first served */
        assert_true(c->index > b->last_started);
        b->last_started = c->index;
        c->started = true;
    }
    bool complete = c->fed + q->count == known;
    assert_int_equal(q->draw, complete && c->max_tokens > 0);
    assert_int_equal(q->logits, c->all_logits && c->fed < c->prompt_len ? STEP_LOGITS_ALL
                                : complete                              ? STEP_LOGITS_LAST
                                                                        : STEP_LOGITS_NONE);
    return c;
}

/* A sequence that has one token to go must be in every step, whatever prompts wait. */
static void check_decodes(const struct bench *b, const bool *in_step)
{
    for (int32_t i = 0; i < b->count; i++) {
        const struct client *c = &b->clients[i];
        bool last = c->known + c->pending == c->prompt_len + c->max_tokens && c->max_tokens > 0;
        if (c->finishes == 0 && c->fed > 0 && c->known + c->pending - c->fed == 1 && !last)
            assert_true(in_step[i]);
    }
}

static void release_blocks(struct bench *b)
{
    for (int32_t i = 0; i < b->limits.kv_blocks; i++)
        if (b->owner[i] > 0 && b->clients[b->owner[i] - 1].finishes > 0 &&
            b->clients[b->owner[i] - 1].flights == 0)
            b->owner[i] = 0;
}

/* Draws for the step: the client's next token, or EOS where it is due. */
static int32_t draw_for(const struct client *c)
{
    bool eos = c->eos_at > 0 && c->known - c->prompt_len + 1 == c->eos_at;
    return eos ? EOS : token_of(c->index, c->known);
}

/* Makes the next step; false: there is none. */
static bool begin_step(struct bench *b)
{
    if (!sched_next(b->sched, &b->step, 1000))
        return false;
    struct batch batch;
    struct flown f = {0};
    bool in_step[REQUESTS] = {false};
    const int32_t *tokens = b->step.tokens;
    f.logits = check_calloc((size_t)b->limits.max_rows * VOCAB, sizeof *f.logits);
    step_batch(&b->step, &batch);
    assert_in_range(batch.rows, 1, b->limits.max_rows);
    assert_int_equal(b->step.header.keep_logits, 1);
    for (int32_t i = 0, row = 0, out = 0; i < b->step.header.seqs; i++) {
        const struct step_seq *q = &b->step.seqs[i];
        struct client *c = check_seq(b, q, tokens, batch.block_table[row]);
        f.clients[f.count++] = c;
        in_step[c->index] = true;
        for (int32_t j = 0; j < q->count; j++, row++, tokens++) {
            if (out == batch.logits || batch.logit_row[out] != row)
                continue;
            f.logits[out * VOCAB] = (float)c->index;
            f.logits[out++ * VOCAB + 1] = (float)batch.pos[row];
        }
        if (q->draw)
            f.drawers[f.draws++] = c;
    }
    check_decodes(b, in_step);
    for (int32_t i = 0; i < f.count; i++) {
        f.clients[i]->fed += b->step.seqs[i].count;
        f.clients[i]->flights++;
        f.clients[i]->pending = b->step.seqs[i].draw;
    }
    b->flights[b->flying++] = f;
    return true;
}

/* The oldest step has run. */
static void end_step(struct bench *b)
{
    int32_t drawn[REQUESTS];
    struct flown f = b->flights[0];
    for (int32_t i = 0; i < f.draws; i++)
        drawn[i] = draw_for(f.drawers[i]);
    for (int32_t i = 0; i < f.count; i++)
        f.clients[i]->flights--;
    b->flights[0] = b->flights[1];
    b->flying--;
    for (int32_t i = 0; i < f.draws; i++) { /* what the next step draws is pending still */
        f.drawers[i]->pending = 0;
        for (int32_t k = 0; b->flying > 0 && k < b->flights[0].draws; k++)
            if (b->flights[0].drawers[k] == f.drawers[i])
                f.drawers[i]->pending = 1;
    }
    sched_done(b->sched, drawn, f.logits, VOCAB, VOCAB);
    release_blocks(b);
    free(f.logits);
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

static struct client random_client(uint64_t *rng, int32_t context)
{
    int32_t prompt = random_int(rng, 0, 3) ? random_int(rng, 1, 40) : random_int(rng, 1, context);
    int32_t most = context - prompt < 60 ? context - prompt : 60;
    return (struct client){.prompt_len = prompt,
                           .max_tokens = random_int(rng, 0, most),
                           .eos_at = random_int(rng, 0, 3) ? 0 : random_int(rng, 1, 30),
                           .all_logits = random_int(rng, 0, 4) == 0};
}

static void check_end(const struct bench *b)
{
    assert_int_equal(sched_running(b->sched), 0);
    assert_int_equal(sched_waiting(b->sched), 0);
    assert_int_equal(sched_free_blocks(b->sched), b->limits.kv_blocks);
    for (int32_t i = 0; i < b->count; i++) {
        const struct client *c = &b->clients[i];
        assert_int_equal(c->finishes, 1);
        assert_int_equal(c->cancelled, c->finish == FINISH_CANCELLED);
        if (c->cancelled)
            continue;
        bool stopped = c->eos_at > 0 && c->eos_at <= c->max_tokens;
        assert_int_equal(c->finish, stopped ? FINISH_STOP : FINISH_LENGTH);
        assert_int_equal(c->known - c->prompt_len, stopped ? c->eos_at : c->max_tokens);
        /* The last drawn token is never fed, unless nobody knew yet that it ends the sequence;
         * every other exactly once. */
        int32_t fed = c->max_tokens == 0 ? c->known : c->known - 1;
        bool unknown = b->ahead && stopped && c->eos_at < c->max_tokens;
        assert_int_equal(c->fed, unknown ? fed + 1 : fed);
        assert_int_equal(c->logits_next, fed);
    }
}

static void cancel(struct bench *b, int32_t index)
{
    struct client *c = &b->clients[index];
    bool alive = c->finishes == 0;
    assert_int_equal(sched_cancel(b->sched, c->id), alive);
    c->cancelled = c->cancelled || alive;
    assert_int_equal(c->finishes, 1);
    release_blocks(b);
}

static void run_workload(uint64_t seed, bool ahead)
{
    uint64_t rng = seed;
    struct engine_limits limits = {.max_seqs = random_int(&rng, 1, 9), .context = 400};
    limits.max_rows = limits.max_seqs + random_int(&rng, 0, 100);
    limits.kv_blocks = random_int(&rng, 7, 40);
    struct bench *b = bench_of(limits, random_int(&rng, 0, 1) ? random_int(&rng, 1, 50) : 0);
    bool more = true;
    b->ahead = ahead;
    for (int step = 0; more || b->count < REQUESTS; step++) {
        while (b->count < REQUESTS && random_int(&rng, 0, 2))
            submit(b, random_client(&rng, limits.context));
        if (b->count > 0 && random_int(&rng, 0, 9) == 0)
            cancel(b, random_int(&rng, 0, b->count - 1));
        more = run_step(b);
        assert_true(sched_running(b->sched) <= limits.max_seqs);
        assert_true(step < 100000);
    }
    check_end(b);
    bench_destroy(b);
}

static void random_workloads_end_with_all_blocks_free(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 150; seed++)
        run_workload(seed, false);
}

/* Each step made while the one before is under way. */
static void random_workloads_of_steps_under_way(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 150; seed++)
        run_workload(seed, true);
}

static void decodes_go_on_while_prompts_come(void **state)
{
    (void)state;
    struct engine_limits limits = {
        .max_rows = 16, .max_seqs = 8, .context = 2000, .kv_blocks = 200};
    struct bench *b = bench_of(limits, 0);
    struct client *first = submit(b, (struct client){.prompt_len = 3, .max_tokens = 50});
    run_step(b);
    assert_int_equal(first->known, 4);
    for (int i = 0; i < 6; i++)
        submit(b, (struct client){.prompt_len = 1000, .max_tokens = 1});
    for (int i = 1; i < 50; i++) {
        run_step(b);
        assert_int_equal(first->known, 4 + i);
        assert_int_equal(b->step.header.rows, 16);
    }
    assert_int_equal(first->finish, FINISH_LENGTH);
    while (run_step(b))
        continue;
    check_end(b);
    bench_destroy(b);
}

/* The second needs more blocks than are left: the third, which would fit, does not overtake it. */
static void nobody_overtakes(void **state)
{
    (void)state;
    struct engine_limits limits = {.max_rows = 64, .max_seqs = 4, .context = 400, .kv_blocks = 6};
    struct bench *b = bench_of(limits, 0);
    submit(b, (struct client){.prompt_len = 250, .max_tokens = 6}); /* 4 blocks */
    submit(b, (struct client){.prompt_len = 190, .max_tokens = 2}); /* 3 */
    submit(b, (struct client){.prompt_len = 5, .max_tokens = 1});   /* 1 */
    run_step(b);
    assert_int_equal(sched_running(b->sched), 1);
    assert_int_equal(sched_waiting(b->sched), 2);
    assert_int_equal(sched_free_blocks(b->sched), 2);
    while (b->clients[0].finishes == 0)
        run_step(b);
    run_step(b);
    assert_int_equal(sched_waiting(b->sched), 0);
    while (run_step(b))
        continue;
    check_end(b);
    bench_destroy(b);
}

static void cancelled_in_the_queue(void **state)
{
    (void)state;
    struct engine_limits limits = {.max_rows = 64, .max_seqs = 1, .context = 400, .kv_blocks = 7};
    struct bench *b = bench_of(limits, 0);
    for (int i = 0; i < 5; i++)
        submit(b, (struct client){.prompt_len = 20, .max_tokens = 4});
    run_step(b);
    cancel(b, 4); /* the last, a middle one, the first waiting, the running one */
    cancel(b, 2);
    cancel(b, 1);
    cancel(b, 0);
    assert_int_equal(sched_waiting(b->sched), 1);
    assert_false(sched_cancel(b->sched, 0));
    assert_false(sched_cancel(b->sched, 999));
    submit(b, (struct client){.prompt_len = 20, .max_tokens = 4});
    while (run_step(b))
        continue;
    check_end(b);
    bench_destroy(b);
}

static void a_row_without_a_token_ends_its_request(void **state)
{
    (void)state;
    struct engine_limits limits = {.max_rows = 64, .max_seqs = 2, .context = 400, .kv_blocks = 7};
    struct bench *b = bench_of(limits, 0);
    struct client *c = submit(b, (struct client){.prompt_len = 20, .max_tokens = 4});
    assert_true(sched_next(b->sched, &b->step, 1000));
    const int32_t drawn[] = {-1};
    sched_done(b->sched, drawn, NULL, 0, 0);
    assert_int_equal(c->finish, FINISH_ERROR);
    assert_int_equal(c->finishes, 1);
    assert_int_equal(sched_free_blocks(b->sched), 7);
    assert_int_equal(sched_running(b->sched), 0);
    bench_destroy(b);
}

static void refuses(struct scheduler *s, struct request r, enum status expected, const char *words)
{
    struct error err;
    uint64_t id = 0;
    assert_int_equal(sched_submit(s, &r, &id, &err), expected);
    if (!strstr(err.msg, words))
        fail_msg("expected \"%s\" in: %s", words, err.msg);
    assert_int_equal(sched_waiting(s), 0);
}

static void refusals_say_the_numbers(void **state)
{
    (void)state;
    struct engine_limits limits = {.max_rows = 64, .max_seqs = 2, .context = 1000, .kv_blocks = 7};
    struct bench *b = bench_of(limits, 0);
    int32_t prompt[8] = {0};
    struct request r = {.prompt = prompt, .prompt_len = 8, .max_tokens = 8};
    r.sampling.top_p = 1.0f;
    struct request bad = r;
    bad.prompt_len = 0;
    refuses(b->sched, bad, ERR_INVALID, "the prompt is empty");
    bad = r;
    bad.max_tokens = -1;
    refuses(b->sched, bad, ERR_INVALID, "max_tokens -1");
    bad.max_tokens = 993;
    refuses(b->sched, bad, ERR_LIMIT,
            "prompt of 8 tokens and max_tokens 993 exceed the context of 1000");
    bad.max_tokens = INT32_MAX;
    refuses(b->sched, bad, ERR_LIMIT, "2147483647 exceed the context of 1000");
    bad.max_tokens = 441;
    refuses(b->sched, bad, ERR_LIMIT, "449 tokens need 8 KV blocks, the cache has 7");
    bad = r;
    bad.sampling.top_p = 2.0f;
    refuses(b->sched, bad, ERR_INVALID, "top_p 2");
    bench_destroy(b);
}

static void a_full_queue_refuses(void **state)
{
    (void)state;
    struct engine_limits limits = {.max_rows = 64, .max_seqs = 2, .context = 1000, .kv_blocks = 7};
    struct bench *b = bench_of(limits, 0);
    const int32_t prompt[1] = {16};
    struct request r = {.prompt = prompt, .prompt_len = 1, .max_tokens = 1};
    r.sampling.top_p = 1.0f;
    struct error err;
    for (int i = 0; i < SCHED_MAX_WAITING; i++)
        assert_int_equal(sched_submit(b->sched, &r, NULL, &err), OK);
    assert_int_equal(sched_submit(b->sched, &r, NULL, &err), ERR_LIMIT);
    assert_non_null(strstr(err.msg, "65536 requests are waiting"));
    bench_destroy(b); /* with all of them in the queue: nothing may leak */
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(random_workloads_end_with_all_blocks_free),
    cmocka_unit_test(random_workloads_of_steps_under_way),
    cmocka_unit_test(decodes_go_on_while_prompts_come),
    cmocka_unit_test(nobody_overtakes),
    cmocka_unit_test(cancelled_in_the_queue),
    cmocka_unit_test(a_row_without_a_token_ends_its_request),
    cmocka_unit_test(refusals_say_the_numbers),
    cmocka_unit_test(a_full_queue_refuses),
};

UNIT_MAIN(tests)
