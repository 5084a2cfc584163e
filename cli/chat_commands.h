/*
 * What a person says to `witan chat` itself: lines that begin with a slash. One thread.
 */
#ifndef WITAN_CLI_CHAT_COMMANDS_H
#define WITAN_CLI_CHAT_COMMANDS_H

#include "cli/talk.h"

enum chat_next { CHAT_GOES_ON, CHAT_ENDS };

/* Does the line, which begins with a slash, and says what came of it on standard error. */
enum chat_next chat_command(struct talk *t, const char *line);

/* What Tab knows of them: NULL ends them; static memory. */
const char *const *chat_command_words(void);

#endif
