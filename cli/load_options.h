/* The command line of `witan bench` against a server. Texts stay argv's. No state. */
#ifndef WITAN_CLI_LOAD_OPTIONS_H
#define WITAN_CLI_LOAD_OPTIONS_H

#include "cli/load_dataset.h"
#include "cli/load_drive.h"

enum { LOAD_MAX_SWEEP = 32, LOAD_MAX_AT_ONCE = 65536 };

struct load_options {
    const char *url, *grpc; /* exactly one */
    const char *model, *ca, *key_file, *status, *tokenizer, *json, *html, *goodput;
    bool insecure, chat, ignore_eos, usage, has_temperature;
    double temperature;
    char *more; /* members of --extra's object, and the temperature; owned; NULL: none */
    struct load_dataset_options dataset;
    struct load_plan plan;
    bool has_seed;
    enum load_mode sweep_mode;
    double sweep[LOAD_MAX_SWEEP]; /* concurrencies or rates */
    int32_t sweep_count;          /* 0: one load, the plan's */
};

/* What --help prints. */
extern const char load_usage[];

/* Reads the command line and checks that its flags go together. ERR_INVALID names the flag, what
 * was expected and what was found. */
enum status load_options_read(int argc, char **argv, struct load_options *o, struct error *err);
void load_options_fini(struct load_options *o);

#endif
