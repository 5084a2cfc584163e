/*
 * Proves a YAML text against a libcyaml schema before libcyaml loads it. libcyaml 1.3 names the
 * mapping that an unknown key is in, not the key's place, knows no bounds of integers and takes
 * octal numbers and ten spellings of true; this walk over libyaml's events is stricter and says
 * line, column, key, expected and found.
 *
 * Refused: anchors, aliases and tags, a second document, keys that are unknown or given twice,
 * null, values of another type, integers out of bounds, control characters. Depth is bounded by the
 * schema. No state; any thread.
 */
#ifndef WITAN_COORDINATOR_YAML_PROVE_H
#define WITAN_COORDINATOR_YAML_PROVE_H

#include "base/error.h"

#include <cyaml/cyaml.h>
#include <stddef.h>
#include <stdint.h>

/* An integer's bounds by its key's path, without indices: "groups.hosts.ranks". */
struct yaml_bound {
    const char *path;
    int64_t min, max;
};

/* `schema` is a mapping of mappings, sequences of mappings, strings, integers and booleans.
 * `bounds` ends with a NULL path and names every integer. `what` names the text in messages. */
enum status yaml_prove(const char *what, const char *text, size_t len,
                       const struct cyaml_schema_value *schema, const struct yaml_bound *bounds,
                       struct error *err);

#endif
