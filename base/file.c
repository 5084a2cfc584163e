/* Files: see file.h. No state. */
#include "base/file.h"
#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum status file_read_proven(const char *dir, const char *name, const struct file_proof *proof,
                             size_t limit_bytes, char **data, size_t *len, struct error *err)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    if (n < 0 || (size_t)n >= sizeof path)
        return error_set(err, ERR_INVALID, "%s: path: expected fewer than %d bytes, found more",
                         name, PATH_MAX);
    enum status st = file_read_all(path, limit_bytes, data, len, err);
    if (!proof || (st != OK && st != ERR_NOT_FOUND))
        return st;
    bool found = st == OK;
    enum status proven = proof->check(proof, name, found ? *data : NULL, found ? *len : 0, err);
    if (proven == OK)
        return st;
    if (found)
        free(*data);
    return proven;
}

static enum status write_all(int fd, const char *path, const char *data, size_t len,
                             struct error *err)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "%s", path);
        data += n;
        len -= (size_t)n;
    }
    return OK;
}

/* Moves the finished file to its place; without `replace` only where nothing is. */
static enum status move_into_place(const char *from, const char *to, bool replace,
                                   struct error *err)
{
    if (replace)
        return rename(from, to) == 0 ? OK : error_errno(err, errno, "%s", to);
    if (link(from, to) != 0)
        return errno == EEXIST
                   ? error_set(err, ERR_INVALID, "%s: expected nothing, found a file", to)
                   : error_errno(err, errno, "%s", to);
    unlink(from);
    return OK;
}

enum status file_write(const char *path, const void *data, size_t len, mode_t mode, bool replace,
                       struct error *err)
{
    char aside[PATH_MAX];
    int n = snprintf(aside, sizeof aside, "%s.XXXXXX", path);
    if (n < 0 || (size_t)n >= sizeof aside)
        return error_set(err, ERR_INVALID, "%.100s: expected a path of fewer than %d bytes", path,
                         PATH_MAX - 7);
    int fd = mkostemp(aside, O_CLOEXEC); /* mode 0600 at most */
    if (fd < 0)
        return error_errno(err, errno, "%s", path);
    enum status st = write_all(fd, path, data, len, err);
    if (st == OK && (fchmod(fd, mode) != 0 || fsync(fd) != 0))
        st = error_errno(err, errno, "%s", path);
    if (close(fd) != 0 && st == OK)
        st = error_errno(err, errno, "%s", path);
    if (st == OK)
        st = move_into_place(aside, path, replace, err);
    if (st != OK)
        unlink(aside);
    return st;
}

bool file_set_direct(int fd, bool direct)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
}

bool file_read_direct(int fd, uint64_t offset, void *to, size_t bytes)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t k = pread(fd, (char *)to + done,
                          (bytes - done + FILE_PAGE - 1) / FILE_PAGE * FILE_PAGE,
                          (off_t)(offset + done));
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return false;
        done += (size_t)k;
        if (done < bytes && done % FILE_PAGE != 0)
            return false;
    }
    return true;
}

enum status file_check_secret(const char *path, struct error *err)
{
    struct stat s;
    if (stat(path, &s) != 0)
        return error_errno(err, errno, "%s", path);
    mode_t forbidden = s.st_uid == 0 ? 037 : 077;
    if (s.st_mode & forbidden)
        return error_set(err, ERR_INVALID,
                         "%s: expected a key that only its owner can read (mode 0600), found mode "
                         "%04o",
                         path, (unsigned)(s.st_mode & 07777));
    return OK;
}
