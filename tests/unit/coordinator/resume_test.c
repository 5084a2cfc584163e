/* Keys, positions and claims: what they are made of, what is refused, who gives way. */
#include "tests/unit/unit.h"

#include "coordinator/resume.h"

#include <stdio.h>
#include <string.h>

static struct resume_key key_of(uint64_t tenant, const char *key, const char *what,
                                const char *body)
{
    struct resume_key k;
    struct error err;
    assert_int_equal(resume_key_init(&k, tenant, key, what, body, strlen(body), &err), OK);
    return k;
}

static void all_that_was_asked_is_in_the_seed(void **state)
{
    (void)state;
    char name[RESUME_NAME_BYTES + 1], other[RESUME_NAME_BYTES + 1];
    const struct resume_key k = key_of(7, "k", "/v1/completions", "{}");
    const struct resume_key others[] = {
        key_of(8, "k", "/v1/completions", "{}"), key_of(7, "l", "/v1/completions", "{}"),
        key_of(7, "k", "/v1/chat/completions", "{}"), key_of(7, "k", "/v1/completions", "{} ")};
    struct resume_key same = key_of(7, "k", "/v1/completions", "{}");
    assert_true(resume_seed(&k) == resume_seed(&same));
    resume_name(&k, name);
    assert_int_equal(strlen(name), RESUME_NAME_BYTES);
    resume_name(&same, other);
    assert_string_equal(name, other);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        assert_true(resume_seed(&k) != resume_seed(&others[i]));
        resume_name(&others[i], other);
        assert_string_not_equal(name, other);
        assert_int_equal(digest_equal(&k.key, &others[i].key), i >= 2);
    }
    /* So it is for ever: a retry may come to another release. */
    assert_true(resume_seed(&k) == UINT64_C(0xdc35a521f50503e8));
}

static void keys_that_are_none(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "a b", "a\tb", "\x7f", "k\xc3\xa9y", " k"};
    struct resume_key k;
    struct error err;
    char longest[RESUME_MAX_KEY + 2];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(resume_key_init(&k, 0, bad[i], "x", "", 0, &err), ERR_INVALID);
    memset(longest, '~', sizeof longest);
    longest[RESUME_MAX_KEY + 1] = '\0';
    assert_int_equal(resume_key_init(&k, 0, longest, "x", "", 0, &err), ERR_INVALID);
    assert_string_equal(err.msg, "expected 1 to 255 characters, found 256");
    assert_int_equal(resume_key_init(&k, 0, longest + 1, "x", "", 0, &err), OK);
}

static void positions_go_there_and_back(void **state)
{
    (void)state;
    struct resume_key k = key_of(7, "k", "x", "{}");
    struct resume_position p, q;
    struct buf out;
    struct error err;
    const int32_t ids[] = {5, 0x01020304, 0};
    buf_init(&out, RESUME_MAX_POSITION);
    resume_begin(&p, &k, 4, 1700000000);
    strcpy(p.class, "cuda-1-sm90-int4-kv8");
    p.at[0].begun = true;
    p.at[2].begun = p.at[2].thought = true;
    resume_add(&p.at[2], ids, 3);
    p.at[2].thought = true;
    p.at[3].begun = p.at[3].ended = true;
    resume_add(&p.at[3], ids, 2);
    resume_print(&p, &out);
    char want[160];
    snprintf(want, sizeof want,
             "1700000000/cuda-1-sm90-int4-kv8/%08x/0-811c9dc5,,3-%08x-thought,2-%08x-end",
             p.request, p.at[2].check, p.at[3].check);
    assert_string_equal(out.data, want);
    resume_begin(&q, &k, 4, 1800000000);
    assert_int_equal(resume_from(&q, want, &err), OK);
    assert_true(q.created == 1700000000 && !q.usage && q.resumed);
    assert_string_equal(q.class, p.class);
    assert_memory_equal(q.at, p.at, 4 * sizeof p.at[0]);
    /* Order matters to the check. */
    assert_true(resume_check(resume_nowhere().check, (int32_t[]){1, 2}, 2) !=
                resume_check(resume_nowhere().check, (int32_t[]){2, 1}, 2));
    buf_fini(&out);
}

static void the_longest_position_has_room(void **state)
{
    (void)state;
    struct resume_key k = key_of(7, "k", "x", "{}");
    static struct resume_position p, q;
    struct buf out;
    struct error err;
    buf_init(&out, RESUME_MAX_POSITION);
    resume_begin(&p, &k, RESUME_MAX_CHOICES, 999999999999);
    memset(p.class, 'c', RESUME_MAX_CLASS);
    for (int i = 0; i < RESUME_MAX_CHOICES; i++)
        p.at[i] = (struct resume_at){INT32_MAX, UINT32_MAX, true, false, true};
    p.usage = true;
    resume_print(&p, &out);
    resume_begin(&q, &k, RESUME_MAX_CHOICES, 1);
    assert_int_equal(resume_from(&q, out.data, &err), OK);
    p.resumed = true;
    assert_memory_equal(&p, &q, sizeof p);
    buf_fini(&out);
}

static void positions_that_are_none(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "7",
        "abc",
        "/cpu-1/%s/1-811c9dc5",
        "-1/cpu-1/%s/1-811c9dc5",
        "1234567890123/cpu-1/%s/1-811c9dc5",
        "1/c0123456789012345678901234567890123456789012345678901234567890123/%s/1-811c9dc5",
        "1/cpu-1/%s",
        "1/cpu-1/%sx/1-811c9dc5",
        "1/cpu-1/0x123456/1-811c9dc5",
        "1/cpu-1/%s/-1-811c9dc5",
        "1/cpu-1/%s/2147483648-811c9dc5",
        "1/cpu-1/%s/99999999999999999999-811c9dc5",
        "1/cpu-1/%s/1-811C9DC5",
        "1/cpu-1/%s/1-811c9dc",
        "1/cpu-1/%s/1-811c9dc5f",
        "1/cpu-1/%s/1-811c9dc5-",
        "1/cpu-1/%s/1-811c9dc5-ended",
        "1/cpu-1/%s/1-811c9dc5-thought-end",
        "1/cpu-1/%s/0-811c9dc5-thought",
        "1/cpu-1/%s/1-811c9dc5/usage",
        "1/cpu-1/%s/1-811c9dc5-end/usage/",
        "1/cpu-1/%s/1-811c9dc5,",
        "1/cpu-1/%s/1-811c9dc5,1-811c9dc5",
        " 1/cpu-1/%s/1-811c9dc5",
        "1/cpu-1/%s/ 1-811c9dc5",
        "1/cpu-1/%s/+1-811c9dc5",
    };
    struct resume_key k = key_of(7, "k", "x", "{}");
    struct resume_position p;
    struct error err;
    char mine[9], text[256];
    resume_begin(&p, &k, 1, 5);
    snprintf(mine, sizeof mine, "%08x", p.request);
    struct resume_position before = p;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const char *at = strstr(bad[i], "%s");
        snprintf(text, sizeof text, "%.*s%s%s", at ? (int)(at - bad[i]) : 200, bad[i],
                 at ? mine : "", at ? at + 2 : "");
        if (resume_from(&p, text, &err) != ERR_INVALID)
            fail_msg("taken: %s", text);
        assert_memory_equal(&p, &before, sizeof p);
    }
    assert_non_null(strstr(err.msg, "(of 1 choice), found \"1/cpu-1/"));
    snprintf(text, sizeof text, "1/cpu-1/%08x/1-811c9dc5", p.request ^ 1);
    assert_int_equal(resume_from(&p, text, &err), ERR_CONFLICT);
    assert_memory_equal(&p, &before, sizeof p);
    snprintf(text, sizeof text, "1/cpu-1/%s/1-811c9dc5-end/usage", mine);
    assert_int_equal(resume_from(&p, text, &err), OK);
    assert_true(p.usage && p.at[0].ended && p.created == 1);
    snprintf(text, sizeof text, "1//%s/0-811c9dc5", mine); /* no group was asked yet */
    assert_int_equal(resume_from(&p, text, &err), OK);
    assert_string_equal(p.class, "");
}

static void count_taken(void *user, const struct error *why)
{
    assert_int_equal(why->code, ERR_CONFLICT);
    assert_string_equal(why->msg, "taken over by a retry with the same idempotency key");
    ++*(int *)user;
}

static void the_newer_takes_over(void **state)
{
    (void)state;
    struct resume_claim *list = NULL;
    struct error err;
    int taken[4] = {0};
    struct resume_claim claims[4];
    const struct resume_key keys[4] = {key_of(7, "k", "x", "{}"), key_of(7, "k2", "x", "{}"),
                                       key_of(7, "k", "x", "{}"), key_of(7, "k", "x", "{1}")};
    for (int i = 0; i < 4; i++)
        claims[i] = (struct resume_claim){.key = keys[i], .taken = count_taken, .user = &taken[i]};
    resume_unclaim(&claims[0]); /* in none */
    assert_int_equal(resume_claim(&list, &claims[0], &err), OK);
    assert_int_equal(resume_claim(&list, &claims[1], &err), OK);
    assert_int_equal(resume_claim(&list, &claims[2], &err), OK);
    assert_true(taken[0] == 1 && taken[1] == 0);
    assert_int_equal(resume_claim(&list, &claims[3], &err), ERR_CONFLICT);
    assert_int_equal(taken[2], 0);
    resume_unclaim(&claims[0]); /* no longer in it */
    resume_unclaim(&claims[2]);
    assert_int_equal(resume_claim(&list, &claims[3], &err), OK);
    resume_unclaim(&claims[1]);
    resume_unclaim(&claims[3]);
    resume_unclaim(&claims[3]);
    assert_null(list);
    assert_true(taken[0] == 1 && taken[1] + taken[2] + taken[3] == 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(all_that_was_asked_is_in_the_seed),
    cmocka_unit_test(keys_that_are_none),
    cmocka_unit_test(positions_go_there_and_back),
    cmocka_unit_test(the_longest_position_has_room),
    cmocka_unit_test(positions_that_are_none),
    cmocka_unit_test(the_newer_takes_over),
};

UNIT_MAIN(tests)
