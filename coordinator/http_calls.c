/* Tool calls of HTTP answers: see http_calls.h. */
#include "coordinator/http_calls.h"
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_ARGUMENTS_BYTES = 64 << 20 };

static void name_call(const char *answer, int32_t choice, int32_t call, char id[HTTP_CALL_ID_BYTES])
{
    snprintf(id, HTTP_CALL_ID_BYTES, "call_%.60s_%d", answer, choice * CALLS_MAX + call);
}

void http_calls_fini(struct http_calls *c)
{
    for (int32_t i = 0; i < c->count; i++)
        buf_fini(&c->all[i].arguments);
    free(c->all);
    *c = (struct http_calls){0};
}

int64_t http_calls_bytes(const struct http_calls *c)
{
    size_t bytes = (size_t)c->count * sizeof *c->all;
    for (int32_t i = 0; i < c->count; i++)
        bytes += c->all[i].arguments.cap;
    return (int64_t)bytes;
}

static enum status add(struct http_calls *c, struct error *err)
{
    struct http_call *more = realloc(c->all, ((size_t)c->count + 1) * sizeof *more);
    if (!more)
        return error_set(err, ERR_NO_MEMORY, "no memory for the answer's tool calls");
    c->all = more;
    buf_init(&c->all[c->count++].arguments, MAX_ARGUMENTS_BYTES);
    return OK;
}

enum status http_calls_keep(struct http_calls *c, const char *answer, int32_t choice,
                            const struct told_piece *pieces, int32_t count, struct buf *content,
                            struct error *err)
{
    for (int32_t i = 0; i < count; i++) {
        const struct told_piece *p = &pieces[i];
        if (p->name) {
            TRY(add(c, err));
            name_call(answer, choice, p->call, c->all[c->count - 1].id);
            snprintf(c->all[c->count - 1].name, sizeof c->all->name, "%s", p->name);
        }
        struct buf *to = p->call < 0 ? content : &c->all[c->count - 1].arguments;
        TRY(buf_append(to, p->text, p->len, err));
    }
    return OK;
}

struct openai_piece *http_calls_kept(const struct http_calls *c)
{
    struct openai_piece *out = check_calloc((size_t)c->count + 1, sizeof *out);
    for (int32_t i = 0; i < c->count; i++)
        out[i] = (struct openai_piece){.call = i,
                                       .id = c->all[i].id,
                                       .name = c->all[i].name,
                                       .text = c->all[i].arguments.data,
                                       .len = c->all[i].arguments.len};
    return out;
}

struct openai_piece *http_calls_named(const char *answer, int32_t choice,
                                      const struct told_piece *pieces, int32_t count)
{
    struct openai_piece *out = check_calloc((size_t)count, sizeof *out + HTTP_CALL_ID_BYTES);
    char *id = (char *)(out + count);
    for (int32_t i = 0; i < count; i++, id += HTTP_CALL_ID_BYTES) {
        const struct told_piece *p = &pieces[i];
        if (p->name)
            name_call(answer, choice, p->call, id);
        out[i] = (struct openai_piece){.call = p->call,
                                       .id = p->name ? id : NULL,
                                       .name = p->name,
                                       .text = p->text,
                                       .len = p->len,
                                       .end = p->end};
    }
    return out;
}
