/* The coordinators to which a rank may attach: see addresses.h. */
#include "worker/control/addresses.h"

#include <stdio.h>
#include <string.h>

enum status addresses_init(struct addresses *a, const char *list, struct error *err)
{
    *a = (struct addresses){0};
    for (const char *s = list;; s++) {
        size_t len = strcspn(s, ",");
        if (len == 0 || len >= ADDRESSES_MAX_BYTES || a->count == ADDRESSES_MAX)
            return error_set(err, ERR_INVALID,
                             "--coordinator: expected 1 to %d addresses host:port with commas "
                             "between, found \"%.300s\"",
                             (int)ADDRESSES_MAX, list);
        memcpy(a->text[a->count++], s, len);
        s += len;
        if (!*s)
            return OK;
    }
}

enum status addresses_open(struct addresses *a, struct rpc *rpc, const struct rpc_tls *tls,
                           struct error *err)
{
    for (int i = 0; i < a->count; i++)
        TRY(rpc_channel_create(rpc, a->text[i], tls, &a->channels[i], err));
    return OK;
}

void addresses_fini(struct addresses *a)
{
    for (int i = 0; i < a->count; i++)
        rpc_channel_destroy(a->channels[i]);
    *a = (struct addresses){0};
}

void addresses_first(struct addresses *a)
{
    a->at = 0;
}

bool addresses_next(struct addresses *a)
{
    a->at += a->at < a->count;
    return a->at < a->count;
}

void addresses_end(struct addresses *a)
{
    a->at = a->count;
}

/* The last one, where none is left. */
static int shown_at(const struct addresses *a)
{
    return a->at < a->count ? a->at : a->count - 1;
}

const char *addresses_at(const struct addresses *a)
{
    return a->text[shown_at(a)];
}

struct rpc_channel *addresses_channel(const struct addresses *a)
{
    return a->channels[shown_at(a)];
}

void addresses_list(const struct addresses *a, char *out, size_t size)
{
    size_t n = 0;
    for (int i = 0; i < a->count && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%s", i > 0 ? ", " : "", a->text[i]);
}
