/*
 * A folder with a manifest beside it and keys that sign it, made while a test runs.
 */
#ifndef WITAN_TESTS_UNIT_PARTITION_SIGNED_FOLDER_H
#define WITAN_TESTS_UNIT_PARTITION_SIGNED_FOLDER_H

#include "tests/unit/partition/folder.h"

#include "partition/manifest.h"

#include <sys/stat.h>

struct signed_folder {
    struct folder files;  /* what is listed */
    struct folder beside; /* manifest, signatures, alice, bob and eve; trust/ holds alice and bob */
    char manifest[128], trust[128];
};

static inline const char *beside(const struct signed_folder *s, const char *name)
{
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", s->beside.path, name);
    return path;
}

static inline void must(enum status st, const struct error *err)
{
    if (st != OK)
        fail_msg("%s", err->msg);
}

static inline void copy_file(const char *from, const char *to)
{
    char bytes[4096];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    assert_non_null(in);
    assert_non_null(out);
    size_t n;
    while ((n = fread(bytes, 1, sizeof bytes, in)) > 0)
        assert_int_equal(fwrite(bytes, 1, n, out), n);
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

static inline struct signed_folder signed_make(void)
{
    struct signed_folder s = {.files = folder_make(), .beside = folder_make()};
    char id[MANIFEST_DIGEST_HEX + 1];
    struct error err;
    snprintf(s.manifest, sizeof s.manifest, "%s/m.json", s.beside.path);
    snprintf(s.trust, sizeof s.trust, "%s/trust", s.beside.path);
    assert_int_equal(mkdir(s.trust, 0700), 0);
    static const char *const names[] = {"alice", "bob", "eve"};
    for (int i = 0; i < 3; i++) {
        char pem[64], trusted[64];
        snprintf(pem, sizeof pem, "%s.pem", names[i]);
        snprintf(trusted, sizeof trusted, "trust/%s.pem", names[i]);
        must(manifest_keygen(beside(&s, names[i]), id, &err), &err);
        if (i < 2)
            copy_file(beside(&s, pem), beside(&s, trusted));
    }
    return s;
}

static inline void signed_remove(const struct signed_folder *s)
{
    struct folder trust;
    snprintf(trust.path, sizeof trust.path, "%.63s", s->trust);
    folder_remove(&trust);
    folder_remove(&s->beside);
    folder_remove(&s->files);
}

/* Lists the files of a folder as they are now. */
static inline void signed_create_of(const struct signed_folder *s, const char *dir)
{
    static const struct manifest_words words = {"Apache-2.0", "https://models.example/m", "test"};
    struct pool *pool = NULL;
    struct error err;
    must(pool_create(2, false, &pool, &err), &err);
    must(manifest_create(dir, s->manifest, &words, pool, NULL, NULL, &err), &err);
    pool_destroy(pool);
}

static inline void signed_create(const struct signed_folder *s)
{
    signed_create_of(s, s->files.path);
}

static inline void signed_by(const struct signed_folder *s, const char *name)
{
    char id[MANIFEST_DIGEST_HEX + 1], key[64];
    struct error err;
    snprintf(key, sizeof key, "%s.key", name);
    must(manifest_sign(s->manifest, beside(s, key), name, id, &err), &err);
}

static inline enum status signed_open(const struct signed_folder *s, struct manifest **m,
                                      struct error *err)
{
    return manifest_open(s->manifest, s->files.path, s->trust, 1, m, err);
}

static inline enum status signed_verify(const struct manifest *m, struct error *err)
{
    struct pool *pool = NULL;
    must(pool_create(2, false, &pool, err), err);
    enum status st = manifest_verify(m, pool, NULL, NULL, err);
    pool_destroy(pool);
    return st;
}

/* Flips one bit of a file. */
static inline void flip_bit(const char *path, uint64_t byte, int bit)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseeko(f, (off_t)byte, SEEK_SET), 0);
    int c = fgetc(f);
    assert_true(c != EOF);
    assert_int_equal(fseeko(f, (off_t)byte, SEEK_SET), 0);
    fputc(c ^ (1 << bit), f);
    assert_int_equal(fclose(f), 0);
}

#endif
