/*
 * A record of the audit log, as a line:
 *
 *   {"fields":{...},"kind":"request_start","mono_ms":81,"prev":"<64
 * hex>","seq":2,"time":"2026-01-31T12:00:00.000Z"}
 *
 * Canonical JSON: keys in order at every depth, no white space, numbers as jansson writes them with
 * 9 digits. `prev` is the SHA-256 of the line before, without its newline; of the first, whose kind
 * is "chain" and whose `seq` is 0, it is zeros. `mono_ms` counts from the process's start. No
 * state; any thread.
 */
#ifndef WITAN_COORDINATOR_AUDIT_LINE_H
#define WITAN_COORDINATOR_AUDIT_LINE_H

#include "base/buf.h"
#include "base/json.h"
#include "coordinator/audit.h"
#include "partition/hash.h"

enum {
    AUDIT_FORMAT = 1,
    AUDIT_MAX_LINE = 64 << 10, /* bytes, without the newline */
    AUDIT_MAX_KIND = 31,
    AUDIT_DIGEST_HEX = 64,
    AUDIT_TIME_BYTES = 24, /* "2026-01-31T12:00:00.000Z" */
};

/* Where a chain is: the next record's seq and prev. All zero: before the first. */
struct audit_chain {
    int64_t seq;
    struct digest prev;
};

/* Appends a record and its newline to `out` and moves the chain on. `fields`: canonical text of an
 * object. ERR_NO_MEMORY, ERR_LIMIT: nothing changed. */
enum status audit_line_write(struct audit_chain *c, const char *kind, const char *fields,
                             const struct audit_time *at, struct buf *out, struct error *err);

/* Canonical text of an object, to free(); NULL without memory. */
char *audit_canonical(const json_t *object);

struct audit_record {
    json_t *root; /* owned: json_decref */
    const json_t *fields;
    const char *kind, *time;
    int64_t seq, mono_ms, wall_ms;
    struct digest prev, own; /* own: of this line */
};

/* Is this line a record, letter for letter as this release would write it? ERR_INVALID says what is
 * not; `what` names it. */
enum status audit_line_read(const char *what, const char *line, size_t len,
                            struct audit_record *out, struct error *err);

/* What the signature of a head covers: the record's text without fields.signature, behind a line
 * that says what it is. To free(); NULL without memory. */
char *audit_head_text(const json_t *root);

void audit_hex(const struct digest *d, char hex[AUDIT_DIGEST_HEX + 1]);

#endif
