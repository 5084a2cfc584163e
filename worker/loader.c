/* Reading a checkpoint once for all ranks of a machine: see loader.h. */
#include "worker/loader.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/pool.h"
#include "base/process.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { REPORT_NS = 100000000, PAGE = 4096, MAX_SLOTS = 4096 };

/* --- what ranks share --- */

enum slot_state { SLOT_FREE, SLOT_READING, SLOT_READY };

struct slot {
    enum slot_state state;
    int32_t chunk;   /* of the list */
    int32_t wanting; /* ranks that have yet to take from it */
};

/* At the beginning of the shared memory; the slots' bytes begin at `data_offset`. */
struct ring {
    pthread_mutex_t lock; /* over all below */
    pthread_cond_t changed;
    int32_t next; /* chunk to be read */
    bool failed;  /* all stop */
    uint64_t read_bytes;
    struct slot slots[MAX_SLOTS];
};

static size_t data_offset(void)
{
    return (sizeof(struct ring) + PAGE - 1) / PAGE * PAGE;
}

/* --- one rank's view --- */

/* A chunk that somebody wants. */
struct chunk {
    int32_t file;
    uint32_t index;
    size_t begin, end;           /* of it, what is wanted: from the first byte to the last */
    int32_t wanting;             /* ranks */
    int32_t last;                /* of them */
    const struct weight *weight; /* a weight in it, for messages */
};

/* Bytes of a chunk that this rank takes. */
struct part {
    int32_t chunk;
    int32_t piece;
    int64_t want;
};

struct loader {
    struct checkpoint *ck;
    const struct inventory *inv;
    const struct load_wants *wants, *mine; /* of all `ranks`, of this one */
    int ranks;
    struct memory *memory; /* where its wants are put */
    struct ring *ring;
    char *data;
    int32_t slot_count;
    struct chunk *chunks; /* in the order of the files */
    int32_t chunk_count;
    uint64_t total;
    struct part *parts; /* sorted by chunk */
    int64_t part_count, part_cap;
    int64_t *first;         /* [chunk_count + 1]: a chunk's first part */
    bool *taken;            /* [chunk_count], under the ring's lock */
    int32_t left;           /* chunks to be taken; the same */
    char **staged;          /* [mine->count]: bytes of what is to be converted */
    atomic_ullong *missing; /* [mine->count]: of those */
    pthread_mutex_t lock;   /* over `staged` and `err` */
    struct error err;
    load_progress progress;
    void *progress_arg;
    int64_t last_report;
};

enum status load_wants_push(struct load_wants *w, const struct load_want *want, struct error *err)
{
    if (w->count == w->cap) {
        int64_t cap = w->cap ? 2 * w->cap : 256;
        struct load_want *p = realloc(w->list, (size_t)cap * sizeof *p);
        if (!p)
            return error_set(err, ERR_NO_MEMORY, "no memory for the loader's list");
        w->list = p;
        w->cap = cap;
    }
    w->list[w->count++] = *want;
    return OK;
}

void load_wants_fini(struct load_wants *w)
{
    free(w->list);
    *w = (struct load_wants){0};
}

/* --- which chunks are wanted, and by whom --- */

/* The first and last byte of a piece in its file. */
static uint64_t first_byte(const struct weight_piece *p)
{
    return p->offset;
}

static uint64_t last_byte(const struct weight_piece *p)
{
    return p->offset + (uint64_t)(p->rows - 1) * p->stride + p->run - 1;
}

/* Every chunk of every file, with how much of it is wanted; *base[file] is its first. */
struct survey {
    struct chunk *all;
    int64_t *base; /* [files + 1] */
};

static enum status survey_begin(const struct checkpoint *ck, struct survey *s, struct error *err)
{
    int files = checkpoint_file_count(ck);
    s->base = calloc((size_t)files + 1, sizeof *s->base);
    if (!s->base)
        return error_set(err, ERR_NO_MEMORY, "no memory for the loader's list");
    for (int f = 0; f < files; f++)
        s->base[f + 1] = s->base[f] + (int64_t)((checkpoint_file_bytes(ck, f) + LOADER_CHUNK - 1) /
                                                LOADER_CHUNK);
    if (s->base[files] > INT32_MAX)
        return error_set(err, ERR_LIMIT, "expected at most %d chunks of %d bytes, found more",
                         INT32_MAX, LOADER_CHUNK);
    s->all = calloc((size_t)s->base[files] + 1, sizeof *s->all);
    return s->all ? OK : error_set(err, ERR_NO_MEMORY, "no memory for the loader's list");
}

static void survey_piece(struct survey *s, int rank, const struct weight *w,
                         const struct weight_piece *p)
{
    uint64_t begin = first_byte(p), last = last_byte(p);
    for (uint64_t c = begin / LOADER_CHUNK; c <= last / LOADER_CHUNK; c++) {
        struct chunk *k = &s->all[s->base[p->file] + (int64_t)c];
        uint64_t at = c * LOADER_CHUNK;
        size_t low = begin > at ? (size_t)(begin - at) : 0;
        size_t high = last < at + LOADER_CHUNK ? (size_t)(last - at) + 1 : LOADER_CHUNK;
        if (k->wanting == 0)
            *k = (struct chunk){p->file, (uint32_t)c, low, high, 0, -1, w};
        if (k->last != rank)
            k->wanting++;
        k->last = rank;
        k->begin = low < k->begin ? low : k->begin;
        k->end = high > k->end ? high : k->end;
    }
}

static void survey_wants(struct survey *s, int rank, const struct load_wants *wants)
{
    for (int64_t i = 0; i < wants->count; i++)
        for (int p = 0; p < wants->list[i].cut.count; p++)
            survey_piece(s, rank, wants->list[i].cut.weight, &wants->list[i].cut.pieces[p]);
}

/* Keeps the wanted ones, in order, and leaves in `last` where each went. */
static void survey_end(struct loader *l, struct survey *s, int files)
{
    int64_t n = 0;
    for (int64_t i = 0; i < s->base[files]; i++) {
        if (s->all[i].wanting == 0)
            continue;
        l->total += checkpoint_chunk_bytes(l->ck, s->all[i].file, s->all[i].index, s->all[i].begin,
                                           s->all[i].end);
        s->all[i].last = (int32_t)n++;
    }
    l->chunk_count = (int32_t)n;
}

static enum status push_part(struct loader *l, struct part part, struct error *err)
{
    if (l->part_count == l->part_cap) {
        l->part_cap = l->part_cap ? 2 * l->part_cap : 256;
        struct part *p = realloc(l->parts, (size_t)l->part_cap * sizeof *p);
        if (!p)
            return error_set(err, ERR_NO_MEMORY, "no memory for the loader's list");
        l->parts = p;
    }
    l->parts[l->part_count++] = part;
    return OK;
}

static enum status find_parts(struct loader *l, const struct survey *s, struct error *err)
{
    for (int64_t i = 0; i < l->mine->count; i++) {
        const struct weight_cut *cut = &l->mine->list[i].cut;
        for (int32_t p = 0; p < cut->count; p++) {
            const struct weight_piece *piece = &cut->pieces[p];
            uint64_t last = last_byte(piece) / LOADER_CHUNK;
            for (uint64_t c = first_byte(piece) / LOADER_CHUNK; c <= last; c++) {
                const struct chunk *k = &s->all[s->base[piece->file] + (int64_t)c];
                TRY(push_part(l, (struct part){k->last, p, i}, err));
            }
            atomic_fetch_add(&l->missing[i], piece->run * (uint64_t)piece->rows);
        }
    }
    return OK;
}

static int by_chunk(const void *a, const void *b)
{
    const struct part *x = a, *y = b;
    if (x->chunk != y->chunk)
        return x->chunk < y->chunk ? -1 : 1;
    return x->want < y->want ? -1 : x->want > y->want;
}

static enum status list_chunks(struct loader *l, const struct survey *s, int files,
                               struct error *err)
{
    size_t n = (size_t)l->chunk_count;
    l->chunks = calloc(n + 1, sizeof *l->chunks);
    l->first = calloc(n + 1, sizeof *l->first);
    l->taken = calloc(n + 1, sizeof *l->taken);
    l->staged = calloc((size_t)l->mine->count + 1, sizeof *l->staged);
    l->missing = calloc((size_t)l->mine->count + 1, sizeof *l->missing);
    if (!l->chunks || !l->first || !l->taken || !l->staged || !l->missing)
        return error_set(err, ERR_NO_MEMORY, "no memory for the loader's list");
    for (int64_t i = 0; i < s->base[files]; i++)
        if (s->all[i].wanting > 0)
            l->chunks[s->all[i].last] = s->all[i];
    TRY(find_parts(l, s, err));
    if (l->part_count > 0)
        qsort(l->parts, (size_t)l->part_count, sizeof *l->parts, by_chunk);
    int64_t at = 0;
    for (int32_t c = 0; c < l->chunk_count; c++) {
        l->first[c] = at;
        while (at < l->part_count && l->parts[at].chunk == c)
            at++;
        l->left += at > l->first[c];
    }
    l->first[l->chunk_count] = at;
    return OK;
}

static enum status survey(struct loader *l, struct error *err)
{
    struct survey s = {0};
    int files = checkpoint_file_count(l->ck);
    enum status st = survey_begin(l->ck, &s, err);
    for (int r = 0; st == OK && r < l->ranks; r++)
        survey_wants(&s, r, &l->wants[r]);
    if (st == OK) {
        survey_end(l, &s, files);
        st = list_chunks(l, &s, files, err);
    }
    free(s.all);
    free(s.base);
    return st;
}

/* --- taking from a chunk --- */

/* Puts what the piece has in [begin, begin + len) of its file, which lies in `from`, to its place;
 * *copied: the bytes. Whole rows go together, the first and the last may be cut by the chunk. */
static enum status put_piece(const struct weight_piece *p, uint64_t begin, size_t len,
                             const char *from, struct memory *memory, char *to, uint64_t *copied,
                             struct error *err)
{
    uint64_t end = begin + len, rows = (uint64_t)p->rows;
    for (uint64_t r = begin > p->offset ? (begin - p->offset) / p->stride : 0; r < rows;) {
        uint64_t at = p->offset + r * p->stride, count = 1;
        uint64_t low = at > begin ? at : begin, high = at + p->run < end ? at + p->run : end;
        if (at >= end)
            break;
        if (high - low == p->run && low == at && high > low)
            count = 1 + (end - high) / p->stride;
        count = count < rows - r ? count : rows - r;
        if (high > low) {
            TRY(memory->put(memory, to + r * p->run + (low - at), p->run, from + (low - begin),
                            p->stride, high - low, count, err));
            *copied += (high - low) * count;
        }
        r += count;
    }
    return OK;
}

/* Where a want's bytes are gathered before they are converted; NULL, and the error set, when there
 * is no memory. */
static char *stage_of(struct loader *l, int64_t i, struct error *err)
{
    const struct load_want *w = &l->mine->list[i];
    pthread_mutex_lock(&l->lock);
    if (!l->staged[i])
        l->staged[i] = malloc(w->cut.bytes);
    char *at = l->staged[i];
    pthread_mutex_unlock(&l->lock);
    if (!at)
        error_set(err, ERR_NO_MEMORY, "no memory for %zu bytes of a weight", w->cut.bytes);
    return at;
}

static enum status pack_want(struct loader *l, const struct load_want *w, const char *staged,
                             struct error *err)
{
    const struct quant_rect *rect = &w->cut.rect;
    struct weight_shape s = weight_shape(l->inv, w->cut.weight, rect->rows, rect->cols);
    if (l->memory->host)
        return weight_pack(l->inv, &w->cut, staged, w->to, w->scales, err);
    char *rows = malloc(s.bytes);
    if (!rows)
        return error_set(err, ERR_NO_MEMORY, "no memory for %llu bytes of a weight",
                         (unsigned long long)s.bytes);
    uint64_t scales = s.used - s.scales_at;
    enum status st = weight_pack(l->inv, &w->cut, staged, rows, rows + s.scales_at, err);
    if (st == OK)
        st = l->memory->put(l->memory, w->to, s.scales_at, rows, s.scales_at, s.scales_at, 1, err);
    if (st == OK && scales > 0)
        st = l->memory->put(l->memory, w->scales, scales, rows + s.scales_at, scales, scales, 1,
                            err);
    free(rows);
    return st;
}

static enum status convert_want(struct loader *l, const struct load_want *w, const char *staged,
                                struct error *err)
{
    const struct quant_rect *rect = &w->cut.rect;
    size_t bytes = (size_t)rect->rows * (size_t)rect->cols * sizeof(float);
    if (w->pack)
        return pack_want(l, w, staged, err);
    if (l->memory->host)
        return weight_convert(l->inv, &w->cut, staged, (float *)(void *)w->to, err);
    float *values = malloc(bytes);
    if (!values)
        return error_set(err, ERR_NO_MEMORY, "no memory for %zu bytes of a weight", bytes);
    enum status st = weight_convert(l->inv, &w->cut, staged, values, err);
    if (st == OK)
        st = l->memory->put(l->memory, w->to, bytes, values, bytes, bytes, 1, err);
    free(values);
    return st;
}

static enum status take_part(struct loader *l, const struct part *p, const struct chunk *c,
                             const char *from, struct error *err)
{
    const struct load_want *w = &l->mine->list[p->want];
    const struct weight_piece *piece = &w->cut.pieces[p->piece];
    char *staged = w->convert ? stage_of(l, p->want, err) : NULL;
    if (w->convert && !staged)
        return ERR_NO_MEMORY;
    uint64_t begin = (uint64_t)c->index * LOADER_CHUNK + c->begin, bytes = 0;
    TRY(put_piece(piece, begin, c->end - c->begin, from + c->begin,
                  staged ? memory_host() : l->memory, (staged ? staged : w->to) + piece->at, &bytes,
                  err));
    if (bytes == 0 || atomic_fetch_sub(&l->missing[p->want], bytes) != bytes || !staged)
        return OK;
    enum status st = convert_want(l, w, staged, err);
    if (st == ERR_INVALID) { /* its g_idx, or a value that is no number */
        const struct weight *of = w->cut.weight;
        bool ordered = of->store == STORE_GROUPS && of->order.file >= 0;
        error_prefix(err, "%s: ", checkpoint_file_name(l->ck, ordered ? of->order.file : of->file));
        error_advise(err, st, "fetch the file again");
    }
    free(staged);
    l->staged[p->want] = NULL; /* nobody else comes for it */
    return st;
}

static enum status take_chunk(struct loader *l, int32_t chunk, const char *from,
                              const struct weight **of, struct error *err)
{
    for (int64_t i = l->first[chunk]; i < l->first[chunk + 1]; i++) {
        *of = l->mine->list[l->parts[i].want].cut.weight;
        TRY(take_part(l, &l->parts[i], &l->chunks[chunk], from, err));
    }
    return OK;
}

/* --- the threads --- */

/* Puts the weight's name before the message. */
static void name_weight(struct error *err, const struct weight *w)
{
    const char *words = weight_role_words(w->role);
    if (w->expert >= 0)
        error_prefix(err, "%s of layer %d expert %d: ", words, w->layer, w->expert);
    else if (w->layer >= 0)
        error_prefix(err, "%s of layer %d: ", words, w->layer);
    else
        error_prefix(err, "%s: ", words);
}

static void stop_all(struct loader *l)
{
    pthread_mutex_lock(&l->ring->lock);
    l->ring->failed = true;
    pthread_cond_broadcast(&l->ring->changed);
    pthread_mutex_unlock(&l->ring->lock);
}

/* Under the ring's lock. */
static void fail(struct loader *l, const struct weight *w, const struct error *err)
{
    pthread_mutex_lock(&l->lock);
    if (l->err.code == OK) {
        l->err = *err;
        name_weight(&l->err, w);
    }
    pthread_mutex_unlock(&l->lock);
    l->ring->failed = true;
    pthread_cond_broadcast(&l->ring->changed);
}

/* A slot whose chunk this rank wants and no thread of it has taken; NULL: none now. */
static struct slot *find_ready(const struct loader *l)
{
    for (int32_t i = 0; i < l->slot_count; i++) {
        struct slot *s = &l->ring->slots[i];
        if (s->state == SLOT_READY && !l->taken[s->chunk] &&
            l->first[s->chunk] < l->first[s->chunk + 1])
            return s;
    }
    return NULL;
}

static struct slot *find_free(const struct loader *l)
{
    for (int32_t i = 0; l->ring->next < l->chunk_count && i < l->slot_count; i++)
        if (l->ring->slots[i].state == SLOT_FREE)
            return &l->ring->slots[i];
    return NULL;
}

static char *slot_data(const struct loader *l, const struct slot *s)
{
    return l->data + (size_t)(s - l->ring->slots) * LOADER_CHUNK;
}

/* Both are called with the ring's lock held and give it up while they work. */
static void take_slot(struct loader *l, struct slot *s)
{
    struct error err;
    const struct weight *of = l->chunks[s->chunk].weight;
    l->taken[s->chunk] = true;
    l->left--;
    pthread_mutex_unlock(&l->ring->lock);
    enum status st = take_chunk(l, s->chunk, slot_data(l, s), &of, &err);
    pthread_mutex_lock(&l->ring->lock);
    if (st != OK)
        fail(l, of, &err);
    if (--s->wanting == 0) {
        s->state = SLOT_FREE;
        pthread_cond_broadcast(&l->ring->changed);
    }
}

static void read_slot(struct loader *l, struct slot *s)
{
    struct error err;
    struct chunk *c = &l->chunks[l->ring->next];
    *s = (struct slot){SLOT_READING, l->ring->next++, c->wanting};
    pthread_mutex_unlock(&l->ring->lock);
    enum status st = checkpoint_read_chunk(l->ck, c->file, c->index, c->begin, c->end,
                                           slot_data(l, s), &err);
    pthread_mutex_lock(&l->ring->lock);
    if (st != OK) {
        fail(l, c->weight, &err);
        return;
    }
    s->state = SLOT_READY;
    l->ring->read_bytes += checkpoint_chunk_bytes(l->ck, c->file, c->index, c->begin, c->end);
    pthread_cond_broadcast(&l->ring->changed);
}

static void report(struct loader *l)
{
    int64_t now = clock_now_ns();
    if (!l->progress || now - l->last_report < REPORT_NS)
        return;
    l->last_report = now;
    l->progress(l->progress_arg, l->ring->read_bytes, l->total);
}

static void load_thread(void *arg, int thread)
{
    struct loader *l = arg;
    struct ring *ring = l->ring;
    pthread_mutex_lock(&ring->lock);
    while (!ring->failed && (l->left > 0 || ring->next < l->chunk_count)) {
        struct slot *ready = find_ready(l), *empty = ready ? NULL : find_free(l);
        if (ready)
            take_slot(l, ready);
        else if (empty)
            read_slot(l, empty);
        else
            pthread_cond_wait(&ring->changed, &ring->lock);
        if (thread == 0)
            report(l);
    }
    pthread_mutex_unlock(&ring->lock);
}

/* --- bringing it up --- */

static enum status ring_init(struct ring *ring, struct error *err)
{
    pthread_mutexattr_t mutex;
    pthread_condattr_t cond;
    pthread_mutexattr_init(&mutex);
    pthread_condattr_init(&cond);
    pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
    pthread_condattr_setpshared(&cond, PTHREAD_PROCESS_SHARED);
    int rc = pthread_mutex_init(&ring->lock, &mutex);
    if (rc == 0)
        rc = pthread_cond_init(&ring->changed, &cond);
    pthread_mutexattr_destroy(&mutex);
    pthread_condattr_destroy(&cond);
    return rc == 0 ? OK : error_errno(err, rc, "the loader's lock");
}

/* Is there room for the files in the page cache beside the weights? Then the next start finds them
 * there; else reading through it only costs copies and pushes out what others keep. */
static bool cache_has_room(uint64_t bytes)
{
    return bytes < process_available_bytes() / 4;
}

int loader_threads(void)
{
    int cpus = cpu_count();
    return cpus < 2 ? 2 : cpus < LOADER_MAX_THREADS ? cpus : LOADER_MAX_THREADS;
}

static enum status run_threads(struct loader *l, struct error *err)
{
    struct pool *pool = NULL;
    enum status st = pool_create(loader_threads(), false, &pool, err);
    if (st == OK)
        pool_run(pool, load_thread, l);
    else
        stop_all(l);
    pool_destroy(pool);
    if (st == OK && l->err.code != OK) {
        *err = l->err;
        st = err->code;
    }
    return st;
}

enum status loader_create(struct checkpoint *ck, const struct inventory *inv,
                          const struct load_wants *wants, int ranks, int me, struct memory *memory,
                          struct loader **out, struct error *err)
{
    struct loader *l = calloc(1, sizeof *l);
    if (!l)
        return error_set(err, ERR_NO_MEMORY, "no memory for the loader");
    *l = (struct loader){
        .ck = ck, .inv = inv, .wants = wants, .mine = &wants[me], .ranks = ranks, .memory = memory};
    pthread_mutex_init(&l->lock, NULL);
    enum status st = survey(l, err);
    if (st != OK) {
        loader_destroy(l);
        return st;
    }
    int32_t slots = ranks + LOADER_SPARE_SLOTS;
    l->slot_count = slots < l->chunk_count ? slots : l->chunk_count;
    *out = l;
    return OK;
}

void loader_destroy(struct loader *l)
{
    if (!l)
        return;
    for (int64_t i = 0; l->staged && i < l->mine->count; i++)
        free(l->staged[i]);
    free(l->chunks);
    free(l->parts);
    free(l->first);
    free(l->taken);
    free(l->staged);
    free(l->missing);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

uint64_t loader_buffer_bytes(const struct loader *l)
{
    return data_offset() + (uint64_t)l->slot_count * LOADER_CHUNK;
}

static enum status run_shared(struct loader *l, struct comm *node, struct error *err)
{
    enum status st = node->rank == 0 ? ring_init(l->ring, err) : OK;
    TRY(comm_agree(node, st, err));
    /* The first rank decides for all: files are the same, what each sees free may not be. */
    bool direct = !cache_has_room(l->total);
    TRY(comm_broadcast(node, 0, &direct, sizeof direct, err));
    checkpoint_begin_chunks(l->ck, direct);
    TRY(run_threads(l, err));
    if (l->progress && !l->ring->failed)
        l->progress(l->progress_arg, l->total, l->total);
    return OK;
}

/* For ranks that cannot share: the same over this rank's own wants. */
static enum status run_alone(struct loader *l, struct error *err)
{
    struct comm alone = comm_alone();
    struct loader *own = NULL;
    TRY(loader_create(l->ck, l->inv, l->mine, 1, 0, l->memory, &own, err));
    enum status st = loader_run(own, &alone, l->progress, l->progress_arg, err);
    loader_destroy(own);
    return st;
}

enum status loader_run(struct loader *l, struct comm *node, load_progress progress,
                       void *progress_arg, struct error *err)
{
    struct shared_memory shared = {0};
    CHECK(node->size == l->ranks, "%d ranks of %d", node->size, l->ranks);
    l->progress = progress;
    l->progress_arg = progress_arg;
    enum status st = comm_share(node, loader_buffer_bytes(l), &shared, err);
    if (st == ERR_UNSUPPORTED) {
        log_warn("each rank reads for itself: %s", err->msg);
        return run_alone(l, err);
    }
    TRY(st);
    l->ring = shared.at;
    l->data = (char *)shared.at + data_offset();
    st = run_shared(l, node, err);
    comm_unshare(&shared);
    return st;
}
