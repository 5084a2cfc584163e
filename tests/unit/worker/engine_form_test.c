/*
 * Answers that must be JSON objects, drawn by a model that knows none: each ends in time and
 * parses, and each is what it is alone, whatever else is in the batch, in every layout, after it
 * has given way to others, and where it goes on behind tokens that were drawn elsewhere.
 */
#include "tests/unit/unit.h"

#include "base/log.h"
#include "tests/unit/worker/made_words.h"
#include "worker/engine.h"

#include <jansson.h>

enum { REQUESTS = 24, PROMPT = 60, MOST = 120, VOCAB = 384, KV_BLOCKS = 5 };

static const int32_t ends[] = {381};

struct heard {
    int32_t ids[MOST];
    int32_t count;
    enum finish finish;
};

struct run {
    struct layout layout;
    bool together;
    int32_t speculate, chunk;
    int32_t answered; /* of the first run, tokens that each request goes on behind; at most all */
    const struct heard *first;
    struct heard heard[REQUESTS];
    struct made_words words;
    struct engine_stats stats;
};

static void on_token(void *user, int32_t token, enum finish finish)
{
    struct heard *h = user;
    if (token >= 0)
        h->ids[h->count++] = token;
    h->finish = finish;
}

/* Every third is free, and stands between the others. */
static bool is_free(int32_t i)
{
    return i % 3 == 2;
}

/* Thoughts that an answer begins in are ended, of some requests of each kind. */
static struct thinking thinking_of(int32_t i)
{
    enum { TAG = 256 };
    bool bound = is_free(i) ? i % 2 : i / 3 % 3 == 1;
    return (struct thinking){.count = bound ? 5 : 0,
                             .most = i % 5,
                             .open = 300,
                             .close = TAG,
                             .inside = true,
                             .ids = {'O', 'k', TAG, '\n', '\n'}};
}

static struct request request_of(int32_t i, int32_t prompt[PROMPT])
{
    static const enum constraint_thought thoughts[] = {CONSTRAINT_NO_THOUGHT, CONSTRAINT_IN_THOUGHT,
                                                       CONSTRAINT_MAY_THINK};
    struct request r = {.prompt = prompt,
                        .prompt_len = PROMPT - i % 7,
                        .max_tokens = i == 0 ? 3 : 12 + i * 37 % (MOST - 12),
                        .sampling = {.temperature = i % 5 ? 1.5f : 0.0f,
                                     .top_p = i % 2 ? 0.9f : 1.0f,
                                     .top_k = i % 4 ? 0 : 30,
                                     .seed = (uint64_t)i},
                        .shaping = {.presence_penalty = i % 6 == 1 ? 0.5f : 0.0f},
                        .logprobs = i % 8 == 3,
                        .thinking = thinking_of(i),
                        .on_token = on_token};
    for (int32_t k = 0; k < PROMPT; k++)
        prompt[k] = (i * 31 + k * 17 + 5) % 370;
    r.ignore_eos = is_free(i);
    if (!is_free(i))
        r.constraint = (struct constraint){.kind = CONSTRAINT_JSON_OBJECT,
                                           .thought = thoughts[i / 3 % 3]};
    return r;
}

static enum status submit(struct run *r, struct engine *e, int32_t i, struct error *err)
{
    int32_t prompt[PROMPT];
    struct request q = request_of(i, prompt);
    struct heard *h = &r->heard[i];
    *h = (struct heard){0};
    if (r->first) {
        int32_t most = r->first[i].count - 1;
        h->count = r->answered < most ? r->answered : most;
        memcpy(h->ids, r->first[i].ids, (size_t)h->count * sizeof *h->ids);
        q.answer = h->ids;
        q.answer_len = h->count;
    }
    q.user = h;
    return engine_submit(e, &q, NULL, err);
}

static enum status lead(struct run *r, struct engine *e, struct error *err)
{
    TRY(engine_words(e, made_create(&r->words), err));
    for (int32_t i = 0; i < REQUESTS; i++) {
        TRY(submit(r, e, i, err));
        for (bool ran = true; ran && (!r->together || i == REQUESTS - 1);)
            TRY(engine_step(e, &ran, err));
    }
    r->stats = *engine_stats(e);
    return engine_stop(e, err);
}

static enum status rank_main(struct comm *world, void *arg, struct error *err)
{
    struct run *r = arg;
    struct model *m = NULL;
    struct engine *e = NULL;
    enum engine_left why;
    const struct model_options options = {
        .dir = WITAN_SOURCE_DIR "/tests/golden/oracle/sharded",
        .layout = r->layout,
        .limits = {.max_rows = 64,
                   .max_logits = 64,
                   .max_seqs = 10,
                   .context = 256,
                   .kv_blocks = KV_BLOCKS,
                   .threads = 1,
                   .kv_dtype = KV_BF16},
        .kernels = "auto",
    };
    const struct engine_options eo = {.chunk = r->chunk, .speculate = r->speculate};
    TRY(model_create(&options, world, &m, err));
    enum status st = engine_create(m, &eo, &e, err);
    if (st == OK)
        st = world->rank == 0 ? lead(r, e, err) : engine_follow(e, &why, err);
    engine_destroy(e);
    model_destroy(m);
    return st;
}

static struct run *run_with(struct run with)
{
    struct error err;
    struct run *r = check_calloc(1, sizeof *r);
    *r = with;
    r->words = made_words(VOCAB, ends, 1);
    log_set_level(LOG_WARN);
    if (comm_local_run(r->layout.pp * r->layout.w, rank_main, r, &err) != OK)
        fail_msg("%s", err.msg);
    return r;
}

static void release(struct run *r)
{
    made_free(&r->words);
    free(r);
}

static void check_object(const struct run *r, int32_t i)
{
    const struct heard *h = &r->heard[i];
    char text[MOST * MADE_MOST];
    size_t len = 0;
    assert_int_equal(h->finish, FINISH_STOP);
    for (int32_t k = 0; k < h->count - 1; k++) {
        memcpy(text + len, r->words.bytes[h->ids[k]], r->words.lengths[h->ids[k]]);
        len += r->words.lengths[h->ids[k]];
    }
    const char *close = memmem(text, len, "</think>", 8);
    int32_t prompt[PROMPT];
    struct request q = request_of(i, prompt);
    size_t from = q.constraint.thought == CONSTRAINT_IN_THOUGHT && close
                      ? (size_t)(close - text) + 8
                      : 0;
    json_t *v = json_loadb(text + from, len - from, 0, NULL);
    if (!json_is_object(v) && !memmem(text, len, "<think>", 7))
        fail_msg("request %d: %.*s", i, (int)len, text);
    json_decref(v);
}

/* It is ended at its bound, if the model has not done so before. */
static bool check_thought(const struct run *r, int32_t i)
{
    const struct heard *h = &r->heard[i];
    const struct thinking t = thinking_of(i);
    for (int32_t k = 0; k <= t.most && k < h->count; k++)
        if (h->ids[k] == t.close)
            return false;
    for (int32_t k = 0; k < t.count && t.most + k < h->count; k++)
        assert_int_equal(h->ids[t.most + k], t.ids[k]);
    return t.count > 0;
}

static void check_same(const struct run *r, const struct run *alone)
{
    for (int32_t i = 0; i < REQUESTS; i++) {
        const struct heard *a = &r->heard[i], *b = &alone->heard[i];
        assert_int_equal(a->finish, b->finish);
        assert_int_equal(a->count, b->count);
        assert_memory_equal(a->ids, b->ids, (size_t)a->count * sizeof *a->ids);
    }
}

static const struct layout one = {.pp = 1, .tp = 1, .ep = 1, .w = 1},
                           two = {.pp = 1, .tp = 2, .ep = 2, .w = 2},
                           stages = {.pp = 2, .tp = 1, .ep = 1, .w = 1};

static void answers_are_objects_and_what_they_are_alone(void **state)
{
    (void)state;
    struct run *alone = run_with((struct run){.layout = one});
    int32_t ended = 0;
    for (int32_t i = 0; i < REQUESTS; i++) {
        if (!is_free(i))
            check_object(alone, i);
        ended += check_thought(alone, i);
    }
    assert_true(ended > REQUESTS / 4);
    const struct run others[] = {
        {.layout = one, .together = true, .speculate = 3},
        {.layout = two, .together = true, .chunk = 7},
        {.layout = stages, .together = true},
        {.layout = one, .together = true, .first = alone->heard, .answered = 5},
        {.layout = two, .together = true, .first = alone->heard, .answered = MOST},
    };
    uint64_t gave_way = 0;
    for (size_t i = 0; i < COUNT_OF(others); i++) {
        struct run *r = run_with(others[i]);
        check_same(r, alone);
        gave_way += r->stats.sched.preempted;
        release(r);
    }
    assert_true(gave_way > 0);
    release(alone);
}

/* --- more forms than a step has room for --------------------------------------------------------
 */

enum { CALLERS = 85, CROWD = 100, LATE = 10, LATE_FROM = 8, CALL_MOST = 70, HEAD = 23 };

/* Calls, in JSON and in XML, of as many tools as there are requests, so that no two share a mask;
 * the others are free. The last of both come when all the others draw. */
struct crowd {
    bool together;
    struct engine *e;
    struct made_words words;
    struct voice {
        struct crowd *crowd;
        int32_t ids[CALL_MOST], count;
        enum finish finish;
        uint64_t last, wait, gap; /* steps: last told; to the first token, and the longest behind */
    } voices[CROWD];
};

static bool is_caller(int32_t i)
{
    return i < CALLERS - LATE / 2 || i >= CROWD - LATE / 2;
}

static void on_crowd(void *user, int32_t token, enum finish finish)
{
    struct voice *v = user;
    uint64_t step = engine_stats(v->crowd->e)->steps;
    uint64_t *most = v->count == 0 ? &v->wait : &v->gap;
    *most = step - v->last > *most ? step - v->last : *most;
    v->last = step;
    v->ids[v->count++] = token;
    v->finish = finish;
}

static enum status submit_crowd(struct crowd *c, int32_t i, struct error *err)
{
    int32_t prompt[] = {i % 90, 7, i / 3, 40, 2};
    char text[64];
    struct voice *v = &c->voices[i];
    int tail = snprintf(text, sizeof text, "</call>");
    int head = snprintf(text + tail + 1, sizeof text - (size_t)tail - 1,
                        "<call tool%03d of many >%s", i, i % 2 ? "\1!p>\n" : "");
    struct request q = {.prompt = prompt,
                        .prompt_len = (int32_t)COUNT_OF(prompt),
                        .max_tokens = CALL_MOST,
                        .sampling = {.temperature = 1.5f, .top_p = 1, .seed = (uint64_t)i},
                        .ignore_eos = !is_caller(i),
                        .on_token = on_crowd,
                        .user = v};
    assert_int_equal(head, HEAD + (i % 2 ? 5 : 0));
    if (is_caller(i))
        q.constraint = (struct constraint){.kind = i % 2 ? CONSTRAINT_CODER : CONSTRAINT_CALL,
                                           .text = text,
                                           .text_len = (uint32_t)(tail + head + 2),
                                           .heads = 1};
    v->crowd = c;
    v->last = engine_stats(c->e)->steps;
    return engine_submit(c->e, &q, NULL, err);
}

static enum status run_crowd(struct crowd *c, struct error *err)
{
    bool ran = true;
    int32_t came = 0;
    TRY(engine_words(c->e, made_create(&c->words), err));
    for (int32_t step = 0; ran || came < CROWD; step++) {
        int32_t now = !c->together       ? came + !ran + (step == 0)
                      : step < LATE_FROM ? CROWD - LATE
                                         : CROWD;
        for (; came < now && came < CROWD; came++)
            TRY(submit_crowd(c, came, err));
        TRY(engine_step(c->e, &ran, err));
    }
    return engine_stop(c->e, err);
}

static enum status crowd_main(struct comm *world, void *arg, struct error *err)
{
    struct crowd *c = arg;
    struct model *m = NULL;
    const struct model_options options = {
        .dir = WITAN_SOURCE_DIR "/tests/golden/oracle/sharded",
        .layout = one,
        .limits = {.max_rows = 512,
                   .max_logits = CROWD,
                   .max_seqs = CROWD,
                   .context = 256,
                   .kv_blocks = 2 * CROWD,
                   .threads = 1,
                   .kv_dtype = KV_BF16},
        .kernels = "auto",
    };
    TRY(model_create(&options, world, &m, err));
    enum status st = engine_create(m, &(struct engine_options){0}, &c->e, err);
    if (st == OK)
        st = run_crowd(c, err);
    engine_destroy(c->e);
    model_destroy(m);
    return st;
}

static struct crowd *crowd_with(bool together)
{
    struct error err;
    struct crowd *c = check_calloc(1, sizeof *c);
    c->together = together;
    c->words = made_words(VOCAB, ends, 1);
    log_set_level(LOG_WARN);
    if (comm_local_run(1, crowd_main, c, &err) != OK)
        fail_msg("%s", err.msg);
    return c;
}

static void release_crowd(struct crowd *c)
{
    made_free(&c->words);
    free(c);
}

/* 80 of them draw at once, each by a mask of its own, and a step has 64. Nobody who is free waits,
 * each of them gets on at every other step, and of those that have still to begin one does at each.
 */
static void forms_take_turns_and_hold_up_nobody(void **state)
{
    (void)state;
    struct crowd *alone = crowd_with(false), *all = crowd_with(true);
    for (int32_t i = 0; i < CROWD; i++) {
        const struct voice *a = &all->voices[i], *b = &alone->voices[i];
        assert_int_equal(a->count, b->count);
        assert_memory_equal(a->ids, b->ids, (size_t)a->count * sizeof *a->ids);
        assert_int_equal(a->finish, b->finish);
        assert_int_equal(a->finish, is_caller(i) ? FINISH_STOP : FINISH_LENGTH);
        assert_true(!is_caller(i) || a->count > HEAD / MADE_MOST);
        if (a->wait > (is_caller(i) ? CALLERS - 64 + 2 : 1) || a->gap > (is_caller(i) ? 2 : 1))
            fail_msg("request %d waited for %llu steps, then %llu", i, (unsigned long long)a->wait,
                     (unsigned long long)a->gap);
    }
    release_crowd(alone);
    release_crowd(all);
}

/* --- refusals -----------------------------------------------------------------------------------
 */

static enum status refused(struct comm *world, void *arg, struct error *err)
{
    struct run *r = arg;
    struct model *m = NULL;
    struct engine *e = NULL;
    int32_t prompt[PROMPT];
    static const int32_t wrong[] = {'['};
    const struct model_options options = {
        .dir = WITAN_SOURCE_DIR "/tests/golden/oracle/sharded",
        .layout = one,
        .limits = {.max_rows = 64, .max_logits = 4, .max_seqs = 4, .context = 256, .threads = 1},
        .kernels = "auto",
    };
    TRY(model_create(&options, world, &m, err));
    TRY(engine_create(m, &(struct engine_options){0}, &e, err));
    struct request q = request_of(0, prompt);
    assert_int_equal(engine_submit(e, &q, NULL, err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err->msg, "does not know the tokens' bytes"));
    TRY(engine_words(e, made_create(&r->words), err));
    TRY(engine_words(e, made_create(&r->words), err)); /* the first stay */
    q.answer = wrong;
    q.answer_len = 1;
    assert_int_equal(engine_submit(e, &q, NULL, err), ERR_INVALID);
    assert_non_null(strstr(err->msg, "answer: token 91"));
    q.answer_len = 0;
    q.max_tokens = 2;
    assert_int_equal(engine_submit(e, &q, NULL, err), ERR_INVALID);
    assert_non_null(strstr(err->msg, "max_tokens: expected at least 3"));
    /* What ends a thought is not drawn: its form must have it. */
    q = request_of(3, prompt);
    q.constraint.thought = CONSTRAINT_NO_THOUGHT;
    assert_int_equal(engine_submit(e, &q, NULL, err), ERR_INVALID);
    assert_non_null(strstr(err->msg, "thinking: inside"));
    q = request_of(3, prompt);
    q.thinking.ids[4] = 'x';
    assert_int_equal(engine_submit(e, &q, NULL, err), ERR_INVALID);
    assert_non_null(strstr(err->msg, "thinking: ids[4]: token 120"));
    q = request_of(3, prompt);
    assert_int_equal(engine_submit(e, &q, NULL, err), OK);
    engine_destroy(e);
    model_destroy(m);
    return OK;
}

static void what_cannot_be_kept_is_refused(void **state)
{
    (void)state;
    struct error err;
    struct run r = {.words = made_words(VOCAB, ends, 1)};
    log_set_level(LOG_WARN);
    if (comm_local_run(1, refused, &r, &err) != OK)
        fail_msg("%s", err.msg);
    made_free(&r.words);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_objects_and_what_they_are_alone),
        cmocka_unit_test(forms_take_turns_and_hold_up_nobody),
        cmocka_unit_test(what_cannot_be_kept_is_refused),
    };
    (void)shared_path;
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
