/* Lines that begin with a slash: see chat_commands.h. */
#include "cli/chat_commands.h"
#include "cli/terminal.h"

#include "base/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WORDS = 64, MAX_WORD = 48 };

/* A file's text or a name on the terminal. */
static void say(const char *what, const char *text)
{
    terminal_say(stderr, what, text);
}

static void complain(enum status st, const struct error *err)
{
    if (st == ERR_CANCELLED)
        fputs("[stopped]\n", stderr);
    else if (st != OK)
        say("witan chat: ", err->msg);
}

static enum chat_next help(struct talk *t, const char *rest);

static enum chat_next begin(struct talk *t, const char *rest)
{
    (void)rest;
    talk_begin(t);
    fputs("A new conversation.\n", stderr);
    return CHAT_GOES_ON;
}

static enum chat_next set_system(struct talk *t, const char *rest)
{
    if (*rest)
        talk_system(t, strcmp(rest, "off") == 0 ? NULL : rest);
    say("system message: ", t->system ? t->system : "none");
    return CHAT_GOES_ON;
}

static enum chat_next set(struct talk *t, const char *rest)
{
    char name[MAX_WORD];
    struct error err;
    enum status st;
    size_t len = strcspn(rest, " ");
    const char *value = rest + len + strspn(rest + len, " ");
    snprintf(name, sizeof name, "%.*s", (int)(len < sizeof name ? len : sizeof name - 1), rest);
    if (*rest && !*value)
        fputs("/set NAME VALUE, or /set NAME default\n", stderr);
    else if (*rest && !talk_set(t, name, value, &st, &err))
        fputs("/set knows no such name; Tab lists them\n", stderr);
    else if (*rest)
        complain(st, &err);
    talk_show_settings(t, stderr);
    return CHAT_GOES_ON;
}

static enum chat_next think(struct talk *t, const char *rest)
{
    if (strcmp(rest, "on") == 0 || strcmp(rest, "off") == 0)
        t->no_think = strcmp(rest, "off") == 0;
    else if (*rest)
        fputs("/think on, or /think off\n", stderr);
    fprintf(stderr, "thinking: %s\n", t->no_think ? "off" : "on, where the model can");
    return CHAT_GOES_ON;
}

static enum chat_next undo(struct talk *t, const char *rest)
{
    (void)rest;
    char *question = talk_question(t) ? strdup(talk_question(t)) : NULL;
    if (talk_undo(t))
        say("Forgotten, with its answer: ", question ? question : "");
    else
        fputs("Nothing was asked yet.\n", stderr);
    free(question);
    return CHAT_GOES_ON;
}

static enum chat_next retry(struct talk *t, const char *rest)
{
    struct error err;
    (void)rest;
    complain(talk_retry(t, &err), &err);
    return CHAT_GOES_ON;
}

static enum chat_next save(struct talk *t, const char *rest)
{
    struct error err;
    enum status st = *rest ? talk_save(t, rest, &err)
                           : error_set(&err, ERR_INVALID, "/save FILE: expected a file's name");
    complain(st, &err);
    if (st == OK)
        fprintf(stderr, "%zu messages saved.\n", t->turn_count);
    return CHAT_GOES_ON;
}

static enum chat_next load(struct talk *t, const char *rest)
{
    struct error err;
    enum status st = *rest ? talk_load(t, rest, &err)
                           : error_set(&err, ERR_INVALID, "/load FILE: expected a file's name");
    complain(st, &err);
    if (st == OK) {
        fprintf(stderr, "%zu messages loaded", t->turn_count);
        say("; the last question: ", talk_question(t) ? talk_question(t) : "none");
    }
    return CHAT_GOES_ON;
}

static enum chat_next usage(struct talk *t, const char *rest)
{
    (void)rest;
    const struct talk_usage *last = &t->last, *all = &t->all;
    if (all->answers == 0) {
        fputs("No answer yet.\n", stderr);
        return CHAT_GOES_ON;
    }
    fprintf(stderr,
            "last answer: %" PRIu64 " tokens in %.1f s, to a prompt of %" PRIu64 " (%" PRIu64
            " cached), seed %" PRIu64 "\n",
            last->completion_tokens, last->seconds, last->prompt_tokens, last->cached_tokens,
            t->last_seed);
    fprintf(stderr,
            "%" PRIu64 " answers: %" PRIu64 " tokens in %.1f s, to prompts of %" PRIu64 " (%" PRIu64
            " cached)\n",
            all->answers, all->completion_tokens, all->seconds, all->prompt_tokens,
            all->cached_tokens);
    return CHAT_GOES_ON;
}

static enum chat_next quit(struct talk *t, const char *rest)
{
    (void)t;
    (void)rest;
    return CHAT_ENDS;
}

static const struct command {
    const char *name, *operand, *what;
    enum chat_next (*run)(struct talk *t, const char *rest);
    bool hidden; /* another name of one that is listed */
} commands[] = {
    {"/help", "", "this list", help, false},
    {"/new", "", "forget the conversation, keep system message and settings", begin, false},
    {"/system", " [TEXT|off]", "show or change the system message", set_system, false},
    {"/set", " [NAME VALUE]", "show or change how answers are drawn; default undoes", set, false},
    {"/think", " on|off", "whether the model may think", think, false},
    {"/undo", "", "forget the last question and its answer", undo, false},
    {"/retry", "", "ask the last question again (the same answer where a seed is set)", retry,
     false},
    {"/save", " FILE", "write the conversation as JSON", save, false},
    {"/load", " FILE", "go on with one that was saved", load, false},
    {"/usage", "", "tokens and seconds of the answers", usage, false},
    {"/quit", "", "end; so does Ctrl-D", quit, false},
    {"/reset", "", "", begin, true},
    {"/exit", "", "", quit, true},
};

static enum chat_next help(struct talk *t, const char *rest)
{
    (void)t;
    (void)rest;
    for (size_t i = 0; i < COUNT_OF(commands); i++) {
        char name[MAX_WORD];
        snprintf(name, sizeof name, "%s%s", commands[i].name, commands[i].operand);
        if (!commands[i].hidden)
            fprintf(stderr, "  %-22s %s\n", name, commands[i].what);
    }
    fputs("A line that ends in \\ or with Alt-Enter goes on; a block stands between lines of "
          "\"\"\".\n"
          "Ctrl-C stops an answer. A text that begins with / needs a space before it.\n",
          stderr);
    return CHAT_GOES_ON;
}

enum chat_next chat_command(struct talk *t, const char *line)
{
    size_t len = strcspn(line, " ");
    char rest[4096];
    snprintf(rest, sizeof rest, "%s", line + len + strspn(line + len, " "));
    if (strlen(line) >= sizeof rest) {
        fputs("This command is too long.\n", stderr);
        return CHAT_GOES_ON;
    }
    for (size_t n = strlen(rest); n > 0 && rest[n - 1] == ' ';)
        rest[--n] = '\0';
    for (size_t i = 0; i < COUNT_OF(commands); i++)
        if (strlen(commands[i].name) == len && strncmp(line, commands[i].name, len) == 0)
            return commands[i].run(t, rest);
    fputs("No such command; /help lists them. A text that begins with / needs a space before it.\n",
          stderr);
    return CHAT_GOES_ON;
}

const char *const *chat_command_words(void)
{
    static char texts[MAX_WORDS][MAX_WORD];
    static const char *words[MAX_WORDS + 1];
    size_t n = 0;
    for (size_t i = 0; i < COUNT_OF(commands); i++) {
        bool of_settings = strcmp(commands[i].name, "/set") == 0;
        bool of_thinking = strcmp(commands[i].name, "/think") == 0;
        CHECK(n + 12 < MAX_WORDS, "more commands than places");
        for (size_t k = 0; of_settings && talk_settings[k]; k++)
            snprintf(texts[n++], MAX_WORD, "/set %s ", talk_settings[k]);
        for (int on = 0; of_thinking && on < 2; on++)
            snprintf(texts[n++], MAX_WORD, "/think %s", on ? "on" : "off");
        if (!of_settings && !of_thinking && !commands[i].hidden)
            snprintf(texts[n++], MAX_WORD, "%s%s", commands[i].name,
                     *commands[i].operand ? " " : "");
    }
    for (size_t i = 0; i < n; i++)
        words[i] = texts[i];
    words[n] = NULL;
    return words;
}
