/* What is read of a GPU, with a library in NVML's place whose readings are the test's. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "tests/tools/fake_nvml.h"
#include "worker/meter.h"

#include <dlfcn.h>
#include <fcntl.h>

enum { WAIT_MS = 20000 };

static struct fake_nvml *fake(const char *library)
{
    void *so = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    struct fake_nvml *f = so ? dlsym(so, "fake_nvml") : NULL;
    if (!f)
        fail_msg("%s", dlerror());
    return f;
}

static struct meter *start(const char *library)
{
    struct meter *m = NULL;
    struct error err;
    const struct meter_options o = {
        .library = library, .uuid = "GPU-1", .pci = "00000000:18:00.0", .period_ms = 5};
    if (meter_create(&o, &m, &err) != OK)
        fail_msg("%s", err.msg);
    return m;
}

/* Two samples that began after now: what was set before is in both. */
static struct meter_reading next(struct meter *m, struct fake_nvml *f)
{
    struct meter_reading r;
    int from = f->samples;
    int64_t until = clock_now_ns() + (int64_t)WAIT_MS * 1000000;
    while (f->samples < from + 3 && clock_now_ns() < until)
        usleep(500);
    assert_true(f->samples >= from + 3);
    assert_true(meter_read(m, &r));
    return r;
}

/* The thread waits in NVML until `hang` is 0 again. */
static void hold(struct fake_nvml *f)
{
    f->hang = 1;
    while (!f->hanging)
        usleep(500);
}

static void near(double found, double expected)
{
    if (found < expected - 1e-6 || found > expected + 1e-6)
        fail_msg("expected %g, found %g", expected, found);
}

static void reads_what_there_is(void **state)
{
    (void)state;
    struct fake_nvml *f = fake(FAKE_NVML);
    f->power_mw = 312500;
    f->sm_mhz = 1980;
    f->memory_mhz = 2619;
    f->temperature = 54;
    f->throttle = 0x44;
    f->corrected = 3;
    f->uncorrected = 1;
    struct meter *m = start(FAKE_NVML);
    struct meter_reading r = next(m, f);
    for (int i = 0; i < METER_COUNT; i++)
        assert_int_equal(r.has[i], i != METER_STEP_J); /* no step was run */
    near(r.value[METER_POWER_W], 312.5);
    near(r.value[METER_SM_MHZ], 1980);
    near(r.value[METER_MEMORY_MHZ], 2619);
    near(r.value[METER_TEMPERATURE_C], 54);
    near(r.value[METER_THROTTLE], 0x44);
    near(r.value[METER_ECC_CORRECTED], 3);
    near(r.value[METER_ECC_UNCORRECTED], 1);
    near(r.value[METER_ENERGY_J], 0);
    assert_string_equal(f->uuid, "GPU-1");
    f->no_ecc = 1;
    r = next(m, f);
    assert_false(r.has[METER_ECC_CORRECTED] || r.has[METER_ECC_UNCORRECTED]);
    near(r.value[METER_ECC_UNCORRECTED], 0);
    meter_destroy(m);
    assert_int_equal(f->open, 0);
}

/* From when it was created, over a counter that begins anew; and that of a step. */
static void adds_energy_up(void **state)
{
    (void)state;
    struct fake_nvml *f = fake(FAKE_NVML);
    f->energy_mj = 7000000;
    struct meter *m = start(FAKE_NVML);
    near(next(m, f).value[METER_ENERGY_J], 0);
    f->energy_mj = 7002500;
    struct meter_reading r = next(m, f);
    near(r.value[METER_ENERGY_J], 2.5);
    assert_false(r.has[METER_STEP_J]);
    hold(f); /* between two looks at the counter */
    for (int i = 0; i < 4; i++)
        meter_stepped(m);
    f->energy_mj = 7004500;
    f->hang = 0;
    r = next(m, f);
    assert_true(r.has[METER_STEP_J]);
    near(r.value[METER_STEP_J], 0.5);
    f->energy_mj = 1000; /* the driver was loaded again */
    near(next(m, f).value[METER_ENERGY_J], 5.5);
    f->energy_mj = 2000;
    near(next(m, f).value[METER_ENERGY_J], 6.5);
    meter_destroy(m);
}

/* A driver without some of the functions; a GPU that is found by its address alone. */
static void does_without(void **state)
{
    (void)state;
    struct fake_nvml *f = fake(FAKE_NVML_BARE);
    f->power_mw = 70000;
    f->throttle = 8;
    f->uuid_error = FAKE_NOT_FOUND;
    struct meter *m = start(FAKE_NVML_BARE);
    struct meter_reading r = next(m, f);
    for (int i = 0; i < METER_COUNT; i++)
        assert_int_equal(r.has[i], i == METER_POWER_W || i == METER_THROTTLE);
    near(r.value[METER_POWER_W], 70);
    near(r.value[METER_THROTTLE], 8);
    assert_string_equal(f->pci, "00000000:18:00.0");
    meter_destroy(m);
}

static void keeps_the_last_xids(void **state)
{
    (void)state;
    struct fake_nvml *f = fake(FAKE_NVML);
    struct meter *m = start(FAKE_NVML);
    assert_int_equal(next(m, f).xid_count, 0);
    f->xids[0] = 79;
    f->posted = 1;
    struct meter_reading r = next(m, f);
    assert_int_equal(r.xid_count, 1);
    assert_int_equal(r.xids_held, 1);
    assert_int_equal(r.xids[0], 79);
    for (unsigned i = 1; i < 20; i++)
        f->xids[i] = 100 + i;
    f->posted = 20;
    r = next(m, f);
    assert_int_equal(r.xid_count, 20);
    assert_int_equal(r.xids_held, METER_XIDS);
    for (unsigned i = 0; i < METER_XIDS; i++)
        assert_int_equal(r.xids[i], 104 + i);
    meter_destroy(m);
}

/* Standard error goes to a file, which is then asked. */
static char log_path[64];

static void log_to_file(void)
{
    strcpy(log_path, "/tmp/witan_test_XXXXXX");
    int fd = mkstemp(log_path);
    assert_true(fd >= 0);
    assert_true(dup2(fd, STDERR_FILENO) >= 0);
    close(fd);
}

static int lines_with(const char *words)
{
    char line[1024];
    int count = 0;
    FILE *f = fopen(log_path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        count += strstr(line, words) != NULL;
    fclose(f);
    return count;
}

static void wait_for_line(const char *words)
{
    int64_t until = clock_now_ns() + (int64_t)WAIT_MS * 1000000;
    while (lines_with(words) == 0 && clock_now_ns() < until)
        usleep(1000);
    assert_int_equal(lines_with(words), 1);
}

/* One info line, and no figures: neither of them keeps anybody waiting. */
static void says_once_that_there_is_none(void **state)
{
    (void)state;
    struct meter_reading r;
    log_to_file();
    struct meter *m = start("/nowhere/libnvidia-ml.so.1");
    wait_for_line("info  rank 0: NVML: /nowhere/libnvidia-ml.so.1");
    assert_false(meter_read(m, &r));
    meter_destroy(m);
    struct fake_nvml *f = fake(FAKE_NVML);
    f->init_error = 9;
    m = start(FAKE_NVML);
    wait_for_line("NVML: Driver Not Loaded: no figures");
    assert_false(meter_read(m, &r));
    meter_destroy(m);
    f->init_error = 0;
    f->uuid_error = FAKE_NOT_FOUND;
    f->pci_error = FAKE_NOT_FOUND;
    m = start(FAKE_NVML);
    wait_for_line("NVML: GPU GPU-1 at 00000000:18:00.0: Not Found: no figures");
    assert_false(meter_read(m, &r));
    meter_destroy(m);
    assert_int_equal(f->open, 0);
    assert_int_equal(lines_with("warn"), 0);
    f->uuid_error = 0;
    f->pci_error = 0;
    unlink(log_path);
}

/* A library that does not answer: its figures go, with one warning, and come back. */
static void goes_on_while_it_hangs(void **state)
{
    (void)state;
    struct meter_reading r;
    log_to_file();
    struct fake_nvml *f = fake(FAKE_NVML);
    struct meter *m = start(FAKE_NVML);
    next(m, f);
    hold(f);
    int64_t until = clock_now_ns() + (int64_t)WAIT_MS * 1000000;
    while (lines_with("NVML: no answer for 5 s: the engine goes on") == 0 &&
           clock_now_ns() < until) {
        meter_stepped(m); /* as engine and heartbeats do */
        meter_read(m, &r);
        usleep(1000);
    }
    assert_false(meter_read(m, &r));
    assert_int_equal(lines_with("no answer"), 1);
    f->hang = 0;
    next(m, f);
    hold(f); /* and the owner ends while it hangs again */
    meter_destroy(m);
    f->hang = 0;
    while (f->open) /* the thread ends by itself */
        usleep(500);
    unlink(log_path);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(reads_what_there_is),
    cmocka_unit_test(adds_energy_up),
    cmocka_unit_test(does_without),
    cmocka_unit_test(keeps_the_last_xids),
    cmocka_unit_test(says_once_that_there_is_none),
    cmocka_unit_test(goes_on_while_it_hangs),
};

UNIT_MAIN(tests)
