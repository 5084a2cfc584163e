/*
 * The signed list of a model folder's files: what each must hold, byte for byte, so that weights
 * are proven before they are used (docs/manifest.md has the format). Every file has its size, its
 * SHA-256 and a tree over its chunks of MANIFEST_CHUNK_BYTES; a rank proves exactly the chunks that
 * it reads.
 *
 * A struct manifest does not change after it is opened; any thread. Errors name file, chunk or key,
 * what was expected and what to do.
 */
#ifndef WITAN_PARTITION_MANIFEST_H
#define WITAN_PARTITION_MANIFEST_H

#include "base/file.h"
#include "base/pool.h"
#include "partition/hash.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MANIFEST_VERSION = 1,
    MANIFEST_CHUNK_BYTES = 16 << 20,
    MANIFEST_MAX_BYTES = 64 << 20, /* of the manifest: leaves of 16 TiB */
    MANIFEST_MAX_FILES = 10000,
    MANIFEST_MAX_PATH = 1024, /* bytes of a path inside the folder */
    MANIFEST_MAX_DEPTH = 16,  /* names in such a path */
    MANIFEST_MAX_WORDS = 1024,
    MANIFEST_MAX_KEYS = 64, /* trusted, and signatures of one manifest */
    MANIFEST_DIGEST_HEX = 64,
};

struct manifest_file {
    char *path; /* inside the folder, '/' between names */
    uint64_t bytes;
    struct digest sha256; /* of the whole file */
    struct digest root;   /* of the tree over its chunks */
    struct digest *leaves;
    uint32_t chunks; /* leaves; 0 for an empty file */
};

/* What the maker says of the model; "" where nothing is said. */
struct manifest_words {
    const char *licence, *origin, *format;
};

struct manifest;

/*
 * Reads the manifest and its signatures (PATH.sig), demands valid ones by `threshold` of the keys
 * in `trust` (a file of PEM public keys, or a folder of such files, NAME.pem), and proves that
 * `dir` holds the listed files with their sizes and no others (manifest and signatures aside).
 * Contents are proven as they are read. A signature that names a trusted key and does not fit is
 * refused even when enough others do; those of other keys count for nothing.
 */
enum status manifest_open(const char *path, const char *dir, const char *trust, int threshold,
                          struct manifest **out, struct error *err);
void manifest_close(struct manifest *m); /* NULL is fine */

/* SHA-256 of the manifest's bytes, MANIFEST_DIGEST_HEX hex digits: says in hellos which weights
 * these are. */
const char *manifest_digest(const struct manifest *m);
struct manifest_words manifest_words(const struct manifest *m);
const char *manifest_signers(const struct manifest *m); /* names of trusted keys, ", " between */
const struct manifest_file *manifest_files(const struct manifest *m, int *count);
uint64_t manifest_total_bytes(const struct manifest *m);

/* The index of a file by its path, or -1. */
int manifest_find(const struct manifest *m, const char *path);

/* Are these `len` bytes the file's chunk? ERR_INVALID when they are not, or not as many. */
enum status manifest_check_chunk(const struct manifest *m, int file, uint32_t chunk,
                                 const void *bytes, size_t len, struct error *err);

/* For readers of whole small files (file_read_proven); NULL for NULL. Lives as long as `m`. */
const struct file_proof *manifest_proof(const struct manifest *m);

/* Called from the pool's threads, one at a time. */
typedef void (*manifest_progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);

/* Reads every file and proves every chunk with the pool's threads. The error is of the first bad
 * chunk in the order of the list, and says how many there are. */
enum status manifest_verify(const struct manifest *m, struct pool *pool, manifest_progress progress,
                            void *arg, struct error *err);

/*
 * Lists every regular file under `dir` and writes the manifest to `path` (which must not be there),
 * unsigned. Equal folders and words give equal bytes. Refuses symbolic links, special files, and
 * names that a manifest cannot hold.
 */
enum status manifest_create(const char *dir, const char *path, const struct manifest_words *words,
                            struct pool *pool, manifest_progress progress, void *arg,
                            struct error *err);

/* Proves a manifest's text, for tests and fuzzers: `what` names it in messages. The result knows no
 * folder and no signer. */
enum status manifest_parse(const char *what, const char *text, size_t len, struct manifest **out,
                           struct error *err);

/* --- keys and signatures (manifest_sign.c): Ed25519 in PEM; a key's id is the SHA-256 of its
 * public half as DER (SubjectPublicKeyInfo), in hex --- */

/* Writes BASE.key (private, mode 0600) and BASE.pem (public). Refuses to overwrite. */
enum status manifest_keygen(const char *base, char id[MANIFEST_DIGEST_HEX + 1], struct error *err);

/* Adds the key's signature to PATH.sig; an older one by the same key is replaced. `name` (may be
 * NULL) is a remark for readers. A key under a passphrase asks for it on the terminal. */
enum status manifest_sign(const char *path, const char *key_path, const char *name,
                          char id[MANIFEST_DIGEST_HEX + 1], struct error *err);

/* Proves the text of a file of signatures, for tests and fuzzers: how many there are. */
enum status manifest_parse_signatures(const char *what, const char *text, size_t len, int *count,
                                      struct error *err);

/* --- a hub's published sums (manifest_sums.c) --- */

struct manifest_sum {
    char *path;
    struct digest sha256;
    uint64_t bytes; /* UINT64_MAX where the list does not say */
};

struct manifest_sums {
    struct manifest_sum *list; /* sorted by path; owned */
    size_t count;
};

/* Parses lines as sha256sum writes them, for tests and fuzzers. */
enum status manifest_sums_parse(const char *what, const char *text, size_t len,
                                struct manifest_sums *out, struct error *err);

/*
 * Reads the published sums: a list as sha256sum writes it; a git-LFS pointer, which speaks of the
 * file of its own name; or a folder as `GIT_LFS_SKIP_SMUDGE=1 git clone` makes it, whose pointers
 * speak of the files of their names and whose other files are their own sums.
 */
enum status manifest_sums_read(const char *path, struct manifest_sums *out, struct error *err);
void manifest_sums_fini(struct manifest_sums *s);

/* Demands that every file in the list is in `dir` with these bytes. */
enum status manifest_sums_check(const struct manifest_sums *s, const char *what, const char *dir,
                                struct pool *pool, manifest_progress progress, void *arg,
                                struct error *err);

#endif
