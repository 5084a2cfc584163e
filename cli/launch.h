/*
 * Starting the processes of a cluster: the command lines of mpirun, which stand here once, and
 * children that never outlive the process that started them.
 */
#ifndef WITAN_CLI_LAUNCH_H
#define WITAN_CLI_LAUNCH_H

#include "base/error.h"
#include "coordinator/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The words of a command line. `list` is always followed by a NULL once a word is in it. */
struct words {
    char **list;
    size_t count, cap;
};

void words_add(struct words *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void words_fini(struct words *w);

enum { LAUNCH_MAX_PATH = 4096 };

/* The path of a program that lies beside this one; ERR_NOT_FOUND names it. */
enum status launch_sibling(const char *name, char path[LAUNCH_MAX_PATH], struct error *err);

/* The path of the library that keeps mpirun's own listeners on loopback (cli/loopback/loopback.c);
 * ERR_NOT_FOUND names it. */
enum status launch_loopback(char path[LAUNCH_MAX_PATH], struct error *err);

/* How a group's ranks are started. Everything is the caller's. */
struct launch_mpi {
    bool verbose;
    bool one_host;          /* all ranks on this machine, which may have fewer cores */
    bool preloaded;         /* mpirun is started with launch_loopback: its ranks are not */
    const char *data_plane; /* interfaces or subnets for MPI's traffic; NULL: any */
    const char *scratch;    /* one_host: folder for Open MPI's own files; NULL: where it likes */
    char *const *more;      /* words for mpirun as they are, up to a NULL; NULL: none */
};

/* "mpirun" and its flags for the whole job; what is started where follows (launch_ranks_words). */
void launch_mpirun_words(const struct launch_mpi *m, struct words *out);

/* One program of the job: `ranks` of it, on these hosts in turn (none: where mpirun runs). Its
 * words and, before the next program, a ":" are the caller's to add. */
void launch_ranks_words(int32_t ranks, const struct config_host *hosts, uint32_t hosts_count,
                        struct words *out);

/* Tells Open MPI, which asks for it twice, that root may run it. In the environment. */
void launch_allow_root(void);

/*
 * Starts argv[0] (searched in PATH) in a process group of its own. Its standard input is empty, its
 * standard output goes where our standard error goes. It gets SIGTERM when the calling process
 * dies, however that dies. `keep_fd` stays open in it under the same number (-1: none). A program
 * that cannot be started is an error here. `preload` (may be NULL): a library to load into it.
 */
enum status launch_start(char *const *argv, int keep_fd, const char *preload, pid_t *pid,
                         struct error *err);

#endif
