/* `witan config --check FILE`: is a cluster.yaml sound, and what does it come to? */
#include "cli/cli.h"
#include "cli/flags.h"
#include "coordinator/config.h"

#include <stdio.h>

static const char usage[] =
    "usage: witan config --check FILE\n"
    "Reads a cluster.yaml and writes the effective configuration, defaults included, as YAML that\n"
    "reads back to the same. What is wrong is said in one line, with exit code 1. Looks at no\n"
    "other file: certificates, keys and the checkpoint are read when the cluster starts.\n";

static enum status print_checked(const char *path, struct buf *out, struct error *err)
{
    struct config c;
    TRY(config_init(&c, err));
    enum status st = config_read(path, &c, err);
    if (st == OK) {
        st = config_check(&c, err);
        if (st != OK)
            error_prefix(err, "%s: ", path);
    }
    if (st == OK)
        st = config_print(&c, out, err);
    config_fini(&c);
    return st;
}

int cmd_config(int argc, char **argv)
{
    const char *path = NULL;
    const struct flag flags[] = {{"--check", &path}, {0}};
    if (flags_ask_help(argc, argv)) {
        fputs(usage, stdout);
        return 0;
    }
    if (!flags_read("witan config", argc, argv, 1, flags) || !path) {
        fputs(usage, stderr);
        return 2;
    }
    struct error err;
    struct buf out;
    buf_init(&out, (size_t)CONFIG_MAX_BYTES * 8);
    enum status st = print_checked(path, &out, &err);
    if (st == OK && (fwrite(out.data, 1, out.len, stdout) != out.len || fflush(stdout) != 0))
        st = error_set(&err, ERR_IO, "standard output: cannot write");
    if (st != OK)
        fprintf(stderr, "witan config: %s\n", err.msg);
    buf_fini(&out);
    return st == OK ? 0 : 1;
}
