/* JSON lines: see lines.h. */
#include "cli/lines.h"

#include "base/json.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* A line's text may grow sixfold when its control characters are escaped. */
enum { MAX_ANSWER_BYTES = LINES_MAX_BYTES * 6LL + 4096 };

/* The next line without its newline; *more is false at the end. A line over the limit is read to
 * its end and refused. */
static enum status read_line(struct buf *line, bool *more, struct error *err)
{
    enum status st = OK;
    char chunk[4096];
    size_t n = 0;
    int c;
    buf_clear(line);
    *more = false;
    while ((c = getc_unlocked(stdin)) != EOF && c != '\n') {
        *more = true;
        chunk[n++] = (char)c;
        if (n == sizeof chunk) {
            if (st == OK)
                st = buf_append(line, chunk, n, err);
            n = 0;
        }
    }
    *more = *more || c == '\n';
    return st == OK ? buf_append(line, chunk, n, err) : st;
}

static enum status answer_line(lines_answer answer, void *state, const struct buf *line,
                               struct buf *out, struct error *err)
{
    /* Not json_parse: text may hold NUL characters. */
    json_error_t je = {.text = "an empty line"};
    json_t *in = NULL;
    if (line->len > 0)
        in = json_loadb(line->data, line->len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);
    if (!in)
        return error_set(err, ERR_INVALID, "expected a JSON object, found %s", je.text);
    enum status st = OK;
    if (json_is_object(in))
        st = answer(state, in, out, err);
    else
        st = error_set(err, ERR_INVALID, "expected a JSON object, found %s", json_type_words(in));
    json_decref(in);
    return st;
}

static enum status append_error(size_t number, const char *msg, struct buf *out, struct error *err)
{
    char words[1100];
    int len = snprintf(words, sizeof words, "line %zu: %s", number, msg);
    buf_clear(out);
    TRY(buf_puts(out, "{\"error\": ", err));
    TRY(buf_json_string(out, words, (size_t)len, err));
    return buf_puts(out, "}", err);
}

int lines_run(const char *command, lines_answer answer, void *state)
{
    struct buf line, out;
    buf_init(&line, LINES_MAX_BYTES);
    buf_init(&out, (size_t)MAX_ANSWER_BYTES);
    int code = 0;
    for (size_t number = 1;; number++) {
        struct error err, cause;
        bool more;
        enum status st = read_line(&line, &more, &cause);
        if (!more)
            break;
        buf_clear(&out);
        if (st == OK)
            st = answer_line(answer, state, &line, &out, &cause);
        if (st != OK) {
            code = 1;
            st = append_error(number, cause.msg, &out, &err);
        }
        if (st == OK)
            st = buf_puts(&out, "\n", &err);
        if (st != OK || fwrite(out.data, 1, out.len, stdout) != out.len || fflush(stdout) != 0) {
            fprintf(stderr, "%s: line %zu: cannot write the answer\n", command, number);
            code = 1;
            break;
        }
    }
    buf_fini(&line);
    buf_fini(&out);
    return code;
}
