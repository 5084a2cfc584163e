/* What one rank counts, told apart into steps and pauses; counters are the test's. */
#include "tests/unit/powercap.h"

#include "base/clock.h"
#include "base/log.h"
#include "tests/tools/fake_nvml.h"
#include "worker/energy.h"

#include <dlfcn.h>

static void near(double found, double expected)
{
    if (found < expected - 1e-6 || found > expected + 1e-6)
        fail_msg("expected %g, found %g", expected, found);
}

static struct energy *start(const struct powercap *p, struct meter *m)
{
    struct energy *e = NULL;
    struct error err;
    log_set_level(LOG_ERROR + 1);
    const struct energy_options o = {
        .root = p ? p->dir : NULL, .host = p != NULL, .gpu = m != NULL, .meter = m};
    if (energy_create(&o, &e, &err) != OK)
        fail_msg("%s", err.msg);
    return e;
}

static struct energy_reading read_it(struct energy *e)
{
    struct energy_reading r;
    assert_true(energy_read(e, &r));
    return r;
}

static void steps_are_told_from_pauses(void **state)
{
    (void)state;
    struct powercap p;
    powercap_make(&p);
    powercap_zone(&p, "intel-rapl:0", "package-0", 5000000);
    struct energy *e = start(&p, NULL);
    near(read_it(e).host, 0);
    powercap_set(&p, "intel-rapl:0", 6000000); /* a pause */
    energy_phase(e, true);
    powercap_set(&p, "intel-rapl:0", 9000000);
    struct energy_reading r = read_it(e); /* within a step */
    near(r.host, 4);
    near(r.host_steps, 3);
    powercap_set(&p, "intel-rapl:0", 9500000);
    energy_phase(e, false);
    powercap_set(&p, "intel-rapl:0", 10000000);
    r = read_it(e);
    near(r.host, 5);
    near(r.host_steps, 3.5);
    near(r.gpu, 0);
    energy_destroy(e);
    powercap_remove(&p);
}

/* Another rank of the host counts: nothing is this one's, and that is known. */
static void who_counts_nothing_knows_it(void **state)
{
    (void)state;
    struct energy *e = start(NULL, NULL);
    struct energy_reading r = read_it(e);
    near(r.host + r.gpu, 0);
    energy_destroy(e);
    assert_false(energy_read(NULL, &r));
}

static void what_cannot_be_read_is_not_known(void **state)
{
    (void)state;
    struct powercap p;
    struct energy_reading r;
    powercap_make(&p);
    struct energy *e = start(&p, NULL);
    assert_false(energy_read(e, &r));
    energy_destroy(e);
    powercap_zone(&p, "intel-rapl:0", "package-0", 5000000);
    e = start(&p, NULL);
    read_it(e);
    powercap_words(&p, "intel-rapl:0", "energy_uj", "-1");
    assert_false(energy_read(e, &r));
    energy_destroy(e);
    powercap_remove(&p);
}

static void until_gpu(struct energy *e, double joules)
{
    int64_t until = clock_now_ns() + INT64_C(20000000000);
    struct energy_reading r = {0};
    while (clock_now_ns() < until && !(energy_read(e, &r) && r.gpu >= joules - 1e-6))
        usleep(1000);
    near(r.gpu, joules);
}

/* A GPU's counter is read now and then: pauses take what they took before, steps the rest. */
static void a_gpu_is_told_apart_by_its_power_at_rest(void **state)
{
    (void)state;
    void *so = dlopen(FAKE_NVML, RTLD_NOW | RTLD_LOCAL);
    struct fake_nvml *f = so ? dlsym(so, "fake_nvml") : NULL;
    assert_non_null(f);
    f->energy_mj = 1000000;
    struct meter *m = NULL;
    struct error err;
    const struct meter_options o = {
        .library = FAKE_NVML, .uuid = "GPU-1", .pci = "00000000:18:00.0", .period_ms = 5};
    assert_int_equal(meter_create(&o, &m, &err), OK);
    struct energy *e = start(NULL, m);
    struct energy_reading r = {0};
    while (!energy_read(e, &r)) /* NVML has not answered yet */
        usleep(1000);
    energy_phase(e, true); /* all of it a step */
    f->energy_mj = 1002000;
    until_gpu(e, 2);
    assert_true(read_it(e).gpu_steps > 1.5); /* but what went by before it began */
    energy_phase(e, false); /* and all of it a pause, of which a little was the step's end */
    usleep(1000);
    f->energy_mj = 1003000;
    until_gpu(e, 3);
    r = read_it(e);
    assert_true(r.gpu_steps > 1.5 && r.gpu_steps <= 3 + 1e-9);
    double before = r.gpu_steps;
    f->energy_mj = 1004000;
    until_gpu(e, 4);
    near(read_it(e).gpu_steps, before);
    energy_destroy(e);
    meter_destroy(m);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(steps_are_told_from_pauses),
    cmocka_unit_test(who_counts_nothing_knows_it),
    cmocka_unit_test(what_cannot_be_read_is_not_known),
    cmocka_unit_test(a_gpu_is_told_apart_by_its_power_at_rest),
};

UNIT_MAIN(tests)
