/* Bodies of OpenAI's requests: see load_http.h. No state. */
#include "cli/load_http.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

static enum status put_json(struct buf *b, const json_t *v, struct error *err)
{
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    enum status st = text ? buf_puts(b, text, err)
                          : error_set(err, ERR_NO_MEMORY, "no memory for a request's body");
    free(text);
    return st;
}

/* A comma before all but the first: the fastest of ways to a body of many thousand ids. */
static enum status put_ids(struct buf *b, const int32_t *ids, int32_t count, struct error *err)
{
    char text[4096];
    size_t len = 0;
    TRY(buf_puts(b, "\"prompt\":[", err));
    for (int32_t i = 0; i < count; i++) {
        char digits[12];
        int n = 0;
        for (int32_t x = ids[i]; x > 0 || n == 0; x /= 10)
            digits[n++] = (char)('0' + x % 10);
        if (i > 0)
            text[len++] = ',';
        while (n > 0)
            text[len++] = digits[--n];
        if (len > sizeof text - 16) {
            TRY(buf_append(b, text, len, err));
            len = 0;
        }
    }
    TRY(buf_append(b, text, len, err));
    return buf_puts(b, "]", err);
}

static enum status put_input(bool chat, const struct load_request *r, struct buf *b,
                             struct error *err)
{
    if (r->input == LOAD_IDS)
        return put_ids(b, r->ids, r->id_count, err);
    if (r->input == LOAD_MESSAGES) {
        TRY(buf_puts(b, "\"messages\":", err));
        return put_json(b, r->messages, err);
    }
    TRY(buf_puts(b, chat ? "\"messages\":[{\"role\":\"user\",\"content\":" : "\"prompt\":", err));
    TRY(buf_json_string(b, r->text, r->text_len, err));
    return chat ? buf_puts(b, "}]", err) : OK;
}

enum status load_http_body(const struct load_http_options *o, const struct load_request *r,
                           struct buf *out, struct error *err)
{
    TRY(buf_puts(out, "{\"model\":", err));
    TRY(buf_json_string(out, o->model, strlen(o->model), err));
    TRY(buf_puts(out, ",", err));
    TRY(put_input(o->chat, r, out, err));
    if (r->max_tokens > 0)
        TRY(buf_printf(out, err, ",\"max_tokens\":%d", (int)r->max_tokens));
    TRY(buf_puts(out, ",\"stream\":true", err));
    if (o->usage)
        TRY(buf_puts(out, ",\"stream_options\":{\"include_usage\":true}", err));
    if (o->ignore_eos)
        TRY(buf_puts(out, ",\"ignore_eos\":true", err));
    if (o->more)
        TRY(buf_printf(out, err, ",%s", o->more));
    return buf_puts(out, "}", err);
}
