/*
 * A worker group inside a command: the flags that lay it out, and running its ranks as threads
 * (`local`) or as processes under mpirun (`mpi`), which the command starts by itself when it is not
 * yet in an MPI job.
 */
#ifndef WITAN_CLI_GROUP_H
#define WITAN_CLI_GROUP_H

#include "partition/manifest.h"
#include "worker/engine.h"

struct group_options {
    const char *dir;
    struct layout layout;
    struct engine_limits limits; /* 0 = choose: see group_defaults */
    const char *transport;       /* "local" or "mpi" */
    const char *kernels;
    bool cuda;               /* on GPUs: each rank of a machine takes the next one */
    const char *collectives; /* "auto", "nccl" or "staged" */
    int32_t step_timeout_s;
    int32_t chunk;
    int32_t speculate; /* tokens guessed ahead; limits.max_logits follows */
    bool verbose;
    /* The folder's manifest: which, trusted keys, how many must have signed (0: 1). */
    const char *manifest_path, *trust;
    int32_t threshold;
    const char *weights_cache; /* a folder; NULL: none */
    enum weight_mode weights;  /* what they become in memory */
    bool random_weights;       /* see worker/model.h; no flag of the group's */
    struct manifest *manifest; /* opened by group_open_manifest; group_fini closes it */
};

/* The flags' help, one line each. */
extern const char group_help[];

/* Nothing chosen yet. */
void group_init(struct group_options *o);

void group_fini(struct group_options *o);

/* Opens the manifest that the flags name, where they name one and it is not open yet. group_run
 * does so too; who reads the folder before calls this first and reads with
 * manifest_proof(o->manifest).
 */
enum status group_open_manifest(struct group_options *o, struct error *err);

/* Takes argv[*i] (and its value) if it is one of the group's flags and moves *i to the last word
 * taken. 1: taken; 0: not a flag of the group; -1: a bad value, said on standard error. */
int group_flag(struct group_options *o, int argc, char **argv, int *i);

/* What rank 0 does between the others' start and stop. */
typedef enum status (*group_fn)(struct engine *e, struct model *m, void *arg, struct error *err);

/* Is this process the one that reads input and writes answers? (Under mpirun, rank 0 alone.) */
bool group_is_leader(void);

/* Will group_run start this command again under mpirun? */
bool group_will_exec(const struct group_options *o);

/*
 * Fills what the options leave open (context, threads, rows a step), starts the ranks, runs `fn` on
 * rank 0 and stops them. `argv` is the whole command line, to start it again under mpirun; then
 * this does not return. `vocab_limit`: ids from here on are never drawn (rank 0's word counts).
 */
enum status group_run(struct group_options *o, char **argv, int32_t vocab_limit, group_fn fn,
                      void *arg, struct error *err);

/* The sampling defaults of the folder's generation_config.json; `seed` stays 0, and of *shaping all
 * but the repetition penalty. */
enum status group_sampling(const struct group_options *o, struct sampling *sampling,
                           struct shaping *shaping, struct error *err);

#endif
