/*
 * `witan render`: conversations in, prompts and their token ids out, JSON lines both ways, so that
 * a prompt can be read before a model sees it and compared with any other renderer's.
 */
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/lines.h"
#include "coordinator/text/template.h"
#include "coordinator/text/tokenizer.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: witan render DIR [--template NAME]\n"
    "Reads {\"messages\": [...], \"tools\": [...], \"kwargs\": {...}} a line and writes\n"
    "{\"rendered\": \"...\", \"ids\": [...]} a line, or {\"error\": \"...\"} in its place and "
    "exits\n"
    "with 1. DIR holds the checkpoint's tokenizer and its chat template, as files or in a GGUF;\n"
    "NAME overrides the template. Only what the template itself wrote becomes a special token.\n";

struct session {
    enum template_kind kind;
    struct tokenizer *tok;
    struct tokenizer_scratch *scratch;
    struct token_ids ids;
};

static enum status session_init(struct session *s, const char *dir, const char *name,
                                struct error *err)
{
    *s = (struct session){0};
    token_ids_init(&s->ids, TEMPLATE_LIMIT_BYTES);
    TRY(tokenizer_load(dir, &s->tok, err));
    TRY(tokenizer_scratch_create(s->tok, &s->scratch, err));
    return name ? template_by_name(name, &s->kind, err) : template_detect(dir, &s->kind, err);
}

static void session_fini(struct session *s)
{
    token_ids_fini(&s->ids);
    tokenizer_scratch_destroy(s->scratch);
    tokenizer_destroy(s->tok);
}

static enum status append_answer(struct session *s, const struct template_rendered *r,
                                 struct buf *out, struct error *err)
{
    token_ids_clear(&s->ids);
    TRY(tokenizer_encode_spans(s->tok, s->scratch, r->text, r->len, r->spans, r->span_count,
                               &s->ids, err));
    TRY(buf_puts(out, "{\"rendered\": ", err));
    TRY(buf_json_string(out, r->text, r->len, err));
    TRY(buf_puts(out, ", \"ids\": [", err));
    for (size_t i = 0; i < s->ids.len; i++)
        TRY(buf_printf(out, err, i ? ", %u" : "%u", s->ids.data[i]));
    return buf_puts(out, "]}", err);
}

static enum status render_line(void *state, const json_t *in, struct buf *out, struct error *err)
{
    struct session *s = state;
    struct template_rendered r;
    TRY(template_render(s->kind, json_object_get(in, "messages"), json_object_get(in, "tools"),
                        json_object_get(in, "kwargs"), TEMPLATE_LIMIT_BYTES, &r, err));
    enum status st = append_answer(s, &r, out, err);
    template_rendered_fini(&r);
    return st;
}

/* False when the arguments are not of the usage's form. */
static bool read_arguments(int argc, char **argv, const char **dir, const char **name)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--template") == 0 && i + 1 < argc && !*name)
            *name = argv[++i];
        else if (argv[i][0] != '-' && !*dir)
            *dir = argv[i];
        else
            return false;
    }
    return *dir != NULL;
}

int cmd_render(int argc, char **argv)
{
    const char *dir = NULL;
    const char *name = NULL;
    if (flags_ask_help(argc, argv)) {
        fputs(usage, stdout);
        return 0;
    }
    if (!read_arguments(argc, argv, &dir, &name)) {
        fputs(usage, stderr);
        return 2;
    }
    struct session s;
    struct error err;
    int code = 1;
    if (session_init(&s, dir, name, &err) == OK)
        code = lines_run("witan render", render_line, &s);
    else
        fprintf(stderr, "witan render: %s\n", err.msg);
    session_fini(&s);
    return code;
}
