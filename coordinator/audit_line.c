/* A record of the audit log as a line: see audit_line.h. No state. */
#include "coordinator/audit_line.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CANONICAL = JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(9) };

/* What a key signs begins so: a signature of another kind of document is none of a head. */
#define HEAD_LINE "witan audit head 1\n"

char *audit_canonical(const json_t *object)
{
    return json_dumps(object, CANONICAL);
}

void audit_hex(const struct digest *d, char hex[AUDIT_DIGEST_HEX + 1])
{
    for (size_t i = 0; i < sizeof d->b; i++)
        snprintf(hex + 2 * i, 3, "%02x", d->b[i]);
}

/* --- writing --- */

static void print_time(int64_t wall_ms, char out[AUDIT_TIME_BYTES + 1])
{
    time_t s = (time_t)(wall_ms / 1000);
    int ms = (int)(wall_ms % 1000);
    char date[32] = "";
    struct tm t;
    gmtime_r(&s, &t);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &t);
    memcpy(out, date, 19);
    out[19] = '.';
    out[20] = (char)('0' + ms / 100);
    out[21] = (char)('0' + ms / 10 % 10);
    out[22] = (char)('0' + ms % 10);
    out[23] = 'Z';
    out[24] = '\0';
}

/* Years of four digits: what a line can say. */
static int64_t within(int64_t wall_ms)
{
    const int64_t last = 253402300799999; /* 9999-12-31T23:59:59.999Z */
    return wall_ms < 0 ? 0 : wall_ms > last ? last : wall_ms;
}

enum status audit_line_write(struct audit_chain *c, const char *kind, const char *fields,
                             const struct audit_time *at, struct buf *out, struct error *err)
{
    char prev[AUDIT_DIGEST_HEX + 1], time[AUDIT_TIME_BYTES + 1];
    size_t before = out->len;
    struct digest own;
    audit_hex(&c->prev, prev);
    print_time(within(at->wall_ms), time);
    enum status st = buf_printf(
        out, err,
        "{\"fields\":%s,\"kind\":\"%s\",\"mono_ms\":%lld,\"prev\":\"%s\",\"seq\":%lld,"
        "\"time\":\"%s\"}",
        fields, kind, (long long)at->mono_ms, prev, (long long)c->seq, time);
    if (st == OK)
        st = hash_parts(&(struct hash_part){out->data + before, out->len - before}, 1, &own, err);
    if (st == OK)
        st = buf_append(out, "\n", 1, err);
    if (st != OK) {
        out->len = before;
        return st;
    }
    c->prev = own;
    c->seq++;
    return OK;
}

/* --- reading --- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_hex(const char *hex, struct digest *out)
{
    if (strlen(hex) != AUDIT_DIGEST_HEX)
        return false;
    for (size_t i = 0; i < sizeof out->b; i++) {
        int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out->b[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* Exactly as print_time writes it, of a day that there is. */
static bool read_time(const char *text, int64_t *wall_ms)
{
    struct tm t = {0};
    int ms = 0, used = 0;
    char again[AUDIT_TIME_BYTES + 1];
    if (strlen(text) != AUDIT_TIME_BYTES ||
        sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &t.tm_year, &t.tm_mon, &t.tm_mday,
               &t.tm_hour, &t.tm_min, &t.tm_sec, &ms, &used) != 7 ||
        used != AUDIT_TIME_BYTES)
        return false;
    t.tm_year -= 1900;
    t.tm_mon -= 1;
    time_t s = timegm(&t);
    if (s < 0 || ms < 0)
        return false;
    *wall_ms = (int64_t)s * 1000 + ms;
    print_time(within(*wall_ms), again);
    return strcmp(again, text) == 0;
}

static bool is_kind(const char *kind)
{
    size_t len = strlen(kind);
    return len > 0 && len <= AUDIT_MAX_KIND &&
           strspn(kind, "abcdefghijklmnopqrstuvwxyz0123456789_") == len;
}

static enum status read_fields(const char *what, struct audit_record *r, struct error *err)
{
    const char *prev;
    r->fields = json_object_get(r->root, "fields");
    if (json_object_size(r->root) != 6 || !json_is_object(r->fields))
        return error_set(err, ERR_INVALID,
                         "%s: expected a record: fields, kind, mono_ms, prev, seq and time", what);
    TRY(json_get_string(r->root, what, "kind", true, &r->kind, err));
    TRY(json_get_int(r->root, what, "mono_ms", true, 0, INT64_MAX, &r->mono_ms, err));
    TRY(json_get_string(r->root, what, "prev", true, &prev, err));
    TRY(json_get_int(r->root, what, "seq", true, 0, INT64_MAX - 1, &r->seq, err));
    TRY(json_get_string(r->root, what, "time", true, &r->time, err));
    if (!is_kind(r->kind))
        return error_set(err, ERR_INVALID, "%s: kind: expected 1 to %d of a-z, 0-9 and _", what,
                         (int)AUDIT_MAX_KIND);
    if (!read_hex(prev, &r->prev))
        return error_set(err, ERR_INVALID, "%s: prev: expected %d hex digits", what,
                         (int)AUDIT_DIGEST_HEX);
    if (!read_time(r->time, &r->wall_ms))
        return error_set(err, ERR_INVALID, "%s: time: expected one like 2026-01-31T12:00:00.000Z",
                         what);
    return OK;
}

static enum status demand_canonical(const char *what, const json_t *root, const char *line,
                                    size_t len, struct error *err)
{
    char *again = audit_canonical(root);
    if (!again)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory", what);
    bool same = strlen(again) == len && memcmp(again, line, len) == 0;
    free(again);
    return same ? OK
                : error_set(err, ERR_INVALID,
                            "%s: expected canonical JSON, found another spelling of it", what);
}

enum status audit_line_read(const char *what, const char *line, size_t len,
                            struct audit_record *out, struct error *err)
{
    *out = (struct audit_record){0};
    if (len == 0 || len > AUDIT_MAX_LINE)
        return error_set(err, ERR_INVALID, "%s: expected a line of 1 to %d bytes, found %zu", what,
                         (int)AUDIT_MAX_LINE, len);
    TRY(json_parse(what, line, len, &out->root, err));
    enum status st = OK;
    if (!json_is_object(out->root))
        st = error_set(err, ERR_INVALID, "%s: expected an object, found %s", what,
                       json_type_words(out->root));
    if (st == OK)
        st = read_fields(what, out, err);
    if (st == OK)
        st = demand_canonical(what, out->root, line, len, err);
    if (st == OK)
        st = hash_parts(&(struct hash_part){line, len}, 1, &out->own, err);
    if (st != OK) {
        json_decref(out->root);
        *out = (struct audit_record){0};
    }
    return st;
}

char *audit_head_text(const json_t *root)
{
    char *text = NULL, *out = NULL;
    json_t *copy = json_copy((json_t *)root); /* as deep as what is changed */
    json_t *fields = copy ? json_copy(json_object_get(copy, "fields")) : NULL;
    if (fields) {
        json_object_del(fields, "signature");
        if (json_object_set(copy, "fields", fields) == 0)
            text = audit_canonical(copy);
    }
    size_t size = text ? sizeof HEAD_LINE + strlen(text) : 0;
    if (text && (out = malloc(size)) != NULL)
        snprintf(out, size, "%s%s", HEAD_LINE, text);
    free(text);
    json_decref(fields);
    json_decref(copy);
    return out;
}
