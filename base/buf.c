/* Growable byte buffers with a limit: see buf.h. */
#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void buf_init(struct buf *b, size_t limit_bytes)
{
    *b = (struct buf){.limit = limit_bytes};
}

void buf_fini(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    if (b->data)
        b->data[0] = '\0';
}

static enum status reserve(struct buf *b, size_t more, struct error *err)
{
    if (more > b->limit || b->len > b->limit - more)
        return error_set(err, ERR_LIMIT, "more than %zu bytes", b->limit);
    size_t need = b->len + more + 1;
    if (need <= b->cap)
        return OK;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need)
        cap *= 2;
    char *p = realloc(b->data, cap);
    if (!p)
        return error_set(err, ERR_NO_MEMORY, "no memory for %zu bytes", cap);
    b->data = p;
    b->cap = cap;
    return OK;
}

enum status buf_append(struct buf *b, const void *data, size_t len, struct error *err)
{
    TRY(reserve(b, len, err));
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = '\0';
    return OK;
}

enum status buf_puts(struct buf *b, const char *s, struct error *err)
{
    return buf_append(b, s, strlen(s), err);
}

enum status buf_printf(struct buf *b, struct error *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    enum status st = n < 0 ? error_set(err, ERR_INVALID, "bad format") : reserve(b, (size_t)n, err);
    if (st == OK) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    return st;
}

enum status buf_json_string(struct buf *b, const char *s, size_t len, struct error *err)
{
    size_t old = b->len;
    enum status st = buf_append(b, "\"", 1, err);
    size_t start = 0;
    for (size_t i = 0; st == OK && i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        char esc[8];
        const char *words = esc;
        if (c == '"' || c == '\\')
            snprintf(esc, sizeof esc, "\\%c", c);
        else if (c == '\n')
            words = "\\n";
        else if (c == '\t')
            words = "\\t";
        else if (c == '\r')
            words = "\\r";
        else
            snprintf(esc, sizeof esc, "\\u%04x", c);
        st = buf_append(b, s + start, i - start, err);
        if (st == OK)
            st = buf_puts(b, words, err);
        start = i + 1;
    }
    if (st == OK)
        st = buf_append(b, s + start, len - start, err);
    if (st == OK)
        st = buf_append(b, "\"", 1, err);
    if (st != OK && b->data) {
        b->len = old;
        b->data[old] = '\0';
    }
    return st;
}

enum status file_read_all(const char *path, size_t limit_bytes, char **data, size_t *len,
                          struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "%s", path);
    enum status st = OK;
    char *p = NULL;
    struct stat sb;
    if (fstat(fd, &sb) != 0)
        st = error_errno(err, errno, "%s", path);
    else if (!S_ISREG(sb.st_mode))
        st = error_set(err, ERR_INVALID, "%s: not a regular file", path);
    else if ((uint64_t)sb.st_size > limit_bytes)
        st = error_set(err, ERR_LIMIT, "%s: %lld bytes, expected at most %zu", path,
                       (long long)sb.st_size, limit_bytes);
    if (st == OK && !(p = malloc((size_t)sb.st_size + 1)))
        st = error_set(err, ERR_NO_MEMORY, "%s: no memory for %lld bytes", path,
                       (long long)sb.st_size);
    size_t n = 0;
    while (st == OK && n < (size_t)sb.st_size) {
        ssize_t k = read(fd, p + n, (size_t)sb.st_size - n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            st = error_errno(err, errno, "%s", path);
        else if (k == 0)
            st = error_set(err, ERR_IO, "%s: ends at %zu bytes, expected %lld", path, n,
                           (long long)sb.st_size);
        else
            n += (size_t)k;
    }
    close(fd);
    if (st != OK) {
        free(p);
        return st;
    }
    p[n] = '\0';
    *data = p;
    *len = n;
    return OK;
}
