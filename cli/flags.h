/* Arguments of commands that take texts: "--name VALUE" in any order, and operands. */
#ifndef WITAN_CLI_FLAGS_H
#define WITAN_CLI_FLAGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where a flag's or an operand's text goes; it stays argv's. An operand has name NULL; operands are
 * taken in the order of the array. */
struct flag {
    const char *name;
    const char **value;
};

/* Reads argv[first] and on into `flags`, which a {0} ends. False, with a line on standard error
 * that `command` begins, at an unknown flag, one without value or given twice, an operand too many.
 */
bool flags_read(const char *command, int argc, char **argv, int first, const struct flag *flags);

/* Is `--help` or `-h` among the arguments? */
bool flags_ask_help(int argc, char **argv);

/* Decimal digits as a number of `min` to `max`; false with a line on standard error. */
bool flags_int(const char *command, const char *name, const char *text, int min, int max, int *out);

/* A part of a whole, 0.01 to 1, in hundredths; false, saying nothing, for any other text. */
bool flags_fraction(const char *text, int *percent);

#endif
