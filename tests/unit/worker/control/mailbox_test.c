/* The coordinator's messages, good and bad, up to what the engine thread takes out. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "worker/control/mailbox.h"

#include <math.h>
#include <pthread.h>

/* A plan that is right, and everything it points to. */
struct plan_parts {
    Witan__Cluster__V1__Range range;
    Witan__Cluster__V1__Slices slices;
    Witan__Cluster__V1__Layout layout;
    Witan__Cluster__V1__Limits limits;
    Witan__Cluster__V1__Plan plan;
    Witan__Cluster__V1__CoordinatorMessage message;
    char dir[5000];
};

static void plan_init(struct plan_parts *p)
{
    p->range = (Witan__Cluster__V1__Range)WITAN__CLUSTER__V1__RANGE__INIT;
    p->slices = (Witan__Cluster__V1__Slices)WITAN__CLUSTER__V1__SLICES__INIT;
    p->layout = (Witan__Cluster__V1__Layout)WITAN__CLUSTER__V1__LAYOUT__INIT;
    p->limits = (Witan__Cluster__V1__Limits)WITAN__CLUSTER__V1__LIMITS__INIT;
    p->plan = (Witan__Cluster__V1__Plan)WITAN__CLUSTER__V1__PLAN__INIT;
    p->message =
        (Witan__Cluster__V1__CoordinatorMessage)WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    snprintf(p->dir, sizeof p->dir, "/models/one");
    p->range.end = 4;
    p->slices.layers = &p->range;
    p->layout.pp = p->layout.tp = p->layout.ep = p->layout.w = 1;
    p->limits.max_rows = 8;
    p->limits.max_seqs = 2;
    p->limits.context = 64;
    p->plan.model_dir = p->dir;
    p->plan.epoch = 5;
    p->plan.layout = &p->layout;
    p->plan.limits = &p->limits;
    p->plan.slices = &p->slices;
    p->plan.heartbeat_ms = 200;
    p->message.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_PLAN;
    p->message.plan = &p->plan;
}

static struct mailbox *mailbox_with_plan(void)
{
    static struct plan_parts p;
    struct mailbox *m;
    struct error err;
    log_set_level(LOG_ERROR);
    plan_init(&p);
    assert_int_equal(mailbox_create(&m, &err), OK);
    assert_int_equal(mailbox_put(m, &p.message, &err), OK);
    return m;
}

static enum status put_submit(struct mailbox *m, uint64_t id, const Witan__Cluster__V1__Submit *s,
                              struct error *err)
{
    Witan__Cluster__V1__CoordinatorMessage message = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    Witan__Cluster__V1__Submit copy = *s;
    copy.request_id = id;
    message.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT;
    message.submit = &copy;
    return mailbox_put(m, &message, err);
}

static void put_cancel(struct mailbox *m, uint64_t id, uint64_t epoch)
{
    Witan__Cluster__V1__CoordinatorMessage message = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    Witan__Cluster__V1__Cancel c = WITAN__CLUSTER__V1__CANCEL__INIT;
    struct error err;
    c.request_id = id;
    c.epoch = epoch;
    message.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_CANCEL;
    message.cancel = &c;
    assert_int_equal(mailbox_put(m, &message, &err), OK);
}

static void put_wake(struct mailbox *m, uint64_t generation)
{
    Witan__Cluster__V1__CoordinatorMessage message = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    Witan__Cluster__V1__Wake w = WITAN__CLUSTER__V1__WAKE__INIT;
    struct error err;
    w.generation = generation;
    message.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_WAKE;
    message.wake = &w;
    assert_int_equal(mailbox_put(m, &message, &err), OK);
}

static void put_stop(struct mailbox *m)
{
    Witan__Cluster__V1__CoordinatorMessage message = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    Witan__Cluster__V1__Stop s = WITAN__CLUSTER__V1__STOP__INIT;
    struct error err;
    message.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_STOP;
    message.stop = &s;
    assert_int_equal(mailbox_put(m, &message, &err), OK);
}

static int32_t ids[1 << 20];
static Witan__Cluster__V1__Sampling sampling;

static Witan__Cluster__V1__Submit good_submit(void)
{
    Witan__Cluster__V1__Submit s = WITAN__CLUSTER__V1__SUBMIT__INIT;
    sampling = (Witan__Cluster__V1__Sampling)WITAN__CLUSTER__V1__SAMPLING__INIT;
    sampling.top_p = 1;
    s.epoch = 5;
    s.prompt = ids;
    s.n_prompt = 10;
    s.max_tokens = 7;
    s.sampling = &sampling;
    return s;
}

static void plans_name_the_cache(void **state)
{
    (void)state;
    static const struct {
        bool f32; /* all that releases before int8 said */
        int32_t sent;
        enum kv_dtype taken;
    } cases[] = {{false, 0, KV_BF16}, {true, 0, KV_F32}, {true, 1, KV_F32}, {false, 2, KV_INT8}};
    static struct plan_parts p;
    struct assignment a;
    struct error err;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        plan_init(&p);
        p.limits.kv_f32 = cases[i].f32;
        p.limits.kv_dtype = cases[i].sent;
        assert_int_equal(assignment_read(&p.plan, &a, &err), OK);
        assert_int_equal(a.limits.kv_dtype, cases[i].taken);
    }
}

static void bad_plans_name_the_field(void **state)
{
    (void)state;
    static struct plan_parts p;
    enum {
        NO_LAYOUT,
        ROWS,
        CONTEXT,
        THREADS,
        KV,
        HEARTBEAT,
        CHUNK,
        RANGE,
        NO_DIR,
        LONG_DIR,
        STALL,
        AHEAD,
        WEIGHTS,
        CASES
    };
    static const char *const words[CASES] = {
        [NO_LAYOUT] = "plan: layout",
        [ROWS] = "plan: limits.max_rows: expected 1 to 1048576, found -8",
        [CONTEXT] = "plan: limits.context: expected 1 to",
        [THREADS] = "plan: limits.threads",
        [KV] = "plan: limits.kv_dtype: expected 0 to 2, found 3",
        [HEARTBEAT] = "plan: heartbeat_ms: expected 50 to 60000, found 0",
        [CHUNK] = "plan: chunk",
        [RANGE] = "plan: slices.layers: expected a range, found [0, -1)",
        [STALL] = "plan: stall_ms: expected 0 to 3600000, found 4294967295",
        [AHEAD] = "plan: speculate: expected 0 to 15, found -1",
        [WEIGHTS] = "plan: weights: expected 0 to 2, found 3",
        [NO_DIR] = "plan: model_dir: expected a folder",
        [LONG_DIR] = "plan: model_dir: expected at most 4095 bytes, found 4999",
    };
    log_set_level(LOG_ERROR);
    for (int i = 0; i < CASES; i++) {
        struct mailbox *m;
        struct error err = {0}, again = {0};
        struct assignment a;
        plan_init(&p);
        assert_int_equal(mailbox_create(&m, &err), OK);
        p.plan.layout = i == NO_LAYOUT ? NULL : &p.layout;
        p.limits.max_rows = i == ROWS ? -8 : 8;
        p.limits.context = i == CONTEXT ? INT32_MAX : 64;
        p.limits.threads = i == THREADS ? -1 : 0;
        p.limits.kv_dtype = i == KV ? 3 : 0;
        p.plan.heartbeat_ms = i == HEARTBEAT ? 0 : 200;
        p.plan.stall_ms = i == STALL ? UINT32_MAX : 0;
        p.plan.speculate = i == AHEAD ? -1 : 0;
        p.plan.weights = i == WEIGHTS ? 3 : 0;
        p.plan.chunk = i == CHUNK ? INT32_MIN : 0;
        p.range.end = i == RANGE ? -1 : 4;
        if (i == NO_DIR)
            p.dir[0] = '\0';
        if (i == LONG_DIR)
            memset(p.dir, 'x', sizeof p.dir - 1);
        assert_int_equal(mailbox_put(m, &p.message, &err), ERR_INVALID);
        assert_non_null(strstr(err.msg, words[i]));
        assert_int_equal(mailbox_wait_plan(m, -1, &a, &again), ERR_INVALID);
        assert_string_equal(again.msg, err.msg);
        mailbox_destroy(m);
    }
}

/* Memory is planned from max_logits on both sides. */
static void a_plan_leaves_room_for_guesses(void **state)
{
    (void)state;
    static struct plan_parts p;
    static struct assignment a;
    struct mailbox *m;
    struct error err;
    const int32_t ahead[] = {0, 1, 2, 3, 9}, room[] = {2, 4, 6, 8, 8};
    for (size_t i = 0; i < sizeof ahead / sizeof *ahead; i++) {
        plan_init(&p);
        p.plan.stall_ms = 40;
        p.plan.no_prefix_cache = i % 2 == 0;
        p.plan.wipe = i % 2 == 1;
        p.plan.speculate = ahead[i];
        p.plan.weights = (int32_t)i % 3;
        assert_int_equal(mailbox_create(&m, &err), OK);
        assert_int_equal(mailbox_put(m, &p.message, &err), OK);
        assert_int_equal(mailbox_wait_plan(m, -1, &a, &err), OK);
        assert_int_equal(a.stall_ms, 40);
        assert_int_equal(a.speculate, ahead[i]);
        assert_int_equal(a.weights, i % 3);
        assert_int_equal(a.no_prefix_cache, i % 2 == 0);
        assert_int_equal(a.wipe, i % 2 == 1);
        assert_int_equal(a.limits.max_logits, room[i]);
        mailbox_destroy(m);
    }
}

/* What a rank that has loaded makes of the next coordinator's plan. */
static void plans_are_compared(void **state)
{
    (void)state;
    static struct plan_parts p;
    static struct assignment own, a;
    struct error err;
    plan_init(&p);
    assert_int_equal(assignment_read(&p.plan, &own, &err), OK);
    p.plan.epoch = 6; /* what may change */
    p.plan.model_name = (char *)"another";
    p.plan.heartbeat_ms = 300;
    p.plan.reattach_timeout_s = 9;
    assert_int_equal(assignment_read(&p.plan, &a, &err), OK);
    assert_int_equal(assignment_compare(&own, &a, &err), OK);
#define CHANGED(field, value, words)                                                               \
    do {                                                                                           \
        struct assignment *c = malloc(sizeof *c);                                                  \
        assert_non_null(c);                                                                        \
        *c = a;                                                                                    \
        c->field = value;                                                                          \
        assert_int_equal(assignment_compare(&own, c, &err), ERR_INVALID);                          \
        assert_string_equal(err.msg, "plan: " words ": the group starts again");                   \
        free(c);                                                                                   \
    } while (0)
#define SAYS ", and the coordinator now says "
    CHANGED(model_dir[8], '\0', "model_dir: this rank has loaded with /models/one" SAYS "/models/");
    CHANGED(layout.tp, 4, "layout.tp: this rank has loaded with 1" SAYS "4");
    CHANGED(limits.kv_dtype, KV_INT8, "limits.kv_dtype: this rank has loaded with 0" SAYS "2");
    CHANGED(speculate, 3, "speculate: this rank has loaded with 0" SAYS "3");
    CHANGED(no_prefix_cache, true, "no_prefix_cache: this rank has loaded with 0" SAYS "1");
    CHANGED(wipe, true, "wipe: this rank has loaded with 0" SAYS "1");
    CHANGED(slices.vocab.end, 7, "slices.vocab: this rank has loaded with [0, 0)" SAYS "[0, 7)");
    CHANGED(slices.stage, 1, "slices.stage: this rank has loaded with 0" SAYS "1");
    CHANGED(manifest.digest[0], 'a', "manifest.digest: this rank has loaded with none" SAYS "a");
#undef SAYS
#undef CHANGED
}

static void bad_submits_are_refused(void **state)
{
    (void)state;
    struct mailbox *m = mailbox_with_plan();
    struct error err = {0};
    struct command c;
    Witan__Cluster__V1__Submit s = good_submit();
    s.n_prompt = COUNT_OF(ids);
    assert_int_equal(put_submit(m, 1, &s, &err), ERR_LIMIT);
    assert_string_equal(err.msg, "prompt of 1048576 tokens exceeds the context of 64");
    s = good_submit();
    s.max_tokens = -1;
    assert_int_equal(put_submit(m, 1, &s, &err), ERR_INVALID);
    s = good_submit();
    s.epoch = 6;
    assert_int_equal(put_submit(m, 1, &s, &err), ERR_INVALID);
    assert_string_equal(err.msg, "epoch: expected 5 of the plan, found 6");
    s = good_submit();
    s.answer = ids, s.n_answer = 7;
    assert_int_equal(put_submit(m, 1, &s, &err), ERR_INVALID);
    assert_string_equal(err.msg, "answer: expected fewer tokens than max_tokens, 7, found 7");
    s = good_submit();
    for (s.prompt_told = -1; s.prompt_told <= 11; s.prompt_told += 12) {
        assert_int_equal(put_submit(m, 1, &s, &err), ERR_INVALID);
        assert_non_null(strstr(err.msg, "prompt_told: expected 0 to 10, found "));
    }
    s = good_submit();
    s.sampling = NULL;
    assert_int_equal(put_submit(m, 1, &s, &err), ERR_INVALID);
    float *const floats[] = {&sampling.temperature, &sampling.top_p, &sampling.min_p};
    for (size_t i = 0; i < COUNT_OF(floats); i++) {
        s = good_submit();
        *floats[i] = nanf("");
        assert_int_equal(put_submit(m, 1, &s, &err), ERR_INVALID);
        *floats[i] = INFINITY;
        assert_int_equal(put_submit(m, 1, &s, &err), ERR_INVALID);
    }
    assert_int_equal(mailbox_take(m, 0, &c, &err), MAIL_NONE);
    s = good_submit();
    assert_int_equal(put_submit(m, 8, &s, &err), OK);
    assert_int_equal(mailbox_take(m, 0, &c, &err), MAIL_COMMAND);
    assert_int_equal(c.key.request_id, 8);
    assert_int_equal(c.prompt_len, 10);
    command_fini(&c);
    mailbox_destroy(m);
}

/* Every field of how to draw and of what is wanted arrives, in memory of the command's own. */
static void submits_arrive_whole(void **state)
{
    (void)state;
    struct mailbox *m = mailbox_with_plan();
    struct error err;
    struct command c;
    int32_t bias_ids[] = {9, 4}, stop_ids[] = {6, 7, 8};
    float biases[] = {-100, 2.5f};
    Witan__Cluster__V1__LogprobsWanted some = WITAN__CLUSTER__V1__LOGPROBS_WANTED__INIT,
                                       most = some;
    Witan__Cluster__V1__Submit s = good_submit();
    most.top = 20;
    s.logprobs = &some;
    s.prompt_logprobs = &most;
    s.tenant = 3;
    s.prefix_domain = UINT64_MAX;
    s.priority = -1;
    s.deadline_ms = 60000;
    sampling.repetition_penalty = 1.5f;
    sampling.presence_penalty = -2;
    sampling.frequency_penalty = 0.5f;
    sampling.min_tokens = 5;
    sampling.bias_ids = bias_ids, sampling.n_bias_ids = 2;
    sampling.biases = biases, sampling.n_biases = 2;
    sampling.stop_ids = stop_ids, sampling.n_stop_ids = 3;
    int32_t answer[] = {41, 42};
    s.answer = answer, s.n_answer = 2, s.prompt_told = 10;
    int32_t ends[THINKING_MAX_END + 1] = {7, 8};
    Witan__Cluster__V1__Thinking thinking = WITAN__CLUSTER__V1__THINKING__INIT;
    thinking.most = 5, thinking.inside = true, thinking.open = 6, thinking.close = 8;
    thinking.ids = ends, thinking.n_ids = 2;
    s.thinking = &thinking;
    int64_t before = clock_now_ns();
    assert_int_equal(put_submit(m, 1, &s, &err), OK);
    int64_t after = clock_now_ns();
    answer[1] = bias_ids[0] = stop_ids[2] = ends[1] = -1; /* the message is gone */
    assert_int_equal(mailbox_take(m, 0, &c, &err), MAIL_COMMAND);
    assert_int_equal(c.logprobs, 1);
    assert_int_equal(c.prompt_logprobs, 21);
    assert_int_equal(c.tenant, 3);
    assert_true(c.prefix_domain == UINT64_MAX);
    assert_int_equal(c.priority, -1);
    assert_true(c.deadline_ns >= before + INT64_C(60000000000));
    assert_true(c.deadline_ns <= after + INT64_C(60000000000));
    assert_true(c.shaping.repetition_penalty == 1.5f && c.shaping.presence_penalty == -2 &&
                c.shaping.frequency_penalty == 0.5f);
    assert_int_equal(c.shaping.min_tokens, 5);
    assert_int_equal(c.shaping.bias_count, 2);
    assert_int_equal(c.shaping.bias[0].id, 9);
    assert_true(c.shaping.bias[0].bias == -100 && c.shaping.bias[1].bias == 2.5f);
    assert_int_equal(c.shaping.bias[1].id, 4);
    assert_int_equal(c.shaping.stop_id_count, 3);
    assert_int_equal(c.shaping.stop_ids[2], 8);
    assert_int_equal(c.prompt_len, 10);
    assert_true(c.answer_len == 2 && c.answer[0] == 41 && c.answer[1] == 42);
    assert_int_equal(c.prompt_told, 10);
    assert_true(c.thinking.count == 2 && c.thinking.ids[0] == 7 && c.thinking.ids[1] == 8);
    assert_true(c.thinking.most == 5 && c.thinking.inside && c.thinking.open == 6 &&
                c.thinking.close == 8);
    command_fini(&c);
    for (thinking.n_ids = 0; thinking.n_ids <= THINKING_MAX_END + 1;
         thinking.n_ids += THINKING_MAX_END + 1) {
        assert_int_equal(put_submit(m, 3, &s, &err), ERR_INVALID);
        assert_non_null(strstr(err.msg, "thinking: expected 1 to 128 ids, found "));
    }
    s = good_submit();
    assert_int_equal(put_submit(m, 2, &s, &err), OK);
    assert_int_equal(mailbox_take(m, 0, &c, &err), MAIL_COMMAND);
    assert_true(c.logprobs == 0 && c.prompt_logprobs == 0 && c.deadline_ns == 0 &&
                c.thinking.count == 0);
    command_fini(&c);
    mailbox_destroy(m);
}

static void bad_terms_name_the_field(void **state)
{
    (void)state;
    enum {
        TOP,
        PROMPT_TOP,
        PRIORITY,
        BIASES,
        MANY_BIASES,
        MANY_STOPS,
        BIAS_ID,
        STOP_ID,
        TWICE,
        PENALTY,
        MIN_TOKENS,
        CASES
    };
    static const char *const words[CASES] = {
        [TOP] = "logprobs: expected 0 to 20, found 21",
        [PROMPT_TOP] = "prompt_logprobs: expected 0 to 20, found -1",
        [PRIORITY] = "priority: expected -1 to 1, found 2",
        [BIASES] = "biases: expected 2, one for each of bias_ids, found 1",
        [MANY_BIASES] = "bias_ids: expected at most 1024, found 1025",
        [MANY_STOPS] = "stop_ids: expected at most 64, found 65",
        [BIAS_ID] = "logit_bias[1]: expected a token id from 0 to 99, found 100",
        [STOP_ID] = "stop_token_ids[0]: expected a token id from 0 to 99, found -1",
        [TWICE] = "logit_bias: token 4 is named twice",
        [PENALTY] = "repetition_penalty -1",
        [MIN_TOKENS] = "min_tokens -2: expected 0 or more",
    };
    static int32_t zeros[1025];
    static float floats[1025];
    static struct plan_parts p;
    struct mailbox *m;
    struct command c;
    struct error err = {0};
    log_set_level(LOG_ERROR);
    plan_init(&p);
    p.plan.vocab_limit = 100;
    assert_int_equal(mailbox_create(&m, &err), OK);
    assert_int_equal(mailbox_put(m, &p.message, &err), OK);
    for (int i = 0; i < CASES; i++) {
        Witan__Cluster__V1__LogprobsWanted w = WITAN__CLUSTER__V1__LOGPROBS_WANTED__INIT;
        Witan__Cluster__V1__Submit s = good_submit();
        int32_t two[] = {4, i == BIAS_ID ? 100 : i == TWICE ? 4 : 5}, stop = i == STOP_ID ? -1 : 1;
        w.top = i == TOP ? 21 : i == PROMPT_TOP ? -1 : 3;
        s.logprobs = i == TOP ? &w : NULL;
        s.prompt_logprobs = i == PROMPT_TOP ? &w : NULL;
        s.priority = i == PRIORITY ? 2 : 0;
        sampling.bias_ids = i == MANY_BIASES ? zeros : two;
        sampling.n_bias_ids = i == MANY_BIASES ? 1025 : 2;
        sampling.biases = floats;
        sampling.n_biases = i == BIASES ? 1 : sampling.n_bias_ids;
        sampling.stop_ids = i == MANY_STOPS ? zeros : &stop;
        sampling.n_stop_ids = i == MANY_STOPS ? 65 : 1;
        sampling.repetition_penalty = i == PENALTY ? -1 : 0;
        sampling.min_tokens = i == MIN_TOKENS ? -2 : 0;
        assert_int_equal(put_submit(m, 1, &s, &err), ERR_INVALID);
        if (!strstr(err.msg, words[i]))
            fail_msg("expected \"%s\", found \"%s\"", words[i], err.msg);
    }
    assert_int_equal(mailbox_take(m, 0, &c, &err), MAIL_NONE);
    mailbox_destroy(m);
}

static void a_request_before_the_plan_is_refused(void **state)
{
    (void)state;
    struct mailbox *m;
    struct error err;
    Witan__Cluster__V1__Submit s = good_submit();
    assert_int_equal(mailbox_create(&m, &err), OK);
    assert_int_equal(put_submit(m, 1, &s, &err), ERR_INVALID);
    mailbox_destroy(m);
}

static void it_is_bounded_and_in_order(void **state)
{
    (void)state;
    struct mailbox *m = mailbox_with_plan();
    struct error err;
    struct command c;
    Witan__Cluster__V1__Submit s = good_submit();
    for (uint64_t i = 0; i < MAILBOX_SUBMITS; i++)
        assert_int_equal(put_submit(m, i, &s, &err), OK);
    assert_int_equal(put_submit(m, 0, &s, &err), ERR_LIMIT);
    put_cancel(m, 1, 6); /* of another epoch */
    for (uint64_t i = 0; i < MAILBOX_COMMANDS; i++)
        put_cancel(m, i, 5); /* those beyond the bound are dropped */
    for (uint64_t i = 0; i < MAILBOX_COMMANDS; i++) {
        assert_int_equal(mailbox_take(m, 0, &c, &err), MAIL_COMMAND);
        assert_int_equal(c.kind, i < MAILBOX_SUBMITS ? COMMAND_SUBMIT : COMMAND_CANCEL);
        assert_int_equal(c.key.request_id, i % MAILBOX_SUBMITS);
        command_fini(&c);
    }
    assert_int_equal(mailbox_take(m, 0, &c, &err), MAIL_NONE);
    assert_int_equal(put_submit(m, 3, &s, &err), OK);
    assert_int_equal(mailbox_take(m, 0, &c, &err), MAIL_COMMAND);
    command_fini(&c);
    mailbox_destroy(m);
}

static void stop_and_end_come_first(void **state)
{
    (void)state;
    struct mailbox *m = mailbox_with_plan();
    struct error err = {0}, why;
    struct command c;
    Witan__Cluster__V1__Submit s = good_submit();
    assert_int_equal(put_submit(m, 1, &s, &err), OK);
    error_set(&why, ERR_IO, "gone");
    mailbox_end(m, &why);
    error_set(&why, ERR_IO, "gone again");
    mailbox_end(m, &why);
    assert_int_equal(mailbox_take(m, 0, &c, &err), MAIL_ENDED);
    assert_string_equal(err.msg, "gone");
    assert_int_equal(mailbox_wait_wake(m, 0, 0, &err), ERR_IO);
    put_stop(m);
    assert_int_equal(mailbox_take(m, 0, &c, &err), MAIL_STOP);
    assert_true(mailbox_stopped(m));
    assert_int_equal(mailbox_wait_wake(m, 7, 0, &err), OK); /* the last step is sure to come */
    mailbox_destroy(m);
}

/* All ranks of a group have the plan or none has it: they take a Stop behind it alike. */
static void a_plan_comes_before_a_stop(void **state)
{
    (void)state;
    static struct assignment a;
    struct mailbox *m = mailbox_with_plan();
    struct error err = {0}, why;
    put_stop(m);
    assert_int_equal(mailbox_wait_plan(m, -1, &a, &err), OK);
    assert_true(mailbox_stopped(m));
    error_set(&why, ERR_IO, "gone");
    mailbox_end(m, &why);
    mailbox_reopen(m);
    assert_int_equal(mailbox_wait_plan(m, -1, &a, &err), ERR_CANCELLED);
    mailbox_destroy(m);
}

static void the_highest_wake_counts(void **state)
{
    (void)state;
    struct mailbox *m = mailbox_with_plan();
    struct error err;
    put_wake(m, 3);
    put_wake(m, 2);
    assert_int_equal(mailbox_wait_wake(m, 2, 0, &err), OK);
    put_stop(m); /* from here on the wait is bounded */
    assert_int_equal(mailbox_wait_wake(m, 3, 1000000, &err), ERR_PEER);
    mailbox_destroy(m);
}

/* Of the stream before only the count of wakes is left. */
static void another_stream_begins_anew(void **state)
{
    (void)state;
    static struct plan_parts p;
    static struct assignment a;
    Witan__Cluster__V1__CoordinatorMessage message = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    Witan__Cluster__V1__Wake wake = WITAN__CLUSTER__V1__WAKE__INIT;
    struct mailbox *m = mailbox_with_plan();
    struct command c;
    struct error err, why;
    wake.generation = 3;
    message.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_WAKE;
    message.wake = &wake;
    assert_int_equal(mailbox_put(m, &message, &err), OK);
    put_cancel(m, 1, 5);
    error_set(&why, ERR_IO, "the stream has ended");
    mailbox_end(m, &why);
    mailbox_reopen(m);
    assert_int_equal(mailbox_take(m, 0, &c, &err), MAIL_NONE);
    assert_int_equal(mailbox_wait_plan(m, 1000000, &a, &err), ERR_LIMIT);
    put_cancel(m, 2, 5); /* before there is a plan */
    assert_int_equal(mailbox_take(m, 0, &c, &err), MAIL_NONE);
    plan_init(&p);
    p.plan.epoch = 6;
    assert_int_equal(mailbox_put(m, &p.message, &err), OK);
    assert_int_equal(mailbox_wait_plan(m, -1, &a, &err), OK);
    assert_int_equal(a.epoch, 6);
    put_cancel(m, 3, 5); /* of the epoch before */
    assert_int_equal(mailbox_take(m, 0, &c, &err), MAIL_NONE);
    put_cancel(m, 4, 6);
    assert_int_equal(mailbox_take(m, 0, &c, &err), MAIL_COMMAND);
    assert_int_equal(c.key.request_id, 4);
    assert_int_equal(mailbox_wait_wake(m, 2, 0, &err), OK);
    mailbox_destroy(m);
}

static void unknown_messages_are_ignored(void **state)
{
    (void)state;
    struct mailbox *m = mailbox_with_plan();
    Witan__Cluster__V1__CoordinatorMessage message = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    struct error err;
    assert_int_equal(mailbox_put(m, &message, &err), OK);
    mailbox_destroy(m);
}

static void *put_from_outside(void *arg)
{
    struct mailbox *m = arg;
    Witan__Cluster__V1__Submit s = good_submit();
    struct error err;
    for (uint64_t i = 0; i < 1000; i++)
        while (put_submit(m, i, &s, &err) != OK)
            sched_yield();
    put_stop(m);
    return NULL;
}

static void two_threads_meet(void **state)
{
    (void)state;
    struct mailbox *m = mailbox_with_plan();
    struct error err;
    struct command c;
    pthread_t other;
    enum mail got;
    uint64_t n = 0;
    assert_int_equal(pthread_create(&other, NULL, put_from_outside, m), 0);
    while ((got = mailbox_take(m, -1, &c, &err)) == MAIL_COMMAND) {
        assert_int_equal(c.key.request_id, n++);
        command_fini(&c);
    }
    assert_int_equal(got, MAIL_STOP);
    pthread_join(other, NULL);
    mailbox_destroy(m);
}

/* As sent before the first request that needs them. */
static enum status put_words(struct mailbox *m, size_t lengths, size_t kinds, size_t bytes,
                             struct error *err)
{
    static uint32_t length[256];
    static uint8_t kind[256], text[256];
    Witan__Cluster__V1__CoordinatorMessage message = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    Witan__Cluster__V1__Words w = WITAN__CLUSTER__V1__WORDS__INIT;
    for (int i = 0; i < 256; i++) {
        length[i] = 1;
        text[i] = (uint8_t)i;
    }
    w.lengths = length;
    w.n_lengths = lengths;
    w.kinds = (ProtobufCBinaryData){kinds, kind};
    w.text = (ProtobufCBinaryData){bytes, text};
    message.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_WORDS;
    message.words = &w;
    return mailbox_put(m, &message, err);
}

static void words_come_before_those_who_need_them(void **state)
{
    (void)state;
    struct mailbox *m = mailbox_with_plan();
    struct error err;
    struct command c;
    Witan__Cluster__V1__Submit s = good_submit();
    Witan__Cluster__V1__Constraint form = WITAN__CLUSTER__V1__CONSTRAINT__INIT;
    s.constraint = &form;
    assert_int_equal(put_words(m, 256, 255, 256, &err), ERR_INVALID);
    assert_int_equal(put_words(m, 256, 256, 255, &err), ERR_INVALID);
    assert_int_equal(put_words(m, 0, 0, 0, &err), ERR_INVALID);
    assert_int_equal(put_words(m, 200, 200, 200, &err), ERR_UNSUPPORTED);
    assert_int_equal(put_words(m, 256, 256, 256, &err), OK);
    form.kind = WITAN__CLUSTER__V1__CONSTRAINT_KIND__CONSTRAINT_JSON_OBJECT;
    form.thought = WITAN__CLUSTER__V1__THOUGHT__THOUGHT_MAY;
    assert_int_equal(put_submit(m, 1, &s, &err), OK);
    form.kind = (Witan__Cluster__V1__ConstraintKind)CONSTRAINT_KINDS;
    assert_int_equal(put_submit(m, 2, &s, &err), ERR_INVALID);
    assert_non_null(strstr(err.msg, "constraint: "));
    form.kind = (Witan__Cluster__V1__ConstraintKind)-1;
    assert_int_equal(put_submit(m, 2, &s, &err), ERR_INVALID);
    assert_int_equal(mailbox_take(m, 0, &c, &err), MAIL_COMMAND);
    assert_true(c.kind == COMMAND_WORDS && c.words);
    command_fini(&c);
    assert_int_equal(mailbox_take(m, 0, &c, &err), MAIL_COMMAND);
    assert_true(c.constraint.kind == CONSTRAINT_JSON_OBJECT &&
                c.constraint.thought == CONSTRAINT_MAY_THINK);
    command_fini(&c);
    assert_int_equal(put_words(m, 256, 256, 256, &err), OK); /* not taken: the mailbox's to free */
    mailbox_destroy(m);
}

/* Nobody says them again. */
static void words_find_room_in_a_full_mailbox(void **state)
{
    (void)state;
    struct mailbox *m = mailbox_with_plan();
    struct error err;
    struct command c;
    for (int turn = 0; turn < 2; turn++) {
        for (uint64_t i = 0; i <= MAILBOX_COMMANDS; i++)
            put_cancel(m, i, 5);
        assert_int_equal(put_words(m, 256, 256, 256, &err), OK);
        assert_int_equal(put_words(m, 256, 256, 256, &err), ERR_LIMIT);
        put_cancel(m, 1, 5);
        for (uint64_t i = 0; i <= MAILBOX_COMMANDS; i++) {
            assert_int_equal(mailbox_take(m, 0, &c, &err), MAIL_COMMAND);
            assert_int_equal(c.kind, i < MAILBOX_COMMANDS ? COMMAND_CANCEL : COMMAND_WORDS);
            command_fini(&c);
        }
        assert_int_equal(mailbox_take(m, 0, &c, &err), MAIL_NONE);
    }
    mailbox_destroy(m);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(plans_name_the_cache),
    cmocka_unit_test(bad_plans_name_the_field),
    cmocka_unit_test(a_plan_leaves_room_for_guesses),
    cmocka_unit_test(plans_are_compared),
    cmocka_unit_test(bad_submits_are_refused),
    cmocka_unit_test(submits_arrive_whole),
    cmocka_unit_test(words_come_before_those_who_need_them),
    cmocka_unit_test(words_find_room_in_a_full_mailbox),
    cmocka_unit_test(bad_terms_name_the_field),
    cmocka_unit_test(a_request_before_the_plan_is_refused),
    cmocka_unit_test(it_is_bounded_and_in_order),
    cmocka_unit_test(stop_and_end_come_first),
    cmocka_unit_test(a_plan_comes_before_a_stop),
    cmocka_unit_test(the_highest_wake_counts),
    cmocka_unit_test(another_stream_begins_anew),
    cmocka_unit_test(unknown_messages_are_ignored),
    cmocka_unit_test(two_threads_meet),
};

UNIT_MAIN(tests)
