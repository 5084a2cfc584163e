/* What came of a step, and what the scheduler says of itself: see scheduler.h. */
#include "base/check.h"
#include "worker/logprobs.h"
#include "worker/scheduler_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_one_of(const int32_t *ids, int32_t count, int32_t token)
{
    for (int32_t i = 0; i < count; i++)
        if (ids[i] == token)
            return true;
    return false;
}

/* `index` of the answer: below min_tokens an end may stand only where it was not drawn. */
static bool stops(const struct scheduler *s, const struct request *r, int32_t index, int32_t token)
{
    if (index < r->shaping.min_tokens)
        return false;
    return (!r->ignore_eos && is_one_of(s->eos, s->eos_count, token)) ||
           is_one_of(r->shaping.stop_ids, r->shaping.stop_id_count, token);
}

/* Takes in what stands at position `at`, where `drawn` was drawn (-1: none could be), and tells the
 * request. */
static enum finish take_token(struct scheduler *s, struct sequence *q, int32_t at, int32_t drawn)
{
    enum finish f = FINISH_NONE;
    int32_t token = sched_token(q, at, drawn);
    if (token < 0) {
        f = FINISH_ERROR;
    } else {
        q->tokens[at] = token;
        q->known = at + 1;
        s->stats.drawn++;
        if (q->edits)
            edits_drew(q->edits, token);
        CHECK(sched_take(s, q, at, token), "token %d was drawn, which its form does not have",
              token);
        if (stops(s, &q->request, at - q->request.prompt_len, token))
            f = FINISH_STOP;
        else if (q->known == q->request.prompt_len + q->request.max_tokens)
            f = FINISH_LENGTH;
    }
    q->request.on_token(q->request.user, token, f);
    return f;
}

/* Takes in what a part drew: after its last token, and after each guess as long as the guess is
 * what was drawn. */
static enum finish take_tokens(struct scheduler *s, const struct flight_part *part,
                               const int32_t *drawn)
{
    struct sequence *q = part->sequence;
    int32_t first = part->pos + part->count - part->draw + 1, guesses = part->draw - 1, right = 0;
    for (bool more = true; more; right += more) {
        int32_t guessed = q->tokens[first + right];
        enum finish f = take_token(s, q, first + right, drawn[right]);
        if (f != FINISH_NONE)
            return f;
        more = right < guesses && q->tokens[first + right] == guessed;
    }
    s->stats.guessed += (uint64_t)guesses;
    s->stats.guessed_right += (uint64_t)right;
    if (guesses > 0) {
        q->length = q->known;
        q->computed = q->known - 1; /* what follows was computed with other tokens */
        guess_note(&q->guess, guesses, right);
    } else {
        guess_rest(&q->guess);
    }
    return FINISH_NONE;
}

/* What one sequence got of a step. */
static enum finish land(struct scheduler *s, const struct flight_part *part, const int32_t *drawn)
{
    struct sequence *q = part->sequence;
    int32_t last = part->pos + part->count;
    if (part->logits == STEP_LOGITS_ALL && part->pos < q->request.prompt_len)
        q->told = last;
    if (part->draw)
        return take_tokens(s, part, drawn);
    if (last < q->request.prompt_len || q->request.max_tokens > 0)
        return FINISH_NONE;
    q->request.on_token(q->request.user, -1, FINISH_LENGTH);
    return FINISH_LENGTH;
}

/* Of the token behind a row: of the prompt, once, or the one that was drawn from it (where guesses
 * are drawn after, nobody wants to know). */
static void tell_logprobs(const struct flight *f, const struct flight_part *part, int32_t pos,
                          const float *logits, int32_t drawn)
{
    const struct sequence *q = part->sequence;
    const struct request *r = &q->request;
    struct logprobs l;
    bool prompt = pos < r->prompt_len;
    int32_t wanted = !prompt                           ? r->logprobs
                     : part->logits == STEP_LOGITS_ALL ? r->prompt_logprobs
                                                       : 0;
    int32_t token = prompt ? q->tokens[pos] : sched_token(q, pos, drawn);
    if (wanted == 0 || !r->on_logprobs || token < 0)
        return;
    if (token < f->vocab_limit)
        logprobs_of(logits, f->vocab_limit, token, wanted - 1, &l);
    else /* of a prompt, and never drawn */
        l = (struct logprobs){.logprob = -INFINITY, .rank = f->vocab_limit};
    r->on_logprobs(r->user, pos, &l);
}

/* Hands over the logits of a part and returns those of the next. */
static const float *hand_logits(const struct flight *f, const struct flight_part *part,
                                const float *logits, int64_t stride, int32_t vocab, int32_t drawn)
{
    const struct request *r = &part->sequence->request;
    int32_t rows = part->logits == STEP_LOGITS_ALL    ? part->count
                   : part->logits == STEP_LOGITS_LAST ? 1
                                                      : 0;
    for (int32_t j = 0; j < rows && logits; j++, logits += stride) {
        int32_t pos = part->pos + part->count - rows + j;
        if (part->sequence->ended)
            continue;
        if (r->on_logits && (r->all_logits || pos >= r->prompt_len - 1))
            r->on_logits(r->user, pos, logits, vocab);
        tell_logprobs(f, part, pos + 1, logits, drawn);
    }
    return logits;
}

/* What a row of a part weighs when a step's time is shared: a step is reckoned as in worker/pace.h,
 * what one without prompts takes for those that decode, and so much for each row of a prompt. All
 * alike where nothing is known, and in steps of one kind. */
static double row_weight(const struct scheduler *s, int32_t decode_rows, bool decodes)
{
    const struct pace *p = &s->pace;
    if (p->decode_ns <= 0.0 || p->rows_ns <= 0.0 || decode_rows == 0)
        return 1.0;
    return decodes ? p->decode_ns / decode_rows : p->rows_ns / p->rows;
}

/* Seconds of a step for each unit of weight: those that have ended have no share. */
static double share_of(const struct scheduler *s, const struct flight *f, int32_t decode_rows,
                       int64_t step_ns)
{
    double all = 0;
    for (int32_t i = 0; i < f->count; i++)
        if (!f->parts[i].sequence->ended)
            all += f->parts[i].count * row_weight(s, decode_rows, f->parts[i].decodes);
    return all > 0 ? (double)step_ns * 1e-9 / all : 0;
}

static int32_t decode_rows_of(const struct flight *f)
{
    int32_t rows = 0;
    for (int32_t i = 0; i < f->count; i++)
        rows += f->parts[i].decodes ? f->parts[i].count : 0;
    return rows;
}

static void tell_share(const struct scheduler *s, const struct flight_part *part,
                       int32_t decode_rows, double each)
{
    const struct request *r = &part->sequence->request;
    if (r->on_share && !part->sequence->ended)
        r->on_share(r->user, each * part->count * row_weight(s, decode_rows, part->decodes));
}

void sched_done(struct scheduler *s, const int32_t *drawn, const float *logits, int64_t stride,
                int32_t vocab, int64_t step_ns)
{
    CHECK(s->flight_count > 0, "no step is in flight");
    struct flight f = s->flights[0];
    pace_note(&s->pace, f.prompt_rows, step_ns);
    int32_t decode_rows = decode_rows_of(&f);
    double each = share_of(s, &f, decode_rows, step_ns);
    for (int32_t i = 0; i < f.count; i++) {
        const struct flight_part *part = &f.parts[i];
        struct sequence *q = part->sequence;
        const int32_t *its = drawn;
        logits = hand_logits(&f, part, logits, stride, vocab, part->draw > 0 ? *its : -1);
        drawn += part->draw;
        tell_share(s, part, decode_rows, each);
        q->flights--;
        if (q->ended || land(s, part, its) != FINISH_NONE) {
            sched_end(s, q);
            continue;
        }
        sched_keep_blocks(s, q);
        if (q->preempted && q->flights == 0)
            sched_wait_again(s, q);
    }
    memmove(s->flights, s->flights + 1, (SCHED_MAX_FLIGHTS - 1) * sizeof *s->flights);
    s->flights[SCHED_MAX_FLIGHTS - 1] = f; /* its memory serves again */
    s->flight_count--;
}

/* --- what it says of itself --- */

int32_t sched_running(const struct scheduler *s)
{
    return s->running_count;
}

int32_t sched_waiting(const struct scheduler *s)
{
    return queue_count(s->queue);
}

int32_t sched_free_blocks(const struct scheduler *s)
{
    return blocks_free(s->blocks);
}

int32_t sched_cached_blocks(const struct scheduler *s)
{
    return blocks_cached(s->blocks);
}

struct sched_stats sched_stats(const struct scheduler *s)
{
    struct sched_stats stats = s->stats;
    stats.evicted = blocks_evicted(s->blocks);
    return stats;
}

/* What a running sequence says of itself; counts its blocks, and notes where each one stands. */
static void check_sequence(const struct scheduler *s, int32_t i, int32_t *holds, int32_t *at)
{
    const struct sequence *q = s->running[i];
    CHECK(s->by_slot[q->slot] == q, "slot %d is another's", q->slot);
    CHECK(i == 0 || sequence_goes_before(s->running[i - 1], q), "sequence %d is out of order", i);
    CHECK(q->computed <= q->block_count * KV_BLOCK && q->computed <= q->length &&
              q->known <= q->length && q->sent_blocks <= q->block_count &&
              q->kept_blocks <= q->computed / KV_BLOCK,
          "%d of %d tokens computed in %d blocks, %d sent, %d kept", q->computed, q->length,
          q->block_count, q->sent_blocks, q->kept_blocks);
    for (int32_t j = 0; j < q->block_count; j++) {
        int32_t block = q->blocks[j];
        CHECK(holds[block]++ == 0 || at[block] == j, "block %d stands at %d and at %d", block,
              at[block], j);
        at[block] = j;
    }
}

void sched_check(const struct scheduler *s)
{
    size_t blocks = (size_t)s->limits.kv_blocks;
    int32_t *holds = check_calloc(2 * blocks + 1, sizeof *holds), waiting = 0;
    for (int32_t i = 0; i < s->running_count; i++)
        check_sequence(s, i, holds, holds + blocks);
    for (int32_t i = 0; i < s->running_count; i++)
        for (int32_t k = 0; k < i; k++)
            sequence_check_shared(s->running[i], s->running[k]);
    for (const struct sequence *q = queue_oldest(s->queue); q; q = q->newer, waiting++)
        CHECK(q->block_count == 0 && q->computed == 0 && q->flights == 0 && !sched_leaves(q),
              "waiting with %d blocks, %d flights", q->block_count, q->flights);
    CHECK(waiting == queue_count(s->queue), "%d wait of %d", waiting, queue_count(s->queue));
    CHECK(s->free_slot_count + s->running_count == s->limits.max_seqs, "%d slots free, %d taken",
          s->free_slot_count, s->running_count);
    blocks_check(s->blocks, holds);
    free(holds);
}
