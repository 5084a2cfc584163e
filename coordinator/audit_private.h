/* What the files behind audit.h share: the queue (audit.c), the files (audit_open.c), the writer
 * (audit_write.c). */
#ifndef WITAN_COORDINATOR_AUDIT_PRIVATE_H
#define WITAN_COORDINATOR_AUDIT_PRIVATE_H

#include "coordinator/audit.h"
#include "coordinator/audit_keys.h"
#include "coordinator/audit_line.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    AUDIT_BATCH_BYTES = 1 << 20, /* of records made durable together, and one more */
    AUDIT_RETRY_MS = 1000,
    AUDIT_JUMP_MS = 2000, /* the wall clock may leave the other one by so much */
};

/* A record that waits. */
struct audit_item {
    struct audit_item *next;
    struct audit_time at;
    uint64_t ticket;
    size_t bytes; /* of all of it */
    char kind[AUDIT_MAX_KIND + 1];
    char fields[];
};

/* One of the two files: opened and locked. */
struct audit_file {
    char *path;
    int fd;         /* -1: none */
    int64_t size;   /* of what is whole and durable */
    int64_t broken; /* bytes behind that, cut off when it was opened */
};

/* The last record of a file. */
struct audit_last {
    struct audit_chain chain; /* of the record after it */
    char id[33];              /* of the chain, where the last is a head; else "" */
    int64_t seq, wall_ms;     /* -1: there is none */
};

struct audit {
    int32_t head_s;
    enum audit_on_error on_error;
    void (*wake)(void *arg);
    void *wake_arg;
    void (*now)(struct audit_time *out);
    int64_t started_ms; /* of the clock that only grows */
    struct audit_signer *signer;
    bool has_hmac;
    struct audit_hmac_key hmac;

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    /* under the lock */
    struct audit_item *first, **end;
    uint32_t queued;
    size_t queued_bytes;
    uint64_t tickets;
    bool closing;
    char why[512]; /* it fails */

    atomic_uint_fast64_t durable; /* tickets up to here are */
    atomic_uint_fast64_t records, lost, heads_failed;
    atomic_bool failing, overfull, woken;
    atomic_int_fast64_t busy_ms; /* since when the writer is at the files; 0: it is not */

    /* The writer's own. */
    struct audit_file log, heads;
    struct audit_chain chain;
    struct audit_time last; /* of the record before; wall_ms -1: none of this process */
    int64_t head_ms;        /* of the last head */
    bool fresh;             /* records have come since it */
    char chain_id[33];
    struct buf batch; /* lines to be made durable */
    struct buf head;  /* of these, the head, for the second file */
    uint64_t batch_ticket, batch_records, told_lost;
    int64_t alarm_ms, heads_alarm_ms;
};

/* --- audit_open.c --- */

/* Opens, or makes, and locks a file; its broken end is cut off, and *last read. */
enum status audit_file_open(const char *key, const char *path, struct audit_file *f,
                            struct audit_last *last, struct error *err);
void audit_file_close(struct audit_file *f);

/* Writes behind what is durable, and makes it so. On failure the file is cut back. */
enum status audit_file_append(struct audit_file *f, const char *data, size_t len,
                              struct error *err);

/* --- audit_write.c --- */

void *audit_writer(void *audit);

#endif
