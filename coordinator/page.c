/* Serving the web page: see page.h. No state. */
#include "coordinator/page.h"

#include <string.h>

/*
 * What a browser may do with it: run and load what comes from here alone, ask nobody else, be in no
 * frame of another page, and make no markup out of text (trusted types). A model's answer that
 * became markup in spite of all could still do nothing.
 */
static const char policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'";

bool page_wanted(struct exchange *x)
{
    const char *accept;
    struct error ignored;
    return exchange_request_header(x, "Accept", &accept, &ignored) == OK && accept &&
           strstr(accept, "text/html");
}

/* Does If-None-Match name it? */
static bool client_has(struct exchange *x, const struct page_file *f)
{
    const char *tags;
    struct error ignored;
    return exchange_request_header(x, "If-None-Match", &tags, &ignored) == OK && tags &&
           strstr(tags, f->etag);
}

static void serve(struct exchange *x, const char *name)
{
    const struct page_file *f = page_files, *end = page_files + page_file_count;
    while (f < end && strcmp(f->name, name) != 0)
        f++;
    if (f == end) {
        exchange_fail(x, 404, "not_found", "the page has no such file");
        return;
    }
    exchange_header(x, "ETag", f->etag);
    exchange_header(x, "Cache-Control",
                    "no-cache"); /* ask each time: another release's may differ */
    exchange_header(x, "Content-Security-Policy", policy);
    exchange_header(x, "X-Content-Type-Options", "nosniff");
    exchange_header(x, "Referrer-Policy", "no-referrer");
    exchange_header(x, "Cross-Origin-Resource-Policy", "same-origin");
    if (client_has(x, f))
        exchange_reply(x, 304, NULL, "", 0);
    else
        exchange_reply(x, 200, f->type, (const char *)f->data, f->len);
}

void page_front(struct exchange *x)
{
    serve(x, "index.html");
}

void page_file(struct exchange *x)
{
    serve(x, x->rest);
}
