/* Words that threads wait on: asleep without end until they are woken, or for a while. */
#include "tests/unit/unit.h"

#include "transport/word.h"

#include <pthread.h>
#include <time.h>

/* Answers every odd number with the next even one. */
struct answerer {
    struct word w;
    struct word_patience patience;
    bool shared;
    uint32_t last;
};

static void set(struct answerer *a, uint32_t value)
{
    atomic_store(&a->w.value, value);
    word_wake(&a->w, a->shared);
}

static void *answer(void *arg)
{
    struct answerer *a = arg;
    for (uint32_t seen = 0; seen < a->last; seen += 2) {
        uint32_t now = word_wait(&a->w, seen, a->patience, a->shared, 0);
        assert_int_equal(now, seen + 1);
        if (seen % 16 == 0) /* beyond the other's patience, which then sleeps */
            nanosleep(&(struct timespec){0, 2000000}, NULL);
        set(a, now + 1);
    }
    return NULL;
}

static void sleepers_are_woken(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct answerer a = {
            .patience = word_patience(2, i % 2 == 0 ? 2 : 1), .shared = i / 2 == 1, .last = 400};
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, answer, &a), 0);
        for (uint32_t k = 0; k < a.last; k += 2) {
            set(&a, k + 1);
            assert_int_equal(word_wait(&a.w, k + 1, a.patience, a.shared, 0), k + 2);
        }
        pthread_join(thread, NULL);
        assert_int_equal(a.w.sleepers, 0);
    }
}

/* With a bound on its sleep a wait ends though nothing has changed. */
static void a_bounded_sleep_ends(void **state)
{
    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        struct word w = {0};
        atomic_store(&w.value, 7);
        assert_int_equal(word_wait(&w, 7, word_patience(2, 2), shared, 1), 7);
        assert_int_equal(word_wait(&w, 6, word_patience(2, 1), shared, 0), 7);
        assert_int_equal(w.sleepers, 0);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(sleepers_are_woken),
    cmocka_unit_test(a_bounded_sleep_ends),
};

UNIT_MAIN(tests)
