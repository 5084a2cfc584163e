/*
 * A model's folder, copied, listed and signed while a test runs, and what it binds to.
 */
#ifndef WITAN_TESTS_UNIT_WORKER_SIGNED_MODEL_H
#define WITAN_TESTS_UNIT_WORKER_SIGNED_MODEL_H

#include "tests/unit/partition/signed_folder.h"

#include "base/check.h"
#include "worker/weights.h"

#include <dirent.h>

struct model {
    struct signed_folder s;
    struct manifest *manifest;
    struct checkpoint *ck;
    struct model_config config;
    struct inventory *inv;
};

static inline struct model model_open(const char *dir)
{
    struct model m = {.s = signed_make()};
    struct generation_config ignored;
    struct error err;
    char from[1024];
    DIR *d = opendir(dir);
    assert_non_null(d);
    struct dirent *e;
    while ((e = readdir(d))) {
        snprintf(from, sizeof from, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.')
            copy_file(from, folder_path(&m.s.files, e->d_name));
    }
    closedir(d);
    signed_create(&m.s);
    signed_by(&m.s, "alice");
    must(signed_open(&m.s, &m.manifest, &err), &err);
    must(config_load_proven(m.s.files.path, m.manifest, &m.config, &ignored, &err), &err);
    must(checkpoint_open_proven(m.s.files.path, m.manifest, &m.ck, &err), &err);
    must(inventory_create(&m.config, &m.inv, &err), &err);
    must(inventory_bind(m.inv, &m.config, m.ck, &err), &err);
    return m;
}

static inline void model_close(struct model *m)
{
    inventory_destroy(m->inv);
    checkpoint_close(m->ck);
    manifest_close(m->manifest);
    signed_remove(&m->s);
}

static inline const char *golden(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/tests/golden/oracle/%s", WITAN_SOURCE_DIR, name);
    return path;
}

static inline const char *quantised(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/tests/golden/quantised/%s", WITAN_SOURCE_DIR, name);
    return path;
}

#endif
