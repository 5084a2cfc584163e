/* Agreeing on an error: see comm_agree in transport.h. */
#include "transport/transport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum status comm_agree(struct comm *c, enum status mine, struct error *err)
{
    if (c->size == 1)
        return mine;
    struct error own = {.code = mine};
    if (mine != OK && err)
        own = *err;
    struct error *all = calloc((size_t)c->size, sizeof *all);
    if (!all) {
        c->ops->abort(c, "no memory to agree on an error");
        return error_set(err, ERR_NO_MEMORY, "no memory to agree on an error");
    }
    enum status st = c->ops->allgather(c, &own, sizeof own, all, err);
    for (int i = 0; st == OK && i < c->size; i++) {
        if (all[i].code == OK)
            continue;
        st = all[i].code;
        if (err)
            *err = all[i];
        if (i != c->rank)
            error_prefix(err, "rank %d: ", i);
    }
    free(all);
    return st;
}
