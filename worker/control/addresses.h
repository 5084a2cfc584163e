/*
 * The coordinators to which a rank may attach, in the order in which it tries them, and a channel
 * to each. All ranks of a job have the same list and begin with its first, so that they meet at
 * one.
 *
 * Used by one thread at a time; others may read addresses_at while a stream to it is open.
 */
#ifndef WITAN_WORKER_CONTROL_ADDRESSES_H
#define WITAN_WORKER_CONTROL_ADDRESSES_H

#include "base/error.h"
#include "proto/rpc.h"

enum {
    ADDRESSES_MAX = 8,
    ADDRESSES_MAX_BYTES = 300, /* of one */
};

struct addresses {
    int count, at; /* `at` == count: all have been tried */
    char text[ADDRESSES_MAX][ADDRESSES_MAX_BYTES];
    struct rpc_channel *channels[ADDRESSES_MAX]; /* NULL until addresses_open */
};

/* "host:port", or several with commas between. At the first one. ERR_INVALID says what is expected;
 * whether each is an address, addresses_open says. */
enum status addresses_init(struct addresses *a, const char *list, struct error *err);
/* Makes the channels, which connect when they are used. On failure addresses_fini releases. */
enum status addresses_open(struct addresses *a, struct rpc *rpc, const struct rpc_tls *tls,
                           struct error *err);
/* After all calls have closed. Of a zeroed struct nothing. */
void addresses_fini(struct addresses *a);

/* Back to the first. */
void addresses_first(struct addresses *a);
/* On to the next one; false: there is none. */
bool addresses_next(struct addresses *a);
/* That none is left until addresses_first: what follows is a new round. */
void addresses_end(struct addresses *a);

const char *addresses_at(const struct addresses *a);
struct rpc_channel *addresses_channel(const struct addresses *a);
/* All of them, "A, B", into out[size]; cut where they are too long. */
void addresses_list(const struct addresses *a, char *out, size_t size);

#endif
