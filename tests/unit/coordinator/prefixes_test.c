/* What a group was sent, against a list that is searched from its beginning. */
#include "tests/unit/unit.h"

#include "coordinator/prefixes.h"
#include "partition/plan.h"

#include <stdlib.h>

enum { TOKENS = 16 * KV_BLOCK };

static int32_t ids[TOKENS];
static uint64_t a[PREFIXES_CHAIN], b[PREFIXES_CHAIN];

static void number(int32_t first)
{
    for (int32_t i = 0; i < TOKENS; i++)
        ids[i] = first + i;
}

static void a_chain_says_all_before_it(void **state)
{
    (void)state;
    number(0);
    assert_int_equal(prefixes_chain(7, ids, KV_BLOCK - 1, a), 0);
    assert_int_equal(prefixes_chain(7, ids, TOKENS, a), TOKENS / KV_BLOCK);
    ids[5 * KV_BLOCK]++;
    assert_int_equal(prefixes_chain(7, ids, TOKENS - 1, b), TOKENS / KV_BLOCK - 1);
    for (int32_t i = 0; i < TOKENS / KV_BLOCK - 1; i++)
        assert_int_equal(a[i] == b[i], i < 5);
    ids[5 * KV_BLOCK]--;
    prefixes_chain(8, ids, TOKENS, b); /* another domain */
    for (int32_t i = 0; i < TOKENS / KV_BLOCK; i++)
        assert_true(a[i] != b[i]);
}

static void a_long_prompt_is_looked_at_to_a_bound(void **state)
{
    (void)state;
    enum { LONG = (PREFIXES_CHAIN + 3) * KV_BLOCK };
    int32_t *all = calloc(LONG, sizeof *all);
    assert_non_null(all);
    assert_int_equal(prefixes_chain(0, all, LONG, a), PREFIXES_CHAIN);
    free(all);
}

static void the_oldest_are_forgotten_from_their_end(void **state)
{
    (void)state;
    struct prefixes *p = prefixes_create(3);
    number(0);
    int32_t n = prefixes_chain(0, ids, TOKENS, a);
    number(1);
    prefixes_chain(0, ids, TOKENS, b);
    assert_int_equal(prefixes_find(p, a, n), 0);
    prefixes_note(p, a, n, 2 * n);
    assert_int_equal(prefixes_find(p, a, n), n);
    assert_int_equal(prefixes_find(p, b, n), 0);
    prefixes_note(p, b, n, n + 4);
    assert_int_equal(prefixes_find(p, b, n), n);
    assert_int_equal(prefixes_find(p, a, n), 4);
    prefixes_note(p, a, 2, n + 4); /* in use again, so b gives way */
    prefixes_note(p, a, 6, n + 4);
    assert_int_equal(prefixes_find(p, a, n), 6);
    assert_int_equal(prefixes_find(p, b, n), n - 2);
    prefixes_note(p, b, n, 3); /* no more than fits */
    assert_int_equal(prefixes_find(p, b, n), 3);
    assert_int_equal(prefixes_find(p, a, n), 0);
    assert_int_equal(prefixes_count(p), 3);
    prefixes_forget(p);
    assert_int_equal(prefixes_find(p, b, n), 0);
    assert_int_equal(prefixes_count(p), 0);
    prefixes_destroy(p);
}

/* --- against a model --- */

enum { DEPTH = 12, MOST = 100 };

/* Chains as paths of a tree: what follows is drawn from two, so that beginnings are shared. */
static int32_t draw(uint32_t *random, uint64_t *chain)
{
    uint64_t h = 1;
    *random = *random * 1664525u + 1013904223u;
    uint32_t r = *random >> 8;
    int32_t n = 1 + (int32_t)(r % DEPTH);
    for (int32_t i = 0; i < n; i++)
        chain[i] = h = h * 0x9E3779B97F4A7C15u + 1 + (r >> (4 + i) & 1);
    return n;
}

static void it_finds_what_a_list_finds(void **state)
{
    (void)state;
    struct prefixes *p = prefixes_create(99);
    uint64_t list[MOST + DEPTH], chain[DEPTH]; /* newest first */
    int32_t len = 0;
    uint32_t random = 5;
    for (int32_t step = 0; step < 20000; step++) {
        int32_t n = draw(&random, chain), known = 0;
        for (bool found = true; known < n && found; known += found) {
            found = false;
            for (int32_t i = 0; i < len && !found; i++)
                found = list[i] == chain[known];
        }
        assert_int_equal(prefixes_find(p, chain, n), known);
        prefixes_note(p, chain, n, MOST);
        for (int32_t k = n - 1; k >= 0; k--) {
            int32_t i = 0;
            while (i < len && list[i] != chain[k])
                i++;
            len += i == len;
            memmove(list + 1, list, (size_t)i * sizeof *list);
            list[0] = chain[k];
        }
        len = len < MOST ? len : MOST;
        assert_int_equal(prefixes_count(p), len);
    }
    assert_int_equal(len, MOST);
    prefixes_destroy(p);
}

static void it_holds_its_most(void **state)
{
    (void)state;
    struct prefixes *p = prefixes_create(1);
    for (uint64_t i = 0; i < 3 * (uint64_t)PREFIXES_MOST; i++)
        prefixes_note(p, &i, 1, PREFIXES_MOST);
    assert_int_equal(prefixes_count(p), PREFIXES_MOST);
    for (uint64_t i = 0; i < 3 * (uint64_t)PREFIXES_MOST; i++)
        assert_int_equal(prefixes_find(p, &i, 1), i >= 2 * (uint64_t)PREFIXES_MOST);
    prefixes_destroy(p);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_chain_says_all_before_it),
    cmocka_unit_test(a_long_prompt_is_looked_at_to_a_bound),
    cmocka_unit_test(the_oldest_are_forgotten_from_their_end),
    cmocka_unit_test(it_finds_what_a_list_finds),
    cmocka_unit_test(it_holds_its_most),
};

UNIT_MAIN(tests)
