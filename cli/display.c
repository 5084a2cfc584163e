/* Streaming an answer onto standard output: see display.h. */
#include "cli/display.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char dim[] = "\033[2m", undim[] = "\033[0m\n\n";

void display_init(struct display *d, size_t limit_bytes)
{
    *d = (struct display){.terminal = isatty(STDOUT_FILENO) != 0};
    buf_init(&d->whole, limit_bytes);
}

void display_fini(struct display *d)
{
    buf_fini(&d->whole);
}

void display_thinking(struct display *d, bool thinking)
{
    if (d->thinking && d->terminal && d->begun)
        fputs(undim, stdout);
    d->thinking = thinking;
    d->begun = false;
}

void display_text(struct display *d, const char *text, size_t len)
{
    while (!d->begun && len > 0 && strchr(" \n\t\r", *text)) {
        text++;
        len--;
    }
    if (len == 0)
        return;
    if (!d->thinking || d->terminal) {
        if (!d->begun && d->thinking)
            fputs(dim, stdout);
        fwrite(text, 1, len, stdout);
        fflush(stdout);
    }
    d->begun = true;
    if (!d->thinking)
        buf_append(&d->whole, text, len, NULL);
}

void display_end(struct display *d)
{
    display_thinking(d, false);
    fputc('\n', stdout);
    fflush(stdout);
}
