/* Inside the datasets: see load_dataset.h. What files say is read in load_dataset_file.c, what is
 * made up is in load_dataset.c. */
#ifndef WITAN_CLI_LOAD_DATASET_PRIVATE_H
#define WITAN_CLI_LOAD_DATASET_PRIVATE_H

#include "cli/load_dataset.h"
#include "coordinator/text/token_ids.h"
#include "coordinator/text/tokenizer.h"

/* One request of a file. */
struct load_entry {
    json_t *line; /* owned; of prompts */
    const char *text;
    size_t text_len;
    const json_t *messages;
    int32_t input, output; /* tokens; 0: not known */
    int64_t at_ns;
    size_t hash_at, hash_count; /* of d->hashes */
};

struct load_dataset {
    struct load_dataset_options o;
    char words[200];
    struct load_entry *entries; /* [count], of [cap] */
    size_t count, cap, skipped;
    json_t *root; /* of sharegpt */
    int64_t *hashes;
    size_t hash_count, hash_cap;
    struct tokenizer_scratch *scratch;
    int32_t *pool; /* ids that may be drawn; NULL: all below pool_count */
    int32_t pool_count;
    int32_t *ids; /* [id_cap] of the request at hand, and its text */
    int32_t id_cap;
    struct buf text;
};

/* Parses the file's text into entries. */
enum status load_dataset_read(struct load_dataset *d, const char *what, const char *text,
                              size_t len, struct error *err);

#endif
