/*
 * `witan chat`: a conversation with a coordinator over gRPC. On a terminal turn by turn; else all
 * of standard input is one message and the answer is all that is written.
 */
#include "cli/chat_commands.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/display.h"
#include "cli/line_read.h"
#include "cli/talk.h"
#include "cli/terminal.h"

#include "base/check.h"
#include "base/process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: witan chat [FLAG...] [MESSAGE]\n"
    "Asks MESSAGE, or standard input when it is not a terminal, or asks for messages on a "
    "terminal.\n"
    "There a line that ends in \\ or with Alt-Enter goes on, and a block stands between lines of\n"
    "\"\"\"; arrows bring lines back, Tab completes commands, /help lists them, Ctrl-C ends an\n"
    "answer, Ctrl-D the conversation. Nothing of it is kept, but with --history.\n"
    "  --system TEXT      the system message\n"
    "  --no-think         ask the model not to think\n"
    "  --max-tokens N     of an answer (default: up to the context)\n"
    "  --temperature X, --top-p X, --top-k N, --min-p X, --seed N, --repetition-penalty X\n"
    "                     sampling (default: the checkpoint's; seed random)\n"
    "  --presence-penalty X, --frequency-penalty X, --min-tokens N\n"
    "                     the same (default: 0)\n"
    "  --history FILE     on a terminal: keep messages there, for the arrows of the next time\n";

struct chat {
    struct client_options where;
    const char *prompt, *history_file;
    struct line_history history;
    struct line_read lines;
    struct talk talk;
};

/* Ctrl-C during an answer ends the answer. */
static void on_interrupt(int number)
{
    (void)number;
    talk_interrupted = 1;
}

/* What ends the process leaves the terminal as it was, in a line or in a thought. */
static void on_end(int number)
{
    line_read_restore();
    display_undim();
    signal(number, SIG_DFL);
    raise(number);
}

static void catch_signals(void)
{
    static const int ends[] = {SIGTERM, SIGHUP, SIGQUIT};
    struct sigaction interrupt = {.sa_handler = on_interrupt}, end = {.sa_handler = on_end}, old;
    sigaction(SIGINT, &interrupt, NULL);
    for (size_t i = 0; i < COUNT_OF(ends); i++)
        if (sigaction(ends[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) /* as of nohup */
            sigaction(ends[i], &end, NULL);
}

/* --- the command line --------------------------------------------------------------------------
 */

/* 1: taken with its value; 0: not one of these; -1: bad, said. */
static int take_setting(struct chat *c, const char *flag, const char *value)
{
    enum status st;
    struct error err;
    if (strncmp(flag, "--", 2) != 0)
        return 0;
    if (!talk_set(&c->talk, flag + 2, value ? value : "", &st, &err))
        return 0;
    if (st == OK)
        return 1;
    fprintf(stderr, "witan chat: --%s\n", err.msg);
    return -1;
}

static int take_text(struct chat *c, const char *flag, const char *value)
{
    if (strcmp(flag, "--system") == 0 && value)
        talk_system(&c->talk, value);
    else if (strcmp(flag, "--history") == 0 && value)
        c->history_file = value;
    else
        return 0;
    return 1;
}

/* 0: go on; else the exit code. */
static int parse(struct chat *c, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        int taken = client_flag(&c->where, argc, argv, &i);
        if (taken == 0 && ((taken = take_setting(c, argv[i], value)) > 0 ||
                           (taken == 0 && (taken = take_text(c, argv[i], value)) > 0)))
            i++;
        if (taken < 0)
            return 2;
        if (taken > 0)
            continue;
        if (strcmp(argv[i], "--help") == 0) {
            printf("%s%s", usage, client_help);
            exit(0);
        }
        if (strcmp(argv[i], "--no-think") == 0) {
            c->talk.no_think = true;
        } else if (argv[i][0] == '-' && argv[i][1] == '-') {
            fprintf(stderr, "witan chat: unknown flag %s; `witan chat --help` lists them\n",
                    argv[i]);
            return 2;
        } else if (c->prompt) {
            fprintf(stderr, "witan chat: one MESSAGE only; quote it\n");
            return 2;
        } else {
            c->prompt = argv[i];
        }
    }
    return 0;
}

/* --- on a terminal -----------------------------------------------------------------------------
 */

/* Lines up to one of three quotes. */
static enum line_event read_block(struct chat *c, const char *quotes, struct buf *out)
{
    const char *line;
    for (;;) {
        enum line_event event = line_read_next(&c->lines, ". ", &line);
        if (event != LINE_DONE && event != LINE_GOES_ON)
            return event;
        if (strcmp(line, quotes) == 0)
            return LINE_DONE;
        if (out->len + strlen(line) + 1 > out->limit)
            return LINE_DONE; /* what is too long is refused as such */
        buf_printf(out, NULL, "%s%s", out->len > 0 ? "\n" : "", line);
    }
}

/* One message: a line, lines that go on, or a block. *command: it is one line, with a slash first.
 */
static enum line_event read_message(struct chat *c, struct buf *out, bool *command)
{
    static const char quotes[] = "\"\"\"";
    const char *line;
    buf_clear(out);
    *command = false;
    enum line_event event = line_read_next(&c->lines, "> ", &line);
    if (event == LINE_DONE && strcmp(line, quotes) == 0)
        return read_block(c, quotes, out);
    *command = event == LINE_DONE && *line == '/' && !strchr(line, '\n');
    while (event == LINE_DONE || event == LINE_GOES_ON) {
        size_t len = strlen(line);
        bool continued = event == LINE_DONE && len > 0 && line[len - 1] == '\\';
        bool more = event == LINE_GOES_ON || continued;
        buf_append(out, line, len - continued, NULL);
        if (!more)
            return LINE_DONE;
        *command = false;
        buf_puts(out, "\n", NULL);
        event = line_read_next(&c->lines, ". ", &line);
    }
    return event;
}

static void remember(struct chat *c, const char *text)
{
    struct error err;
    if (!line_history_add(&c->history, text) || !c->history_file)
        return;
    if (line_history_append(c->history_file, text, &err) != OK) {
        fprintf(stderr, "witan chat: %s: no more is kept there\n", err.msg);
        c->history_file = NULL;
    }
}

static void ask(struct chat *c, const char *text)
{
    struct error err;
    enum status st = talk_ask(&c->talk, text, &err);
    if (st == ERR_CANCELLED)
        fputs("[stopped]\n", stderr);
    else if (st != OK)
        terminal_say(stderr, "witan chat: ", err.msg);
}

/* Ctrl-C at the prompt begins the line again; a refused turn does not end the conversation. */
static void converse(struct chat *c)
{
    struct buf text;
    enum chat_next next = CHAT_GOES_ON;
    buf_init(&text, TALK_MAX_TEXT_BYTES);
    line_read_open(&c->lines, &c->history, chat_command_words());
    fputs("Ask; /help lists what else there is, Ctrl-C ends an answer, Ctrl-D the conversation.\n",
          stderr);
    while (next == CHAT_GOES_ON) {
        bool command;
        enum line_event event = read_message(c, &text, &command);
        talk_interrupted = 0;
        if (event == LINE_BREAK) {
            if (!c->lines.edits)
                fputc('\n', stderr);
            continue;
        }
        if (event != LINE_DONE)
            break;
        if (!text.data || text.len == 0)
            continue;
        remember(c, text.data);
        if (command)
            next = chat_command(&c->talk, text.data);
        else
            ask(c, text.data);
    }
    line_read_close(&c->lines);
    buf_fini(&text);
}

static enum status talk_on_terminal(struct chat *c, struct error *err)
{
    enum status st = OK;
    size_t skipped = 0;
    if (c->history_file)
        st = line_history_read(&c->history, c->history_file, &skipped, err);
    if (st == OK && skipped > 0)
        fprintf(stderr, "witan chat: %s: left out %zu lines that are no JSON strings\n",
                c->history_file, skipped);
    if (st == OK)
        converse(c);
    line_history_fini(&c->history);
    return st;
}

/* --- from a pipe -------------------------------------------------------------------------------
 */

static enum status ask_input(struct chat *c, struct error *err)
{
    struct buf text;
    char chunk[65536];
    size_t n;
    enum status st = OK;
    buf_init(&text, TALK_MAX_TEXT_BYTES);
    while (st == OK && (n = fread(chunk, 1, sizeof chunk, stdin)) > 0)
        st = buf_append(&text, chunk, n, err);
    if (st == OK && ferror(stdin))
        st = error_errno(err, errno, "standard input");
    char *words = text.data ? text.data : "";
    while (text.len > 0 && words[text.len - 1] == '\n')
        words[--text.len] = '\0';
    if (st == OK && (text.len == 0 || strlen(words) != text.len))
        st = error_set(err, ERR_INVALID, "standard input: expected a message, found %s",
                       text.len == 0 ? "nothing" : "NUL characters");
    if (st == OK)
        st = talk_ask(&c->talk, words, err);
    buf_fini(&text);
    return st;
}

int cmd_chat(int argc, char **argv)
{
    static struct chat c; /* its tables are large */
    struct error err;
    process_no_dumps(); /* of what is said */
    client_init(&c.where);
    talk_init(&c.talk);
    int code = parse(&c, argc, argv);
    if (code != 0)
        return code;
    catch_signals();
    enum status st = client_open(&c.where, &c.talk.client, &err);
    if (st == OK && c.prompt)
        st = talk_ask(&c.talk, c.prompt, &err);
    else if (st == OK && isatty(STDIN_FILENO))
        st = talk_on_terminal(&c, &err);
    else if (st == OK)
        st = ask_input(&c, &err);
    if (st != OK)
        terminal_say(stderr, "witan chat: ", err.msg);
    client_close(c.talk.client);
    talk_fini(&c.talk);
    return st == OK ? 0 : 1;
}
