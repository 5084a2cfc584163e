/* A growable array of token ids with a limit given at creation. Owned by one thread at a time. */
#ifndef WITAN_COORDINATOR_TEXT_TOKEN_IDS_H
#define WITAN_COORDINATOR_TEXT_TOKEN_IDS_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct token_ids {
    uint32_t *data; /* owned; NULL until the first append */
    size_t len;
    size_t cap;
    size_t limit; /* len never passes it */
};

void token_ids_init(struct token_ids *ids, size_t limit);
void token_ids_fini(struct token_ids *ids);
void token_ids_clear(struct token_ids *ids); /* keeps the memory */

/* ERR_LIMIT past the limit, ERR_NO_MEMORY without memory; changes nothing then. */
enum status token_ids_append(struct token_ids *ids, const uint32_t *more, size_t count,
                             struct error *err);

#endif
