/* Faults: the first one ends its launch. See runtime.h. */
#include "runtime.h"

#include <stdarg.h>
#include <stdlib.h>

static bool caught;        /* by a test */
static bool pending;       /* a fault that report_launch has yet to tell */
static char message[2048]; /* of the fault; made on a fiber's small stack */
static struct place where, other;
static std::string report;
static bool unread;

void simt_catch(bool on)
{
    caught = on;
}

const char *simt_report()
{
    if (!unread)
        return NULL;
    unread = false;
    return report.c_str();
}

static int who(const struct thread *t, char *out, size_t size)
{
    const uint3 &b = launch_now.block_index;
    if (!t)
        return 0;
    return snprintf(out, size, "block (%u,%u,%u), thread (%u,%u,%u): ", b.x, b.y, b.z, t->index.x,
                    t->index.y, t->index.z);
}

void fault(const struct thread *t, struct place place, const char *format, ...)
{
    if (!pending) {
        va_list args;
        int n = who(t, message, sizeof message);
        va_start(args, format);
        vsnprintf(message + n, sizeof message - (size_t)n, format, args);
        va_end(args);
        where = place;
        pending = true;
    }
    if (simt_self)
        launch_abandon();
    launch_now.failed = true;
}

void fault_other(struct place place)
{
    if (!pending)
        other = place;
}

void report_launch()
{
    if (!pending)
        return;
    pending = false;
    unread = true;
    report = "simt: ";
    if (launch_now.kernel)
        report += symbols_function(launch_now.kernel->function) + ", ";
    report += message;
    std::string line = symbols_place(where);
    if (!line.empty())
        report += "\n    at " + line;
    line = symbols_place(other);
    if (!line.empty())
        report += "\n    the other access at " + line;
    other = {};
    if (launch_now.kernel)
        report += "\n    seed " + std::to_string(launch_now.seed) +
                  " (SIMT_SEED=" + std::to_string(launch_now.seed) + " replays)";
    if (caught)
        return;
    fprintf(stderr, "%s\n", report.c_str());
    abort();
}
