/* What commands say of themselves: see help.h; and `witan help`. */
#include "cli/help.h"
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/launch.h"

#include "base/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char usage[] =
    "usage: witan help [COMMAND]\n"
    "       witan help --man NAME [FILE]\n"
    "Says what COMMAND can, as its --help does, or lists the commands.\n"
    "  --man NAME         a manual page in roff instead: witan, witan-COMMAND, witan-coordinator,\n"
    "                     witan-worker, or cluster.yaml, made from the example in FILE\n";

enum { MAX_HELP_BYTES = 1 << 20 };

/* --- asking a command --------------------------------------------------------------------------
 */

static const struct cli_command *find(const char *name)
{
    for (size_t i = 0; i < cli_command_count; i++)
        if (strcmp(cli_commands[i].name, name) == 0)
            return &cli_commands[i];
    return NULL;
}

/* In a child whose standard output is a pipe: runs the command, or the program beside this one. */
static _Noreturn void say(const char *command, const char *form)
{
    char path[LAUNCH_MAX_PATH];
    char *words[4] = {(char *)command, NULL, NULL, NULL};
    struct error err;
    size_t n = 1;
    if (*form)
        words[n++] = (char *)form;
    words[n++] = (char *)"--help";
    const struct cli_command *c = find(command);
    if (c) {
        int code = c->run((int)n, words);
        fflush(stdout);
        _exit(code);
    }
    if (launch_sibling(command, path, &err) == OK)
        execv(path, words);
    _exit(127);
}

static enum status read_all(int fd, struct buf *out, struct error *err)
{
    char chunk[4096];
    for (;;) {
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "a command's help");
        if (n == 0)
            return OK;
        TRY(buf_append(out, chunk, (size_t)n, err));
    }
}

enum status help_text(const char *command, const char *form, struct buf *out, struct error *err)
{
    int ends[2], code;
    if (!find(command) && strcmp(command, "witan-coordinator") != 0 &&
        strcmp(command, "witan-worker") != 0)
        return error_set(err, ERR_NOT_FOUND, "unknown command \"%.100s\"", command);
    if (pipe2(ends, O_CLOEXEC) != 0)
        return error_errno(err, errno, "a pipe");
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        say(command, form);
    }
    close(ends[1]);
    enum status st = child < 0 ? error_errno(err, errno, "a process") : read_all(ends[0], out, err);
    close(ends[0]);
    if (child > 0 && waitpid(child, &code, 0) == child && st == OK && code != 0)
        st = error_set(err, ERR_INVALID, "%s %s --help ended with %d", command, form, code);
    return st;
}

void help_forms(const char *command, const char *forms[HELP_MAX_FORMS])
{
    static const char *const bench[] = {"", "--url", "--quality", "--report", NULL};
    size_t n = 0;
    for (; strcmp(command, "bench") == 0 && bench[n]; n++)
        forms[n] = bench[n];
    if (n == 0)
        forms[n++] = "";
    forms[n] = NULL;
}

/* --- taking it apart ---------------------------------------------------------------------------
 */

static const char letters[] = "abcdefghijklmnopqrstuvwxyz", upper[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/* "FILE", "[SECONDS]", "H:P", "published|int8|int4": the length of a value's name; 0: prose. */
static size_t value_length(const char *text)
{
    const char *from = text + (*text == '[');
    size_t len = strcspn(text, " \n");
    bool choice = strchr(letters, *from) && memchr(text, '|', len);
    if (!*from || (!strchr(upper, *from) && !choice))
        return 0;
    while (len > 0 && (text[len - 1] == ',' || text[len - 1] == '.' || text[len - 1] == ')' ||
                       (text[len - 1] == ']' && *text != '[' && !memchr(text, '[', len))))
        len--;
    return len;
}

size_t help_option_at(const char *text, struct help_option *o)
{
    *o = (struct help_option){.name = ""};
    if (strncmp(text, "--", 2) != 0 || !text[2] || !strchr(letters, text[2]))
        return 0;
    size_t len = 2 + strspn(text + 2, "abcdefghijklmnopqrstuvwxyz0123456789-");
    while (text[len - 1] == '-')
        len--;
    if (len >= sizeof o->name)
        return 0;
    memcpy(o->name, text, len);
    size_t value = text[len] == ' ' ? value_length(text + len + 1) : 0;
    if (value == 0 || value >= sizeof o->value)
        return len;
    memcpy(o->value, text + len + 1, value);
    return len + 1 + value;
}

static void add_option(const struct help_option *o, struct help_options *out)
{
    struct help_option *same = NULL;
    for (size_t i = 0; i < out->count; i++)
        if (strcmp(out->list[i].name, o->name) == 0)
            same = &out->list[i];
    if (!same) {
        CHECK(out->count < HELP_MAX_OPTIONS, "more than %d options", HELP_MAX_OPTIONS);
        same = &out->list[out->count++];
        *same = *o;
    }
    if (!*same->value)
        strcpy(same->value, o->value);
}

static void add_action(const char *word, size_t len, struct help_options *out)
{
    for (size_t i = 0; i < out->action_count; i++)
        if (strlen(out->actions[i]) == len && strncmp(out->actions[i], word, len) == 0)
            return;
    CHECK(out->action_count < COUNT_OF(out->actions), "too many actions");
    snprintf(out->actions[out->action_count++], HELP_MAX_NAME, "%.*s", (int)len, word);
}

/* "witan key create", "witan completion bash|zsh|fish". */
static void read_actions(const char *command, const char *text, struct help_options *out)
{
    char begins[64];
    snprintf(begins, sizeof begins, "witan %s ", command);
    for (const char *at = text; (at = strstr(at, begins)); at++) {
        const char *word = at + strlen(begins);
        const char *line = at - 7; /* "usage: " or as many spaces */
        if (at < text + 7 || (strncmp(line, "usage: ", 7) != 0 && strncmp(line, "       ", 7) != 0))
            continue;
        for (size_t len; (len = strspn(word, "abcdefghijklmnopqrstuvwxyz-")) > 0; word += len + 1) {
            if (*word != '-' && strchr(" |\n", word[len]))
                add_action(word, len, out);
            if (word[len] != '|')
                break;
        }
    }
}

void help_read(const char *command, const char *text, struct help_options *out)
{
    struct help_option o;
    read_actions(command, text, out);
    for (const char *at = text; (at = strstr(at, "--"));) {
        bool begins = at == text || !strchr("-abcdefghijklmnopqrstuvwxyz", at[-1]);
        size_t len = begins ? help_option_at(at, &o) : 0;
        if (len > 0)
            add_option(&o, out);
        at += len > 0 ? len : 2;
    }
}

/* --- witan help --------------------------------------------------------------------------------
 */

static int show(const char *command)
{
    const char *forms[HELP_MAX_FORMS];
    struct error err;
    struct buf text;
    enum status st = OK;
    buf_init(&text, MAX_HELP_BYTES);
    help_forms(command, forms);
    for (size_t i = 0; st == OK && forms[i]; i++) {
        if (i > 0)
            st = buf_puts(&text, "\n", &err);
        if (st == OK)
            st = help_text(command, forms[i], &text, &err);
    }
    if (st == OK)
        fwrite(text.data, 1, text.len, stdout);
    else
        fprintf(stderr, "witan help: %s\n", err.msg);
    buf_fini(&text);
    return st == OK ? 0 : 1;
}

int cmd_help(int argc, char **argv)
{
    const char *command = NULL, *page = NULL;
    struct error err;
    const struct flag flags[] = {{"--man", &page}, {NULL, &command}, {NULL, NULL}};
    if (flags_ask_help(argc, argv)) {
        fputs(usage, stdout);
        return 0;
    }
    if (!flags_read("witan help", argc, argv, 1, flags))
        return 2;
    if (page) {
        if (manual_put(page, command, stdout, &err) == OK)
            return 0;
        fprintf(stderr, "witan help: %s\n", err.msg);
        return 1;
    }
    if (command)
        return show(command);
    puts("usage: witan COMMAND [ARGUMENT...]");
    for (size_t i = 0; i < cli_command_count; i++)
        printf("  %-12s %s\n", cli_commands[i].name, cli_commands[i].what);
    return 0;
}
