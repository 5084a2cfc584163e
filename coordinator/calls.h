/*
 * Tells tool calls from content while an answer streams: text goes in, pieces of content and of
 * calls come out in order. One thread; owned by the answer_text that it is a stage of.
 *
 * What has been told after some text is a function of that text alone, not of how it was cut into
 * pushes: an answer that is computed again tells the same from any token on.
 *
 * Every byte of the text ends in one field or is the format's own (tags, the JSON around name and
 * arguments, white space before a call and behind the last one). A call is begun once nothing can
 * make it content again: HERMES has its name and the opening brace of its arguments, CODER the
 * first tag behind its name. From there on its arguments are told as they come, as far as they are
 * proven; but the last closing brace of the arguments is told only when the call is whole. So a
 * call that breaks off is told as it was and what follows it is content; its arguments are then no
 * JSON, and no client runs half a call. What breaks before it is begun is content, tags and all.
 */
#ifndef WITAN_COORDINATOR_CALLS_H
#define WITAN_COORDINATOR_CALLS_H

#include "base/buf.h"
#include "coordinator/core.h"
#include "coordinator/json_scan.h"

enum {
    CALLS_MAX = 128,      /* of one answer; the tags of more are content */
    CALLS_MAX_NAME = 256, /* bytes, of a function and of a parameter */
    CALLS_MAX_SPACE = 64, /* bytes of white space between tags inside a call of CODER */
};

/* Told text is out.data[begin, begin + len); the name, if there is one, out.data + name. */
struct call_piece {
    int32_t index; /* of the call; -1: content */
    bool named, end;
    size_t name, begin, len;
};

/* A value of CODER's, by its schema's type. */
enum call_type {
    CALL_TEXT,
    CALL_INTEGER,
    CALL_NUMBER,
    CALL_BOOLEAN,
    CALL_OBJECT,
    CALL_ARRAY,
    CALL_NULL,
};

/* The JSON inside <tool_call>. Offsets are behind calls.begin. */
struct call_hermes {
    struct json_scan scan;
    size_t opened;     /* where the tag begins, white space before it */
    size_t key, value; /* where the last ones began, of the outer object's */
    size_t args, args_len;
    int32_t field; /* whose value is read */
    bool has_name, has_args;
    bool telling; /* arguments, as they come */
    char name[CALLS_MAX_NAME + 1];
};

/* The parameters inside <function=...>. */
struct call_coder {
    const json_t *properties; /* of the function's schema; NULL: unknown */
    enum call_type type;      /* of the value */
    bool nullable;
    bool in_value, at_begin; /* nothing of the value is read */
    bool quoted;             /* it is told as it comes */
    bool crlf;               /* it began with a newline of windows, and may end before one */
    int32_t parameters;
};

struct calls {
    enum call_format format;
    json_t *tools; /* a reference */
    bool one;      /* the first call that is whole ends the answer */
    bool over;     /* it has */
    bool inside;   /* a call */
    bool behind;   /* one, and white space at most */
    bool closing;  /* its </tool_call> may come */
    int32_t begun, whole;
    struct buf text; /* what is not decided begins at `begin`, and is read up to begin + at */
    size_t begin, at;
    struct call_hermes hermes;
    struct call_coder coder;
    struct buf out;
    struct call_piece *pieces; /* [count], what is told and not cleared */
    size_t count, cap;
};

/* How models with this template write calls; CALLS_NONE: it knows no tools, or is none. */
enum call_format calls_format(enum template_kind template);

/* Takes a reference to `tools` (the request's array; NULL: none). */
void calls_init(struct calls *c, enum call_format format, const json_t *tools, bool one);
void calls_fini(struct calls *c);

/* More text. ERR_LIMIT, ERR_NO_MEMORY. Behind the call that ends the answer all is dropped. */
enum status calls_push(struct calls *c, const char *text, size_t len, struct error *err);
/* Nothing follows: what waited is told. */
enum status calls_flush(struct calls *c, struct error *err);

/* The pieces were told. */
void calls_clear(struct calls *c);
int64_t calls_bytes(const struct calls *c);

/* An answer that must be one call: of the tool `name`, or of any (NULL). `text` holds what *out
 * points to. ERR_UNSUPPORTED: there is no format; ERR_INVALID: names that CODER cannot write, or
 * more than a constraint has room for. */
enum status calls_must(enum call_format format, const json_t *tools, const char *name,
                       struct buf *text, struct constraint *out, struct error *err);

#endif
