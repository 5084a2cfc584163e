/* `witan logits`: raw logits of given token ids, for comparison with any other implementation. */
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/group.h"
#include "cli/lines.h"

#include "base/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct logits_run {
    struct engine *engine;
    FILE *out;
    const char *path;
    bool all;
    int32_t *ids;
    int32_t cap;       /* of ids: the context */
    int64_t positions; /* written for the request in flight */
    enum status st;
    struct error *err;
};

static const char usage[] =
    "usage: witan logits DIR --out FILE [--all] [GROUP FLAG...]\n"
    "Reads {\"ids\": [...]} a line and writes to FILE, one after the other, the float32 logits\n"
    "(little-endian, vocab_size a row) that follow the last id, or every id with --all; on "
    "standard\n"
    "output {\"positions\": N} a line.\n";

static void on_logits(void *user, int32_t pos, const float *logits, int32_t vocab)
{
    (void)pos;
    struct logits_run *r = user;
    if (r->st == OK && fwrite(logits, sizeof *logits, (size_t)vocab, r->out) != (size_t)vocab)
        r->st = error_errno(r->err, errno, "%s", r->path);
    r->positions++;
}

static void on_token(void *user, int32_t token, enum finish finish)
{
    (void)user;
    (void)token;
    (void)finish;
}

static enum status take_ids(struct logits_run *r, const json_t *in, int32_t *count,
                            struct error *err)
{
    const json_t *ids = json_object_get(in, "ids");
    if (!json_is_array(ids))
        return error_set(err, ERR_INVALID, "ids: expected an array, found %s",
                         json_type_words(ids));
    size_t n = json_array_size(ids);
    if (n > (size_t)r->cap)
        return error_set(err, ERR_LIMIT, "%zu ids exceed the context of %d", n, r->cap);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(ids, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
            return error_set(err, ERR_INVALID, "ids[%zu]: expected a token id", i);
        r->ids[i] = (int32_t)json_integer_value(v);
    }
    *count = (int32_t)n;
    return OK;
}

static enum status answer(void *state, const json_t *in, struct buf *out, struct error *err)
{
    struct logits_run *r = state;
    struct request q = {.prompt = r->ids,
                        .all_logits = r->all,
                        .sampling = {.top_p = 1.0f},
                        .on_token = on_token,
                        .on_logits = on_logits,
                        .user = r};
    r->positions = 0;
    r->st = OK;
    r->err = err;
    TRY(take_ids(r, in, &q.prompt_len, err));
    TRY(engine_submit(r->engine, &q, NULL, err));
    for (bool ran = true; ran;)
        TRY(engine_step(r->engine, &ran, err));
    TRY(r->st);
    return buf_printf(out, err, "{\"positions\": %lld}", (long long)r->positions);
}

struct logits_args {
    const char *path;
    bool all;
    int code;
};

static enum status rank0(struct engine *e, struct model *m, void *arg, struct error *err)
{
    struct logits_args *a = arg;
    struct logits_run r = {.engine = e, .path = a->path, .all = a->all, .cap = m->limits.context};
    r.ids = calloc((size_t)r.cap, sizeof *r.ids);
    if (!r.ids)
        return error_set(err, ERR_NO_MEMORY, "no memory for %d ids", r.cap);
    r.out = fopen(a->path, "wbe");
    enum status st = r.out ? OK : error_errno(err, errno, "%s", a->path);
    if (st == OK)
        a->code = lines_run("logits", answer, &r);
    if (r.out && fclose(r.out) != 0)
        st = error_errno(err, errno, "%s", a->path);
    free(r.ids);
    return st;
}

int cmd_logits(int argc, char **argv)
{
    if (flags_ask_help(argc, argv)) {
        printf("%s%s", usage, group_help);
        return 0;
    }
    struct group_options o;
    struct logits_args a = {0};
    group_init(&o);
    for (int i = 1; i < argc; i++) {
        int taken = group_flag(&o, argc, argv, &i);
        if (taken < 0)
            return 2;
        if (taken)
            continue;
        if (strcmp(argv[i], "--all") == 0)
            a.all = true;
        else if (strcmp(argv[i], "--out") == 0 && i + 1 < argc)
            a.path = argv[++i];
        else if (argv[i][0] != '-' && !o.dir)
            o.dir = argv[i];
        else
            o.dir = NULL, i = argc;
    }
    if (!o.dir || !a.path) {
        fprintf(stderr, "%s%s", usage, group_help);
        return 2;
    }
    if (a.all) {
        o.limits.max_rows = o.limits.max_rows ? o.limits.max_rows : 64;
        o.limits.max_logits = o.limits.max_rows;
    }
    struct error err;
    enum status st = group_run(&o, argv - 1, 0, rank0, &a, &err);
    group_fini(&o);
    if (st != OK) {
        fprintf(stderr, "witan logits: %s\n", err.msg);
        return 1;
    }
    return a.code;
}
