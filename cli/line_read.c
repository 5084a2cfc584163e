/* Lines from a person: see line_read.h. */
#include "cli/line_read.h"
#include "cli/terminal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

/* How the terminal was: for a signal's handler, which must leave it so. */
static struct termios before;
static volatile sig_atomic_t changed, marking;

static const char mark_pastes[] = "\033[?2004h", mark_no_pastes[] = "\033[?2004l";

static void put(const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDERR_FILENO, bytes, len);
        if (n < 0 && errno != EINTR)
            return;
        bytes += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
}

void line_read_restore(void)
{
    if (!changed)
        return;
    if (marking)
        put(mark_no_pastes, sizeof mark_no_pastes - 1);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
    changed = 0;
}

/* Keys as they come, and no signals by them; what is written stays as it is. */
static bool change(const struct line_read *l)
{
    if (tcgetattr(STDIN_FILENO, &before) != 0)
        return false;
    struct termios raw = before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | IEXTEN | ISIG);
    raw.c_iflag &= ~(tcflag_t)(ICRNL | INLCR | IGNCR | IXON | ISTRIP);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    marking = l->marks_pastes;
    changed = 1;
    if (tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) != 0) {
        changed = 0;
        return false;
    }
    if (marking)
        put(mark_pastes, sizeof mark_pastes - 1);
    return true;
}

void line_read_open(struct line_read *l, const struct line_history *history,
                    const char *const *words)
{
    *l = (struct line_read){.words = words};
    line_edit_init(&l->edit, history);
    l->edits = terminal_moves(STDIN_FILENO) && isatty(STDERR_FILENO);
    l->marks_pastes = l->edits && terminal_styles(STDERR_FILENO);
}

void line_read_close(struct line_read *l)
{
    line_read_restore();
    line_edit_fini(&l->edit);
    free(l->plain);
}

/* --- as the terminal edits it ------------------------------------------------------------------
 */

static enum line_event read_plain(struct line_read *l, const char *prompt, const char **line)
{
    fputs(prompt, stderr);
    errno = 0;
    ssize_t n = getline(&l->plain, &l->plain_cap, stdin);
    if (n < 0) {
        bool broken = errno == EINTR && !feof(stdin);
        clearerr(stdin);
        return broken ? LINE_BREAK : LINE_END;
    }
    while (n > 0 && (l->plain[n - 1] == '\n' || l->plain[n - 1] == '\r'))
        l->plain[--n] = '\0';
    *line = l->plain;
    return LINE_DONE;
}

/* --- as we do ----------------------------------------------------------------------------------
 */

static void redraw(const struct line_read *l, const char *prompt, bool done)
{
    struct buf row;
    int columns, rows;
    terminal_size(STDERR_FILENO, &columns, &rows);
    buf_init(&row, 4 * LINE_MAX_BYTES);
    if (done)
        line_edit_draw_whole(&l->edit, prompt, &row);
    else
        line_edit_draw(&l->edit, prompt, columns, &row);
    put(row.data, row.len);
    buf_fini(&row);
}

static bool more_waits(void)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&in, 1, 0) > 0;
}

static void complete(struct line_read *l)
{
    struct buf choices;
    buf_init(&choices, 1 << 16);
    line_edit_complete(&l->edit, l->words, &choices);
    if (choices.len > 0) {
        put("\r\n", 2);
        put(choices.data, choices.len);
        put("\r\n", 2);
    }
    buf_fini(&choices);
}

static enum line_event suspend(struct line_read *l)
{
    line_read_restore();
    put("\n", 1);
    raise(SIGTSTP);
    return change(l) ? LINE_EDITS : LINE_END;
}

/* The next key that ends a line. */
static enum line_event edit(struct line_read *l, const char *prompt)
{
    for (;;) {
        unsigned char byte;
        if (!more_waits())
            redraw(l, prompt, false);
        ssize_t n = read(STDIN_FILENO, &byte, 1);
        if (n <= 0)
            return n < 0 && errno == EINTR ? LINE_BREAK : LINE_END;
        enum line_event event = line_edit_byte(&l->edit, byte);
        if (event == LINE_COMPLETES)
            complete(l);
        else if (event == LINE_SUSPENDS)
            event = suspend(l);
        if (event != LINE_EDITS && event != LINE_COMPLETES)
            return event;
    }
}

enum line_event line_read_next(struct line_read *l, const char *prompt, const char **line)
{
    if (!l->edits)
        return read_plain(l, prompt, line);
    line_edit_clear(&l->edit);
    if (!change(l))
        return LINE_END;
    enum line_event event = edit(l, prompt);
    redraw(l, prompt, true);
    put("\n", 1);
    line_read_restore();
    *line = l->edit.text.len > 0 ? l->edit.text.data : "";
    return event;
}
