/* The folder of a running `witan serve`: see run_folder.h. */
#include "cli/run_folder.h"

#include "base/check.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char scratch_prefix[] = "/dev/shm/witan-";
enum { MAX_DEPTH = 16, LOCK_TRIES = 16 };

static const char *const names[] = {
#define X(name, file) file,
    RUN_FOLDER_FILES(X)
#undef X
};

void run_folder_file(const char *dir, enum run_folder_file file, char path[RUN_FOLDER_MAX_PATH])
{
    int n = snprintf(path, RUN_FOLDER_MAX_PATH, "%s/%s", dir, names[file]);
    CHECK(n < RUN_FOLDER_MAX_PATH, "%s", dir);
}

/* Room for the longest file name and a suffix behind it. */
static enum status check_length(const char *dir, struct error *err)
{
    if (strlen(dir) > RUN_FOLDER_MAX_PATH - 32)
        return error_set(err, ERR_LIMIT, "the path of the run folder is too long: %s", dir);
    return OK;
}

enum status run_folder_default(char path[RUN_FOLDER_MAX_PATH], struct error *err)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n = 0;
    if (state && *state == '/')
        n = snprintf(path, RUN_FOLDER_MAX_PATH, "%s/witan/serve", state);
    else if (home && *home == '/')
        n = snprintf(path, RUN_FOLDER_MAX_PATH, "%s/.local/state/witan/serve", home);
    else
        return error_set(err, ERR_NOT_FOUND, "HOME is not set: name a folder with --run-dir");
    if (n >= RUN_FOLDER_MAX_PATH)
        return error_set(err, ERR_LIMIT, "HOME is too long a path: name a folder with --run-dir");
    return check_length(path, err);
}

/* --- making ------------------------------------------------------------------------------------
 */

static enum status make_folders(const char *dir, struct error *err)
{
    char part[RUN_FOLDER_MAX_PATH];
    snprintf(part, sizeof part, "%s", dir);
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, 0755) != 0 && errno != EEXIST)
            return error_errno(err, errno, "%s", part);
        *slash = '/';
    }
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return error_errno(err, errno, "%s", dir);
    return OK;
}

/* Private keys will lie in it. */
static enum status check_owner(const char *dir, struct error *err)
{
    struct stat s;
    if (stat(dir, &s) != 0)
        return error_errno(err, errno, "%s", dir);
    if (!S_ISDIR(s.st_mode))
        return error_set(err, ERR_INVALID, "%s is not a folder", dir);
    if (s.st_uid != geteuid() || (s.st_mode & 022))
        return error_set(err, ERR_INVALID,
                         "%s: expected a folder of our own that nobody else can write to", dir);
    return OK;
}

static enum status make_temporary(char path[RUN_FOLDER_MAX_PATH], struct error *err)
{
    const char *places[] = {getenv("XDG_RUNTIME_DIR"), "/tmp"};
    for (int i = 0; i < 2; i++) {
        if (!places[i] || *places[i] != '/' || strlen(places[i]) > RUN_FOLDER_MAX_PATH / 2)
            continue;
        snprintf(path, RUN_FOLDER_MAX_PATH, "%s/witan-XXXXXX", places[i]);
        if (mkdtemp(path))
            return OK;
    }
    return error_errno(err, errno, "cannot make a folder under /tmp");
}

static struct flock whole_file(short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET};
}

/* ERR_LIMIT: another process has it. */
static enum status lock(const char *dir, int *out, struct error *err)
{
    char path[RUN_FOLDER_MAX_PATH];
    run_folder_file(dir, RUN_FOLDER_PID, path);
    for (int i = 0; i < LOCK_TRIES; i++) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return error_errno(err, errno, "%s", path);
        struct flock want = whole_file(F_WRLCK), holder = whole_file(F_WRLCK);
        struct stat ours, there;
        if (fcntl(fd, F_SETLK, &want) == 0) {
            /* Unless the one before us removed it between our open and our lock. */
            if (fstat(fd, &ours) == 0 && stat(path, &there) == 0 && ours.st_ino == there.st_ino) {
                *out = fd;
                return OK;
            }
        } else if (fcntl(fd, F_GETLK, &holder) == 0 && holder.l_type != F_UNLCK) {
            close(fd);
            return error_set(err, ERR_LIMIT,
                             "already running in %s as process %d (`witan serve --stop --run-dir "
                             "%s` ends it)",
                             dir, (int)holder.l_pid, dir);
        }
        close(fd);
    }
    return error_set(err, ERR_IO, "%s: cannot be locked", path);
}

/* Open MPI's files lie in memory where that is possible: ranks talk through some of them, and a
 * home folder may be on the network. The link lets the next process clear them should this one be
 * killed.
 */
static void make_scratch(struct run_folder *r)
{
    char link[RUN_FOLDER_MAX_PATH];
    run_folder_file(r->path, RUN_FOLDER_SCRATCH, link);
    snprintf(r->scratch, sizeof r->scratch, "%sXXXXXX", scratch_prefix);
    if (!mkdtemp(r->scratch)) {
        r->scratch[0] = '\0';
    } else if (symlink(r->scratch, link) != 0) {
        rmdir(r->scratch);
        r->scratch[0] = '\0';
    }
}

static enum status write_pid(int fd, const char *dir, struct error *err)
{
    char text[32];
    int n = snprintf(text, sizeof text, "%d\n", (int)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n)
        return error_errno(err, errno, "%s/%s", dir, names[RUN_FOLDER_PID]);
    return OK;
}

/* --- removing ----------------------------------------------------------------------------------
 */

static int remove_entry(const char *path, const struct stat *s, int type, struct FTW *where)
{
    (void)s, (void)type, (void)where;
    remove(path);
    return 0;
}

static void remove_tree(const char *path)
{
    nftw(path, remove_entry, MAX_DEPTH, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

bool run_folder_job(const struct run_folder *r, uint32_t index, char path[RUN_FOLDER_MAX_SCRATCH])
{
    if (!r->scratch[0])
        return false;
    snprintf(path, RUN_FOLDER_MAX_SCRATCH, "%s/%" PRIu32, r->scratch, index);
    remove_tree(path);
    return mkdir(path, 0700) == 0;
}

static void remove_files(const char *dir, bool keep_log)
{
    char path[RUN_FOLDER_MAX_PATH], target[64] = "";
    run_folder_file(dir, RUN_FOLDER_SCRATCH, path);
    ssize_t n = readlink(path, target, sizeof target - 1);
    if (n > 0 && strncmp(target, scratch_prefix, sizeof scratch_prefix - 1) == 0 &&
        !strchr(target + sizeof scratch_prefix - 1, '/'))
        remove_tree(target);
    run_folder_file(dir, RUN_FOLDER_PKI, path);
    remove_tree(path);
    for (int i = 0; i < RUN_FOLDER_COUNT; i++) {
        if (i == RUN_FOLDER_PKI || i == RUN_FOLDER_PID || (keep_log && i == RUN_FOLDER_LOG))
            continue;
        run_folder_file(dir, i, path);
        unlink(path);
    }
}

/* The lock goes last. */
static void remove_lock(const char *dir)
{
    char path[RUN_FOLDER_MAX_PATH];
    run_folder_file(dir, RUN_FOLDER_PID, path);
    unlink(path);
    rmdir(dir);
}

void run_folder_remove(struct run_folder *r, bool keep_log)
{
    if (r->lock_fd < 0)
        return;
    remove_files(r->path, keep_log);
    remove_lock(r->path);
    r->lock_fd = -1; /* open, and so locked, until the process ends: others may wait for that */
}

enum status run_folder_clear(const char *dir, struct error *err)
{
    char path[RUN_FOLDER_MAX_PATH];
    int fd = -1;
    run_folder_file(dir, RUN_FOLDER_PID, path);
    if (access(dir, F_OK) != 0)
        return OK;
    TRY(check_owner(dir, err));
    TRY(lock(dir, &fd, err));
    remove_files(dir, false);
    remove_lock(dir);
    close(fd);
    return OK;
}

/* --- the rest ----------------------------------------------------------------------------------
 */

enum status run_folder_create(const char *dir, struct run_folder *out, struct error *err)
{
    out->lock_fd = -1;
    out->scratch[0] = '\0';
    if (dir) {
        TRY(check_length(dir, err));
        snprintf(out->path, sizeof out->path, "%s", dir);
        TRY(make_folders(dir, err));
        TRY(check_owner(dir, err));
    } else {
        TRY(make_temporary(out->path, err));
    }
    TRY(lock(out->path, &out->lock_fd, err));
    remove_files(out->path, false);
    TRY(write_pid(out->lock_fd, out->path, err));
    make_scratch(out);
    return OK;
}

enum status run_folder_holder(const char *dir, int *fd, pid_t *pid, struct error *err)
{
    char path[RUN_FOLDER_MAX_PATH];
    *pid = 0;
    TRY(check_length(dir, err));
    run_folder_file(dir, RUN_FOLDER_PID, path);
    if (*fd < 0 && (*fd = open(path, O_RDWR | O_CLOEXEC)) < 0)
        return errno == ENOENT ? OK : error_errno(err, errno, "%s", path);
    struct flock holder = whole_file(F_WRLCK);
    if (fcntl(*fd, F_GETLK, &holder) != 0)
        return error_errno(err, errno, "%s", path);
    if (holder.l_type != F_UNLCK)
        *pid = holder.l_pid;
    return OK;
}

enum status run_folder_write(const struct run_folder *r, enum run_folder_file file,
                             const char *text, size_t len, struct error *err)
{
    char path[RUN_FOLDER_MAX_PATH], next[RUN_FOLDER_MAX_PATH + 8];
    run_folder_file(r->path, file, path);
    snprintf(next, sizeof next, "%s.new", path);
    int fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_errno(err, errno, "%s", next);
    ssize_t n = write(fd, text, len);
    int e = n < 0 ? errno : ENOSPC;
    if (close(fd) != 0 || n != (ssize_t)len || rename(next, path) != 0) {
        unlink(next);
        return error_errno(err, n == (ssize_t)len ? errno : e, "%s", path);
    }
    return OK;
}
