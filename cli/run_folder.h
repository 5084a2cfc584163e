/*
 * The folder of a running `witan serve`, readable by its user alone: the effective configuration,
 * certificates that live as long as it does, its log when it is detached, and serve.json, which
 * tells other programs its process and addresses. serve.pid is locked while it runs, so that a
 * folder that a killed one left behind is told from one in use.
 *
 * One thread. Nothing here is removed but what is named below.
 */
#ifndef WITAN_CLI_RUN_FOLDER_H
#define WITAN_CLI_RUN_FOLDER_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { RUN_FOLDER_MAX_PATH = 1024, RUN_FOLDER_MAX_SCRATCH = 80 };

/* X(name, file): what lies in the folder. SCRATCH is a link to a folder in memory for Open MPI. */
#define RUN_FOLDER_FILES(X)                                                                        \
    X(PID, "serve.pid")                                                                            \
    X(CONFIG, "serve.yaml")                                                                        \
    X(STATE, "serve.json")                                                                         \
    X(LOG, "serve.log")                                                                            \
    X(PKI, "serve.pki")                                                                            \
    X(SCRATCH, "serve.scratch")

enum run_folder_file {
#define X(name, file) RUN_FOLDER_##name,
    RUN_FOLDER_FILES(X)
#undef X
        RUN_FOLDER_COUNT
};

struct run_folder {
    char path[RUN_FOLDER_MAX_PATH];
    char scratch[64]; /* "": there is none */
    int lock_fd;
};

/* Where a detached one lies unless told: $XDG_STATE_HOME or ~/.local/state, then witan/serve. */
enum status run_folder_default(char path[RUN_FOLDER_MAX_PATH], struct error *err);

/* Makes the folder `dir` (parents too) or, with NULL, a new one under $XDG_RUNTIME_DIR or /tmp,
 * locks it and clears what a killed process left. ERR_LIMIT names the process that has it. The lock
 * is the calling process's, not its children's. */
enum status run_folder_create(const char *dir, struct run_folder *out, struct error *err);

/* Removes what we put there, the log too unless `keep_log`, and the folder when it is then empty.
 */
void run_folder_remove(struct run_folder *r, bool keep_log);

/* Who has the folder locked? *pid 0: nobody, or there is no such folder. *fd is -1 before the first
 * call, then the lock file, which the caller closes: so its holder can be waited for when the file
 * is removed already. */
enum status run_folder_holder(const char *dir, int *fd, pid_t *pid, struct error *err);

/* Clears a folder that nobody has. */
enum status run_folder_clear(const char *dir, struct error *err);

/* The path of one of the files. */
void run_folder_file(const char *dir, enum run_folder_file file, char path[RUN_FOLDER_MAX_PATH]);

/* An empty folder in the scratch for a job of group `index`. Open MPI clears its files away unless
 * mpirun is killed: what an earlier job of that group has left, which has ended, is removed.
 * false: there is no scratch, or no room in it. */
bool run_folder_job(const struct run_folder *r, uint32_t index, char path[RUN_FOLDER_MAX_SCRATCH]);

/* Puts the text there in one step: a reader sees all of it or what was there before. */
enum status run_folder_write(const struct run_folder *r, enum run_folder_file file,
                             const char *text, size_t len, struct error *err);

#endif
