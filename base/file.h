/*
 * Whole files: one of a folder read with its proof, one written so that nobody ever sees half of
 * it, and what a file with a secret must look like. Any thread.
 */
#ifndef WITAN_BASE_FILE_H
#define WITAN_BASE_FILE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/*
 * What proves the files of a folder to readers that need not know how (partition/manifest.h makes
 * one). `check` is called with all that was read of the file, or with NULL when it is absent, and
 * says whether that is as it must be; any thread.
 */
struct file_proof {
    enum status (*check)(const struct file_proof *proof, const char *name, const void *data,
                         size_t len, struct error *err);
};

/* file_read_all of DIR/NAME. With a proof (NULL: none) *data is what was proven, and ERR_NOT_FOUND
 * means a file that may be absent; a lack of any other is the proof's error. */
enum status file_read_proven(const char *dir, const char *name, const struct file_proof *proof,
                             size_t limit_bytes, char **data, size_t *len, struct error *err);

/* Writes the file beside its place, syncs it and moves it there, with this mode whatever the umask.
 * Without `replace` ERR_INVALID when one is there. */
enum status file_write(const char *path, const void *data, size_t len, mode_t mode, bool replace,
                       struct error *err);

/* Nobody but the owner may read it; root's may be given to a group, as Kubernetes does. */
enum status file_check_secret(const char *path, struct error *err);

#endif
