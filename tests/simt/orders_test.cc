/* What orders accesses and what does not: no false alarm for the right forms, a race in each wrong
 * one, under every schedule. */
#include "tests/simt/check.h"

#include "tests/simt/orders.cuh"

#include <string>

static std::string outcome(int kind, bool wrong, uint64_t seed)
{
    device_array<int> out(1024), scratch(std::vector<int>(1024, 0));
    simt_seed(seed);
    int code = run_order((enum order_kind)kind, wrong, out.p, scratch.p);
    const char *report = simt_report();
    return report ? report : code ? "code " + std::to_string(code) : "";
}

static void what_is_ordered_raises_no_alarm(void **state)
{
    (void)state, (void)shared_path;
    simt_catch(true);
    for (int kind = 0; kind < ORDERS; kind++)
        for (uint64_t seed = 1; seed <= 40; seed++) {
            std::string report = outcome(kind, false, seed);
            if (!report.empty())
                fail_msg("order %d, seed %d: %s", kind, (int)seed, report.c_str());
        }
}

static void what_is_not_ordered_is_a_race(void **state)
{
    (void)state;
    simt_catch(true);
    for (int kind = 0; kind < ORDERS; kind++)
        for (uint64_t seed = 1; seed <= 10; seed++) {
            std::string report = outcome(kind, true, seed);
            bool early = report.find("never written") !=
                         std::string::npos; /* read before written */
            bool unlinked = kind == ORDER_OVERLAP_LINK &&
                            report.find("no thread waited") != std::string::npos;
            if (!early && !unlinked && report.find("race: ") == std::string::npos)
                fail_msg("order %d, seed %d: \"%s\"", kind, (int)seed, report.c_str());
        }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(what_is_ordered_raises_no_alarm),
    cmocka_unit_test(what_is_not_ordered_is_a_race),
};

UNIT_MAIN(tests)
