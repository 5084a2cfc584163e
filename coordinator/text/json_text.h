/*
 * JSON as text, for what its grammar allows and jansson does not hold: integers beyond 64 bits,
 * reals beyond a double, halves of surrogate pairs, NUL in a name. Models write such arguments, and
 * clients send them back. No state; any thread. Texts need not be JSON: what is none stays as it
 * is.
 */
#ifndef WITAN_COORDINATOR_TEXT_JSON_TEXT_H
#define WITAN_COORDINATOR_TEXT_JSON_TEXT_H

#include "base/buf.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Part of a text that someone else owns. */
struct json_span {
    const char *data;
    size_t len;
};

/* A value of this JSON (json_decref it), with what jansson does not hold made near to it: integers
 * become reals, larger reals 1e308, half a pair and NUL U+FFFD. NULL: it is no JSON all the same,
 * or there is no memory. */
json_t *json_text_load_near(const char *text, size_t len);

/* The next member of an object's text, from *at on, which is 0 at first; the name is a string with
 * its quotes. False: there is none. */
bool json_text_member(struct json_span object, size_t *at, struct json_span *name,
                      struct json_span *value);

/* The text, but that an object which is a member called `name`, and which jansson does not hold or
 * which is deep, is a string of its own text. ERR_LIMIT, ERR_NO_MEMORY. */
enum status json_text_quote_members(const char *text, size_t len, const char *name, struct buf *out,
                                    struct error *err);

#endif
