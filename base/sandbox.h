/*
 * What this process may still do once it has started, so that code which an attacker brings into it
 * finds little: no capabilities, no other programs, no other processes, no writing beside what is
 * configured. Why these and no more: decision 103.
 *
 * sandbox_begin comes first, while there is one thread: Landlock and capabilities are of a thread
 * and of those that it starts. sandbox_seal may come later, and takes in every thread that runs.
 * What the kernel does not have is left out and said; nothing here can be undone.
 */
#ifndef WITAN_BASE_SANDBOX_H
#define WITAN_BASE_SANDBOX_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SANDBOX_MAX_WRITE = 64, SANDBOX_MAX_PORTS = 64, SANDBOX_WORDS = 400 };

struct sandbox {
    /* Files and folders beneath which may be written; those that are not there are passed over. */
    const char *write[SANDBOX_MAX_WRITE];
    uint32_t write_count;
    /* TCP ports that may be connected to, with `connects`; without it any. */
    bool connects;
    uint16_t port[SANDBOX_MAX_PORTS];
    uint32_t port_count;
    bool alone;    /* signals and abstract sockets of processes outside are out of reach */
    bool any_file; /* files as without Landlock: a driver opens and makes what it needs */
    /* Capabilities to keep, a bit each (1 << CAP_NET_BIND_SERVICE), where there are any. */
    uint64_t keep;
};

/* Adds a path, which must outlive the call of sandbox_begin; NULL and "" are passed over. */
void sandbox_may_write(struct sandbox *s, const char *path);
void sandbox_may_connect(struct sandbox *s, int port);

/* False: a build with sanitizers, whose runtimes want what is forbidden here. */
bool sandbox_here(void);

/* Drops capabilities, sets no_new_privs and installs Landlock's rules. Appends what is so, and what
 * the kernel lacks, to `words`. An error: the kernel has it and refused. */
enum status sandbox_begin(const struct sandbox *s, char words[SANDBOX_WORDS], struct error *err);

/* Forbids, in all threads, the system calls by which a process takes on other programs, reaches
 * into others or changes the machine: they fail with EPERM. Sets no_new_privs. */
enum status sandbox_seal(char words[SANDBOX_WORDS], struct error *err);

#endif
