/* What the files of `witan status` share: asking once, the page, and what `witan serve` keeps. */
#ifndef WITAN_CLI_STATUS_H
#define WITAN_CLI_STATUS_H

#include "base/error.h"
#include "cli/client.h"
#include "proto/inference.pb-c.h"

#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* An earlier reply, to tell rates from. */
struct status_past {
    Witan__Inference__V1__GetStatusResponse *reply; /* owned by who keeps it; NULL: none yet */
    double seconds;                                 /* ago */
};

/* Where a page goes. */
struct status_page {
    FILE *f;
    int columns;
    const struct status_past *past; /* NULL: rates are not shown */
};

/* Whom to ask, and how it is shown. */
struct status_source {
    struct client_options where;
    bool anywhere;       /* no address was given: a `witan serve` here may have one */
    const char *run_dir; /* NULL: none was given */
    bool json;
    const volatile sig_atomic_t *interrupted; /* not 0: the call is given up; NULL: never */
};

/* --- status.c --- */

enum { STATUS_READY = 0, STATUS_FAILED = 1, STATUS_NOT_READY = 3 };

/* Asks once and writes the page, or the document. *latest, where it is wanted, gets the reply, to
 * be released by status_free. Returns the exit code; STATUS_FAILED: *err says why, after what is
 * known was written all the same. */
int status_once(const struct status_source *s, const struct status_page *p,
                Witan__Inference__V1__GetStatusResponse **latest, struct error *err);
/* Asks once, without a page; *out is the caller's. */
enum status status_ask(const struct client_options *where,
                       Witan__Inference__V1__GetStatusResponse **out, struct error *err);
void status_free(Witan__Inference__V1__GetStatusResponse *r); /* NULL is fine */

/* --- status_page.c --- */

void status_show(const struct status_page *p, const Witan__Inference__V1__GetStatusResponse *r);
/* Words onto lines of the page's width. */
void status_wrap(const struct status_page *p, const char *text);
/* "3 min ago": in the unit that says it in one or two digits. */
void status_put_age(FILE *f, double seconds);
/* "time" or "times". */
const char *status_times(uint64_t n);

/* --- status_rates.c: what came to pass since the page's past --- */

void status_show_rates(const struct status_page *p,
                       const Witan__Inference__V1__GetStatusResponse *r);
void status_show_group_rates(const struct status_page *p, const Witan__Inference__V1__Group *g);
/* `group`: the name of the rank's. */
void status_show_rank_rates(const struct status_page *p, const char *group,
                            const Witan__Inference__V1__Rank *r);

/* --- status_json.c --- */

/* `serve` may be NULL. The caller's to release. */
json_t *status_json(const Witan__Inference__V1__GetStatusResponse *r, json_t *serve);

/* --- status_watch.c --- */

/* A page each so many seconds until q or Ctrl-C, on the whole of a terminal; elsewhere one after
 * the other. Returns the exit code of the last. */
int status_watch(struct status_source *s, double seconds);

/* --- status_serve.c --- */

/* The serve.json of a running `witan serve`: *out, to be released by json_decref. `run_dir` NULL:
 * of the one in the default folder, and *out is NULL where none is found there. ERR_NOT_FOUND: none
 * runs in that folder. */
enum status status_serve_read(const char *run_dir, json_t **out, struct error *err);
/* Where its coordinator's gRPC door is, in *serve; NULL: not known. */
const char *status_serve_address(const json_t *serve);
/* How often it has started its coordinator and its groups, and why the last time. */
void status_serve_show(const struct status_page *p, const json_t *serve);

#endif
