/* `witan status --watch`: one page after the other, see status.h. The terminal's state is this
 * process's, and so are the signals that end it. */
#include "cli/status.h"
#include "cli/terminal.h"

#include "base/check.h"
#include "base/clock.h"
#include "coordinator/text/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PAGE_BYTES = 64 << 20, PIPE_COLUMNS = 100 };

static volatile sig_atomic_t ended, resized, stopped;
static int wake[2] = {-1, -1}; /* a signal's byte ends a wait */

/* Another screen without a cursor; and the one that was before. */
static const char enter[] = "\033[?1049h\033[?25l\033[2J", leave[] = "\033[?25h\033[?1049l";

struct watch {
    struct status_source *source;
    double seconds;
    bool screen, keys;     /* standard output is a terminal that can; standard input, too */
    struct termios before; /* where `keys` */
    struct status_past past;
    int64_t past_ns; /* when it was heard; 0: never */
    char *page;      /* the last one; owned */
    size_t page_len;
    int from; /* its first row that is shown */
    int code; /* the exit code that it would have */
};

static void on_signal(int number)
{
    int saved = errno;
    if (number == SIGWINCH || number == SIGCONT)
        resized = 1;
    else if (number == SIGTSTP)
        stopped = 1;
    else
        ended = number;
    if (write(wake[1], "", 1) < 0)
        errno = saved; /* full: it will wake all the same */
    errno = saved;
}

static void catch_signals(bool screen)
{
    static const int always[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP},
                     of_screens[] = {SIGWINCH, SIGCONT, SIGTSTP};
    struct sigaction act = {.sa_handler = on_signal};
    for (size_t i = 0; i < COUNT_OF(always); i++)
        sigaction(always[i], &act, NULL);
    for (size_t i = 0; screen && i < COUNT_OF(of_screens); i++)
        sigaction(of_screens[i], &act, NULL);
}

static void put(const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDOUT_FILENO, bytes, len);
        if (n < 0 && errno != EINTR) {
            ended = SIGHUP; /* nobody looks */
            return;
        }
        bytes += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
}

/* --- the terminal ------------------------------------------------------------------------------
 */

static void take_terminal(struct watch *w)
{
    if (!w->screen)
        return;
    put(enter, sizeof enter - 1);
    if (!w->keys)
        return;
    struct termios raw = w->before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

static void give_terminal_back(struct watch *w)
{
    if (!w->screen)
        return;
    put(leave, sizeof leave - 1);
    if (w->keys)
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &w->before);
}

/* Ctrl-Z: the shell gets its terminal as it was. */
static void stop(struct watch *w)
{
    stopped = 0;
    give_terminal_back(w);
    raise(SIGSTOP);
    take_terminal(w);
    resized = 1;
}

/* --- drawing -----------------------------------------------------------------------------------
 */

/* The part of a line that has room. */
static size_t fits(const char *line, size_t len, int columns)
{
    size_t at = 0;
    int cells = 0;
    while (at < len) {
        size_t next = at;
        uint32_t c = utf8_decode(line, &next);
        cells += c == '\t' ? 8 : terminal_width(c);
        if (cells > columns)
            break;
        at = next;
    }
    return at;
}

static int count_lines(const struct watch *w)
{
    int n = 0;
    for (size_t i = 0; i < w->page_len; i++)
        n += w->page[i] == '\n';
    return n;
}

/* As many lines of the page as there is room for, written at once, each over what stood there. */
static void draw(struct watch *w)
{
    struct buf out;
    int columns, rows, row = 0;
    terminal_size(STDOUT_FILENO, &columns, &rows);
    int most = count_lines(w) - rows;
    w->from = w->from > most ? most : w->from;
    w->from = w->from < 0 ? 0 : w->from;
    buf_init(&out, 2 * MAX_PAGE_BYTES);
    buf_puts(&out, "\033[H", NULL);
    const char *line = w->page, *end = w->page + w->page_len;
    for (int i = 0; line < end && row < rows; i++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t len = (size_t)((newline ? newline : end) - line);
        if (i >= w->from) {
            buf_puts(&out, row++ > 0 ? "\r\n" : "", NULL);
            buf_append(&out, line, fits(line, len, columns), NULL);
            buf_puts(&out, "\033[K", NULL);
        }
        line += len + 1;
    }
    buf_puts(&out, "\033[J", NULL);
    put(out.data, out.len);
    buf_fini(&out);
}

/* Asks and makes the page: lines of clean text, each with its end. */
static void sample(struct watch *w)
{
    char *text = NULL, clock[64];
    size_t len = 0;
    int columns = PIPE_COLUMNS, rows;
    struct error err;
    struct buf clean;
    Witan__Inference__V1__GetStatusResponse *latest = NULL;
    time_t now = time(NULL);
    struct tm local;
    if (w->screen)
        terminal_size(STDOUT_FILENO, &columns, &rows);
    struct status_page page = {
        .f = open_memstream(&text, &len), .columns = columns, .past = &w->past};
    CHECK(page.f && localtime_r(&now, &local), "no memory for a page");
    strftime(clock, sizeof clock, "%Y-%m-%d %H:%M:%S", &local);
    if (!w->source->json)
        fprintf(page.f, "%s, every %g s%s\n", clock, w->seconds, w->keys ? "; q ends it" : "");
    int64_t asked = clock_now_ns();
    w->past.seconds = (double)(asked - w->past_ns) * 1e-9;
    int code = status_once(w->source, &page, &latest, &err);
    w->code = ended ? w->code : code; /* else it may have failed for that alone */
    if (code == STATUS_FAILED && !w->source->json)
        fprintf(page.f, "witan status: %s\n", err.msg);
    else if (code == STATUS_FAILED && !ended)
        terminal_say(stderr, "witan status: ", err.msg);
    if (code != STATUS_FAILED) {
        status_free(w->past.reply);
        w->past.reply = latest;
        w->past_ns = asked;
    } else {
        status_free(latest);
    }
    fclose(page.f);
    buf_init(&clean, MAX_PAGE_BYTES);
    if (isatty(STDOUT_FILENO))
        terminal_clean(&clean, text, len, NULL);
    else
        buf_append(&clean, text, len, NULL);
    free(text);
    free(w->page);
    w->page = clean.data; /* it is the page's now */
    w->page_len = clean.len;
}

static void show(struct watch *w)
{
    if (w->screen) {
        draw(w);
        return;
    }
    put(w->page, w->page_len);
    if (!w->source->json)
        put("\n", 1);
}

/* --- waiting -----------------------------------------------------------------------------------
 */

static void press(struct watch *w)
{
    char keys[64];
    int columns, rows;
    ssize_t n = read(STDIN_FILENO, keys, sizeof keys - 1);
    if (n <= 0) {
        w->keys = n < 0 && errno == EINTR; /* else the terminal is gone: do not look again */
        return;
    }
    keys[n] = '\0';
    terminal_size(STDOUT_FILENO, &columns, &rows);
    if (strchr(keys, 'q') || strchr(keys, 'Q'))
        ended = SIGINT;
    else if (strstr(keys, "[A") || strstr(keys, "OA"))
        w->from--;
    else if (strstr(keys, "[B") || strstr(keys, "OB"))
        w->from++;
    else if (strstr(keys, "[5~"))
        w->from -= rows - 1;
    else if (strstr(keys, "[6~") || strchr(keys, ' '))
        w->from += rows - 1;
    draw(w);
}

/* Until the next page is due; keys and signals are acted on meanwhile. */
static void wait_for(struct watch *w, int64_t until_ns)
{
    while (!ended) {
        int64_t left = until_ns - clock_now_ns();
        struct pollfd fds[] = {{.fd = wake[0], .events = POLLIN},
                               {.fd = w->keys ? STDIN_FILENO : -1, .events = POLLIN}};
        if (left <= 0)
            return;
        poll(fds, 2, (int)(left / 1000000 + 1));
        char drained[64];
        while (read(wake[0], drained, sizeof drained) > 0) {
        }
        if (stopped)
            stop(w);
        if (resized && w->screen)
            draw(w);
        resized = 0;
        if (fds[1].revents)
            press(w);
    }
}

int status_watch(struct status_source *s, double seconds)
{
    struct watch w = {.source = s, .seconds = seconds, .code = STATUS_FAILED};
    w.screen = terminal_moves(STDOUT_FILENO) && !s->json;
    w.keys = w.screen && tcgetattr(STDIN_FILENO, &w.before) == 0;
    bool had_keys = w.keys;
    s->interrupted = &ended;
    CHECK(pipe2(wake, O_NONBLOCK | O_CLOEXEC) == 0, "no pipe: %s", strerror(errno));
    catch_signals(w.screen);
    take_terminal(&w);
    while (!ended) {
        int64_t began = clock_now_ns();
        sample(&w);
        if (!ended)
            show(&w);
        wait_for(&w, began + (int64_t)(seconds * 1e9));
    }
    w.keys = had_keys;
    give_terminal_back(&w);
    status_free(w.past.reply);
    free(w.page);
    return w.code;
}
