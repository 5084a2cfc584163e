/*
 * A rank's life under a coordinator: attach, take the plan, load, say Ready, lead or follow until
 * Stop. A stream that ends without one ends a rank that has not loaded; one that has keeps what it
 * holds and attaches again, for as long as its plan says (attach_again), whatever the other ranks
 * do. Collective over the job; runs on each rank's engine thread.
 */
#ifndef WITAN_WORKER_CONTROL_SERVE_H
#define WITAN_WORKER_CONTROL_SERVE_H

#include "transport/transport.h"

#include <stdbool.h>
#include <stdint.h>

struct serve_options {
    const char *coordinator; /* "host:port", or several (worker/control/addresses.h) */
    const char *group;
    const char *tls_dir;
    const char *region; /* "" for none */
    /* Keys that the model's manifest must be signed by, a PEM file or a folder, whatever the
     * coordinator says; it must then name a manifest. NULL: the keys that it names. */
    const char *trust;
    /* Folder of this rank's weights for the next start; the model must have a manifest. Of the
     * rank's own command line like the keys: who names the folder can have other weights taken. */
    const char *weights_cache; /* NULL: none */
    int32_t threshold;         /* of them at least so many; 0: as many as the coordinator says */
    const char *collectives;   /* of ranks on GPUs, as model_options has it */
    bool no_dumps;             /* once all is loaded, as process_no_dumps has it */
    bool sandbox;              /* forbid system calls (base/sandbox.h) once all is loaded */
    bool cuda; /* on GPUs: each rank of a machine takes the next one; false: on the processor */
    int32_t first_gpu; /* that the first takes, from 0: those before it are another group's */
    const char *powercap; /* as struct energy_options has `root` */
};

/* Who else knows of a failure. */
enum serve_scope {
    SERVE_ALL,    /* every rank returns it: rank 0 tells the operator, all leave in order */
    SERVE_ALONE,  /* this rank only, outside the transport */
    SERVE_BROKEN, /* the others may wait for this rank in the transport: abort the job */
};

/* OK after a Stop; with SERVE_ALONE where it came before there was a plan, and so perhaps not to
 * all ranks, which finalizing the transport waits for. The coordinator has been told of a failure
 * where it can be. */
enum status serve(struct comm *world, const struct serve_options *o, enum serve_scope *scope,
                  struct error *err);

#endif
