/*
 * What a load asks: made up by chance, or read from a file. Requests are numbered; the same number
 * of the same dataset and seed is the same request. Nothing is guessed: a line of a file that is
 * not as it should be is an error that names it and its field. One thread at a time.
 */
#ifndef WITAN_CLI_LOAD_DATASET_H
#define WITAN_CLI_LOAD_DATASET_H

#include "base/error.h"
#include "cli/load_random.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tokenizer;

enum load_input { LOAD_IDS, LOAD_TEXT, LOAD_MESSAGES };

struct load_request {
    enum load_input input;
    const int32_t *ids; /* [id_count] */
    int32_t id_count;
    const char *text; /* [text_len] */
    size_t text_len;
    const json_t *messages;
    int32_t input_tokens; /* 0: not known */
    int32_t max_tokens;   /* 0: the server's default */
};

enum load_dataset_kind { LOAD_RANDOM, LOAD_SHAREGPT, LOAD_TRACE, LOAD_PROMPTS };

enum {
    LOAD_MAX_ENTRIES = 1 << 20,
    LOAD_MAX_LINE = 64 << 20,
    LOAD_MAX_FILE = 1 << 30,
    LOAD_MAX_HASHES = 1 << 16, /* of a line */
};

struct load_dataset_options {
    enum load_dataset_kind kind;
    const char *path;
    const struct tokenizer *tokenizer; /* NULL: none; borrowed */
    bool as_text;                      /* random and trace: words in place of ids */
    int32_t vocabulary;                /* ids are below it; where there is no tokenizer */
    struct load_length input, output;
    bool has_output;       /* `output` is used in place of the file's lengths */
    int32_t prefix_tokens; /* random: shared by the requests of a group */
    int32_t prefix_groups;
    int32_t block_tokens; /* trace: of one hash id */
    bool messages;        /* prompts and sharegpt: as a conversation */
    uint64_t seed;
};

struct load_dataset;

/* Reads the whole file, where there is one. */
enum status load_dataset_open(const struct load_dataset_options *o, struct load_dataset **out,
                              struct error *err);
/* The same of a file's text in memory; `what` names it in messages. */
enum status load_dataset_parse(const struct load_dataset_options *o, const char *what,
                               const char *text, size_t len, struct load_dataset **out,
                               struct error *err);
void load_dataset_destroy(struct load_dataset *d); /* NULL is fine */

/* Requests of the file, 0 where there is none and requests never end; and conversations of a
 * sharegpt file that are left out, since nobody asks in them or nobody answers. */
size_t load_dataset_count(const struct load_dataset *d);
size_t load_dataset_skipped(const struct load_dataset *d);

/* One line for reports: "random, input 512, output uniform:64:128". */
const char *load_dataset_words(const struct load_dataset *d);

/* When a trace's request came, since its first. */
int64_t load_dataset_at_ns(const struct load_dataset *d, size_t index);

/* Where there is no tokenizer: ids are below `count` from here on. */
void load_dataset_set_vocabulary(struct load_dataset *d, int32_t count);

/* What is made up from here on is another seed's. */
void load_dataset_reseed(struct load_dataset *d, uint64_t seed);

/* Request `index`, modulo a file's count. `warm_up`: one for warming up, which shares no prompt
 * with the others where prompts are made up. *out points into `d` until the next call. */
void load_dataset_get(struct load_dataset *d, size_t index, bool warm_up, struct load_request *out);

#endif
