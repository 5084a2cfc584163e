/*
 * Tool calls as Qwen3-Coder writes them: see calls.h.
 *
 *     <tool_call>\n<function=NAME>\n<parameter=KEY>\nVALUE\n</parameter>\n</function>\n</tool_call>
 *
 * A value may hold anything, tags too. So a tag ends it only with the next tag of the format behind
 * it, and what may be such a pair waits; it is never long, since names and white space are bounded.
 */
#include "coordinator/calls_private.h"

#include <string.h>
#include <strings.h>

enum { MAX_SCHEMA_DEPTH = 8, MAX_SCHEMA_WIDTH = 64 };

static const char function_open[] = "<function=", function_close[] = "</function>";
static const char parameter_open[] = "<parameter=", parameter_close[] = "</parameter>";

/* --- tags --------------------------------------------------------------------------------------
 */

/* Text that is looked at and not taken. */
struct view {
    const char *text;
    size_t len, at;
    bool last;
};

/* At the end of the text, nothing else can come. */
static enum calls_match settled(const struct view *v, enum calls_match m)
{
    return m == CALLS_MAYBE && v->last ? CALLS_NO : m;
}

/* Behind the word where it is there. */
static enum calls_match word(struct view *v, const char *w)
{
    enum calls_match m = calls_match_word(v->text + v->at, v->len - v->at, w);
    if (m == CALLS_YES)
        v->at += strlen(w);
    return settled(v, m);
}

/* Behind white space; CALLS_NO: more than may be, CALLS_MAYBE: it may go on. */
static enum calls_match space(struct view *v)
{
    size_t most = v->at + CALLS_MAX_SPACE;
    while (v->at < v->len && v->at < most && calls_is_space(v->text[v->at]))
        v->at++;
    if (v->at == v->len)
        return CALLS_MAYBE;
    return calls_is_space(v->text[v->at]) ? CALLS_NO : CALLS_YES;
}

/* <function=NAME> or <parameter=NAME>; *name is where the name begins, of *len bytes. */
static enum calls_match named(struct view *v, const char *w, size_t *name, size_t *len)
{
    struct view tag = *v;
    enum calls_match m = word(&tag, w);
    if (m != CALLS_YES)
        return m;
    *name = tag.at;
    while (tag.at < tag.len && tag.at - *name <= CALLS_MAX_NAME && tag.text[tag.at] != '>')
        if (strchr("<\n", tag.text[tag.at++]))
            return CALLS_NO; /* a NUL too */
    *len = tag.at - *name;
    if (*len > CALLS_MAX_NAME)
        return CALLS_NO;
    if (tag.at == tag.len)
        return settled(v, CALLS_MAYBE);
    if (*len == 0)
        return CALLS_NO;
    tag.at++;
    *v = tag;
    return CALLS_YES;
}

/* The first of `words` that may be there; a parameter's needs its name. */
static enum calls_match one_of(const struct view *v, const char *const *words)
{
    size_t name, len;
    enum calls_match found = CALLS_NO;
    for (; *words && found != CALLS_YES; words++) {
        struct view tag = *v;
        bool takes_name = *words == parameter_open || *words == function_open;
        enum calls_match m = takes_name ? named(&tag, *words, &name, &len) : word(&tag, *words);
        found = m > found ? m : found;
    }
    return found;
}

/* White space, then one of `words`; the end of the text counts where `end` says so. */
static enum calls_match followed(struct view v, const char *const *words, bool end)
{
    enum calls_match m = space(&v);
    if (m == CALLS_MAYBE)
        return !v.last ? CALLS_MAYBE : end ? CALLS_YES : CALLS_NO;
    return m == CALLS_YES ? one_of(&v, words) : m;
}

static const char *const inside_function[] = {parameter_open, function_close, calls_close, NULL};
static const char *const behind_parameter[] = {parameter_open, function_close, calls_close,
                                               calls_open, NULL};
static const char *const behind_function[] = {calls_close, calls_open, function_open, NULL};
static const char *const behind_call[] = {calls_open, function_open, NULL};

/* Behind one newline, that of windows only where `crlf`. False: more text decides. */
static bool newline(struct view *v, bool crlf)
{
    const char *end = v->text[v->at] == '\r' && crlf ? "\r\n" : "\n";
    enum calls_match m = calls_match_word(v->text + v->at, v->len - v->at, end);
    if (m == CALLS_YES)
        v->at += strlen(end);
    return v->at < v->len && m != CALLS_MAYBE;
}

/* Does the value end here? *skip: bytes up to the tag that is read next. */
static enum calls_match ends_value(const struct view *from, bool crlf, size_t *skip)
{
    struct view v = *from, tag;
    size_t name, len;
    if (!newline(&v, crlf))
        return settled(&v, CALLS_MAYBE);
    *skip = v.at - from->at;
    tag = v;
    enum calls_match m = word(&tag, parameter_close);
    if (m == CALLS_YES) {
        *skip = tag.at - from->at;
        return followed(tag, behind_parameter, true);
    }
    enum calls_match other = named(&tag, parameter_open, &name, &len);
    if (other == CALLS_NO && (other = word(&tag, function_close)) == CALLS_YES)
        other = followed(tag, behind_function, true);
    else if (other == CALLS_NO && (other = word(&tag, calls_close)) == CALLS_YES)
        other = followed(tag, behind_call, true);
    return other > m ? other : m;
}

/* --- schemas -----------------------------------------------------------------------------------
 */

static const struct {
    const char *name;
    enum call_type type;
} types[] = {
    {"string", CALL_TEXT},   {"integer", CALL_INTEGER}, {"int", CALL_INTEGER},
    {"number", CALL_NUMBER}, {"float", CALL_NUMBER},    {"boolean", CALL_BOOLEAN},
    {"bool", CALL_BOOLEAN},  {"object", CALL_OBJECT},   {"dict", CALL_OBJECT},
    {"array", CALL_ARRAY},   {"list", CALL_ARRAY},      {"null", CALL_NULL},
};

static enum call_type type_named(const char *name)
{
    for (size_t i = 0; name && i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0)
            return types[i].type;
    return CALL_TEXT;
}

static enum call_type type_of(const json_t *schema, int depth, bool *nullable);

/* The first that is not null, of types or schemas. */
static enum call_type first_type(const json_t *all, int depth, bool *nullable)
{
    enum call_type first = CALL_NULL;
    for (size_t i = 0; i < json_array_size(all) && i < MAX_SCHEMA_WIDTH; i++) {
        const json_t *v = json_array_get(all, i);
        enum call_type t = json_is_string(v) ? type_named(json_string_value(v))
                                             : type_of(v, depth + 1, nullable);
        *nullable = *nullable || t == CALL_NULL;
        if (first == CALL_NULL)
            first = t;
    }
    return first;
}

static enum call_type type_of(const json_t *schema, int depth, bool *nullable)
{
    const json_t *type = json_object_get(schema, "type");
    const json_t *any = json_object_get(schema, "anyOf");
    if (!any)
        any = json_object_get(schema, "oneOf");
    *nullable = *nullable || json_is_true(json_object_get(schema, "nullable"));
    if (depth > MAX_SCHEMA_DEPTH)
        return CALL_TEXT;
    if (json_is_array(type) || (!type && json_is_array(any)))
        return first_type(type ? type : any, depth, nullable);
    return type_named(json_string_value(type));
}

static const json_t *properties_of(const json_t *tools, const char *name, size_t len)
{
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *f = json_object_get(json_array_get(tools, i), "function");
        const json_t *own = json_object_get(f, "name");
        if (json_string_length(own) == len && len > 0 &&
            memcmp(json_string_value(own), name, len) == 0)
            return json_object_get(json_object_get(f, "parameters"), "properties");
    }
    return NULL;
}

/* --- calls -------------------------------------------------------------------------------------
 */

static struct view view_of(const struct calls *c, bool last)
{
    return (struct view){calls_text(c), calls_len(c), c->at, last};
}

enum status calls_coder_open(struct calls *c, bool last, enum calls_match *match, struct error *err)
{
    struct view v = view_of(c, last);
    size_t name = 0, len = 0;
    enum calls_match tag = word(&v, calls_open);
    *match = tag;
    if (tag == CALLS_YES && (*match = settled(&v, space(&v))) != CALLS_YES)
        return OK;
    if (tag != CALLS_MAYBE)
        *match = named(&v, function_open, &name, &len);
    else if (named(&v, function_open, &name, &len) != CALLS_NO)
        *match = CALLS_MAYBE;
    if (*match != CALLS_YES)
        return OK;
    *match = followed(v, inside_function, false);
    if (*match != CALLS_YES)
        return OK;
    const char *text = calls_text(c) + name;
    c->coder = (struct call_coder){.properties = properties_of(c->tools, text, len)};
    c->inside = true;
    TRY(calls_tell_begin(c, text, len, err));
    calls_take(c, v.at);
    return OK;
}

/* --- values ------------------------------------------------------------------------------------
 */

static enum status say(struct calls *c, const char *json, struct error *err)
{
    return calls_tell(c, json, strlen(json), err);
}

static enum status begin_value(struct calls *c, const char *key, size_t len, struct error *err)
{
    struct call_coder *k = &c->coder;
    json_t *name = json_stringn_nocheck(key, len);
    const json_t *schema = NULL;
    if (name)
        schema = json_object_get(k->properties, json_string_value(name));
    json_decref(name);
    k->nullable = false;
    k->type = type_of(schema, 0, &k->nullable);
    k->in_value = k->at_begin = true;
    k->quoted = k->type == CALL_TEXT && !k->nullable;
    TRY(say(c, k->parameters > 0 ? ", \"" : "{\"", err));
    k->parameters++;
    TRY(calls_tell_quoted(c, key, len, err));
    return say(c, k->quoted ? "\": \"" : "\": ", err);
}

/* Between values: the tag that comes next, which is known to be there, or the end of the text. */
static enum status read_tag(struct calls *c, bool last, struct error *err)
{
    struct view v = view_of(c, last);
    const char *end = c->coder.parameters > 0 ? "}" : "{}";
    size_t name, len;
    if (space(&v) == CALLS_MAYBE) {
        c->inside = false;
        c->behind = c->closing = true;
        return OK;
    }
    enum calls_match m = named(&v, parameter_open, &name, &len);
    if (m == CALLS_YES) {
        TRY(begin_value(c, v.text + name, len, err));
        calls_take(c, v.at);
        return OK;
    }
    word(&v, function_close); /* else the whole call ends, or the next one begins */
    return calls_tell_end(c, end, v.at, err);
}

/* Is it the begin of null? Or of None, which models see for it in their prompts. */
static bool may_be_null(const char *s, size_t n)
{
    return n <= 4 && (memcmp(s, "null", n) == 0 || memcmp(s, "None", n) == 0);
}

/* Is the text a value of its schema's type? *json, *len: as it is told. */
static bool converts(const struct call_coder *k, const char **json, size_t *len)
{
    const char *s = *json;
    size_t n = *len;
    if (k->type == CALL_TEXT) { /* which may have been told as it came */
        *json = "null";
        return k->nullable && n == 4 && may_be_null(s, n);
    }
    while (n > 0 && calls_is_space(*s))
        s++, n--;
    while (n > 0 && calls_is_space(s[n - 1]))
        n--;
    *json = s;
    *len = n;
    if ((k->nullable || k->type == CALL_NULL) && n == 4 && may_be_null(s, n)) {
        *json = "null";
        return true;
    }
    if (k->type == CALL_BOOLEAN) {
        bool yes = n == 4 && strncasecmp(s, "true", 4) == 0;
        *json = yes ? "true" : "false";
        return yes || (n == 5 && strncasecmp(s, "false", 5) == 0);
    }
    if (n == 0 || k->type == CALL_NULL || !json_scan_text(s, n, false))
        return false;
    bool number = strchr("-0123456789", *s) != NULL;
    return k->type == CALL_NUMBER    ? number
           : k->type == CALL_INTEGER ? number && strcspn(s, ".eE") >= n
           : k->type == CALL_OBJECT  ? *s == '{'
                                     : *s == '[';
}

/* The value is the text up to where it is read. `whole`: else the text has ended in it. */
static enum status tell_value(struct calls *c, bool whole, struct error *err)
{
    const char *text = calls_text(c), *json = text;
    size_t len = c->at, json_len = len;
    if (!c->coder.quoted && whole && converts(&c->coder, &json, &json_len))
        return calls_tell_json(c, json, json_len, err);
    if (!c->coder.quoted)
        TRY(say(c, "\"", err));
    TRY(calls_tell_quoted(c, text, len, err));
    return whole ? say(c, "\"", err) : OK;
}

/* What is read of a string is told as it comes; not of one that may be null as long as it may. */
static enum status tell_more(struct calls *c, struct error *err)
{
    struct call_coder *k = &c->coder;
    if (k->type == CALL_TEXT && !k->quoted && c->at > 0 && !may_be_null(calls_text(c), c->at)) {
        k->quoted = true;
        TRY(say(c, "\"", err));
    }
    if (!k->quoted || c->at == 0)
        return OK;
    TRY(calls_tell_quoted(c, calls_text(c), c->at, err));
    calls_take(c, c->at);
    return OK;
}

/* Behind the newline that a value begins with. False: more text decides. */
static bool begin_text(struct calls *c, bool last)
{
    const char *text = calls_text(c);
    enum calls_match m = calls_match_word(text, calls_len(c), "\r\n");
    if (m == CALLS_MAYBE && !last)
        return false;
    c->coder.at_begin = false;
    c->coder.crlf = m == CALLS_YES;
    if (m == CALLS_YES || (calls_len(c) > 0 && *text == '\n'))
        calls_take(c, m == CALLS_YES ? 2 : 1);
    return true;
}

static enum status read_value(struct calls *c, bool last, bool *on, struct error *err)
{
    size_t skip = 0;
    enum calls_match m = CALLS_NO;
    if (c->coder.at_begin && !begin_text(c, last)) {
        *on = false;
        return OK;
    }
    while (c->at < calls_len(c) && m == CALLS_NO) {
        struct view v = view_of(c, last);
        if (strchr("\r\n<", v.text[v.at]))
            m = ends_value(&v, c->coder.crlf, &skip);
        c->at += m == CALLS_NO;
    }
    if (m == CALLS_YES || last) {
        TRY(tell_value(c, m == CALLS_YES, err));
        calls_take(c, c->at + (m == CALLS_YES ? skip : 0));
        c->coder.in_value = false;
        return OK;
    }
    *on = false;
    return tell_more(c, err);
}

enum status calls_coder_step(struct calls *c, bool last, bool *on, struct error *err)
{
    return c->coder.in_value ? read_value(c, last, on, err) : read_tag(c, last, err);
}
