/* A checkpoint opened by a tool that tests run: what it lacks ends the tool in one line. */
#ifndef WITAN_TESTS_TOOLS_MODEL_SOURCE_H
#define WITAN_TESTS_TOOLS_MODEL_SOURCE_H

#include "partition/inventory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct model_source {
    struct model_config config;
    struct checkpoint *ck;
    struct inventory *inv;
};

static inline void model_must(enum status st, const struct error *err)
{
    if (st == OK)
        return;
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, err->msg);
    exit(1);
}

static inline void model_open(struct model_source *s, const char *dir)
{
    struct error err;
    struct generation_config ignored;
    model_must(config_load(dir, &s->config, &ignored, &err), &err);
    model_must(checkpoint_open(dir, &s->ck, &err), &err);
    model_must(inventory_create(&s->config, &s->inv, &err), &err);
    model_must(inventory_bind(s->inv, &s->config, s->ck, &err), &err);
}

static inline void model_close(struct model_source *s)
{
    inventory_destroy(s->inv);
    checkpoint_close(s->ck);
}

#endif
