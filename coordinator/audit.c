/*
 * The audit log: opening, the queue, what others may ask. See audit.h; the writer is
 * audit_write.c's.
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/audit_private.h"
#include "proto/versions.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static void system_now(struct audit_time *out)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    out->wall_ms = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
    out->mono_ms = clock_now_ns() / 1000000;
}

static struct audit_time now(const struct audit *a)
{
    struct audit_time t;
    a->now(&t);
    t.mono_ms -= a->started_ms;
    return t;
}

/* --- opening ----------------------------------------------------------------------------------
 */

/* The second file may know of records that the first has no more. */
static enum status compare_heads(const struct audit *a, const struct audit_last *log,
                                 const struct audit_last *head, struct error *err)
{
    if (head->seq < 0 || (log->seq >= head->seq && log->seq >= 0))
        return OK;
    return error_set(
        err, ERR_CONFLICT,
        "%s: expected at least record %lld, which %s has the head of, found %lld as "
        "the last: records were removed, or one of the two is another log's. Keep both "
        "as they are, see `witan audit verify`, and name other files",
        a->log.path, (long long)head->seq, a->heads.path, (long long)log->seq);
}

static enum status begin_chain(struct audit *a, const char *name, struct error *err)
{
    uint8_t random[16];
    struct audit_time t = now(a);
    while (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        CHECK(errno == EINTR, "getrandom: %d", errno);
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(a->chain_id + 2 * i, 3, "%02x", random[i]);
    json_t *f = json_pack("{s:s, s:s, s:i, s:s, s:s}", "chain", a->chain_id, "coordinator", name,
                          "format", (int)AUDIT_FORMAT, "key", audit_signer_id(a->signer), "version",
                          WITAN_VERSION);
    char *text = f ? audit_canonical(f) : NULL;
    enum status st = text ? audit_line_write(&a->chain, "chain", text, &t, &a->batch, err)
                          : error_set(err, ERR_NO_MEMORY, "no memory for the audit log");
    if (st == OK)
        st = audit_file_append(&a->log, a->batch.data, a->batch.len, err);
    buf_clear(&a->batch);
    json_decref(f);
    free(text);
    a->fresh = true;
    return st;
}

/* A chain that goes on: its id stands in the first line. */
static enum status read_chain_id(struct audit *a, struct error *err)
{
    char line[AUDIT_MAX_LINE + 1];
    struct audit_record r = {0};
    ssize_t n = pread(a->log.fd, line, sizeof line - 1, 0);
    const char *newline = n > 0 ? memchr(line, '\n', (size_t)n) : NULL;
    enum status st = newline ? audit_line_read("line 1", line, (size_t)(newline - line), &r, err)
                             : error_set(err, ERR_INVALID, "line 1: expected a record, found none");
    const char *id = st == OK ? json_string_value(json_object_get(r.fields, "chain")) : NULL;
    if (st == OK && (strcmp(r.kind, "chain") != 0 || !id || strlen(id) != 32))
        st = error_set(err, ERR_INVALID, "line 1: expected the record that begins a chain");
    if (st == OK)
        memcpy(a->chain_id, id, sizeof a->chain_id);
    else
        error_prefix(err, "%s: ", a->log.path);
    json_decref(r.root);
    return st == OK ? OK
                    : error_advise(err, st, "keep this file and name another one in audit.file");
}

static enum status open_files(struct audit *a, const struct audit_options *o, struct error *err)
{
    struct audit_last log, head = {.seq = -1};
    TRY(audit_file_open("audit.file", o->file, &a->log, &log, err));
    if (o->heads)
        TRY(audit_file_open("audit.heads", o->heads, &a->heads, &head, err));
    TRY(compare_heads(a, &log, &head, err));
    a->chain = log.chain;
    a->last = (struct audit_time){.wall_ms = log.wall_ms, .mono_ms = -1};
    if (log.seq < 0)
        TRY(begin_chain(a, o->name, err));
    else
        TRY(read_chain_id(a, err));
    if (head.seq >= 0 && *head.id && strcmp(head.id, a->chain_id) != 0)
        return error_set(err, ERR_CONFLICT,
                         "audit.heads: %s: expected heads of chain %s, found chain %s: another "
                         "log's: each needs a file of its own",
                         a->heads.path, a->chain_id, head.id);
    return OK;
}

static enum status start_writer(struct audit *a, struct error *err)
{
    pthread_condattr_t attr;
    pthread_mutex_init(&a->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&a->more, &attr);
    pthread_condattr_destroy(&attr);
    int code = pthread_create(&a->thread, NULL, audit_writer, a);
    if (code == 0)
        return OK;
    pthread_cond_destroy(&a->more);
    pthread_mutex_destroy(&a->lock);
    return error_errno(err, code, "cannot start the audit log's thread");
}

static void release(struct audit *a)
{
    audit_file_close(&a->log);
    audit_file_close(&a->heads);
    audit_signer_close(a->signer);
    buf_fini(&a->batch);
    buf_fini(&a->head);
    explicit_bzero(&a->hmac, sizeof a->hmac);
    free(a);
}

enum status audit_open(const struct audit_options *o, struct audit **out, struct error *err)
{
    struct audit *a = check_calloc(1, sizeof *a);
    a->log.fd = a->heads.fd = -1;
    a->end = &a->first;
    a->head_s = o->head_s;
    a->on_error = o->on_error;
    a->wake = o->wake;
    a->wake_arg = o->wake_arg;
    a->now = o->now ? o->now : system_now;
    buf_init(&a->batch, AUDIT_BATCH_BYTES + 4 * AUDIT_MAX_LINE);
    buf_init(&a->head, AUDIT_MAX_LINE);
    a->started_ms = now(a).mono_ms;
    enum status st = audit_signer_open(o->key, &a->signer, err);
    if (st != OK)
        error_prefix(err, "audit.key: ");
    if (st == OK && o->hmac_key) {
        st = audit_hmac_key_read(o->hmac_key, &a->hmac, err);
        if (st != OK)
            error_prefix(err, "audit.hmac_key: ");
        a->has_hmac = st == OK;
    }
    if (st == OK)
        st = open_files(a, o, err);
    if (st == OK)
        st = start_writer(a, err);
    if (st != OK) {
        release(a);
        return st;
    }
    if (a->log.broken > 0) {
        log_warn("audit: %s: %lld bytes of a record that broke off were cut off", a->log.path,
                 (long long)a->log.broken);
        audit_event(a, "recovered", json_pack("{s:I}", "bytes", (json_int_t)a->log.broken));
    }
    *out = a;
    return OK;
}

void audit_close(struct audit *a)
{
    if (!a)
        return;
    audit_event(a, "stop", json_object());
    pthread_mutex_lock(&a->lock);
    a->closing = true;
    pthread_cond_signal(&a->more);
    pthread_mutex_unlock(&a->lock);
    pthread_join(a->thread, NULL);
    uint64_t left = a->queued + a->batch_records;
    if (left > 0)
        log_error("audit: %s: its last %llu records could not be written: %s", a->log.path,
                  (unsigned long long)left, a->why);
    for (struct audit_item *i = a->first, *next; i; i = next) {
        next = i->next;
        free(i);
    }
    pthread_cond_destroy(&a->more);
    pthread_mutex_destroy(&a->lock);
    release(a);
}

/* --- the queue --------------------------------------------------------------------------------
 */

static struct audit_item *make_item(const char *kind, json_t *fields)
{
    char *text = fields ? audit_canonical(fields) : NULL;
    char too_long[64];
    size_t len = text ? strlen(text) : 0;
    const char *put = text;
    if (!text) {
        put = "{\"error\":\"its fields could not be written as JSON\"}";
    } else if (len > AUDIT_MAX_FIELDS) {
        snprintf(too_long, sizeof too_long, "{\"error\":\"its fields took %zu bytes\"}", len);
        put = too_long;
    }
    len = strlen(put);
    struct audit_item *i = check_calloc(1, sizeof *i + len + 1);
    memcpy(i->fields, put, len + 1);
    snprintf(i->kind, sizeof i->kind, "%s", kind);
    i->bytes = sizeof *i + len + 1;
    free(text);
    json_decref(fields);
    return i;
}

static bool has_room(const struct audit *a, const struct audit_item *i)
{
    return a->queued < AUDIT_MAX_QUEUED && a->queued_bytes + i->bytes <= AUDIT_MAX_QUEUED_BYTES;
}

uint64_t audit_event(struct audit *a, const char *kind, json_t *fields)
{
    if (!a) {
        json_decref(fields);
        return 0;
    }
    size_t len = strlen(kind);
    CHECK(len > 0 && len <= AUDIT_MAX_KIND, "a kind of %zu bytes", len);
    struct audit_item *i = make_item(kind, fields);
    pthread_mutex_lock(&a->lock);
    bool taken = has_room(a, i);
    uint64_t ticket = AUDIT_LOST;
    if (taken) {
        i->at = now(a); /* under the lock: in the order of the records */
        ticket = i->ticket = ++a->tickets;
        a->queued++;
        a->queued_bytes += i->bytes;
        *a->end = i;
        a->end = &i->next;
        pthread_cond_signal(&a->more);
    }
    pthread_mutex_unlock(&a->lock);
    if (!taken) {
        atomic_fetch_add(&a->lost, 1);
        atomic_store(&a->overfull, true);
        free(i);
    }
    return ticket;
}

/* --- what others may ask ----------------------------------------------------------------------
 */

static bool stalls(const struct audit *a)
{
    int64_t since = atomic_load(&a->busy_ms);
    return since > 0 && clock_now_ns() / 1000000 - since > AUDIT_STALL_S * 1000;
}

static bool failing(const struct audit *a)
{
    return atomic_load(&a->failing) || atomic_load(&a->overfull) || stalls(a);
}

bool audit_is_durable(const struct audit *a, uint64_t ticket)
{
    if (!a || (ticket != AUDIT_LOST && ticket <= atomic_load(&a->durable)))
        return true;
    return a->on_error == AUDIT_CONTINUE && (ticket == AUDIT_LOST || failing(a));
}

enum status audit_admit(const struct audit *a, struct error *err)
{
    char why[sizeof a->why];
    if (!a || a->on_error == AUDIT_CONTINUE || !failing(a))
        return OK;
    pthread_mutex_lock((pthread_mutex_t *)&a->lock);
    memcpy(why, a->why, sizeof why);
    pthread_mutex_unlock((pthread_mutex_t *)&a->lock);
    return error_set(err, ERR_IO,
                     "the audit log cannot be written: %s; no request is answered until it can "
                     "(audit.on_error: refuse)",
                     *why && atomic_load(&a->failing) ? why
                     : stalls(a)                      ? "its disk does not answer"
                                                      : "more records wait than it has room for");
}

void audit_awake(struct audit *a)
{
    if (a)
        atomic_store(&a->woken, false);
}

bool audit_hmac_ids(const struct audit *a, const char *what, const int32_t *ids, int32_t count,
                    char hex[65])
{
    hex[0] = '\0';
    return a && a->has_hmac && audit_hmac(&a->hmac, what, ids, count, hex, NULL) == OK;
}

struct audit_figures audit_figures(const struct audit *a)
{
    if (!a)
        return (struct audit_figures){0};
    return (struct audit_figures){
        .records = atomic_load(&a->records),
        .lost = atomic_load(&a->lost),
        .heads_failed = atomic_load(&a->heads_failed),
        .failing = failing(a),
    };
}
