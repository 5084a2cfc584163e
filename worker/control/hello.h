/* What a rank says of itself and its host in its first message. */
#ifndef WITAN_WORKER_CONTROL_HELLO_H
#define WITAN_WORKER_CONTROL_HELLO_H

#include "transport/transport.h"
#include "worker/control/attach.h"

/* The message and what it points to. */
struct hello {
    Witan__Cluster__V1__Hello message;
    Witan__Cluster__V1__Hardware hardware;
    Witan__Cluster__V1__Device device;
    char processor[128];
    char class[32];
};

/* The options' texts must outlive it. Do not copy it. */
enum status hello_fill(const struct attach_options *o, struct hello *out, struct error *err);

enum { HOST_NAME_BYTES = 256 };

/* Collective: this host's name, how many of the job's ranks run here, and how many of these come
 * before this one. */
enum status host_ranks(struct comm *world, char host[HOST_NAME_BYTES], int *ranks_here,
                       int *rank_here, struct error *err);

#endif
