/* Arrays of token ids: see token_ids.h. */
#include "coordinator/text/token_ids.h"

#include <stdlib.h>
#include <string.h>

void token_ids_init(struct token_ids *ids, size_t limit)
{
    *ids = (struct token_ids){.limit = limit};
}

void token_ids_fini(struct token_ids *ids)
{
    free(ids->data);
    *ids = (struct token_ids){0};
}

void token_ids_clear(struct token_ids *ids)
{
    ids->len = 0;
}

enum status token_ids_append(struct token_ids *ids, const uint32_t *more, size_t count,
                             struct error *err)
{
    if (count > ids->limit || ids->len > ids->limit - count)
        return error_set(err, ERR_LIMIT, "more than %zu tokens", ids->limit);
    size_t need = ids->len + count;
    if (need > ids->cap) {
        size_t cap = ids->cap ? ids->cap : 64;
        while (cap < need)
            cap *= 2;
        uint32_t *p = cap <= SIZE_MAX / sizeof *p ? realloc(ids->data, cap * sizeof *p) : NULL;
        if (!p)
            return error_set(err, ERR_NO_MEMORY, "no memory for %zu tokens", cap);
        ids->data = p;
        ids->cap = cap;
    }
    if (count)
        memcpy(ids->data + ids->len, more, count * sizeof *more);
    ids->len = need;
    return OK;
}
