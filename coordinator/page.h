/*
 * The web page: a chat and an operator's view, files of coordinator/page/ that are part of this
 * program (page/embed.cmake). They ask the coordinator itself alone, by the same API as any client,
 * with the key that the user gives; the files need none. All on the loop thread.
 */
#ifndef WITAN_COORDINATOR_PAGE_H
#define WITAN_COORDINATOR_PAGE_H

#include "coordinator/http_exchange.h"

#include <stddef.h>

struct page_file {
    const char *name; /* "index.html" */
    const char *type; /* of its content */
    const char *etag; /* with its quotes: of its bytes */
    const unsigned char *data;
    size_t len;
};

/* Made by page/embed.cmake, by name. */
extern const struct page_file page_files[];
extern const size_t page_file_count;

/* Does the client take HTML, as browsers do and curl does not? */
bool page_wanted(struct exchange *x);

/* Each answers: 200, 304 where the client has it, 404 for a name that there is not. */
void page_front(struct exchange *x); /* index.html */
void page_file(struct exchange *x);  /* GET /page/NAME */

#endif
