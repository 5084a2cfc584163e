/* See flags.h. No state. */
#include "cli/flags.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool ends(const struct flag *f)
{
    return !f->name && !f->value;
}

/* The flag of this name, or, for NULL, the first operand that is still free. */
static const struct flag *find(const struct flag *flags, const char *name)
{
    for (const struct flag *f = flags; !ends(f); f++) {
        bool same = name ? f->name && strcmp(f->name, name) == 0 : !f->name && !*f->value;
        if (same)
            return f;
    }
    return NULL;
}

bool flags_read(const char *command, int argc, char **argv, int first, const struct flag *flags)
{
    for (int i = first; i < argc; i++) {
        bool is_flag = argv[i][0] == '-' && argv[i][1];
        const struct flag *f = find(flags, is_flag ? argv[i] : NULL);
        const char *problem = NULL;
        if (!f)
            problem = is_flag ? "unknown flag" : "one argument too many:";
        else if (is_flag && i + 1 == argc)
            problem = "expected a value after";
        else if (*f->value)
            problem = "expected once:";
        if (problem) {
            fprintf(stderr, "%s: %s %s\n", command, problem, argv[i]);
            return false;
        }
        *f->value = is_flag ? argv[++i] : argv[i];
    }
    return true;
}

bool flags_ask_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

bool flags_int(const char *command, const char *name, const char *text, int min, int max, int *out)
{
    size_t digits = strspn(text, "0123456789");
    long n = digits > 0 && digits <= 9 && !text[digits] ? strtol(text, NULL, 10) : -1;
    if (n < min || n > max) {
        fprintf(stderr, "%s: %s: expected %d to %d, found \"%s\"\n", command, name, min, max, text);
        return false;
    }
    *out = (int)n;
    return true;
}

bool flags_fraction(const char *text, int *percent)
{
    char *end = NULL;
    double part = strtod(text, &end);
    if (!*text || *end || !(part >= 0.01 && part <= 1))
        return false;
    *percent = (int)(part * 100 + 0.5);
    return true;
}
