/*
 * Keeps a coordinator and its groups' MPI jobs running together: starts them, tells how far they
 * are, starts a group or the coordinator again that has served and ended (cli/restart.h), and ends
 * all of them when one cannot come up at all, the coordinator ends in order, or we are told to.
 * Every process that they leave behind becomes our child and is ended too.
 *
 * Takes SIGINT, SIGTERM, SIGHUP and SIGCHLD of the process over for good. One thread, one call a
 * process.
 */
#ifndef WITAN_CLI_SUPERVISE_H
#define WITAN_CLI_SUPERVISE_H

#include "cli/run_folder.h"
#include "coordinator/config.h"

struct supervise_options {
    const struct config *config; /* checked, with pki */
    struct run_folder *run;      /* its files are written here, and removed by the caller */
    char *const *mpirun_more;    /* words for mpirun as they are, up to a NULL; NULL: none */
    /* Takes the lines that tell what is served where, once all is ready, and is then closed. While
     * nobody reads it (its other end is closed) before that, everything is ended. -1: they go to
     * standard output. */
    int ready_fd;
};

/* Returns when no process is left: 0 when it was told to stop, 1 when something failed, which
 * standard error then names. */
int supervise(const struct supervise_options *o);

#endif
