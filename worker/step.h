/*
 * The step description: what rank 0 tells every rank to run next, as one flat message, so that
 * ranks that each schedule cannot disagree. It carries tokens and block numbers, never text.
 *
 * A rank keeps one block table a slot; a step brings only the blocks that are new. Rank 0 writes a
 * step, every rank (rank 0 too) reads it with step_batch.
 */
#ifndef WITAN_WORKER_STEP_H
#define WITAN_WORKER_STEP_H

#include "transport/transport.h"
#include "worker/kernels.h"
#include "worker/masks.h"
#include "worker/sampler.h"

enum step_kind {
    STEP_RUN = 1,
    STEP_STOP = 2,
    STEP_PARK = 3, /* nothing to run for now: wait outside the transport */
};

enum step_logits {
    STEP_LOGITS_NONE, /* a chunk of a prompt that is not its last */
    STEP_LOGITS_LAST, /* of its last token: one is drawn from it */
    STEP_LOGITS_ALL,  /* of every token, and some are drawn from the last ones */
};

/* One sequence's part of a step. */
struct step_seq {
    int32_t slot;        /* 0..max_seqs - 1 */
    int32_t pos;         /* of its first token in this step */
    int32_t count;       /* tokens in this step */
    int32_t first_block; /* index in the slot's table of the first new block */
    int32_t blocks;      /* new blocks */
    int32_t logits;      /* enum step_logits */
    int32_t draw;        /* sample after so many of its last tokens; all of these have logits */
    int32_t edits;       /* of logits, before its one draw */
    float repetition_penalty;
    int32_t mask; /* 1 + which of the step's; 0: every token may be drawn */
    struct sampling sampling;
};

struct step_header {
    uint32_t magic;
    uint32_t version;
    int32_t kind;
    int32_t seqs;
    int32_t rows;        /* sum of counts */
    int32_t blocks;      /* sum of new blocks */
    int32_t vocab_limit; /* ids from here on are never drawn */
    int32_t keep_logits; /* 1: rank 0 wants the logits rows themselves */
    int32_t edits;       /* sum of edits */
    int32_t settle;      /* 1: it wants its tokens before it makes the next step */
    int32_t masks;       /* rows of bits; sequences may share one */
    int32_t wipes;       /* KV blocks to be zeroed before it */
};

/* A step, written or received. Memory sized once by the limits. */
struct step {
    struct step_header header;
    struct step_seq *seqs;    /* [max_seqs] */
    int32_t *tokens;          /* [max_rows] */
    int32_t *blocks;          /* [max_blocks] */
    struct logit_edit *edits; /* [max_edits] */
    uint64_t *masks;          /* [max_masks][mask_row]: a bit a token that may be drawn */
    int32_t *wipes;           /* [max_wipes]: KV blocks */
    uint64_t *mask_names;     /* [max_masks]: rank 0's, of struct mask */
    size_t message_bytes;     /* of message, at most */
    char *message; /* header, sequences, tokens, blocks, edits, masks, wipes, as broadcast */
    int32_t max_seqs, max_rows, max_blocks, max_edits, max_draws, max_masks, max_wipes;
    int32_t mask_row; /* words of a mask */
    int32_t table;    /* entries of a slot's block table */
    /* What step_batch makes of it. */
    int32_t *tables; /* [max_seqs][table] */
    int32_t *pos;    /* [max_rows] */
    const int32_t **row_table;
    int32_t *logit_row;
    struct draw *draw; /* [max_draws] */
};

/* Stands for the token that the step before draws as its `index`-th, which is not known yet. */
static inline int32_t step_drawn_token(int32_t index)
{
    return -1 - index;
}

enum { STEP_MAX_MASKS = 64 }; /* of one step; sequences beyond wait for their turn */

/* Masks are of tokens below `vocab`. */
enum status step_init(struct step *s, const struct engine_limits *limits, int32_t vocab,
                      struct error *err);
void step_fini(struct step *s);

/* Rank 0: an empty step of this kind; then each sequence; `blocks` are its new ones. The scheduler
 * keeps within the limits. */
void step_begin(struct step *s, enum step_kind kind, int32_t vocab_limit, bool keep_logits);
void step_add(struct step *s, const struct step_seq *seq, const int32_t *tokens,
              const int32_t *blocks);

/* Where edits of the last sequence's logits may be written, *room of them; then how many were. Ids
 * ascend, all below vocab_limit. */
struct logit_edit *step_edits(struct step *s, int32_t *room);
void step_edited(struct step *s, int32_t edits, float repetition_penalty);

/* The last sequence's mask, copied unless the step has one of its name; max_masks of them fit. */
void step_masked(struct step *s, const struct mask *mask);

/* KV blocks that every rank zeroes before this step, of whatever kind: what ended left there what
 * nobody is to find (retention.wipe). */
void step_wipe(struct step *s, const int32_t *blocks, int32_t count);

/* Forgets the tokens of the last step. */
void step_forget(struct step *s);

/* From rank 0 to all ranks of `world`. Collective. */
enum status step_broadcast(struct step *s, struct comm *world, struct error *err);

/* Takes the new blocks into the tables and lays out the rows. `batch` points into the step. */
void step_batch(struct step *s, struct batch *batch);

#endif
