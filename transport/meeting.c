/*
 * Ranks meet in memory that they share: see meeting.h.
 *
 * Every rank has a seat, which says what call it has come to, and two slots, for what it lays down
 * in calls of even and of odd number. One rule carries the rest: a rank writes a slot for call k
 * once all have come to call k - 1, as who comes to k - 1 has read all that it wants of k - 2,
 * which was the slot's last use. A long message is one call a piece.
 *
 * A sum adds ranks in their order. Of few ranks or numbers every rank adds up all; else each one
 * slice, and the sums are laid down as the next call.
 */
#include "transport/meeting.h"

#include "base/check.h"
#include "transport/word.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    MEETING_PIECE_BYTES = 256 * 1024, /* of a slot: a rank's two lie in its second-level cache */
    MEETING_ALL_BYTES = 16 * 1024 * 1024,
    MEETING_WHOLE_BYTES = 16 * 1024, /* of all ranks together; more is summed in slices */
    MEETING_BLOCK_DOUBLES = 512,     /* of a sum kept in the first-level cache */
    LINE_DOUBLES = WORD_LINE / sizeof(double),
    /* A wait sleeps so long at first, and twice as long each time up to the most; from the most on
     * it also sees whether who is waited for lives. */
    MEETING_SLEEP_MS = 1,
    MEETING_SLEEP_MOST_MS = 512,
};

enum call { CALL_START, CALL_ALLREDUCE, CALL_ALLGATHER, CALL_BROADCAST };

static const char *const call_names[] = {"start", "all-reduce", "all-gather", "broadcast"};

/* What a rank calls with; equal in all ranks. */
struct record {
    uint32_t call; /* enum call */
    int32_t root;
    uint64_t bytes; /* of the whole message */
};

struct seat {
    _Alignas(WORD_LINE) struct word came; /* to the call of this number, its slot filled */
    struct record records[2];             /* of calls of even and of odd number */
    _Alignas(WORD_LINE) pid_t pid;        /* written before the first call, as is the next */
    cpu_set_t cores;
};

struct meeting {
    struct seat *seats;   /* [size] */
    unsigned char *slots; /* [size][2][piece] */
    size_t piece;         /* bytes: whole lines */
    int rank, size;
    uint32_t call; /* of this number is the present or the last one; modulo 2^32 */
    uint32_t met;  /* all have been seen to come to this one */
    struct word_patience patience;
    void (*idle)(void *arg);
    void *arg;
    pid_t *watched; /* [size]; 0: a process that cannot be seen from here */
};

size_t meeting_bytes(int size)
{
    size_t ranks = (size_t)size, most = MEETING_ALL_BYTES / (2 * ranks) / WORD_LINE * WORD_LINE;
    size_t piece = most < MEETING_PIECE_BYTES ? most : MEETING_PIECE_BYTES;
    return ranks * (sizeof(struct seat) + 2 * piece);
}

enum status meeting_create(void *at, size_t bytes, int rank, int size, void (*idle)(void *arg),
                           void *arg, struct meeting **out, struct error *err)
{
    size_t ranks = (size_t)size, seats = ranks * sizeof(struct seat);
    CHECK(size >= 1 && size <= MEETING_MAX_RANKS && rank >= 0 && rank < size &&
              bytes >= seats + ranks * 2 * WORD_LINE,
          "%zu bytes for rank %d of %d to meet in", bytes, rank, size);
    struct meeting *m = calloc(1, sizeof *m);
    pid_t *watched = calloc(ranks, sizeof *watched);
    if (!m || !watched) {
        free(m);
        free(watched);
        return error_set(err, ERR_NO_MEMORY, "no memory to meet %d ranks", size);
    }
    *m = (struct meeting){.seats = at,
                          .slots = (unsigned char *)at + seats,
                          .piece = (bytes - seats) / (2 * ranks) / WORD_LINE * WORD_LINE,
                          .rank = rank,
                          .size = size,
                          .patience = word_patience(size, 1),
                          .idle = idle,
                          .arg = arg,
                          .watched = watched};
    *out = m;
    return OK;
}

void meeting_destroy(struct meeting *m)
{
    if (!m)
        return;
    free(m->watched);
    free(m);
}

/* ---- coming and waiting ---- */

/* What `rank` lays down in a call. */
static void *slot(const struct meeting *m, int rank, uint32_t call)
{
    return m->slots + ((size_t)rank * 2 + (call & 1)) * m->piece;
}

static void copy(void *to, const void *from, size_t bytes)
{
    if (bytes > 0)
        memcpy(to, from, bytes);
}

/* `now` is call `until` or a later one. */
static bool reached(uint32_t now, uint32_t until)
{
    return now - until <= INT32_MAX;
}

/* Process numbers that were there are not given out anew within seconds. */
static enum status look_after(const struct meeting *m, int rank, uint32_t until, struct error *err)
{
    pid_t pid = m->watched[rank];
    if (pid == 0 || kill(pid, 0) == 0 || errno != ESRCH)
        return OK;
    /* It may have come, and ended since. */
    if (reached(atomic_load(&m->seats[rank].came.value), until))
        return OK;
    return error_set(err, ERR_PEER, "rank %d of %d of this machine, process %d, has ended", rank,
                     m->size, (int)pid);
}

/* Until `rank` has come to call `until`. */
static enum status wait_for(const struct meeting *m, int rank, uint32_t until, struct error *err)
{
    struct word *w = &m->seats[rank].came;
    uint32_t now = atomic_load_explicit(&w->value, memory_order_acquire);
    struct word_patience p = m->patience;
    for (int ms = MEETING_SLEEP_MS; !reached(now, until);) {
        uint32_t seen = now;
        now = word_wait(w, seen, p, true, ms);
        if (now != seen)
            continue;
        p = (struct word_patience){0, 0};
        if (m->idle)
            m->idle(m->arg);
        if (ms >= MEETING_SLEEP_MOST_MS)
            TRY(look_after(m, rank, until, err));
        else
            ms *= 2;
    }
    return OK;
}

static void check_same(const struct meeting *m, int rank)
{
    const struct record *mine = &m->seats[m->rank].records[m->call & 1];
    const struct record *theirs = &m->seats[rank].records[m->call & 1];
    CHECK(mine->call == theirs->call && mine->root == theirs->root && mine->bytes == theirs->bytes,
          "rank %d calls %s of %llu bytes, root %d; rank %d %s of %llu bytes, root %d", m->rank,
          call_names[mine->call], (unsigned long long)mine->bytes, mine->root, rank,
          call_names[theirs->call], (unsigned long long)theirs->bytes, theirs->root);
}

/* Until all have come to the present call, and the same one. */
static enum status wait_for_all(struct meeting *m, struct error *err)
{
    if (m->met == m->call)
        return OK;
    for (int rank = 0; rank < m->size; rank++) {
        if (rank == m->rank)
            continue;
        TRY(wait_for(m, rank, m->call, err));
        check_same(m, rank);
    }
    m->met = m->call;
    return OK;
}

/* Turns to the next call, for which this rank's slot is free then. */
static enum status turn(struct meeting *m, enum call call, int root, size_t bytes,
                        struct error *err)
{
    TRY(wait_for_all(m, err));
    m->call++;
    m->seats[m->rank].records[m->call & 1] = (struct record){(uint32_t)call, root, bytes};
    return OK;
}

/* The slot is filled: this rank has come. */
static void come(const struct meeting *m)
{
    struct word *w = &m->seats[m->rank].came;
    atomic_store(&w->value, m->call);
    word_wake(w, true);
}

static enum status meet(struct meeting *m, struct error *err)
{
    come(m);
    return wait_for_all(m, err);
}

enum status meeting_start(struct meeting *m, struct error *err)
{
    struct seat *mine = &m->seats[m->rank];
    cpu_set_t cores;
    mine->pid = getpid();
    CPU_ZERO(&mine->cores);
    sched_getaffinity(0, sizeof mine->cores, &mine->cores); /* failing: none, and it yields more */
    /* Its pages come to lie where this rank runs. */
    memset(m->slots + (size_t)m->rank * 2 * m->piece, 0, 2 * m->piece);
    TRY(turn(m, CALL_START, 0, m->piece, err));
    TRY(meet(m, err));
    CPU_ZERO(&cores);
    for (int rank = 0; rank < m->size; rank++) {
        const struct seat *s = &m->seats[rank];
        CPU_OR(&cores, &cores, &s->cores);
        if (kill(s->pid, 0) == 0 || errno != ESRCH)
            m->watched[rank] = s->pid;
    }
    m->patience = word_patience(m->size, CPU_COUNT(&cores));
    return OK;
}

/* ---- sums ---- */

static void add_f64(double *restrict sum, const double *restrict a, const double *restrict b,
                    size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum[i] = a[i] + b[i];
}

static void add_to_f64(double *restrict sum, const double *restrict x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum[i] += x[i];
}

/* Numbers [begin, end) that ranks, two or more, have laid down in `call`, added up into sum's. */
static void add_up(const struct meeting *m, uint32_t call, size_t begin, size_t end, double *sum)
{
    for (size_t at = begin; at < end; at += MEETING_BLOCK_DOUBLES) {
        size_t n = end - at < MEETING_BLOCK_DOUBLES ? end - at : MEETING_BLOCK_DOUBLES;
        const double *first = slot(m, 0, call), *second = slot(m, 1, call);
        add_f64(sum + at, first + at, second + at, n);
        for (int rank = 2; rank < m->size; rank++)
            add_to_f64(sum + at, (const double *)slot(m, rank, call) + at, n);
    }
}

/* Where rank `rank`'s slice of `count` numbers begins; they are whole lines. */
static size_t slice(const struct meeting *m, int rank, size_t count)
{
    size_t lines = (count + LINE_DOUBLES - 1) / LINE_DOUBLES;
    size_t begin = lines * (size_t)rank / (size_t)m->size * LINE_DOUBLES;
    return begin < count ? begin : count;
}

/* The slots hold `count` numbers of each rank; each adds up its slice and gets the others'. */
static enum status sum_slices(struct meeting *m, double *x, size_t count, size_t bytes,
                              struct error *err)
{
    TRY(turn(m, CALL_ALLREDUCE, 0, bytes, err));
    double *sums = slot(m, m->rank, m->call);
    add_up(m, m->call - 1, slice(m, m->rank, count), slice(m, m->rank + 1, count), sums);
    TRY(meet(m, err));
    for (int rank = 0; rank < m->size; rank++) {
        size_t begin = slice(m, rank, count), end = slice(m, rank + 1, count);
        sums = slot(m, rank, m->call);
        copy(x + begin, sums + begin, (end - begin) * sizeof *x);
    }
    return OK;
}

/* A piece of the message of `bytes`. */
static enum status sum_piece(struct meeting *m, double *x, size_t count, size_t bytes,
                             struct error *err)
{
    bool whole = m->size == 2 || count * sizeof *x <= MEETING_WHOLE_BYTES / (size_t)m->size;
    TRY(turn(m, CALL_ALLREDUCE, 0, bytes, err));
    copy(slot(m, m->rank, m->call), x, count * sizeof *x);
    TRY(meet(m, err));
    if (!whole)
        return sum_slices(m, x, count, bytes, err);
    add_up(m, m->call, 0, count, x);
    return OK;
}

enum status meeting_allreduce_f64(struct meeting *m, double *x, size_t count, struct error *err)
{
    const size_t piece = m->piece / sizeof *x;
    size_t at = 0;
    if (m->size == 1)
        return OK;
    do {
        size_t n = count - at < piece ? count - at : piece;
        TRY(sum_piece(m, x + at, n, count * sizeof *x, err));
        at += n;
    } while (at < count);
    return OK;
}

/* ---- bytes ---- */

enum status meeting_allgather(struct meeting *m, const void *send, size_t bytes, void *recv,
                              struct error *err)
{
    const unsigned char *from = send;
    unsigned char *to = recv;
    size_t at = 0;
    do {
        size_t n = bytes - at < m->piece ? bytes - at : m->piece;
        TRY(turn(m, CALL_ALLGATHER, 0, bytes, err));
        copy(slot(m, m->rank, m->call), from + at, n);
        TRY(meet(m, err));
        for (int rank = 0; rank < m->size; rank++)
            copy(to + (size_t)rank * bytes + at, slot(m, rank, m->call), n);
        at += n;
    } while (at < bytes);
    return OK;
}

enum status meeting_broadcast(struct meeting *m, int root, void *x, size_t bytes, struct error *err)
{
    unsigned char *p = x;
    size_t at = 0;
    CHECK(root >= 0 && root < m->size, "root %d of %d ranks", root, m->size);
    do {
        size_t n = bytes - at < m->piece ? bytes - at : m->piece;
        TRY(turn(m, CALL_BROADCAST, root, bytes, err));
        if (m->rank == root)
            copy(slot(m, root, m->call), p + at, n);
        come(m);
        if (m->rank != root) {
            TRY(wait_for(m, root, m->call, err));
            check_same(m, root);
            copy(p + at, slot(m, root, m->call), n);
        }
        at += n;
    } while (at < bytes);
    return OK;
}
