/* What becomes of requests when their group goes: they go on in another, wait, or end. */
#include "tests/unit/coordinator/generations.h"

#include "coordinator/calls.h"

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

/* What is told of an answer's first characters, written as on_pieces does. */
static void tell_prefix(enum call_format format, const char *text, int32_t len, struct answer *out)
{
    struct calls c;
    struct error err;
    calls_init(&c, format, NULL, false);
    assert_int_equal(calls_push(&c, text, (size_t)len, &err), OK);
    for (size_t i = 0; i < c.count; i++) {
        const struct call_piece *k = &c.pieces[i];
        const struct told_piece p = {.call = k->index,
                                     .name = k->named ? c.out.data + k->name : NULL,
                                     .text = c.out.data + k->begin,
                                     .len = k->len,
                                     .end = k->end};
        on_pieces(out, &p, 1);
    }
    calls_fini(&c);
}

/* Wherever in a call it stopped, before, inside or behind. */
static void a_call_goes_on_where_it_was(void **state)
{
    (void)state;
    static const char whole[] = "so<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"b\"}}"
                                "</tool_call>then";
    static const char told_of_it[] = "so{f|{\"a\":\"b\"}}then";
    static const int32_t from[] = {1, 2, 5, 13, 25, 37, 40, 43, 46, 47, 48, 60, 62};
    for (size_t i = 0; i < COUNT_OF(from); i++) {
        struct answer a = {.after = behind(whole, from[i]), .format = CALLS_HERMES}, before = {0};
        tell_after(&a, whole, 1 + (int32_t)(i % 5));
        tell_prefix(CALLS_HERMES, whole, from[i], &before);
        assert_memory_equal(before.text, told_of_it, strlen(before.text));
        assert_string_equal(a.text, told_of_it + strlen(before.text));
        assert_int_equal(a.end.calls, 1);
    }
    /* The first call ends the answer, told before or now. */
    for (int32_t tokens = 40; tokens <= 48; tokens += 8) {
        struct answer a = {
            .after = behind(whole, tokens), .format = CALLS_HERMES, .one_call = true};
        tell_after(&a, whole, 16);
        assert_string_equal(a.text, tokens == 40 ? "\":\"b\"}}" : "");
        assert_int_equal(a.end.reason, GENERATION_STOP);
        assert_int_equal(a.end.calls, 1);
    }
}

static void so_does_one_of_qwen3_coder(void **state)
{
    (void)state;
    static const char whole[] = "so<function=f><parameter=s>a</b></parameter></function>"
                                "</tool_call>then";
    static const char told_of_it[] = "so{f|{\"s\": \"a</b>\"}}then";
    static const int32_t from[] = {2, 9, 14, 26, 27, 29, 32, 43, 54, 55, 60, 69};
    for (size_t i = 0; i < COUNT_OF(from); i++) {
        struct answer a = {.after = behind(whole, from[i]), .format = CALLS_CODER}, before = {0};
        tell_after(&a, whole, 1 + (int32_t)(i % 5));
        tell_prefix(CALLS_CODER, whole, from[i], &before);
        assert_memory_equal(before.text, told_of_it, strlen(before.text));
        assert_string_equal(a.text, told_of_it + strlen(before.text));
        assert_int_equal(a.end.calls, 1);
    }
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

/* In the middle of a call's arguments too. */
static void a_call_goes_on_in_another_group(void **state)
{
    (void)state;
    static const char *const parts[] = {"<tool_call>{\"n", "ame\":\"f\",\"argu",
                                        "ments\":{\"a\":\"b", "c\"}}</tool_call>", "done"};
    struct cluster c;
    struct fake_rank r[2];
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 80, .format = CALLS_HERMES};
    const told *m = begin_two(&c, r, &a);
    int32_t at = 0;
    for (int i = 0; i < 3; at += (int32_t)strlen(parts[i++]))
        say(&r[0], m->submit, at, parts[i], WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    wait_ids(&a, at);
    assert_string_equal(a.text, "{f|{\"a\":\"b");
    fake_release(&r[0]);
    m = fake_next(&r[1]);
    assert_int_equal(m->submit->n_answer, at);
    say(&r[1], m->submit, at, parts[3], WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    at += (int32_t)strlen(parts[3]);
    say(&r[1], m->submit, at, parts[4], WITAN__CLUSTER__V1__FINISH__FINISH_STOP);
    wait_end(&a);
    assert_string_equal(a.text, "{f|{\"a\":\"bc\"}}don"); /* the last token is the end */
    assert_int_equal(a.end.reason, GENERATION_STOP);
    assert_int_equal(a.end.calls, 1);
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

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(what_was_told_is_not_told_again),
    cmocka_unit_test(what_was_held_back_is_told),
    cmocka_unit_test(a_call_goes_on_where_it_was),
    cmocka_unit_test(so_does_one_of_qwen3_coder),
    cmocka_unit_test(a_call_goes_on_in_another_group),
    cmocka_unit_test(another_answers_position_is_refused),
    cmocka_unit_test(another_class_is_refused_at_once),
    cmocka_unit_test(an_answer_goes_on_in_another_group),
    cmocka_unit_test(it_goes_on_only_so_often),
    cmocka_unit_test(an_answer_waits_for_its_group),
    cmocka_unit_test(many_go_on_in_turns),
    cmocka_unit_test(what_is_held_can_be_cancelled_or_be_late),
    cmocka_unit_test(nothing_is_held_in_the_end),
    cmocka_unit_test(an_answer_goes_on_in_its_class_alone),
};

UNIT_MAIN(tests)
