/* `witan COMMAND ...`: finds the command and hands over. */
#include "cli/cli.h"
#include "proto/versions.h"

#include <stdio.h>
#include <string.h>

const struct cli_command cli_commands[] = {
#ifndef WITAN_ENGINE_ONLY
    {"serve", cmd_serve, "a coordinator and its worker groups, until stopped"},
    {"chat", cmd_chat, "a conversation with a coordinator"},
    {"status", cmd_status, "what a coordinator's groups and ranks do"},
    {"drain", cmd_drain, "take a group out of service, and back"},
    {"restart", cmd_restart, "restart groups one after another, with no request lost"},
    {"run", cmd_run, "answer a prompt, a conversation or a file of requests"},
    {"logits", cmd_logits, "token ids to raw logits"},
    {"render", cmd_render, "render conversations with a checkpoint's chat template"},
    {"tokenize", cmd_tokenize, "text to token ids"},
    {"detokenize", cmd_detokenize, "token ids to text"},
    {"plan", cmd_plan, "layouts of a model on given devices, and their memory"},
    {"config", cmd_config, "check a cluster.yaml and show what it comes to"},
    {"key", cmd_key, "make and list API keys"},
    {"pki", cmd_pki, "make the cluster's certificates"},
    {"audit", cmd_audit, "verify an audit log, replay a request of it"},
    {"manifest", cmd_manifest, "list, sign and prove a model's files"},
    {"doctor", cmd_doctor, "is this host fit to serve, and what is to be done"},
    {"report", cmd_report, "what tenants used, and what runs here under which rules"},
    {"help", cmd_help, "what a command can, as text or as a manual page"},
    {"completion", cmd_completion, "what makes a shell complete all of this"},
#endif
    {"bench", cmd_bench, "how fast this machine runs a model, against its limits"},
};

const size_t cli_command_count = sizeof cli_commands / sizeof *cli_commands;

static int usage(FILE *f)
{
    fputs("usage: witan COMMAND [ARGUMENT...]\n", f);
    for (size_t i = 0; i < cli_command_count; i++)
        fprintf(f, "  %-12s %s\n", cli_commands[i].name, cli_commands[i].what);
    return f == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return usage(stderr);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return usage(stdout);
    if (strcmp(argv[1], "--version") == 0)
        return printf("witan %s\n", WITAN_VERSION) < 0;
    for (size_t i = 0; i < cli_command_count; i++) {
        if (strcmp(argv[1], cli_commands[i].name) == 0)
            return cli_commands[i].run(argc - 1, argv + 1);
    }
    fprintf(stderr, "witan: unknown command \"%s\"\n", argv[1]);
    return usage(stderr);
}
