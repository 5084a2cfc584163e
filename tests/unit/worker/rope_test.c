/*
 * RoPE's frequencies against those of Transformers (tests/golden/oracle/rope.json): each within two
 * units in the last place, since the reference's power is not correctly rounded either.
 */
#include "tests/unit/unit.h"

#include "base/json.h"
#include "worker/rope.h"

#include <math.h>

enum { MAX_TEST_HALF = 128 };

static const char *const golden = WITAN_SOURCE_DIR "/tests/golden/oracle/rope.json";

static json_t *read_golden(void)
{
    struct error err;
    json_t *root;
    if (json_parse_file(golden, 1 << 20, &root, &err) != OK)
        fail_msg("%s", err.msg);
    return root;
}

static struct model_config config_of(const char *name, const json_t *entry)
{
    struct model_config c;
    struct error err;
    char *text = json_dumps(json_object_get(entry, "config"), 0);
    assert_non_null(text);
    if (config_parse(name, text, strlen(text), &c, &err) != OK)
        fail_msg("%s", err.msg);
    free(text);
    return c;
}

static double ulps(float found, double expected)
{
    float e = (float)expected;
    return fabs((double)found - expected) / ((double)nextafterf(e, INFINITY) - (double)e);
}

static void check_case(const char *name, const json_t *entry)
{
    const struct model_config c = config_of(name, entry);
    const json_t *expected = json_object_get(entry, "frequencies");
    float frequency[MAX_TEST_HALF];
    int32_t half = c.head_dim / 2;
    assert_true(half <= MAX_TEST_HALF);
    assert_int_equal(json_array_size(expected), half);
    float scale = rope_frequencies(&c, frequency);
    double worst = ulps(scale, json_number_value(json_object_get(entry, "scale")));
    for (int32_t i = 0; i < half; i++) {
        double d = ulps(frequency[i], json_number_value(json_array_get(expected, (size_t)i)));
        worst = d > worst ? d : worst;
    }
    print_message("%s: at most %.2f units in the last place\n", name, worst);
    assert_true(worst <= 2);
}

static void frequencies_are_the_references(void **state)
{
    (void)state;
    json_t *root = read_golden(), *entry;
    const char *name;
    assert_true(json_object_size(root) >= 13);
    json_object_foreach(root, name, entry)
    {
        check_case(name, entry);
    }
    json_decref(root);
}

static void factor_one_changes_nothing(void **state)
{
    (void)state;
    struct model_config c = {.head_dim = 64, .rope_theta = 1e6};
    float plain[32], scaled[32];
    assert_true(rope_frequencies(&c, plain) == 1.0f);
    c.yarn = (struct yarn){.factor = 1, .original = 128, .beta_fast = 32, .beta_slow = 1};
    assert_true(rope_frequencies(&c, scaled) == 1.0f);
    for (int i = 0; i < 32; i++)
        assert_true(ulps(scaled[i], (double)plain[i]) <= 1);
}

/* The ends of the ramp over whatever config.c lets through: finite, positive, never faster. */
static void hostile_scalings_stay_finite(void **state)
{
    (void)state;
    static const double thetas[] = {1.5, 1e4, 1e15}, betas[] = {1e-3, 1, 1e6};
    static const int32_t originals[] = {1, 64, 1 << 30};
    for (int n = 0; n < 3 * 3 * 3 * 3; n++) {
        struct model_config c = {.head_dim = 2 * (1 + n % 3 * 63), .rope_theta = thetas[n / 3 % 3]};
        double beta = betas[n / 9 % 3];
        c.yarn = (struct yarn){.factor = 1024,
                               .original = originals[n / 27],
                               .beta_fast = beta,
                               .beta_slow = beta,
                               .truncate = n % 2};
        float frequency[MAX_TEST_HALF];
        assert_true(isfinite(rope_frequencies(&c, frequency)));
        for (int32_t i = 0; i < c.head_dim / 2; i++)
            assert_true(frequency[i] > 0 && frequency[i] <= 1);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(frequencies_are_the_references),
    cmocka_unit_test(factor_one_changes_nothing),
    cmocka_unit_test(hostile_scalings_stay_finite),
};

UNIT_MAIN(tests)
