/*
 * The audit log's writer, a thread of its own: takes what waits, writes it as lines, makes a batch
 * of them durable at once, and tells. A batch that cannot be written stays as it is and is tried
 * again; meanwhile the queue grows, up to its bounds. See audit_private.h.
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/audit_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t mono_now_ms(void)
{
    return clock_now_ns() / 1000000;
}

/* Waits for records, at most a second. NULL: there are none. */
static struct audit_item *take_all(struct audit *a, bool *closing)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec++;
    pthread_mutex_lock(&a->lock);
    int late = 0;
    while (!a->first && !a->closing && late == 0)
        late = pthread_cond_timedwait(&a->more, &a->lock, &until);
    struct audit_item *items = a->first;
    a->first = NULL;
    a->end = &a->first;
    a->queued = 0;
    a->queued_bytes = 0;
    *closing = a->closing;
    pthread_mutex_unlock(&a->lock);
    return items;
}

/* What did not fit into the batch goes first the next time. */
static void put_back(struct audit *a, struct audit_item *items)
{
    uint32_t count = 0;
    size_t bytes = 0;
    struct audit_item **end = &items;
    for (; *end; end = &(*end)->next) {
        count++;
        bytes += (*end)->bytes;
    }
    if (count == 0)
        return;
    pthread_mutex_lock(&a->lock);
    *end = a->first;
    a->end = a->first ? a->end : end;
    a->first = items;
    a->queued += count;
    a->queued_bytes += bytes;
    pthread_mutex_unlock(&a->lock);
}

/* --- lines ------------------------------------------------------------------------------------
 */

static void add_line(struct audit *a, const char *kind, const char *fields,
                     const struct audit_time *at)
{
    struct error err;
    enum status st = audit_line_write(&a->chain, kind, fields, at, &a->batch, &err);
    CHECK(st == OK, "a record of the audit log: %s", err.msg);
    a->batch_records++;
    a->last = *at;
    a->fresh = true;
}

/* The clock that people read has left the one that only grows, or runs behind the record before. */
static void note_clock(struct audit *a, const struct audit_time *at)
{
    char fields[160];
    if (a->last.wall_ms < 0)
        return;
    bool same_start = a->last.mono_ms >= 0;
    int64_t wall = at->wall_ms - a->last.wall_ms;
    int64_t drift = same_start ? wall - (at->mono_ms - a->last.mono_ms) : wall < 0 ? wall : 0;
    if (drift >= -AUDIT_JUMP_MS && drift <= AUDIT_JUMP_MS)
        return;
    snprintf(fields, sizeof fields, "{\"drift_ms\":%lld,\"wall_ms\":%lld}", (long long)drift,
             (long long)wall);
    log_warn("audit: the clock has jumped by %lld ms", (long long)drift);
    add_line(a, "clock", fields, at);
}

static void note_lost(struct audit *a, const struct audit_time *at)
{
    char fields[64];
    uint64_t lost = atomic_load(&a->lost);
    if (lost == a->told_lost)
        return;
    snprintf(fields, sizeof fields, "{\"records\":%llu}",
             (unsigned long long)(lost - a->told_lost));
    a->told_lost = lost;
    add_line(a, "lost", fields, at);
}

/* Fixes all before it with a signature, which covers all of this record too. */
static void add_head(struct audit *a)
{
    struct audit_time at;
    struct error err;
    char signature[AUDIT_SIGNATURE_TEXT + 1];
    a->now(&at);
    at.mono_ms -= a->started_ms;
    note_clock(a, &at);
    struct audit_chain before = a->chain;
    json_t *f = json_pack("{s:s, s:s}", "chain", a->chain_id, "key", audit_signer_id(a->signer));
    char *fields = f ? audit_canonical(f) : NULL;
    buf_clear(&a->head);
    CHECK(fields && audit_line_write(&before, "head", fields, &at, &a->head, &err) == OK,
          "no memory for a head");
    json_t *root = json_loadb(a->head.data, a->head.len - 1, 0, NULL);
    char *text = root ? audit_head_text(root) : NULL;
    CHECK(text && audit_sign(a->signer, text, signature, &err) == OK, "a head is not signed");
    json_object_set_new(f, "signature", json_string(signature));
    free(fields);
    fields = audit_canonical(f);
    CHECK(fields, "no memory for a head");
    size_t from = a->batch.len;
    add_line(a, "head", fields, &at);
    buf_clear(&a->head);
    CHECK(buf_append(&a->head, a->batch.data + from, a->batch.len - from, &err) == OK, "%s",
          err.msg);
    a->head_ms = mono_now_ms();
    a->fresh = false;
    free(text);
    free(fields);
    json_decref(root);
    json_decref(f);
}

/* Of what waits as much as one batch holds. */
static void fill_batch(struct audit *a, struct audit_item *items)
{
    while (items && a->batch.len < AUDIT_BATCH_BYTES) {
        struct audit_item *i = items;
        note_clock(a, &i->at);
        note_lost(a, &i->at);
        add_line(a, i->kind, i->fields, &i->at);
        a->batch_ticket = i->ticket;
        items = i->next;
        free(i);
    }
    put_back(a, items);
}

/* --- making it durable ------------------------------------------------------------------------
 */

static void wake(struct audit *a)
{
    if (a->wake && !atomic_exchange(&a->woken, true))
        a->wake(a->wake_arg);
}

static void alarm_of(struct audit *a, const struct error *err)
{
    int64_t now = mono_now_ms();
    bool first = !atomic_load(&a->failing);
    pthread_mutex_lock(&a->lock);
    snprintf(a->why, sizeof a->why, "%.500s", err->msg);
    pthread_mutex_unlock(&a->lock);
    atomic_store(&a->failing, true);
    if (!first && now - a->alarm_ms < AUDIT_ALARM_S * 1000)
        return;
    a->alarm_ms = now;
    log_error("AUDIT: the log cannot be written: %s: %s; %llu records are lost so far. Make room "
              "there; it is tried again each second",
              err->msg,
              a->on_error == AUDIT_REFUSE ? "no request is answered (audit.on_error: refuse)"
                                          : "requests go on unrecorded (audit.on_error: continue)",
              (unsigned long long)atomic_load(&a->lost));
    wake(a);
}

/* The second place: what it misses the log still has. */
static void send_head(struct audit *a)
{
    struct error err;
    int64_t now = mono_now_ms();
    if (a->head.len == 0)
        return;
    if (a->heads.fd >= 0 && audit_file_append(&a->heads, a->head.data, a->head.len, &err) != OK) {
        if (atomic_fetch_add(&a->heads_failed, 1) == 0 ||
            now - a->heads_alarm_ms > AUDIT_ALARM_S * 1000) {
            a->heads_alarm_ms = now;
            log_error("AUDIT: a signed head did not reach the second file: %s", err.msg);
        }
    }
    buf_clear(&a->head);
}

/* True: nothing is left in the batch. */
static bool commit(struct audit *a)
{
    struct error err;
    if (a->batch.len == 0)
        return true;
    atomic_store(&a->busy_ms, mono_now_ms());
    enum status st = audit_file_append(&a->log, a->batch.data, a->batch.len, &err);
    if (st == OK) {
        atomic_fetch_add(&a->records, a->batch_records);
        a->batch_records = 0;
        buf_clear(&a->batch);
        if (atomic_exchange(&a->failing, false))
            log_warn("audit: %s is written again", a->log.path);
        atomic_store(&a->overfull, false);
        atomic_store(&a->durable, a->batch_ticket);
        wake(a);
        send_head(a);
    } else {
        alarm_of(a, &err);
    }
    atomic_store(&a->busy_ms, 0);
    return st == OK;
}

static bool head_is_due(const struct audit *a, bool closing)
{
    return a->fresh && (closing || mono_now_ms() - a->head_ms >= (int64_t)a->head_s * 1000);
}

/* The first head comes with the first records. */
void *audit_writer(void *audit)
{
    struct audit *a = audit;
    const struct timespec retry = {.tv_sec = AUDIT_RETRY_MS / 1000,
                                   .tv_nsec = AUDIT_RETRY_MS % 1000 * 1000000L};
    a->head_ms = mono_now_ms() - (int64_t)a->head_s * 1000;
    for (bool closing = false;;) {
        if (!commit(a)) {
            pthread_mutex_lock(&a->lock);
            closing = a->closing;
            pthread_mutex_unlock(&a->lock);
            if (closing)
                return NULL; /* audit_close says what is left */
            nanosleep(&retry, NULL);
            continue;
        }
        struct audit_item *items = take_all(a, &closing);
        bool more = items != NULL;
        fill_batch(a, items);
        if (head_is_due(a, closing && !more))
            add_head(a);
        if (closing && !more && a->batch.len == 0)
            return NULL;
    }
}
