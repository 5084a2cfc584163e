/* An opened manifest: see manifest.h. */
#include "partition/manifest_private.h"
#include "base/check.h"
#include "partition/shown.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SHOWN_DIGITS = 16 }; /* of a digest in a message */

static const char *where(const struct manifest *m)
{
    return m->dir ? m->dir : m->what;
}

/* What the operator can do about a file that is not as listed. */
static const char *remedy(const struct manifest *m)
{
    return m->origin[0] ? m->origin : "where the manifest's maker had it";
}

/* --- the list against the folder --- */

static enum status compare(const struct manifest *m, const struct folder_files *found,
                           struct error *err)
{
    for (int i = 0, k = 0;; i++, k++) {
        const struct manifest_file *f = i < m->count ? &m->files[i] : NULL;
        const struct folder_file *d = k < found->count ? &found->list[k] : NULL;
        if (!f && !d)
            return OK;
        int order = !f ? 1 : !d ? -1 : strcmp(f->path, d->path);
        if (!d || order < 0)
            return error_set(err, ERR_INVALID,
                             "%s/%s: expected a file of %llu bytes (listed in %s), found none: "
                             "fetch it from %s",
                             m->dir, shown(f->path).s, (unsigned long long)f->bytes, m->what,
                             shown(remedy(m)).s);
        if (!f || order > 0)
            return error_set(err, ERR_INVALID,
                             "%s/%s: expected only files that %s lists, found this one: move it "
                             "away, or make and sign a manifest with it",
                             m->dir, shown(d->path).s, m->what);
        if (f->bytes != d->bytes)
            return error_set(err, ERR_INVALID,
                             "%s/%s: expected %llu bytes (listed in %s), found %llu: fetch it "
                             "again from %s",
                             m->dir, shown(f->path).s, (unsigned long long)f->bytes, m->what,
                             (unsigned long long)d->bytes, shown(remedy(m)).s);
    }
}

static enum status check_folder(const struct manifest *m, struct error *err)
{
    char sig[MANIFEST_MAX_FOLDER];
    TRY(manifest_sig_path(m->what, sig, sizeof sig, err));
    const char *skip[] = {m->what, sig, NULL};
    struct folder_files found;
    TRY(folder_list(m->dir, skip, &found, err));
    enum status st = compare(m, &found, err);
    folder_files_fini(&found);
    return st;
}

/* --- a file that is read whole --- */

static enum status check_whole(const struct file_proof *proof, const char *name, const void *data,
                               size_t len, struct error *err)
{
    const struct manifest *m = (const struct manifest *)proof;
    int file = manifest_find(m, name);
    if (file < 0 && !data)
        return OK;
    if (file < 0)
        return error_set(err, ERR_INVALID,
                         "%s/%s: expected only files that %s lists, found this one: move it away",
                         where(m), shown(name).s, m->what);
    const struct manifest_file *f = &m->files[file];
    if (!data || len != f->bytes)
        return error_set(err, ERR_INVALID,
                         "%s/%s: expected the %llu bytes that %s lists, found %s: it changed after "
                         "the start; fetch it again from %s",
                         where(m), shown(name).s, (unsigned long long)f->bytes, m->what,
                         data ? "another number" : "no file", shown(remedy(m)).s);
    for (uint32_t c = 0; c < f->chunks; c++)
        TRY(manifest_check_chunk(m, file, c, (const char *)data + (size_t)c * MANIFEST_CHUNK_BYTES,
                                 chunk_length(f->bytes, c), err));
    return OK;
}

enum status manifest_check_chunk(const struct manifest *m, int file, uint32_t chunk,
                                 const void *bytes, size_t len, struct error *err)
{
    CHECK(file >= 0 && file < m->count, "file %d of %d", file, m->count);
    const struct manifest_file *f = &m->files[file];
    CHECK(chunk < f->chunks, "chunk %u of %u", chunk, f->chunks);
    size_t expected = chunk_length(f->bytes, chunk);
    unsigned long long begin = (unsigned long long)chunk * MANIFEST_CHUNK_BYTES;
    if (len != expected)
        return error_set(err, ERR_INVALID, "%s/%s: chunk %u: expected %zu bytes, found %zu",
                         where(m), shown(f->path).s, chunk, expected, len);
    struct digest found;
    char want[MANIFEST_DIGEST_HEX + 1], have[MANIFEST_DIGEST_HEX + 1];
    TRY(tree_leaf(bytes, len, &found, err));
    if (digest_equal(&found, &f->leaves[chunk]))
        return OK;
    digest_hex(&f->leaves[chunk], want);
    digest_hex(&found, have);
    return error_set(err, ERR_INVALID,
                     "%s/%s: chunk %u (bytes %llu to %llu): expected hash %.*s..., found %.*s...: "
                     "the file is not the one that was signed; fetch it again from %s",
                     where(m), shown(f->path).s, chunk, begin, begin + expected - 1, SHOWN_DIGITS,
                     want, SHOWN_DIGITS, have, shown(remedy(m)).s);
}

/* --- opening --- */

enum status manifest_sig_path(const char *path, char *out, size_t size, struct error *err)
{
    int n = snprintf(out, size, "%s.sig", path);
    if (n < 0 || (size_t)n >= size)
        return error_set(err, ERR_INVALID, "%.100s: expected a path of fewer than %zu bytes", path,
                         size - 4);
    return OK;
}

enum status manifest_read_text(const char *path, char **text, size_t *len, struct digest *digest,
                               struct error *err)
{
    TRY(file_read_all(path, MANIFEST_MAX_BYTES, text, len, err));
    enum status st = hash_parts(&(struct hash_part){*text, *len}, 1, digest, err);
    if (st != OK)
        free(*text);
    return st;
}

static enum status open_signed(const char *path, const char *trust, int threshold,
                               struct manifest **out, struct error *err)
{
    char *text = NULL, *signers = NULL;
    size_t len = 0;
    struct digest digest;
    enum status st = manifest_read_text(path, &text, &len, &digest, err);
    if (st == ERR_NOT_FOUND)
        return error_set(err, st,
                         "%s: expected a manifest, found no file: make one with `witan manifest "
                         "create`, or say where it lies on this host",
                         path);
    TRY(st);
    /* Nothing of it is believed, nor even parsed, before this. */
    st = manifest_check_signatures(path, &digest, trust, threshold, &signers, err);
    if (st == OK)
        st = manifest_parse(path, text, len, out, err);
    if (st == OK)
        (*out)->signers = signers;
    else
        free(signers);
    free(text);
    return st;
}

enum status manifest_open(const char *path, const char *dir, const char *trust, int threshold,
                          struct manifest **out, struct error *err)
{
    struct manifest *m = NULL;
    TRY(open_signed(path, trust, threshold, &m, err));
    m->proof.check = check_whole;
    m->dir = strdup(dir);
    enum status st = m->dir ? OK : error_set(err, ERR_NO_MEMORY, "%s: no memory", path);
    if (st == OK)
        st = check_folder(m, err);
    if (st != OK) {
        manifest_close(m);
        return st;
    }
    *out = m;
    return OK;
}

void manifest_close(struct manifest *m)
{
    if (!m)
        return;
    for (int i = 0; i < m->count; i++) {
        free(m->files[i].path);
        free(m->files[i].leaves);
    }
    free(m->files);
    free(m->what);
    free(m->dir);
    free(m->licence);
    free(m->origin);
    free(m->format);
    free(m->signers);
    free(m);
}

const char *manifest_digest(const struct manifest *m)
{
    return m->digest;
}

struct manifest_words manifest_words(const struct manifest *m)
{
    return (struct manifest_words){m->licence, m->origin, m->format};
}

const char *manifest_signers(const struct manifest *m)
{
    return m->signers ? m->signers : "";
}

const struct manifest_file *manifest_files(const struct manifest *m, int *count)
{
    *count = m->count;
    return m->files;
}

uint64_t manifest_total_bytes(const struct manifest *m)
{
    uint64_t total = 0;
    for (int i = 0; i < m->count; i++)
        total += m->files[i].bytes;
    return total;
}

int manifest_find(const struct manifest *m, const char *path)
{
    int low = 0, high = m->count;
    while (low < high) {
        int mid = low + (high - low) / 2, order = strcmp(m->files[mid].path, path);
        if (order == 0)
            return mid;
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return -1;
}

const struct file_proof *manifest_proof(const struct manifest *m)
{
    return m ? &m->proof : NULL;
}

/* --- everything --- */

struct chunk_at {
    int file;
    uint32_t chunk;
};

struct verify {
    const struct manifest *m;
    struct chunk_at *chunks;
};

static enum status verify_item(struct team *t, int64_t i, void *buffer, struct error *err)
{
    const struct verify *v = t->arg;
    const struct chunk_at *at = &v->chunks[i];
    const struct manifest_file *f = &v->m->files[at->file];
    size_t len = chunk_length(f->bytes, at->chunk);
    int fd;
    uint64_t bytes;
    TRY(folder_open(v->m->dir, f->path, f->bytes, &fd, &bytes, err));
    enum status st = folder_read(fd, v->m->dir, f->path, (uint64_t)at->chunk * MANIFEST_CHUNK_BYTES,
                                 buffer, len, err);
    close(fd);
    TRY(st);
    TRY(manifest_check_chunk(v->m, at->file, at->chunk, buffer, len, err));
    team_did(t, len);
    return OK;
}

enum status manifest_verify(const struct manifest *m, struct pool *pool, manifest_progress progress,
                            void *arg, struct error *err)
{
    CHECK(m->dir, "%s is not opened on a folder", m->what);
    struct verify v = {.m = m};
    struct team t = {.item = verify_item,
                     .arg = &v,
                     .total = manifest_total_bytes(m),
                     .progress = progress,
                     .progress_arg = arg};
    for (int i = 0; i < m->count; i++)
        t.count += m->files[i].chunks;
    v.chunks = calloc((size_t)t.count + 1, sizeof *v.chunks);
    if (!v.chunks)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for %lld chunks", m->what,
                         (long long)t.count);
    int64_t n = 0;
    for (int i = 0; i < m->count; i++)
        for (uint32_t c = 0; c < m->files[i].chunks; c++)
            v.chunks[n++] = (struct chunk_at){i, c};
    enum status st = team_run(&t, pool, err);
    free(v.chunks);
    if (st != OK && t.failed > 1)
        error_prefix(err, "%lld chunks are bad; the first: ", (long long)t.failed);
    return st;
}
