/* `witan pki init` and `witan pki issue`: the cluster's certificates. */
#include "cli/cli.h"
#include "cli/flags.h"
#include "proto/pki.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: witan pki init DIR [--name NAME]\n"
    "       witan pki issue DIR --role coordinator|worker|door [FLAG...]\n"
    "init makes DIR with two roots: the cluster's (ca.pem, ca.key), which coordinator and ranks\n"
    "trust, and the doors' (door-ca.pem, door-ca.key), which clients trust. Keep the .key files "
    "off\n"
    "the machines that serve. issue signs a certificate with the role's root:\n"
    "  --out DIR          where FILE.pem and FILE.key go (default: the same folder)\n"
    "  --file NAME        their name (default: the role)\n"
    "  --days N           how long it is valid (default 397)\n"
    "of a worker, which may attach as\n"
    "  --group G          a rank of this group (default: any)\n"
    "  --rank R           this rank (default: any)\n"
    "  --region X         in this region (default: any)\n"
    "of a door, what clients call it by\n"
    "  --names A,B        DNS names and addresses, comma-separated\n";

struct request {
    const char *dir, *role, *out, *file, *days, *names;
    const char *group, *rank, *region;
};

static int finish(enum status st, const struct error *err)
{
    if (st != OK)
        fprintf(stderr, "witan pki: %s\n", err->msg);
    return st == OK ? 0 : 1;
}

static int wrong(const char *why)
{
    if (why)
        fprintf(stderr, "witan pki: %s\n", why);
    fputs(usage, stderr);
    return 2;
}

static const char *or_else(const char *text, const char *otherwise)
{
    return text ? text : otherwise;
}

static int init(int argc, char **argv)
{
    const char *dir = NULL, *name = NULL;
    const struct flag flags[] = {{"--name", &name}, {NULL, &dir}, {0}};
    if (!flags_read("witan pki", argc, argv, 2, flags) || !dir)
        return wrong(NULL);
    struct error err;
    return finish(pki_init(dir, or_else(name, "witan"), &err), &err);
}

/* Each role takes its own flags alone: one that is passed over would promise too much. */
static const char *misplaced(const struct request *r)
{
    bool is_worker = strcmp(r->role, "worker") == 0, is_door = strcmp(r->role, "door") == 0;
    if (!is_worker && !is_door && strcmp(r->role, "coordinator") != 0)
        return "--role: expected coordinator, worker or door";
    if (!is_worker && (r->group || r->rank || r->region))
        return "--group, --rank and --region: expected with --role worker alone";
    if (is_door != (r->names != NULL))
        return "--names: expected with --role door, and with it alone";
    return NULL;
}

static int issue(int argc, char **argv)
{
    struct request r = {0};
    const struct flag flags[] = {
        {NULL, &r.dir},          {"--role", &r.role},
        {"--out", &r.out},       {"--file", &r.file},
        {"--days", &r.days},     {"--names", &r.names},
        {"--group", &r.group},   {"--rank", &r.rank},
        {"--region", &r.region}, {0},
    };
    int days = PKI_LEAF_DAYS;
    if (!flags_read("witan pki", argc, argv, 2, flags) || !r.dir || !r.role)
        return wrong(NULL);
    const char *why = misplaced(&r);
    if (why)
        return wrong(why);
    if (r.days && !flags_int("witan pki", "--days", r.days, 1, PKI_ROOT_DAYS, &days))
        return 2;
    const char *out = or_else(r.out, r.dir), *file = or_else(r.file, r.role);
    struct error err;
    if (strcmp(r.role, "coordinator") == 0)
        return finish(pki_issue_coordinator(r.dir, out, file, days, &err), &err);
    if (strcmp(r.role, "door") == 0)
        return finish(pki_issue_door(r.dir, out, file, r.names, days, &err), &err);
    return finish(pki_issue_worker(r.dir, out, file, or_else(r.group, "*"), or_else(r.rank, "*"),
                                   or_else(r.region, "*"), days, &err),
                  &err);
}

int cmd_pki(int argc, char **argv)
{
    if (flags_ask_help(argc, argv)) {
        fputs(usage, stdout);
        return 0;
    }
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "init") == 0)
        return init(argc, argv);
    if (strcmp(verb, "issue") == 0)
        return issue(argc, argv);
    return wrong(NULL);
}
