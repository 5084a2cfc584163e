/*
 * What the CUDA backend's files share: cuda_backend.c (its memory, a step from begin to finish, its
 * life) and cuda_stages.c (weights, and the stages over them). For nobody else.
 */
#ifndef WITAN_WORKER_CUDA_PRIVATE_H
#define WITAN_WORKER_CUDA_PRIVATE_H

#include "worker/cuda_backend.h"
#include "worker/cuda_fast.h"
#include "worker/cuda_graphs.h"

enum { SLOTS = 2 };

enum step_mode {
    STEP_PLAIN,
    STEP_RECORD, /* stages are recorded, ranks do not meet */
    STEP_REPLAY, /* stages do nothing: what was recorded runs where ranks meet, and at the end */
};

/* The host's side of a step, pinned: one is filled while the other's is still being read. */
struct step_slot {
    struct cuda_draw *draw; /* [max_seqs], where what goes to the device begins */
    int32_t *batch;         /* behind them; then the edits of logits */
    int32_t *drawn;         /* [max_seqs]: what comes back */
    unsigned long long *out_of_range;
    cuda_event done;
};

struct backend {
    const struct cuda_plugin *cuda;
    int device;
    cuda_stream stream;
    struct cuda_watch watch; /* look NULL: nobody */
    struct memory memory;    /* this backend's: its functions find their way back */
    struct model_config config;
    struct cuda_attention attention;
    struct engine_limits limits;
    int32_t max_blocks; /* of all tables of a step */
    /* The step's numbers: here, one slot after the other, and there. */
    struct step_slot slots[SLOTS];
    int32_t slot, ended, finished; /* the one that is filled; steps under way; the last to finish */
    struct cuda_draw *device_draw;
    int32_t *device_batch; /* behind it */
    struct cuda_batch batch;
    struct cuda_graphs graphs;
    enum step_mode mode;
    struct recorded_step *step; /* but for STEP_PLAIN */
    int32_t segment;            /* the next of it to be replayed */
    bool gathered;              /* its logits, by what is recorded: all rows of the recording */
    int32_t draws;              /* of this step */
    struct cuda_edit *edits;    /* of this step, on the device behind the batch; NULL: none */
    int32_t logit_rows;         /* of this step in a shard, as gathered */
    int32_t *drawn;             /* [max_seqs], on the device */
    void *sample_work;
    void *partial;                    /* of attention */
    void *router_zeros;               /* as stages.h asks */
    struct cuda_ffn *ffn;             /* as weights->ffns, of all layers */
    const struct ffn *ffn_of;         /* weights->ffns */
    unsigned long long *out_of_range; /* on the device */
    struct cuda_fast fast;
    struct error err; /* the first, since it was created */
};

/* cuda_stages.c: the backend's table. */
extern const struct kernels cuda_kernels;

/* cuda_backend.c: those of the table that are no stages. */
struct memory *cuda_memory(struct backend *be);
void cuda_begin(struct backend *be, const struct batch *b);
bool cuda_record(struct backend *be, int32_t i, struct batch *b);
bool cuda_meet(struct backend *be, bool captured);
void cuda_end(struct backend *be);
enum status cuda_finish(struct backend *be, struct error *err);
uint64_t cuda_range_exceeded(const struct backend *be);
void cuda_destroy(struct backend *be);

/* Keeps the first failure, with the stage's name; a code of 0 is none. */
void cuda_note(struct backend *be, int code, const char *stage);

/* Runs the next segment of the step that is being replayed. */
void cuda_replay_segment(struct backend *be);

#endif
