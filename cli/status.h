/* What the files of `witan status` share: words for people, and what `witan serve` keeps. */
#ifndef WITAN_CLI_STATUS_H
#define WITAN_CLI_STATUS_H

#include "base/error.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

/* --- status.c --- */

/* Words onto lines of 100 columns. */
void status_wrap(const char *text);
/* "3 min ago": in the unit that says it in one or two digits. */
void status_put_age(FILE *f, double seconds);
/* "time" or "times". */
const char *status_times(uint64_t n);

/* --- status_serve.c --- */

/* The serve.json of a running `witan serve`: *out, to be released by json_decref. `run_dir` NULL:
 * of the one in the default folder, and *out is NULL where none is found there. ERR_NOT_FOUND: none
 * runs in that folder. */
enum status status_serve_read(const char *run_dir, json_t **out, struct error *err);
/* Where its coordinator's gRPC door is, in *serve; NULL: not known. */
const char *status_serve_address(const json_t *serve);
/* How often it has started its coordinator and its groups, and why the last time. */
void status_serve_show(const json_t *serve);

#endif
