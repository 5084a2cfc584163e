/* Which tokens may be drawn next: worker/masks.c and worker/words.c, against trying every token. */
#include "tests/unit/unit.h"

#include "tests/unit/worker/made_words.h"
#include "worker/masks.h"

#include <jansson.h>

enum { VOCAB = 700, LIMIT = 690, ENDS = 2 };

static const int32_t ends[ENDS] = {3, 650};

static struct masks *masks_over(const struct made_words *made)
{
    struct masks *m = NULL;
    struct error err;
    assert_int_equal(masks_create(made_create(made), LIMIT, ends, ENDS, &m, &err), OK);
    return m;
}

static bool has(const struct mask *m, int32_t id)
{
    return m->allowed[id / 64] >> (id % 64) & 1;
}

/* What the definition says of one token. */
static bool may_follow(const struct made_words *made, const struct constraint *c,
                       const struct constraint_state *s, int32_t id, int32_t left)
{
    struct constraint_state after = *s;
    if (constraint_closing(c, s) == 0)
        return made_is_end(ends, ENDS, id);
    if (id >= LIMIT || made->kinds[id] == WORD_NEVER ||
        (made->kinds[id] == WORD_ADDED && !constraint_is_free(s)))
        return false;
    for (uint32_t i = 0; i < made->lengths[id]; i++)
        if (!constraint_take(c, &after, (unsigned char)made->bytes[id][i]))
            return false;
    return constraint_closing(c, &after) <= left - 2;
}

static void check_mask(const struct made_words *made, struct masks *m, const struct constraint *c,
                       const struct constraint_state *s, int32_t left, struct mask *out)
{
    *out = masks_of(m, c, s, left);
    for (int32_t id = 0; id < masks_row(LIMIT) * 64; id++) {
        bool expected = id < VOCAB && may_follow(made, c, s, id, left);
        if (has(out, id) != expected)
            fail_msg("token %d with %d left, closing %d: expected it %s", id, left,
                     constraint_closing(c, s), expected ? "allowed" : "forbidden");
    }
}

static int32_t draw(const struct mask *m, uint64_t *seed)
{
    int32_t id = random_int(seed, 0, LIMIT - 1);
    for (int32_t tries = 0; tries < LIMIT; tries++, id = (id + 1) % LIMIT)
        if (has(m, id))
            return id;
    fail_msg("no token is allowed");
    return -1;
}

/* Answers drawn at random, of any most of tokens: each ends in time and is an object. */
static void random_answers_are_objects(void **state)
{
    (void)state;
    uint64_t seed = 1;
    struct made_words made = made_words(VOCAB, ends, ENDS);
    struct masks *m = masks_over(&made);
    for (int32_t trial = 0; trial < 400; trial++) {
        const struct constraint c = {
            .kind = CONSTRAINT_JSON_OBJECT,
            .thought = (enum constraint_thought)(trial % CONSTRAINT_THOUGHTS)};
        int32_t least = constraint_least_tokens(&c);
        int32_t most = trial % 4 ? random_int(&seed, least, 60) : least, left = most;
        struct constraint_state s;
        char text[61 * MADE_MOST];
        size_t len = 0, object = 0;
        constraint_start(&c, &s);
        for (;; left--) {
            struct mask mask;
            assert_true(left > 0);
            check_mask(&made, m, &c, &s, left, &mask);
            int32_t id = draw(&mask, &seed);
            assert_true(masks_take(m, &c, id, &s));
            if (made_is_end(ends, ENDS, id))
                break;
            memcpy(text + len, made.bytes[id], made.lengths[id]);
            len += made.lengths[id];
            const char *tag = memmem(text, len, "</think>", 8);
            object = tag && c.thought != CONSTRAINT_NO_THOUGHT && object == 0
                         ? (size_t)(tag - text) + 8
                         : object;
        }
        bool thought = c.thought == CONSTRAINT_IN_THOUGHT || memmem(text, len, "<think>", 7);
        json_t *v = json_loadb(text + (thought ? object : 0), len - (thought ? object : 0), 0,
                               NULL);
        if (!json_is_object(v) && !(thought && c.thought != CONSTRAINT_IN_THOUGHT))
            fail_msg("%.*s", (int)len, text);
        json_decref(v);
    }
    assert_true(masks_made(m) > MASKS_KEPT); /* some have been given up for others */
    masks_destroy(m);
    made_free(&made);
}

/* The same of calls in XML, whose values are free. */
static void random_calls_end_in_time(void **state)
{
    (void)state;
    static const char text[] = "</function>\n</tool_call>\0<tool_call>\n<function=a>\n"
                               "\1!ab>\n\1?abc>\n\0<tool_call>\n<function=no>\n";
    uint64_t seed = 2;
    struct made_words made = made_words(VOCAB, ends, ENDS);
    struct masks *m = masks_over(&made);
    int values = 0;
    static const char *const parts[] = {"x", "x<", "x</", "x</para", "x<p", "x</t"};
    for (size_t i = 0; i < 2 * COUNT_OF(parts); i++) {
        const struct constraint c = {
            .kind = CONSTRAINT_CODER, .text = text, .text_len = sizeof text, .heads = 2};
        static const char begun[] = "<tool_call>\n<function=a>\n<parameter=ab>\n";
        struct constraint_state s;
        struct mask mask;
        constraint_start(&c, &s);
        for (const char *at = begun; *at; at++)
            assert_true(constraint_take(&c, &s, (unsigned char)*at));
        for (const char *at = parts[i / 2]; *at; at++)
            assert_true(constraint_take(&c, &s, (unsigned char)*at));
        check_mask(&made, m, &c, &s, i % 2 ? 300 : constraint_closing(&c, &s) + 3, &mask);
    }
    for (int32_t trial = 0; trial < 40; trial++) {
        const struct constraint c = {.kind = CONSTRAINT_CODER,
                                     .thought = (enum constraint_thought)(trial % 3),
                                     .text = text,
                                     .text_len = sizeof text,
                                     .heads = 2};
        int32_t least = constraint_least_tokens(&c);
        int32_t left = trial % 4 ? least + random_int(&seed, 0, 90) : least;
        struct constraint_state s;
        struct mask mask;
        constraint_start(&c, &s);
        for (int32_t id = -1; !made_is_end(ends, ENDS, id); left--) {
            assert_true(left > 0);
            check_mask(&made, m, &c, &s, left, &mask);
            values += constraint_run(&s) == CONSTRAINT_PARAMETER;
            id = draw(&mask, &seed);
            assert_true(masks_take(m, &c, id, &s));
        }
    }
    assert_true(values > 50);
    masks_destroy(m);
    made_free(&made);
}

/* One that says something, too: it ends an answer, and stands in none. */
static void an_ordinary_token_may_be_an_end(void **state)
{
    (void)state;
    enum { PLAIN = 400 };
    const int32_t with_plain[] = {3, PLAIN};
    struct made_words made = made_words(VOCAB, ends, ENDS);
    struct masks *m;
    struct error err;
    const struct constraint c = {.kind = CONSTRAINT_JSON_OBJECT};
    struct constraint_state s;
    made.lengths[PLAIN] = 1;
    made.bytes[PLAIN][0] = '{';
    assert_int_equal(masks_create(made_create(&made), LIMIT, with_plain, 2, &m, &err), OK);
    constraint_start(&c, &s);
    struct mask mask = masks_of(m, &c, &s, 60);
    assert_false(has(&mask, PLAIN));
    assert_false(masks_take(m, &c, PLAIN, &s));
    assert_true(constraint_take(&c, &s, '{') && constraint_take(&c, &s, '}'));
    mask = masks_of(m, &c, &s, 60);
    assert_true(has(&mask, PLAIN) && masks_take(m, &c, PLAIN, &s));
    masks_destroy(m);
    made_free(&made);
}

static void masks_of_one_name_are_equal(void **state)
{
    (void)state;
    struct made_words made = made_words(VOCAB, ends, ENDS);
    struct masks *m = masks_over(&made);
    const struct constraint c = {.kind = CONSTRAINT_JSON_OBJECT, .thought = CONSTRAINT_NO_THOUGHT};
    struct constraint_state s;
    constraint_start(&c, &s);
    uint64_t name = masks_of(m, &c, &s, 50).name;
    assert_true(masks_of(m, &c, &s, 500).name == name);
    assert_int_equal(masks_made(m), 1);
    assert_true(masks_of(m, &c, &s, 3).name != name); /* nothing but the shortest */
    assert_true(masks_bytes(m) > MASKS_KEPT * LIMIT / 8);
    masks_destroy(m);
    made_free(&made);
}

/* Near the end of an answer too, where a mask leaves out what has no room. */
static void a_mask_is_made_once(void **state)
{
    (void)state;
    struct made_words made = made_words(VOCAB, ends, ENDS);
    struct masks *m = masks_over(&made);
    const struct constraint c = {.kind = CONSTRAINT_JSON_OBJECT, .thought = CONSTRAINT_NO_THOUGHT};
    struct constraint_state s;
    constraint_start(&c, &s);
    uint64_t name = masks_of(m, &c, &s, 3).name;
    assert_int_equal(masks_made(m), 1);
    assert_true(masks_of(m, &c, &s, 3).name == name);
    assert_int_equal(masks_made(m), 1);
    assert_true(masks_of(m, &c, &s, 50).name != name);
    assert_true(masks_of(m, &c, &s, 3).name == name); /* both are kept */
    assert_int_equal(masks_made(m), 2);
    masks_destroy(m);
    made_free(&made);
}

static void what_does_not_fit_together_is_refused(void **state)
{
    (void)state;
    struct words *w = NULL;
    struct masks *m = NULL;
    struct error err;
    const uint32_t lengths[] = {1, 2};
    const uint8_t kinds[] = {WORD_PLAIN, WORD_PLAIN}, strange[] = {WORD_KINDS, WORD_PLAIN};
    assert_int_equal(words_create("abc", 3, lengths, kinds, 2, &w, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "no token of byte 0x00 alone"));
    assert_int_equal(words_create("ab", 2, lengths, kinds, 2, &w, &err), ERR_INVALID);
    assert_int_equal(words_create("abcd", 4, lengths, kinds, 2, &w, &err), ERR_INVALID);
    assert_int_equal(words_create("abc", 3, lengths, strange, 2, &w, &err), ERR_INVALID);
    assert_int_equal(words_create("", 0, lengths, kinds, 0, &w, &err), ERR_INVALID);
    struct made_words made = made_words(VOCAB, ends, ENDS);
    w = made_create(&made);
    assert_int_equal(masks_create(w, LIMIT, ends, 0, &m, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "no end-of-sequence token"));
    words_destroy(w);
    made_free(&made);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_ordinary_token_may_be_an_end),
        cmocka_unit_test(random_answers_are_objects),
        cmocka_unit_test(random_calls_end_in_time),
        cmocka_unit_test(masks_of_one_name_are_equal),
        cmocka_unit_test(a_mask_is_made_once),
        cmocka_unit_test(what_does_not_fit_together_is_refused),
    };
    (void)shared_path;
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
