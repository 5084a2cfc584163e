/*
 * The help of every command as it prints it, taken apart: what shells complete and what manual
 * pages say is made from it, so neither can tell anything else. One thread.
 */
#ifndef WITAN_CLI_HELP_H
#define WITAN_CLI_HELP_H

#include "base/buf.h"

#include <stddef.h>
#include <stdio.h>

/* Several forms of one command have a help each: NULL ends them, and the first is plain `--help`.
 */
enum { HELP_MAX_FORMS = 8, HELP_MAX_OPTIONS = 256, HELP_MAX_NAME = 32, HELP_MAX_VALUE = 48 };

/* "witan-coordinator" and "witan-worker", too: the programs beside this one. */
enum status help_text(const char *command, const char *form, struct buf *out, struct error *err);
/* "", "--url", ... of a command, with NULL behind. */
void help_forms(const char *command, const char *forms[HELP_MAX_FORMS]);

/* An option, its value's name or its values ("FILE", "cpu|cuda"; "": it takes none). */
struct help_option {
    char name[HELP_MAX_NAME]; /* "--model" */
    char value[HELP_MAX_VALUE];
};

struct help_options {
    struct help_option list[HELP_MAX_OPTIONS];
    size_t count;
    char actions[16][HELP_MAX_NAME]; /* "create", "list": what follows the command in its usage */
    size_t action_count;
};

/* Adds all that a help names, each once. */
void help_read(const char *command, const char *text, struct help_options *out);

/* At "--NAME", with a value behind it or not: *o gets both, and the length taken is returned; 0: no
 * option stands there. */
size_t help_option_at(const char *text, struct help_option *o);

/* --- manual.c: manual pages, in roff --- */

/* "witan", "witan-COMMAND", "witan-coordinator", "witan-worker"; "cluster.yaml" from the example in
 * `file`. */
enum status manual_put(const char *name, const char *file, FILE *f, struct error *err);

#endif
