/* What dialects share: see dialect.h. No state. */
#include "coordinator/dialect.h"
#include "coordinator/text/json_text.h"
#include "coordinator/text/utf8.h"

#include <stdio.h>
#include <string.h>

enum { MAX_NAME_BYTES = 1024 };

void telling_init(struct telling *t, size_t limit_bytes)
{
    *t = (struct telling){0};
    buf_init(&t->text, limit_bytes);
    buf_init(&t->items, limit_bytes);
    buf_init(&t->id, MAX_NAME_BYTES);
    buf_init(&t->name, MAX_NAME_BYTES);
}

void telling_fini(struct telling *t)
{
    buf_fini(&t->text);
    buf_fini(&t->items);
    buf_fini(&t->id);
    buf_fini(&t->name);
}

/* --- reading -----------------------------------------------------------------------------------
 */

/* A message of openai_request's begins with the path of a field of the chat body. */
static void rename_field(const struct dialect *d, struct error *err)
{
    char words[sizeof err->msg];
    char *function = strstr(err->msg, "].function.");
    if (d->flat_tools && function && strncmp(err->msg, "tools[", 6) == 0)
        memmove(function + 1, function + strlen("].function"),
                strlen(function + strlen("].function")) + 1);
    for (const struct dialect_name *n = d->names; n && n->openai; n++) {
        size_t len = strlen(n->openai);
        if (strncmp(err->msg, n->openai, len) != 0 || !strchr(":.[", err->msg[len]))
            continue;
        snprintf(words, sizeof words, "%s%s", n->theirs, err->msg + len);
        memcpy(err->msg, words, sizeof words);
        return;
    }
}

static enum status read_translated(const struct dialect *d, enum openai_kind *kind,
                                   const json_t *body, const struct generation_config *defaults,
                                   struct openai_request *out, struct error *err)
{
    json_t *chat = NULL;
    if (!json_is_object(body))
        return error_set(err, ERR_INVALID, "body: expected a JSON object, found %s",
                         json_type_words(body));
    TRY(d->translate(body, kind, &chat, err));
    enum status st = openai_request_read(*kind, chat, defaults, out, err);
    if (st != OK) {
        rename_field(d, err);
        return st;
    }
    if (out->default_max_tokens)
        out->max_tokens = 0; /* completions' 16 are OpenAI's */
    out->default_max_tokens = true;
    return OK;
}

/* A body whose calls hold what we gave, deeper or larger than bodies may be: as strings. */
static enum status parse_body(const struct dialect *d, const char *body, size_t len, json_t **root,
                              struct error *err)
{
    struct buf quoted;
    enum status st = openai_body_parse(body, len, root, err);
    if (st == OK || !d->arguments)
        return st;
    buf_init(&quoted, 2 * len + 64);
    if (json_text_quote_members(body, len, d->arguments, &quoted, NULL) == OK &&
        openai_body_parse(quoted.data, quoted.len, root, NULL) == OK)
        st = OK;
    buf_fini(&quoted);
    return st;
}

enum status dialect_read(const struct dialect *d, enum openai_kind *kind, const char *body,
                         size_t len, const struct generation_config *defaults,
                         struct openai_request *out, struct error *err)
{
    json_t *root = NULL;
    if (!d->translate)
        return openai_request_parse(*kind, body, len, defaults, out, err);
    *out = (struct openai_request){0};
    TRY(parse_body(d, body, len, &root, err));
    enum status st = read_translated(d, kind, root, defaults, out, err);
    json_decref(root);
    return st;
}

/* --- writing -----------------------------------------------------------------------------------
 */

struct sink {
    struct buf *b;
    struct error *err;
    enum status st;
};

static int take(const char *data, size_t len, void *sink)
{
    struct sink *s = sink;
    s->st = buf_append(s->b, data, len, s->err);
    return s->st == OK ? 0 : -1;
}

enum status dialect_put(struct buf *b, json_t *v, struct error *err)
{
    struct sink s = {.b = b, .err = err};
    int failed = v ? json_dump_callback(v, take, &s, JSON_COMPACT) : -1;
    json_decref(v);
    if (s.st == OK && failed)
        return error_set(err, ERR_NO_MEMORY, "no memory for an answer");
    return s.st;
}

enum status dialect_put_event(struct buf *b, const char *type, json_t *v, struct error *err)
{
    enum status st = buf_printf(b, err, "event: %s\ndata: ", type);
    if (st != OK) {
        json_decref(v);
        return st;
    }
    TRY(dialect_put(b, v, err));
    return buf_puts(b, "\n\n", err);
}

json_t *dialect_lossy(const char *s)
{
    struct buf clean;
    buf_init(&clean, 64 << 10);
    json_t *v = NULL;
    if (utf8_append_lossy(&clean, s, strlen(s), NULL) == OK)
        v = json_stringn(clean.data ? clean.data : "", clean.len);
    buf_fini(&clean);
    return v;
}

json_t *dialect_arguments(const char *text, size_t len)
{
    json_t *v = len > 0 ? json_loadb(text, len, JSON_ALLOW_NUL, NULL) : NULL;
    if (!v && len > 0)
        v = json_text_load_near(text, len);
    if (json_is_object(v))
        return v;
    json_decref(v);
    return NULL;
}
