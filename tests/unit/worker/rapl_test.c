/* The processors' counters, in a folder like the kernel's. */
#include "tests/unit/powercap.h"

#include "worker/rapl.h"

static void near(double found, double expected)
{
    if (found < expected - 1e-9 || found > expected + 1e-9)
        fail_msg("expected %g, found %g", expected, found);
}

static double joules(struct rapl *r)
{
    struct error err;
    double j = 0;
    if (rapl_read(r, &j, &err) != OK)
        fail_msg("%s", err.msg);
    return j;
}

static struct rapl *open_it(const struct powercap *p)
{
    struct rapl *r = NULL;
    struct error err;
    if (rapl_open(p->dir, &r, &err) != OK)
        fail_msg("%s", err.msg);
    return r;
}

/* Packages and their memory, each once; cores are in their package, psys is all again. */
static void adds_packages_and_memory(void **state)
{
    (void)state;
    struct powercap p;
    powercap_make(&p);
    powercap_zone(&p, "intel-rapl:0", "package-0", 1000);
    powercap_zone(&p, "intel-rapl:0:0", "core", 7);
    powercap_zone(&p, "intel-rapl:0:1", "dram", 500);
    powercap_zone(&p, "intel-rapl:1", "package-1", 0);
    powercap_zone(&p, "intel-rapl:2", "psys", 9);
    powercap_zone(&p, "intel-rapl-mmio:0", "package-0", 1000);
    struct rapl *r = open_it(&p);
    near(joules(r), 0);
    powercap_set(&p, "intel-rapl:0", 1000 + 2000000);
    powercap_set(&p, "intel-rapl:0:0", 900000000);
    powercap_set(&p, "intel-rapl:0:1", 500 + 300000);
    powercap_set(&p, "intel-rapl:1", 40);
    powercap_set(&p, "intel-rapl:2", 900000000);
    powercap_set(&p, "intel-rapl-mmio:0", 900000000);
    near(joules(r), 2.30004);
    near(joules(r), 2.30004);
    rapl_close(r);
    powercap_remove(&p);
}

static void counts_on_where_a_counter_begins_anew(void **state)
{
    (void)state;
    struct powercap p;
    powercap_make(&p);
    powercap_zone(&p, "intel-rapl:0", "package-0-die-0", POWERCAP_RANGE - 1000000);
    struct rapl *r = open_it(&p);
    powercap_set(&p, "intel-rapl:0", 500000);
    near(joules(r), 1.5);
    powercap_set(&p, "intel-rapl:0", 1500000);
    near(joules(r), 2.5);
    rapl_close(r);
    powercap_remove(&p);
}

static void says_why_there_is_nothing(void **state)
{
    (void)state;
    struct powercap p;
    struct rapl *r = NULL;
    struct error err;
    powercap_make(&p);
    assert_int_equal(rapl_open(p.dir, &r, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "virtual machines do not"));
    assert_int_equal(rapl_open("/nowhere/powercap", &r, &err), ERR_UNSUPPORTED);
    powercap_zone(&p, "intel-rapl:0", "package-0", 1);
    powercap_words(&p, "intel-rapl:0", "energy_uj", "much\n");
    assert_int_equal(rapl_open(p.dir, &r, &err), ERR_IO);
    assert_non_null(strstr(err.msg, "intel-rapl:0/energy_uj: expected a number"));
    powercap_drop(&p, "intel-rapl:0", "energy_uj");
    assert_int_equal(rapl_open(p.dir, &r, &err), ERR_IO);
    assert_non_null(strstr(err.msg, "No such file"));
    assert_non_null(strstr(err.msg, "chmod 0444"));
    powercap_remove(&p);
}

/* One that cannot be read any more is not taken for one that stands. */
static void a_counter_may_go(void **state)
{
    (void)state;
    struct powercap p;
    struct error err;
    double j;
    powercap_make(&p);
    powercap_zone(&p, "intel-rapl:0", "package-0", 1000000);
    struct rapl *r = open_it(&p);
    powercap_set(&p, "intel-rapl:0", 3000000);
    near(joules(r), 2);
    powercap_words(&p, "intel-rapl:0", "energy_uj", "");
    assert_int_equal(rapl_read(r, &j, &err), ERR_IO);
    near(j, 2);
    powercap_set(&p, "intel-rapl:0", 4000000);
    assert_int_equal(rapl_read(r, &j, &err), ERR_IO);
    rapl_close(r);
    powercap_remove(&p);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(adds_packages_and_memory),
    cmocka_unit_test(counts_on_where_a_counter_begins_anew),
    cmocka_unit_test(says_why_there_is_nothing),
    cmocka_unit_test(a_counter_may_go),
};

UNIT_MAIN(tests)
