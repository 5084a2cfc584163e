/* The pool of KV blocks and its prefix cache. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "partition/plan.h"
#include "tests/unit/random.h"
#include "worker/blocks.h"

enum { COUNT = 6 };

static const struct prefix root = {.id = 1, .domain = true};

/* The tokens of the n-th block of a text. */
static const int32_t *tokens_of(int32_t n)
{
    static int32_t tokens[KV_BLOCK];
    for (int32_t i = 0; i < KV_BLOCK; i++)
        tokens[i] = n * 1000 + i;
    return tokens;
}

static struct blocks *make(int32_t count, bool cache)
{
    struct blocks *b;
    struct error err;
    assert_int_equal(blocks_create(count, cache, &b, &err), OK);
    assert_int_equal(blocks_free(b), count);
    return b;
}

/* Takes and keeps blocks for texts 0 to count - 1, one behind the other. */
static void keep_texts(struct blocks *b, int32_t count, int32_t *block)
{
    struct prefix at = root;
    for (int32_t i = 0; i < count; i++) {
        block[i] = blocks_take(b);
        assert_true(block[i] >= 0);
        at = blocks_keep(b, at, tokens_of(i), block[i]);
    }
}

static void release(struct blocks *b, const int32_t *block, int32_t count)
{
    while (count-- > 0)
        blocks_release(b, block[count]);
}

static void what_is_kept_is_found_behind_what_it_followed(void **state)
{
    (void)state;
    struct blocks *b = make(COUNT, true);
    int32_t block[3];
    keep_texts(b, 3, block);
    assert_int_equal(blocks_cached(b), 0); /* held */
    assert_int_equal(blocks_find(b, root, tokens_of(0)), block[0]);
    struct prefix second = blocks_prefix(b, block[0]);
    assert_int_equal(blocks_find(b, second, tokens_of(1)), block[1]);
    assert_int_equal(blocks_find(b, root, tokens_of(1)), -1);
    assert_int_equal(blocks_find(b, second, tokens_of(0)), -1);
    const struct prefix other = {.id = 2, .domain = true};
    assert_int_equal(blocks_find(b, other, tokens_of(0)), -1);
    const struct prefix serial = {.id = 1}; /* the first block's own number is no domain */
    assert_int_equal(blocks_find(b, serial, tokens_of(0)), -1);
    int32_t holds[COUNT] = {0};
    holds[block[0]] = holds[block[1]] = 2;
    holds[block[2]] = 1;
    blocks_check(b, holds);
    blocks_destroy(b);
}

/* A token that differs, at whatever place. */
static void every_token_counts(void **state)
{
    (void)state;
    struct blocks *b = make(COUNT, true);
    int32_t block[1], tokens[KV_BLOCK];
    keep_texts(b, 1, block);
    for (int32_t i = 0; i < KV_BLOCK; i++) {
        memcpy(tokens, tokens_of(0), sizeof tokens);
        tokens[i]++;
        assert_int_equal(blocks_find(b, root, tokens), -1);
    }
    assert_int_equal(blocks_find(b, root, tokens_of(0)), block[0]);
    blocks_destroy(b);
}

/* Of what nobody holds the least recently released goes first, of a sequence its end before its
 * beginning. */
static void the_least_recent_is_evicted(void **state)
{
    (void)state;
    struct blocks *b = make(COUNT, true);
    int32_t block[3], other;
    keep_texts(b, 3, block);
    release(b, block, 3);
    assert_int_equal(blocks_cached(b), 3);
    assert_int_equal(blocks_free(b), COUNT);
    for (int i = 0; i < 3; i++) /* the free ones go first */
        assert_true(blocks_take(b) >= 0);
    assert_int_equal(blocks_evicted(b), 0);
    assert_int_equal(blocks_find(b, root, tokens_of(0)), block[0]);
    other = blocks_take(b);
    assert_int_equal(other, block[2]);
    other = blocks_take(b);
    assert_int_equal(other, block[1]);
    assert_int_equal(blocks_take(b), -1);
    assert_int_equal(blocks_evicted(b), 2);
    assert_int_equal(blocks_find(b, blocks_prefix(b, block[0]), tokens_of(1)), -1);
    assert_int_equal(blocks_find(b, root, tokens_of(0)), block[0]);
    blocks_destroy(b);
}

/* A block used again has another serial: what followed it is found no more. */
static void a_serial_is_never_given_twice(void **state)
{
    (void)state;
    struct blocks *b = make(2, true);
    int32_t block[2], again;
    keep_texts(b, 2, block);
    struct prefix before = blocks_prefix(b, block[0]);
    blocks_release(b, block[0]); /* the first goes before the second */
    again = blocks_take(b);
    assert_int_equal(again, block[0]);
    struct prefix after = blocks_keep(b, root, tokens_of(0), again);
    assert_true(after.id != before.id);
    assert_int_equal(blocks_find(b, after, tokens_of(1)), -1);
    int32_t holds[2] = {1, 1};
    blocks_check(b, holds);
    blocks_destroy(b);
}

/* What nobody has any more is to be wiped, once; what is kept is not, until the cache gives it up.
 */
static void what_is_left_is_noted_to_be_wiped(void **state)
{
    (void)state;
    struct blocks *b = make(COUNT, true);
    struct error err;
    const int32_t *dirty;
    int32_t block[2], other = blocks_take(b), holds[COUNT] = {0};
    blocks_release(b, other); /* nobody asks yet */
    assert_int_equal(blocks_note_dirty(b, &err), OK);
    assert_int_equal(blocks_dirty(b, &dirty), 0);
    keep_texts(b, 2, block);
    other = blocks_take(b);
    blocks_release(b, other);
    assert_int_equal(blocks_dirty(b, &dirty), 1);
    assert_int_equal(dirty[0], other);
    assert_int_equal(blocks_take(b), other); /* before it was wiped, and left again: noted once */
    blocks_release(b, other);
    assert_int_equal(blocks_dirty(b, &dirty), 1);
    blocks_wiped(b);
    release(b, block, 2);
    assert_int_equal(blocks_dirty(b, &dirty), 0);
    for (int32_t i = 0; i < COUNT; i++)
        assert_true(blocks_take(b) >= 0);
    assert_int_equal(blocks_dirty(b, &dirty), 2);
    assert_int_equal(dirty[0], block[1]);
    assert_int_equal(dirty[1], block[0]);
    for (int32_t i = 0; i < COUNT; i++)
        blocks_release(b, i);
    assert_int_equal(blocks_dirty(b, &dirty), COUNT);
    blocks_check(b, holds);
    blocks_destroy(b);
}

static void the_same_twice_is_kept_once(void **state)
{
    (void)state;
    struct blocks *b = make(COUNT, true);
    int32_t block[1];
    keep_texts(b, 1, block);
    int32_t second = blocks_take(b);
    struct prefix after = blocks_keep(b, root, tokens_of(0), second);
    assert_true(after.id == blocks_prefix(b, block[0]).id);
    blocks_release(b, second);
    assert_int_equal(blocks_cached(b), 0);
    blocks_release(b, block[0]);
    assert_int_equal(blocks_cached(b), 1);
    assert_int_equal(blocks_find(b, root, tokens_of(0)), block[0]);
    blocks_destroy(b);
}

static void without_a_cache_nothing_is_kept(void **state)
{
    (void)state;
    struct blocks *b = make(COUNT, false);
    int32_t block[2];
    keep_texts(b, 2, block);
    assert_int_equal(blocks_find(b, root, tokens_of(0)), -1);
    release(b, block, 2);
    assert_int_equal(blocks_cached(b), 0);
    assert_int_equal(blocks_free(b), COUNT);
    blocks_destroy(b);
}

/* Random takes, finds and releases against a plain record of who holds what. */
static void books_stay_right(void **state)
{
    (void)state;
    enum { BLOCKS = 40, TEXTS = 60, HELD = 64 };
    struct blocks *b = make(BLOCKS, true);
    int32_t holds[BLOCKS] = {0}, held[HELD], count = 0, hits = 0;
    uint64_t rng = 5;
    for (int i = 0; i < 20000; i++) {
        const int32_t *tokens = tokens_of(random_int(&rng, 0, TEXTS - 1));
        int32_t block = -1;
        if (count == HELD || (count > 0 && random_int(&rng, 0, 1))) {
            int32_t which = random_int(&rng, 0, count - 1);
            blocks_release(b, held[which]);
            holds[held[which]]--;
            held[which] = held[--count];
        } else if ((block = blocks_find(b, root, tokens)) >= 0) {
            hits++;
        } else if ((block = blocks_take(b)) >= 0) {
            assert_int_equal(holds[block], 0);
            blocks_keep(b, root, tokens, block);
        }
        if (block >= 0) {
            holds[block]++;
            held[count++] = block;
        }
        blocks_check(b, holds);
    }
    assert_true(hits > 1000 && blocks_evicted(b) > 1000);
    blocks_destroy(b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(what_is_kept_is_found_behind_what_it_followed),
    cmocka_unit_test(every_token_counts),
    cmocka_unit_test(the_least_recent_is_evicted),
    cmocka_unit_test(a_serial_is_never_given_twice),
    cmocka_unit_test(what_is_left_is_noted_to_be_wiped),
    cmocka_unit_test(the_same_twice_is_kept_once),
    cmocka_unit_test(without_a_cache_nothing_is_kept),
    cmocka_unit_test(books_stay_right),
};

UNIT_MAIN(tests)
