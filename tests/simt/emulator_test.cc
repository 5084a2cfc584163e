/* The emulator itself: schedules that replay, reports, what may be read only, what it counts. */
#include "tests/simt/check.h"

#include "tests/simt/primitives.cuh"
#include "tests/simt/sample_cases.h"

#include <signal.h>
#include <string>
#include <sys/wait.h>
#include <thread>

/* A launch, or a call of the host, is to have failed with a report that holds `text`. */
static void assert_fault(int code, const char *text)
{
    const char *report = simt_report();
    assert_int_not_equal(code, 0);
    if (!report || !strstr(report, text))
        fail_msg("expected \"%s\", found \"%s\"", text, report ? report : "no report");
}

static std::vector<int> order_under(uint64_t seed)
{
    device_array<unsigned> ticket(std::vector<unsigned>{0});
    device_array<int> order(64);
    simt_seed(seed);
    assert_ran(run_race_to_atomic(ticket.p, order.p, 64));
    return order.read();
}

static void a_seed_replays_its_schedule(void **state)
{
    (void)state;
    std::vector<int> one = order_under(5), again = order_under(5), other = order_under(6);
    assert_true(one == again);
    assert_true(one != other);
    assert_int_equal(setenv("SIMT_SEED", "6", 1), 0);
    assert_true(order_under(0) == other);
    assert_int_equal(unsetenv("SIMT_SEED"), 0);
    assert_true(order_under(0) == order_under(1));
}

static void launches_of_one_seed_differ(void **state)
{
    (void)state;
    device_array<unsigned> ticket(std::vector<unsigned>{0, 0});
    device_array<int> order(64), later(64);
    simt_seed(5);
    assert_ran(run_race_to_atomic(ticket.p, order.p, 64));
    assert_ran(run_race_to_atomic(ticket.p + 1, later.p, 64));
    assert_true(order.read() != later.read());
}

static void a_report_says_where(void **state)
{
    (void)state;
    device_array<float> x(40), y(std::vector<float>(40, 0.0f));
    simt_catch(true);
    simt_seed(77);
    assert_int_not_equal(run_struct({x.p, y.p}, 40), 0);
    std::string report = simt_report();
    for (const char *part :
         {"through_struct", "block (", "thread (", "reads 4 bytes at allocation", "(of 160 bytes)",
          "never written", "at tests/simt/primitives.cu:", "SIMT_SEED=77"})
        if (report.find(part) == std::string::npos)
            fail_msg("\"%s\" is not in \"%s\"", part, report.c_str());
    assert_null(simt_report());
}

static void a_race_tells_both_lines(void **state)
{
    (void)state;
    simt_catch(true);
    for (uint64_t seed = 1; seed <= 5; seed++) {
        simt_seed(seed);
        std::string report = case_histogram(PLAIN_ADD_GLOBAL);
        size_t first = report.find("\n    at tests/simt/samples.cu:"),
               second = report.find("\n    the other access at tests/simt/samples.cu:");
        if (report.find("race: ") == std::string::npos || first == std::string::npos ||
            second == std::string::npos)
            fail_msg("%s", report.c_str());
    }
}

static void a_fault_that_is_not_caught_aborts(void **state)
{
    (void)state;
    device_array<float> x(40), y(40);
    pid_t child = fork();
    if (child == 0) {
        simt_catch(false);
        signal(SIGABRT, SIG_DFL);
        fclose(stderr);
        run_struct({x.p, y.p}, 40);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void pointers_to_const_are_read_only(void **state)
{
    (void)state;
    std::vector<float> ones(64, 1.0f);
    device_array<float> a(ones), b(ones);
    simt_catch(true);
    assert_ran(run_axpy(a.p, b.p, 64));
    assert_true(b.read() == std::vector<float>(64, 2.0f));
    assert_ran(run_axpy(b.p, b.p + 32, 32)); /* one allocation, by both kinds of pointer */
    simt_protect(b.p, true);
    assert_fault(run_axpy(a.p, b.p, 64), "may only read");
    assert_fault(run_struct({a.p, b.p}, 64), "may only read");
    simt_protect(b.p, false);
    assert_ran(run_struct({a.p, b.p}, 64));
}

static void memory_of_the_host_side(void **state)
{
    (void)state;
    std::vector<float> x(16, 1.0f);
    simt_catch(true);
    device_array<float> a(x), never(16);
    assert_fault(device_write(a.p + 1, x.data(), 64, NULL), "64 bytes at allocation");
    assert_fault(device_read(x.data(), x.data(), 4, NULL), "expected device memory");
    void *p;
    assert_int_equal(device_alloc(&p, 64), 0);
    assert_int_equal((uintptr_t)p % 256, 0);
    assert_int_equal(device_free(p), 0);
    assert_fault(device_free(p), "it was freed");
    assert_fault(device_fill(p, 0, 4, NULL), "it was freed");
    assert_int_equal(device_alloc(&p, (size_t)1 << 50), 2);
    /* A copy on the device of what was never written stays so. */
    assert_int_equal(device_write(a.p, never.p, 64, NULL), 0);
    assert_fault(run_axpy(a.p, a.p, 16), "never written");
    assert_int_equal(device_fill(a.p, 0, 64, NULL), 0);
    assert_ran(run_axpy(a.p, a.p, 16));
    assert_int_equal(device_alloc_host(&p, 64), 0);
    for (int i = 0; i < 16; i++)
        ((float *)p)[i] = (float)i;
    assert_ran(run_axpy((const float *)p, a.p, 16));
    assert_true(a.read()[15] == 15.0f);
    assert_int_equal(device_free_host(p), 0);
}

static void bad_launches(void **state)
{
    (void)state;
    device_array<int> out(6 * 2048);
    simt_catch(true);
    assert_fault(run_indices(1025, 1, 1, 1, out.p), "threads");
    assert_fault(run_indices(32, 1, 1, 0, out.p), "blocks");
    device_array<float> x(std::vector<float>(1024, 0.0f)), y(1024);
    assert_fault(run_transpose(x.p, y.p, 2000, 1), "dynamic shared memory");
}

static void a_spin_without_end_is_a_deadlock(void **state)
{
    (void)state;
    device_array<int> flag(std::vector<int>{0});
    simt_catch(true);
    assert_fault(run_spin(flag.p), "deadlock");
}

static void a_trap_is_a_fault(void **state)
{
    (void)state;
    device_array<int> flag(std::vector<int>{-1});
    simt_catch(true);
    assert_fault(run_spin(flag.p), "__trap");
}

/* More barriers than a clock's ticks, over the blocks of a launch. */
static void clocks_do_not_run_out(void **state)
{
    (void)state;
    const int blocks = 300, barriers = 10000;
    device_array<int> out(blocks);
    simt_catch(true);
    assert_ran(run_many_barriers(blocks, barriers, out.p));
    assert_true(out.read() == std::vector<int>(blocks, barriers));
    assert_fault(run_many_barriers(1, 3000000, out.p), "barriers and __syncwarps in one block");
    assert_ran(run_many_barriers(3, 3, out.p));
}

static void bank_conflicts_and_sectors_are_counted(void **state)
{
    (void)state;
    device_array<float> x(std::vector<float>(8 * 1024, 1.0f)), y(1024);
    simt_catch(true);
    simt_count(true);
    assert_ran(run_transpose(x.p, y.p, 33, 1));
    struct simt_counts padded = *simt_last_counts();
    assert_ran(run_transpose(x.p, y.p, 32, 8));
    struct simt_counts bad = *simt_last_counts();
    simt_count(false);
    assert_int_equal(padded.shared_requests, 64);
    assert_int_equal(padded.shared_passes, 64);
    assert_int_equal(padded.shared_ideal, 64);
    assert_int_equal(padded.global_requests, 64);
    assert_int_equal(padded.global_sectors, 64 * 4);
    assert_int_equal(padded.global_ideal, 64 * 4);
    assert_int_equal(padded.worst_shared[0], 0);
    assert_int_equal(bad.shared_passes, 32 + 32 * 32); /* reads down a column: one bank */
    assert_int_equal(bad.global_sectors, 32 * 32 + 32 * 4);
    assert_non_null(strstr(bad.worst_shared, "992 too many at tests/simt/primitives.cu:"));
    assert_non_null(strstr(bad.worst_global, "896 too many at tests/simt/primitives.cu:"));
}

static void threads_of_the_host_take_turns(void **state)
{
    (void)state;
    std::vector<std::thread> hosts;
    bool right[4] = {};
    for (int i = 0; i < 4; i++)
        hosts.emplace_back([&right, i] {
            void *p, *q;
            std::vector<float> x(256, (float)i), y(256);
            right[i] = device_alloc(&p, 1024) == 0 && device_alloc(&q, 1024) == 0;
            for (int round = 0; round < 20; round++) {
                right[i] &= device_write(p, x.data(), 1024, NULL) == 0;
                right[i] &= device_fill(q, 0, 1024, NULL) == 0;
                right[i] &= run_axpy((const float *)p, (float *)q, 256) == 0;
                right[i] &= device_read(y.data(), q, 1024, NULL) == 0 && y == x;
            }
            right[i] &= device_free(p) == 0 && device_free(q) == 0;
        });
    for (std::thread &t : hosts)
        t.join();
    for (bool r : right)
        assert_true(r);
}

static void a_recording_does_nothing_until_it_runs(void **state)
{
    (void)state;
    device_array<float> x(std::vector<float>(40, 2.0f)), y(std::vector<float>(40, 1.0f));
    device_graph graph;
    void *p;
    int nodes;
    assert_int_equal(device_record_begin(NULL), 0);
    assert_int_equal(run_axpy(x.p, y.p, 40), 0);
    assert_int_equal(device_write(x.p, y.p, 4 * sizeof(float), NULL), 0);
    assert_int_equal(device_record_end(NULL, &graph, &nodes), 0);
    assert_int_equal(nodes, 2);
    std::vector<float> before = y.read();
    assert_true(before == std::vector<float>(40, 1.0f));
    assert_int_equal(run_axpy(x.p, y.p, 40), 0);
    std::vector<float> once = y.read();
    assert_int_equal(device_write(y.p, before.data(), 40 * sizeof(float), NULL), 0);
    assert_int_equal(device_graph_run(graph, NULL), 0);
    assert_true(y.read() == once);
    assert_true(once != before && x.read()[3] == once[3] && x.read()[4] == 2.0f);
    assert_int_equal(device_graph_free(graph), 0);

    assert_int_equal(device_record_begin(NULL), 0); /* what a device refuses too */
    assert_int_not_equal(device_wait(NULL), 0);
    assert_int_not_equal(device_alloc(&p, 8), 0);
    assert_int_not_equal(device_record_end(NULL, &graph, &nodes), 0);
    assert_int_equal(device_wait(NULL), 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_seed_replays_its_schedule),
    cmocka_unit_test(launches_of_one_seed_differ),
    cmocka_unit_test(a_report_says_where),
    cmocka_unit_test(a_race_tells_both_lines),
    cmocka_unit_test(a_fault_that_is_not_caught_aborts),
    cmocka_unit_test(pointers_to_const_are_read_only),
    cmocka_unit_test(memory_of_the_host_side),
    cmocka_unit_test(bad_launches),
    cmocka_unit_test(a_spin_without_end_is_a_deadlock),
    cmocka_unit_test(a_trap_is_a_fault),
    cmocka_unit_test(clocks_do_not_run_out),
    cmocka_unit_test(bank_conflicts_and_sectors_are_counted),
    cmocka_unit_test(threads_of_the_host_take_turns),
    cmocka_unit_test(a_recording_does_nothing_until_it_runs),
};

UNIT_MAIN(tests)
