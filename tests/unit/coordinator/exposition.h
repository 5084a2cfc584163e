/*
 * A strict reader of Prometheus' text format 0.0.4, as its documentation ("Exposition formats")
 * has it, and of the rules that names and histograms keep to: whatever is not so fails the test.
 */
#ifndef WITAN_TESTS_UNIT_COORDINATOR_EXPOSITION_H
#define WITAN_TESTS_UNIT_COORDINATOR_EXPOSITION_H

#include "tests/unit/unit.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>

enum { EXPOSITION_MAX_SERIES = 8192, EXPOSITION_MAX_FAMILIES = 256 };

struct exposition_series {
    char name[600]; /* with labels, as written */
    double value;
};

struct exposition {
    struct exposition_series series[EXPOSITION_MAX_SERIES];
    int count;
    char families[EXPOSITION_MAX_FAMILIES][80];
    char types[EXPOSITION_MAX_FAMILIES][16];
    int family_count;
    /* Of the histogram that is being read. */
    char labels[600]; /* but `le` */
    double bound, below;
};

static inline bool exposition_name(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!isalpha((unsigned char)s[i]) && s[i] != '_' && s[i] != ':' &&
            !(i > 0 && isdigit((unsigned char)s[i])))
            return false;
    return len > 0;
}

static inline bool exposition_ends(const char *name, const char *with)
{
    size_t n = strlen(name), m = strlen(with);
    return n >= m && strcmp(name + n - m, with) == 0;
}

static inline void exposition_comment(struct exposition *e, const char *line)
{
    char word[8], name[80], rest[400];
    if (sscanf(line, "# %7s %79s %399[^\n]", word, name, rest) != 3 ||
        !exposition_name(name, strlen(name)))
        fail_msg("neither HELP nor TYPE: %s", line);
    if (strcmp(word, "HELP") == 0) {
        for (int i = 0; i < e->family_count; i++)
            if (strcmp(e->families[i], name) == 0)
                fail_msg("%s comes twice", name);
        assert_true(e->family_count < EXPOSITION_MAX_FAMILIES);
        snprintf(e->families[e->family_count], sizeof e->families[0], "%s", name);
        e->types[e->family_count++][0] = '\0';
        return;
    }
    assert_string_equal(word, "TYPE");
    assert_true(e->family_count > 0);
    assert_string_equal(e->families[e->family_count - 1], name);
    assert_string_equal(e->types[e->family_count - 1], "");
    if (strcmp(rest, "counter") != 0 && strcmp(rest, "gauge") != 0 &&
        strcmp(rest, "histogram") != 0)
        fail_msg("type %s of %s", rest, name);
    if ((strcmp(rest, "counter") == 0) != exposition_ends(name, "_total"))
        fail_msg("a counter's name ends with _total, and no other: %s is a %s", name, rest);
    snprintf(e->types[e->family_count - 1], sizeof e->types[0], "%.15s", rest);
    e->labels[0] = '\0';
    e->bound = -INFINITY;
    e->below = 0;
}

/* The labels between braces: all of them but `le` are copied to `rest`, that to *le. Returns what
 * follows the brace. */
static inline const char *exposition_labels(const char *at, char *rest, double *le, bool *has_le)
{
    *has_le = false;
    *rest = '\0';
    while (*at != '}') {
        char value[400];
        size_t n = 0, len = strcspn(at, "=");
        const char *name = at;
        if (!exposition_name(name, len) || at[len + 1] != '"')
            fail_msg("a label: %s", at);
        for (at += len + 2; *at && *at != '"'; at++) {
            assert_true(n + 1 < sizeof value);
            if (*at == '\\' && !strchr("\\\"n", *++at))
                fail_msg("an escape: %s", at - 1);
            value[n++] = *at;
        }
        value[n] = '\0';
        if (*at != '"')
            fail_msg("a label without an end: %s", name);
        at++;
        if (len == 2 && memcmp(name, "le", 2) == 0) {
            char *end;
            *has_le = true;
            *le = strtod(value, &end);
            assert_true(*value && !*end);
        } else {
            strncat(rest, name, (size_t)(at - name));
        }
        if (*at == ',')
            at++;
        else if (*at != '}')
            fail_msg("after a label: %s", at);
    }
    return at + 1;
}

static inline void exposition_bucket(struct exposition *e, const char *suffix, const char *labels,
                                     double le, bool has_le, double value)
{
    if (strcmp(suffix, "_bucket") == 0) {
        assert_true(has_le);
        if (e->bound == INFINITY || strcmp(labels, e->labels) != 0) { /* another one begins */
            e->bound = -INFINITY;
            e->below = 0;
        }
        snprintf(e->labels, sizeof e->labels, "%s", labels);
        if (!(le > e->bound) || value < e->below)
            fail_msg("buckets of {%s} do not grow: le %g has %g", labels, le, value);
        e->bound = le;
        e->below = value;
        return;
    }
    assert_string_equal(labels, e->labels);
    assert_true(e->bound == INFINITY);
    assert_false(has_le);
    if (strcmp(suffix, "_count") == 0)
        assert_true(value == e->below);
    else
        assert_string_equal(suffix, "_sum");
}

static inline void exposition_sample(struct exposition *e, const char *line)
{
    size_t len = strcspn(line, "{ ");
    char labels[600], *end;
    bool has_le = false;
    double le = 0;
    assert_true(e->family_count > 0);
    const char *family = e->families[e->family_count - 1], *type = e->types[e->family_count - 1];
    if (!exposition_name(line, len) || strncmp(line, family, strlen(family)) != 0 || !*type)
        fail_msg("a sample outside its family: %s", line);
    labels[0] = '\0';
    const char *at = line[len] == '{' ? exposition_labels(line + len + 1, labels, &le, &has_le)
                                      : line + len;
    if (*at != ' ')
        fail_msg("no value: %s", line);
    assert_true(e->count < EXPOSITION_MAX_SERIES);
    struct exposition_series *s = &e->series[e->count++];
    snprintf(s->name, sizeof s->name, "%.*s", (int)(at - line), line);
    s->value = strtod(at + 1, &end);
    if (*end || !at[1] || at[1] == ' ' || isnan(s->value))
        fail_msg("a value: %s", line);
    for (int i = 0; i < e->count - 1; i++)
        if (strcmp(e->series[i].name, s->name) == 0)
            fail_msg("%s comes twice", s->name);
    char suffix[16] = "";
    snprintf(suffix, sizeof suffix, "%.*s", (int)(len - strlen(family)), line + strlen(family));
    if (strcmp(type, "histogram") == 0)
        exposition_bucket(e, suffix, labels, le, has_le, s->value);
    else
        assert_string_equal(suffix, "");
    if (strcmp(type, "gauge") != 0)
        assert_true(s->value >= 0);
}

/* Reads a whole page; `text` is cut into lines. */
static inline void exposition_read(struct exposition *e, char *text)
{
    size_t len = strlen(text);
    memset(e, 0, sizeof *e);
    assert_true(len > 0 && text[len - 1] == '\n');
    for (char *line = text, *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        *end = '\0';
        if (*line == '#')
            exposition_comment(e, line);
        else
            exposition_sample(e, line);
    }
}

static inline bool exposition_has(const struct exposition *e, const char *series)
{
    for (int i = 0; i < e->count; i++)
        if (strcmp(e->series[i].name, series) == 0)
            return true;
    return false;
}

static inline double exposition_of(const struct exposition *e, const char *series)
{
    for (int i = 0; i < e->count; i++)
        if (strcmp(e->series[i].name, series) == 0)
            return e->series[i].value;
    fail_msg("there is no %s", series);
    return NAN;
}

#endif
