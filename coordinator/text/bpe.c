/*
 * Byte-pair encoding: see bpe.h. Pieces of a few bytes, nearly all, are looked up in the scratch's
 * cache and else merged by scanning for the lowest rank; long ones use a heap of ranks over a
 * linked list, since scanning is quadratic. Both give the same ids.
 */
#include "coordinator/text/bpe.h"

#include <stdlib.h>
#include <string.h>

enum {
    SCAN_MAX = 48,          /* bytes of a piece merged by scanning */
    CACHE_SLOTS = 1 << 14,  /* a power of two */
    CACHE_BYTES = 26,       /* of the longest piece cached */
    CACHE_IDS = 8,          /* that it may have */
    KEEP_SYMBOLS = 1 << 16, /* larger working memory is released after the call */
};

static const uint32_t NO_RANK = UINT32_MAX;
static const uint32_t NONE = UINT32_MAX; /* no symbol, no id */

struct merge {
    uint32_t left, right;
    uint32_t rank; /* NO_RANK: a free slot, or no such merge */
    uint32_t merged;
};

struct bpe {
    uint32_t byte_ids[256];
    struct merge *slots; /* open addressing, at most half full */
    size_t mask;
    uint32_t count;
};

struct cache_slot {
    uint32_t hash;
    uint8_t len; /* 0: free */
    uint8_t count;
    char bytes[CACHE_BYTES];
    uint32_t ids[CACHE_IDS];
};

struct symbol {
    uint32_t id;             /* NONE once merged into the symbol before */
    uint32_t next, previous; /* NONE at the ends */
};

struct bpe_scratch {
    struct cache_slot *cache; /* [CACHE_SLOTS], a slot a hash */
    struct symbol *symbols;
    size_t symbols_cap;
    uint64_t *heap; /* [2 * symbols_cap]: rank << 32 | index of the pair's left symbol */
    size_t heap_len;
};

enum status bpe_create(const uint32_t byte_ids[256], size_t merges, struct bpe **out,
                       struct error *err)
{
    size_t slots = 64;
    while (slots < 2 * merges)
        slots *= 2;
    struct bpe *b = calloc(1, sizeof *b);
    struct merge *table = malloc(slots * sizeof *table);
    if (!b || !table) {
        free(b);
        free(table);
        return error_set(err, ERR_NO_MEMORY, "no memory for %zu merges", merges);
    }
    for (size_t i = 0; i < slots; i++)
        table[i].rank = NO_RANK;
    memcpy(b->byte_ids, byte_ids, sizeof b->byte_ids);
    b->slots = table;
    b->mask = slots - 1;
    *out = b;
    return OK;
}

void bpe_destroy(struct bpe *b)
{
    if (!b)
        return;
    free(b->slots);
    free(b);
}

/* The pair's slot, or the free one where it would go. */
static struct merge *find(const struct bpe *b, uint32_t left, uint32_t right)
{
    uint64_t key = (uint64_t)left << 32 | right;
    size_t i = (size_t)((key * 0x9E3779B97F4A7C15u) >> 32) & b->mask;
    struct merge *m = &b->slots[i];
    while (m->rank != NO_RANK && (m->left != left || m->right != right)) {
        i = (i + 1) & b->mask;
        m = &b->slots[i];
    }
    return m;
}

enum status bpe_add_merge(struct bpe *b, uint32_t left, uint32_t right, uint32_t merged,
                          struct error *err)
{
    if (b->count > b->mask / 2)
        return error_set(err, ERR_LIMIT, "more merges than announced");
    struct merge *m = find(b, left, right);
    if (m->rank != NO_RANK)
        return error_set(err, ERR_INVALID, "the same pair as merge %u", m->rank);
    *m = (struct merge){left, right, b->count++, merged};
    return OK;
}

enum status bpe_scratch_create(struct bpe_scratch **out, struct error *err)
{
    struct bpe_scratch *s = calloc(1, sizeof *s);
    if (s)
        s->cache = calloc(CACHE_SLOTS, sizeof *s->cache);
    if (!s || !s->cache) {
        free(s);
        return error_set(err, ERR_NO_MEMORY, "no memory for %d cached pieces", (int)CACHE_SLOTS);
    }
    *out = s;
    return OK;
}

static void release_working_memory(struct bpe_scratch *s)
{
    free(s->symbols);
    free(s->heap);
    s->symbols = NULL;
    s->heap = NULL;
    s->symbols_cap = 0;
}

void bpe_scratch_destroy(struct bpe_scratch *s)
{
    if (!s)
        return;
    release_working_memory(s);
    free(s->cache);
    free(s);
}

/* Merges ids[0..n) in place by scanning, n <= SCAN_MAX; returns how many are left. */
static size_t merge_by_scan(const struct bpe *b, uint32_t *ids, size_t n)
{
    struct merge pairs[SCAN_MAX];
    for (size_t i = 0; i + 1 < n; i++)
        pairs[i] = *find(b, ids[i], ids[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (pairs[i].rank < pairs[best].rank)
                best = i;
        if (pairs[best].rank == NO_RANK)
            break;
        ids[best] = pairs[best].merged;
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        if (best + 1 < n) {
            memmove(pairs + best + 1, pairs + best + 2, (n - best - 2) * sizeof *pairs);
            pairs[best] = *find(b, ids[best], ids[best + 1]);
        }
        if (best > 0)
            pairs[best - 1] = *find(b, ids[best - 1], ids[best]);
    }
    return n;
}

static void heap_push(struct bpe_scratch *s, uint64_t key)
{
    size_t i = s->heap_len++;
    while (i > 0 && s->heap[(i - 1) / 2] > key) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = key;
}

static uint64_t heap_pop(struct bpe_scratch *s)
{
    uint64_t top = s->heap[0];
    uint64_t key = s->heap[--s->heap_len];
    size_t n = s->heap_len;
    size_t i = 0;
    for (size_t child = 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && s->heap[child + 1] < s->heap[child])
            child++;
        if (s->heap[child] >= key)
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = key;
    return top;
}

static void push_pair(const struct bpe *b, struct bpe_scratch *s, uint32_t left)
{
    const struct symbol *l = &s->symbols[left];
    if (l->next == NONE)
        return;
    const struct merge *m = find(b, l->id, s->symbols[l->next].id);
    if (m->rank != NO_RANK)
        heap_push(s, (uint64_t)m->rank << 32 | left);
}

/* Room for a piece of n bytes. A merge takes one pair off the heap and puts at most two on it. */
static enum status reserve(struct bpe_scratch *s, size_t n, struct error *err)
{
    if (n <= s->symbols_cap)
        return OK;
    release_working_memory(s);
    s->symbols = malloc(n * sizeof *s->symbols);
    s->heap = malloc(2 * n * sizeof *s->heap);
    if (!s->symbols || !s->heap) {
        release_working_memory(s);
        return error_set(err, ERR_NO_MEMORY, "no memory for a piece of %zu bytes", n);
    }
    s->symbols_cap = n;
    return OK;
}

static void merge_by_heap(const struct bpe *b, struct bpe_scratch *s)
{
    while (s->heap_len > 0) {
        uint64_t key = heap_pop(s);
        uint32_t left = (uint32_t)key;
        struct symbol *l = &s->symbols[left];
        if (l->id == NONE || l->next == NONE)
            continue;
        struct symbol *r = &s->symbols[l->next];
        const struct merge *m = find(b, l->id, r->id);
        if (m->rank != (uint32_t)(key >> 32))
            continue; /* a pair that is no more */
        l->id = m->merged;
        l->next = r->next;
        r->id = NONE;
        if (l->next != NONE)
            s->symbols[l->next].previous = left;
        push_pair(b, s, left);
        if (l->previous != NONE)
            push_pair(b, s, l->previous);
    }
}

static enum status encode_long(const struct bpe *b, struct bpe_scratch *s, const char *piece,
                               size_t len, struct token_ids *out, struct error *err)
{
    if (len > INT32_MAX)
        return error_set(err, ERR_LIMIT, "a piece of %zu bytes, expected fewer than 2^31", len);
    TRY(reserve(s, len, err));
    for (size_t i = 0; i < len; i++)
        s->symbols[i] = (struct symbol){
            .id = b->byte_ids[(unsigned char)piece[i]],
            .next = i + 1 < len ? (uint32_t)(i + 1) : NONE,
            .previous = i > 0 ? (uint32_t)(i - 1) : NONE,
        };
    s->heap_len = 0;
    for (size_t i = 0; i < len; i++)
        push_pair(b, s, (uint32_t)i);
    merge_by_heap(b, s);
    enum status st = OK;
    for (uint32_t i = 0; st == OK && i != NONE; i = s->symbols[i].next)
        st = token_ids_append(out, &s->symbols[i].id, 1, err);
    if (s->symbols_cap > KEEP_SYMBOLS)
        release_working_memory(s);
    return st;
}

/* FNV-1a, its high bits folded in. */
static uint32_t hash_bytes(const char *s, size_t len)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)s[i]) * 16777619u;
    return h ^ h >> 15;
}

enum status bpe_encode(const struct bpe *b, struct bpe_scratch *s, const char *piece, size_t len,
                       struct token_ids *out, struct error *err)
{
    if (len > SCAN_MAX)
        return encode_long(b, s, piece, len, out, err);
    struct cache_slot *slot = NULL;
    uint32_t hash = 0;
    if (len <= CACHE_BYTES) {
        hash = hash_bytes(piece, len);
        slot = &s->cache[hash % CACHE_SLOTS];
        if (slot->hash == hash && slot->len == len && memcmp(slot->bytes, piece, len) == 0)
            return token_ids_append(out, slot->ids, slot->count, err);
    }
    uint32_t ids[SCAN_MAX];
    for (size_t i = 0; i < len; i++)
        ids[i] = b->byte_ids[(unsigned char)piece[i]];
    size_t n = merge_by_scan(b, ids, len);
    if (slot && len > 0 && n <= CACHE_IDS) {
        slot->hash = hash;
        slot->len = (uint8_t)len;
        slot->count = (uint8_t)n;
        memcpy(slot->bytes, piece, len);
        memcpy(slot->ids, ids, n * sizeof *ids);
    }
    return token_ids_append(out, ids, n, err);
}
