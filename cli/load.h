/* `witan bench` against a server: the command as a whole. */
#ifndef WITAN_CLI_LOAD_H
#define WITAN_CLI_LOAD_H

/* argv from "bench" on. The process's exit code. */
int load_main(int argc, char **argv);

#endif
