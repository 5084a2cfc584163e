/*
 * `witan completion`: a script that makes a shell complete commands, options and their values. It
 * is made from what each command's --help says.
 */
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/help.h"

#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: witan completion bash|zsh|fish\n"
    "Writes what makes the shell complete commands, options and their values:\n"
    "  bash:  witan completion bash >/etc/bash_completion.d/witan\n"
    "  zsh:   witan completion zsh >/usr/local/share/zsh/site-functions/_witan\n"
    "  fish:  witan completion fish >~/.config/fish/completions/witan.fish\n";

enum { MAX_HELP_BYTES = 1 << 20 };

/* What may stand behind an option. */
enum value { FLAG, CHOICE, FILES, FOLDERS, ANYTHING };

static enum value kind_of(const struct help_option *o)
{
    static const char *const files[] = {"FILE", "KEYS", "CLUSTER.YAML", "LIST", "MANIFEST"};
    if (!*o->value || *o->value == '[')
        return FLAG;
    if (strchr(o->value, '|'))
        return CHOICE;
    if (strcmp(o->value, "DIR") == 0)
        return FOLDERS;
    for (size_t i = 0; i < COUNT_OF(files); i++)
        if (strcmp(o->value, files[i]) == 0)
            return FILES;
    return ANYTHING;
}

/* "a b c" of "a|b|c". */
static void put_choices(const char *value)
{
    for (; *value; value++)
        putchar(*value == '|' ? ' ' : *value);
}

static void put_all(const struct help_options *all)
{
    for (size_t i = 0; i < all->count; i++)
        printf("%s%s", i > 0 ? " " : "", all->list[i].name);
}

static void put_actions(const struct help_options *all)
{
    for (size_t i = 0; i < all->action_count; i++)
        printf("%s%s", i > 0 ? " " : "", all->actions[i]);
}

static void put_commands(void)
{
    for (size_t i = 0; i < cli_command_count; i++)
        printf("%s%s", i > 0 ? " " : "", cli_commands[i].name);
}

/* --- bash --------------------------------------------------------------------------------------
 */

static void bash_begin(void)
{
    puts(
        "# bash completion of witan; made by `witan completion bash`.\n"
        "_witan()\n"
        "{\n"
        "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words= actions=\n"
        "    COMPREPLY=()\n"
        "    if ((COMP_CWORD == 1)); then");
    fputs("        mapfile -t COMPREPLY < <(compgen -W '--help --version ", stdout);
    put_commands();
    puts("' -- \"$cur\")\n"
         "        return\n"
         "    fi\n"
         "    case ${COMP_WORDS[1]}:$prev in");
}

/* What stands behind options with values; then, by `second`, what else a command takes. */
static void bash_command(const char *name, const struct help_options *all, bool second)
{
    for (size_t i = 0; !second && i < all->count; i++) {
        const struct help_option *o = &all->list[i];
        enum value kind = kind_of(o);
        if (kind == FLAG)
            continue;
        printf("        %s:%s) ", name, o->name);
        if (kind == CHOICE) {
            fputs("mapfile -t COMPREPLY < <(compgen -W '", stdout);
            put_choices(o->value);
            fputs("' -- \"$cur\"); ", stdout);
        } else if (kind == FOLDERS) {
            fputs("compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "
                  "\"$cur\"); ",
                  stdout);
        } else if (kind == ANYTHING) {
            fputs("compopt +o default 2>/dev/null; ", stdout);
        }
        puts("return ;;");
    }
    if (!second)
        return;
    printf("        %s)\n            words='", name);
    put_all(all);
    puts("'");
    if (all->action_count > 0) {
        fputs("            actions='", stdout);
        put_actions(all);
        puts("'");
    }
    puts("            ;;");
}

static void bash_middle(void)
{
    puts("    esac\n"
         "    case ${COMP_WORDS[1]} in");
}

static void bash_end(void)
{
    puts("    esac\n"
         "    if [[ $cur == -* ]]; then\n"
         "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
         "    elif ((COMP_CWORD == 2)) && [[ $actions ]]; then\n"
         "        mapfile -t COMPREPLY < <(compgen -W \"$actions\" -- \"$cur\")\n"
         "    fi\n"
         "}\n"
         "complete -o default -F _witan witan");
}

/* --- zsh ---------------------------------------------------------------------------------------
 */

static void zsh_begin(void)
{
    puts("#compdef witan\n"
         "# zsh completion of witan; made by `witan completion zsh`.\n"
         "_witan() {\n"
         "    local -a commands\n"
         "    commands=(");
    for (size_t i = 0; i < cli_command_count; i++) {
        printf("        '%s:", cli_commands[i].name);
        for (const char *c = cli_commands[i].what; *c; c++)
            fputs(*c == '\'' ? "'\\''" : (char[]){*c, '\0'}, stdout);
        puts("'");
    }
    puts("    )\n"
         "    if ((CURRENT == 2)); then\n"
         "        _describe command commands\n"
         "        compadd -- --help --version\n"
         "        return\n"
         "    fi\n"
         "    case \"${words[2]}:${words[CURRENT-1]}\" in");
}

static void zsh_command(const char *name, const struct help_options *all, bool second)
{
    for (size_t i = 0; !second && i < all->count; i++) {
        const struct help_option *o = &all->list[i];
        enum value kind = kind_of(o);
        if (kind == FLAG)
            continue;
        printf("        (%s:%s) ", name, o->name);
        if (kind == CHOICE) {
            fputs("compadd -- ", stdout);
            put_choices(o->value);
            fputs("; ", stdout);
        } else if (kind != ANYTHING) {
            fputs(kind == FOLDERS ? "_files -/; " : "_files; ", stdout);
        }
        puts("return ;;");
    }
    if (!second)
        return;
    printf("        (%s)\n", name);
    if (all->action_count > 0) {
        fputs("            ((CURRENT == 3)) && compadd -- ", stdout);
        put_actions(all);
        putchar('\n');
    }
    fputs("            compadd -- ", stdout);
    put_all(all);
    puts("\n            ;;");
}

static void zsh_middle(void)
{
    puts("    esac\n"
         "    case \"${words[2]}\" in");
}

static void zsh_end(void)
{
    puts("    esac\n"
         "    [[ $PREFIX == -* ]] || _files\n"
         "}\n"
         "_witan \"$@\"");
}

/* --- fish --------------------------------------------------------------------------------------
 */

static void fish_begin(void)
{
    puts("# fish completion of witan; made by `witan completion fish`.\n"
         "complete -c witan -n __fish_use_subcommand -f -l help\n"
         "complete -c witan -n __fish_use_subcommand -f -l version");
    for (size_t i = 0; i < cli_command_count; i++) {
        printf("complete -c witan -n __fish_use_subcommand -f -a %s -d '", cli_commands[i].name);
        for (const char *c = cli_commands[i].what; *c; c++)
            fputs(*c == '\'' ? "\\'" : (char[]){*c, '\0'}, stdout);
        puts("'");
    }
}

static void fish_command(const char *name, const struct help_options *all, bool second)
{
    if (second)
        return;
    for (size_t i = 0; i < all->action_count; i++)
        printf("complete -c witan -n '__fish_seen_subcommand_from %s' -f -a %s\n", name,
               all->actions[i]);
    for (size_t i = 0; i < all->count; i++) {
        const struct help_option *o = &all->list[i];
        enum value kind = kind_of(o);
        printf("complete -c witan -n '__fish_seen_subcommand_from %s' -l %s", name, o->name + 2);
        if (kind == CHOICE) {
            fputs(" -x -a '", stdout);
            put_choices(o->value);
            putchar('\'');
        } else if (kind == FOLDERS) {
            fputs(" -x -a '(__fish_complete_directories)'", stdout);
        } else if (kind != FLAG) {
            fputs(kind == FILES ? " -r" : " -x", stdout);
        }
        putchar('\n');
    }
}

static void fish_nothing(void)
{
}

/* --- all of them -------------------------------------------------------------------------------
 */

static const struct shell {
    const char *name;
    void (*begin)(void);
    void (*command)(const char *name, const struct help_options *all, bool second);
    void (*middle)(void);
    void (*end)(void);
} shells[] = {
    {"bash", bash_begin, bash_command, bash_middle, bash_end},
    {"zsh", zsh_begin, zsh_command, zsh_middle, zsh_end},
    {"fish", fish_begin, fish_command, fish_nothing, fish_nothing},
};

static enum status read_help(const char *command, struct help_options *all, struct error *err)
{
    static const struct help_option help = {.name = "--help"};
    const char *forms[HELP_MAX_FORMS];
    enum status st = OK;
    *all = (struct help_options){.count = 1};
    all->list[0] = help;
    help_forms(command, forms);
    for (size_t i = 0; st == OK && forms[i]; i++) {
        struct buf text;
        buf_init(&text, MAX_HELP_BYTES);
        st = help_text(command, forms[i], &text, err);
        if (st == OK)
            help_read(command, text.data ? text.data : "", all);
        buf_fini(&text);
    }
    return st;
}

/* All that is known before anything is written: a script that ends in the middle is worse than
 * none.
 */
static enum status put_script(const struct shell *shell, struct error *err)
{
    struct help_options *all = check_calloc(cli_command_count, sizeof *all);
    enum status st = OK;
    for (size_t i = 0; st == OK && i < cli_command_count; i++)
        st = read_help(cli_commands[i].name, &all[i], err);
    if (st == OK)
        shell->begin();
    for (size_t i = 0; st == OK && i < cli_command_count; i++)
        shell->command(cli_commands[i].name, &all[i], false);
    if (st == OK)
        shell->middle();
    for (size_t i = 0; st == OK && i < cli_command_count; i++)
        shell->command(cli_commands[i].name, &all[i], true);
    if (st == OK)
        shell->end();
    free(all);
    return st;
}

int cmd_completion(int argc, char **argv)
{
    struct error err;
    if (flags_ask_help(argc, argv)) {
        fputs(usage, stdout);
        return 0;
    }
    for (size_t i = 0; argc == 2 && i < COUNT_OF(shells); i++) {
        if (strcmp(argv[1], shells[i].name) != 0)
            continue;
        if (put_script(&shells[i], &err) == OK)
            return 0;
        fprintf(stderr, "witan completion: %s\n", err.msg);
        return 1;
    }
    fputs(usage, stderr);
    return 2;
}
