/* What `witan doctor` finds of the files that a configuration names, and of disks: see doctor.h. */
#include "cli/doctor.h"

#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define LEAST_FREE (UINT64_C(64) << 20) /* of a folder for sockets and shared memory */

static bool is_weights(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && (strcmp(dot, ".safetensors") == 0 || strcmp(dot, ".gguf") == 0);
}

/* Every file of the folder must be readable; those of weights are added up. */
static void model(struct doctor *d, const char *dir)
{
    char path[PATH_MAX];
    struct stat st;
    int files = 0, closed = 0;
    DIR *folder = opendir(dir);
    if (!folder) {
        doctor_say(d, DOCTOR_FAIL, "model", "%.200s: %s", dir, strerror(errno));
        doctor_advise(d,
                      "model.path is the checkpoint's folder, the same on every host, readable by "
                      "the user who serves");
        return;
    }
    for (const struct dirent *e; (e = readdir(folder));) {
        if (snprintf(path, sizeof path, "%s/%s", dir, e->d_name) >= (int)sizeof path ||
            stat(path, &st) != 0 || !S_ISREG(st.st_mode))
            continue;
        files++;
        closed += access(path, R_OK) != 0;
        d->weights_bytes += is_weights(e->d_name) ? (uint64_t)st.st_size : 0;
    }
    closedir(folder);
    bool bad = closed > 0 || d->weights_bytes == 0;
    doctor_say(d, bad ? DOCTOR_FAIL : DOCTOR_OK, "model", "%.200s: %d files, weights of %.1f GB",
               dir, files, (double)d->weights_bytes * 1e-9);
    if (closed > 0)
        doctor_advise(d, "%d files are not readable by this user: chmod, or run this as who serves",
                      closed);
    else if (bad)
        doctor_advise(d, "no .safetensors and no .gguf: fetch the checkpoint again");
}

static void readable(struct doctor *d, const char *key, const char *path)
{
    if (!path)
        return;
    bool good = access(path, R_OK) == 0;
    doctor_say(d, good ? DOCTOR_OK : DOCTOR_FAIL, key, "%.250s%s%s", path, good ? "" : ": ",
               good ? "" : strerror(errno));
}

static void secret(struct doctor *d, const char *key, const char *path)
{
    struct error err;
    if (!path)
        return;
    if (access(path, R_OK) != 0) {
        doctor_say(d, DOCTOR_FAIL, key, "%.250s: %s", path, strerror(errno));
        doctor_advise(d, "it must be there, and readable by the user who serves alone");
    } else if (file_check_secret(path, &err) != OK) {
        doctor_say(d, DOCTOR_FAIL, key, "%.390s", err.msg);
        doctor_advise(d, "chmod 600 %.200s", path);
    } else {
        doctor_say(d, DOCTOR_OK, key, "%.250s", path);
    }
}

/* A host has the coordinator's certificate, a worker's, or both; roots' keys belong elsewhere. */
static void certificates(struct doctor *d, const char *dir)
{
    static const char *const roots[] = {"ca.key", "door-ca.key"};
    char path[PATH_MAX];
    int roles = 0;
    snprintf(path, sizeof path, "%s/ca.pem", dir);
    readable(d, "pki", path);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s.key", dir, i == 0 ? "coordinator" : "worker");
        if (access(path, F_OK) != 0)
            continue;
        roles++;
        secret(d, "pki", path);
    }
    if (roles == 0) {
        doctor_say(d, DOCTOR_FAIL, "pki", "%.200s: neither coordinator.key nor worker.key", dir);
        doctor_advise(d, "witan pki issue %.200s --role coordinator (or worker)", dir);
    }
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, roots[i]);
        if (access(path, F_OK) != 0)
            continue;
        doctor_say(d, DOCTOR_WARN, "pki", "%.250s is on a host that serves", path);
        doctor_advise(d,
                      "keep roots' keys off the machines that serve: who has one can pose as any "
                      "rank or door");
    }
}

static void weights_cache(struct doctor *d, const char *dir)
{
    struct stat st;
    struct statvfs v;
    if (stat(dir, &st) != 0 || statvfs(dir, &v) != 0) {
        doctor_say(d, DOCTOR_FAIL, "kept weights", "%.200s: %s", dir, strerror(errno));
        doctor_advise(d, "mkdir -m 700 %.200s", dir);
        return;
    }
    if (st.st_uid != geteuid() || (st.st_mode & 022) != 0) {
        doctor_say(d, DOCTOR_FAIL, "kept weights", "%.200s: of user %u, mode %04o", dir,
                   (unsigned)st.st_uid, (unsigned)(st.st_mode & 07777));
        doctor_advise(d, "a folder of the user who serves (this is %u), writable by nobody else",
                      (unsigned)geteuid());
        return;
    }
    uint64_t left = (uint64_t)v.f_bavail * v.f_frsize;
    bool bad = left < d->weights_bytes;
    doctor_say(d, bad ? DOCTOR_WARN : DOCTOR_OK, "kept weights", "%.200s: %.1f GB free", dir,
               (double)left * 1e-9);
    if (bad)
        doctor_advise(d,
                      "the model's files have %.1f GB: without room ranks read the checkpoint at "
                      "each start",
                      (double)d->weights_bytes * 1e-9);
}

static void free_space(struct doctor *d, const char *dir)
{
    struct statvfs v;
    if (!dir || statvfs(dir, &v) != 0)
        return;
    uint64_t left = (uint64_t)v.f_bavail * v.f_frsize;
    doctor_say(d, left < LEAST_FREE ? DOCTOR_WARN : DOCTOR_OK, "disk", "%.200s: %.1f GB free", dir,
               (double)left * 1e-9);
    if (left < LEAST_FREE)
        doctor_advise(d, "ranks of one host meet in shared memory there: free some, or mount it "
                         "larger (containers: --shm-size)");
}

void doctor_files(struct doctor *d)
{
    const struct config *c = d->config;
    free_space(d, "/dev/shm");
    free_space(d, "/tmp");
    if (!c)
        return;
    if (c->model.path)
        model(d, c->model.path);
    readable(d, "manifest", c->model.manifest);
    readable(d, "trust", c->model.trust);
    readable(d, "tls", c->listen.tls.cert);
    secret(d, "tls", c->listen.tls.key);
    readable(d, "tls", c->listen.tls.client_ca);
    secret(d, "keys", c->listen.keys);
    readable(d, "jwks", c->auth.jwks);
    if (c->pki)
        certificates(d, c->pki);
    if (c->model.weights_cache)
        weights_cache(d, c->model.weights_cache);
}
