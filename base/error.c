/* Expected errors: see error.h. No state. */
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

__attribute__((format(printf, 3, 0))) static void fill(struct error *err, enum status code,
                                                       const char *fmt, va_list ap)
{
    err->code = code;
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    /* What a message quotes of a file or a request may hold newlines; a message stays one line. */
    for (char *c = err->msg; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
}

enum status error_set(struct error *err, enum status code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        fill(err, code, fmt, ap);
        va_end(ap);
    }
    return code;
}

void error_prefix(struct error *err, const char *fmt, ...)
{
    if (!err)
        return;
    char old[sizeof err->msg];
    memcpy(old, err->msg, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof err->msg)
        snprintf(err->msg + n, sizeof err->msg - (size_t)n, "%s", old);
}

enum status error_advise(struct error *err, enum status code, const char *fmt, ...)
{
    if (!err)
        return code;
    size_t n = strlen(err->msg);
    snprintf(err->msg + n, sizeof err->msg - n, ": ");
    n = strlen(err->msg);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->msg + n, sizeof err->msg - n, fmt, ap);
    va_end(ap);
    return code;
}

enum status error_errno(struct error *err, int errno_value, const char *fmt, ...)
{
    enum status code = errno_value == ENOENT   ? ERR_NOT_FOUND
                       : errno_value == ENOMEM ? ERR_NO_MEMORY
                                               : ERR_IO;
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        fill(err, code, fmt, ap);
        va_end(ap);
        size_t n = strlen(err->msg);
        char buf[128];
        snprintf(err->msg + n, sizeof err->msg - n, ": %s",
                 strerror_r(errno_value, buf, sizeof buf));
    }
    return code;
}

const char *status_name(enum status code)
{
    switch (code) {
    case OK:
        return "ok";
    case ERR_INVALID:
        return "invalid";
    case ERR_UNSUPPORTED:
        return "unsupported";
    case ERR_NOT_FOUND:
        return "not found";
    case ERR_IO:
        return "input/output error";
    case ERR_NO_MEMORY:
        return "out of memory";
    case ERR_LIMIT:
        return "limit reached";
    case ERR_CANCELLED:
        return "cancelled";
    case ERR_PEER:
        return "peer failed";
    case ERR_CONFLICT:
        return "conflict";
    }
    return "unknown";
}
