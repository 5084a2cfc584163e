/* Building JSON of our own: keys are literals, and memory must be there. */
#ifndef WITAN_CLI_JSON_PUT_H
#define WITAN_CLI_JSON_PUT_H

#include "base/check.h"
#include "base/json.h"

/* Each takes the value over. */
static inline void json_put(json_t *object, const char *key, json_t *value)
{
    CHECK(value && json_object_set_new(object, key, value) == 0, "no memory for %s", key);
}

static inline void json_add(json_t *array, json_t *value)
{
    CHECK(value && json_array_append_new(array, value) == 0, "no memory for a list");
}

static inline void json_put_int(json_t *object, const char *key, int64_t value)
{
    json_put(object, key, json_integer(value));
}

#endif
