/* Requests by their numbers: see load_dataset.h. */
#include "cli/load_dataset_private.h"

#include "base/check.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT_BYTES = 64 << 20 };

/* Streams of chance, each with numbers of its own. */
static const uint64_t REQUESTS = 0, WARM_UPS = 1, PREFIXES = 2, BLOCKS = 3;

static struct load_rng stream(const struct load_dataset *d, uint64_t kind, uint64_t number)
{
    struct load_rng r;
    load_rng_init(&r, d->o.seed ^ kind << 60, number);
    return r;
}

/* --- which ids may be drawn --------------------------------------------------------------------
 */

/* A space and letters: such tokens stay what they are when their texts stand side by side, if each
 * alone is one token. */
static bool is_word(const struct load_dataset *d, uint32_t id)
{
    const char *bytes;
    size_t len;
    struct token_ids ids;
    if (tokenizer_token_bytes(d->o.tokenizer, id, &bytes, &len, NULL) != OK || len < 3 ||
        len > 24 || *bytes != ' ')
        return false;
    for (size_t i = 1; i < len; i++)
        if (!isascii(bytes[i]) || !isalpha((unsigned char)bytes[i]))
            return false;
    token_ids_init(&ids, 64);
    bool one = tokenizer_encode(d->o.tokenizer, d->scratch, bytes, len, TOKENIZER_PLAIN, &ids,
                                NULL) == OK &&
               ids.len == 1 && ids.data[0] == id;
    token_ids_fini(&ids);
    return one;
}

static enum status fill_pool(struct load_dataset *d, struct error *err)
{
    const struct tokenizer *tok = d->o.tokenizer;
    d->pool_count = d->o.vocabulary;
    if (!tok)
        return d->o.as_text ? error_set(err, ERR_INVALID, "prompts of words need a tokenizer") : OK;
    uint32_t size = tokenizer_vocab_size(tok);
    d->pool = check_calloc(size, sizeof *d->pool);
    d->pool_count = 0;
    for (uint32_t id = 0; id < size; id++)
        if (d->o.as_text ? is_word(d, id) : !tokenizer_is_special(tok, id))
            d->pool[d->pool_count++] = (int32_t)id;
    return d->pool_count >= 16
               ? OK
               : error_set(err, ERR_UNSUPPORTED,
                           "the tokenizer has %d words of plain letters: too few for prompts",
                           (int)d->pool_count);
}

/* --- opening -----------------------------------------------------------------------------------
 */

static bool made_up(const struct load_dataset *d)
{
    return d->o.kind == LOAD_RANDOM || d->o.kind == LOAD_TRACE;
}

static void length_words(const struct load_length *l, char *out, size_t size)
{
    static const char *const names[] = {"", "uniform:", "normal:", "lognormal:"};
    if (l->kind == LOAD_LENGTH_FIXED)
        snprintf(out, size, "%.0f", l->a);
    else
        snprintf(out, size, "%s%g:%g", names[l->kind], l->a, l->b);
}

static void write_words(struct load_dataset *d)
{
    static const char *const names[] = {"random", "sharegpt", "trace", "prompts"};
    char input[48], output[48], prefix[64] = "";
    const char *name = d->o.path ? strrchr(d->o.path, '/') : NULL;
    name = name ? name + 1 : d->o.path ? d->o.path : "";
    length_words(&d->o.input, input, sizeof input);
    length_words(&d->o.output, output, sizeof output);
    if (d->o.kind == LOAD_RANDOM) {
        if (d->o.prefix_tokens > 0)
            snprintf(prefix, sizeof prefix, ", prefix %d of %d groups", (int)d->o.prefix_tokens,
                     (int)d->o.prefix_groups);
        snprintf(d->words, sizeof d->words, "random%s, input %s, output %s%s",
                 d->o.as_text ? " words" : " ids", input, output, prefix);
        return;
    }
    snprintf(d->words, sizeof d->words, "%s %.80s, %zu requests%s%s", names[d->o.kind], name,
             d->count, d->o.has_output ? ", output " : "", d->o.has_output ? output : "");
}

enum status load_dataset_parse(const struct load_dataset_options *o, const char *what,
                               const char *text, size_t len, struct load_dataset **out,
                               struct error *err)
{
    struct load_dataset *d = check_calloc(1, sizeof *d);
    d->o = *o;
    buf_init(&d->text, MAX_TEXT_BYTES);
    enum status st = OK;
    if (o->tokenizer)
        st = tokenizer_scratch_create(o->tokenizer, &d->scratch, err);
    if (st == OK && made_up(d))
        st = fill_pool(d, err);
    if (st == OK && o->kind != LOAD_RANDOM)
        st = load_dataset_read(d, what, text, len, err);
    if (st != OK) {
        load_dataset_destroy(d);
        return st;
    }
    write_words(d);
    *out = d;
    return OK;
}

enum status load_dataset_open(const struct load_dataset_options *o, struct load_dataset **out,
                              struct error *err)
{
    char *text = NULL;
    size_t len = 0;
    if (o->kind != LOAD_RANDOM)
        TRY(file_read_all(o->path, LOAD_MAX_FILE, &text, &len, err));
    enum status st = load_dataset_parse(o, o->path, text, len, out, err);
    free(text);
    return st;
}

void load_dataset_destroy(struct load_dataset *d)
{
    if (!d)
        return;
    for (size_t i = 0; i < d->count; i++)
        json_decref(d->entries[i].line);
    free(d->entries);
    json_decref(d->root);
    free(d->hashes);
    tokenizer_scratch_destroy(d->scratch);
    free(d->pool);
    free(d->ids);
    buf_fini(&d->text);
    free(d);
}

size_t load_dataset_count(const struct load_dataset *d)
{
    return d->count;
}

size_t load_dataset_skipped(const struct load_dataset *d)
{
    return d->skipped;
}

const char *load_dataset_words(const struct load_dataset *d)
{
    return d->words;
}

int64_t load_dataset_at_ns(const struct load_dataset *d, size_t index)
{
    return d->count > 0 ? d->entries[index % d->count].at_ns : 0;
}

void load_dataset_set_vocabulary(struct load_dataset *d, int32_t count)
{
    if (!d->pool)
        d->pool_count = count;
}

void load_dataset_reseed(struct load_dataset *d, uint64_t seed)
{
    d->o.seed = seed;
}

/* --- making up ---------------------------------------------------------------------------------
 */

static void draw_ids(const struct load_dataset *d, struct load_rng *r, int32_t *ids, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        uint32_t n = load_rng_below(r, (uint32_t)d->pool_count);
        ids[i] = d->pool ? d->pool[n] : (int32_t)n;
    }
}

static void make_room(struct load_dataset *d, int32_t count)
{
    if (count <= d->id_cap)
        return;
    free(d->ids);
    d->ids = check_calloc((size_t)count, sizeof *d->ids);
    d->id_cap = count;
}

static void give_made_up(struct load_dataset *d, int32_t count, struct load_request *out)
{
    out->input = LOAD_IDS;
    out->ids = d->ids;
    out->id_count = out->input_tokens = count;
    if (!d->o.as_text)
        return;
    buf_clear(&d->text);
    for (int32_t i = 0; i < count; i++) {
        const char *bytes;
        size_t len;
        enum status st = tokenizer_token_bytes(d->o.tokenizer, (uint32_t)d->ids[i], &bytes, &len,
                                               NULL);
        CHECK(st == OK && buf_append(&d->text, bytes, len, NULL) == OK,
              "a prompt of %d words has no room", (int)count);
    }
    out->input = LOAD_TEXT;
    out->text = d->text.data;
    out->text_len = d->text.len;
}

static void get_random(struct load_dataset *d, size_t index, bool warm_up, struct load_request *out)
{
    struct load_rng r = stream(d, warm_up ? WARM_UPS : REQUESTS, index);
    int32_t prefix = d->o.prefix_tokens, rest = load_length_draw(&d->o.input, &r);
    out->max_tokens = load_length_draw(&d->o.output, &r);
    make_room(d, prefix + rest);
    if (prefix > 0) {
        struct load_rng p = stream(d, PREFIXES, load_rng_below(&r, (uint32_t)d->o.prefix_groups));
        draw_ids(d, &p, d->ids, prefix);
    }
    draw_ids(d, &r, d->ids + prefix, rest);
    give_made_up(d, prefix + rest, out);
}

/* Equal hash ids are equal blocks; the last one may be cut. */
static void get_traced(struct load_dataset *d, size_t index, bool warm_up, struct load_request *out)
{
    const struct load_entry *e = &d->entries[index % d->count];
    struct load_rng r = stream(d, warm_up ? WARM_UPS : REQUESTS, index);
    int32_t at = 0;
    make_room(d, e->input);
    for (size_t i = 0; !warm_up && i < e->hash_count; i++) {
        int32_t left = e->input - at, n = d->o.block_tokens < left ? d->o.block_tokens : left;
        struct load_rng b = stream(d, BLOCKS, (uint64_t)d->hashes[e->hash_at + i]);
        draw_ids(d, &b, d->ids + at, n);
        at += n;
    }
    draw_ids(d, &r, d->ids + at, e->input - at);
    give_made_up(d, e->input, out);
}

void load_dataset_get(struct load_dataset *d, size_t index, bool warm_up, struct load_request *out)
{
    *out = (struct load_request){0};
    if (d->o.kind == LOAD_RANDOM) {
        get_random(d, index, warm_up, out);
        return;
    }
    const struct load_entry *e = &d->entries[index % d->count];
    if (d->o.kind == LOAD_TRACE) {
        get_traced(d, index, warm_up, out);
    } else if (e->messages) {
        out->input = LOAD_MESSAGES;
        out->messages = e->messages;
    } else {
        out->input = LOAD_TEXT;
        out->text = e->text;
        out->text_len = e->text_len;
    }
    out->max_tokens = e->output;
    if (d->o.has_output) {
        struct load_rng r = stream(d, REQUESTS, ~(uint64_t)index);
        out->max_tokens = load_length_draw(&d->o.output, &r);
    }
}
