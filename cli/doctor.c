/* `witan doctor`: is this host fit to serve, and what is to be done? See doctor.h. */
#include "cli/doctor.h"
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/json_put.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: witan doctor [--config cluster.yaml] [--json]\n"
    "Looks at this host and says of each thing ok, warn or fail, and what to do: processor and\n"
    "kernels, memory, huge pages, limits, clock, swap, core dumps, sandbox, GPU libraries; with a\n"
    "configuration also its ports, interfaces, model, keys and certificates. Run it on every "
    "host,\n"
    "as the user who serves. Changes nothing. Exit code 1: something fails.\n"
    "  --config FILE      the cluster.yaml that this host serves by\n"
    "  --json             for programs\n"
    "  --root DIR         read DIR/proc and DIR/sys in place of /proc and /sys\n";

void doctor_say(struct doctor *d, enum doctor_level level, const char *check, const char *fmt, ...)
{
    if (d->count == DOCTOR_MAX)
        return;
    struct doctor_finding *f = &d->finding[d->count++];
    *f = (struct doctor_finding){.level = level, .check = check};
    va_list args;
    va_start(args, fmt);
    vsnprintf(f->found, sizeof f->found, fmt, args);
    va_end(args);
}

void doctor_advise(struct doctor *d, const char *fmt, ...)
{
    if (d->count == 0)
        return;
    struct doctor_finding *f = &d->finding[d->count - 1];
    va_list args;
    va_start(args, fmt);
    vsnprintf(f->advice, sizeof f->advice, fmt, args);
    va_end(args);
}

static FILE *open_below(const struct doctor *d, const char *path)
{
    char full[PATH_MAX];
    int n = snprintf(full, sizeof full, "%s%s", d->root, path);
    return n < (int)sizeof full ? fopen(full, "re") : NULL;
}

bool doctor_line(const struct doctor *d, const char *path, char line[DOCTOR_LINE])
{
    FILE *f = open_below(d, path);
    bool read = f && fgets(line, DOCTOR_LINE, f);
    if (f)
        fclose(f);
    if (!read)
        line[0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    return read;
}

uint64_t doctor_number(const struct doctor *d, const char *path, const char *key, uint64_t none)
{
    char line[DOCTOR_LINE];
    unsigned long long n = none;
    size_t len = strlen(key);
    bool found = false;
    FILE *f = open_below(d, path);
    while (f && !found && fgets(line, sizeof line, f))
        found = strncmp(line, key, len) == 0 && sscanf(line + len, "%llu", &n) == 1;
    if (f)
        fclose(f);
    return found ? n : none;
}

static const char *const levels[] = {"ok", "warn", "fail"};

static int print_text(const struct doctor *d, const int counts[3])
{
    for (int i = 0; i < d->count; i++) {
        const struct doctor_finding *f = &d->finding[i];
        printf("%-4s  %-12s %s\n", levels[f->level], f->check, f->found);
        if (*f->advice)
            printf("      %-12s to do: %s\n", "", f->advice);
    }
    printf("%d ok, %d to look at, %d to be put right\n", counts[DOCTOR_OK], counts[DOCTOR_WARN],
           counts[DOCTOR_FAIL]);
    return fflush(stdout);
}

static int print_json(const struct doctor *d, const int counts[3])
{
    json_t *root = json_object(), *checks = json_array();
    CHECK(root && checks, "no memory for findings");
    json_put(root, "ok", json_boolean(counts[DOCTOR_FAIL] == 0));
    for (int i = 0; i < 3; i++)
        json_put_int(root,
                     levels[i][0] == 'o'   ? "passed"
                     : levels[i][0] == 'w' ? "warnings"
                                           : "failures",
                     counts[i]);
    for (int i = 0; i < d->count; i++) {
        const struct doctor_finding *f = &d->finding[i];
        json_t *one = json_object();
        CHECK(one, "no memory for findings");
        json_put(one, "check", json_string(f->check));
        json_put(one, "level", json_string(levels[f->level]));
        json_t *found = json_string(f->found), *advice = json_string(f->advice);
        json_put(one, "found", found ? found : json_string("(not UTF-8)"));
        json_put(one, "advice", advice ? advice : json_string("(not UTF-8)"));
        json_add(checks, one);
    }
    json_put(root, "checks", checks);
    char *text = json_dumps(root, JSON_INDENT(2));
    CHECK(text, "no memory for findings");
    puts(text);
    free(text);
    json_decref(root);
    return fflush(stdout);
}

/* `c` is to be released where this gives true. */
static bool take_config(struct doctor *d, const char *path, struct config *c)
{
    struct error err;
    enum status st = config_init(c, &err);
    if (st != OK)
        return false;
    st = config_read(path, c, &err);
    if (st == OK)
        st = config_check(c, &err);
    if (st == OK) {
        d->config = c;
        doctor_say(d, DOCTOR_OK, "config", "%s", path);
    } else {
        doctor_say(d, DOCTOR_FAIL, "config", "%s", err.msg);
        doctor_advise(d, "what depends on the configuration was not looked at; put it right and "
                         "run this again");
    }
    return true;
}

static int examine(const char *config, const char *root, bool json)
{
    struct doctor *d = check_calloc(1, sizeof *d);
    struct config c;
    int counts[3] = {0};
    d->root = root;
    bool taken = config && take_config(d, config, &c);
    doctor_files(d);
    doctor_host(d);
    doctor_network(d);
    doctor_gpu(d);
    for (int i = 0; i < d->count; i++)
        counts[d->finding[i].level]++;
    int written = json ? print_json(d, counts) : print_text(d, counts);
    if (taken)
        config_fini(&c);
    free(d);
    return counts[DOCTOR_FAIL] > 0 || written != 0;
}

int cmd_doctor(int argc, char **argv)
{
    const char *config = NULL, *root = "";
    bool json = false;
    if (flags_ask_help(argc, argv)) {
        fputs(usage, stdout);
        return 0;
    }
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc && *argv[i + 1];
        if (strcmp(argv[i], "--json") == 0)
            json = true;
        else if ((strcmp(argv[i], "--config") == 0 || strcmp(argv[i], "-c") == 0) && more)
            config = argv[++i];
        else if (strcmp(argv[i], "--root") == 0 && more)
            root = argv[++i];
        else {
            fprintf(stderr, "witan doctor: unexpected \"%s\"\n%s", argv[i], usage);
            return 2;
        }
    }
    return examine(config, root, json);
}
