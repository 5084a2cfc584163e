/*
 * The audit log's files: opened, locked against other processes, continued where the last whole
 * record ends. See audit_private.h.
 */
#include "coordinator/audit_private.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A broken end may be a batch whose blocks were promised and never written. */
enum { MAX_BROKEN = 16 << 20, MODE = 0640 };

/* --- opening --- */

/* The name itself must outlive a crash too. */
static enum status sync_folder(const char *path, struct error *err)
{
    char *copy = strdup(path);
    int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    /* EINVAL: a file system that has nothing to sync there. */
    enum status st = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL)
                         ? OK
                         : error_errno(err, errno, "%s: its folder", path);
    if (fd >= 0)
        close(fd);
    free(copy);
    return st;
}

/* POSIX locks tell who holds them. They end with any descriptor of the file that this process
 * closes: nothing else here opens it. */
static enum status lock(const char *key, const struct audit_file *f, struct error *err)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(f->fd, F_SETLK, &l) == 0)
        return OK;
    if (errno != EACCES && errno != EAGAIN)
        return error_errno(err, errno, "%s: %s: cannot lock it", key, f->path);
    if (fcntl(f->fd, F_GETLK, &l) != 0)
        l.l_pid = 0;
    return error_set(err, ERR_CONFLICT,
                     "%s: %s: expected a file that nobody else writes, found one that process %ld "
                     "holds locked: each coordinator needs a log of its own",
                     key, f->path, (long)l.l_pid);
}

static enum status open_or_make(const char *key, struct audit_file *f, struct error *err)
{
    struct stat s;
    f->fd = open(f->path, O_RDWR | O_CLOEXEC);
    if (f->fd < 0 && errno == ENOENT) {
        f->fd = open(f->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, MODE);
        if (f->fd >= 0)
            TRY(sync_folder(f->path, err));
    }
    if (f->fd < 0 || fstat(f->fd, &s) != 0)
        return error_errno(err, errno, "%s: %s", key, f->path);
    if (!S_ISREG(s.st_mode))
        return error_set(err, ERR_INVALID, "%s: %s: expected a file, found something else", key,
                         f->path);
    f->size = s.st_size;
    return lock(key, f, err);
}

/* --- the last record --- */

static enum status read_at(const struct audit_file *f, int64_t offset, char *to, size_t len,
                           struct error *err)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pread(f->fd, to + done, len - done, offset + (int64_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_errno(err, n < 0 ? errno : EIO, "%s", f->path);
        done += (size_t)n;
    }
    return OK;
}

/* Where the byte behind the last newline before `end` lies: 0 where there is none. */
static enum status line_start(const struct audit_file *f, int64_t end, int64_t most, int64_t *out,
                              struct error *err)
{
    char block[4096];
    int64_t least = end > most ? end - most : 0;
    while (end > least) {
        int64_t from = end - least > (int64_t)sizeof block ? end - (int64_t)sizeof block : least;
        TRY(read_at(f, from, block, (size_t)(end - from), err));
        const char *newline = memrchr(block, '\n', (size_t)(end - from));
        if (newline) {
            *out = from + (newline - block) + 1;
            return OK;
        }
        end = from;
    }
    *out = least;
    return least == 0 ? OK
                      : error_set(err, ERR_INVALID,
                                  "%s: expected a newline in its last %lld bytes, found none",
                                  f->path, (long long)most);
}

static enum status read_last(const struct audit_file *f, int64_t whole, struct audit_last *last,
                             struct error *err)
{
    int64_t start;
    struct audit_record r;
    char line[AUDIT_MAX_LINE], what[512];
    TRY(line_start(f, whole - 1, AUDIT_MAX_LINE, &start, err));
    size_t len = (size_t)(whole - 1 - start);
    TRY(read_at(f, start, line, len, err));
    snprintf(what, sizeof what, "%.400s: last whole line", f->path);
    enum status st = audit_line_read(what, line, len, &r, err);
    if (st != OK)
        return error_advise(err, st,
                            "this log cannot be continued: see what was done to it with `witan "
                            "audit verify`, keep it, and name another file");
    const char *id = json_string_value(json_object_get(r.fields, "chain"));
    *last = (struct audit_last){
        .chain = {.seq = r.seq + 1, .prev = r.own}, .seq = r.seq, .wall_ms = r.wall_ms};
    snprintf(last->id, sizeof last->id, "%s", id ? id : "");
    json_decref(r.root);
    return OK;
}

/* A first record that broke off, and not some other file that an operator named. */
static enum status check_beginning(const struct audit_file *f, struct error *err)
{
    static const char begins[] = "{\"fields\":{\"chain\":";
    char found[sizeof begins - 1];
    size_t len = (size_t)f->size < sizeof found ? (size_t)f->size : sizeof found;
    TRY(read_at(f, 0, found, len, err));
    if (memcmp(found, begins, len) == 0)
        return OK;
    return error_set(
        err, ERR_INVALID,
        "%s: expected an audit log, or no file, found another file: name one of its own", f->path);
}

/* What a crash left behind the last whole record. */
static enum status cut_broken(struct audit_file *f, int64_t whole, struct error *err)
{
    f->broken = f->size - whole;
    f->size = whole;
    if (f->broken > 0 && (ftruncate(f->fd, whole) != 0 || fdatasync(f->fd) != 0))
        return error_errno(err, errno, "%s: cannot cut off a record that broke off", f->path);
    return OK;
}

enum status audit_file_open(const char *key, const char *path, struct audit_file *f,
                            struct audit_last *last, struct error *err)
{
    int64_t whole;
    *last = (struct audit_last){.seq = -1, .wall_ms = -1};
    f->path = strdup(path);
    if (!f->path)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory", path);
    TRY(open_or_make(key, f, err));
    TRY(line_start(f, f->size, MAX_BROKEN, &whole, err));
    if (whole > 0)
        TRY(read_last(f, whole, last, err));
    else
        TRY(check_beginning(f, err));
    return cut_broken(f, whole, err);
}

void audit_file_close(struct audit_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    free(f->path);
    *f = (struct audit_file){.fd = -1};
}

/* --- writing --- */

static enum status write_behind(struct audit_file *f, const char *data, size_t len,
                                struct error *err)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(f->fd, data + done, len - done, f->size + (int64_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_errno(err, n < 0 ? errno : ENOSPC, "%s", f->path);
        done += (size_t)n;
    }
    return fdatasync(f->fd) == 0 ? OK : error_errno(err, errno, "%s", f->path);
}

enum status audit_file_append(struct audit_file *f, const char *data, size_t len, struct error *err)
{
    enum status st = write_behind(f, data, len, err);
    if (st == OK)
        f->size += (int64_t)len;
    else if (ftruncate(f->fd, f->size) != 0)
        error_advise(err, st, "and what was written of it could not be cut off");
    return st;
}
