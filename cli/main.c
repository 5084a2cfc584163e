/* `witan COMMAND ...`: finds the command and hands over. */
#include "cli/cli.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
};

static const struct command commands[] = {
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
    {"manifest", cmd_manifest, "list, sign and prove a model's files"},
#endif
    {"bench", cmd_bench, "how fast this machine runs a model, against its limits"},
};

static int usage(void)
{
    fputs("usage: witan COMMAND [ARGUMENT...]\n", stderr);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(stderr, "  %-12s %s\n", commands[i].name, commands[i].what);
    return 2;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return usage();
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    }
    fprintf(stderr, "witan: unknown command \"%s\"\n", argv[1]);
    return usage();
}
