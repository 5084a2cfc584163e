/*
 * Whole files: one of a folder read with its proof, one written so that nobody ever sees half of
 * it, and what a file with a secret must look like; and reads around the page cache. Any thread.
 */
#ifndef WITAN_BASE_FILE_H
#define WITAN_BASE_FILE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
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

enum { FILE_PAGE = 4096 }; /* at least any device's block: borders of reads around the page cache */

/* Whether reads of this descriptor go around the page cache (O_DIRECT); false where its file system
 * cannot. */
bool file_set_direct(int fd, bool direct);

/* pread of exactly `bytes` of a descriptor that is direct; offset and `to` lie on a FILE_PAGE's
 * border, and `to` has room up to the next one behind `bytes`. False: not all was read, and a read
 * through the page cache will do it or say what is wrong. */
bool file_read_direct(int fd, uint64_t offset, void *to, size_t bytes);

/* Nobody but the owner may read it; root's may be given to a group, as Kubernetes does. */
enum status file_check_secret(const char *path, struct error *err);

#endif
