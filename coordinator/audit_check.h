/*
 * Verifying an audit log: each line a record, each record the next of the one before, each head
 * signed by a trusted key, each head of the second file where it belongs. Says where a record was
 * removed, changed, moved or put in. One thread; needs nothing of a coordinator.
 *
 * What one line alone cannot tell its neighbours do: a record whose hash the next one does not name
 * was changed if that next one is named by the one after it; a line that does not follow where its
 * successor does was put in. So each line is judged when the next one is known.
 */
#ifndef WITAN_COORDINATOR_AUDIT_CHECK_H
#define WITAN_COORDINATOR_AUDIT_CHECK_H

#include "coordinator/audit_keys.h"
#include "coordinator/audit_line.h"

enum { AUDIT_MAX_HEADS = 4 << 20 }; /* of a second file: 8 years of one a minute */

struct audit_finding {
    int64_t line; /* of the log, from 1; of the second file where `heads` */
    int64_t seq;  /* of the record that is meant; -1: it has none */
    bool heads;
    const char *what;
};

struct audit_summary {
    int64_t lines, last_seq;
    char chain[33];
    char last_time[AUDIT_TIME_BYTES + 1];
    int64_t heads, signed_heads; /* in the log; of these, with a signature of a trusted key */
    int64_t unsigned_since;      /* records behind the last head */
    int64_t second_heads;        /* of the second file, found where they belong */
    int64_t findings;
};

struct audit_check;

/* `trust` NULL: signatures are not looked at. Both outlive the check. */
enum status audit_check_begin(const struct audit_trust *trust,
                              void (*tell)(void *arg, const struct audit_finding *f), void *arg,
                              struct audit_check **out, struct error *err);

/* First the lines of the second file, if there is one, then those of the log; without their
 * newlines. `whole`: a newline was there. */
enum status audit_check_second(struct audit_check *c, const char *line, size_t len, bool whole,
                               struct error *err);
void audit_check_line(struct audit_check *c, const char *line, size_t len, bool whole);

/* The end of the log; releases the check. NULL is fine. */
void audit_check_end(struct audit_check *c, struct audit_summary *out);

/* All of it, of files. A finding is no error; a file that cannot be read is. */
enum status audit_verify(const char *file, const char *heads, const struct audit_trust *trust,
                         void (*tell)(void *arg, const struct audit_finding *f), void *arg,
                         struct audit_summary *out, struct error *err);

/* Calls fn for each line of a file, until it does not return OK. */
enum status audit_each_line(const char *path,
                            enum status (*fn)(void *arg, const char *line, size_t len, bool whole,
                                              struct error *err),
                            void *arg, struct error *err);

#endif
