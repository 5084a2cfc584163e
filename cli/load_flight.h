/*
 * One request on its way: what the loop that drives a load (load_drive.h) and the client that
 * carries it (load_http.h, load_grpc.h) share. The client owns it from start() to
 * load_flight_end(), which any thread may call.
 */
#ifndef WITAN_CLI_LOAD_FLIGHT_H
#define WITAN_CLI_LOAD_FLIGHT_H

#include "cli/load_dataset.h"
#include "cli/load_record.h"

enum { LOAD_MAX_CHUNKS = 1 << 22 }; /* of one answer */

/* How a request that failed begins its `error`, up to the colon. */
#define LOAD_REFUSED "refused"   /* and 429 or 503: the server is full or not ready, and says so */
#define LOAD_ANSWERED "answered" /* and another status: it takes the request for wrong */
#define LOAD_FAILED "failed"     /* an error in the middle of the answer */
#define LOAD_LOST "lost"         /* the connection ended under it */
#define LOAD_UNREACHABLE "unreachable" /* there never was a connection */
#define LOAD_TIMEOUT "timeout"
#define LOAD_MALFORMED "malformed" /* the answer breaks HTTP, JSON or the API */
#define LOAD_INTERRUPTED "interrupted"

struct load_drive;

struct load_flight {
    struct load_record record;
    int64_t *chunk_ns; /* [chunk_cap], becomes the record's */
    int32_t chunk_cap;
    double retry_after_s; /* -1: not said */
    void *call;           /* the client's */
    /* The loop's. */
    struct load_drive *drive;
    struct load_flight *next;           /* of those that have ended */
    struct load_flight *after, *before; /* of those on their way */
    struct event *timeout;
    int32_t slot;
};

/* A client is called on the loop's thread. Every flight that start() got ends once by
 * load_flight_end, from the client's own events or threads; `request` is gone when start() returns.
 */
struct load_client {
    void (*start)(struct load_client *c, struct load_flight *f, const struct load_request *request);
    /* It is to end soon, failed by this kind, with these words; it may just have ended. */
    void (*cancel)(struct load_client *c, struct load_flight *f, const char *kind,
                   const char *words);
    /* It has ended: `call` may go. NULL: nothing to do. */
    void (*release)(struct load_client *c, struct load_flight *f);
    int32_t most; /* flights at once */
};

/* A piece of the answer with tokens came. */
void load_flight_chunk(struct load_flight *f, int64_t now_ns);
/* Gives the record its error, `kind` first; the first one stays. */
void load_flight_fail(struct load_flight *f, const char *kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The client has done with it. */
void load_flight_end(struct load_flight *f);

#endif
