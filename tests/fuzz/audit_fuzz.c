/*
 * Any bytes as an audit log, and its second file. Input: the second file and the
 * log with a byte 0xff between. A line that is taken is its own one text; what is found is said in
 * one line, of a line that there is.
 */
#include "base/check.h"
#include "coordinator/audit_check.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int64_t lines;

static void tell(void *arg, const struct audit_finding *f)
{
    (void)arg;
    CHECK(f->line >= 0 && (f->heads || f->line <= lines + 1), "line %lld", (long long)f->line);
    CHECK(f->seq >= -1 && *f->what && !strchr(f->what, '\n'), "%s", f->what);
}

/* What is read is written again the same. */
static void line_again(const char *line, size_t len)
{
    struct audit_record r;
    struct error err = {.code = OK};
    enum status st = audit_line_read("it", line, len, &r, &err);
    if (st != OK) {
        CHECK(err.code == st && strncmp(err.msg, "it: ", 4) == 0, "%s", err.msg);
        return;
    }
    struct audit_chain c = {.seq = r.seq, .prev = r.prev};
    struct audit_time at = {.wall_ms = r.wall_ms, .mono_ms = r.mono_ms};
    struct buf out;
    buf_init(&out, 2 * AUDIT_MAX_LINE);
    char *fields = audit_canonical(r.fields), *head = audit_head_text(r.root);
    CHECK(fields && head, "no memory");
    CHECK(audit_line_write(&c, r.kind, fields, &at, &out, &err) == OK, "%s", err.msg);
    CHECK(out.len == len + 1 && memcmp(out.data, line, len) == 0, "%.*s", (int)len, line);
    buf_fini(&out);
    free(head);
    free(fields);
    json_decref(r.root);
}

/* Calls on each line, as files are cut. */
static void each(struct audit_check *c, const char *text, size_t len, bool second)
{
    struct error err;
    while (len > 0) {
        const char *newline = memchr(text, '\n', len);
        size_t n = newline ? (size_t)(newline - text) : len, used = n + (newline != NULL);
        line_again(text, n);
        lines += !second;
        if (second)
            CHECK(audit_check_second(c, text, n, newline != NULL, &err) == OK, "%s", err.msg);
        else
            audit_check_line(c, text, n, newline != NULL);
        text += used;
        len -= used;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct audit_check *c = NULL;
    struct audit_summary sum;
    struct error err;
    const uint8_t *border = memchr(data, 0xff, size);
    size_t first = border ? (size_t)(border - data) : 0;
    lines = 0;
    CHECK(audit_check_begin(NULL, tell, NULL, &c, &err) == OK, "%s", err.msg);
    each(c, (const char *)data, first, true);
    size_t from = border ? first + 1 : 0;
    each(c, (const char *)data + from, size - from, false);
    audit_check_end(c, &sum);
    CHECK(sum.lines == lines && sum.findings >= 0, "%lld lines", (long long)sum.lines);
    return 0;
}
