/* A folder as it is, for manifests: see manifest_private.h. No state. */
#include "base/check.h"
#include "partition/manifest_private.h"
#include "partition/shown.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_SKIP = 4 };

struct walk {
    const char *dir;
    size_t dir_len;
    struct stat skip[MAX_SKIP];
    int skip_count;
    struct folder_files *out;
    int cap;
};

static bool skipped(const struct walk *w, const struct stat *s)
{
    for (int i = 0; i < w->skip_count; i++)
        if (w->skip[i].st_dev == s->st_dev && w->skip[i].st_ino == s->st_ino)
            return true;
    return false;
}

static enum status keep(struct walk *w, const char *path, uint64_t bytes, struct error *err)
{
    struct folder_files *f = w->out;
    if (f->count == MANIFEST_MAX_FILES)
        return error_set(err, ERR_LIMIT, "%s: expected at most %d files, found more", w->dir,
                         MANIFEST_MAX_FILES);
    if (f->count == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 64;
        struct folder_file *p = realloc(f->list, (size_t)w->cap * sizeof *p);
        if (!p)
            return error_set(err, ERR_NO_MEMORY, "%s: no memory for %d files", w->dir, w->cap);
        f->list = p;
    }
    struct folder_file *file = &f->list[f->count];
    file->bytes = bytes;
    file->path = strdup(path);
    if (!file->path)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for %d files", w->dir, w->cap);
    f->count++;
    return OK;
}

static enum status visit(struct walk *w, const FTSENT *e, struct error *err)
{
    const char *path = e->fts_path + w->dir_len;
    path += strspn(path, "/");
    switch (e->fts_info) {
    case FTS_D:
        if (e->fts_level > MANIFEST_MAX_DEPTH)
            return error_set(err, ERR_LIMIT, "%s: expected folders at most %d deep, found more",
                             shown(e->fts_path).s, MANIFEST_MAX_DEPTH);
        return OK;
    case FTS_DP:
        return OK;
    case FTS_F:
        if (skipped(w, e->fts_statp))
            return OK;
        TRY(manifest_check_path(w->dir, path, err));
        return keep(w, path, (uint64_t)e->fts_statp->st_size, err);
    case FTS_SL:
    case FTS_SLNONE:
        return error_set(err, ERR_INVALID,
                         "%s/%s: expected a regular file, found a symbolic link: copy the folder "
                         "with `cp -rL`",
                         w->dir, shown(path).s);
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
        return error_errno(err, e->fts_errno, "%s", shown(e->fts_path).s);
    default:
        return error_set(err, ERR_INVALID,
                         "%s/%s: expected a regular file, found a special one: move it away",
                         w->dir, shown(path).s);
    }
}

static int by_path(const void *a, const void *b)
{
    const struct folder_file *x = a, *y = b;
    return strcmp(x->path, y->path);
}

enum status folder_list(const char *dir, const char *const *skip, struct folder_files *out,
                        struct error *err)
{
    struct walk w = {.dir = dir, .dir_len = strlen(dir), .out = out};
    *out = (struct folder_files){0};
    struct stat s;
    if (stat(dir, &s) != 0)
        return error_errno(err, errno, "%s", dir);
    if (!S_ISDIR(s.st_mode))
        return error_set(err, ERR_INVALID, "%s: expected a folder, found a file", dir);
    for (; *skip; skip++) {
        CHECK(w.skip_count < MAX_SKIP, "%d files to skip", w.skip_count);
        if (stat(*skip, &w.skip[w.skip_count]) == 0)
            w.skip_count++;
    }
    /* The folder itself may be reached through a link; nothing in it may. */
    char *roots[] = {(char *)(uintptr_t)dir, NULL};
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, NULL);
    if (!fts)
        return error_errno(err, errno, "%s", dir);
    enum status st = OK;
    FTSENT *e;
    while (st == OK && (errno = 0, e = fts_read(fts)))
        st = visit(&w, e, err);
    if (st == OK && errno != 0)
        st = error_errno(err, errno, "%s", dir);
    fts_close(fts);
    if (st != OK)
        folder_files_fini(out);
    else if (out->count > 0)
        qsort(out->list, (size_t)out->count, sizeof *out->list, by_path);
    return st;
}

void folder_files_fini(struct folder_files *f)
{
    for (int i = 0; i < f->count; i++)
        free(f->list[i].path);
    free(f->list);
    *f = (struct folder_files){0};
}

enum status folder_open(const char *dir, const char *path, uint64_t expected, int *fd,
                        uint64_t *bytes, struct error *err)
{
    char full[PATH_MAX];
    struct stat s;
    int n = snprintf(full, sizeof full, "%s/%s", dir, path);
    if (n < 0 || (size_t)n >= sizeof full)
        return error_set(err, ERR_INVALID, "%s: expected a path of fewer than %d bytes",
                         shown(path).s, PATH_MAX);
    int f = open(full, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (f < 0 || fstat(f, &s) != 0) {
        int e = errno;
        if (f >= 0)
            close(f);
        return error_errno(err, e, "%s/%s", dir, shown(path).s);
    }
    uint64_t found = (uint64_t)s.st_size;
    enum status st = OK;
    if (!S_ISREG(s.st_mode))
        st = error_set(err, ERR_INVALID, "%s/%s: expected a regular file, found another kind", dir,
                       shown(path).s);
    else if (expected != UINT64_MAX && found != expected)
        st = error_set(err, ERR_INVALID,
                       "%s/%s: expected %llu bytes, found %llu: fetch the file again", dir,
                       shown(path).s, (unsigned long long)expected, (unsigned long long)found);
    if (st != OK) {
        close(f);
        return st;
    }
    *fd = f;
    *bytes = found;
    return OK;
}

enum status folder_read(int fd, const char *dir, const char *path, uint64_t offset, void *to,
                        size_t len, struct error *err)
{
    size_t done = 0;
    while (done < len) {
        ssize_t k = pread(fd, (char *)to + done, len - done, (off_t)(offset + done));
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return error_errno(err, errno, "%s/%s: at byte %llu", dir, shown(path).s,
                               (unsigned long long)(offset + done));
        if (k == 0)
            return error_set(
                err, ERR_IO,
                "%s/%s: expected bytes up to %llu, found the end at %llu: the file was "
                "cut short after it was opened; fetch it again",
                dir, shown(path).s, (unsigned long long)(offset + len),
                (unsigned long long)(offset + done));
        done += (size_t)k;
    }
    return OK;
}
