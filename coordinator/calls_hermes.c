/* Tool calls as JSON between <tool_call> and </tool_call>: see calls.h. */
#include "coordinator/calls_private.h"

#include <string.h>

enum { FIELD_OTHER, FIELD_NAME, FIELD_ARGS };

/* Of one byte: */
enum verdict {
    ON,     /* the next */
    WAIT,   /* more text decides about it */
    BROKEN, /* with it, this is no call */
    CLOSED, /* it closes the call */
    ENDED,  /* the call ends before it, its last brace forgotten */
};

enum status calls_hermes_open(struct calls *c, bool last, enum calls_match *match,
                              struct error *err)
{
    struct call_hermes *h = &c->hermes;
    (void)last;
    (void)err;
    *match = calls_match_word(calls_text(c) + c->at, calls_len(c) - c->at, calls_open);
    if (*match != CALLS_YES)
        return OK;
    *h = (struct call_hermes){.opened = c->at};
    json_scan_init(&h->scan);
    c->inside = true;
    c->at += strlen(calls_open);
    return OK;
}

/* --- strings -----------------------------------------------------------------------------------
 */

/* The string that is this JSON, quotes included; NULL: none that can be told. */
static json_t *decode(const char *json, size_t len)
{
    struct error err;
    struct calls lone; /* to escape control characters, which jansson refuses */
    json_t *string = NULL;
    calls_init(&lone, CALLS_HERMES, NULL, false);
    if (calls_tell_begin(&lone, "", 0, &err) == OK && calls_tell_json(&lone, json, len, &err) == OK)
        string = json_loadb(lone.out.data + lone.pieces[0].begin, lone.pieces[0].len,
                            JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    calls_fini(&lone);
    return string;
}

static bool read_name(struct call_hermes *h, const char *json, size_t len)
{
    if (len > 6 * CALLS_MAX_NAME) /* as \u and four digits */
        return false;
    json_t *name = decode(json, len);
    size_t n = json_string_length(name);
    bool fits = name && n > 0 && n <= CALLS_MAX_NAME && strlen(json_string_value(name)) == n;
    if (fits)
        memcpy(h->name, json_string_value(name), n + 1);
    json_decref(name);
    return fits;
}

/* --- bytes -------------------------------------------------------------------------------------
 */

static int32_t field_of(const char *key, size_t len)
{
    static const struct {
        const char *name;
        int32_t field;
    } fields[] = {{"name", FIELD_NAME}, {"arguments", FIELD_ARGS}, {"parameters", FIELD_ARGS}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (strlen(fields[i].name) == len && memcmp(fields[i].name, key, len) == 0)
            return fields[i].field;
    return FIELD_OTHER;
}

/* A value of the outer object begins. */
static enum verdict begin_value(struct call_hermes *h, char byte, size_t at)
{
    h->value = at;
    if (h->field == FIELD_NAME)
        return byte == '"' && !h->has_name ? ON : BROKEN;
    if (h->field == FIELD_ARGS && (h->has_args || !strchr("{\"n", byte)))
        return BROKEN;
    if (h->field == FIELD_ARGS)
        h->telling = byte == '{' && h->has_name;
    return ON;
}

/* The value of a name or of arguments is whole with the byte at `at`. */
static enum verdict end_value(struct call_hermes *h, const char *text, size_t at)
{
    int32_t field = h->field;
    h->field = FIELD_OTHER;
    if (field == FIELD_NAME) {
        h->has_name = true;
        return read_name(h, text + h->value, at + 1 - h->value) ? ON : BROKEN;
    }
    h->has_args = true;
    h->args = h->value;
    h->args_len = at + 1 - h->value;
    return ON;
}

/* What more than one byte shows: a string that was never closed, a last brace that was forgotten.
 */
static enum verdict look(const struct call_hermes *h, const char *text, size_t len, bool last)
{
    enum calls_match match = CALLS_NO;
    bool forgot = h->scan.depth == 1 && h->scan.state == SCAN_AFTER && h->has_name && h->has_args;
    if (forgot && *text == '<')
        match = calls_match_word(text, len, calls_close);
    else if (h->scan.state == SCAN_STRING && *text == '\n')
        match = calls_match_word(text + 1, len - 1, calls_close);
    if (match == CALLS_MAYBE && !last)
        return WAIT;
    return match != CALLS_YES ? ON : forgot ? ENDED : BROKEN;
}

static enum verdict push(struct call_hermes *h, const char *text, size_t at)
{
    enum json_scan_state was = h->scan.state, now;
    int32_t depth = h->scan.depth;
    if (!json_scan_push(&h->scan, text[at]))
        return BROKEN;
    now = h->scan.state;
    if (depth == 0)
        return now == SCAN_FIRST_KEY || now == SCAN_VALUE ? ON : BROKEN;
    if (depth == 1 && now == SCAN_STRING && (was == SCAN_FIRST_KEY || was == SCAN_KEY))
        h->key = at + 1;
    if (depth == 1 && was == SCAN_STRING && now == SCAN_COLON)
        h->field = field_of(text + h->key, at - h->key);
    if (depth == 1 && was == SCAN_VALUE && now != SCAN_VALUE)
        return begin_value(h, text[at], at);
    if (h->field != FIELD_OTHER && h->scan.depth == 1 && now == SCAN_AFTER)
        return end_value(h, text, at);
    return now == SCAN_WHOLE ? CLOSED : ON;
}

/* --- calls -------------------------------------------------------------------------------------
 */

/* Arguments that could not be told as they came. *fits: they are an object. */
static enum status tell_arguments(struct calls *c, const char *json, size_t len, bool *fits,
                                  struct error *err)
{
    const struct call_hermes *h = &c->hermes;
    while (len > 0 && calls_is_space(*json)) {
        json++;
        len--;
    }
    if (len == 0)
        json = "{}", len = 2;
    *fits = *json == '{' && json_scan_text(json, len, false);
    if (!*fits)
        return OK;
    TRY(calls_tell_begin(c, h->name, strlen(h->name), err));
    return calls_tell_json(c, json, len, err);
}

/* A call is whole that was not told as it came. */
static enum status tell_whole(struct calls *c, bool *fits, struct error *err)
{
    const struct call_hermes *h = &c->hermes;
    const char *json = calls_text(c) + h->args;
    bool none = !h->has_args || *json == 'n';
    if (none || *json == '{')
        return tell_arguments(c, json, none ? 0 : h->args_len, fits, err);
    json_t *string = decode(json, h->args_len);
    enum status st = OK;
    *fits = string != NULL;
    if (string)
        st = tell_arguments(c, json_string_value(string), json_string_length(string), fits, err);
    json_decref(string);
    return st;
}

/* It is no call. */
static enum status break_off(struct calls *c, struct error *err)
{
    c->inside = false;
    if (!c->hermes.telling) /* the tag is content, and what is behind it is looked at again */
        return calls_tell_content(c, c->hermes.opened + 1, err);
    c->at = 0;
    c->behind = c->closing = false;
    return OK;
}

/* It is whole with the first `len` bytes. */
static enum status finish(struct calls *c, size_t len, struct error *err)
{
    bool fits = c->hermes.has_name;
    if (c->hermes.telling)
        return calls_tell_end(c, "}", len, err);
    if (fits)
        TRY(tell_whole(c, &fits, err));
    return fits ? calls_tell_end(c, "", len, err) : break_off(c, err);
}

/* The byte that was read is one of arguments that are told as they come: all but their last. */
static enum status tell_byte(struct calls *c, bool in_string, struct error *err)
{
    struct call_hermes *h = &c->hermes;
    if (!h->telling || h->has_args)
        return OK;
    if (h->value > 0) { /* the first */
        TRY(calls_tell_begin(c, h->name, strlen(h->name), err));
        calls_take(c, h->value);
        h->value = 0;
    }
    const char *byte = calls_text(c);
    if (in_string && (unsigned char)*byte < ' ')
        TRY(calls_tell_quoted(c, byte, 1, err));
    else
        TRY(calls_tell(c, byte, 1, err));
    calls_take(c, 1);
    return OK;
}

enum status calls_hermes_step(struct calls *c, bool last, bool *on, struct error *err)
{
    struct call_hermes *h = &c->hermes;
    while (c->at < calls_len(c)) {
        bool in_string = h->scan.state == SCAN_STRING;
        enum verdict v = look(h, calls_text(c) + c->at, calls_len(c) - c->at, last);
        if (v == ON)
            v = push(h, calls_text(c), c->at);
        *on = v != WAIT;
        if (v == WAIT)
            return OK;
        if (v == BROKEN)
            return break_off(c, err);
        if (v != ON)
            return finish(c, c->at + (v == CLOSED), err);
        c->at++;
        TRY(tell_byte(c, in_string, err));
    }
    *on = last;
    if (!last)
        return OK;
    if (h->has_name && h->has_args && h->scan.depth == 1 && h->scan.state == SCAN_AFTER)
        return finish(c, c->at, err);
    return break_off(c, err);
}
