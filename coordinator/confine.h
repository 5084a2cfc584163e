/*
 * What the coordinator gives up once it has read its configuration, before it opens anything and
 * before other threads: core dumps, swap, the wish to read what was freed, capabilities, programs,
 * other processes, and files and peers that cluster.yaml does not name. See docs/security.md.
 */
#ifndef WITAN_COORDINATOR_CONFINE_H
#define WITAN_COORDINATOR_CONFINE_H

#include "coordinator/config.h"

/* Of a checked configuration; one thread runs. Says what is so in the log. */
enum status confine(const struct config *c, struct error *err);

#endif
