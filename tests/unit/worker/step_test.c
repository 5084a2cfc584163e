/*
 * The step description over three ranks: what rank 0 writes is what each follower reads, whether it
 * fits the first message or not, and the block tables stay equal.
 */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "tests/unit/random.h"
#include "worker/step.h"

enum { RANKS = 3, SLOTS = 20, TABLE = 64, ROUNDS = 200 };

static const struct engine_limits limits = {
    .max_rows = 1500, .max_seqs = SLOTS, .max_logits = 1500, .context = TABLE * KV_BLOCK};

/* What every rank makes for itself from the same seed: rank 0 sends it, the others compare. */
struct script {
    struct step_seq seqs[SLOTS];
    int32_t tokens[1500];
    int32_t blocks[1500];
    struct logit_edit edits[SLOTS * 40];
    int32_t count, rows, block_count, edit_count;
    int32_t tables[SLOTS][TABLE];
};

/* `seqs` sequences of up to `most` tokens each, with new blocks anywhere in their tables. */
static void script_next(struct script *s, uint64_t *rng, int32_t seqs, int32_t most)
{
    s->count = seqs;
    s->rows = s->block_count = s->edit_count = 0;
    for (int32_t i = 0; i < seqs; i++) {
        struct step_seq *q = &s->seqs[i];
        *q = (struct step_seq){.slot = i,
                               .pos = random_int(rng, 0, 100),
                               .count = random_int(rng, 1, most),
                               .first_block = random_int(rng, 0, TABLE - 2),
                               .blocks = random_int(rng, 0, 2),
                               .logits = random_int(rng, STEP_LOGITS_NONE, STEP_LOGITS_ALL),
                               .draw = random_int(rng, 0, 1),
                               .edits = random_int(rng, 0, 2) ? 0 : random_int(rng, 1, 40),
                               .repetition_penalty = 0.0f,
                               .sampling = {.temperature = 0.5f, .seed = random_u64(rng)}};
        if (q->logits == STEP_LOGITS_ALL && q->edits == 0)
            q->draw = random_int(rng, 0, q->count); /* some are guesses */
        q->repetition_penalty = q->edits > 0 ? 1.0f + (float)i : 0.0f;
        for (int32_t j = 0; j < q->edits; j++)
            s->edits[s->edit_count++] = (struct logit_edit){j * 30 + random_int(rng, 0, 29),
                                                            (float)j, j % 2};
        for (int32_t j = 0; j < q->count; j++)
            s->tokens[s->rows++] = random_int(rng, 0, 151935);
        for (int32_t j = 0; j < q->blocks; j++) {
            s->blocks[s->block_count] = random_int(rng, 0, 9999);
            s->tables[i][q->first_block + j] = s->blocks[s->block_count++];
        }
    }
}

static void script_write(const struct script *s, struct step *step)
{
    const int32_t *tokens = s->tokens, *blocks = s->blocks;
    const struct logit_edit *edits = s->edits;
    step_begin(step, STEP_RUN, 1234, true);
    for (int32_t i = 0; i < s->count; i++) {
        struct step_seq q = s->seqs[i];
        int32_t room, n = q.edits;
        q.edits = 0;
        q.repetition_penalty = 0.0f;
        step_add(step, &q, tokens, blocks);
        struct logit_edit *to = step_edits(step, &room);
        assert_true(room >= n);
        memcpy(to, edits, (size_t)n * sizeof *to);
        if (n > 0)
            step_edited(step, n, s->seqs[i].repetition_penalty);
        edits += n;
        tokens += s->seqs[i].count;
        blocks += s->seqs[i].blocks;
    }
}

#define EXPECT(cond)                                                                               \
    do {                                                                                           \
        if (!(cond))                                                                               \
            return error_set(err, ERR_INVALID, "line %d: %s", __LINE__, #cond);                    \
    } while (0)

static enum status check_rows(const struct script *s, const struct step *step,
                              const struct batch *b, struct error *err)
{
    int32_t row = 0, logits = 0;
    EXPECT(b->rows == s->rows && b->token == step->tokens);
    for (int32_t i = 0; i < s->count; i++) {
        const struct step_seq *q = &s->seqs[i];
        for (int32_t j = 0; j < q->count; j++, row++) {
            EXPECT(b->pos[row] == q->pos + j);
            EXPECT(b->block_table[row] == step->tables + q->slot * step->table);
            if (q->logits == STEP_LOGITS_ALL ||
                (q->logits == STEP_LOGITS_LAST && j == q->count - 1))
                EXPECT(logits < b->logits && b->logit_row[logits++] == row);
        }
    }
    EXPECT(logits == b->logits);
    const struct logit_edit *edit = step->edits;
    for (int32_t i = 0, draw = 0, out = 0; i < s->count; edit += s->seqs[i++].edits) {
        const struct step_seq *q = &s->seqs[i];
        out += q->logits == STEP_LOGITS_ALL ? q->count : q->logits == STEP_LOGITS_LAST;
        for (int32_t j = q->draw; j > 0; j--) { /* of its last rows */
            const struct draw *d = &b->draw[draw++];
            EXPECT(d->row == out - j && d->position == q->pos + q->count - j + 1);
            EXPECT(d->edit == edit && d->edits == q->edits);
            EXPECT(d->sampling.seed == q->sampling.seed && draw <= b->draws);
            EXPECT(d->repetition_penalty == q->repetition_penalty);
        }
    }
    return OK;
}

static enum status check_step(const struct script *s, struct step *step, struct error *err)
{
    struct batch b;
    const struct step_header *h = &step->header;
    EXPECT(h->kind == STEP_RUN && h->seqs == s->count && h->rows == s->rows);
    EXPECT(h->blocks == s->block_count && h->vocab_limit == 1234 && h->keep_logits == 1);
    EXPECT(memcmp(step->seqs, s->seqs, (size_t)s->count * sizeof s->seqs[0]) == 0);
    EXPECT(memcmp(step->tokens, s->tokens, (size_t)s->rows * sizeof(int32_t)) == 0);
    EXPECT(memcmp(step->blocks, s->blocks, (size_t)s->block_count * sizeof(int32_t)) == 0);
    EXPECT(h->edits == s->edit_count);
    EXPECT(memcmp(step->edits, s->edits, (size_t)s->edit_count * sizeof s->edits[0]) == 0);
    step_batch(step, &b);
    TRY(check_rows(s, step, &b, err));
    EXPECT(step->table == TABLE && memcmp(step->tables, s->tables, sizeof s->tables) == 0);
    return OK;
}

static size_t message_bytes(const struct script *s)
{
    return sizeof(struct step_header) + (size_t)s->count * sizeof(struct step_seq) +
           (size_t)(s->rows + s->block_count) * sizeof(int32_t) +
           (size_t)s->edit_count * sizeof(struct logit_edit);
}

/* One round with the given sizes, on one rank. */
static enum status round_trip(struct comm *world, struct script *s, struct step *step,
                              struct error *err)
{
    if (world->rank == 0)
        script_write(s, step);
    TRY(step_broadcast(step, world, err));
    return check_step(s, step, err);
}

static enum status random_rounds(struct comm *world, void *arg, struct error *err)
{
    (void)arg;
    struct step step;
    struct script *s = check_calloc(1, sizeof *s);
    uint64_t rng = 1;
    int below = 0, above = 0;
    enum status st = step_init(&step, &limits, 64, err);
    for (int i = 0; st == OK && i < ROUNDS; i++) {
        bool small = random_int(&rng, 0, 1);
        script_next(s, &rng, random_int(&rng, 1, small ? 8 : SLOTS), small ? 3 : 70);
        *(message_bytes(s) <= 1024 ? &below : &above) += 1;
        st = round_trip(world, s, &step, err);
    }
    if (st == OK && (below < 50 || above < 50))
        st = error_set(err, ERR_INVALID, "%d short and %d long messages", below, above);
    step_fini(&step);
    free(s);
    return st;
}

static void run(comm_rank_fn fn)
{
    struct error err;
    if (comm_local_run(RANKS, fn, NULL, &err) != OK)
        fail_msg("%s", err.msg);
}

static void followers_read_what_rank_0_wrote(void **state)
{
    (void)state;
    run(random_rounds);
}

/* Messages of 1000 to 1048 bytes: around the first message's 1024, and exactly it. */
static enum status border_rounds(struct comm *world, void *arg, struct error *err)
{
    (void)arg;
    struct step step;
    struct script *s = check_calloc(1, sizeof *s);
    bool exact = false;
    enum status st = step_init(&step, &limits, 64, err);
    int32_t fixed = (int32_t)(sizeof(struct step_header) + sizeof(struct step_seq));
    for (int32_t bytes = 1000; st == OK && bytes <= 1048; bytes += 4) {
        s->count = 1;
        s->rows = (bytes - fixed) / (int32_t)sizeof(int32_t);
        s->block_count = 0;
        s->seqs[0] = (struct step_seq){.slot = 3, .count = s->rows, .logits = STEP_LOGITS_LAST};
        for (int32_t i = 0; i < s->rows; i++)
            s->tokens[i] = bytes + i;
        exact = exact || message_bytes(s) == 1024;
        st = round_trip(world, s, &step, err);
    }
    if (st == OK && !exact)
        st = error_set(err, ERR_INVALID, "no message of 1024 bytes");
    step_fini(&step);
    free(s);
    return st;
}

static void messages_around_the_first_ones_size(void **state)
{
    (void)state;
    run(border_rounds);
}

static enum status stop_round(struct comm *world, void *arg, struct error *err)
{
    (void)arg;
    struct step step;
    TRY(step_init(&step, &limits, 64, err));
    if (world->rank == 0)
        step_begin(&step, STEP_STOP, 0, false);
    enum status st = step_broadcast(&step, world, err);
    if (st == OK && (step.header.kind != STEP_STOP || step.header.rows != 0))
        st = error_set(err, ERR_INVALID, "kind %d", step.header.kind);
    step_fini(&step);
    return st;
}

static void a_stop_reaches_every_rank(void **state)
{
    (void)state;
    run(stop_round);
}

static enum status full_round(struct comm *world, void *arg, struct error *err)
{
    (void)arg;
    struct step step;
    struct script *s = check_calloc(1, sizeof *s);
    enum status st = step_init(&step, &limits, 64, err);
    if (st == OK) {
        /* As many rows, sequences and blocks as the limits allow. */
        uint64_t rng = 9;
        script_next(s, &rng, SLOTS, limits.max_rows / SLOTS);
        s->rows = 0;
        for (int32_t i = 0; i < SLOTS; i++)
            s->rows += s->seqs[i].count = limits.max_rows / SLOTS;
        st = round_trip(world, s, &step, err);
        if (st == OK && step.header.rows != limits.max_rows)
            st = error_set(err, ERR_INVALID, "%d rows", step.header.rows);
    }
    step_fini(&step);
    free(s);
    return st;
}

static void a_full_step_fits(void **state)
{
    (void)state;
    run(full_round);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(followers_read_what_rank_0_wrote),
    cmocka_unit_test(messages_around_the_first_ones_size),
    cmocka_unit_test(a_stop_reaches_every_rank),
    cmocka_unit_test(a_full_step_fits),
};

UNIT_MAIN(tests)
