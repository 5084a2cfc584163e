/* The last events of groups: order, what is forgotten, texts that are too long. */
#include "tests/unit/unit.h"

#include "coordinator/events.h"

static struct events events;

static void the_last_are_kept_in_order(void **state)
{
    (void)state;
    char words[32];
    events = (struct events){0};
    assert_int_equal(events_kept(&events), 0);
    for (int i = 1; i <= 3 * EVENTS_KEPT + 5; i++) {
        snprintf(words, sizeof words, "word %d", i);
        events_tell(&events, "g0", "ready", words);
        uint32_t kept = events_kept(&events);
        assert_int_equal(kept, i < EVENTS_KEPT ? i : EVENTS_KEPT);
        for (uint32_t k = 0; k < kept; k++)
            assert_int_equal(events_at(&events, k)->number, (uint32_t)i - kept + k + 1);
        assert_string_equal(events_at(&events, kept - 1)->words, words);
        assert_true(events_at(&events, kept - 1)->unix_s > 1700000000);
    }
}

static void long_texts_are_cut(void **state)
{
    (void)state;
    static char long_text[4096];
    memset(long_text, 'x', sizeof long_text - 1);
    events = (struct events){0};
    events_tell(&events, long_text, long_text, long_text);
    const struct event_told *t = events_at(&events, 0);
    assert_int_equal(strlen(t->group), sizeof t->group - 1);
    assert_int_equal(strlen(t->what), sizeof t->what - 1);
    assert_int_equal(strlen(t->words), sizeof t->words - 1);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(the_last_are_kept_in_order),
    cmocka_unit_test(long_texts_are_cut),
};

UNIT_MAIN(tests)
