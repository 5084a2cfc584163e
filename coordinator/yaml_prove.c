/* A YAML text proven against a schema, event by event: see yaml_prove.h. */
#include "coordinator/yaml_prove.h"

#include "base/check.h"
#include "partition/shown.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MAX_FIELDS = 32, MAX_PATH = 256 };

struct prover {
    yaml_parser_t parser;
    const char *what, *text;
    const struct yaml_bound *bounds;
    struct error *err;
    char path[MAX_PATH]; /* of the value being read: "groups[0].tp" */
};

/* Fills the error with place and key before the words; returns ERR_INVALID. */
__attribute__((format(printf, 3, 4))) static enum status refuse(struct prover *p, yaml_mark_t at,
                                                                const char *fmt, ...)
{
    char words[900];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    return error_set(p->err, ERR_INVALID, "%s: line %zu column %zu: %s%s%s", shown(p->what).s,
                     at.line + 1, at.column + 1, p->path, *p->path ? ": " : "", words);
}

/* libyaml's complaints about bytes carry an offset in place of a mark. */
static yaml_mark_t place_of_offset(const char *text, size_t offset)
{
    yaml_mark_t at = {.index = offset};
    for (size_t i = 0; i < offset; i++) {
        at.column++;
        if (text[i] == '\n') {
            at.line++;
            at.column = 0;
        }
    }
    return at;
}

static enum status refuse_syntax(struct prover *p)
{
    const yaml_parser_t *y = &p->parser;
    if (y->error == YAML_MEMORY_ERROR)
        return error_set(p->err, ERR_NO_MEMORY, "%s: no memory to parse it", p->what);
    const char *problem = y->problem ? y->problem : "not YAML";
    *p->path = '\0'; /* the parser reads ahead of the key */
    if (y->error == YAML_READER_ERROR)
        return refuse(p, place_of_offset(p->text, y->problem_offset), "%s", problem);
    return refuse(p, y->problem_mark, "%s%s%s", y->context ? y->context : "",
                  y->context ? ": " : "", problem);
}

/* The next event, which the caller deletes; without aliases, anchors and tags. */
static enum status next_event(struct prover *p, yaml_event_t *e)
{
    if (!yaml_parser_parse(&p->parser, e))
        return refuse_syntax(p);
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (e->type == YAML_ALIAS_EVENT) {
        anchor = e->data.alias.anchor;
    } else if (e->type == YAML_SCALAR_EVENT) {
        anchor = e->data.scalar.anchor;
        tag = e->data.scalar.tag;
    } else if (e->type == YAML_SEQUENCE_START_EVENT) {
        anchor = e->data.sequence_start.anchor;
        tag = e->data.sequence_start.tag;
    } else if (e->type == YAML_MAPPING_START_EVENT) {
        anchor = e->data.mapping_start.anchor;
        tag = e->data.mapping_start.tag;
    }
    if (!anchor && !tag)
        return OK;
    enum status st = refuse(p, e->start_mark, "expected a value, found the %s \"%s\"",
                            e->type == YAML_ALIAS_EVENT ? "alias" : (anchor ? "anchor" : "tag"),
                            shown((const char *)(anchor ? anchor : tag)).s);
    yaml_event_delete(e);
    return st;
}

/* "nothing", "a list", "\"four\"": what stands there instead of what was expected. */
struct found {
    char s[SHOWN_BYTES + 8];
};

static struct found found(const yaml_event_t *e)
{
    struct found f = {"nothing"};
    if (e->type == YAML_SEQUENCE_START_EVENT)
        snprintf(f.s, sizeof f.s, "a list");
    else if (e->type == YAML_MAPPING_START_EVENT)
        snprintf(f.s, sizeof f.s, "a mapping");
    else if (e->type == YAML_SCALAR_EVENT &&
             (e->data.scalar.length > 0 || e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE))
        snprintf(f.s, sizeof f.s, "\"%s\"", shown((const char *)e->data.scalar.value).s);
    return f;
}

static bool is_plain(const yaml_event_t *e)
{
    return e->type == YAML_SCALAR_EVENT && e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

static bool is_null(const yaml_event_t *e)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    for (size_t i = 0; is_plain(e) && i < sizeof nulls / sizeof *nulls; i++)
        if (strcmp((const char *)e->data.scalar.value, nulls[i]) == 0)
            return true;
    return false;
}

static enum status prove_string(struct prover *p, const struct cyaml_schema_value *schema,
                                const yaml_event_t *e)
{
    if (e->type != YAML_SCALAR_EVENT || is_null(e))
        return refuse(p, e->start_mark, "expected a string, found %s", found(e).s);
    size_t len = e->data.scalar.length;
    if (len > schema->string.max)
        return refuse(p, e->start_mark, "expected a string of at most %u bytes, found %zu",
                      schema->string.max, len);
    for (size_t i = 0; i < len; i++)
        if (e->data.scalar.value[i] < 0x20 || e->data.scalar.value[i] == 0x7f)
            return refuse(p, e->start_mark, "expected a string, found a control character in it");
    return OK;
}

static enum status prove_bool(struct prover *p, const yaml_event_t *e)
{
    const char *value = is_plain(e) ? (const char *)e->data.scalar.value : "";
    if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
        return refuse(p, e->start_mark, "expected true or false, found %s", found(e).s);
    return OK;
}

/* The bounds of the integer at p->path. */
static const struct yaml_bound *bound_of(const struct prover *p)
{
    char path[MAX_PATH];
    size_t n = 0;
    bool inside = false;
    for (const char *s = p->path; *s; s++) {
        inside |= *s == '[';
        if (!inside)
            path[n++] = *s;
        inside &= *s != ']';
    }
    path[n] = '\0';
    for (const struct yaml_bound *b = p->bounds; b->path; b++)
        if (strcmp(b->path, path) == 0)
            return b;
    CHECK(false, "%s has no bounds", path);
    return NULL;
}

/* Decimal digits, no sign but "-", no leading zero: what every reader of YAML agrees on. */
static bool is_decimal(const char *s)
{
    s += *s == '-';
    size_t digits = strspn(s, "0123456789");
    return digits > 0 && !s[digits] && (s[0] != '0' || digits == 1);
}

static enum status prove_int(struct prover *p, const yaml_event_t *e)
{
    const struct yaml_bound *b = bound_of(p);
    const char *value = is_plain(e) ? (const char *)e->data.scalar.value : "";
    if (!is_decimal(value))
        return refuse(p, e->start_mark, "expected an integer of %lld to %lld, found %s",
                      (long long)b->min, (long long)b->max, found(e).s);
    long long n = strlen(value) > 18 ? INT64_MAX : strtoll(value, NULL, 10);
    if (n < b->min || n > b->max)
        return refuse(p, e->start_mark, "expected %lld to %lld, found %s", (long long)b->min,
                      (long long)b->max, shown(value).s);
    return OK;
}

static enum status prove_value(struct prover *p, const struct cyaml_schema_value *schema,
                               const yaml_event_t *e);

/* Appends to the path and returns its old length. */
__attribute__((format(printf, 2, 3))) static size_t extend(struct prover *p, const char *fmt, ...)
{
    size_t old = strlen(p->path);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->path + old, sizeof p->path - old, fmt, ap);
    va_end(ap);
    return old;
}

static enum status refuse_unknown(struct prover *p, const struct cyaml_schema_field *fields,
                                  const yaml_event_t *e)
{
    char known[512] = "";
    size_t n = 0;
    for (const struct cyaml_schema_field *f = fields; f->key; f++) {
        int more = snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", f->key);
        n += (size_t)more < sizeof known - n ? (size_t)more : 0;
    }
    return refuse(p, e->start_mark, "unknown key %s: expected one of %s", found(e).s, known);
}

/* The field that a key names, each once. */
static enum status find_field(struct prover *p, const struct cyaml_schema_field *fields,
                              const yaml_event_t *e, size_t lines[MAX_FIELDS], size_t *index)
{
    if (e->type != YAML_SCALAR_EVENT)
        return refuse(p, e->start_mark, "expected a key, found %s", found(e).s);
    const char *key = (const char *)e->data.scalar.value;
    size_t i = 0;
    while (fields[i].key && strcmp(fields[i].key, key) != 0)
        i++;
    if (!fields[i].key || strlen(key) != e->data.scalar.length)
        return refuse_unknown(p, fields, e);
    CHECK(i < MAX_FIELDS, "more than %d keys", MAX_FIELDS);
    if (lines[i] > 0)
        return refuse(p, e->start_mark,
                      "expected each key once, found %s again (first on line %zu)", key, lines[i]);
    lines[i] = e->start_mark.line + 1;
    *index = i;
    return OK;
}

/* One key and its value; *end after the last. */
static enum status prove_pair(struct prover *p, const struct cyaml_schema_field *fields,
                              size_t lines[MAX_FIELDS], bool *end)
{
    yaml_event_t e;
    TRY(next_event(p, &e));
    *end = e.type == YAML_MAPPING_END_EVENT;
    size_t field = 0;
    enum status st = *end ? OK : find_field(p, fields, &e, lines, &field);
    yaml_event_delete(&e);
    if (st != OK || *end)
        return st;
    size_t old = extend(p, "%s%s", *p->path ? "." : "", fields[field].key);
    TRY(next_event(p, &e));
    st = prove_value(p, &fields[field].value, &e);
    yaml_event_delete(&e);
    if (st == OK)
        p->path[old] = '\0';
    return st;
}

static enum status prove_mapping(struct prover *p, const struct cyaml_schema_value *schema,
                                 const yaml_event_t *e)
{
    if (e->type != YAML_MAPPING_START_EVENT)
        return refuse(p, e->start_mark, "expected a mapping, found %s%s", found(e).s,
                      is_null(e) && *p->path ? " (leave the key out for its defaults)" : "");
    size_t lines[MAX_FIELDS] = {0};
    bool end = false;
    while (!end)
        TRY(prove_pair(p, schema->mapping.fields, lines, &end));
    return OK;
}

static enum status prove_sequence(struct prover *p, const struct cyaml_schema_value *schema,
                                  const yaml_event_t *start)
{
    if (start->type != YAML_SEQUENCE_START_EVENT)
        return refuse(p, start->start_mark, "expected a list, found %s", found(start).s);
    for (uint32_t i = 0;; i++) {
        yaml_event_t e;
        TRY(next_event(p, &e));
        bool end = e.type == YAML_SEQUENCE_END_EVENT;
        enum status st = OK;
        if (!end && i >= schema->sequence.max) {
            st = refuse(p, e.start_mark, "expected at most %u entries, found more",
                        schema->sequence.max);
        } else if (!end) {
            size_t old = extend(p, "[%u]", i);
            st = prove_value(p, schema->sequence.entry, &e);
            if (st == OK)
                p->path[old] = '\0';
        }
        yaml_event_delete(&e);
        if (st != OK || end)
            return st;
    }
}

static enum status prove_value(struct prover *p, const struct cyaml_schema_value *schema,
                               const yaml_event_t *e)
{
    switch (schema->type) {
    case CYAML_MAPPING:
        return prove_mapping(p, schema, e);
    case CYAML_SEQUENCE:
        return prove_sequence(p, schema, e);
    case CYAML_STRING:
        return prove_string(p, schema, e);
    case CYAML_INT:
        return prove_int(p, e);
    case CYAML_BOOL:
        return prove_bool(p, e);
    default:
        CHECK(false, "a schema of type %d", (int)schema->type);
        return ERR_UNSUPPORTED;
    }
}

/* An event of this type; `words`: what is expected there. */
static enum status expect(struct prover *p, yaml_event_type_t type, const char *words)
{
    yaml_event_t e;
    TRY(next_event(p, &e));
    enum status st = e.type == type
                         ? OK
                         : refuse(p, e.start_mark, "expected %s, found %s", words,
                                  e.type == YAML_DOCUMENT_START_EVENT ? "another document"
                                                                      : "nothing");
    yaml_event_delete(&e);
    return st;
}

static enum status prove_stream(struct prover *p, const struct cyaml_schema_value *schema)
{
    TRY(expect(p, YAML_STREAM_START_EVENT, "YAML"));
    TRY(expect(p, YAML_DOCUMENT_START_EVENT, "a mapping"));
    yaml_event_t e;
    TRY(next_event(p, &e));
    enum status st = prove_value(p, schema, &e);
    yaml_event_delete(&e);
    TRY(st);
    TRY(expect(p, YAML_DOCUMENT_END_EVENT, "the document's end"));
    return expect(p, YAML_STREAM_END_EVENT, "one document");
}

enum status yaml_prove(const char *what, const char *text, size_t len,
                       const struct cyaml_schema_value *schema, const struct yaml_bound *bounds,
                       struct error *err)
{
    struct prover p = {.what = what, .text = text, .bounds = bounds, .err = err};
    if (!yaml_parser_initialize(&p.parser))
        return error_set(err, ERR_NO_MEMORY, "%s: no memory to parse it", what);
    /* Else a byte order mark would choose UTF-16. */
    yaml_parser_set_encoding(&p.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&p.parser, (const unsigned char *)text, len);
    enum status st = prove_stream(&p, schema);
    yaml_parser_delete(&p.parser);
    return st;
}
