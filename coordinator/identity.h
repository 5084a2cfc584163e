/*
 * Who may ask: API keys (auth.h) and an issuer's tokens (jwt.h) together, read from their files and
 * read again when these change, as cluster.yaml names them (listen.keys, auth.jwks).
 *
 * A file that has become unsound, or has gone, changes nothing: what was read last stays in use, a
 * line in the log says so, and witan_auth_stale is 1 until the file is sound again. So neither half
 * a file nor a slip of an editor opens the doors or shuts them.
 *
 * identity_check may be called by any thread, the rest by the loop thread.
 */
#ifndef WITAN_COORDINATOR_IDENTITY_H
#define WITAN_COORDINATOR_IDENTITY_H

#include "coordinator/auth.h"
#include "coordinator/config.h"

#include <stdbool.h>

struct identity; /* NULL stands for "nobody need show anything" everywhere below */

/* *out: NULL where the configuration names neither file. `config` must outlive it. */
enum status identity_create(const struct config *config, struct identity **out, struct error *err);
void identity_destroy(struct identity *i);

/*
 * `header`: the value of Authorization, NULL when absent; `now_s`: unix time. OK: *caller is set.
 * Else 401: ERR_NOT_FOUND, with words for the client, for a key; ERR_INVALID for a token, with the
 * same words whatever is wrong with it: that stands in the log, 20 times a second at most. Both are
 * counted.
 */
enum status identity_check(struct identity *i, const char *header, int64_t now_s,
                           struct auth_caller *caller, struct error *err);

/* Looks whether a file is another one, and reads it if so; once a second. */
void identity_tick(struct identity *i);
/* Reads them whether or not they have changed. */
void identity_reload(struct identity *i);

enum identity_file { IDENTITY_KEYS, IDENTITY_JWKS, IDENTITY_FILE_COUNT };

struct identity_counts {
    uint64_t refused[AUTH_REFUSAL_COUNT];
    struct {
        bool used, stale; /* stale: what is in use is not what the file holds */
        uint64_t loads, failures;
        size_t keys;
    } files[IDENTITY_FILE_COUNT];
};
void identity_count(struct identity *i, struct identity_counts *out);

#endif
