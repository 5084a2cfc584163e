/* When refused requests are told to come again. */
#include "coordinator/admission.h"
#include "tests/unit/unit.h"

static int64_t at(double seconds)
{
    return (int64_t)((1000 + seconds) * 1e9);
}

static void the_rate_tells_when(void **state)
{
    (void)state;
    struct admission a = {0};
    for (int i = 0; i < 640; i++) /* 10 a second for 64 s */
        admission_ended(&a, at(i * 0.1));
    assert_int_equal(admission_retry_s(&a, 1, at(63.9)), 1);
    assert_int_equal(admission_retry_s(&a, 10, at(63.9)), 1);
    assert_int_equal(admission_retry_s(&a, 100, at(63.9)), 10);
    assert_int_equal(admission_retry_s(&a, 200, at(63.9)), 20);
    assert_int_equal(admission_retry_s(&a, 100000, at(63.9)), ADMISSION_RETRY_MAX_S);
    /* Half the window later nothing has ended since. */
    assert_int_equal(admission_retry_s(&a, 100, at(79.9)), 20);
    assert_int_equal(admission_retry_s(&a, 1, at(200)), ADMISSION_RETRY_MAX_S);
}

static void what_was_long_ago_is_forgotten(void **state)
{
    (void)state;
    struct admission a = {0};
    for (int i = 0; i < 1000; i++)
        admission_ended(&a, at(0));
    admission_ended(&a, at(31)); /* the window still reaches the first second */
    assert_int_equal(admission_retry_s(&a, 100, at(31)), 4);
    admission_ended(&a, at(40)); /* and here no longer */
    assert_int_equal(admission_retry_s(&a, 2, at(40)), 26);
    admission_ended(&a, at(500));
    assert_int_equal(admission_retry_s(&a, 1, at(500)), 22);
}

static void a_fresh_one_guesses_within_bounds(void **state)
{
    (void)state;
    struct admission a = {0};
    assert_int_equal(admission_retry_s(&a, 1, at(0)), ADMISSION_RETRY_MAX_S);
    assert_int_equal(admission_retry_s(&a, 0, at(0)), ADMISSION_RETRY_MAX_S);
    for (int i = 0; i < 20; i++)
        admission_ended(&a, at(0.01 * i));
    assert_int_equal(admission_retry_s(&a, 1, at(1)), 1); /* of two seconds, not of 32 */
    assert_int_equal(admission_retry_s(&a, 205, at(1)), 20);
    assert_int_equal(admission_retry_s(&a, INT32_MAX, at(1)), ADMISSION_RETRY_MAX_S);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(the_rate_tells_when),
    cmocka_unit_test(what_was_long_ago_is_forgotten),
    cmocka_unit_test(a_fresh_one_guesses_within_bounds),
};

UNIT_MAIN(tests)
