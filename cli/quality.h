/* `witan bench --quality`: its arguments from the command's name on, and the exit code of
 * cli/cli.h. */
#ifndef WITAN_CLI_QUALITY_H
#define WITAN_CLI_QUALITY_H

int quality_main(int argc, char **argv);

#endif
