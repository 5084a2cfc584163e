/* Reading JSON from outside: see json.h. No state. */
#include "base/json.h"
#include "base/buf.h"

#include <stdlib.h>

/* jansson's own bound is 2048 and is fixed when it is built, so depth is counted before it parses.
 */
enum { MAX_DEPTH = 64 };

static enum status check_depth(const char *what, const char *text, size_t len, struct error *err)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > MAX_DEPTH)
                return error_set(err, ERR_INVALID, "%s: nested deeper than %d at byte %zu", what,
                                 MAX_DEPTH, i);
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return OK;
}

/* jansson's words, but where they tell its callers of a flag. */
static const char *words_of(const json_error_t *e)
{
    enum json_error_code code = json_error_code(e);
    bool nul = code == json_error_null_character || code == json_error_null_byte_in_key;
    return nul ? "a string with \\u0000 in it, which is not supported" : e->text;
}

enum status json_parse(const char *what, const char *text, size_t len, json_t **root,
                       struct error *err)
{
    TRY(check_depth(what, text, len, err));
    json_error_t je;
    json_t *v = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
    if (!v)
        return error_set(err, ERR_INVALID, "%s: line %d column %d: %s", what, je.line, je.column,
                         words_of(&je));
    *root = v;
    return OK;
}

enum status json_parse_file(const char *path, size_t limit_bytes, json_t **root, struct error *err)
{
    char *text;
    size_t len;
    TRY(file_read_all(path, limit_bytes, &text, &len, err));
    enum status st = json_parse(path, text, len, root, err);
    free(text);
    return st;
}

const char *json_type_words(const json_t *v)
{
    if (!v)
        return "nothing";
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a real number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        return "null";
    }
    return "an unknown type";
}

/* The field, or NULL with *st set: OK when it may be absent. */
static const json_t *field(const json_t *obj, const char *what, const char *key, bool required,
                           const char *expected, enum status *st, struct error *err)
{
    const json_t *v = json_object_get(obj, key);
    if (v && !json_is_null(v))
        return v;
    *st = OK;
    if (required)
        *st = error_set(err, ERR_INVALID, "%s: %s: expected %s, found %s", what, key, expected,
                        json_type_words(v));
    return NULL;
}

enum status json_get_int(const json_t *obj, const char *what, const char *key, bool required,
                         int64_t min, int64_t max, int64_t *out, struct error *err)
{
    enum status st;
    const json_t *v = field(obj, what, key, required, "an integer", &st, err);
    if (!v)
        return st;
    if (!json_is_integer(v))
        return error_set(err, ERR_INVALID, "%s: %s: expected an integer, found %s", what, key,
                         json_type_words(v));
    int64_t x = json_integer_value(v);
    if (x < min || x > max)
        return error_set(err, ERR_INVALID, "%s: %s: expected %lld to %lld, found %lld", what, key,
                         (long long)min, (long long)max, (long long)x);
    *out = x;
    return OK;
}

enum status json_get_real(const json_t *obj, const char *what, const char *key, bool required,
                          double min, double max, double *out, struct error *err)
{
    enum status st;
    const json_t *v = field(obj, what, key, required, "a number", &st, err);
    if (!v)
        return st;
    if (!json_is_number(v))
        return error_set(err, ERR_INVALID, "%s: %s: expected a number, found %s", what, key,
                         json_type_words(v));
    double x = json_number_value(v);
    if (!(x >= min && x <= max))
        return error_set(err, ERR_INVALID, "%s: %s: expected %g to %g, found %g", what, key, min,
                         max, x);
    *out = x;
    return OK;
}

enum status json_get_bool(const json_t *obj, const char *what, const char *key, bool required,
                          bool *out, struct error *err)
{
    enum status st;
    const json_t *v = field(obj, what, key, required, "true or false", &st, err);
    if (!v)
        return st;
    if (!json_is_boolean(v))
        return error_set(err, ERR_INVALID, "%s: %s: expected true or false, found %s", what, key,
                         json_type_words(v));
    *out = json_is_true(v);
    return OK;
}

enum status json_get_string(const json_t *obj, const char *what, const char *key, bool required,
                            const char **out, struct error *err)
{
    enum status st;
    const json_t *v = field(obj, what, key, required, "a string", &st, err);
    if (!v)
        return st;
    if (!json_is_string(v))
        return error_set(err, ERR_INVALID, "%s: %s: expected a string, found %s", what, key,
                         json_type_words(v));
    *out = json_string_value(v);
    return OK;
}
