/* Weights kept for the next start: see weights_cache.h. */
#include "worker/weights_cache.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    AT_KEY = 16,
    AT_BYTES = 48,
    AT_VECTORS = 56,
    AT_CHUNKS = 64,
    AT_TABLE = 72,
    AT_ZEROS = 104,
    DATA_BORDER = 2 << 20, /* a huge page's */
    KEY_MAX_BYTES = 64 << 20,
    NAME_BYTES = 128,
};

static const char magic[AT_KEY + 1] = "witan weights 2\n";

struct weights_cache {
    char path[PATH_MAX]; /* for messages */
    char name[NAME_BYTES], aside[NAME_BYTES + 8];
    int dir;
    int fd; /* of the file while it is read, or -1 */
    bool direct;
    bool good; /* the file, as far as it was read */
    struct digest key;
    struct weights *w;
    uint64_t bytes; /* of the arena */
    uint32_t chunks;
    struct quick_sum *table; /* [table_bytes / 16]: `chunks` of them, then zeros */
    size_t table_bytes;
};

/* --- which file it is --- */

/* Everything that decides what lies where in the arena. */
static enum status print_key(const struct manifest *m, const struct inventory *inv,
                             const struct plan *plan, const struct rank_plan *rank, struct buf *out,
                             struct error *err)
{
    const struct layout *l = &plan->layout;
    TRY(buf_printf(out, err, "weights %d\nmanifest %s\npp %d tp %d ep %d w %d\nrank %d of %d\n",
                   WEIGHTS_FORMAT, manifest_digest(m), l->pp, l->tp, l->ep, l->w, rank->rank,
                   plan->world));
    for (int i = 0; i < 16 && inv->mode == WEIGHTS_INT4; i++)
        TRY(buf_printf(out, err, "code %d\n", panel_codebook[i]));
    for (int32_t i = 0; i < rank->slice_count; i++) {
        const struct slice *s = &rank->slices[i];
        const struct weight *t = &inv->weights[s->weight];
        enum weight_form form = weight_form(inv, t);
        TRY(buf_printf(
            out, err, "%s %d %d %s %lld+%lld %lld+%lld\n", weight_role_words(t->role), t->layer,
            t->expert, form == FORM_VALUES ? dtype_name(t->dtype) : weight_form_name(form),
            (long long)s->row, (long long)s->rows, (long long)s->col, (long long)s->cols));
    }
    return OK;
}

static enum status make_key(const struct manifest *m, const struct inventory *inv,
                            const struct plan *plan, const struct rank_plan *rank,
                            struct digest *out, struct error *err)
{
    struct buf text;
    buf_init(&text, KEY_MAX_BYTES);
    enum status st = print_key(m, inv, plan, rank, &text, err);
    if (st == OK)
        st = hash_parts(&(struct hash_part){text.data, text.len}, 1, out, err);
    buf_fini(&text);
    return st;
}

static enum status open_folder(struct weights_cache *c, const char *dir, struct error *err)
{
    struct stat s;
    c->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (c->dir < 0 || fstat(c->dir, &s) != 0) {
        error_errno(err, errno, "%s: weights cache", dir);
        return error_advise(err, err->code, "make the folder on every host, with mkdir -m 700");
    }
    if (s.st_uid != geteuid())
        return error_set(err, ERR_INVALID,
                         "%s: weights cache: expected a folder of user %u, who serves, found one "
                         "of user %u: who may write to it decides what is served",
                         dir, (unsigned)geteuid(), (unsigned)s.st_uid);
    if (s.st_mode & 022)
        return error_set(err, ERR_INVALID,
                         "%s: weights cache: expected a folder that only its owner may write to, "
                         "found mode %04o: who may write to it decides what is served; chmod go-w",
                         dir, (unsigned)(s.st_mode & 07777));
    return OK;
}

/* Panels lie beside what is as published, so that an operator may go to and fro. */
static enum status name_file(struct weights_cache *c, const char *dir, const struct manifest *m,
                             const struct inventory *inv, const struct plan *plan,
                             const struct rank_plan *rank, struct error *err)
{
    const struct layout *l = &plan->layout;
    bool panels = inv->mode == WEIGHTS_INT8 || inv->mode == WEIGHTS_INT4;
    snprintf(c->name, sizeof c->name, "%.16s-pp%d-tp%d-ep%d-w%d-rank%d%s%s.weights",
             manifest_digest(m), l->pp, l->tp, l->ep, l->w, rank->rank, panels ? "-" : "",
             panels ? weight_mode_name(inv->mode) : "");
    snprintf(c->aside, sizeof c->aside, "%s.part", c->name);
    int n = snprintf(c->path, sizeof c->path, "%s/%s", dir, c->name);
    if (n < 0 || (size_t)n >= sizeof c->path)
        return error_set(err, ERR_INVALID, "weights cache: expected a path below %d bytes",
                         PATH_MAX);
    return OK;
}

static enum status size_table(struct weights_cache *c, struct error *err)
{
    c->bytes = c->w->bytes + c->w->vector_bytes;
    c->chunks = (uint32_t)((c->bytes + LOADER_CHUNK - 1) / LOADER_CHUNK);
    size_t used = (size_t)c->chunks * sizeof *c->table;
    c->table_bytes = (used + FILE_PAGE - 1) / FILE_PAGE * FILE_PAGE;
    c->table = calloc(1, c->table_bytes + 1);
    return c->table ? OK : error_set(err, ERR_NO_MEMORY, "no memory for the weights' cache");
}

enum status weights_cache_open(const char *dir, const struct manifest *manifest,
                               const struct inventory *inv, const struct plan *plan,
                               const struct rank_plan *rank, struct weights *w,
                               struct weights_cache **out, struct error *err)
{
    if (!manifest)
        return error_set(err, ERR_INVALID,
                         "%s: weights cache: expected a manifest, whose digest tells which weights "
                         "these are, found none",
                         dir);
    struct weights_cache *c = calloc(1, sizeof *c);
    if (!c)
        return error_set(err, ERR_NO_MEMORY, "no memory for the weights' cache");
    c->w = w;
    c->dir = c->fd = -1;
    enum status st = open_folder(c, dir, err);
    if (st == OK)
        st = name_file(c, dir, manifest, inv, plan, rank, err);
    if (st == OK)
        st = make_key(manifest, inv, plan, rank, &c->key, err);
    if (st == OK)
        st = size_table(c, err);
    if (st != OK) {
        weights_cache_close(c);
        return st;
    }
    *out = c;
    return OK;
}

static void close_file(struct weights_cache *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

void weights_cache_close(struct weights_cache *c)
{
    if (!c)
        return;
    close_file(c);
    if (c->dir >= 0)
        close(c->dir);
    free(c->table);
    free(c);
}

/* --- its parts --- */

static uint64_t data_offset(const struct weights_cache *c)
{
    return (FILE_PAGE + c->table_bytes + DATA_BORDER - 1) / DATA_BORDER * DATA_BORDER;
}

static uint64_t chunk_offset(uint32_t chunk)
{
    return (uint64_t)chunk * LOADER_CHUNK;
}

static size_t chunk_bytes(const struct weights_cache *c, uint32_t chunk)
{
    uint64_t left = c->bytes - chunk_offset(chunk);
    return left < LOADER_CHUNK ? (size_t)left : LOADER_CHUNK;
}

static char *chunk_at(const struct weights_cache *c, uint32_t chunk)
{
    return (char *)c->w->arena + chunk_offset(chunk);
}

static void put_u64(uint8_t *to, uint64_t n)
{
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(n >> 8 * i);
}

static unsigned long long get_u64(const uint8_t *from)
{
    unsigned long long n = 0;
    for (int i = 0; i < 8; i++)
        n |= (unsigned long long)from[i] << 8 * i;
    return n;
}

/* What the first page must be, of this key, these sizes and this table. */
static enum status make_header(const struct weights_cache *c, uint8_t header[FILE_PAGE],
                               struct error *err)
{
    struct digest table;
    TRY(hash_parts(&(struct hash_part){c->table, c->table_bytes}, 1, &table, err));
    memset(header, 0, FILE_PAGE);
    memcpy(header, magic, AT_KEY);
    memcpy(header + AT_KEY, c->key.b, sizeof c->key.b);
    put_u64(header + AT_BYTES, c->w->bytes);
    put_u64(header + AT_VECTORS, c->w->vector_bytes);
    put_u64(header + AT_CHUNKS, c->chunks);
    memcpy(header + AT_TABLE, table.b, sizeof table.b);
    return OK;
}

static enum status read_all(const struct weights_cache *c, uint64_t offset, void *to, size_t len,
                            struct error *err)
{
    for (size_t done = 0; done < len;) {
        ssize_t k = pread(c->fd, (char *)to + done, len - done, (off_t)(offset + done));
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return error_errno(err, errno, "%s", c->path);
        if (k == 0)
            return error_set(err, ERR_IO, "%s: expected bytes up to %llu, found the end at %llu",
                             c->path, (unsigned long long)(offset + len),
                             (unsigned long long)(offset + done));
        done += (size_t)k;
    }
    return OK;
}

static enum status write_all(const struct weights_cache *c, int fd, uint64_t offset,
                             const void *from, size_t len, struct error *err)
{
    for (size_t done = 0; done < len;) {
        ssize_t k = pwrite(fd, (const char *)from + done, len - done, (off_t)(offset + done));
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return error_errno(err, errno, "%s", c->path);
        done += (size_t)k;
    }
    return OK;
}

/* --- chunks by some threads --- */

struct job {
    struct weights_cache *c;
    int fd;
    /* `buffer`: of the thread, LOADER_CHUNK on a page's border, for weights that do not lie in the
     * host's memory; else NULL. */
    enum status (*chunk)(struct job *j, uint32_t chunk, char *buffer, struct error *err);
    atomic_uint next;
    pthread_mutex_t lock; /* over `err` and `failed` */
    uint32_t failed;      /* the lowest chunk that did; c->chunks: none */
    struct error err;
};

static void fail(struct job *j, uint32_t chunk, const struct error *err)
{
    pthread_mutex_lock(&j->lock);
    if (chunk < j->failed) {
        j->failed = chunk;
        j->err = *err;
    }
    pthread_mutex_unlock(&j->lock);
    atomic_store(&j->next, j->c->chunks);
}

static void work(void *arg, int thread)
{
    (void)thread;
    struct job *j = arg;
    struct error err;
    uint32_t i = 0;
    char *buffer = j->c->w->memory->host ? NULL : aligned_alloc(FILE_PAGE, LOADER_CHUNK);
    if (!buffer && !j->c->w->memory->host) {
        error_set(&err, ERR_NO_MEMORY, "no memory for a chunk of %d bytes", LOADER_CHUNK);
        fail(j, 0, &err);
        return;
    }
    while ((i = atomic_fetch_add(&j->next, 1)) < j->c->chunks)
        if (j->chunk(j, i, buffer, &err) != OK)
            fail(j, i, &err);
    free(buffer);
}

static enum status all_chunks(struct weights_cache *c, int fd,
                              enum status (*chunk)(struct job *j, uint32_t i, char *buffer,
                                                   struct error *err),
                              struct error *err)
{
    struct job j = {.c = c, .fd = fd, .chunk = chunk, .failed = c->chunks};
    struct pool *pool = NULL;
    TRY(pool_create(loader_threads(), false, &pool, err));
    pthread_mutex_init(&j.lock, NULL);
    pool_run(pool, work, &j);
    pthread_mutex_destroy(&j.lock);
    pool_destroy(pool);
    if (j.failed == c->chunks)
        return OK;
    *err = j.err;
    return j.err.code;
}

/* --- reading --- */

static enum status open_file(struct weights_cache *c, struct error *err)
{
    struct stat s;
    uint64_t expected = data_offset(c) + c->bytes;
    c->fd = openat(c->dir, c->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (c->fd < 0 || fstat(c->fd, &s) != 0)
        return error_errno(err, errno, "%s", c->path);
    if (!S_ISREG(s.st_mode) || s.st_uid != geteuid() || s.st_mode & 077)
        return error_set(err, ERR_INVALID,
                         "%s: expected a file of user %u that nobody else can open (mode 0600), "
                         "found mode %04o, user %u",
                         c->path, (unsigned)geteuid(), (unsigned)(s.st_mode & 07777),
                         (unsigned)s.st_uid);
    if ((uint64_t)s.st_size != expected)
        return error_set(err, ERR_INVALID, "%s: expected %llu bytes, found %llu", c->path,
                         (unsigned long long)expected, (unsigned long long)s.st_size);
    return OK;
}

/* The first page against what it must be: `expected` has the key, the sizes and the hash of the
 * table that was found. */
static enum status prove_header(const struct weights_cache *c, const uint8_t *found,
                                const uint8_t *expected, struct error *err)
{
    static const struct {
        int at, end;
        const char *words;
    } texts[] = {
        {0, AT_KEY, "a cache of weights of this version"},
        {AT_KEY, AT_BYTES, "the key of this manifest, layout, rank and release"},
        {AT_TABLE, AT_ZEROS, "a table as its hash says"},
        {AT_ZEROS, FILE_PAGE, "zeros"},
    };
    for (int at = AT_BYTES; at < AT_TABLE; at += 8)
        if (get_u64(found + at) != get_u64(expected + at))
            return error_set(err, ERR_INVALID, "%s: byte %d: expected %llu, found %llu", c->path,
                             at, get_u64(expected + at), get_u64(found + at));
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        if (memcmp(found + texts[i].at, expected + texts[i].at,
                   (size_t)(texts[i].end - texts[i].at)) != 0)
            return error_set(err, ERR_INVALID, "%s: bytes %d to %d: expected %s, found others",
                             c->path, texts[i].at, texts[i].end - 1, texts[i].words);
    return OK;
}

/* Everything before the arena. */
static enum status prove_head(struct weights_cache *c, struct error *err)
{
    uint8_t found[FILE_PAGE], expected[FILE_PAGE];
    TRY(open_file(c, err));
    TRY(read_all(c, 0, found, sizeof found, err));
    TRY(read_all(c, FILE_PAGE, c->table, c->table_bytes, err));
    TRY(make_header(c, expected, err));
    return prove_header(c, found, expected, err);
}

static enum status prove_chunk(const struct weights_cache *c, uint32_t chunk, const void *bytes,
                               struct error *err)
{
    uint64_t offset = data_offset(c) + chunk_offset(chunk);
    size_t len = chunk_bytes(c, chunk);
    struct quick_sum found;
    TRY(quick_sum(bytes, len, &found, err));
    if (memcmp(&found, &c->table[chunk], sizeof found) == 0)
        return OK;
    return error_set(err, ERR_INVALID,
                     "%s: chunk %u (bytes %llu to %llu): expected the bytes of its sum, found "
                     "others",
                     c->path, chunk, (unsigned long long)offset,
                     (unsigned long long)(offset + len - 1));
}

/* Of a mapped arena: its pages are brought in first, as a fault on a bad disk would end the rank.
 */
static enum status touch_chunk(struct job *j, uint32_t chunk, char *buffer, struct error *err)
{
    struct weights_cache *c = j->c;
    (void)buffer;
    if (madvise(chunk_at(c, chunk), chunk_bytes(c, chunk), MADV_POPULATE_READ) != 0)
        return error_errno(err, errno, "%s: chunk %u", c->path, chunk);
    return prove_chunk(c, chunk, chunk_at(c, chunk), err);
}

static enum status read_chunk(struct job *j, uint32_t chunk, char *buffer, struct error *err)
{
    struct weights_cache *c = j->c;
    struct memory *memory = c->w->memory;
    char *to = buffer ? buffer : chunk_at(c, chunk);
    size_t len = chunk_bytes(c, chunk);
    uint64_t offset = data_offset(c) + chunk_offset(chunk);
    if (!c->direct || !file_read_direct(c->fd, offset, to, len)) {
        if (c->direct)
            file_set_direct(c->fd, false);
        TRY(read_all(c, offset, to, len, err));
    }
    TRY(prove_chunk(c, chunk, to, err));
    return buffer ? memory->put(memory, chunk_at(c, chunk), len, buffer, len, len, 1, err) : OK;
}

/* Says why a file is not used; its absence is none of the operator's business. */
static bool believe(enum status st, const struct error *why)
{
    if (st == ERR_NOT_FOUND)
        log_info("weights cache: %s", why->msg);
    else if (st != OK)
        log_warn("weights cache: %s: the checkpoint is read instead, and this file written anew",
                 why->msg);
    return st == OK;
}

static void log_loaded(const struct comm *world, double bytes, int64_t start_ns)
{
    double seconds = (double)(clock_now_ns() - start_ns) * 1e-9;
    if (world->rank == 0)
        log_info("loaded: %.0f MB from the cache in %.2f s, %.0f MB/s", bytes * 1e-6, seconds,
                 seconds > 0 ? bytes * 1e-6 / seconds : 0);
}

/* The file's pages in the arena's place, or read into it: around the page cache, where the bytes
 * would only stand twice. */
static enum status take_file(struct weights_cache *c, struct error *err)
{
    struct error why;
    if (weights_map(c->w, c->fd, data_offset(c), &why) == OK)
        return all_chunks(c, c->fd, touch_chunk, err);
    if (c->w->memory->host)
        log_info("weights cache: %s: read, not mapped: %s", c->path, why.msg);
    c->direct = file_set_direct(c->fd, true);
    return all_chunks(c, c->fd, read_chunk, err);
}

enum status weights_cache_load(struct weights_cache *c, struct comm *world, bool *loaded,
                               struct error *err)
{
    struct comm alone = comm_alone();
    struct error why;
    int64_t start = clock_now_ns();
    world = world ? world : &alone;
    *loaded = false;
    if (c)
        c->good = believe(prove_head(c, &why), &why);
    /* Summed over the ranks: those that lack a good file, and bytes. */
    double sums[2] = {c && c->good ? 0 : 1, c ? (double)c->bytes : 0};
    TRY(comm_allreduce_f64(world, sums, COUNT_OF(sums), err));
    if (c && sums[0] == 0) {
        c->good = believe(take_file(c, &why), &why);
        sums[0] = c->good ? 0 : 1;
        TRY(comm_allreduce_f64(world, sums, 1, err));
        *loaded = sums[0] == 0;
        if (!*loaded)
            weights_unmap(c->w);
    }
    if (c)
        close_file(c);
    if (*loaded)
        log_loaded(world, sums[1], start);
    else if (c && world->rank == 0)
        log_info("weights cache: %.0f of %d ranks have no good file: all read the checkpoint",
                 sums[0], world->size);
    return OK;
}

/* --- writing --- */

static enum status write_chunk(struct job *j, uint32_t chunk, char *buffer, struct error *err)
{
    struct weights_cache *c = j->c;
    struct memory *memory = c->w->memory;
    const char *from = buffer ? buffer : chunk_at(c, chunk);
    size_t len = chunk_bytes(c, chunk);
    if (buffer)
        TRY(memory->get(memory, buffer, chunk_at(c, chunk), len, err));
    TRY(quick_sum(from, len, &c->table[chunk], err));
    return write_all(c, j->fd, data_offset(c) + chunk_offset(chunk), from, len, err);
}

/* The file beside its place, empty, and this process's alone. The lock goes with the process, so
 * one that was killed leaves a file that the next write takes over. */
static enum status open_aside(const struct weights_cache *c, int *fd, struct error *err)
{
    struct stat mine, there;
    *fd = openat(c->dir, c->aside, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (*fd < 0)
        return error_errno(err, errno, "%s", c->path);
    /* Where it has been moved to its place meanwhile, it is not ours to cut. */
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0 && fstat(*fd, &mine) == 0 &&
        fstatat(c->dir, c->aside, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
        mine.st_ino == there.st_ino && mine.st_dev == there.st_dev) {
        if (fchmod(*fd, 0600) == 0 && ftruncate(*fd, 0) == 0)
            return OK;
        error_errno(err, errno, "%s", c->path);
    } else {
        error_set(err, ERR_LIMIT, "%s: expected to write it alone, found another process at it",
                  c->path);
    }
    close(*fd);
    *fd = -1;
    return err->code;
}

/* All of the file, on the disk. What cannot fit is found before it is written. */
static enum status write_file(struct weights_cache *c, int fd, struct error *err)
{
    uint8_t header[FILE_PAGE];
    uint64_t size = data_offset(c) + c->bytes;
    if (fallocate(fd, 0, 0, (off_t)size) != 0 && errno != EOPNOTSUPP && errno != ENOSYS)
        return error_errno(err, errno, "%s: %llu bytes", c->path, (unsigned long long)size);
    memset(c->table, 0, c->table_bytes);
    TRY(all_chunks(c, fd, write_chunk, err));
    TRY(make_header(c, header, err));
    TRY(write_all(c, fd, FILE_PAGE, c->table, c->table_bytes, err));
    TRY(write_all(c, fd, 0, header, sizeof header, err));
    if (fsync(fd) != 0)
        return error_errno(err, errno, "%s", c->path);
    /* The next start's pages: huge where it maps them, not those that writing made. */
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    return OK;
}

static enum status save(struct weights_cache *c, struct error *err)
{
    int fd = -1;
    TRY(open_aside(c, &fd, err));
    enum status st = write_file(c, fd, err);
    if (st == OK && (renameat(c->dir, c->aside, c->dir, c->name) != 0 || fsync(c->dir) != 0))
        st = error_errno(err, errno, "%s", c->path);
    if (st != OK)
        unlinkat(c->dir, c->aside, 0);
    close(fd);
    return st;
}

void weights_cache_save(struct weights_cache *c)
{
    struct error err;
    int64_t start = clock_now_ns();
    if (!c || c->good)
        return;
    if (save(c, &err) != OK) {
        log_warn("weights cache: %s: not written, the next start reads the checkpoint", err.msg);
        return;
    }
    log_info("weights cache: wrote %s, %.0f MB in %.2f s", c->path, (double)c->bytes * 1e-6,
             (double)(clock_now_ns() - start) * 1e-9);
}
