/* Many files read by a pool's threads: see manifest_private.h. A team's state is its caller's. */
#include "base/check.h"
#include "base/clock.h"
#include "partition/manifest_private.h"

#include <stdlib.h>
#include <unistd.h>

enum { REPORT_NS = 100000000 };

void team_did(struct team *t, uint64_t bytes)
{
    uint64_t done = atomic_fetch_add(&t->done, bytes) + bytes;
    if (!t->progress)
        return;
    /* Only the end must be said: for the rest nobody waits. */
    if (done == t->total)
        pthread_mutex_lock(&t->lock);
    else if (pthread_mutex_trylock(&t->lock) != 0)
        return;
    done = atomic_load(&t->done);
    int64_t now = clock_now_ns();
    if (now - t->last_report > REPORT_NS || done == t->total) {
        t->last_report = now;
        t->progress(t->progress_arg, done, t->total);
    }
    pthread_mutex_unlock(&t->lock);
}

static void fail(struct team *t, int64_t i, const struct error *err)
{
    pthread_mutex_lock(&t->lock);
    if (t->failed++ == 0 || i < t->failed_item) {
        t->err = *err;
        t->failed_item = i;
    }
    pthread_mutex_unlock(&t->lock);
    if (t->stop)
        atomic_store(&t->next, t->count);
}

static void work(void *arg, int thread)
{
    (void)thread;
    struct team *t = arg;
    struct error err;
    int64_t i = 0;
    void *buffer = malloc(MANIFEST_CHUNK_BYTES);
    if (!buffer) {
        error_set(&err, ERR_NO_MEMORY, "no memory for a chunk of %d bytes", MANIFEST_CHUNK_BYTES);
        fail(t, 0, &err);
        return;
    }
    while ((i = atomic_fetch_add(&t->next, 1)) < t->count)
        if (t->item(t, i, buffer, &err) != OK)
            fail(t, i, &err);
    free(buffer);
}

enum status team_run(struct team *t, struct pool *pool, struct error *err)
{
    t->failed = 0;
    t->last_report = 0;
    atomic_init(&t->next, 0);
    atomic_init(&t->done, 0);
    pthread_mutex_init(&t->lock, NULL);
    pool_run(pool, work, t);
    pthread_mutex_destroy(&t->lock);
    if (t->failed == 0)
        return OK;
    *err = t->err;
    return t->err.code;
}

enum status team_hash_file(struct team *t, const char *dir, const char *path, uint64_t bytes,
                           void *buffer, struct digest *sha256, struct digest *leaves,
                           struct error *err)
{
    int fd;
    uint64_t found;
    struct hasher *whole = NULL;
    TRY(folder_open(dir, path, bytes, &fd, &found, err));
    enum status st = hasher_create(&whole, err);
    uint32_t chunks = chunks_of(found);
    for (uint32_t c = 0; st == OK && c < chunks; c++) {
        size_t len = chunk_length(found, c);
        st = folder_read(fd, dir, path, (uint64_t)c * MANIFEST_CHUNK_BYTES, buffer, len, err);
        if (st == OK)
            st = hasher_add(whole, buffer, len, err);
        if (st == OK && leaves)
            st = tree_leaf(buffer, len, &leaves[c], err);
        if (st == OK)
            team_did(t, len);
    }
    if (st == OK)
        st = hasher_end(whole, sha256, err);
    hasher_destroy(whole);
    close(fd);
    return st;
}
