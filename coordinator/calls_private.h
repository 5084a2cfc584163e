/* What the formats of tool calls share: see calls.h. */
#ifndef WITAN_COORDINATOR_CALLS_PRIVATE_H
#define WITAN_COORDINATOR_CALLS_PRIVATE_H

#include "coordinator/calls.h"

/* Is it there? CALLS_MAYBE: more text decides. */
enum calls_match { CALLS_NO, CALLS_MAYBE, CALLS_YES };

extern const char calls_open[], calls_close[]; /* <tool_call> and </tool_call> */

bool calls_is_space(char c);

/* Does the text begin with `word`? */
enum calls_match calls_match_word(const char *text, size_t len, const char *word);

/* The text that is not decided. */
static inline const char *calls_text(const struct calls *c)
{
    return c->text.data ? c->text.data + c->begin : "";
}

static inline size_t calls_len(const struct calls *c)
{
    return c->text.len - c->begin;
}

/* So many bytes of it are decided; it is read on from there. */
void calls_take(struct calls *c, size_t len);

/* The first bytes of it are content. */
enum status calls_tell_content(struct calls *c, size_t len, struct error *err);
/* The next call begins. */
enum status calls_tell_begin(struct calls *c, const char *name, size_t len, struct error *err);
/* More of its arguments. */
enum status calls_tell(struct calls *c, const char *json, size_t len, struct error *err);
/* The same of JSON that may have control characters in its strings, which are told escaped. */
enum status calls_tell_json(struct calls *c, const char *json, size_t len, struct error *err);
/* The inside of a JSON string that says this. */
enum status calls_tell_quoted(struct calls *c, const char *text, size_t len, struct error *err);
/* It is whole; the text goes on behind the first `len` bytes, where </tool_call> may come. */
enum status calls_tell_end(struct calls *c, const char *json, size_t len, struct error *err);

/*
 * The formats, each two functions. `open` looks at the "<" that is read next, outside of calls: on
 * CALLS_YES it has begun to read a call, c->inside. `step` reads on inside of one; *on is set to
 * false when more text is needed. `last`: none comes; then *on is false only when all is read.
 */
enum status calls_hermes_open(struct calls *c, bool last, enum calls_match *match,
                              struct error *err);
enum status calls_hermes_step(struct calls *c, bool last, bool *on, struct error *err);
enum status calls_coder_open(struct calls *c, bool last, enum calls_match *match,
                             struct error *err);
enum status calls_coder_step(struct calls *c, bool last, bool *on, struct error *err);

#endif
