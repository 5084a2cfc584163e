/* The step description: see step.h. */
#include "worker/step.h"
#include "base/check.h"

#include <stdlib.h>
#include <string.h>

enum { STEP_MAGIC = 0x57535031, STEP_VERSION = 1, FIRST_MESSAGE = 1024 };

enum status step_init(struct step *s, const struct engine_limits *limits, struct error *err)
{
    memset(s, 0, sizeof *s);
    s->max_seqs = limits->max_seqs;
    s->max_rows = limits->max_rows;
    s->table = (limits->context + KV_BLOCK - 1) / KV_BLOCK;
    /* A sequence takes at most the blocks of its new rows and one that they begin in. */
    s->max_blocks = limits->max_rows / KV_BLOCK + 2 * limits->max_seqs;
    size_t seqs = (size_t)s->max_seqs, rows = (size_t)s->max_rows, blocks = (size_t)s->max_blocks;
    s->seqs = calloc(seqs, sizeof *s->seqs);
    s->tokens = calloc(rows, sizeof *s->tokens);
    s->blocks = calloc(blocks, sizeof *s->blocks);
    s->message = calloc(1, FIRST_MESSAGE + sizeof s->header + seqs * sizeof *s->seqs +
                               (rows + blocks) * sizeof(int32_t));
    s->tables = calloc(seqs * (size_t)s->table, sizeof *s->tables);
    s->pos = calloc(rows, sizeof *s->pos);
    s->row_table = calloc(rows, sizeof *s->row_table);
    s->logit_row = calloc(rows, sizeof *s->logit_row);
    s->draw = calloc(seqs, sizeof *s->draw);
    if (s->seqs && s->tokens && s->blocks && s->message && s->tables && s->pos && s->row_table &&
        s->logit_row && s->draw)
        return OK;
    step_fini(s);
    return error_set(err, ERR_NO_MEMORY, "no memory for the step description");
}

void step_fini(struct step *s)
{
    free(s->seqs);
    free(s->tokens);
    free(s->blocks);
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

/* The message's four parts, in order. */
struct part {
    void *data;
    size_t bytes;
};

static size_t parts_of(struct step *s, struct part parts[4])
{
    const struct step_header *h = &s->header;
    parts[0] = (struct part){&s->header, sizeof s->header};
    parts[1] = (struct part){s->seqs, (size_t)h->seqs * sizeof *s->seqs};
    parts[2] = (struct part){s->tokens, (size_t)h->rows * sizeof *s->tokens};
    parts[3] = (struct part){s->blocks, (size_t)h->blocks * sizeof *s->blocks};
    return parts[0].bytes + parts[1].bytes + parts[2].bytes + parts[3].bytes;
}

/* Most steps fit the first message; a longer one sends its rest in a second. */
enum status step_broadcast(struct step *s, struct comm *world, struct error *err)
{
    if (world->size == 1)
        return OK;
    struct part parts[4];
    char *at = s->message;
    if (world->rank == 0)
        parts_of(s, parts);
    for (int i = 0; world->rank == 0 && i < 4; at += parts[i++].bytes)
        memcpy(at, parts[i].data, parts[i].bytes);
    TRY(comm_broadcast(world, 0, s->message, FIRST_MESSAGE, err));
    memcpy(&s->header, s->message, sizeof s->header);
    const struct step_header *h = &s->header;
    CHECK(h->magic == STEP_MAGIC && h->version == STEP_VERSION && h->seqs >= 0 &&
              h->seqs <= s->max_seqs && h->rows >= 0 && h->rows <= s->max_rows && h->blocks >= 0 &&
              h->blocks <= s->max_blocks,
          "step description: magic %x version %u, %d sequences, %d rows, %d blocks", h->magic,
          h->version, h->seqs, h->rows, h->blocks);
    size_t bytes = parts_of(s, parts);
    if (bytes > FIRST_MESSAGE)
        TRY(comm_broadcast(world, 0, s->message + FIRST_MESSAGE, bytes - FIRST_MESSAGE, err));
    at = s->message;
    for (int i = 0; world->rank != 0 && i < 4; at += parts[i++].bytes)
        memcpy(parts[i].data, at, parts[i].bytes);
    return OK;
}

void step_batch(struct step *s, struct batch *batch)
{
    const int32_t *blocks = s->blocks;
    int32_t row = 0, logits = 0, draws = 0;
    for (int32_t i = 0; i < s->header.seqs; i++) {
        const struct step_seq *q = &s->seqs[i];
        CHECK(q->slot >= 0 && q->slot < s->max_seqs && q->first_block + q->blocks <= s->table,
              "slot %d, blocks %d + %d of %d", q->slot, q->first_block, q->blocks, s->table);
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
        if (q->draw)
            s->draw[draws++] = (struct draw){logits - 1, q->pos + q->count, q->sampling};
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
