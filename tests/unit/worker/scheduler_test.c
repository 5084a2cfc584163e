/* The scheduler: random workloads, whose answers are held against each request's alone, and one
 * case after the other. */
#include "tests/unit/worker/scheduler_bench.h"

/* A thought that ends by `count` tokens, one of them CLOSE. */
static struct thinking thinking_of(bool inside, int32_t most, int32_t count)
{
    struct thinking t = {
        .most = most, .count = count, .inside = inside, .open = OPEN, .close = CLOSE};
    for (int32_t i = 0; i < count; i++)
        t.ids[i] = i == count / 2 ? CLOSE : END_FIRST + i % 4;
    return t;
}

static struct client random_client(uint64_t *rng, const struct bench *b)
{
    int32_t prompt = random_int(rng, 0, 3) ? random_int(rng, 1, 200) : random_int(rng, 1, CONTEXT);
    int32_t most = CONTEXT - prompt < 90 ? CONTEXT - prompt : 90;
    int32_t tenant = b->one_tenant ? 0 : random_int(rng, 0, 2);
    int32_t max_tokens = random_int(rng, 0, most);
    bool resumed = max_tokens > 0 && random_int(rng, 0, 4) == 0;
    int32_t answered = resumed ? random_int(rng, 0, max_tokens - 1) : 0;
    bool thinks = max_tokens > 0 && random_int(rng, 0, 1) == 0;
    int32_t thought = random_int(rng, 0, max_tokens);
    struct thinking t = thinking_of(random_int(rng, 0, 1), thought > 0 ? thought - 1 : 0,
                                    thinks ? random_int(rng, 1, MOST_END) : 0);
    return (struct client){
        .thinking = t,
        .close_at = thinks && random_int(rng, 0, 2) == 0 ? random_int(rng, 1, thought + 12) : 0,
        .prompt_len = prompt,
        .max_tokens = max_tokens,
        .answered = answered,
        .eos_at = random_int(rng, 0, 3) ? 0 : answered + random_int(rng, 1, 30),
        .all_logits = random_int(rng, 0, 6) == 0,
        .history = random_int(rng, 0, 6) == 0,
        .no_logits = random_int(rng, 0, 3) != 0,
        .repeats = random_int(rng, 0, 2) ? random_int(rng, 1, 12) : 0,
        .text = random_int(rng, 0, 2),
        .shared = random_int(rng, 0, prompt),
        .tenant = (uint64_t)tenant,
        .domain = (uint64_t)tenant / 2,
        .priority = random_int(rng, 0, 3) ? 0 : random_int(rng, -1, 1),
        .deadline_ns = random_int(rng, 0, 9) ? 0 : b->now_ns + random_int(rng, 0, 60)};
}

static void check_ended(const struct client *c)
{
    assert_int_equal(c->finishes, 1);
    assert_int_equal(c->cancelled, c->finish == FINISH_CANCELLED);
    if (c->cancelled || c->finish == FINISH_DEADLINE) {
        assert_true(c->cancelled || c->deadline_ns > 0);
        return;
    }
    bool stopped = c->eos_at > 0 && c->eos_at <= c->max_tokens &&
                   c->tokens[c->prompt_len + c->eos_at - 1] == EOS;
    assert_int_equal(c->finish, stopped ? FINISH_STOP : FINISH_LENGTH);
    assert_int_equal(c->known - c->prompt_len, stopped ? c->eos_at : c->max_tokens);
    if (c->no_logits)
        return;
    assert_int_equal(c->logits_next, c->max_tokens == 0 ? c->known : c->known - 1);
}

/* All is told, nothing is held; what the prefix cache keeps counts as free. */
static void check_end(struct bench *b)
{
    assert_int_equal(sched_running(b->sched), 0);
    assert_int_equal(sched_waiting(b->sched), 0);
    assert_int_equal(sched_free_blocks(b->sched), b->limits.kv_blocks);
    uint64_t rows = 0, found = 0;
    for (int32_t i = 0; i < b->count; i++) {
        check_ended(&b->clients[i]);
        rows += (uint64_t)b->clients[i].rows;
        found += (uint64_t)b->clients[i].cached;
    }
    struct sched_stats stats = sched_stats(b->sched);
    assert_int_equal(stats.prompt_rows + stats.decode_rows, rows);
    assert_int_equal(stats.prefix_found, found);
    assert_true(stats.prefix_found <= stats.prefix_asked);
}

static void cancel(struct bench *b, int32_t index)
{
    struct client *c = &b->clients[index];
    bool alive = c->finishes == 0;
    assert_int_equal(sched_cancel(b->sched, c->id), alive);
    c->cancelled = c->cancelled || alive;
    assert_int_equal(c->finishes, 1);
    sched_check(b->sched);
}

static struct bench *random_bench(uint64_t *rng, int32_t speculate, bool wipe)
{
    struct engine_limits limits = {.max_seqs = random_int(rng, 1, 9), .context = CONTEXT};
    limits.max_rows = limits.max_seqs + random_int(rng, 0, 100);
    limits.max_logits = random_int(rng, 0, 2) ? limits.max_seqs * (1 + speculate)
                                              : random_int(rng, 1, 5);
    limits.kv_blocks = random_int(rng, 7, 25);
    return bench_with(
        limits, (struct sched_options){.chunk = random_int(rng, 0, 1) ? random_int(rng, 1, 90) : 0,
                                       .speculate = speculate,
                                       .wipe = wipe,
                                       .no_prefix_cache = random_int(rng, 0, 4) == 0});
}

static struct sched_stats run_workload(uint64_t seed, bool ahead, int32_t speculate)
{
    uint64_t rng = seed;
    bool wipe = seed % 3 != 0;
    struct bench *b = random_bench(&rng, speculate, wipe);
    bool more = true;
    b->ahead = ahead;
    b->one_tenant = seed % 2 == 0;
    for (int step = 0; more || b->count < REQUESTS; step++) {
        while (b->count < REQUESTS && random_int(&rng, 0, 2))
            submit(b, random_client(&rng, b));
        if (b->count > 0 && random_int(&rng, 0, 19) == 0)
            cancel(b, random_int(&rng, 0, b->count - 1));
        more = run_step(b);
        assert_true(sched_running(b->sched) <= b->limits.max_seqs);
        assert_true(step < 100000);
    }
    check_end(b);
    if (wipe)
        check_wiped(b);
    struct sched_stats stats = sched_stats(b->sched);
    bench_destroy(b);
    return stats;
}

/* Enough of everything must have happened for the tests to mean something. */
static void run_workloads(bool ahead, bool speculate)
{
    struct sched_stats sum = {0};
    for (uint64_t seed = 1; seed <= 120; seed++) {
        struct sched_stats s = run_workload(seed, ahead, speculate ? 1 + (int32_t)(seed % 15) : 0);
        sum.preempted += s.preempted;
        sum.prefix_found += s.prefix_found;
        sum.evicted += s.evicted;
        sum.guessed += s.guessed;
        sum.guessed_right += s.guessed_right;
    }
    fprintf(
        stderr,
        "%llu preemptions, %llu tokens found, %llu blocks evicted, %llu of %llu guesses right\n",
        (unsigned long long)sum.preempted, (unsigned long long)sum.prefix_found,
        (unsigned long long)sum.evicted, (unsigned long long)sum.guessed_right,
        (unsigned long long)sum.guessed);
    assert_true(!speculate || (sum.guessed_right > 10000 && sum.guessed > sum.guessed_right));
    assert_true(sum.preempted > 200 && sum.prefix_found > 20000 && sum.evicted > 1000);
}

static void random_workloads_draw_what_each_draws_alone(void **state)
{
    (void)state;
    run_workloads(false, false);
}

/* Each step made while the one before is under way. */
static void random_workloads_of_steps_under_way(void **state)
{
    (void)state;
    run_workloads(true, false);
}

/* Tokens guessed ahead, in both ways. */
static void random_workloads_with_guesses(void **state)
{
    (void)state;
    run_workloads(false, true);
    run_workloads(true, true);
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
    run_out(b);
    check_end(b);
    bench_destroy(b);
}

/* Eight decode, rows are for eight: a fourth of them are the prompt's while it lasts, and all of
 * the eight take their turn. */
static void prompts_go_on_while_decoding_fills_steps(void **state)
{
    (void)state;
    struct engine_limits limits = {.max_rows = 8, .max_seqs = 8, .context = 400, .kv_blocks = 80};
    struct bench *b = bench_of(limits, 0);
    for (int i = 0; i < 7; i++)
        submit(b, (struct client){.prompt_len = 1, .max_tokens = 300, .ignore_eos = true});
    for (int i = 0; i < 3; i++)
        run_step(b);
    struct client *last = submit(b, (struct client){.prompt_len = 40, .max_tokens = 1});
    int32_t before = b->clients[0].known, least = INT32_MAX, most = 0;
    for (int i = 0; i < 20; i++) {
        run_step(b);
        assert_int_equal(b->step.header.rows, 8);
        assert_int_equal(last->fed, 2 * (i + 1));
    }
    assert_int_equal(last->finishes, 1);
    for (int i = 0; i < 7; i++) {
        least = b->clients[i].known < least ? b->clients[i].known : least;
        most = b->clients[i].known > most ? b->clients[i].known : most;
    }
    assert_true(most - least <= 1 && least >= before + 16); /* 20 steps of 6 rows among 7 */
    run_out(b);
    check_end(b);
    bench_destroy(b);
}

/* The second needs more blocks than are left: the third, which would fit, does not overtake it. */
static void nobody_overtakes(void **state)
{
    (void)state;
    struct engine_limits limits = {.max_rows = 400, .max_seqs = 4, .context = 400, .kv_blocks = 6};
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
    run_out(b);
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
    run_out(b);
    check_end(b);
    bench_destroy(b);
}

/* Two that outgrow the pool together: the newer gives way and waits, and both draw what they draw
 * alone. */
static void the_newer_gives_way(void **state)
{
    (void)state;
    struct engine_limits limits = {.max_rows = 400, .max_seqs = 4, .context = 400, .kv_blocks = 6};
    struct bench *b = bench_of(limits, 0);
    submit(b, (struct client){.prompt_len = 60, .max_tokens = 250}); /* 5 blocks */
    submit(b, (struct client){.prompt_len = 50, .max_tokens = 250});
    while (sched_stats(b->sched).preempted == 0)
        assert_true(run_step(b));
    assert_int_equal(sched_waiting(b->sched), 1);
    assert_int_equal(b->clients[0].finishes, 0);
    while (b->clients[0].finishes == 0)
        run_step(b);
    assert_int_equal(b->clients[1].finishes, 0);
    run_out(b);
    check_end(b);
    assert_int_equal(sched_stats(b->sched).preempted, 1);
    bench_destroy(b);
}

/* One slot, and a request of each class: an earlier class takes it from a later one. */
static void an_earlier_class_goes_before(void **state)
{
    (void)state;
    struct engine_limits limits = {.max_rows = 64, .max_seqs = 1, .context = 400, .kv_blocks = 7};
    struct bench *b = bench_of(limits, 0);
    for (int i = 0; i < 4; i++)
        submit(b, (struct client){.prompt_len = 20, .max_tokens = 9, .priority = i < 2 ? 1 : 0});
    run_step(b);
    run_step(b);
    assert_int_equal(b->clients[2].known, 22);
    assert_int_equal(b->clients[0].starts, 0);
    submit(b, (struct client){.prompt_len = 20, .max_tokens = 9, .priority = -1});
    run_step(b);
    assert_int_equal(b->clients[4].known, 21);
    for (int i = 0; i < 4; i++)
        assert_int_equal(b->clients[i].finishes, 0);
    while (b->clients[4].finishes == 0)
        run_step(b);
    run_step(b);
    assert_int_equal(b->clients[2].known, 23); /* where it was */
    while (b->clients[3].finishes == 0)
        run_step(b);
    assert_int_equal(b->clients[2].finishes, 1);
    assert_int_equal(b->clients[0].starts, 0);
    run_out(b);
    check_end(b);
    bench_destroy(b);
}

/* A tenant with fifty requests and one with three: the three need not wait for the fifty. */
static void tenants_get_equal_shares(void **state)
{
    (void)state;
    struct engine_limits limits = {.max_rows = 64, .max_seqs = 2, .context = 400, .kv_blocks = 14};
    struct bench *b = bench_of(limits, 0);
    for (int i = 0; i < 50; i++)
        submit(b, (struct client){.prompt_len = 20, .max_tokens = 5, .tenant = 1});
    for (int i = 0; i < 10; i++)
        run_step(b);
    for (int i = 0; i < 3; i++)
        submit(b, (struct client){.prompt_len = 20, .max_tokens = 5, .tenant = 2});
    while (b->clients[52].finishes == 0)
        run_step(b);
    int32_t served = 0;
    for (int i = 0; i < 50; i++)
        served += b->clients[i].finishes;
    assert_true(served < 12);
    run_out(b);
    check_end(b);
    bench_destroy(b);
}

/* A burst with one beginning: all but the first find it while that one is still being fed; another
 * domain finds nothing, and neither does whoever wants the logits of every row. */
static void a_burst_shares_its_beginning(void **state)
{
    (void)state;
    struct engine_limits limits = {.max_rows = 400, .max_seqs = 9, .context = 400, .kv_blocks = 60};
    struct bench *b = bench_of(limits, 0);
    const struct client one = {.prompt_len = 200, .max_tokens = 5, .shared = 199, .domain = 3};
    struct client other = one, all = one;
    other.domain = 4;
    all.all_logits = true;
    for (int i = 0; i < 4; i++)
        submit(b, one);
    submit(b, other);
    submit(b, all);
    run_step(b);
    for (int i = 0; i < 4; i++)
        assert_int_equal(b->clients[i].cached, i > 0 ? 192 : 0);
    run_out(b);
    assert_int_equal(b->clients[4].cached, 0);
    assert_int_equal(b->clients[5].cached, 0);
    submit(b, one); /* who wanted all its prompt rows gets none of them from the cache; this does */
    run_out(b);
    assert_int_equal(b->clients[6].cached, 192);
    check_end(b);
    assert_true(sched_cached_blocks(b->sched) >= 6);
    bench_destroy(b);
}

static void deadlines_end_what_waits_and_what_runs(void **state)
{
    (void)state;
    struct engine_limits limits = {.max_rows = 64, .max_seqs = 1, .context = 400, .kv_blocks = 7};
    struct bench *b = bench_of(limits, 0);
    submit(b, (struct client){.prompt_len = 20, .max_tokens = 90, .deadline_ns = 10});
    submit(b, (struct client){.prompt_len = 20, .max_tokens = 9, .deadline_ns = 5});
    submit(b, (struct client){.prompt_len = 20, .max_tokens = 9});
    for (int i = 0; i < 5; i++)
        run_step(b);
    assert_int_equal(b->clients[1].finishes, 0);
    run_step(b);
    assert_int_equal(b->clients[1].finish, FINISH_DEADLINE);
    assert_int_equal(b->clients[1].starts, 0);
    assert_int_equal(b->clients[0].finishes, 0);
    for (int i = 0; i < 5; i++)
        run_step(b);
    assert_int_equal(b->clients[0].finish, FINISH_DEADLINE);
    assert_int_equal(b->clients[0].known, 30);
    run_out(b);
    assert_int_equal(b->clients[2].finish, FINISH_LENGTH);
    check_end(b);
    bench_destroy(b);
}

/* More than a step may end for their deadline: the rest in the next. */
static void deadlines_a_step_are_bounded(void **state)
{
    (void)state;
    struct engine_limits limits = {.max_rows = 64, .max_seqs = 2, .context = 400, .kv_blocks = 7};
    struct bench *b = bench_of(limits, 0);
    for (int i = 0; i < 5; i++)
        submit(b, (struct client){.prompt_len = 20, .max_tokens = 9, .deadline_ns = 1});
    b->now_ns = 2;
    for (int step = 1; step <= 3; step++) {
        int32_t ended = 0;
        run_step(b);
        for (int i = 0; i < 5; i++)
            ended += b->clients[i].finish == FINISH_DEADLINE;
        assert_int_equal(ended, step < 3 ? 2 * step : 5);
    }
    run_out(b);
    check_end(b);
    bench_destroy(b);
}

/* Of a step that takes so long and 10 us a row of a prompt: the rows beside one that decodes, with
 * a bound of 5 ms. */
static int32_t rows_beside(int64_t step_ns)
{
    struct engine_limits limits = {
        .max_rows = 2000, .max_seqs = 4, .context = 8000, .kv_blocks = 300};
    struct bench *b = bench_with(limits, (struct sched_options){.stall_ms = 5});
    int32_t drawn[] = {FIRST_TOKEN, FIRST_TOKEN}, most = 0;
    struct client quiet = {.prompt_len = 10, .max_tokens = 90};
    struct client *c = submit(b, quiet);
    for (int i = 0; i < 36; i++) {
        assert_true(sched_next(b->sched, &b->step, 1000000, 0));
        int32_t rows = b->step.header.rows - 1;
        drawn[0] = c->tokens[c->known];
        most = i > 26 && rows > most ? rows : most;
        sched_done(b->sched, drawn, NULL, 0, 0, step_ns + 10000 * (int64_t)rows);
        if (i == 20) {
            struct client large = quiet;
            large.prompt_len = 7900;
            submit(b, large);
        }
    }
    bench_destroy(b);
    return most;
}

/* Steps take 2 ms, and 10 us a row of a prompt: who decodes beside one pays as if it were not
 * there, and the prompt what it adds. */
static void a_prompt_pays_what_it_adds(void **state)
{
    (void)state;
    struct engine_limits limits = {
        .max_rows = 2000, .max_seqs = 4, .context = 8000, .kv_blocks = 300};
    struct bench *b = bench_with(limits, (struct sched_options){.chunk = 50});
    struct client quiet = {.prompt_len = 10, .max_tokens = 90}, large = quiet;
    struct client *c = submit(b, quiet), *other = NULL;
    int32_t drawn[] = {FIRST_TOKEN, FIRST_TOKEN}, mixed = 0;
    large.prompt_len = 6000;
    for (int i = 0; i < 80; i++) {
        assert_true(sched_next(b->sched, &b->step, 1000000, 0));
        int32_t rows = b->step.header.rows - 1;
        drawn[0] = c->tokens[c->known];
        sched_done(b->sched, drawn, NULL, 0, 0, 2000000 + 10000 * (int64_t)rows);
        if (i == 10)
            other = submit(b, large);
        if (i < 60 || !other) /* means are made */
            continue;
        assert_int_equal(rows, 50);
        mixed++;
        assert_true(c->share > 0.00199 && c->share < 0.00201);
        assert_true(other->share > 0.00049 && other->share < 0.00051);
    }
    assert_int_equal(mixed, 20);
    bench_destroy(b);
}

static void prompts_keep_to_the_stall(void **state)
{
    (void)state;
    assert_in_range(rows_beside(1000000), 480, 500);
    assert_in_range(rows_beside(16000000), 700, 800); /* half of a step is longer */
}

/* Whoever draws by the tokens before is fed a token only when it is known. */
static void history_waits_for_its_token(void **state)
{
    (void)state;
    struct engine_limits limits = {.max_rows = 64, .max_seqs = 2, .context = 400, .kv_blocks = 7};
    struct bench *b = bench_of(limits, 0);
    submit(b, (struct client){.prompt_len = 20, .max_tokens = 9, .history = true});
    b->ahead = true;
    assert_true(begin_step(b));
    assert_false(begin_step(b));
    end_step(b);
    assert_true(begin_step(b));
    assert_false(begin_step(b));
    end_step(b);
    run_out(b);
    check_end(b);
    bench_destroy(b);
}

/* Without guesses, with them, and where each step is made before the one before has run: what ends
 * the thought is fed at once where it may be guessed, and nothing behind it is fed too early. */
static void a_thought_ends_in_time(void **state)
{
    (void)state;
    const struct engine_limits limits = {
        .max_seqs = 6, .max_rows = 60, .max_logits = 60, .context = CONTEXT, .kv_blocks = 20};
    for (int trial = 0; trial < 3; trial++) {
        struct bench *b = bench_with(limits,
                                     (struct sched_options){.speculate = trial == 1 ? 8 : 0});
        b->ahead = trial == 2;
        struct client *in = submit(b, (struct client){.prompt_len = 70,
                                                      .max_tokens = 40,
                                                      .no_logits = true,
                                                      .thinking = thinking_of(true, 12, 8)});
        struct client *none = submit(b, (struct client){.prompt_len = 3,
                                                        .max_tokens = 40,
                                                        .no_logits = true,
                                                        .thinking = thinking_of(true, 0, 5)});
        struct client *over = submit(b, (struct client){.prompt_len = 9,
                                                        .max_tokens = 40,
                                                        .no_logits = true,
                                                        .close_at = 12,
                                                        .thinking = thinking_of(true, 12, 8)});
        struct client *cut = submit(b, (struct client){.prompt_len = 9,
                                                       .max_tokens = 15,
                                                       .no_logits = true,
                                                       .thinking = thinking_of(true, 12, 8)});
        run_out(b);
        check_end(b);
        assert_memory_equal(in->tokens + 70 + 12, in->thinking.ids, 8 * sizeof(int32_t));
        assert_memory_equal(none->tokens + 3, none->thinking.ids, 5 * sizeof(int32_t));
        assert_int_equal(over->tokens[9 + 11], CLOSE);
        assert_true(over->tokens[9 + 12] != over->thinking.ids[0]);
        assert_memory_equal(cut->tokens + 9 + 12, cut->thinking.ids, 3 * sizeof(int32_t));
        assert_true(trial != 1 || in->rows < 70 + 2 * 40);
        bench_destroy(b);
    }
}

static void a_stop_id_ends_a_request(void **state)
{
    (void)state;
    struct engine_limits limits = {.max_rows = 64, .max_seqs = 2, .context = 400, .kv_blocks = 7};
    struct bench *b = bench_of(limits, 0);
    struct client *c = submit(b, (struct client){.prompt_len = 5, .max_tokens = 9});
    cancel(b, 0);
    c->finishes = 0;
    int32_t stop = c->tokens[7];
    const struct request r = {.prompt = c->tokens,
                              .prompt_len = 5,
                              .max_tokens = 9,
                              .ignore_eos = true,
                              .sampling = {.top_p = 1.0f},
                              .shaping = {.stop_ids = &stop, .stop_id_count = 1},
                              .on_token = on_token,
                              .user = c};
    struct error err;
    assert_int_equal(sched_submit(b->sched, &r, NULL, &err), OK);
    stop = 0; /* it was copied */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(c->finishes, 0);
        assert_true(sched_next(b->sched, &b->step, 1000000, 0));
        sched_done(b->sched, &c->tokens[c->known], NULL, 0, 0, 0);
    }
    assert_int_equal(c->finish, FINISH_STOP);
    assert_int_equal(c->known, 8);
    bench_destroy(b);
}

static void a_row_without_a_token_ends_its_request(void **state)
{
    (void)state;
    struct engine_limits limits = {.max_rows = 64, .max_seqs = 2, .context = 400, .kv_blocks = 7};
    struct bench *b = bench_of(limits, 0);
    struct client *c = submit(b, (struct client){.prompt_len = 20, .max_tokens = 4});
    assert_true(sched_next(b->sched, &b->step, 1000, 0));
    const int32_t drawn[] = {-1};
    sched_done(b->sched, drawn, NULL, 0, 0, 0);
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
    bad = r;
    bad.priority = 2;
    refuses(b->sched, bad, ERR_INVALID, "priority 2: expected -1, 0 or 1");
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
    cmocka_unit_test(random_workloads_draw_what_each_draws_alone),
    cmocka_unit_test(random_workloads_of_steps_under_way),
    cmocka_unit_test(random_workloads_with_guesses),
    cmocka_unit_test(decodes_go_on_while_prompts_come),
    cmocka_unit_test(prompts_go_on_while_decoding_fills_steps),
    cmocka_unit_test(nobody_overtakes),
    cmocka_unit_test(cancelled_in_the_queue),
    cmocka_unit_test(the_newer_gives_way),
    cmocka_unit_test(an_earlier_class_goes_before),
    cmocka_unit_test(tenants_get_equal_shares),
    cmocka_unit_test(a_burst_shares_its_beginning),
    cmocka_unit_test(deadlines_end_what_waits_and_what_runs),
    cmocka_unit_test(deadlines_a_step_are_bounded),
    cmocka_unit_test(a_prompt_pays_what_it_adds),
    cmocka_unit_test(prompts_keep_to_the_stall),
    cmocka_unit_test(history_waits_for_its_token),
    cmocka_unit_test(a_thought_ends_in_time),
    cmocka_unit_test(a_stop_id_ends_a_request),
    cmocka_unit_test(a_row_without_a_token_ends_its_request),
    cmocka_unit_test(refusals_say_the_numbers),
    cmocka_unit_test(a_full_queue_refuses),
};

UNIT_MAIN(tests)
