/* Counters of processors' energy: see rapl.h. State: the struct. */
#include "worker/rapl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct zone {
    int fd;        /* of its energy_uj */
    uint64_t last_uj, range_uj;
};

struct rapl {
    struct zone zones[RAPL_MAX_ZONES];
    int count;
    bool failed;
    uint64_t total_uj;
    char root[256];
};

static enum status read_number(int fd, uint64_t *out)
{
    char text[32], *end;
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    if (n <= 0)
        return ERR_IO;
    text[n] = '\0';
    if (text[0] < '0' || text[0] > '9')
        return ERR_IO;
    *out = strtoull(text, &end, 10);
    return *end == '\n' || *end == '\0' ? OK : ERR_IO;
}

/* A file of a zone's folder, opened; below 0: errno. */
static int open_file(const struct rapl *r, const char *zone, const char *file)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s/%s", r->root, zone, file);
    return open(path, O_RDONLY | O_CLOEXEC);
}

/* Is the zone a package, or a package's memory? Cores and what is beside them are parts of their
 * package; "psys" is a board of which packages are a part. */
static bool is_counted(const struct rapl *r, const char *zone)
{
    char name[64] = "";
    int fd = open_file(r, zone, "name");
    ssize_t n = fd >= 0 ? read(fd, name, sizeof name - 1) : 0;
    if (fd >= 0)
        close(fd);
    name[n > 0 ? n : 0] = '\0';
    name[strcspn(name, "\n")] = '\0';
    return strncmp(name, "package", 7) == 0 || strcmp(name, "dram") == 0;
}

static enum status open_zone(struct rapl *r, const char *zone, struct error *err)
{
    struct zone *z = &r->zones[r->count];
    if (!is_counted(r, zone))
        return OK;
    if (r->count == RAPL_MAX_ZONES)
        return error_set(err, ERR_UNSUPPORTED, "%s: expected at most %d packages", r->root,
                         (int)RAPL_MAX_ZONES);
    int range = open_file(r, zone, "max_energy_range_uj");
    if (range < 0 || read_number(range, &z->range_uj) != OK)
        z->range_uj = 0;
    if (range >= 0)
        close(range);
    z->fd = open_file(r, zone, "energy_uj");
    int e = errno;
    if (z->fd >= 0 && read_number(z->fd, &z->last_uj) == OK) {
        r->count++;
        return OK;
    }
    if (z->fd >= 0)
        close(z->fd);
    return error_set(err, ERR_IO,
                     "%s/%s/energy_uj: %s: let the user who runs witan-worker read it (a rule of "
                     "udev, or chmod 0444 at the system's start: docs/operations.md, Energy)",
                     r->root, zone, z->fd >= 0 ? "expected a number" : strerror(e));
}

enum status rapl_open(const char *root, struct rapl **out, struct error *err)
{
    struct rapl *r = calloc(1, sizeof *r);
    if (!r)
        return error_set(err, ERR_NO_MEMORY, "no memory for the processors' meter");
    snprintf(r->root, sizeof r->root, "%s", root);
    DIR *d = opendir(root);
    enum status st = OK;
    for (struct dirent *e; d && st == OK && (e = readdir(d));)
        if (strncmp(e->d_name, "intel-rapl:", 11) == 0)
            st = open_zone(r, e->d_name, err);
    if (d)
        closedir(d);
    if (st == OK && r->count == 0)
        st = error_set(err, ERR_UNSUPPORTED,
                       "%s: it has no intel-rapl:N: this machine counts no energy of its "
                       "processors (virtual machines do not; elsewhere `modprobe intel_rapl_msr`)",
                       root);
    if (st != OK) {
        rapl_close(r);
        return st;
    }
    *out = r;
    return OK;
}

void rapl_close(struct rapl *r)
{
    for (int i = 0; r && i < r->count; i++)
        close(r->zones[i].fd);
    free(r);
}

enum status rapl_read(struct rapl *r, double *joules, struct error *err)
{
    for (int i = 0; i < r->count && !r->failed; i++) {
        struct zone *z = &r->zones[i];
        uint64_t now = 0;
        r->failed = read_number(z->fd, &now) != OK;
        if (r->failed)
            break;
        uint64_t rest = z->range_uj > z->last_uj ? z->range_uj - z->last_uj : 0;
        r->total_uj += now >= z->last_uj ? now - z->last_uj : rest + now;
        z->last_uj = now;
    }
    *joules = (double)r->total_uj * 1e-6;
    return r->failed ? error_set(err, ERR_IO, "%s: a counter can be read no more", r->root) : OK;
}
