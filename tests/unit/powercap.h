/* A folder like the kernel's /sys/class/powercap, whose counters are the test's. */
#ifndef WITAN_TESTS_UNIT_POWERCAP_H
#define WITAN_TESTS_UNIT_POWERCAP_H

#include "tests/unit/unit.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define POWERCAP_RANGE UINT64_C(262143328850)

struct powercap {
    char dir[64];
};

static inline void powercap_make(struct powercap *p)
{
    strcpy(p->dir, "/tmp/witan-powercap-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
}

/* In place: whoever has it open sees it. */
static inline void powercap_words(const struct powercap *p, const char *zone, const char *file,
                                  const char *words)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s/%s", p->dir, zone, file);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)strlen(words)), 0);
    assert_int_equal(pwrite(fd, words, strlen(words), 0), strlen(words));
    close(fd);
}

static inline void powercap_set(const struct powercap *p, const char *zone, uint64_t uj)
{
    char words[32];
    snprintf(words, sizeof words, "%020" PRIu64 "\n", uj);
    powercap_words(p, zone, "energy_uj", words);
}

static inline void powercap_zone(const struct powercap *p, const char *zone, const char *name,
                                 uint64_t uj)
{
    char path[256], words[64];
    snprintf(path, sizeof path, "%s/%s", p->dir, zone);
    assert_int_equal(mkdir(path, 0755), 0);
    snprintf(words, sizeof words, "%s\n", name);
    powercap_words(p, zone, "name", words);
    snprintf(words, sizeof words, "%" PRIu64 "\n", POWERCAP_RANGE);
    powercap_words(p, zone, "max_energy_range_uj", words);
    powercap_set(p, zone, uj);
}

static inline void powercap_drop(const struct powercap *p, const char *zone, const char *file)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s/%s", p->dir, zone, file);
    assert_int_equal(unlink(path), 0);
}

static inline void powercap_remove(const struct powercap *p)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", p->dir);
    assert_int_equal(system(command), 0);
}

#endif
