/* See load_flight.h. No state. */
#include "cli/load_flight.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void load_flight_chunk(struct load_flight *f, int64_t now_ns)
{
    struct load_record *r = &f->record;
    if (r->chunks == f->chunk_cap) {
        int32_t cap = f->chunk_cap ? f->chunk_cap * 2 : 64;
        int64_t *more = cap <= LOAD_MAX_CHUNKS ? realloc(f->chunk_ns, (size_t)cap * sizeof *more)
                                               : NULL;
        if (!more) {
            load_flight_fail(f, LOAD_MALFORMED, "an answer of more than %d chunks", r->chunks);
            return;
        }
        f->chunk_ns = more;
        f->chunk_cap = cap;
    }
    f->chunk_ns[r->chunks++] = now_ns;
    if (r->first_ns == 0)
        r->first_ns = now_ns;
    r->last_ns = now_ns;
}

void load_flight_fail(struct load_flight *f, const char *kind, const char *fmt, ...)
{
    char words[sizeof f->record.error];
    struct error line;
    va_list ap;
    if (*f->record.error)
        return;
    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    error_set(&line, ERR_PEER, "%s: %s", kind, words); /* as one line */
    snprintf(f->record.error, sizeof f->record.error, "%.*s", (int)sizeof f->record.error - 1,
             line.msg);
}
