/*
 * The audit log: an append-only file of records, each a line of canonical JSON that names the
 * SHA-256 of the line before (audit_line.h has the format, docs/audit.md all that is recorded). Who
 * asked for what, when, on which weights and hosts, and what the operators did; no text and no
 * token ids, ever.
 *
 * One thread of its own writes: records wait in a bounded queue, and all that wait are made durable
 * together. Every `head_s` seconds and at the end a record signed with `key` fixes all before it,
 * and goes to a second file too, which may lie elsewhere. What cannot be written is tried again
 * each second and never lost in silence: `on_error` says whether requests go on meanwhile.
 *
 * NULL stands for "no audit" in every function. audit_event from any thread; open and close from
 * one.
 */
#ifndef WITAN_COORDINATOR_AUDIT_H
#define WITAN_COORDINATOR_AUDIT_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct audit;

enum audit_on_error {
    AUDIT_REFUSE,   /* requests that cannot be recorded are not served */
    AUDIT_CONTINUE, /* they are, and what is lost is counted and told */
};

enum {
    AUDIT_MAX_QUEUED = 65536, /* records */
    AUDIT_MAX_QUEUED_BYTES = 64 << 20,
    AUDIT_MAX_FIELDS = 32 << 10, /* bytes of a record's fields */
    AUDIT_STALL_S = 10,          /* a write that takes so long counts as failed */
    AUDIT_ALARM_S = 30,          /* while it fails, a line of the log each so often */
};

/* Wall clock in milliseconds since 1970 (UTC), and one that only grows. */
struct audit_time {
    int64_t wall_ms, mono_ms;
};

struct audit_options {
    const char *file;     /* made with mode 0640; continued where it is there */
    const char *key;      /* Ed25519, PEM (`witan manifest keygen`): signs heads */
    const char *heads;    /* the second file; NULL: none */
    const char *hmac_key; /* of audit_hmac_ids (`witan audit hmac-key`); NULL: none */
    const char *name;     /* of the cluster */
    int32_t head_s;
    enum audit_on_error on_error;
    /* From the writer's thread, once until audit_awake: records have become durable, or the log has
     * failed or come back. May be NULL. */
    void (*wake)(void *arg);
    void *wake_arg;
    void (*now)(struct audit_time *out); /* NULL: the system's clocks */
};

/*
 * Opens, locks and continues the log; starts the writer. A record that broke off (a crash) is cut
 * off, which is recorded. Refuses, naming file and reason: a file that another process writes, a
 * last line that is no record, a log that ends before a head in the second file, a key that others
 * can read.
 */
enum status audit_open(const struct audit_options *o, struct audit **out, struct error *err);
/* Writes what waits, with a record `stop` and a head behind it, and ends the writer. */
void audit_close(struct audit *a);

/*
 * Records something that has happened. `kind`: 1 to 31 of a-z, 0-9 and '_'. `fields`: an object,
 * taken over; NULL, which json_pack gives for what is no UTF-8, is recorded as such. Never waits.
 * Returns a ticket for audit_is_durable; AUDIT_LOST where the queue is full: counted and told.
 */
#define AUDIT_LOST UINT64_MAX
uint64_t audit_event(struct audit *a, const char *kind, json_t *fields);

/* May what depends on this record be told? Yes once it is on disk; with AUDIT_CONTINUE also while
 * the log fails. */
bool audit_is_durable(const struct audit *a, uint64_t ticket);

/* ERR_IO, with what is wrong and what to do: the log fails and requests are to be refused. */
enum status audit_admit(const struct audit *a, struct error *err);

/* Of options.wake: the next change calls it again. */
void audit_awake(struct audit *a);

/* HMAC-SHA256 of token ids, in hex, with the auditor's key; `what`: "prompt" or "output". False:
 * there is no key, and hex is "". */
bool audit_hmac_ids(const struct audit *a, const char *what, const int32_t *ids, int32_t count,
                    char hex[65]);

struct audit_figures {
    uint64_t records;      /* durable, of this process */
    uint64_t lost;         /* records that the queue had no room for, or that were never written */
    uint64_t heads_failed; /* heads that the second file did not take */
    bool failing;
};
struct audit_figures audit_figures(const struct audit *a);

#endif
