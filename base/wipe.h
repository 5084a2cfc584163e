/*
 * Memory that is wiped when it is freed, for retention.wipe: every free() and realloc() of this
 * process, whichever library it is in, so that texts in JSON trees, messages and buffers of gRPC's
 * and libevent's go as ours do. Off until it is asked for; then a memset a free().
 *
 * A program has it by calling wipe_on_free. Nothing in builds with sanitizers, which have a free()
 * of their own, and with another C library than glibc.
 */
#ifndef WITAN_BASE_WIPE_H
#define WITAN_BASE_WIPE_H

#include <stdbool.h>

/* From now on, for as long as the process runs. Any thread. False: not in this build. */
bool wipe_on_free(void);

#endif
