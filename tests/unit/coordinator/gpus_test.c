/* What heartbeats say of GPUs, in status and in log lines. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "base/log.h"
#include "coordinator/gpus.h"

#include <math.h>

#define KIND(name) WITAN__CLUSTER__V1__FIGURE_KIND__FIGURE_##name
#define SECOND INT64_C(1000000000)

static char log_path[64];

static void log_to_file(void)
{
    strcpy(log_path, "/tmp/witan_test_XXXXXX");
    int fd = mkstemp(log_path);
    assert_true(fd >= 0 && dup2(fd, STDERR_FILENO) >= 0);
    close(fd);
    log_set_level(LOG_WARN);
}

/* Lines since the last call that hold `words`, of which there are `all`. */
static void expect_lines(const char *words, int all)
{
    char line[1024];
    int found = 0, count = 0;
    FILE *f = fopen(log_path, "r+");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        count++;
        found += strstr(line, words) != NULL;
    }
    if (found != all || count != all)
        fail_msg("expected %d lines with \"%s\", found %d of %d", all, words, found, count);
    assert_int_equal(ftruncate(fileno(f), 0), 0);
    assert_int_equal(lseek(STDERR_FILENO, 0, SEEK_SET), 0);
    fclose(f);
}

struct said {
    Witan__Cluster__V1__Gpu gpu;
    Witan__Cluster__V1__Figure figures[16], *list[16];
};

static void say(struct said *s, int kind, double value)
{
    Witan__Cluster__V1__Figure *f = &s->figures[s->gpu.n_figures];
    witan__cluster__v1__figure__init(f);
    f->kind = (Witan__Cluster__V1__FigureKind)kind;
    f->value = value;
    s->list[s->gpu.n_figures++] = f;
    s->gpu.figures = s->list;
}

static void begin(struct said *s)
{
    witan__cluster__v1__gpu__init(&s->gpu);
}

static Witan__Inference__V1__Rank *status_of(const struct gpu_view *v)
{
    Witan__Inference__V1__Rank *r = malloc(sizeof *r);
    assert_non_null(r);
    witan__inference__v1__rank__init(r);
    gpu_put(v, r);
    return r;
}

static void shows_what_is_measured(void **state)
{
    (void)state;
    struct gpu_view v = {0};
    struct said s;
    uint32_t xids[] = {31, 79};
    log_to_file();
    begin(&s);
    say(&s, KIND(POWER_W), 312.5);
    say(&s, KIND(TEMPERATURE_C), 54);
    say(&s, KIND(SM_MHZ), NAN); /* no number */
    say(&s, KIND(THROTTLE), 0x24 + 1);
    say(&s, 77, 1); /* of a later release */
    say(&s, -1, 1);
    say(&s, KIND(ENERGY_J), -1);
    say(&s, KIND(MEMORY_MHZ), 1e300);
    say(&s, KIND(ECC_UNCORRECTED), INFINITY);
    s.gpu.xid_count = 2;
    s.gpu.xids = xids;
    s.gpu.n_xids = 2;
    gpu_heard(&v, "rank 1", &s.gpu, SECOND);
    Witan__Inference__V1__Rank *r = status_of(&v);
    assert_int_equal(r->n_figures, 2);
    assert_string_equal(r->figures[0]->name, "power_w");
    assert_true(r->figures[0]->value == 312.5);
    assert_string_equal(r->figures[1]->name, "temperature_c");
    assert_int_equal(r->n_held_down_by, 2);
    assert_string_equal(r->held_down_by[0], "its power limit");
    assert_string_equal(r->held_down_by[1], "heat");
    assert_int_equal(r->n_xids, 2);
    assert_int_equal(r->xids[1], 79);
    witan__inference__v1__rank__free_unpacked(r, NULL);
    gpu_heard(&v, "rank 1", NULL, 2 * SECOND); /* its library hangs */
    r = status_of(&v);
    assert_int_equal(r->n_figures, 0);
    assert_int_equal(r->n_held_down_by, 0);
    assert_int_equal(r->n_xids, 2);
    witan__inference__v1__rank__free_unpacked(r, NULL);
    unlink(log_path);
}

static void clocks(struct gpu_view *v, double bits, int64_t second)
{
    struct said s;
    begin(&s);
    say(&s, KIND(THROTTLE), bits);
    say(&s, KIND(SM_MHZ), 1200);
    gpu_heard(v, "group g0: rank 1 (node2, pid 99)", &s.gpu, second * SECOND);
}

/* When it begins, and not again within a minute; idle GPUs and set clocks are as they should be. */
static void warns_of_clocks(void **state)
{
    (void)state;
    static const char words[] = "warn  group g0: rank 1 (node2, pid 99): the GPU's clocks are held "
                                "down by its power limit (1200 MHz): ";
    struct gpu_view v = {0};
    log_to_file();
    clocks(&v, 0x3, 1);
    expect_lines("", 0);
    clocks(&v, 0x4, 2);
    expect_lines(words, 1);
    clocks(&v, 0x4, 3);
    clocks(&v, 0, 4);
    clocks(&v, 0x4, 5);
    expect_lines("", 0);
    clocks(&v, 0, 70);
    clocks(&v, 0x4, 71);
    expect_lines(words, 1);
    unlink(log_path);
}

/* What no GPU says, in a line of its own all the same. */
static void takes_no_nonsense(void **state)
{
    (void)state;
    static const double values[] = {1e15, 1e16, 1e300, -1e300, NAN, INFINITY};
    log_to_file();
    for (size_t i = 0; i < COUNT_OF(values); i++) {
        struct gpu_view v = {0};
        struct said s;
        begin(&s);
        for (int kind = 0; kind < GPU_FIGURES; kind++)
            say(&s, kind, kind == KIND(THROTTLE) ? 0xfc : values[i]);
        gpu_heard(&v, "rank 1", &s.gpu, SECOND);
        assert_int_equal(v.has[KIND(POWER_W)], i == 0);
        Witan__Inference__V1__Rank *r = status_of(&v);
        assert_int_equal(r->n_figures, i == 0 ? GPU_FIGURES - 1 : 0);
        assert_int_equal(r->n_held_down_by, 5);
        witan__inference__v1__rank__free_unpacked(r, NULL);
        expect_lines("rank 1: ", i == 0 ? 2 : 1);
    }
    unlink(log_path);
}

static void errors(struct gpu_view *v, double count)
{
    struct said s;
    begin(&s);
    say(&s, KIND(ECC_CORRECTED), 1000);
    say(&s, KIND(ECC_UNCORRECTED), count);
    gpu_heard(v, "rank 1", &s.gpu, SECOND);
}

static void warns_of_memory_errors(void **state)
{
    (void)state;
    struct gpu_view v = {0};
    log_to_file();
    errors(&v, 0);
    expect_lines("", 0);
    errors(&v, 2);
    expect_lines("rank 1: 2 uncorrected memory errors of the GPU since its driver was loaded, 2",
                 1);
    errors(&v, 2);
    expect_lines("", 0);
    errors(&v, 3);
    expect_lines("3 uncorrected memory errors of the GPU since its driver was loaded, 1 more", 1);
    errors(&v, 0); /* the driver was loaded again */
    errors(&v, 1);
    expect_lines("1 uncorrected memory errors", 1);
    unlink(log_path);
}

static void report(struct gpu_view *v, uint64_t count, uint32_t *xids, size_t held)
{
    struct said s;
    begin(&s);
    s.gpu.xid_count = count;
    s.gpu.xids = xids;
    s.gpu.n_xids = held;
    gpu_heard(v, "rank 1", &s.gpu, SECOND);
}

/* Each once, whatever heartbeats are lost. */
static void tells_each_xid(void **state)
{
    (void)state;
    static const uint32_t known[] = {31, 43, 48, 63, 64, 74, 79, 94, 95, 119};
    struct gpu_view v = {0};
    uint32_t xids[40];
    log_to_file();
    for (uint32_t i = 0; i < COUNT_OF(known); i++) {
        struct gpu_view one = {0};
        xids[0] = known[i];
        report(&one, 1, xids, 1);
    }
    expect_lines("error rank 1: Xid ", 10);
    xids[0] = 79;
    report(&v, 1, xids, 1);
    expect_lines("error rank 1: Xid 79 of the GPU's driver: the GPU has fallen off the bus", 1);
    report(&v, 1, xids, 1);
    expect_lines("", 0);
    xids[1] = 12345;
    report(&v, 2, xids, 2);
    expect_lines("Xid 12345 of the GPU's driver: look it up", 1);
    for (uint32_t i = 0; i < COUNT_OF(xids); i++)
        xids[i] = 200 + i;
    report(&v, 42, xids, COUNT_OF(xids)); /* more than a heartbeat of ours has: the last */
    expect_lines("error rank 1: Xid 2", GPU_MAX_XIDS);
    assert_int_equal(v.xids[GPU_MAX_XIDS - 1], 239);
    unlink(log_path);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(shows_what_is_measured), cmocka_unit_test(warns_of_clocks),
    cmocka_unit_test(takes_no_nonsense),      cmocka_unit_test(warns_of_memory_errors),
    cmocka_unit_test(tells_each_xid),
};

UNIT_MAIN(tests)
