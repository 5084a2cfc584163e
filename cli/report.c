/* `witan report`: what tenants used, and what runs here under which rules. */
#include "cli/report.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/flags.h"

#include <string.h>

static const char usage[] =
    "usage: witan report usage --log FILE [--from DAY] [--to DAY] [--format text|csv|json] "
    "[--prices FILE]\n"
    "       witan report governance -c FILE [--html FILE] [--json FILE] [--connect [FLAG...]]\n"
    "usage: what tenants used, by day (UTC), from a coordinator's audit log: requests, tokens of "
    "prompts (and of\n"
    "these, cached), of completions and of reasoning, energy, and with prices what it comes to. "
    "The log is\n"
    "believed as it stands.\n"
    "  --log FILE         the audit log: audit.file of cluster.yaml\n"
    "  --from DAY         the first day, like 2026-01-31 (default: the log's)\n"
    "  --to DAY           the last day\n"
    "  --format text|csv|json\n"
    "                     how it is written (default: text)\n"
    "  --prices FILE      JSON: {\"currency\": \"EUR\", \"prompt\": 0.5, \"cached\": 0.1, "
    "\"completion\": 1.5,\n"
    "                     \"kwh\": 0.3}, of a million tokens and of a kilowatt-hour\n"
    "governance: one document of what a cluster.yaml serves: the model, its origin, licence, "
    "digest "
    "and signers,\n"
    "hosts and regions, versions, policies and the whole configuration. What is not known is said "
    "to be so. JSON\n"
    "on standard output where no file is named.\n"
    "  -c FILE            the cluster.yaml\n"
    "  --html FILE        a page that stands alone\n"
    "  --json FILE        the document for programs\n"
    "  --connect          ask the coordinator at listen.grpc, or at --address, what runs, too\n";

int report_help(FILE *f)
{
    fprintf(f, "%s%s", usage, client_help);
    return f == stdout ? 0 : 2;
}

int cmd_report(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (flags_ask_help(argc, argv))
        return report_help(stdout);
    if (strcmp(what, "usage") == 0)
        return report_usage(argc - 1, argv + 1);
    if (strcmp(what, "governance") == 0)
        return report_governance(argc - 1, argv + 1);
    return report_help(stderr);
}
