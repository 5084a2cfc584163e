/* The subcommands of `witan`: one function a command, in a file of its own (cli/NAME.c; chat's
 * is cli/client_chat.c, restart's cli/drain.c, help's and completion's cli/help.c and
 * cli/completion.c). */
#ifndef WITAN_CLI_CLI_H
#define WITAN_CLI_CLI_H

#include <stddef.h>

/* Each gets argv from the command's name on and returns the process's exit code: 0 done, 1 failed
 * (one line on standard error says why), 2 wrong usage. --help: what it can, on standard output. */
int cmd_serve(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_drain(int argc, char **argv);
int cmd_restart(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_logits(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_detokenize(int argc, char **argv);
int cmd_render(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_plan(int argc, char **argv);
int cmd_config(int argc, char **argv);
int cmd_key(int argc, char **argv);
int cmd_pki(int argc, char **argv);
int cmd_manifest(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_audit(int argc, char **argv);
int cmd_report(int argc, char **argv);
int cmd_help(int argc, char **argv);
int cmd_completion(int argc, char **argv);

/* All of them, in the order in which they are listed: main.c. */
struct cli_command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
};
extern const struct cli_command cli_commands[];
extern const size_t cli_command_count;

#endif
