/* Manual pages from what commands say of themselves: see help.h. */
#include "cli/help.h"
#include "cli/cli.h"

#include "base/check.h"
#include "proto/versions.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT_BYTES = 1 << 20, DESCRIPTION_INDENT = 6 };

/* Text as roff takes it: no character of it is a request. */
static void put_text(FILE *f, const char *text, size_t len)
{
    if (len > 0 && (*text == '.' || *text == '\''))
        fputs("\\&", f);
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\\')
            fputs("\\e", f);
        else if (text[i] == '-')
            fputs("\\-", f);
        else if (text[i] == '`')
            fputs("\\(ga", f);
        else if (text[i] == '\'')
            fputs("\\(aq", f);
        else if (text[i] == '~')
            fputs("\\(ti", f);
        else if (text[i] == '^')
            fputs("\\(ha", f);
        else
            fputc(text[i], f);
    }
}

static void put_title(FILE *f, const char *name, int section)
{
    fputs(".\\\" Made by `witan help --man`.\n.TH ", f);
    for (const char *c = name; *c; c++)
        fputc(toupper((unsigned char)*c), f);
    fprintf(f, " %d \"\" \"witan %s\" \"Witan\"\n.SH NAME\n", section, WITAN_VERSION);
}

static void put_name(FILE *f, const char *name, const char *what)
{
    put_text(f, name, strlen(name));
    fputs(" \\- ", f);
    put_text(f, what, strlen(what));
    fputc('\n', f);
}

/* --- one help ----------------------------------------------------------------------------------
 */

/* How the last line was set. */
enum set { PROSE, LIST, VERBATIM };

static void change(FILE *f, enum set *now, enum set to)
{
    if (*now == VERBATIM && to != VERBATIM)
        fputs(".fi\n", f);
    if (*now != VERBATIM && to == VERBATIM)
        fputs(".PP\n.nf\n", f);
    else if (*now != PROSE && to == PROSE)
        fputs(".PP\n", f);
    *now = to;
}

/* The options at a line's beginning, "--tp N, --ep N": their length. */
static size_t options_length(const char *line)
{
    struct help_option o;
    size_t at = 0, len;
    for (;;) {
        len = help_option_at(line + at, &o);
        if (len == 0)
            return at;
        at += len;
        size_t between = strspn(line + at, ", ");
        if (strncmp(line + at + between, "--", 2) != 0 || between > 2)
            return at;
        at += between;
    }
}

static void put_option(FILE *f, const char *line, size_t len)
{
    size_t options = options_length(line);
    size_t text = options + strspn(line + options, " ");
    fputs(".TP\n.B ", f);
    put_text(f, line, options);
    fputc('\n', f);
    if (text < len) {
        put_text(f, line + text, len - text);
        fputc('\n', f);
    }
}

static void put_line(FILE *f, const char *line, size_t len, enum set *now)
{
    size_t indent = strspn(line, " ");
    if (len == 0 || indent >= len) {
        change(f, now, PROSE);
        fputs(".PP\n", f);
    } else if (indent > 0 && options_length(line + indent) > 0) {
        change(f, now, LIST);
        put_option(f, line + indent, len - indent);
    } else if (indent >= DESCRIPTION_INDENT && *now == LIST) {
        put_text(f, line + indent, len - indent);
        fputc('\n', f);
    } else {
        change(f, now, indent > 0 ? VERBATIM : PROSE);
        put_text(f, line, len);
        fputc('\n', f);
    }
}

/* The lines of the usage; returns what follows them. */
static const char *put_synopsis(FILE *f, const char *text)
{
    fputs(".nf\n", f);
    for (bool first = true; first || strncmp(text, "       ", 7) == 0; first = false) {
        size_t len = strcspn(text, "\n");
        size_t skip = strcspn(text, " ") == 6 ? 7 : strspn(text, " ") > 7 ? 7 : strspn(text, " ");
        put_text(f, text + skip, len - skip);
        fputc('\n', f);
        text += len + (text[len] == '\n');
    }
    fputs(".fi\n", f);
    return text;
}

static void put_rest(FILE *f, const char *text)
{
    enum set now = PROSE;
    while (*text) {
        size_t len = strcspn(text, "\n");
        put_line(f, text, len, &now);
        text += len + (text[len] == '\n');
    }
    change(f, &now, PROSE);
}

/* All forms of a command: their usages first, then what each says. */
static enum status put_help(const char *command, FILE *f, struct error *err)
{
    const char *forms[HELP_MAX_FORMS], *rest[HELP_MAX_FORMS] = {NULL};
    struct buf texts[HELP_MAX_FORMS];
    enum status st = OK;
    size_t n = 0;
    help_forms(command, forms);
    for (; st == OK && forms[n]; n++) {
        buf_init(&texts[n], MAX_TEXT_BYTES);
        st = help_text(command, forms[n], &texts[n], err);
    }
    if (st == OK)
        fputs(".SH SYNOPSIS\n", f);
    for (size_t i = 0; st == OK && i < n; i++)
        rest[i] = put_synopsis(f, texts[i].data ? texts[i].data : "");
    if (st == OK)
        fputs(".SH DESCRIPTION\n", f);
    for (size_t i = 0; st == OK && i < n; i++) {
        if (i > 0) {
            fputs(".SS With ", f);
            put_text(f, forms[i], strlen(forms[i]));
            fputc('\n', f);
        }
        put_rest(f, rest[i]);
    }
    for (size_t i = 0; i < n; i++)
        buf_fini(&texts[i]);
    return st;
}

/* --- pages -------------------------------------------------------------------------------------
 */

static void put_witan(FILE *f)
{
    put_title(f, "witan", 1);
    put_name(f, "witan", "serve Qwen3 mixture-of-experts models over many ranks");
    fputs(".SH SYNOPSIS\n.B witan\n.I COMMAND\n[\\fIARGUMENT\\fR...]\n.SH DESCRIPTION\n"
          "Each command has a page of its own, and\n.B \\-\\-help\nsays the same.\n",
          f);
    for (size_t i = 0; i < cli_command_count; i++) {
        fprintf(f, ".TP\n.BR witan\\-%s (1)\n", cli_commands[i].name);
        put_text(f, cli_commands[i].what, strlen(cli_commands[i].what));
        fputc('\n', f);
    }
    fputs(".SH ENVIRONMENT\n.TP\n.B WITAN_API_KEY\nthe API key of commands that ask a server\n"
          ".TP\n.B NO_COLOR\nwhere it is set,\n.B witan chat\nsends no escape sequences\n"
          ".SH SEE ALSO\n.BR cluster.yaml (5),\n.BR witan\\-coordinator (8),\n"
          ".BR witan\\-worker (8)\n",
          f);
}

static enum status put_file(const char *path, FILE *f, struct error *err)
{
    char *text;
    size_t len;
    TRY(file_read_all(path, MAX_TEXT_BYTES, &text, &len, err));
    put_title(f, "cluster.yaml", 5);
    put_name(f, "cluster.yaml", "the configuration of a Witan cluster");
    fputs(".SH DESCRIPTION\nWhat\n.BR witan\\-serve (1)\nand\n.BR witan\\-coordinator (8)\n"
          "read with\n.BR \\-c .\nThis example has every key, and what it means;\n"
          ".B witan config \\-\\-check\nshows what a file comes to, defaults included.\n"
          ".SH EXAMPLE\n.nf\n",
          f);
    for (const char *line = text; *line;) {
        size_t n = strcspn(line, "\n");
        put_text(f, line, n);
        fputc('\n', f);
        line += n + (line[n] == '\n');
    }
    fputs(".fi\n.SH SEE ALSO\n.BR witan\\-serve (1),\n.BR witan\\-config (1)\n", f);
    free(text);
    return OK;
}

static enum status put_program(const char *name, const char *what, FILE *f, struct error *err)
{
    put_title(f, name, 8);
    put_name(f, name, what);
    TRY(put_help(name, f, err));
    fputs(".SH SEE ALSO\n.BR witan (1),\n.BR witan\\-serve (1),\n.BR cluster.yaml (5)\n", f);
    return OK;
}

enum status manual_put(const char *name, const char *file, FILE *f, struct error *err)
{
    if (strcmp(name, "witan") == 0) {
        put_witan(f);
        return OK;
    }
    if (strcmp(name, "cluster.yaml") == 0 && file)
        return put_file(file, f, err);
    if (strcmp(name, "witan-coordinator") == 0)
        return put_program(name, "the front of a Witan cluster", f, err);
    if (strcmp(name, "witan-worker") == 0)
        return put_program(name, "one rank of a worker group of a Witan cluster", f, err);
    for (size_t i = 0; strncmp(name, "witan-", 6) == 0 && i < cli_command_count; i++) {
        if (strcmp(cli_commands[i].name, name + 6) != 0)
            continue;
        put_title(f, name, 1);
        put_name(f, name, cli_commands[i].what);
        TRY(put_help(name + 6, f, err));
        fputs(".SH SEE ALSO\n.BR witan (1)\n", f);
        return OK;
    }
    return error_set(err, ERR_NOT_FOUND,
                     "no manual page %.100s; cluster.yaml's is made from an example's FILE", name);
}
