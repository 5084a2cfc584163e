/*
 * Reading a checkpoint once for all ranks of a machine.
 *
 * Every chunk of a file that some rank of the machine wants is read by one of them, proven there
 * where there is a manifest, and lies in memory that they share until each rank that wants some of
 * it has taken its part. What was proven is what is used; no byte is read or hashed twice, whatever
 * ranks replicate or cut by columns. Each rank has some threads, and each thread does what there is
 * to do: take from a chunk that has come, convert what is complete, or read the next chunk. So
 * while one hashes others read, and nobody reads further ahead than there
 * are slots.
 *
 *   checkpoint -> [slot][slot][slot] ... -> rank 0: its cuts
 *                  read by any rank      -> rank 1: its cuts
 */
#ifndef WITAN_WORKER_LOADER_H
#define WITAN_WORKER_LOADER_H

#include "partition/manifest.h"
#include "partition/weight_pack.h"
#include "transport/transport.h"
#include "worker/memory.h"

enum {
    LOADER_CHUNK = MANIFEST_CHUNK_BYTES,
    LOADER_MAX_THREADS = 8,
    LOADER_SPARE_SLOTS = 4, /* chunks in memory at once beside one for each rank of the machine */
};

/* A cut that a rank wants. */
struct load_want {
    struct weight_cut cut;
    char *to;     /* [rect.rows, rect.cols]: as they lie in the file (plain weights), or */
    bool convert; /* as fp32, or */
    bool pack;    /* as weight_pack makes them, */
    char *scales; /* with their scales here */
};

struct load_wants {
    struct load_want *list; /* owned */
    int64_t count, cap;
};

enum status load_wants_push(struct load_wants *w, const struct load_want *want, struct error *err);
void load_wants_fini(struct load_wants *w);

/* Called from one thread of the rank that gives it, with what all ranks of its machine have read.
 */
typedef void (*load_progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);

/* Threads of a rank that read: as many as it has processors, but two at least, so that one reads
 * while another hashes, and LOADER_MAX_THREADS at most. */
int loader_threads(void);

struct loader;

/*
 * wants[r], r < ranks, is what rank r of the machine wants: the same on all of them but for `to`,
 * which only rank `me`'s own has, in `memory`. Not collective; everything given lives as long as
 * the loader.
 */
enum status loader_create(struct checkpoint *ck, const struct inventory *inv,
                          const struct load_wants *wants, int ranks, int me, struct memory *memory,
                          struct loader **out, struct error *err);
void loader_destroy(struct loader *l);

/*
 * Collective over `node`, the machine's ranks (comm_alone: just this one), once. Where ranks may
 * not share memory each reads for itself. `ck` is read by chunks. A failure is returned to the rank
 * that had it, with file and tensor in its message; the others stop and return OK: the caller has
 * them agree.
 */
enum status loader_run(struct loader *l, struct comm *node, load_progress progress,
                       void *progress_arg, struct error *err);

/* Bytes of the buffers that the machine's ranks shared while it ran. */
uint64_t loader_buffer_bytes(const struct loader *l);

#endif
