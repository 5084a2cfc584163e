/*
 * What every transport has to do, as functions that each rank of a communicator runs: the local
 * transport's unit tests and the MPI program call the same ones. A case returns OK or says what
 * differed; expected values come from definitions, computed by every rank for itself.
 */
#ifndef WITAN_TESTS_COMM_CASES_H
#define WITAN_TESTS_COMM_CASES_H

#include "base/check.h"
#include "base/error.h"
#include "transport/transport.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPECT(cond)                                                                               \
    do {                                                                                           \
        if (!(cond))                                                                               \
            return error_set(err, ERR_INVALID, "%s:%d: %s", __FILE__, __LINE__, #cond);            \
    } while (0)

/* A number for each quadruple (splitmix64's finaliser over a sum of odd multiples). */
static inline uint64_t cases_hash(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    uint64_t z = a * 0x9e3779b97f4a7c15u + b * 0xc2b2ae3d27d4eb4fu + c * 0x165667b19e3779f9u +
                 d * 0x27d4eb2f165667c5u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* What all-reduce is for: a multiple of 2^-32. In these units it is below 2^48, so that the sum of
 * 16 stays below 2^52 (2^20 in value). */
static inline int64_t cases_units(uint64_t seed, int rank, size_t i)
{
    uint64_t h = cases_hash(seed, (uint64_t)rank, i, 1);
    return (int64_t)(h & (((uint64_t)1 << 49) - 1)) - ((int64_t)1 << 48);
}

static inline enum status cases_allreduce_count(struct comm *c, uint64_t seed, size_t count,
                                                struct error *err)
{
    double *x = calloc(count + 1, sizeof *x);
    enum status st = OK;
    for (size_t i = 0; i < count; i++)
        x[i] = ldexp((double)cases_units(seed, c->rank, i), -32);
    x[count] = 42;
    TRY_OUT(st, c->ops->allreduce_f64(c, x, count, err));
    for (size_t i = 0; i < count && st == OK; i++) {
        int64_t sum = 0;
        for (int rank = 0; rank < c->size; rank++)
            sum += cases_units(seed, rank, i);
        double expected = ldexp((double)sum, -32);
        if (memcmp(&x[i], &expected, sizeof expected) != 0)
            st = error_set(err, ERR_INVALID,
                           "all-reduce: element %zu of %zu: expected %a, found %a", i, count,
                           expected, x[i]);
    }
    if (st == OK && x[count] != 42)
        st = error_set(err, ERR_INVALID, "all-reduce of %zu wrote past its end", count);
out:
    free(x);
    return st;
}

/* Sums are the exact ones, to the bit, on all ranks and for every count. */
static inline enum status cases_allreduce(struct comm *c, struct error *err)
{
    static const size_t counts[] = {0,   1,    2,    7,    8,    9,    100,   511,  512,
                                    513, 1024, 2048, 4096, 4097, 8192, 12345, 70000};
    for (size_t i = 0; i < COUNT_OF(counts); i++)
        TRY(cases_allreduce_count(c, i, counts[i], err));
    return OK;
}

static const size_t cases_bytes[] = {0, 1, 13, 64, 4095, 4096, 4097, 32768, 65536, 65537, 300001};

static inline void cases_fill(unsigned char *p, size_t bytes, uint64_t seed, int rank)
{
    for (size_t i = 0; i < bytes; i++)
        p[i] = (unsigned char)cases_hash(seed, (uint64_t)rank, i, 2);
}

/* ERR_INVALID unless p holds what cases_fill(seed, rank) writes. */
static inline enum status cases_same(const unsigned char *p, size_t bytes, uint64_t seed, int rank,
                                     const char *what, struct error *err)
{
    for (size_t i = 0; i < bytes; i++)
        if (p[i] != (unsigned char)cases_hash(seed, (uint64_t)rank, i, 2))
            return error_set(err, ERR_INVALID, "%s: byte %zu of %zu of rank %d differs", what, i,
                             bytes, rank);
    return OK;
}

static inline enum status cases_allgather(struct comm *c, struct error *err)
{
    enum status st = OK;
    for (size_t k = 0; k < COUNT_OF(cases_bytes) && st == OK; k++) {
        size_t bytes = cases_bytes[k];
        unsigned char *send = malloc(bytes + 1), *recv = malloc((size_t)c->size * bytes + 1);
        cases_fill(send, bytes, k, c->rank);
        st = c->ops->allgather(c, send, bytes, recv, err);
        for (int rank = 0; rank < c->size && st == OK; rank++)
            st = cases_same(recv + (size_t)rank * bytes, bytes, k, rank, "all-gather", err);
        free(send);
        free(recv);
    }
    return st;
}

static inline enum status cases_broadcast(struct comm *c, struct error *err)
{
    enum status st = OK;
    for (size_t k = 0; k < COUNT_OF(cases_bytes); k++) {
        size_t bytes = cases_bytes[k];
        unsigned char *x = malloc(bytes + 1);
        for (int root = 0; root < c->size && st == OK; root++) {
            cases_fill(x, bytes, k, c->rank);
            st = c->ops->broadcast(c, root, x, bytes, err);
            if (st == OK)
                st = cases_same(x, bytes, k, root, "broadcast", err);
        }
        free(x);
        TRY(st);
    }
    return OK;
}

/* Everyone sends `distance` ranks up and receives from as far down. Those whose source lies past
 * the wrap-around receive first, which breaks every cycle. */
static inline enum status cases_shift(struct comm *c, int distance, const void *out, void *in,
                                      size_t bytes, struct error *err)
{
    int to = (c->rank + distance) % c->size, from = (c->rank + c->size - distance) % c->size;
    if (c->rank < distance) {
        TRY(c->ops->recv(c, from, in, bytes, err));
        return c->ops->send(c, to, out, bytes, err);
    }
    TRY(c->ops->send(c, to, out, bytes, err));
    return c->ops->recv(c, from, in, bytes, err);
}

static inline enum status cases_point_to_point(struct comm *c, struct error *err)
{
    enum status st = OK;
    for (size_t k = 0; k < COUNT_OF(cases_bytes); k++) {
        size_t bytes = cases_bytes[k];
        unsigned char *out = malloc(bytes + 1), *in = malloc(bytes + 1);
        for (int distance = 1; distance < c->size && st == OK; distance++) {
            int from = (c->rank + c->size - distance) % c->size;
            cases_fill(out, bytes, k, c->rank);
            st = cases_shift(c, distance, out, in, bytes, err);
            if (st == OK)
                st = cases_same(in, bytes, k, from, "send", err);
        }
        free(out);
        free(in);
        TRY(st);
    }
    return OK;
}

/* Rank 0 receives from each rank as many messages as that one's number, last rank first: others
 * have posted theirs long before, and the order within a pair holds. */
static inline enum status cases_message_order(struct comm *c, struct error *err)
{
    int x;
    if (c->rank > 0) {
        for (x = 0; x < c->rank; x++)
            TRY(c->ops->send(c, 0, &x, sizeof x, err));
        return OK;
    }
    for (int from = c->size - 1; from > 0; from--)
        for (int i = 0; i < from; i++) {
            TRY(c->ops->recv(c, from, &x, sizeof x, err));
            EXPECT(x == i);
        }
    return OK;
}

static inline enum status cases_grid_line(struct comm *c, int color, int key, int size, int rank,
                                          int step, struct error *err)
{
    struct comm *line;
    int world[16];
    CHECK(size <= 16, "%d", size);
    TRY(c->ops->split(c, color, key, &line, err));
    enum status st = line->ops->allgather(line, &c->rank, sizeof c->rank, world, err);
    if (st == OK && (line->size != size || line->rank != rank))
        st = error_set(err, ERR_INVALID, "split: expected rank %d of %d, found %d of %d", rank,
                       size, line->rank, line->size);
    for (int i = 0; i < size && st == OK; i++)
        if (world[i] != c->rank + (i - rank) * step)
            st = error_set(err, ERR_INVALID, "split: rank %d is old rank %d", i, world[i]);
    if (st == OK)
        st = cases_allreduce_count(line, 7, 1000, err);
    line->ops->destroy(line);
    return st;
}

/* All are seen to come, again and again, and nothing of it gets between messages. */
static inline enum status cases_arrive(struct comm *c, struct error *err)
{
    bool here[64];
    CHECK(c->size <= 64, "%d", c->size);
    for (int k = 0; k < 5; k++) {
        int word = c->rank, got = -1;
        memset(here, 0, sizeof here);
        TRY(c->ops->arrive(c, k % 2 == 0 ? 0 : 60000, here, err));
        for (int i = 0; i < c->size; i++)
            EXPECT(here[i]);
        if (c->size == 1)
            continue;
        TRY(cases_shift(c, 1, &word, &got, sizeof got, err));
        EXPECT((got + 1) % c->size == c->rank);
    }
    return OK;
}

/* The last rank comes once the others have given it up, and sees them all. */
static inline enum status cases_arrive_late(struct comm *c, struct error *err)
{
    bool here[64];
    CHECK(c->size <= 64, "%d", c->size);
    int last = c->size - 1, word = 0;
    for (int i = 0; i < last && c->rank == last; i++)
        TRY(c->ops->recv(c, i, &word, sizeof word, err));
    TRY(c->ops->arrive(c, c->rank == last ? 60000 : 1, here, err));
    for (int i = 0; i < last; i++)
        EXPECT(here[i] || c->rank != last);
    EXPECT(here[c->rank] && (c->rank == last || !here[last]));
    return c->rank < last ? c->ops->send(c, last, &word, sizeof word, err) : OK;
}

/* A grid's rows, columns and, by keys, rows from right to left. */
static inline enum status cases_grid(struct comm *c, struct error *err)
{
    for (int columns = 1; columns <= c->size; columns++) {
        if (c->size % columns != 0)
            continue;
        int row = c->rank / columns, column = c->rank % columns, rows = c->size / columns;
        TRY(cases_grid_line(c, row, 0, columns, column, 1, err));
        TRY(cases_grid_line(c, column, row, rows, row, columns, err));
        TRY(cases_grid_line(c, row + 5, -column, columns, columns - 1 - column, -1, err));
    }
    return OK;
}

/*
 * Random programs. Step k of program `seed` is one operation among ranks of equal colour; a rank's
 * payload derives from its digest, and the result changes the digest. cases_model runs a program
 * for all ranks in one thread, by definition; cases_program runs it over a communicator.
 */
enum { CASES_MAX_RANKS = 16, CASES_MAX_WORDS = 5000 };

enum cases_kind { CASES_ALLREDUCE, CASES_ALLGATHER, CASES_BROADCAST, CASES_SHIFT, CASES_KINDS };

struct cases_step {
    enum cases_kind kind;
    int scope; /* 0 world, 1 a split of its own */
    uint64_t root, distance, words;
};

static inline struct cases_step cases_step_at(uint64_t seed, uint64_t k)
{
    struct cases_step s = {
        .kind = (enum cases_kind)(cases_hash(seed, k, 0, 3) % CASES_KINDS),
        .scope = cases_hash(seed, k, 1, 3) % 4 == 0,
        .root = cases_hash(seed, k, 2, 3) >> 1,
        .distance = cases_hash(seed, k, 3, 3) >> 1,
    };
    /* Mostly short, sometimes past every arena. */
    uint64_t limit = cases_hash(seed, k, 4, 3) % 8 == 0 ? CASES_MAX_WORDS : 40;
    s.words = cases_hash(seed, k, 5, 3) % limit;
    return s;
}

static inline int cases_color(uint64_t seed, uint64_t k, int scope, int rank)
{
    return scope == 0 ? 0 : (int)(cases_hash(seed, k, (uint64_t)rank, 4) % 3);
}

static inline int cases_key(uint64_t seed, uint64_t k, int scope, int rank)
{
    return scope == 0 ? rank : (int)(cases_hash(seed, k, (uint64_t)rank, 5) % 5) - 2;
}

static inline uint64_t cases_word(uint64_t digest, size_t i)
{
    return cases_hash(digest, i, 0, 6);
}

/* A word as a number that all-reduce takes, in units of 2^-32. */
static inline int64_t cases_word_units(uint64_t word)
{
    return (int64_t)(word >> 16) - ((int64_t)1 << 47);
}

static inline uint64_t cases_fold(uint64_t digest, uint64_t word)
{
    return cases_hash(digest, word, 0, 7);
}

/* The ranks that step k joins with `rank`, in order; *me is its place. */
static inline int cases_members(uint64_t seed, uint64_t k, int scope, int size, int rank,
                                int members[CASES_MAX_RANKS], int *me)
{
    int n = 0;
    for (int i = 0; i < size; i++) {
        if (cases_color(seed, k, scope, i) != cases_color(seed, k, scope, rank))
            continue;
        int at = n++;
        for (; at > 0 && cases_key(seed, k, scope, members[at - 1]) > cases_key(seed, k, scope, i);
             at--)
            members[at] = members[at - 1];
        members[at] = i;
    }
    for (*me = 0; members[*me] != rank; (*me)++)
        ;
    return n;
}

/* Digests after step k of the rank at `me` among `members`. */
static inline uint64_t cases_model_rank(const struct cases_step *s, const uint64_t *digests,
                                        const int *members, int n, int me)
{
    uint64_t d = digests[members[me]], root = s->root % (uint64_t)n;
    int distance = n > 1 ? 1 + (int)(s->distance % (uint64_t)(n - 1)) : 0;
    size_t shares = s->kind == CASES_ALLGATHER ? (size_t)n : 1;
    for (size_t i = 0; i < shares * s->words; i++) {
        uint64_t word = 0;
        switch (s->kind) {
        case CASES_ALLREDUCE:
            for (int m = 0; m < n; m++)
                word += (uint64_t)cases_word_units(cases_word(digests[members[m]], i));
            break;
        case CASES_ALLGATHER:
            word = cases_word(digests[members[i / s->words]], i % s->words);
            break;
        case CASES_BROADCAST:
            word = cases_word(digests[members[root]], i);
            break;
        case CASES_SHIFT:
        case CASES_KINDS:
            word = cases_word(digests[members[(me + n - distance) % n]], i);
            break;
        }
        d = cases_fold(d, word);
    }
    return d;
}

static inline void cases_model(uint64_t seed, uint64_t steps, int size, uint64_t *digests)
{
    for (int i = 0; i < size; i++)
        digests[i] = (uint64_t)i;
    for (uint64_t k = 0; k < steps; k++) {
        struct cases_step s = cases_step_at(seed, k);
        uint64_t after[CASES_MAX_RANKS];
        for (int i = 0; i < size; i++) {
            int members[CASES_MAX_RANKS], me;
            int n = cases_members(seed, k, s.scope, size, i, members, &me);
            after[i] = cases_model_rank(&s, digests, members, n, me);
        }
        memcpy(digests, after, (size_t)size * sizeof *digests);
    }
}

/* One step over `c`; `in` has room for all ranks' words. */
static inline enum status cases_run_step(struct comm *c, const struct cases_step *s,
                                         uint64_t *digest, uint64_t *out, uint64_t *in,
                                         struct error *err)
{
    size_t bytes = s->words * sizeof *out, shares = 1;
    const uint64_t *result = out;
    double *x = (double *)(void *)in;
    int distance = c->size > 1 ? 1 + (int)(s->distance % (uint64_t)(c->size - 1)) : 0;
    for (size_t i = 0; i < s->words; i++)
        out[i] = cases_word(*digest, i);
    if (s->kind == CASES_ALLREDUCE) {
        for (size_t i = 0; i < s->words; i++)
            x[i] = ldexp((double)cases_word_units(out[i]), -32);
        TRY(comm_allreduce_f64(c, x, s->words, err));
        for (size_t i = 0; i < s->words; i++)
            out[i] = (uint64_t)(int64_t)ldexp(x[i], 32);
    } else if (s->kind == CASES_ALLGATHER) {
        TRY(c->ops->allgather(c, out, bytes, in, err));
        result = in;
        shares = (size_t)c->size;
    } else if (s->kind == CASES_BROADCAST) {
        TRY(comm_broadcast(c, (int)(s->root % (uint64_t)c->size), out, bytes, err));
    } else if (distance > 0) {
        TRY(cases_shift(c, distance, out, in, bytes, err));
        result = in;
    }
    for (size_t i = 0; i < shares * s->words; i++)
        *digest = cases_fold(*digest, result[i]);
    return OK;
}

static inline enum status cases_run_program(struct comm *c, uint64_t seed, uint64_t steps,
                                            uint64_t *digest, uint64_t *out, uint64_t *in,
                                            struct error *err)
{
    for (uint64_t k = 0; k < steps; k++) {
        struct cases_step s = cases_step_at(seed, k);
        struct comm *scope = c;
        if (s.scope != 0)
            TRY(c->ops->split(c, cases_color(seed, k, s.scope, c->rank),
                              cases_key(seed, k, s.scope, c->rank), &scope, err));
        enum status st = cases_run_step(scope, &s, digest, out, in, err);
        if (scope != c)
            scope->ops->destroy(scope);
        if (st != OK) {
            error_prefix(err, "seed %llu, step %llu: ", (unsigned long long)seed,
                         (unsigned long long)k);
            return st;
        }
    }
    return OK;
}

static inline enum status cases_program(struct comm *c, uint64_t seed, uint64_t steps,
                                        struct error *err)
{
    uint64_t digests[CASES_MAX_RANKS], digest = (uint64_t)c->rank;
    uint64_t *out = malloc(CASES_MAX_WORDS * sizeof *out);
    uint64_t *in = malloc((size_t)c->size * CASES_MAX_WORDS * sizeof *in);
    enum status st = cases_run_program(c, seed, steps, &digest, out, in, err);
    free(out);
    free(in);
    TRY(st);
    cases_model(seed, steps, c->size, digests);
    if (digest != digests[c->rank])
        return error_set(err, ERR_INVALID, "seed %llu: the model disagrees after %llu steps",
                         (unsigned long long)seed, (unsigned long long)steps);
    return OK;
}

/* Ranks of one machine see what the others write, from zeroes on; a handle given back leaves theirs
 * alone. */
static inline enum status cases_share_bytes(struct comm *node, size_t bytes, struct error *err)
{
    struct shared_memory m = {0};
    TRY(comm_share(node, bytes, &m, err));
    unsigned char *at = m.at;
    for (size_t i = 0; i < bytes; i++)
        EXPECT(at[i] == 0);
    TRY(comm_agree(node, OK, err));
    for (size_t i = (size_t)node->rank; i < bytes; i += (size_t)node->size)
        at[i] = (unsigned char)(1 + i % 250);
    TRY(comm_agree(node, OK, err));
    if (node->rank % 2 == 1)
        comm_unshare(&m);
    TRY(comm_agree(node, OK, err));
    for (size_t i = 0; m.at && i < bytes; i++)
        EXPECT(at[i] == 1 + i % 250);
    comm_unshare(&m);
    comm_unshare(&m); /* does no harm */
    return OK;
}

static inline enum status cases_share(struct comm *c, struct error *err)
{
    static const size_t bytes[] = {1, 8, 4096, 1000003};
    struct comm *node = NULL;
    TRY(c->ops->split_node(c, &node, err));
    EXPECT(node->size == c->size && node->rank == c->rank); /* the tests have one machine */
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++)
        TRY(cases_share_bytes(node, bytes[i], err));
    node->ops->destroy(node);
    return OK;
}

#endif
