/*
 * Reading JSON from outside: jansson with the flags that refuse what should be refused, and field
 * access whose errors name file, field, expected and found. Any thread; the caller owns the root.
 */
#ifndef WITAN_BASE_JSON_H
#define WITAN_BASE_JSON_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parses one JSON object or array: duplicate keys, trailing text, bad UTF-8 and depth over 64
 * refused. `what` names the source in messages ("config.json", "line 3"). json_decref(*root). */
enum status json_parse(const char *what, const char *text, size_t len, json_t **root,
                       struct error *err);

/* json_parse of a whole file of at most `limit_bytes`. */
enum status json_parse_file(const char *path, size_t limit_bytes, json_t **root, struct error *err);

/* Fields of `obj`. A missing or null field leaves *out as it is when `required` is false and is
 * ERR_INVALID otherwise; a value of another type or outside [min, max] is always ERR_INVALID. */
enum status json_get_int(const json_t *obj, const char *what, const char *key, bool required,
                         int64_t min, int64_t max, int64_t *out, struct error *err);
enum status json_get_real(const json_t *obj, const char *what, const char *key, bool required,
                          double min, double max, double *out, struct error *err);
enum status json_get_bool(const json_t *obj, const char *what, const char *key, bool required,
                          bool *out, struct error *err);
/* *out points into `obj`. */
enum status json_get_string(const json_t *obj, const char *what, const char *key, bool required,
                            const char **out, struct error *err);

/* "an integer", "a string", ...: for messages. NULL gives "nothing". */
const char *json_type_words(const json_t *v);

#endif
