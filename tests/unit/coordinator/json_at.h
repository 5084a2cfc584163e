/* A value inside JSON by its path. */
#ifndef WITAN_TESTS_UNIT_COORDINATOR_JSON_AT_H
#define WITAN_TESTS_UNIT_COORDINATOR_JSON_AT_H

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "choices.0.text": members by name, elements by number; NULL when one is absent. */
static const json_t *at(const json_t *v, const char *path)
{
    char words[128], *save = NULL;
    snprintf(words, sizeof words, "%s", path);
    for (char *w = strtok_r(words, ".", &save); w; w = strtok_r(NULL, ".", &save))
        v = *w >= '0' && *w <= '9' ? json_array_get(v, (size_t)atoi(w)) : json_object_get(v, w);
    return v;
}

#endif
