/* `witan report usage`: what tenants used, by day, from an audit log. */
#include "base/check.h"
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/report.h"
#include "coordinator/usage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_REPORT_BYTES = 1 << 30, MAX_LINE_BYTES = 64 << 10 };

struct reading {
    struct usage *usage;
    const char *path;
    int64_t line;
    bool torn; /* the last line has no end: it is being written, or was when the machine stopped */
};

static enum status take_record(struct reading *r, const char *what, const char *line, size_t len,
                               struct error *err)
{
    json_t *root = NULL;
    const char *kind = NULL, *time = NULL;
    TRY(json_parse(what, line, len, &root, err));
    enum status st = json_get_string(root, what, "kind", true, &kind, err);
    if (st == OK)
        st = json_get_string(root, what, "time", true, &time, err);
    const json_t *fields = json_object_get(root, "fields");
    if (st == OK && json_is_object(fields))
        st = usage_add(r->usage, kind, time, fields, err);
    json_decref(root);
    return st;
}

static enum status take(struct reading *r, const char *line, size_t len, struct error *err)
{
    char what[300];
    r->line++;
    if (len == 0 || line[len - 1] != '\n') {
        r->torn = true;
        return OK;
    }
    snprintf(what, sizeof what, "%.200s: line %" PRId64, r->path, r->line);
    enum status st = len > MAX_LINE_BYTES
                         ? error_set(err, ERR_INVALID, "%s: expected at most %d bytes", what,
                                     (int)MAX_LINE_BYTES)
                         : take_record(r, what, line, len - 1, err);
    if (st == ERR_INVALID)
        error_prefix(err, "this is no audit log that can be counted: ");
    return st;
}

/* A line of any length is read, but none longer than a record can be is taken. */
static enum status read_log(struct reading *r, struct error *err)
{
    FILE *f = fopen(r->path, "re");
    char *line = NULL;
    size_t size = 0;
    if (!f)
        return error_errno(err, errno, "%s", r->path);
    enum status st = OK;
    for (ssize_t n; st == OK && (n = getline(&line, &size, f)) > 0;)
        st = take(r, line, (size_t)n, err);
    if (st == OK && ferror(f))
        st = error_set(err, ERR_IO, "%s: it cannot be read", r->path);
    free(line);
    fclose(f);
    return st;
}

static enum status run(struct reading *r, const struct usage_prices *prices,
                       enum usage_format format, struct error *err)
{
    struct buf out;
    buf_init(&out, MAX_REPORT_BYTES);
    enum status st = read_log(r, err);
    if (st == OK)
        st = usage_write(r->usage, prices, format, &out, err);
    if (st == OK && (fwrite(out.data, 1, out.len, stdout) != out.len || fflush(stdout) != 0))
        st = error_set(err, ERR_IO, "standard output: cannot write");
    buf_fini(&out);
    if (st == OK && r->torn)
        fprintf(stderr, "witan report usage: %s: its last line has no end and is not counted\n",
                r->path);
    return st;
}

static bool take_format(const char *word, enum usage_format *out)
{
    static const char *const words[] = {
        [USAGE_TEXT] = "text", [USAGE_CSV] = "csv", [USAGE_JSON] = "json"};
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        if (strcmp(word, words[i]) != 0)
            continue;
        *out = (enum usage_format)i;
        return true;
    }
    fprintf(stderr, "witan report usage: --format: expected text, csv or json, found %s\n", word);
    return false;
}

int report_usage(int argc, char **argv)
{
    const char *log = NULL, *from = NULL, *to = NULL, *word = NULL, *prices_path = NULL;
    const struct flag flags[] = {{"--log", &log},     {"--from", &from},          {"--to", &to},
                                 {"--format", &word}, {"--prices", &prices_path}, {0}};
    struct usage_prices prices = {0};
    enum usage_format format;
    struct error err;
    if (!flags_read("witan report usage", argc, argv, 1, flags) ||
        !take_format(word ? word : "text", &format))
        return 2;
    if (!log) {
        fprintf(
            stderr,
            "witan report usage: --log: expected the coordinator's audit log, found nothing: usage "
            "is counted from it; where none is kept, set audit.file and audit.key in "
            "cluster.yaml\n");
        return 2;
    }
    struct reading r = {.path = log};
    enum status st = prices_path ? usage_prices_read(prices_path, &prices, &err) : OK;
    if (st == OK)
        st = usage_create(from, to, &r.usage, &err);
    if (st == OK)
        st = run(&r, &prices, format, &err);
    usage_destroy(r.usage);
    if (st == OK)
        return 0;
    fprintf(stderr, "witan report usage: %s\n", err.msg);
    return 1;
}
