/* What a terminal may be sent: see terminal.h. */
#include "cli/terminal.h"
#include "coordinator/text/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utf8proc.h>

bool terminal_moves(int fd)
{
    const char *kind = getenv("TERM");
    return isatty(fd) && kind && *kind && strcmp(kind, "dumb") != 0;
}

bool terminal_styles(int fd)
{
    const char *plain = getenv("NO_COLOR");
    return terminal_moves(fd) && !(plain && *plain);
}

void terminal_size(int fd, int *columns, int *rows)
{
    struct winsize size;
    bool known = ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0;
    *columns = known ? size.ws_col : 80;
    *rows = known ? size.ws_row : 24;
}

int terminal_width(uint32_t code_point)
{
    return utf8proc_charwidth((utf8proc_int32_t)code_point);
}

/* Moves the cursor, changes how text is shown, or the order in which. */
static bool controls(uint32_t c)
{
    bool reorders = (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
    return (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0) || reorders ||
           c == 0x2028 || c == 0x2029;
}

static enum status clean_char(struct buf *out, const char *text, size_t len, struct error *err)
{
    size_t i = 0;
    uint32_t c = utf8_decode(text, &i);
    if (c == '\r')
        return OK;
    if (!controls(c))
        return buf_append(out, text, len, err);
    return buf_printf(out, err, c < 0x80 ? "\\x%02x" : "\\u%04x", (unsigned)c);
}

enum status terminal_clean(struct buf *out, const char *text, size_t len, struct error *err)
{
    for (size_t i = 0; i < len;) {
        struct utf8_head head = utf8_head(text + i, len - i);
        if (head.kind == UTF8_CHAR)
            TRY(clean_char(out, text + i, head.len, err));
        else
            TRY(buf_puts(out, "\xef\xbf\xbd", err));
        i += head.len;
    }
    return OK;
}

void terminal_say(FILE *f, const char *before, const char *text)
{
    struct buf clean;
    size_t len = strlen(text);
    buf_init(&clean, 8 * len + 16); /* of a byte at most "\x1b" or U+FFFD come */
    terminal_clean(&clean, text, len, NULL);
    fprintf(f, "%s%s\n", before, clean.len > 0 ? clean.data : "");
    buf_fini(&clean);
}
