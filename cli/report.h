/* What the files of `witan report` share. One thread. */
#ifndef WITAN_CLI_REPORT_H
#define WITAN_CLI_REPORT_H

#include "base/error.h"

#include <jansson.h>
#include <stdio.h>

/* Each gets argv from the report's name on and returns the exit code. */
int report_usage(int argc, char **argv);
int report_governance(int argc, char **argv);

/* What `witan report` can; 0 on standard output, else 2. */
int report_help(FILE *f);

/* --- report_html.c --- */

/*
 * A document as a page that asks nothing of anybody: each member of `document` a section; objects
 * as lists of names and values, arrays of objects as tables, other arrays as lists, texts of
 * several lines as they are; null as "not recorded". Texts are escaped.
 */
void report_html(FILE *out, const char *title, const json_t *document);

#endif
