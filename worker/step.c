/* The step description: see step.h. */
#include "worker/step.h"
#include "base/check.h"

#include <stdlib.h>
#include <string.h>

enum { STEP_MAGIC = 0x57535031, STEP_VERSION = 4, FIRST_MESSAGE = 1024 };

enum status step_init(struct step *s, const struct engine_limits *limits, int32_t vocab,
                      struct error *err)
{
    memset(s, 0, sizeof *s);
    s->max_seqs = limits->max_seqs;
    s->max_rows = limits->max_rows;
    s->table = (limits->context + KV_BLOCK - 1) / KV_BLOCK;
    /* A sequence may bring all its blocks at once, found in the prefix cache. */
    s->max_blocks = limits->max_seqs * s->table;
    s->max_edits = batch_max_edits(limits);
    s->max_draws = batch_max_draws(limits);
    s->max_masks = s->max_seqs < STEP_MAX_MASKS ? s->max_seqs : STEP_MAX_MASKS;
    s->mask_row = masks_row(vocab);
    s->max_wipes = limits->kv_blocks;
    size_t seqs = (size_t)s->max_seqs, rows = (size_t)s->max_rows, blocks = (size_t)s->max_blocks;
    size_t masks = (size_t)s->max_masks * (size_t)s->mask_row;
    s->seqs = calloc(seqs, sizeof *s->seqs);
    s->tokens = calloc(rows, sizeof *s->tokens);
    s->blocks = calloc(blocks, sizeof *s->blocks);
    s->edits = calloc((size_t)s->max_edits, sizeof *s->edits);
    s->masks = calloc(masks, sizeof *s->masks);
    s->wipes = calloc((size_t)s->max_wipes + 1, sizeof *s->wipes);
    s->mask_names = calloc((size_t)s->max_masks, sizeof *s->mask_names);
    s->message_bytes = FIRST_MESSAGE + sizeof s->header + seqs * sizeof *s->seqs +
                       (rows + blocks + (size_t)s->max_wipes) * sizeof(int32_t) +
                       (size_t)s->max_edits * sizeof *s->edits + masks * sizeof *s->masks;
    s->message = calloc(1, s->message_bytes);
    s->tables = calloc(seqs * (size_t)s->table, sizeof *s->tables);
    s->pos = calloc(rows, sizeof *s->pos);
    s->row_table = calloc(rows, sizeof *s->row_table);
    s->logit_row = calloc(rows, sizeof *s->logit_row);
    s->draw = calloc((size_t)s->max_draws, sizeof *s->draw);
    if (s->seqs && s->tokens && s->blocks && s->edits && s->masks && s->wipes && s->mask_names &&
        s->message && s->tables && s->pos && s->row_table && s->logit_row && s->draw)
        return OK;
    step_fini(s);
    return error_set(err, ERR_NO_MEMORY, "no memory for the step description");
}

void step_fini(struct step *s)
{
    free(s->seqs);
    free(s->tokens);
    free(s->blocks);
    free(s->edits);
    free(s->masks);
    free(s->wipes);
    free(s->mask_names);
    free(s->message);
    free(s->tables);
    free(s->pos);
    free((void *)s->row_table);
    free(s->logit_row);
    free(s->draw);
    memset(s, 0, sizeof *s);
}

void step_begin(struct step *s, enum step_kind kind, int32_t vocab_limit, bool keep_logits)
{
    s->header = (struct step_header){.magic = STEP_MAGIC,
                                     .version = STEP_VERSION,
                                     .kind = (int32_t)kind,
                                     .vocab_limit = vocab_limit,
                                     .keep_logits = keep_logits};
}

void step_add(struct step *s, const struct step_seq *seq, const int32_t *tokens,
              const int32_t *blocks)
{
    struct step_header *h = &s->header;
    CHECK(h->seqs < s->max_seqs && h->rows + seq->count <= s->max_rows &&
              h->blocks + seq->blocks <= s->max_blocks,
          "step of %d sequences, %d rows, %d blocks cannot take %d rows, %d blocks more", h->seqs,
          h->rows, h->blocks, seq->count, seq->blocks);
    s->seqs[h->seqs++] = *seq;
    memcpy(s->tokens + h->rows, tokens, (size_t)seq->count * sizeof *tokens);
    h->rows += seq->count;
    if (seq->blocks > 0)
        memcpy(s->blocks + h->blocks, blocks, (size_t)seq->blocks * sizeof *blocks);
    h->blocks += seq->blocks;
}

struct logit_edit *step_edits(struct step *s, int32_t *room)
{
    *room = s->max_edits - s->header.edits;
    return s->edits + s->header.edits;
}

void step_edited(struct step *s, int32_t edits, float repetition_penalty)
{
    struct step_header *h = &s->header;
    CHECK(h->seqs > 0 && s->seqs[h->seqs - 1].edits == 0 && edits <= s->max_edits - h->edits,
          "step of %d sequences, %d edits cannot take %d more", h->seqs, h->edits, edits);
    s->seqs[h->seqs - 1].edits = edits;
    s->seqs[h->seqs - 1].repetition_penalty = repetition_penalty;
    h->edits += edits;
}

void step_masked(struct step *s, const struct mask *mask)
{
    struct step_header *h = &s->header;
    size_t row = (size_t)s->mask_row;
    int32_t at = 0;
    while (at < h->masks && s->mask_names[at] != mask->name)
        at++;
    CHECK(h->seqs > 0 && at < s->max_masks, "step of %d sequences, %d masks cannot take one more",
          h->seqs, h->masks);
    if (at == h->masks) {
        memcpy(s->masks + (size_t)at * row, mask->allowed, row * sizeof *s->masks);
        s->mask_names[h->masks++] = mask->name;
    }
    s->seqs[h->seqs - 1].mask = 1 + at;
}

void step_wipe(struct step *s, const int32_t *blocks, int32_t count)
{
    CHECK(s->header.wipes + count <= s->max_wipes, "%d and %d of %d blocks to wipe",
          s->header.wipes, count, s->max_wipes);
    if (count > 0)
        memcpy(s->wipes + s->header.wipes, blocks, (size_t)count * sizeof *blocks);
    s->header.wipes += count;
}

void step_forget(struct step *s)
{
    memset(s->tokens, 0, (size_t)s->max_rows * sizeof *s->tokens);
    memset(s->message, 0, s->message_bytes);
}

/* The message's parts, in order. */
struct part {
    void *data;
    size_t bytes;
};

enum { PARTS = 7 };

static size_t parts_of(struct step *s, struct part parts[PARTS])
{
    const struct step_header *h = &s->header;
    parts[0] = (struct part){&s->header, sizeof s->header};
    parts[1] = (struct part){s->seqs, (size_t)h->seqs * sizeof *s->seqs};
    parts[2] = (struct part){s->tokens, (size_t)h->rows * sizeof *s->tokens};
    parts[3] = (struct part){s->blocks, (size_t)h->blocks * sizeof *s->blocks};
    parts[4] = (struct part){s->edits, (size_t)h->edits * sizeof *s->edits};
    parts[5] = (struct part){s->masks, (size_t)h->masks * (size_t)s->mask_row * sizeof *s->masks};
    parts[6] = (struct part){s->wipes, (size_t)h->wipes * sizeof *s->wipes};
    size_t bytes = 0;
    for (int i = 0; i < PARTS; i++)
        bytes += parts[i].bytes;
    return bytes;
}

/* Most steps fit the first message; a longer one sends its rest in a second. */
enum status step_broadcast(struct step *s, struct comm *world, struct error *err)
{
    if (world->size == 1)
        return OK;
    struct part parts[PARTS];
    char *at = s->message;
    if (world->rank == 0)
        parts_of(s, parts);
    for (int i = 0; world->rank == 0 && i < PARTS; at += parts[i++].bytes)
        memcpy(at, parts[i].data, parts[i].bytes);
    TRY(comm_broadcast(world, 0, s->message, FIRST_MESSAGE, err));
    memcpy(&s->header, s->message, sizeof s->header);
    const struct step_header *h = &s->header;
    CHECK(h->magic == STEP_MAGIC && h->version == STEP_VERSION && h->seqs >= 0 &&
              h->seqs <= s->max_seqs && h->rows >= 0 && h->rows <= s->max_rows && h->blocks >= 0 &&
              h->blocks <= s->max_blocks && h->edits >= 0 && h->edits <= s->max_edits &&
              h->masks >= 0 && h->masks <= s->max_masks && h->wipes >= 0 &&
              h->wipes <= s->max_wipes,
          "step description: magic %x version %u, %d sequences, %d rows, %d blocks, %d edits, %d "
          "masks, %d wipes",
          h->magic, h->version, h->seqs, h->rows, h->blocks, h->edits, h->masks, h->wipes);
    size_t bytes = parts_of(s, parts);
    if (bytes > FIRST_MESSAGE)
        TRY(comm_broadcast(world, 0, s->message + FIRST_MESSAGE, bytes - FIRST_MESSAGE, err));
    at = s->message;
    for (int i = 0; world->rank != 0 && i < PARTS; at += parts[i++].bytes)
        memcpy(parts[i].data, at, parts[i].bytes);
    return OK;
}

/* What would write beside a row ends the rank with a word. */
static void check_edits(const struct logit_edit *edit, int32_t edits, int32_t vocab_limit)
{
    for (int32_t i = 0; i < edits; i++)
        CHECK(edit[i].id > (i > 0 ? edit[i - 1].id : -1) && edit[i].id < vocab_limit,
              "edit of token %d, below %d", edit[i].id, vocab_limit);
}

void step_batch(struct step *s, struct batch *batch)
{
    const struct logit_edit *edit = s->edits;
    const int32_t *blocks = s->blocks;
    int32_t row = 0, logits = 0, draws = 0;
    for (int32_t i = 0; i < s->header.seqs; i++) {
        const struct step_seq *q = &s->seqs[i];
        CHECK(q->slot >= 0 && q->slot < s->max_seqs && q->first_block + q->blocks <= s->table,
              "slot %d, blocks %d + %d of %d", q->slot, q->first_block, q->blocks, s->table);
        CHECK(q->draw >= 0 && q->draw <= q->count && draws + q->draw <= s->max_draws,
              "%d draws of %d tokens after %d of %d", q->draw, q->count, draws, s->max_draws);
        int32_t *table = s->tables + (size_t)q->slot * (size_t)s->table;
        memcpy(table + q->first_block, blocks, (size_t)q->blocks * sizeof *table);
        blocks += q->blocks;
        for (int32_t j = 0; j < q->count; j++, row++) {
            s->pos[row] = q->pos + j;
            s->row_table[row] = table;
            bool last = j == q->count - 1;
            if (q->logits == STEP_LOGITS_ALL || (q->logits == STEP_LOGITS_LAST && last))
                s->logit_row[logits++] = row;
        }
        CHECK(q->edits == 0 || q->draw <= 1, "%d edits for %d draws", q->edits, q->draw);
        CHECK(q->mask >= 0 && q->mask <= s->header.masks && (q->mask == 0 || q->draw <= 1),
              "mask %d of %d for %d draws", q->mask, s->header.masks, q->draw);
        const uint64_t *mask = q->mask > 0 ? s->masks + (size_t)(q->mask - 1) * (size_t)s->mask_row
                                           : NULL;
        for (int32_t j = q->count - q->draw; j < q->count; j++)
            s->draw[draws++] = (struct draw){.row = logits - q->count + j,
                                             .position = q->pos + j + 1,
                                             .sampling = q->sampling,
                                             .edit = edit,
                                             .edits = q->edits,
                                             .mask = mask,
                                             .repetition_penalty = q->repetition_penalty};
        check_edits(edit, q->edits, s->header.vocab_limit);
        edit += q->edits;
    }
    *batch = (struct batch){.rows = row,
                            .token = s->tokens,
                            .pos = s->pos,
                            .block_table = s->row_table,
                            .logits = logits,
                            .logit_row = s->logit_row,
                            .draws = draws,
                            .draw = s->draw,
                            .vocab_limit = s->header.vocab_limit};
}
