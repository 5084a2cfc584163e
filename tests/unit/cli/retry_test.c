/* When a call that broke is made again. */
#include "tests/unit/unit.h"

#include "cli/retry.h"

#include <string.h>

static void waits_double_up_to_a_bound(void **state)
{
    (void)state;
    static const int32_t waits[] = {500, 1000, 2000, 4000, 8000, 8000};
    for (int32_t i = 0; i < (int32_t)(sizeof waits / sizeof *waits); i++) {
        assert_int_equal(retry_wait_ms(i, 0), waits[i] / 2);
        assert_in_range(retry_wait_ms(i, UINT32_MAX), waits[i] - 1, waits[i]);
    }
    assert_int_equal(retry_wait_ms(INT32_MAX, 0), RETRY_MOST_MS / 2);
}

static void an_interrupt_ends_the_wait(void **state)
{
    (void)state;
    volatile sig_atomic_t interrupted = 1;
    assert_false(retry_sleep(1000, &interrupted));
}

static void keys_differ(void **state)
{
    (void)state;
    char one[33], two[33];
    retry_make_key(one);
    retry_make_key(two);
    assert_int_equal(strlen(one), 32);
    assert_string_not_equal(one, two);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(waits_double_up_to_a_bound),
    cmocka_unit_test(an_interrupt_ends_the_wait),
    cmocka_unit_test(keys_differ),
};

UNIT_MAIN(tests)
