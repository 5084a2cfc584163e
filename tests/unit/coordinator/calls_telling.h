/* What calls.h tells, gathered for tests: as calls_case.h writes it, and field by field. */
#ifndef WITAN_TESTS_UNIT_COORDINATOR_CALLS_TELLING_H
#define WITAN_TESTS_UNIT_COORDINATOR_CALLS_TELLING_H

#include "tests/unit/unit.h"

#include "coordinator/calls.h"

#include <string.h>

enum { TELLING_MAX_FIELDS = 64 };

/* Content, or a call: telling.text[begin, begin + len), its name [name, name + name_len). */
struct told_field {
    bool call, whole;
    size_t name, name_len, begin, len;
};

struct telling {
    char text[8192];
    size_t len;
    int32_t open; /* the call, -1: none */
    struct told_field fields[TELLING_MAX_FIELDS];
    size_t count;
};

/* One function g of which nothing is known, and f: its i, n, b, o, a are of the type that they
 * begin with, s is a string, ns a string or null, ni null or an integer, any an integer or a
 * string. */
static inline json_t *telling_tools(void)
{
    static const char text[] =
        "[{\"type\": \"function\", \"function\": {\"name\": \"g\"}}, {\"type\": \"function\", "
        "\"function\": {\"name\": \"f\", \"parameters\": {\"type\": \"object\", \"properties\": {"
        "\"s\": {\"type\": \"string\"}, \"i\": {\"type\": \"integer\"}, \"n\": {\"type\": "
        "\"number\"}, \"b\": {\"type\": \"boolean\"}, \"o\": {\"type\": \"object\"}, \"a\": "
        "{\"type\": \"array\"}, \"ns\": {\"type\": [\"string\", \"null\"]}, "
        "\"ni\": {\"anyOf\": [{\"type\": \"null\"}, {\"type\": \"integer\"}]}, "
        "\"any\": {\"oneOf\": [{\"type\": \"integer\"}, {\"type\": \"string\"}]}}}}}]";
    static json_t *all;
    if (!all)
        all = json_loads(text, 0, NULL);
    assert_non_null(all);
    return all;
}

static inline void telling_init(struct telling *t)
{
    t->text[0] = '\0';
    t->len = t->count = 0;
    t->open = -1;
}

static inline void telling_say(struct telling *t, const char *text, size_t len)
{
    assert_true(t->len + len < sizeof t->text);
    memcpy(t->text + t->len, text, len);
    t->len += len;
    t->text[t->len] = '\0';
}

/* A call that is open has broken off. */
static inline void telling_mend(struct telling *t)
{
    if (t->open >= 0)
        telling_say(t, "~~", 2);
    t->open = -1;
}

static inline struct told_field *telling_add(struct telling *t, bool call)
{
    assert_true(t->count < TELLING_MAX_FIELDS);
    t->fields[t->count] = (struct told_field){.call = call, .begin = t->len};
    return &t->fields[t->count++];
}

static inline void telling_piece(struct telling *t, const struct calls *c,
                                 const struct call_piece *p)
{
    struct told_field *last = t->count > 0 ? &t->fields[t->count - 1] : NULL;
    if (p->index != t->open)
        telling_mend(t);
    if (p->index >= 0 && p->named) {
        const char *name = c->out.data + p->name;
        assert_int_not_equal(p->index, t->open);
        last = telling_add(t, true);
        telling_say(t, "{{", 2);
        last->name = t->len;
        last->name_len = strlen(name);
        telling_say(t, name, strlen(name));
        telling_say(t, "|", 1);
        last->begin = t->len;
    } else if (p->index >= 0) {
        assert_int_equal(p->index, t->open); /* never without its name before */
    } else if (!last || last->call) {
        last = telling_add(t, false);
    }
    assert_non_null(last);
    if (!last)
        return; /* for analyzers */
    t->open = p->index;
    telling_say(t, c->out.data + p->begin, p->len);
    last->len += p->len;
    if (!p->end)
        return;
    telling_say(t, "}}", 2);
    last->whole = true;
    t->open = -1;
}

static inline void telling_take(struct telling *t, struct calls *c)
{
    for (size_t i = 0; i < c->count; i++)
        telling_piece(t, c, &c->pieces[i]);
    calls_clear(c);
}

#endif
