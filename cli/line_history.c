/* Lines that were written before: see line_history.h. */
#include "cli/line_history.h"
#include "base/check.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
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

static enum status take_lines(struct line_history *h, const char *path, char *text, size_t *lines,
                              struct error *err)
{
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        ++*lines;
        json_t *s = json_loads(line, JSON_DECODE_ANY, NULL);
        bool good = json_is_string(s);
        if (good)
            line_history_add(h, json_string_value(s));
        json_decref(s);
        if (!good)
            return error_set(err, ERR_INVALID,
                             "%s: line %zu: expected a JSON string: is it a "
                             "history?",
                             path, *lines);
    }
    return OK;
}

static enum status rewrite(const struct line_history *h, const char *path, struct error *err)
{
    struct buf all;
    buf_init(&all, MAX_FILE_BYTES);
    enum status st = OK;
    for (size_t i = 0; st == OK && i < h->count; i++)
        st = put_line(&all, h->lines[i], err);
    if (st == OK)
        st = file_write(path, all.data ? all.data : "", all.len, 0600, true, err);
    buf_fini(&all);
    return st;
}

enum status line_history_read(struct line_history *h, const char *path, struct error *err)
{
    char *text = NULL;
    size_t len = 0, lines = 0;
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return file_write(path, "", 0, 0600, false, err);
    TRY(file_check_secret(path, err));
    TRY(file_read_all(path, MAX_FILE_BYTES, &text, &len, err));
    enum status st = take_lines(h, path, text, &lines, err);
    free(text);
    if (st == OK && lines > 2 * LINE_HISTORY)
        st = rewrite(h, path, err);
    return st;
}

enum status line_history_append(const char *path, const char *line, struct error *err)
{
    struct buf text;
    buf_init(&text, MAX_FILE_BYTES);
    enum status st = put_line(&text, line, err);
    int fd = st == OK ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (st == OK && (fd < 0 || write(fd, text.data, text.len) != (ssize_t)text.len))
        st = error_errno(err, errno, "%s", path);
    if (fd >= 0)
        close(fd);
    buf_fini(&text);
    return st;
}
