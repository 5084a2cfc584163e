/* Streaming an answer onto standard output: see display.h. */
#include "cli/display.h"
#include "cli/terminal.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char dim[] = "\033[2m", undim[] = "\033[0m\n\n";
static atomic_bool dimmed; /* the terminal; a handler reads it on any thread */
static const char begins[] = "(thinking) ", ends[] = "\n(answer) ";

void display_init(struct display *d, size_t limit_bytes)
{
    *d = (struct display){.terminal = isatty(STDOUT_FILENO) != 0,
                          .styled = terminal_styles(STDOUT_FILENO)};
    buf_init(&d->whole, limit_bytes);
}

void display_fini(struct display *d)
{
    buf_fini(&d->whole);
}

void display_thinking(struct display *d, bool thinking)
{
    if (d->thinking && d->terminal && d->begun) {
        fputs(d->styled ? undim : ends, stdout);
        fflush(stdout);
        dimmed = 0;
    }
    d->thinking = thinking;
    d->begun = false;
}

static void show(const struct display *d, const char *text, size_t len)
{
    if (!d->terminal) {
        fwrite(text, 1, len, stdout);
        return;
    }
    struct buf clean;
    buf_init(&clean, 8 * len + 16); /* of a byte at most "\x1b" or U+FFFD come */
    terminal_clean(&clean, text, len, NULL);
    if (clean.len > 0)
        fwrite(clean.data, 1, clean.len, stdout);
    buf_fini(&clean);
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
        if (!d->begun && d->thinking) {
            dimmed = d->styled;
            fputs(d->styled ? dim : begins, stdout);
        }
        show(d, text, len);
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

void display_undim(void)
{
    static const char normal[] = "\033[0m";
    if (dimmed && write(STDOUT_FILENO, normal, sizeof normal - 1) > 0)
        dimmed = 0;
}
