/* What drawings and pages share: text that may come from anywhere, made fit for XML and HTML. */
#ifndef WITAN_CLI_SVG_H
#define WITAN_CLI_SVG_H

#include <stdio.h>

/* Writes text so that it is text in an element or a quoted attribute; control characters and bytes
 * that are no UTF-8 become '?'. */
void svg_escaped(FILE *out, const char *text);

#endif
