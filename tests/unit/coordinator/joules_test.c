/* What a group's energy went to: ranks' words are the test's. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "coordinator/joules.h"
#include "tests/unit/random.h"

#include <math.h>

enum { MOST = 8 };

/* A rank, as it counts. */
struct rank {
    double host, host_steps, gpu, gpu_steps;
    bool counts_host, counts_gpu;
    Witan__Cluster__V1__Energy energy;
    Witan__Cluster__V1__Joules host_words, gpu_words;
};

/* What rank 0 says of a step. */
struct words {
    Witan__Cluster__V1__Tokens tokens;
    Witan__Cluster__V1__SequenceTokens sequences[MOST], *pointers[MOST];
};

static void near(double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-9 * (1 + fabs(expected))))
        fail_msg("expected %.12g, found %.12g", expected, found);
}

static Witan__Cluster__V1__Energy *energy_of(struct rank *r)
{
    r->energy = (Witan__Cluster__V1__Energy)WITAN__CLUSTER__V1__ENERGY__INIT;
    r->host_words = r->gpu_words = (Witan__Cluster__V1__Joules)WITAN__CLUSTER__V1__JOULES__INIT;
    r->host_words.all = r->host;
    r->host_words.steps = r->host_steps;
    r->gpu_words.all = r->gpu;
    r->gpu_words.steps = r->gpu_steps;
    r->energy.host = r->counts_host ? &r->host_words : NULL;
    r->energy.gpu = r->counts_gpu ? &r->gpu_words : NULL;
    return &r->energy;
}

/* A step in which `r` takes so much, and a pause before it. */
static void run(struct rank *r, double pause, double step)
{
    r->host += r->counts_host ? pause + step : 0;
    r->host_steps += r->counts_host ? step : 0;
    r->gpu += r->counts_gpu ? 2 * (pause + step) : 0;
    r->gpu_steps += r->counts_gpu ? 2 * step : 0;
}

/* Shares, in seconds, of as many requests. */
static struct words *say(struct words *w, struct rank *leader, const double *shares, size_t count)
{
    w->tokens = (Witan__Cluster__V1__Tokens)WITAN__CLUSTER__V1__TOKENS__INIT;
    for (size_t i = 0; i < count; i++) {
        w->sequences[i] =
            (Witan__Cluster__V1__SequenceTokens)WITAN__CLUSTER__V1__SEQUENCE_TOKENS__INIT;
        w->sequences[i].step_seconds = shares[i];
        w->pointers[i] = &w->sequences[i];
    }
    w->tokens.sequences = w->pointers;
    w->tokens.n_sequences = count;
    w->tokens.energy = leader ? energy_of(leader) : NULL;
    return w;
}

/* Sums up: all = requests + idle + other + pending. */
static void balanced(const struct joules *j)
{
    near(j->requests + j->idle + j->other + j->pending, j->all);
    assert_true(j->requests >= 0 && j->idle >= 0 && j->other >= 0);
}

/* All of it taken by requests; returns what the first got. */
static double take(struct joules *j, struct words *w)
{
    joules_step(j, &w->tokens, 1);
    for (size_t i = 0; i < w->tokens.n_sequences; i++)
        joules_told(j, &w->sequences[i], true);
    balanced(j);
    return w->sequences[0].joules;
}

/* One rank whose processors are read at every step: each step's energy goes to those it fed. */
static void one_rank_is_told_to_the_joule(void **state)
{
    (void)state;
    struct joules j;
    struct words w;
    struct rank r = {.counts_host = true, .host = 100, .host_steps = 40};
    joules_init(&j, 1);
    assert_false(joules_known(&j));
    joules_heard(&j, 0, energy_of(&r), 1); /* what was before is nobody's */
    near(j.all, 0);
    assert_true(joules_known(&j));
    run(&r, 3, 10);
    near(take(&j, say(&w, &r, (double[]){0.75, 0.25}, 2)), 7.5);
    assert_true(w.sequences[0].metered);
    near(w.sequences[1].joules, 2.5);
    run(&r, 1, 4);
    near(take(&j, say(&w, &r, (double[]){0.5}, 1)), 4);
    near(j.all, 18);
    near(j.idle, 4);
    near(j.requests, 14);
    near(j.pending, 0);
    /* A heartbeat within a step, and then the step. */
    run(&r, 0, 1);
    joules_heard(&j, 0, energy_of(&r), 1);
    run(&r, 0, 2);
    near(take(&j, say(&w, &r, (double[]){0.1, 0.2}, 2)), 1);
    /* What nobody takes is counted apart; who ends without a step is known to have taken nothing.
     */
    run(&r, 0, 6);
    joules_step(&j, &say(&w, &r, (double[]){0.5}, 1)->tokens, 1);
    joules_told(&j, &w.sequences[0], false);
    near(j.other, 6);
    near(take(&j, say(&w, &r, (double[]){0}, 1)), 0);
    assert_true(w.sequences[0].metered);
    joules_fini(&j);
}

/* Two groups on a host have half each; a GPU is a group's own. */
static void a_host_is_shared(void **state)
{
    (void)state;
    struct joules j;
    struct words w;
    struct rank r = {.counts_host = true, .counts_gpu = true};
    joules_init(&j, 1);
    joules_heard(&j, 0, energy_of(&r), 0.5);
    run(&r, 2, 10);
    joules_step(&j, &say(&w, &r, (double[]){1}, 1)->tokens, 0.5);
    joules_told(&j, &w.sequences[0], true);
    near(j.all, 6 + 24);
    near(j.idle, 1 + 4);
    near(j.requests, 25);
    joules_fini(&j);
}

/* Ranks that are not known, and figures that are none: no request is told anything. */
static void what_is_not_known_is_not_told(void **state)
{
    (void)state;
    struct joules j;
    struct words w;
    struct rank a = {.counts_host = true}, b = {.counts_host = true};
    joules_init(&j, 2);
    joules_heard(&j, 0, energy_of(&a), 1);
    run(&a, 0, 5);
    take(&j, say(&w, &a, (double[]){1}, 1));
    assert_false(w.sequences[0].metered || joules_known(&j));
    near(j.other, 5);
    joules_heard(&j, 1, energy_of(&b), 1); /* its rate is not known yet */
    run(&a, 0, 5);
    run(&b, 0, 3);
    take(&j, say(&w, &a, (double[]){1}, 1));
    assert_false(w.sequences[0].metered);
    joules_heard(&j, 1, energy_of(&b), 1);
    run(&a, 0, 5);
    run(&b, 0, 3);
    take(&j, say(&w, &a, (double[]){1}, 1));
    assert_true(w.sequences[0].metered && w.sequences[0].joules >= 8 - 1e-9);
    const double bad[] = {-1, NAN, INFINITY, 1e16};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct rank broken = {.counts_host = true, .host = bad[i]};
        joules_heard(&j, 1, energy_of(&broken), 1);
        assert_false(joules_known(&j));
        double before = j.all;
        take(&j, say(&w, &a, (double[]){bad[i]}, 1));
        assert_false(w.sequences[0].metered);
        near(w.sequences[0].step_seconds, 0);
        near(j.all, before);
    }
    joules_heard(&j, 0, NULL, 1);
    assert_false(joules_known(&j));
    joules_fini(&j);
}

/* A rank that starts anew counts from 0; one whose stream was another's too. */
static void a_counter_begins_anew(void **state)
{
    (void)state;
    struct joules j;
    struct words w;
    struct rank r = {.counts_host = true, .host = 500, .host_steps = 400};
    joules_init(&j, 1);
    joules_heard(&j, 0, energy_of(&r), 1);
    run(&r, 1, 2);
    take(&j, say(&w, &r, (double[]){1}, 1));
    near(j.all, 3);
    joules_lost(&j);
    joules_gone(&j, 0);
    r.host = r.host_steps = 50;
    joules_heard(&j, 0, energy_of(&r), 1);
    near(j.all, 3);
    run(&r, 0, 2);
    near(take(&j, say(&w, &r, (double[]){1}, 1)), 2);
    joules_fini(&j);
}

/* What a lost group's steps took that nobody was told of is not carried on. */
static void a_loss_leaves_nothing_pending(void **state)
{
    (void)state;
    struct joules j;
    struct rank r = {.counts_host = true};
    joules_init(&j, 1);
    joules_heard(&j, 0, energy_of(&r), 1);
    run(&r, 0, 9);
    joules_heard(&j, 0, energy_of(&r), 1);
    near(j.pending, 9);
    joules_lost(&j);
    near(j.pending, 0);
    near(j.other, 9);
    balanced(&j);
    joules_fini(&j);
}

/* Three ranks on two hosts, GPUs among them, heard of now and then while rank 0 tells every step:
 * sums hold throughout, and in the end requests have nearly all that steps took. */
static void sums_hold_where_ranks_are_late(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct joules j;
        struct words w;
        struct rank ranks[3] = {{.counts_host = true, .counts_gpu = seed % 2},
                                {.counts_gpu = seed % 2},
                                {.counts_host = true, .counts_gpu = seed % 2}};
        uint64_t rng = seed;
        double most = 0;
        joules_init(&j, 3);
        for (int i = 0; i < 3; i++)
            joules_heard(&j, i, energy_of(&ranks[i]), 1);
        for (int step = 0; step < 3000; step++) {
            double shares[MOST], seconds = 0;
            int32_t count = random_int(&rng, 1, MOST);
            for (int32_t i = 0; i < count; i++)
                seconds += shares[i] = random_int(&rng, 1, 100) * 1e-4;
            for (int i = 0; i < 3; i++) /* 80 to 120 W in steps, some pauses */
                run(&ranks[i], random_int(&rng, 0, 5) ? 0 : 0.1,
                    seconds * random_int(&rng, 80, 120));
            say(&w, &ranks[0], shares, (size_t)count);
            take(&j, &w);
            for (int i = 0; i < 3; i++)
                if (random_int(&rng, 0, 19) == 0)
                    joules_heard(&j, i, energy_of(&ranks[i]), 1);
            balanced(&j);
            if (step > 500 && fabs(j.pending) > most)
                most = fabs(j.pending);
        }
        for (int i = 0; i < 3; i++)
            joules_heard(&j, i, energy_of(&ranks[i]), 1);
        double all = 0, steps = 0;
        for (int i = 0; i < 3; i++) {
            all += ranks[i].host + ranks[i].gpu;
            steps += ranks[i].host_steps + ranks[i].gpu_steps;
        }
        near(j.all, all);
        near(j.idle, all - steps);
        balanced(&j);
        assert_true(j.requests + j.other > 0.97 * steps && j.requests + j.other < 1.03 * steps);
        assert_true(most < 0.1 * steps && j.other < 0.1 * steps);
        joules_fini(&j);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(one_rank_is_told_to_the_joule),
    cmocka_unit_test(a_host_is_shared),
    cmocka_unit_test(what_is_not_known_is_not_told),
    cmocka_unit_test(a_counter_begins_anew),
    cmocka_unit_test(a_loss_leaves_nothing_pending),
    cmocka_unit_test(sums_hold_where_ranks_are_late),
};

UNIT_MAIN(tests)
