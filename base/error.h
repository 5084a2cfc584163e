/*
 * Expected errors: a status code to branch on and one line for the operator.
 *
 * A function that can fail returns `enum status` and takes `struct error *` last. On failure it
 * fills the error once, at the place that knows what was expected and what was found; callers pass
 * it on unchanged (TRY), put words before it (error_prefix) or what to do behind it (error_advise).
 * Broken invariants are not errors: they are CHECK()s (check.h).
 */
#ifndef WITAN_BASE_ERROR_H
#define WITAN_BASE_ERROR_H

#include <stdarg.h>

enum status {
    OK = 0,
    ERR_INVALID,     /* input that breaks its format or its bounds */
    ERR_UNSUPPORTED, /* well-formed, but not something this build does */
    ERR_NOT_FOUND,
    ERR_IO,
    ERR_NO_MEMORY,
    ERR_LIMIT, /* a queue, size or count limit is reached */
    ERR_CANCELLED,
    ERR_PEER,     /* another rank failed or went away */
    ERR_CONFLICT, /* it contradicts what came before, or what is under way */
};

/* One error. Plain memory: copy it freely. `msg` is always terminated. */
struct error {
    enum status code;
    char msg[1024];
};

/* Fills `err` (may be NULL) and returns `code`, so that `return error_set(...)` reads well. Control
 * characters become '?': a message is one line whatever it quotes. */
enum status error_set(struct error *err, enum status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts words before the message: "model.safetensors: " + msg. Cuts at the buffer's end. */
void error_prefix(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts what to do after the message: msg + ": fetch it again". Cuts at the buffer's end. Returns
 * `code`. */
enum status error_advise(struct error *err, enum status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Fills `err` with strerror(errno_value) after the formatted words; code ERR_IO or ERR_NOT_FOUND.
 */
enum status error_errno(struct error *err, int errno_value, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* "invalid", "not found", ...: for logs and for protocol mapping. Static memory. */
const char *status_name(enum status code);

#define TRY(expr)                                                                                  \
    do {                                                                                           \
        enum status try_status_ = (expr);                                                          \
        if (try_status_ != OK)                                                                     \
            return try_status_;                                                                    \
    } while (0)

/* TRY for functions that hold resources: sets `st` and jumps to `out`. */
#define TRY_OUT(st, expr)                                                                          \
    do {                                                                                           \
        (st) = (expr);                                                                             \
        if ((st) != OK)                                                                            \
            goto out;                                                                              \
    } while (0)

#endif
