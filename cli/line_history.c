/* Lines that were written before: see line_history.h. */
#include "cli/line_history.h"
#include "base/check.h"
#include "base/file.h"
#include "coordinator/text/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FILE_BYTES = 64 << 20 };

bool line_history_add(struct line_history *h, const char *line)
{
    if (!*line || (h->count > 0 && strcmp(h->lines[h->count - 1], line) == 0))
        return false;
    if (h->count == LINE_HISTORY) {
        free(h->lines[0]);
        memmove(h->lines, h->lines + 1, (LINE_HISTORY - 1) * sizeof *h->lines);
        h->count--;
    }
    char *copy = strdup(line);
    CHECK(copy, "no memory for a line of %zu bytes", strlen(line));
    h->lines[h->count++] = copy;
    return true;
}

void line_history_fini(struct line_history *h)
{
    while (h->count > 0)
        free(h->lines[--h->count]);
}

/* --- in a file ---------------------------------------------------------------------------------
 */

static enum status put_line(struct buf *out, const char *line, struct error *err)
{
    TRY(buf_json_string(out, line, strlen(line), err));
    return buf_puts(out, "\n", err);
}

/* What lines of a file came to. */
struct taken {
    size_t lines, bad;
};

static bool take_line(struct line_history *h, const char *line, size_t len)
{
    json_t *s = json_loadb(line, len, JSON_DECODE_ANY, NULL);
    bool good = json_is_string(s) && json_string_length(s) <= LINE_MAX_BYTES;
    if (good)
        line_history_add(h, json_string_value(s));
    json_decref(s);
    return good;
}

static struct taken take_lines(struct line_history *h, const char *text, size_t len)
{
    struct taken t = {0};
    for (const char *line = text, *end = text + len; line < end;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t bytes = (size_t)((newline ? newline : end) - line);
        t.lines += bytes > 0;
        t.bad += bytes > 0 && !take_line(h, line, bytes);
        line += bytes + 1;
    }
    return t;
}

/* The newest lines, up to half of what a file may hold. */
static enum status rewrite(const struct line_history *h, const char *path, struct error *err)
{
    struct buf all, one;
    buf_init(&all, MAX_FILE_BYTES);
    buf_init(&one, MAX_FILE_BYTES);
    enum status st = OK;
    size_t from = h->count, bytes = 0;
    for (; st == OK && from > 0; from--) {
        buf_clear(&one);
        st = put_line(&one, h->lines[from - 1], err);
        bytes += one.len;
        if (bytes > MAX_FILE_BYTES / 2)
            break;
    }
    for (size_t i = from; st == OK && i < h->count; i++)
        st = put_line(&all, h->lines[i], err);
    if (st == OK)
        st = file_write(path, all.data ? all.data : "", all.len, 0600, true, err);
    buf_fini(&one);
    buf_fini(&all);
    return st;
}

enum status line_history_read(struct line_history *h, const char *path, size_t *skipped,
                              struct error *err)
{
    char *text = NULL;
    size_t len = 0;
    *skipped = 0;
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return file_write(path, "", 0, 0600, false, err);
    TRY(file_check_secret(path, err));
    TRY(file_read_all(path, MAX_FILE_BYTES, &text, &len, err));
    struct taken t = take_lines(h, text, len);
    free(text);
    *skipped = t.bad;
    if (t.bad > 1 && t.bad > t.lines / 2)
        return error_set(err, ERR_INVALID,
                         "%s: expected a JSON string a line, found %zu of %zu lines that are none: "
                         "is it a history?",
                         path, t.bad, t.lines);
    return t.lines > 2 * LINE_HISTORY || len > MAX_FILE_BYTES / 2 ? rewrite(h, path, err) : OK;
}

/* `text`: a newline, for behind a line that a crash cut off, and a line. Where not all of it fits,
 * none of it stays. */
static enum status append(int fd, const struct buf *text, const char *path, struct error *err)
{
    struct stat before, after;
    char last = '\n';
    if (fstat(fd, &before) != 0 ||
        (before.st_size > 0 && pread(fd, &last, 1, before.st_size - 1) != 1))
        return error_errno(err, errno, "%s", path);
    size_t skip = last == '\n'; /* the newline in front */
    const char *from = text->data + skip;
    size_t len = text->len - skip;
    if ((size_t)before.st_size + len > MAX_FILE_BYTES)
        return error_set(err, ERR_LIMIT, "%s: a history of %lld bytes is at its limit of %d", path,
                         (long long)before.st_size, MAX_FILE_BYTES);
    ssize_t n = write(fd, from, len);
    if (n < 0)
        return error_errno(err, errno, "%s", path);
    if ((size_t)n == len)
        return OK;
    bool mine = fstat(fd, &after) == 0 && after.st_size == before.st_size + n;
    bool undone = mine && ftruncate(fd, before.st_size) == 0;
    return error_set(err, ERR_IO, "%s: only %zd of a line's %zu bytes could be written%s", path, n,
                     len, undone ? "" : ", and stay there");
}

enum status line_history_append(const char *path, const char *line, struct error *err)
{
    struct buf text;
    size_t len = strlen(line);
    if (len > LINE_MAX_BYTES || utf8_valid_prefix(line, len) != len)
        return OK;
    buf_init(&text, MAX_FILE_BYTES);
    enum status st = buf_puts(&text, "\n", err);
    if (st == OK)
        st = put_line(&text, line, err);
    int fd = st == OK ? open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (st == OK)
        st = fd < 0 ? error_errno(err, errno, "%s", path) : append(fd, &text, path, err);
    if (fd >= 0)
        close(fd);
    buf_fini(&text);
    return st;
}
