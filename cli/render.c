/*
 * `witan render`: conversations in, prompts out, one JSON object a line each way, so that a prompt
 * can be read before a model sees it and compared with any other renderer's.
 */
#include "base/buf.h"
#include "base/error.h"
#include "cli/cli.h"
#include "coordinator/text/template.h"

#include <stdio.h>
#include <string.h>

enum { LINE_LIMIT_BYTES = 64 << 20 };

static const char usage[] =
    "usage: witan render DIR [--template NAME]\n"
    "Reads {\"messages\": [...], \"tools\": [...], \"kwargs\": {...}} a line and writes\n"
    "{\"rendered\": \"...\"} a line, or {\"error\": \"...\"} in its place and exits with 1.\n"
    "DIR holds the checkpoint's tokenizer files; NAME overrides the template found there.\n";

/* The next line without its newline. *more is false at the end of input. A line over the limit is
 * read to its end and is ERR_LIMIT. */
static enum status read_line(FILE *in, struct buf *line, bool *more, struct error *err)
{
    enum status st = OK;
    buf_clear(line);
    int c;
    *more = false;
    while ((c = getc_unlocked(in)) != EOF && c != '\n') {
        char byte = (char)c;
        *more = true;
        if (st == OK)
            st = buf_append(line, &byte, 1, err);
    }
    *more = *more || c == '\n';
    return st;
}

static enum status render_line(enum template_kind kind, const struct buf *line, struct buf *out,
                               struct error *err)
{
    /* Not json_parse: Jinja prints NUL characters too, and this shows what it would print. */
    json_error_t je;
    json_t *root = line->len ? json_loadb(line->data, line->len,
                                          JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je)
                             : NULL;
    if (!root)
        return error_set(err, ERR_INVALID, "expected a JSON object, found %s",
                         line->len ? je.text : "an empty line");
    struct template_rendered r;
    enum status st = template_render(
        kind, json_object_get(root, "messages"), json_object_get(root, "tools"),
        json_object_get(root, "kwargs"), TEMPLATE_LIMIT_BYTES, &r, err);
    json_decref(root);
    TRY(st);
    st = buf_puts(out, "{\"rendered\": ", err);
    if (st == OK)
        st = buf_json_string(out, r.text, r.len, err);
    if (st == OK)
        st = buf_puts(out, "}\n", err);
    template_rendered_fini(&r);
    return st;
}

static enum status render_error(size_t number, const char *msg, struct buf *out, struct error *err)
{
    char words[1100];
    int len = snprintf(words, sizeof words, "line %zu: %s", number, msg);
    buf_clear(out);
    TRY(buf_puts(out, "{\"error\": ", err));
    TRY(buf_json_string(out, words, (size_t)len, err));
    return buf_puts(out, "}\n", err);
}

/* Returns the exit code. */
static int render_lines(enum template_kind kind, FILE *in, FILE *to)
{
    struct buf line, out;
    buf_init(&line, LINE_LIMIT_BYTES);
    buf_init(&out, (size_t)TEMPLATE_LIMIT_BYTES * 6 + 64); /* each byte escaped to six */
    int code = 0;
    for (size_t number = 1;; number++) {
        struct error err;
        bool more;
        enum status st = read_line(in, &line, &more, &err);
        if (!more)
            break;
        buf_clear(&out);
        if (st == OK)
            st = render_line(kind, &line, &out, &err);
        if (st != OK) {
            code = 1;
            struct error cause = err;
            st = render_error(number, cause.msg, &out, &err);
        }
        if (st != OK || fwrite(out.data, 1, out.len, to) != out.len || fflush(to) != 0) {
            fprintf(stderr, "witan render: line %zu: cannot write the output\n", number);
            code = 1;
            break;
        }
    }
    buf_fini(&line);
    buf_fini(&out);
    return code;
}

int cmd_render(int argc, char **argv)
{
    const char *dir = NULL;
    const char *name = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--template") == 0 && i + 1 < argc && !name) {
            name = argv[++i];
        } else if (argv[i][0] != '-' && !dir) {
            dir = argv[i];
        } else {
            fputs(usage, stderr);
            return 2;
        }
    }
    if (!dir) {
        fputs(usage, stderr);
        return 2;
    }
    struct error err;
    enum template_kind kind;
    enum status st = name ? template_by_name(name, &kind, &err) : template_detect(dir, &kind, &err);
    if (st != OK) {
        fprintf(stderr, "witan render: %s\n", err.msg);
        return 1;
    }
    return render_lines(kind, stdin, stdout);
}
