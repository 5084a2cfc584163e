/*
 * What a group has said of a request whose start is not in the audit log yet: kept, in order, until
 * it may be told. Owned by its generation, on the loop thread.
 */
#ifndef WITAN_COORDINATOR_DRAWN_H
#define WITAN_COORDINATOR_DRAWN_H

#include "coordinator/members.h"

struct drawn_copy {
    struct drawn_copy *next;
    struct drawn d; /* its arrays lie behind it */
};

struct drawn_queue {
    struct drawn_copy *first, *last;
};

void drawn_keep(struct drawn_queue *q, const struct drawn *d);
/* The oldest, to be free()d; NULL: none is left. */
struct drawn_copy *drawn_next(struct drawn_queue *q);
void drawn_clear(struct drawn_queue *q);

#endif
