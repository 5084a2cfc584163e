/* What the files behind manifest.h share. */
#ifndef WITAN_PARTITION_MANIFEST_PRIVATE_H
#define WITAN_PARTITION_MANIFEST_PRIVATE_H

#include "base/buf.h"
#include "partition/manifest.h"

#include <stdatomic.h>
#include <pthread.h>
#include <sys/types.h>

/* Of one file: the leaves of more would not fit into a manifest. */
#define MANIFEST_MAX_FILE_BYTES                                                                    \
    ((uint64_t)(MANIFEST_MAX_BYTES / MANIFEST_DIGEST_HEX) * MANIFEST_CHUNK_BYTES)

enum { MANIFEST_MAX_FOLDER = 4096 }; /* bytes of a path that operators give */

struct manifest {
    struct file_proof proof; /* first: manifest_proof hands it out */
    char *what;              /* the manifest's path, for messages */
    char *dir;               /* NULL where only the text is known */
    char *licence, *origin, *format;
    struct manifest_file *files; /* sorted by path, no two alike */
    int count;
    char digest[MANIFEST_DIGEST_HEX + 1];
    char *signers;
};

/* --- manifest_hash.c (OpenSSL; manifest_none.c without it); hash.h has the rest of it --- */

/* SHA-256 of what comes bit by bit. hasher_destroy(NULL) is fine. */
struct hasher;
enum status hasher_create(struct hasher **out, struct error *err);
enum status hasher_add(struct hasher *h, const void *data, size_t len, struct error *err);
enum status hasher_end(struct hasher *h, struct digest *out, struct error *err); /* and restarts */
void hasher_destroy(struct hasher *h);

/* --- manifest_tree.c --- */

enum status tree_root(const struct digest *leaves, uint32_t count, struct digest *out,
                      struct error *err);

void digest_hex(const struct digest *d, char hex[MANIFEST_DIGEST_HEX + 1]);
/* Exactly 64 lower-case digits. */
bool digest_from_hex(const char *hex, struct digest *out);

uint32_t chunks_of(uint64_t bytes);
/* Bytes of a file's chunk; the last may be shorter. */
size_t chunk_length(uint64_t file_bytes, uint32_t chunk);

/* --- manifest_json.c --- */

/* The one text that says what the manifest holds (paths sorted). */
enum status manifest_print(const struct manifest *m, struct buf *out, struct error *err);

/* A path that stays inside a folder: relative, no "." or "..", no empty name, UTF-8 without control
 * characters, within the limits. `what` names the list in the message. */
enum status manifest_check_path(const char *what, const char *path, struct error *err);

/* --- manifest_folder.c: a folder as it is --- */

struct folder_file {
    char *path;
    uint64_t bytes;
};

struct folder_files {
    struct folder_file *list; /* sorted by path; owned */
    int count;
};

/* Every regular file under `dir` but those that are `skip` (paths, a list that NULL ends; by what
 * they are, not by name). */
enum status folder_list(const char *dir, const char *const *skip, struct folder_files *out,
                        struct error *err);
void folder_files_fini(struct folder_files *f);

/* Opens DIR/PATH, not through a link, and demands this size (UINT64_MAX: any; *bytes tells). */
enum status folder_open(const char *dir, const char *path, uint64_t expected, int *fd,
                        uint64_t *bytes, struct error *err);

/* pread of exactly `len` bytes. */
enum status folder_read(int fd, const char *dir, const char *path, uint64_t offset, void *to,
                        size_t len, struct error *err);

/* --- manifest_team.c: many files read by many threads --- */

/* Work items 0..count-1, taken in order by the pool's threads, each with a buffer of one chunk. The
 * error is that of the lowest item that failed; `failed` counts. With `stop` the first failure ends
 * it. */
struct team {
    enum status (*item)(struct team *t, int64_t i, void *buffer, struct error *err);
    const void *arg; /* the item's */
    int64_t count;
    bool stop;
    uint64_t total; /* bytes */
    manifest_progress progress;
    void *progress_arg;
    /* set by team_run */
    int64_t failed;
    int64_t failed_item;
    struct error err;
    atomic_llong next;
    atomic_ullong done;
    pthread_mutex_t lock; /* over `failed`, `failed_item`, `err`, `last_report` and progress */
    int64_t last_report;
};

enum status team_run(struct team *t, struct pool *pool, struct error *err);
void team_did(struct team *t, uint64_t bytes); /* by items, as they go */

/* The SHA-256 of a file, read by one thread chunk by chunk into `buffer`; each chunk's leaf goes to
 * `leaves` (may be NULL). */
enum status team_hash_file(struct team *t, const char *dir, const char *path, uint64_t bytes,
                           void *buffer, struct digest *sha256, struct digest *leaves,
                           struct error *err);

/* --- manifest.c --- */

/* "PATH.sig" into out[size]. */
enum status manifest_sig_path(const char *path, char *out, size_t size, struct error *err);

/* The manifest's text and its digest; free *text. */
enum status manifest_read_text(const char *path, char **text, size_t *len, struct digest *digest,
                               struct error *err);

/* --- manifest_sign.c (OpenSSL; manifest_none.c without it) --- */

/* Demands valid signatures of this digest, in PATH.sig, by `threshold` of the keys in `trust`;
 * *signers (free): their names. */
enum status manifest_check_signatures(const char *path, const struct digest *digest,
                                      const char *trust, int threshold, char **signers,
                                      struct error *err);

#endif
