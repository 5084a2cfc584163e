/* Making a manifest: see manifest.h. */
#include "partition/manifest_private.h"
#include "partition/shown.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct making {
    struct manifest *m;
    int *order; /* files, the largest first: they take longest */
};

static enum status make_item(struct team *t, int64_t i, void *buffer, struct error *err)
{
    const struct making *k = t->arg;
    struct manifest_file *f = &k->m->files[k->order[i]];
    TRY(team_hash_file(t, k->m->dir, f->path, f->bytes, buffer, &f->sha256, f->leaves, err));
    return tree_root(f->leaves, f->chunks, &f->root, err);
}

static int larger_first(const void *a, const void *b, void *arg)
{
    const struct manifest_file *files = arg;
    const struct manifest_file *x = &files[*(const int *)a], *y = &files[*(const int *)b];
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return strcmp(x->path, y->path);
}

/* Takes the names over. */
static enum status take_files(struct manifest *m, struct folder_files *found, struct error *err)
{
    if (found->count == 0)
        return error_set(err, ERR_INVALID, "%s: expected files, found none", m->dir);
    m->files = calloc((size_t)found->count, sizeof *m->files);
    if (!m->files)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for %d files", m->dir, found->count);
    for (int i = 0; i < found->count; i++) {
        struct manifest_file *f = &m->files[m->count++];
        if (found->list[i].bytes > MANIFEST_MAX_FILE_BYTES)
            return error_set(err, ERR_LIMIT, "%s/%s: expected at most 16 TiB, found %llu bytes",
                             m->dir, shown(found->list[i].path).s,
                             (unsigned long long)found->list[i].bytes);
        *f = (struct manifest_file){.path = found->list[i].path, .bytes = found->list[i].bytes};
        found->list[i].path = NULL;
        f->chunks = chunks_of(f->bytes);
        f->leaves = calloc((size_t)f->chunks + 1, sizeof *f->leaves);
        if (!f->leaves)
            return error_set(err, ERR_NO_MEMORY, "%s: no memory for %u chunks", m->dir, f->chunks);
    }
    return OK;
}

static enum status hash_all(struct manifest *m, struct pool *pool, manifest_progress progress,
                            void *arg, struct error *err)
{
    struct making k = {.m = m, .order = calloc((size_t)m->count, sizeof *k.order)};
    if (!k.order)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for %d files", m->dir, m->count);
    for (int i = 0; i < m->count; i++)
        k.order[i] = i;
    qsort_r(k.order, (size_t)m->count, sizeof *k.order, larger_first, m->files);
    struct team t = {.item = make_item,
                     .arg = &k,
                     .count = m->count,
                     .stop = true,
                     .total = manifest_total_bytes(m),
                     .progress = progress,
                     .progress_arg = arg};
    enum status st = team_run(&t, pool, err);
    free(k.order);
    return st;
}

static enum status write_text(const struct manifest *m, struct error *err)
{
    struct buf text;
    struct manifest *again = NULL;
    buf_init(&text, MANIFEST_MAX_BYTES);
    enum status st = manifest_print(m, &text, err);
    /* What could not be opened must not be written: words out of bounds, say. */
    if (st == OK)
        st = manifest_parse(m->what, text.data, text.len, &again, err);
    manifest_close(again);
    if (st == OK)
        st = file_write(m->what, text.data, text.len, 0644, false, err);
    buf_fini(&text);
    return st;
}

/* An older manifest or its signatures would be taken for the new one's. */
static enum status expect_nothing(const char *path, struct error *err)
{
    char sig[MANIFEST_MAX_FOLDER];
    TRY(manifest_sig_path(path, sig, sizeof sig, err));
    const char *const names[] = {path, sig};
    for (int i = 0; i < 2; i++)
        if (access(names[i], F_OK) == 0)
            return error_set(err, ERR_INVALID,
                             "%s: expected nothing, found a file: move it away to make a new one",
                             names[i]);
    return OK;
}

enum status manifest_create(const char *dir, const char *path, const struct manifest_words *words,
                            struct pool *pool, manifest_progress progress, void *arg,
                            struct error *err)
{
    TRY(expect_nothing(path, err));
    struct folder_files found = {0};
    enum status st = OK;
    struct manifest *m = calloc(1, sizeof *m);
    if (!m || !(m->what = strdup(path)) || !(m->dir = strdup(dir)) ||
        !(m->licence = strdup(words->licence)) || !(m->origin = strdup(words->origin)) ||
        !(m->format = strdup(words->format))) {
        st = error_set(err, ERR_NO_MEMORY, "%s: no memory", path);
        goto out;
    }
    const char *const skip_nothing[] = {NULL};
    TRY_OUT(st, folder_list(dir, skip_nothing, &found, err));
    TRY_OUT(st, take_files(m, &found, err));
    TRY_OUT(st, hash_all(m, pool, progress, arg, err));
    st = write_text(m, err);
out:
    folder_files_fini(&found);
    manifest_close(m);
    return st;
}
