/* Tokens' bytes, sorted: see words.h. */
#include "worker/words.h"
#include "base/check.h"

#include <stdlib.h>
#include <string.h>

/* Tokens in the order of their bytes. */
struct order {
    int32_t count;
    int32_t *ids;
    uint16_t *shared; /* bytes that each has in common with the one before it */
};

/* Plain tokens that may follow in all states of a run and lead to one, and the others. */
struct run {
    uint64_t *bits; /* [(count + 63) / 64] */
    int32_t one;    /* of them; -1: there is none */
    struct order rest;
};

struct words {
    int32_t count;
    uint8_t *kinds;    /* [count] */
    uint32_t *offsets; /* [count + 1] into `text` */
    char *text;
    struct order all; /* plain tokens */
    struct run runs[CONSTRAINT_RUNS];
    int32_t *added; /* [added_count] tags */
    int32_t added_count;
};

static const unsigned char *bytes_of(const struct words *w, int32_t id, size_t *len)
{
    *len = w->offsets[id + 1] - w->offsets[id];
    return (const unsigned char *)w->text + w->offsets[id];
}

/* --- making -------------------------------------------------------------------------------------
 */

struct sorted {
    const unsigned char *bytes;
    size_t len;
    int32_t id;
};

static int by_bytes(const void *a, const void *b)
{
    const struct sorted *x = a, *y = b;
    int order = memcmp(x->bytes, y->bytes, x->len < y->len ? x->len : y->len);
    if (order != 0)
        return order;
    if (x->len != y->len)
        return x->len < y->len ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static uint16_t shared_of(const struct sorted *a, const struct sorted *b)
{
    size_t most = a->len < b->len ? a->len : b->len, n = 0;
    while (n < most && a->bytes[n] == b->bytes[n])
        n++;
    return (uint16_t)n;
}

static enum status take_order(const struct sorted *sorted, int32_t count, struct order *out,
                              struct error *err)
{
    size_t n = (size_t)count + 1;
    out->ids = calloc(n, sizeof *out->ids);
    out->shared = calloc(n, sizeof *out->shared);
    if (!out->ids || !out->shared)
        return error_set(err, ERR_NO_MEMORY, "no memory for the order of %d tokens", count);
    out->count = count;
    for (int32_t i = 0; i < count; i++) {
        out->ids[i] = sorted[i].id;
        out->shared[i] = i > 0 ? shared_of(&sorted[i - 1], &sorted[i]) : 0;
    }
    return OK;
}

static enum status make_run(struct words *w, enum constraint_run kind, const struct sorted *sorted,
                            struct sorted *rest, struct error *err)
{
    struct run *r = &w->runs[kind];
    int32_t count = 0;
    r->one = -1;
    for (int32_t i = 0; i < w->all.count; i++) {
        int32_t id = sorted[i].id;
        if (!constraint_runs_on(kind, sorted[i].bytes, sorted[i].len)) {
            rest[count++] = sorted[i];
            continue;
        }
        r->bits[id / 64] |= UINT64_C(1) << (id % 64);
        r->one = id;
    }
    return take_order(rest, count, &r->rest, err);
}

/* `sorted`: room for all tokens twice. */
static enum status sort(struct words *w, struct sorted *sorted, struct error *err)
{
    int32_t count = 0;
    for (int32_t id = 0; id < w->count; id++) {
        struct sorted s = {.id = id};
        s.bytes = bytes_of(w, id, &s.len);
        if (w->kinds[id] == WORD_ADDED)
            w->added[w->added_count++] = id;
        if (w->kinds[id] == WORD_PLAIN)
            sorted[count++] = s;
    }
    qsort(sorted, (size_t)count, sizeof *sorted, by_bytes);
    TRY(take_order(sorted, count, &w->all, err));
    for (int run = CONSTRAINT_STRING; run < CONSTRAINT_RUNS; run++)
        TRY(make_run(w, (enum constraint_run)run, sorted, sorted + w->count, err));
    return OK;
}

/* The answer can be ended from anywhere with bytes alone. */
static enum status check_bytes(const struct words *w, struct error *err)
{
    bool there[256] = {false};
    for (int32_t i = 0; i < w->all.count; i++) {
        size_t len;
        const unsigned char *bytes = bytes_of(w, w->all.ids[i], &len);
        if (len == 1)
            there[bytes[0]] = true;
    }
    for (int b = 0; b < 256; b++)
        if (!there[b])
            return error_set(err, ERR_UNSUPPORTED,
                             "response_format: the tokenizer has no token of byte 0x%02x alone, "
                             "without which not every answer can be ended",
                             (unsigned)b);
    return OK;
}

static enum status take_words(struct words *w, const char *text, size_t text_len,
                              const uint32_t *lengths, const uint8_t *kinds, struct error *err)
{
    size_t at = 0;
    memcpy(w->text, text, text_len);
    for (int32_t i = 0; i < w->count; i++) {
        if (kinds[i] >= WORD_KINDS || lengths[i] > text_len - at)
            return error_set(err, ERR_INVALID,
                             "words: token %d: expected a kind below %d and at most %zu bytes, "
                             "found %d and %u",
                             i, (int)WORD_KINDS, text_len - at, kinds[i], lengths[i]);
        bool fits = lengths[i] > 0 && lengths[i] <= WORDS_MAX_BYTES;
        w->kinds[i] = fits ? kinds[i] : WORD_NEVER;
        w->offsets[i] = (uint32_t)at;
        at += lengths[i];
        w->offsets[i + 1] = (uint32_t)at;
    }
    if (at != text_len)
        return error_set(err, ERR_INVALID, "words: expected %zu bytes in all, found %zu", at,
                         text_len);
    return OK;
}

static enum status allocate(struct words *w, size_t text_len, struct error *err)
{
    size_t n = (size_t)w->count;
    w->kinds = calloc(n, sizeof *w->kinds);
    w->offsets = calloc(n + 1, sizeof *w->offsets);
    w->added = calloc(n, sizeof *w->added);
    bool runs = true;
    for (int run = CONSTRAINT_STRING; run < CONSTRAINT_RUNS; run++) {
        w->runs[run].bits = calloc((n + 63) / 64, sizeof *w->runs[run].bits);
        runs = runs && w->runs[run].bits;
    }
    w->text = malloc(text_len + 1);
    if (w->kinds && w->offsets && w->added && runs && w->text)
        return OK;
    return error_set(err, ERR_NO_MEMORY, "no memory for the words of %zu tokens", n);
}

static enum status make(struct words *w, const char *text, size_t text_len, const uint32_t *lengths,
                        const uint8_t *kinds, struct error *err)
{
    TRY(allocate(w, text_len, err));
    TRY(take_words(w, text, text_len, lengths, kinds, err));
    struct sorted *sorted = calloc(2 * (size_t)w->count, sizeof *sorted);
    if (!sorted)
        return error_set(err, ERR_NO_MEMORY, "no memory to sort %d tokens", w->count);
    enum status st = sort(w, sorted, err);
    free(sorted);
    return st == OK ? check_bytes(w, err) : st;
}

enum status words_create(const char *text, size_t text_len, const uint32_t *lengths,
                         const uint8_t *kinds, size_t count, struct words **out, struct error *err)
{
    if (count < 1 || count > WORDS_MAX || text_len < 1 || text_len > WORDS_MAX_TEXT)
        return error_set(err, ERR_INVALID,
                         "words: expected 1 to %d tokens of 1 to %d bytes in all, found %zu of %zu",
                         (int)WORDS_MAX, (int)WORDS_MAX_TEXT, count, text_len);
    struct words *w = calloc(1, sizeof *w);
    if (!w)
        return error_set(err, ERR_NO_MEMORY, "no memory for the words");
    w->count = (int32_t)count;
    enum status st = make(w, text, text_len, lengths, kinds, err);
    if (st != OK) {
        words_destroy(w);
        return st;
    }
    *out = w;
    return OK;
}

void words_destroy(struct words *w)
{
    if (!w)
        return;
    free(w->kinds);
    free(w->offsets);
    free(w->text);
    free(w->all.ids);
    free(w->all.shared);
    for (int run = CONSTRAINT_STRING; run < CONSTRAINT_RUNS; run++) {
        free(w->runs[run].bits);
        free(w->runs[run].rest.ids);
        free(w->runs[run].rest.shared);
    }
    free(w->added);
    free(w);
}

size_t words_bytes(const struct words *w)
{
    size_t each = sizeof *w->kinds + sizeof *w->offsets + sizeof *w->added;
    size_t ordered = sizeof *w->all.ids + sizeof *w->all.shared;
    size_t bytes = sizeof *w + (size_t)w->count * each + w->offsets[w->count] +
                   (size_t)w->all.count * ordered;
    for (int run = CONSTRAINT_STRING; run < CONSTRAINT_RUNS; run++)
        bytes += (size_t)w->runs[run].rest.count * ordered + ((size_t)w->count + 63) / 8;
    return bytes;
}

/* --- use ----------------------------------------------------------------------------------------
 */

bool words_take(const struct words *w, const struct constraint *c, int32_t token,
                struct constraint_state *s)
{
    size_t len;
    if (token < 0 || token >= w->count || w->kinds[token] == WORD_NEVER)
        return false;
    if (w->kinds[token] == WORD_ADDED && !constraint_is_free(s))
        return false;
    const unsigned char *bytes = bytes_of(w, token, &len);
    for (size_t i = 0; i < len; i++)
        if (!constraint_take(c, s, bytes[i]))
            return false;
    return true;
}

/* What is being gathered. */
struct gathering {
    const struct constraint *c;
    int32_t most, vocab, greatest;
    uint64_t *allowed;
    /* The state that was asked last for what it needs: most tokens lead to the same few, and of
     * many tools' heads each has to be looked at. */
    struct constraint_state last;
    int32_t needs; /* of `last`, or -1 */
};

static int32_t needs_of(struct gathering *g, const struct constraint_state *s)
{
    if (g->needs < 0 || memcmp(&g->last, s, sizeof *s) != 0) {
        g->last = *s;
        g->needs = constraint_closing(g->c, s);
    }
    return g->needs;
}

static void offer(struct gathering *g, int32_t id, const struct constraint_state *s)
{
    int32_t needs = needs_of(g, s);
    if (id >= g->vocab)
        return;
    g->greatest = needs > g->greatest ? needs : g->greatest;
    if (needs <= g->most)
        g->allowed[id / 64] |= UINT64_C(1) << (id % 64);
}

/* Tokens in order: each is taken from where it parts from the one before, and where that one was
 * refused before they part, so is this one. */
static void walk(const struct words *w, const struct order *o, const struct constraint_state *s,
                 struct gathering *g)
{
    struct constraint_state at[WORDS_MAX_BYTES + 1];
    size_t taken = 0, len;
    at[0] = *s;
    for (int32_t i = 0; i < o->count; i++) {
        if (o->shared[i] > taken)
            continue;
        const unsigned char *bytes = bytes_of(w, o->ids[i], &len);
        for (taken = o->shared[i]; taken < len; taken++) {
            at[taken + 1] = at[taken];
            if (!constraint_take(g->c, &at[taken + 1], bytes[taken]))
                break;
        }
        if (taken == len)
            offer(g, o->ids[i], &at[len]);
    }
}

/* All of a run at once. */
static void take_run(const struct words *w, const struct run *r, const struct constraint_state *s,
                     struct gathering *g)
{
    struct constraint_state after = *s;
    int32_t whole = g->vocab / 64, words = (w->count + 63) / 64, last = g->vocab % 64;
    if (r->one < 0)
        return;
    CHECK(words_take(w, g->c, r->one, &after), "token %d does not follow in its run", r->one);
    int32_t needs = constraint_closing(g->c, &after);
    g->greatest = needs;
    if (needs > g->most)
        return;
    for (int32_t i = 0; i < words && i < whole; i++)
        g->allowed[i] |= r->bits[i];
    if (last > 0 && whole < words)
        g->allowed[whole] |= r->bits[whole] & ((UINT64_C(1) << last) - 1);
}

int32_t words_allowed(const struct words *w, const struct constraint *c,
                      const struct constraint_state *s, int32_t most, int32_t vocab,
                      uint64_t *allowed)
{
    struct gathering g = {
        .c = c, .most = most, .vocab = vocab, .greatest = -1, .allowed = allowed, .needs = -1};
    const struct run *r = &w->runs[constraint_run(s)];
    bool runs = r != &w->runs[CONSTRAINT_NO_RUN];
    if (runs)
        take_run(w, r, s, &g);
    walk(w, runs ? &r->rest : &w->all, s, &g);
    for (int32_t i = 0; constraint_is_free(s) && i < w->added_count; i++) {
        struct constraint_state after = *s;
        if (words_take(w, c, w->added[i], &after))
            offer(&g, w->added[i], &after);
    }
    return g.greatest;
}
