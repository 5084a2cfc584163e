/* See load_response.h. No state but the caller's. */
#include "cli/load_response.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum state { STATUS_LINE, HEADERS, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILERS, DONE };

void load_response_init(struct load_response *r)
{
    *r = (struct load_response){.retry_after_s = -1};
    buf_init(&r->line, LOAD_MAX_LINE_BYTES);
}

void load_response_fini(struct load_response *r)
{
    buf_fini(&r->line);
}

void load_response_reset(struct load_response *r)
{
    struct buf line = r->line;
    buf_clear(&line);
    *r = (struct load_response){.retry_after_s = -1, .line = line};
}

/* --- lines -------------------------------------------------------------------------------------
 */

/* Takes bytes up to a line's end; *whole when r->line is one, without its end. */
static enum status take_line(struct load_response *r, const char *data, size_t len, size_t *used,
                             bool *whole, struct error *err)
{
    const char *end = len > 0 ? memchr(data, '\n', len) : NULL;
    size_t n = end ? (size_t)(end - data) : len;
    *used = n + (end != NULL);
    *whole = end != NULL;
    r->head_bytes += *used;
    if (r->head_bytes > LOAD_MAX_HEAD_BYTES || n > LOAD_MAX_LINE_BYTES - r->line.len)
        return error_set(err, ERR_LIMIT, "the response's header lines are over %d bytes",
                         r->head_bytes > LOAD_MAX_HEAD_BYTES ? LOAD_MAX_HEAD_BYTES
                                                             : LOAD_MAX_LINE_BYTES);
    TRY(buf_append(&r->line, data, n, err));
    if (end && r->line.len > 0 && r->line.data[r->line.len - 1] == '\r')
        r->line.data[--r->line.len] = '\0';
    return OK;
}

static enum status take_status(struct load_response *r, struct error *err)
{
    const char *s = r->line.data ? r->line.data : "";
    bool good = strncmp(s, "HTTP/1.", 7) == 0 && (s[7] == '0' || s[7] == '1') && s[8] == ' ' &&
                isdigit((unsigned char)s[9]) && isdigit((unsigned char)s[10]) &&
                isdigit((unsigned char)s[11]) && (s[12] == ' ' || s[12] == '\0') && s[9] != '0';
    if (!good)
        return error_set(err, ERR_INVALID, "expected an HTTP/1.1 status line, found \"%.60s\"", s);
    r->status = atoi(s + 9);
    r->keep_alive = s[7] == '1';
    r->state = HEADERS;
    return OK;
}

/* Whether a comma-separated list holds the word. */
static bool lists(const char *value, const char *word)
{
    size_t want = strlen(word);
    while (*value) {
        value += strspn(value, ", \t");
        size_t len = strcspn(value, ",; \t");
        if (len == want && strncasecmp(value, word, len) == 0)
            return true;
        value += strcspn(value, ",");
    }
    return false;
}

static enum status take_length(struct load_response *r, const char *value, struct error *err)
{
    size_t digits = strspn(value, "0123456789");
    int64_t n = digits > 0 && digits < 18 && !value[digits] ? strtoll(value, NULL, 10) : -1;
    if (n < 0 || (r->has_length && n != r->left))
        return error_set(err, ERR_INVALID, "expected one Content-Length, found \"%.60s\"", value);
    r->has_length = true;
    r->left = n;
    return OK;
}

static void take_content_type(struct load_response *r, const char *value)
{
    size_t n = strcspn(value, "; \t");
    snprintf(r->content_type, sizeof r->content_type, "%.*s", (int)(n < 63 ? n : 63), value);
    for (char *c = r->content_type; *c; c++)
        *c = (char)tolower((unsigned char)*c);
}

static enum status take_header(struct load_response *r, struct error *err)
{
    char *name = r->line.data, *colon = strchr(name, ':');
    if (!colon || colon == name || strlen(name) != r->line.len)
        return error_set(err, ERR_INVALID, "expected a header line, found \"%.60s\"", name);
    *colon = '\0';
    char *value = colon + 1 + strspn(colon + 1, " \t");
    for (size_t n = strlen(value); n > 0 && strchr(" \t", value[n - 1]); n--)
        value[n - 1] = '\0';
    if (strcasecmp(name, "content-length") == 0)
        return take_length(r, value, err);
    if (strcasecmp(name, "transfer-encoding") == 0) {
        if (strcasecmp(value, "chunked") != 0)
            return error_set(err, ERR_UNSUPPORTED, "Transfer-Encoding: expected chunked, found %s",
                             value);
        r->chunked = true;
    } else if (strcasecmp(name, "content-type") == 0) {
        take_content_type(r, value);
    } else if (strcasecmp(name, "connection") == 0) {
        if (lists(value, "close"))
            r->keep_alive = false;
        else if (lists(value, "keep-alive"))
            r->keep_alive = true;
    } else if (strcasecmp(name, "retry-after") == 0 && isdigit((unsigned char)*value)) {
        r->retry_after_s = strtod(value, NULL);
    }
    return OK;
}

static void finish(struct load_response *r)
{
    r->state = DONE;
    r->done = true;
}

/* The empty line after the headers: what the body is like. 1xx goes before the response. */
static void begin_body(struct load_response *r)
{
    if (r->status < 200) {
        load_response_reset(r);
        return;
    }
    r->head_done = true;
    if (r->chunked)
        r->state = CHUNK_SIZE;
    else
        r->state = BODY;
    if (r->status == 204 || r->status == 304 || (!r->chunked && r->has_length && r->left == 0))
        finish(r);
    else if (!r->chunked && !r->has_length)
        r->keep_alive = false; /* it ends with the connection */
}

static enum status take_chunk_size(struct load_response *r, struct error *err)
{
    const char *s = r->line.data ? r->line.data : "";
    char *end;
    int64_t n = isxdigit((unsigned char)*s) ? (int64_t)strtoull(s, &end, 16) : -1;
    if (n < 0 || strspn(s, "0123456789abcdefABCDEF") > 15 || !strchr("; \t", *end))
        return error_set(err, ERR_INVALID, "expected a chunk's size, found \"%.60s\"", s);
    r->left = n;
    r->head_bytes = 0;
    r->state = n > 0 ? CHUNK : TRAILERS;
    return OK;
}

static enum status line_done(struct load_response *r, struct error *err)
{
    bool empty = r->line.len == 0;
    switch (r->state) {
    case STATUS_LINE:
        return take_status(r, err);
    case HEADERS:
        if (!empty)
            return take_header(r, err);
        begin_body(r);
        return OK;
    case CHUNK_SIZE:
        return take_chunk_size(r, err);
    case CHUNK_END:
        if (!empty)
            return error_set(err, ERR_INVALID, "expected a chunk's end, found \"%.60s\"",
                             r->line.data);
        r->state = CHUNK_SIZE;
        return OK;
    default: /* trailers say nothing to us */
        if (empty)
            finish(r);
        return OK;
    }
}

/* --- feeding -----------------------------------------------------------------------------------
 */

static void take_body(struct load_response *r, const char *data, size_t len, size_t *used,
                      const char **body, size_t *body_len)
{
    bool bounded = r->chunked || r->has_length;
    size_t n = bounded && (int64_t)len > r->left ? (size_t)r->left : len;
    *body = data;
    *body_len = n;
    *used += n;
    if (!bounded)
        return;
    r->left -= (int64_t)n;
    if (r->left > 0)
        return;
    if (r->chunked)
        r->state = CHUNK_END;
    else
        finish(r);
}

enum status load_response_feed(struct load_response *r, const char *data, size_t len, size_t *used,
                               const char **body, size_t *body_len, struct error *err)
{
    *used = 0;
    *body = data;
    *body_len = 0;
    while (*used < len && !r->done) {
        if (r->state == BODY || r->state == CHUNK) {
            take_body(r, data + *used, len - *used, used, body, body_len);
            return OK;
        }
        size_t n;
        bool whole;
        TRY(take_line(r, data + *used, len - *used, &n, &whole, err));
        *used += n;
        if (!whole)
            return OK;
        TRY(line_done(r, err));
        buf_clear(&r->line);
    }
    return OK;
}

enum status load_response_end(struct load_response *r, struct error *err)
{
    if (r->done)
        return OK;
    if (r->state != BODY || r->has_length)
        return error_set(err, ERR_IO, "the connection ended %s",
                         r->head_done ? "in the middle of the answer" : "before an answer");
    finish(r);
    return OK;
}
