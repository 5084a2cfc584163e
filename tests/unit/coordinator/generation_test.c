/* Requests on ranks that the test plays over the real protocol: what becomes of them when ranks
 * answer rightly, wrongly or go, when they wait too long, and when there are too many. */
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
};

static void on_text(void *user, enum part part, const char *text, size_t len)
{
    struct answer *a = user;
    size_t n = strlen(a->text);
    if (!a->split)
        assert_int_equal(part, PART_CONTENT);
    snprintf(a->text + n, sizeof a->text - n, "%.*s", (int)len, text);
}

static void on_ids(void *user, const int32_t *ids, const struct token_logprobs *logprobs,
                   int32_t count)
{
    (void)ids;
    (void)logprobs;
    ((struct answer *)user)->ids += count;
}

static void on_prompt(void *user, int32_t position, const struct token_logprobs *logprobs,
                      int32_t count)
{
    struct answer *a = user;
    assert_int_equal(position, 1 + a->prompt_told);
    for (int32_t i = 0; i < count; i++)
        assert_true(logprobs[i].logprob == -(float)(position + i));
    a->prompt_told += count;
}

static void on_end(void *user, const struct generation_end *end)
{
    struct answer *a = user;
    a->ended = true;
    a->end = *end;
}

static const struct generation_sink sink = {
    .on_text = on_text, .on_ids = on_ids, .on_prompt = on_prompt, .on_end = on_end};

static void start(void *arg)
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
        .accepted = a->accepted,
        .replaces = a->replaces,
    };
    a->started = generation_start(a->c->core, &p, &sink, a, &a->g, &a->err);
}

static void look(void *arg)
{
    struct answer *a = arg;
    a->seen_end = a->ended;
    a->seen_ids = a->ids;
    a->seen_told = a->prompt_told;
}

static void tick(void *arg)
{
    generation_tick(((struct cluster *)arg)->core);
}

/* Everything of the answer may be read after this. */
static void wait_end(struct answer *a)
{
    for (int i = 0; i < 10000 && !a->seen_end; i++) {
        on_loop(a->c, tick, a->c);
        on_loop(a->c, look, a);
        usleep(1000);
    }
    assert_true(a->seen_end);
}

/* A served cluster with one request submitted to it. */
static const told *begin(struct cluster *c, struct fake_rank *r, struct answer *a, const char *yaml)
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

static void end(struct cluster *c, struct fake_rank *r)
{
    fake_release(r);
    cluster_wait_ready(c, false);
    cluster_stop(c);
}

static void tokens_become_text(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 2};
    const told *m = begin(&c, &r, &a, "");
    assert_int_equal(m->submit->n_prompt, 3);
    assert_int_equal(m->submit->max_tokens, 2);
    int32_t h = 'H' - 33, i = 'i' - 33; /* byte-level ids of printable ASCII begin at '!' */
    fake_say_tokens(&r, m->submit->request_id, m->submit->attempt, m->submit->epoch, 0, &h, 1,
                    WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    fake_say_tokens(&r, m->submit->request_id, m->submit->attempt, m->submit->epoch, 1, &i, 1,
                    WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH);
    wait_end(&a);
    assert_string_equal(a.text, "Hi");
    assert_int_equal(a.end.reason, GENERATION_LENGTH);
    assert_int_equal(a.end.completion_tokens, 2);
    assert_int_equal(a.ids, 2);
    end(&c, &r);
}

/* Fencing: another epoch or attempt is nothing; another position ends the request. */
static void only_the_current_attempt_counts(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 5};
    const told *m = begin(&c, &r, &a, "");
    uint64_t id = m->submit->request_id, epoch = m->submit->epoch;
    int32_t x = 'x' - 33, y = 'y' - 33;
    fake_say_tokens(&r, id, 1, epoch - 1, 0, &x, 1, WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH);
    fake_say_tokens(&r, id, 2, epoch, 0, &x, 1, WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH);
    fake_say_tokens(&r, id + 9, 1, epoch, 0, &x, 1, WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH);
    fake_say_tokens(&r, id, 1, epoch, 0, &y, 1, WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    fake_say_tokens(&r, id, 1, epoch, 0, &y, 1, WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    wait_end(&a);
    assert_string_equal(a.text, "y");
    assert_int_equal(a.end.reason, GENERATION_FAILED);
    assert_non_null(strstr(a.end.err.msg, "position 0 of the answer where 1 follows"));
    m = fake_next(&r);
    assert_int_equal(m->body_case, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_CANCEL);
    assert_int_equal(m->cancel->request_id, id);
    end(&c, &r);
}

static void a_stop_string_cancels_the_rest(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 5, .stop = {"bc"}, .stops = 1};
    const told *m = begin(&c, &r, &a, "");
    int32_t ids[] = {'a' - 33, 'b' - 33, 'c' - 33};
    for (int32_t i = 0; i < 3; i++)
        fake_say_tokens(&r, m->submit->request_id, 1, m->submit->epoch, i, &ids[i], 1,
                        WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    wait_end(&a);
    assert_string_equal(a.text, "a");
    assert_int_equal(a.end.reason, GENERATION_STOP);
    m = fake_next(&r);
    assert_int_equal(m->body_case, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_CANCEL);
    end(&c, &r);
}

/* Its group ends it; nothing is sent there any more. */
static void a_deadline_ends_a_request(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 5};
    const told *m = begin(&c, &r, &a, "");
    assert_int_equal(m->submit->deadline_ms, 2500);
    fake_say_tokens(&r, m->submit->request_id, 1, m->submit->epoch, 0, NULL, 0,
                    WITAN__CLUSTER__V1__FINISH__FINISH_DEADLINE);
    wait_end(&a);
    assert_int_equal(a.end.reason, GENERATION_FAILED);
    assert_int_equal(a.end.err.code, ERR_CANCELLED);
    assert_non_null(strstr(a.end.err.msg, "deadline"));
    end(&c, &r);
}

/* A rank whose words do not hold together is not believed any further. */
static void broken_tokens_lose_the_rank(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 5};
    const told *m = begin(&c, &r, &a, "");
    fake_say_tokens(&r, m->submit->request_id, 1, m->submit->epoch, -1, NULL, 0,
                    WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    assert_int_equal(fake_wait_closed(&r), RPC_INVALID_ARGUMENT);
    assert_string_equal(r.message, "tokens of request 1: position: expected 0 or more");
    wait_end(&a);
    assert_int_equal(a.end.err.code, ERR_PEER);
    end(&c, &r);
}

static void losing_the_group_ends_its_requests(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}};
    begin(&c, &r, &a, "");
    fake_release(&r);
    wait_end(&a);
    assert_int_equal(a.end.reason, GENERATION_FAILED);
    assert_int_equal(a.end.err.code, ERR_PEER);
    assert_non_null(strstr(a.end.err.msg, "group g0 was lost: rank 0 (test, pid 4711)"));
    assert_non_null(strstr(a.end.err.msg, "; no group was ready within 1 s (limits.failover_"));
    on_loop(&c, start, &a);
    assert_int_equal(a.started, ERR_PEER);
    /* It may come again. */
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    assert_string_equal(cluster_states,
                        "g0 loading;g0 ready;g0 lost;g0 waiting;g0 loading;g0 ready;");
    end(&c, &r);
}

static void start_as(struct cluster *c, struct answer *a, uint64_t tenant)
{
    *a = (struct answer){.c = c, .prompt = {65, 66, 67}, .max_tokens = 5, .tenant = tenant};
    on_loop(c, start, a);
}

/* Logprobs of positions [from, to) of the prompt, with the first token where `drawn`. */
static void fake_say_prompt(struct fake_rank *r, const Witan__Cluster__V1__Submit *q, int32_t from,
                            int32_t to, bool drawn)
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

/* --- going on elsewhere -------------------------------------------------------------------------
 */

static const char two_groups[] = "groups: [{name: g0}, {name: g1}]\n"
                                 "limits: {failovers: 1, failover_timeout_s: 60}\n";

static void say(struct fake_rank *r, const Witan__Cluster__V1__Submit *q, int32_t position,
                const char *text, Witan__Cluster__V1__Finish finish)
{
    int32_t ids[16];
    size_t count = strlen(text);
    for (size_t i = 0; i < count; i++)
        ids[i] = text[i] - 33;
    fake_say_tokens(r, q->request_id, q->attempt, q->epoch, position, ids, count, finish);
}

/* --- going on where it was told before ----------------------------------------------------------
 */

/* The position behind the first characters of an answer, a token each. */
static struct resume_at behind(const char *text, int32_t tokens)
{
    struct resume_at at = resume_nowhere();
    for (int32_t i = 0; i < tokens; i++)
        resume_add(&at, (int32_t[]){text[i] - 33}, 1);
    at.begun = true;
    return at;
}

/* What is told of an answer that comes in steps of so many tokens, after a position in it. */
static void tell_after(struct answer *a, const char *whole, int32_t step)
{
    struct cluster c;
    struct fake_rank r;
    int32_t len = (int32_t)strlen(whole);
    a->prompt[0] = a->prompt[1] = a->prompt[2] = 65;
    a->max_tokens = len;
    a->class = "cpu-1";
    const told *m = begin(&c, &r, a, "");
    for (int32_t at = 0; at < len; at += step) {
        char part[17] = "";
        bool last = at + step >= len;
        snprintf(part, sizeof part, "%.*s", (int)step, whole + at);
        say(&r, m->submit, at, part,
            last ? WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH
                 : WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    }
    wait_end(a);
    end(&c, &r);
}

static void what_was_told_is_not_told_again(void **state)
{
    (void)state;
    static const char whole[] = "abcdefghij";
    for (int32_t from = 0; from <= 10; from++) {
        struct answer a = {.after = behind(whole, from)};
        tell_after(&a, whole, 1 + from % 4);
        assert_string_equal(a.text, whole + from);
        assert_int_equal(a.ids, 10 - from);
        assert_int_equal(a.end.reason, GENERATION_LENGTH);
        assert_int_equal(a.end.completion_tokens, 10);
    }
}

/* What was held back by then was not told: the start of a stop string, a tag that came to nothing.
 */
static void what_was_held_back_is_told(void **state)
{
    (void)state;
    struct answer a = {.after = behind("abxyz", 4), .stop = {"xyw"}, .stops = 1};
    tell_after(&a, "abxyz", 2);
    assert_string_equal(a.text, "xyz");
    struct answer b = {.after = behind("abxyz", 5), .stop = {"yz"}, .stops = 1};
    tell_after(&b, "abxyz", 5);
    assert_string_equal(b.text, "");
    assert_int_equal(b.end.reason, GENERATION_STOP);
    struct answer c = {.after = behind("<thi!?", 4), .split = true};
    tell_after(&c, "<thi!?", 3);
    assert_string_equal(c.text, "<thi!?");
    /* Thought and content of one step are two events: the first was told, the second not. */
    struct answer d = {.after = behind("<think>ab</think>cd", 18), .split = true};
    d.after.thought = true;
    tell_after(&d, "<think>ab</think>cd", 16);
    assert_string_equal(d.text, "cd");
    struct answer e = {.after = behind("<think>ab</think>cd", 18), .split = true};
    tell_after(&e, "<think>ab</think>cd", 16);
    assert_string_equal(e.text, "d");
}

static void another_answers_position_is_refused(void **state)
{
    (void)state;
    struct answer a = {.after = behind("abX", 3)}; /* other tokens */
    tell_after(&a, "abcd", 1);
    assert_string_equal(a.text, "");
    assert_int_equal(a.end.err.code, ERR_CONFLICT);
    assert_non_null(strstr(a.end.err.msg, "cannot be resumed: its first 3 tokens"));
    struct answer b = {.after = behind("abcdefg", 7)}; /* more than there are */
    tell_after(&b, "abcd", 2);
    assert_string_equal(b.text, "");
    assert_int_equal(b.end.err.code, ERR_CONFLICT);
    struct answer c = {.after = behind("abcd", 4), .stop = {"bc"}, .stops = 1};
    tell_after(&c, "abcd", 1);
    assert_string_equal(c.text, "");
    assert_int_equal(c.end.err.code, ERR_CONFLICT);
}

static void another_class_is_refused_at_once(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 5};
    begin(&c, &r, &a, "");
    struct answer other = {
        .c = &c, .prompt = {65, 66, 67}, .max_tokens = 5, .class = "cuda-1-sm90"};
    on_loop(&c, start, &other);
    assert_int_equal(other.started, ERR_CONFLICT);
    assert_non_null(strstr(other.err.msg, "began in numerics class cuda-1-sm90, and group g0 "
                                          "computes in cpu-1"));
    fake_release(&r);
    wait_end(&a);
    cluster_stop(&c);
}

static void wait_ids(struct answer *a, int32_t count)
{
    for (int i = 0; i < 3000 && a->seen_ids < count; i++) {
        on_loop(a->c, look, a);
        usleep(1000);
    }
    assert_int_equal(a->seen_ids, count);
}

static void ask_both_ready(void *arg)
{
    struct cluster *c = *(struct cluster **)arg;
    ((struct cluster **)arg)[1] = members_all_ready(c->core->members) ? c : NULL;
}

/* Groups g0 and g1, with one request that the first has. */
static const told *begin_two(struct cluster *c, struct fake_rank r[2], struct answer *a)
{
    struct cluster *ask[2] = {c, NULL};
    cluster_start(c, two_groups);
    fake_serve(c, &r[0]);
    fake_serve_with(c, &r[1], (struct fake_hello){.group = "g1"}, "");
    for (int i = 0; i < 3000 && !ask[1]; i++) {
        on_loop(c, ask_both_ready, ask);
        usleep(1000);
    }
    assert_non_null(ask[1]);
    a->c = c;
    on_loop(c, start, a);
    assert_int_equal(a->started, OK);
    return fake_next(&r[0]);
}

/* The next group is asked for what is missing and nothing else; no word of the lost one counts. */
static void an_answer_goes_on_in_another_group(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2];
    struct answer a = {
        .prompt = {65, 66, 67}, .max_tokens = 7, .stop = {"cde"}, .stops = 1, .tenant = 6};
    const told *m = begin_two(&c, r, &a);
    assert_true(m->submit->attempt == 1 && m->submit->n_answer == 0);
    uint64_t id = m->submit->request_id;
    say(&r[0], m->submit, 0, "ab", WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    say(&r[0], m->submit, 2, "c", WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    wait_ids(&a, 3);
    fake_release(&r[0]);
    m = fake_next(&r[1]);
    const Witan__Cluster__V1__Submit *q = m->submit;
    assert_int_equal(m->body_case, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT);
    assert_true(q->request_id == id && q->attempt == 2 && q->max_tokens == 7 && q->tenant == 6);
    assert_true(q->n_prompt == 3 && q->prompt[0] == 65 && q->prompt[2] == 67);
    assert_true(q->n_answer == 3 && q->answer[0] == 'a' - 33 && q->answer[2] == 'c' - 33);
    assert_in_range(q->deadline_ms, 1, 2500);
    Witan__Cluster__V1__Submit late = *q;
    late.attempt = 1;
    say(&r[1], &late, 3, "z", WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    say(&r[1], q, 3, "x", WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    say(&r[1], q, 4, "cd", WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    say(&r[1], q, 6, "e", WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH);
    wait_end(&a);
    assert_string_equal(a.text, "abcx"); /* "c" was held back on one group and told on the other */
    assert_int_equal(a.end.reason, GENERATION_STOP);
    assert_true(a.ids == 7 && a.end.completion_tokens == 7 && a.end.prompt_tokens == 3);
    assert_int_equal(c.core->metrics.resumed, 1);
    fake_release(&r[1]);
    cluster_stop(&c);
}

static void it_goes_on_only_so_often(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2];
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 5};
    begin_two(&c, r, &a);
    fake_release(&r[0]);
    fake_next(&r[1]);
    fake_release(&r[1]);
    wait_end(&a);
    assert_int_equal(a.end.err.code, ERR_PEER);
    assert_non_null(strstr(a.end.err.msg, "group g1 was lost: rank 0 (test"));
    assert_non_null(strstr(a.end.err.msg, "lost its group 2 times (limits.failovers: 1)"));
    cluster_stop(&c);
}

/* With one group: held, and gone on with when it is back; what was told of the prompt is not asked
 * again. */
static void an_answer_waits_for_its_group(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 3, .prompt_logprobs = 1}, other;
    const told *m = begin(&c, &r, &a, "limits: {failover_timeout_s: 60}\n");
    fake_say_prompt(&r, m->submit, 1, 2, false);
    for (int i = 0; i < 3000 && a.seen_told < 1; i++) {
        on_loop(&c, look, &a);
        usleep(1000);
    }
    fake_release(&r);
    cluster_wait_ready(&c, false);
    start_as(&c, &other, 0); /* what has not begun is refused meanwhile */
    assert_int_equal(other.started, ERR_PEER);
    assert_int_equal(c.core->held, 1);
    fake_serve(&c, &r);
    m = fake_next(&r);
    assert_true(m->submit->attempt == 2 && m->submit->n_answer == 0);
    assert_int_equal(m->submit->prompt_told, 2);
    fake_say_prompt(&r, m->submit, 2, 3, true);
    wait_end(&a);
    assert_int_equal(a.end.reason, GENERATION_LENGTH);
    assert_true(a.prompt_told == 2 && a.ids == 1);
    assert_int_equal(c.core->held, 0);
    end(&c, &r);
}

static void cancel(void *arg)
{
    generation_cancel(((struct answer *)arg)->g);
}

/* A leader is not asked to take more at a time than it has room for: the rest goes on a turn later.
 */
static void many_go_on_in_turns(void **state)
{
    (void)state;
    enum { MANY = 1100, A_TURN = 1024 };
    struct cluster c;
    struct fake_rank r;
    struct answer *a = check_calloc(MANY, sizeof *a);
    cluster_start(&c, "limits: {requests: 2000, waiting: 2000, failover_timeout_s: 60}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    for (int i = 0; i < MANY; i++) {
        a[i] = (struct answer){
            .c = &c, .prompt = {65, 66, 67}, .max_tokens = 9, .no_deadline = true};
        on_loop(&c, start, &a[i]);
        assert_int_equal(a[i].started, OK);
    }
    fake_release(&r);
    cluster_wait_ready(&c, false);
    assert_int_equal(c.core->held, MANY);
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    for (int i = 0; i < A_TURN; i++)
        assert_int_equal(fake_next(&r)->submit->attempt, 2);
    on_loop(&c, look, &a[0]); /* the turn is over */
    assert_int_equal(c.core->held, MANY - A_TURN);
    on_loop(&c, tick, &c);
    assert_int_equal(c.core->held, 0);
    for (int i = A_TURN; i < MANY; i++)
        assert_int_equal(fake_next(&r)->submit->attempt, 2);
    for (int i = 0; i < MANY; i++)
        on_loop(&c, cancel, &a[i]);
    end(&c, &r);
    free(a);
}

static void what_is_held_can_be_cancelled_or_be_late(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 3}, late;
    begin(&c, &r, &a, "limits: {failover_timeout_s: 60}\n");
    start_as(&c, &late, 0);
    fake_release(&r);
    cluster_wait_ready(&c, false);
    assert_int_equal(c.core->held, 2);
    on_loop(&c, cancel, &a);
    wait_end(&late); /* its deadline of 2.5 s */
    assert_int_equal(late.end.err.code, ERR_CANCELLED);
    assert_non_null(strstr(late.end.err.msg, "group g0 was lost: "));
    assert_non_null(strstr(late.end.err.msg, "; deadline: the answer was not done in its time"));
    assert_false(a.ended);
    assert_int_equal(c.core->held, 0);
    cluster_stop(&c);
}

static void end_held(void *arg)
{
    generation_end_held(((struct cluster *)arg)->core);
}

/* As the coordinator ends nobody waits for a group: neither what is held already, where no other is
 * ready, nor what loses its group then. */
static void nothing_is_held_in_the_end(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2];
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 3, .no_deadline = true}, b = a;
    const told *m = begin_two(&c, r, &a);
    on_loop(&c, end_held, &c);
    fake_release(&r[0]); /* while another group is there all is as ever */
    m = fake_next(&r[1]);
    assert_int_equal(m->submit->attempt, 2);
    fake_release(&r[1]);
    wait_end(&a);
    assert_int_equal(a.end.err.code, ERR_PEER);
    cluster_stop(&c);
    begin(&c, &r[0], &b, "limits: {failover_timeout_s: 60}\n");
    fake_release(&r[0]);
    cluster_wait_ready(&c, false);
    assert_int_equal(c.core->held, 1);
    on_loop(&c, end_held, &c);
    wait_end(&b);
    assert_int_equal(b.end.err.code, ERR_PEER);
    assert_non_null(strstr(b.end.err.msg, "group g0 was lost: rank 0 (test, pid 4711) is gone"));
    assert_non_null(strstr(b.end.err.msg, "; the coordinator is stopping, and no group is ready"));
    assert_int_equal(c.core->held, 0);
    cluster_stop(&c);
}

/* Tokens of other arithmetic would be others. */
static void come_back_in_another_class(bool resumed)
{
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.c = &c, .prompt = {65, 66, 67}, .max_tokens = 3};
    if (resumed)
        a.after = behind("ab", 2);
    cluster_start_model(&c, ", device: cuda", "limits: {failover_timeout_s: 60}\n");
    fake_serve_with(&c, &r, (struct fake_hello){.device = "A GPU"}, "");
    cluster_wait_ready(&c, true);
    on_loop(&c, start, &a);
    assert_int_equal(a.started, OK);
    fake_next(&r);
    fake_release(&r);
    cluster_wait_ready(&c, false);
    fake_serve_with(&c, &r, (struct fake_hello){.device = "B", .class = "cuda-1-sm100"}, "");
    wait_end(&a);
    /* Who was told a part of it is not to ask for the rest again. */
    assert_int_equal(a.end.err.code, resumed ? ERR_CONFLICT : ERR_PEER);
    assert_non_null(strstr(a.end.err.msg, "the answer began in numerics class cuda-1-sm90, and "
                                          "group g0 computes in cuda-1-sm100"));
    end(&c, &r);
}

static void an_answer_goes_on_in_its_class_alone(void **state)
{
    (void)state;
    come_back_in_another_class(false);
    come_back_in_another_class(true);
}

static void a_bad_request_is_refused(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 1 << 30}};
    cluster_start(&c, "limits: {requests: 1, context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    a.c = &c;
    on_loop(&c, start, &a);
    assert_int_equal(a.started, ERR_INVALID);
    a.prompt[2] = 5;
    a.max_tokens = -1;
    on_loop(&c, start, &a);
    assert_int_equal(a.started, ERR_INVALID);
    a.max_tokens = 62;
    on_loop(&c, start, &a);
    assert_int_equal(a.started, ERR_LIMIT);
    assert_string_equal(a.err.msg,
                        "context: the prompt has 3 tokens and max_tokens is 62, and prompt and "
                        "answer may have 64 together: at most 61 for the answer");
    a.default_max_tokens = true; /* cut to what fits */
    on_loop(&c, start, &a);
    assert_int_equal(a.started, OK);
    assert_int_equal(fake_next(&r)->submit->max_tokens, 61);
    struct answer b = a;
    b.logprobs = 22;
    on_loop(&c, start, &b);
    assert_int_equal(b.started, ERR_INVALID);
    assert_string_equal(b.err.msg, "logprobs: expected 0 to 20, found 21");
    b.logprobs = 0;
    on_loop(&c, start, &b);
    assert_int_equal(b.started, ERR_NO_MEMORY);
    fake_release(&r);
    wait_end(&a);
    cluster_stop(&c);
}

/* --- too many at once ---------------------------------------------------------------------------
 */

static void assert_told_to_come_again(const struct answer *a, const char *words)
{
    assert_int_equal(a->started, ERR_NO_MEMORY);
    if (!strstr(a->err.msg, words) || !strstr(a->err.msg, "try again in "))
        fail_msg("expected \"%s\", found \"%s\"", words, a->err.msg);
}

static void a_tenant_has_no_more_than_its_share(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a[3], more;
    cluster_start(&c, "limits: {requests: 3, tenant_requests: 2, context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    start_as(&c, &a[0], 7);
    start_as(&c, &a[1], 7);
    start_as(&c, &more, 7);
    assert_told_to_come_again(&more, "2 requests of this tenant are under way, as many as it may "
                                     "have (limits.tenant_requests)");
    start_as(&c, &a[2], 8);
    start_as(&c, &more, 9);
    assert_told_to_come_again(&more,
                              "3 requests are under way, as many as may be (limits.requests)");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(a[i].started, OK);
        assert_int_equal(fake_next(&r)->submit->tenant, a[i].tenant);
    }
    fake_release(&r);
    for (int i = 0; i < 3; i++)
        wait_end(&a[i]);
    cluster_stop(&c);
}

static void say_load(struct fake_rank *r, uint32_t waiting, uint32_t kv_blocks)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Heartbeat beat = WITAN__CLUSTER__V1__HEARTBEAT__INIT;
    beat.waiting = waiting;
    beat.kv_blocks = kv_blocks;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HEARTBEAT;
    m.heartbeat = &beat;
    fake_send(r, &m);
}

/* The first token, with or without its logprobs. */
static void fake_say_logprobs(struct fake_rank *r, uint64_t id, uint64_t epoch,
                              Witan__Cluster__V1__TokenLogprobs *l)
{
    Witan__Cluster__V1__SequenceTokens s = WITAN__CLUSTER__V1__SEQUENCE_TOKENS__INIT;
    int32_t token = 5;
    s.request_id = id;
    s.attempt = 1;
    s.epoch = epoch;
    s.ids = &token;
    s.n_ids = 1;
    s.logprobs = &l;
    s.n_logprobs = l ? 1 : 0;
    fake_say_sequence(r, &s);
}

struct capacity_ask {
    const struct cluster *c;
    int64_t tokens;
};

static void ask_capacity(void *arg)
{
    struct capacity_ask *a = arg;
    a->tokens = members_capacity(a->c->core->members);
}

/* The heartbeat has come when its cache has. */
static void wait_capacity(struct cluster *c, int64_t tokens)
{
    struct capacity_ask a = {.c = c, .tokens = -1};
    for (int i = 0; i < 3000 && a.tokens != tokens; i++) {
        on_loop(c, ask_capacity, &a);
        usleep(1000);
    }
    assert_int_equal(a.tokens, tokens);
}

/* What can never run is refused with the numbers, before it goes anywhere. */
static void what_no_cache_holds_is_refused(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 62};
    cluster_start(&c, "limits: {context: 128}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    say_load(&r, 0, 1);
    wait_capacity(&c, KV_BLOCK);
    a.c = &c;
    on_loop(&c, start, &a);
    assert_int_equal(a.started, ERR_LIMIT);
    assert_string_equal(a.err.msg, "context: the prompt has 3 tokens and max_tokens is 62, and the "
                                   "KV cache holds 64 together: at most 61 for the answer");
    a.max_tokens = 0;
    on_loop(&c, start, &a);
    assert_int_equal(a.started, OK);
    assert_int_equal(fake_next(&r)->submit->max_tokens, 61);
    fake_release(&r);
    wait_end(&a);
    cluster_stop(&c);
}

/* A group that forgets logprobs, or tells some that nobody asked for, is not believed. */
static void logprobs_come_with_their_tokens(void **state)
{
    (void)state;
    for (int wanted = 0; wanted < 2; wanted++) {
        struct cluster c;
        struct fake_rank r;
        struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 5, .logprobs = wanted};
        const told *m = begin(&c, &r, &a, "");
        Witan__Cluster__V1__TokenLogprobs l = WITAN__CLUSTER__V1__TOKEN_LOGPROBS__INIT;
        fake_say_logprobs(&r, m->submit->request_id, m->submit->epoch, wanted ? NULL : &l);
        wait_end(&a);
        assert_int_equal(a.end.err.code, ERR_PEER);
        assert_non_null(strstr(a.end.err.msg, "sent the answer's logprobs out of turn"));
        assert_int_equal(a.ids, 0);
        end(&c, &r);
    }
}

static void logprobs_of_the_prompt_come_whole(void **state)
{
    (void)state;
    static const struct {
        int32_t from, to, then; /* of 3 tokens: positions 1 and 2 */
        enum generation_reason reason;
    } cases[] = {
        {1, 2, 3, GENERATION_LENGTH}, /* in two pieces */
        {1, 2, 2, GENERATION_FAILED}, /* one is missing */
        {2, 3, 3, GENERATION_FAILED}, /* the first is */
        {1, 4, 4, GENERATION_FAILED}, /* one too many */
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct cluster c;
        struct fake_rank r;
        struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 5, .prompt_logprobs = 1};
        const told *m = begin(&c, &r, &a, "");
        assert_int_equal(m->submit->prompt_logprobs->top, 0);
        fake_say_prompt(&r, m->submit, cases[i].from, cases[i].to, false);
        fake_say_prompt(&r, m->submit, cases[i].to, cases[i].then, true);
        wait_end(&a);
        assert_int_equal(a.end.reason, cases[i].reason);
        if (cases[i].reason == GENERATION_FAILED)
            assert_non_null(strstr(a.end.err.msg, "the prompt's logprobs out of turn"));
        assert_int_equal(a.prompt_told, i == 0 ? 2 : i == 1 ? 1 : 0);
        end(&c, &r);
    }
}

static void no_more_wait_than_may(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a[5], more;
    cluster_start(&c, "limits: {sequences: 2, waiting: 2, context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    for (int i = 0; i < 4; i++) {
        start_as(&c, &a[i], 0);
        assert_int_equal(a[i].started, OK);
    }
    start_as(&c, &more, 0);
    assert_told_to_come_again(&more,
                              "2 requests wait in group g0, as many as may (limits.waiting)");
    fake_release(&r);
    for (int i = 0; i < 4; i++)
        wait_end(&a[i]);
    cluster_stop(&c);
}

/* The choices of one answer are started in one instant: the first is judged, and those after it do
 * not queue behind it. */
static void an_answer_is_let_in_once(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a[8], more;
    cluster_start(&c, "limits: {sequences: 1, waiting: 1, waiting_tokens: 3, requests: 8, "
                      "context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    for (int i = 0; i < 8; i++) {
        a[i] = (struct answer){.c = &c, .prompt = {65, 66, 67}, .max_tokens = 5, .accepted = i > 0};
        on_loop(&c, start, &a[i]);
        assert_int_equal(a[i].started, OK);
    }
    a[0].accepted = true;
    more = a[0];
    on_loop(&c, start, &more);
    assert_told_to_come_again(&more, "(limits.requests)"); /* this holds for all */
    on_loop(&c, cancel, &a[7]);
    start_as(&c, &more, 0);
    assert_told_to_come_again(&more, "(limits.waiting)");
    fake_release(&r);
    for (int i = 0; i < 7; i++)
        wait_end(&a[i]);
    cluster_stop(&c);
}

/* One that takes an older one's place asks for no room, however little there is. */
static void what_replaces_another_finds_room(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a, more = {.c = &c, .prompt = {65, 66, 67}, .max_tokens = 5};
    cluster_start(&c, "limits: {sequences: 1, waiting: 1, waiting_tokens: 1, requests: 1, "
                      "tenant_requests: 1, memory_mb: 1, context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    start_as(&c, &a, 0);
    assert_int_equal(a.started, OK);
    c.core->doors = 9 << 20;
    on_loop(&c, start, &more);
    assert_int_equal(more.started, ERR_NO_MEMORY);
    more.replaces = true;
    on_loop(&c, start, &more);
    assert_int_equal(more.started, OK);
    fake_release(&r);
    wait_end(&a);
    wait_end(&more);
    cluster_stop(&c);
}

/* A cache that is too small for all slots makes requests wait that a count alone would not see. */
static void the_groups_own_word_on_waiting_counts(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a[3], more;
    cluster_start(&c, "limits: {sequences: 8, waiting: 2, context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    for (int i = 0; i < 3; i++) {
        start_as(&c, &a[i], 0);
        assert_int_equal(a[i].started, OK);
    }
    say_load(&r, 2, 5);
    wait_capacity(&c, 5 * KV_BLOCK);
    start_as(&c, &more, 0);
    assert_told_to_come_again(&more, "(limits.waiting)");
    fake_release(&r);
    for (int i = 0; i < 3; i++)
        wait_end(&a[i]);
    cluster_stop(&c);
}

/* A first token of `m`, and what comes of it is seen. */
static void say_first(struct cluster *c, struct fake_rank *r, const told *m, struct answer *a)
{
    const int32_t id = 70;
    fake_say_tokens(r, m->submit->request_id, 1, m->submit->epoch, 0, &id, 1,
                    WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    for (int i = 0; i < 3000 && a->seen_ids == 0; i++) {
        on_loop(c, look, a);
        usleep(1000);
    }
    assert_int_equal(a->seen_ids, 1);
}

/* One that is larger than the bound comes in where nothing else waits. */
static void prompts_that_wait_are_bounded(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a[3], more;
    cluster_start(&c, "limits: {waiting_tokens: 2, context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    for (int i = 0; i < 3; i++) {
        start_as(&c, &a[i], 0);
        assert_int_equal(a[i].started, OK);
        const told *m = fake_next(&r);
        start_as(&c, &more, 0);
        assert_told_to_come_again(&more, "prompts of 3 tokens wait in group g0, as much as may "
                                         "(limits.waiting_tokens)");
        say_first(&c, &r, m, &a[i]);
    }
    fake_release(&r);
    for (int i = 0; i < 3; i++)
        wait_end(&a[i]);
    cluster_stop(&c);
}

struct admit_ask {
    struct cluster *c;
    uint64_t tenant;
    int32_t priority;
    uint32_t deadline_ms;
    enum status status;
    struct error err;
    int32_t retry_s;
};

static void ask_admit(void *arg)
{
    struct admit_ask *a = arg;
    a->status = core_admit(a->c->core, a->tenant, a->priority, a->deadline_ms, &a->err);
    a->retry_s = core_retry_s(a->c->core);
}

static int32_t refused_retry_s; /* what the last was told */

static void assert_admitted(struct cluster *c, uint64_t tenant, int32_t priority,
                            uint32_t deadline_ms, const char *refused)
{
    struct admit_ask a = {
        .c = c, .tenant = tenant, .priority = priority, .deadline_ms = deadline_ms};
    on_loop(c, ask_admit, &a);
    if (!refused) {
        assert_int_equal(a.status, OK);
        return;
    }
    assert_int_equal(a.status, ERR_NO_MEMORY);
    assert_in_range(a.retry_s, 1, 60);
    if (!strstr(a.err.msg, refused))
        fail_msg("expected \"%s\", found \"%s\"", refused, a.err.msg);
    refused_retry_s = a.retry_s;
}

/* One slot, taken, and one request behind it: how long another would wait is known from then on. */
static void nobody_waits_longer_than_may(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a[2];
    cluster_start(&c, "limits: {sequences: 1, step_tokens: 1, waiting_ms: 600000, context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    for (int i = 0; i < 2; i++)
        start_as(&c, &a[i], 0);
    const told *m = fake_next(&r);
    assert_int_equal(fake_next(&r)->submit->n_prompt, 3);
    usleep(100000);
    say_first(&c, &r, m, &a[0]);
    assert_admitted(&c, 7, 0, 0, NULL);
    assert_admitted(&c, 7, 0, 1, "and its deadline is sooner");
    c.config.limits.waiting_ms = 1;
    assert_admitted(&c, 7, 0, 0, "longer than it may (limits.waiting_ms)");
    assert_admitted(&c, 7, 1, 0, "longer than it may (limits.waiting_ms)");
    assert_admitted(&c, 7, -1, 0, NULL); /* nobody is before it */
    fake_release(&r);
    for (int i = 0; i < 2; i++)
        wait_end(&a[i]);
    assert_int_equal(c.core->metrics.refused[METRICS_LIMIT_WAITING_MS], 2);
    assert_int_equal(c.core->metrics.refused[METRICS_LIMIT_DEADLINE], 1);
    assert_int_equal(c.core->bytes, 0);
    cluster_stop(&c);
}

/* Puts a wait of 1000 s before whoever comes with priority 0. */
static void make_wait(void *arg)
{
    struct cluster *c = arg;
    struct backlog *b = &c->core->members->groups[0].backlog;
    b->tokens[1] += 1000 - backlog_tokens(b);
    b->begun = b->busy_s = 1000;
    b->count = 1;
    b->seen_ns = clock_now_ns();
}

static void unmake_wait(void *arg)
{
    struct cluster *c = arg;
    c->core->members->groups[0].backlog.tokens[1] -= 997;
    c->core->auth = NULL;
}

/* Batch work is let in at half of the bound, a tenant of whom nobody waits at twice. */
static void who_waits_how_long(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a;
    cluster_start(&c, "limits: {sequences: 1, step_tokens: 1, waiting_ms: 1500000, context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    start_as(&c, &a, 3);
    on_loop(&c, make_wait, &c);
    assert_admitted(&c, 7, 0, 0, NULL);
    assert_admitted(&c, 7, 1, 0, "(limits.waiting_ms)");
    c.config.limits.waiting_ms = 750000;
    assert_admitted(&c, 7, 0, 0, "(limits.waiting_ms)");
    c.core->auth = (struct auth *)&c; /* there are keys, so tenants; nobody looks inside */
    assert_admitted(&c, 7, 0, 0, NULL);
    assert_admitted(&c, 7, 1, 0, "(limits.waiting_ms)");
    assert_admitted(&c, 3, 0, 0, "(limits.waiting_ms)");
    c.config.limits.waiting_ms = 400000;
    assert_admitted(&c, 7, 0, 0, "(limits.waiting_ms)");
    /* When there is room is told, not how long one would wait then: 1000 s and what has
     * passed, or 990 less. */
    c.config.limits.waiting_ms = 495000;
    assert_admitted(&c, 7, 0, 0, "(limits.waiting_ms)");
    assert_in_range(refused_retry_s, 8, 30);
    assert_admitted(&c, 7, 0, 990000, "and its deadline is sooner");
    assert_in_range(refused_retry_s, 8, 30);
    c.config.limits.waiting_ms = 990000;
    assert_admitted(&c, 3, 0, 0, "(limits.waiting_ms)");
    assert_in_range(refused_retry_s, 8, 30);
    on_loop(&c, unmake_wait, &c);
    fake_release(&r);
    wait_end(&a);
    cluster_stop(&c);
}

struct fed_ask {
    struct cluster *c;
    struct backlog seen;
};

static void ask_fed(void *arg)
{
    struct fed_ask *a = arg;
    a->seen = a->c->core->members->groups[0].backlog;
}

static void say_fed(struct cluster *c, struct fake_rank *r, uint64_t rows)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Heartbeat beat = WITAN__CLUSTER__V1__HEARTBEAT__INIT;
    Witan__Cluster__V1__Engine engine = WITAN__CLUSTER__V1__ENGINE__INIT;
    struct fed_ask a = {.c = c};
    engine.prompt_rows = rows;
    beat.engine = &engine;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HEARTBEAT;
    m.heartbeat = &beat;
    fake_send(r, &m);
    for (int i = 0; i < 3000 && a.seen.told != rows; i++) {
        on_loop(c, ask_fed, &a);
        usleep(1000);
    }
    assert_true(a.seen.told == rows);
    assert_true(a.seen.fed == 0.0);
}

/* What its ranks have fed before they came is not of those that wait now. */
static void ranks_come_with_a_past(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    cluster_start(&c, "");
    for (uint64_t i = 1; i <= 2; i++) {
        fake_serve(&c, &r);
        cluster_wait_ready(&c, true);
        say_fed(&c, &r, i * 5000000);
        fake_release(&r);
        cluster_wait_ready(&c, false);
    }
    cluster_stop(&c);
}

static void memory_is_bounded(void **state)
{
    (void)state;
    enum { ENOUGH = 200 };
    static struct answer a[ENOUGH];
    struct cluster c;
    struct fake_rank r;
    int count = 0;
    cluster_start(&c, "limits: {memory_mb: 1, context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    do
        start_as(&c, &a[count], 0);
    while (a[count].started == OK && ++count < ENOUGH);
    assert_in_range(count, 20, ENOUGH - 1);
    assert_told_to_come_again(&a[count], "take 1 MB of memory, as much as they may "
                                         "(limits.memory_mb)");
    assert_admitted(&c, 7, -1, 0, "(limits.memory_mb)");
    fake_release(&r);
    for (int i = 0; i < count; i++)
        wait_end(&a[i]);
    assert_int_equal(c.core->bytes, 0);
    cluster_stop(&c);
}

/* Its first token makes a request safe from limits.queue_timeout_s. */
static void waiting_has_an_end(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 9}, begun;
    begin(&c, &r, &a, "limits: {queue_timeout_s: 1, context: 64}\n");
    start_as(&c, &begun, 0);
    say_first(&c, &r, fake_next(&r), &begun);
    for (int i = 0; i < 3000 && !a.seen_end; i++) {
        on_loop(&c, tick, &c);
        on_loop(&c, look, &a);
        usleep(10000);
    }
    assert_int_equal(a.end.reason, GENERATION_FAILED);
    assert_int_equal(a.end.err.code, ERR_CANCELLED);
    assert_string_equal(a.end.err.msg, "no token came within 1 seconds (limits.queue_timeout_s)");
    assert_int_equal(fake_next(&r)->body_case,
                     WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_CANCEL);
    on_loop(&c, look, &begun);
    assert_int_equal(begun.seen_ids, 1);
    assert_false(begun.seen_end);
    fake_release(&r);
    wait_end(&begun);
    cluster_stop(&c);
}
static const struct CMUnitTest tests[] = {
    cmocka_unit_test(tokens_become_text),
    cmocka_unit_test(only_the_current_attempt_counts),
    cmocka_unit_test(a_stop_string_cancels_the_rest),
    cmocka_unit_test(a_deadline_ends_a_request),
    cmocka_unit_test(broken_tokens_lose_the_rank),
    cmocka_unit_test(losing_the_group_ends_its_requests),
    cmocka_unit_test(what_was_told_is_not_told_again),
    cmocka_unit_test(what_was_held_back_is_told),
    cmocka_unit_test(another_answers_position_is_refused),
    cmocka_unit_test(another_class_is_refused_at_once),
    cmocka_unit_test(an_answer_goes_on_in_another_group),
    cmocka_unit_test(it_goes_on_only_so_often),
    cmocka_unit_test(an_answer_waits_for_its_group),
    cmocka_unit_test(many_go_on_in_turns),
    cmocka_unit_test(what_is_held_can_be_cancelled_or_be_late),
    cmocka_unit_test(nothing_is_held_in_the_end),
    cmocka_unit_test(an_answer_goes_on_in_its_class_alone),
    cmocka_unit_test(a_bad_request_is_refused),
    cmocka_unit_test(a_tenant_has_no_more_than_its_share),
    cmocka_unit_test(what_no_cache_holds_is_refused),
    cmocka_unit_test(logprobs_come_with_their_tokens),
    cmocka_unit_test(logprobs_of_the_prompt_come_whole),
    cmocka_unit_test(no_more_wait_than_may),
    cmocka_unit_test(an_answer_is_let_in_once),
    cmocka_unit_test(what_replaces_another_finds_room),
    cmocka_unit_test(the_groups_own_word_on_waiting_counts),
    cmocka_unit_test(prompts_that_wait_are_bounded),
    cmocka_unit_test(nobody_waits_longer_than_may),
    cmocka_unit_test(who_waits_how_long),
    cmocka_unit_test(ranks_come_with_a_past),
    cmocka_unit_test(memory_is_bounded),
    cmocka_unit_test(waiting_has_an_end),
};

UNIT_MAIN(tests)
