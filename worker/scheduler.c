/* Continuous batching on rank 0: see scheduler.h. */
#include "worker/scheduler.h"
#include "base/check.h"
#include "worker/scheduler_private.h"

#include <stdlib.h>
#include <string.h>

enum { PROMPT_SHARE = 4, PROMPT_SHARE_ROWS = 64 }; /* of a step's rows: a fourth, but not more */

/* A step while it is made: what is left of its rows. */
struct making {
    struct step *step;
    struct flight *flight;
    int32_t rows, logits;
    int32_t masks;       /* that the step may have, those it has counted */
    int32_t prompt_rows; /* of rows, those that prompts may have */
    int32_t guesses;     /* rows with logits that nobody else decodes in */
};

static int32_t min_of(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static bool allocate(struct scheduler *s)
{
    size_t seqs = (size_t)s->limits.max_seqs;
    s->running = calloc(seqs, sizeof *s->running);
    s->by_slot = calloc(seqs, sizeof *s->by_slot);
    s->free_slots = calloc(seqs, sizeof *s->free_slots);
    bool flights = true;
    for (int i = 0; i < SCHED_MAX_FLIGHTS; i++) {
        s->flights[i].parts = calloc(seqs, sizeof *s->flights[i].parts);
        flights = flights && s->flights[i].parts;
    }
    return s->running && s->by_slot && s->free_slots && flights;
}

enum status sched_create(const struct engine_limits *limits, const struct sched_options *options,
                         struct scheduler **out, struct error *err)
{
    struct scheduler *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, ERR_NO_MEMORY, "no memory for the scheduler");
    s->limits = *limits;
    s->chunk = options->chunk > 0 ? options->chunk : limits->max_rows;
    s->speculate = min_of(options->speculate, MAX_GUESSES);
    CHECK(options->eos_count <= MAX_EOS, "%d end-of-sequence tokens", options->eos_count);
    s->eos_count = options->eos_count;
    if (options->eos_count > 0)
        memcpy(s->eos, options->eos, (size_t)options->eos_count * sizeof *options->eos);
    s->pace.stall_ns = (int64_t)options->stall_ms * 1000000;
    s->deadline_ns = INT64_MAX;
    s->next_id = 1;
    enum status st = allocate(s) ? OK
                                 : error_set(err, ERR_NO_MEMORY, "no memory for the scheduler");
    if (st == OK)
        st = blocks_create(limits->kv_blocks, !options->no_prefix_cache, &s->blocks, err);
    if (st == OK && options->wipe)
        st = blocks_note_dirty(s->blocks, err);
    if (st == OK)
        st = queue_create(&s->queue, err);
    if (st != OK) {
        sched_destroy(s);
        return st;
    }
    for (int32_t i = limits->max_seqs - 1; i >= 0; i--)
        s->free_slots[s->free_slot_count++] = i;
    *out = s;
    return OK;
}

void sched_destroy(struct scheduler *s)
{
    if (!s)
        return;
    for (struct sequence *q = s->queue ? queue_oldest(s->queue) : NULL, *newer; q; q = newer) {
        newer = q->newer;
        sequence_destroy(q);
    }
    for (int32_t i = 0; i < s->running_count; i++)
        sequence_destroy(s->running[i]);
    queue_destroy(s->queue);
    blocks_destroy(s->blocks);
    free(s->running);
    free(s->by_slot);
    free(s->free_slots);
    for (int i = 0; i < SCHED_MAX_FLIGHTS; i++)
        free(s->flights[i].parts);
    free(s);
}

void sched_masks(struct scheduler *s, struct masks *masks)
{
    s->masks = masks;
}

/* --- submission --- */

static enum status admissible(const struct scheduler *s, const struct request *r, struct error *err)
{
    int64_t total = (int64_t)r->prompt_len + r->max_tokens;
    if (r->prompt_len < 1)
        return error_set(err, ERR_INVALID, "the prompt is empty");
    if (r->max_tokens < 0)
        return error_set(err, ERR_INVALID, "max_tokens %d: expected 0 or more", r->max_tokens);
    if (r->answer_len < 0 || (r->answer_len > 0 && r->answer_len >= r->max_tokens))
        return error_set(err, ERR_INVALID,
                         "answer of %d tokens: expected fewer than max_tokens, %d", r->answer_len,
                         r->max_tokens);
    if (r->priority < -1 || r->priority > 1)
        return error_set(err, ERR_INVALID, "priority %d: expected -1, 0 or 1", r->priority);
    if (total > s->limits.context)
        return error_set(err, ERR_LIMIT,
                         "prompt of %d tokens and max_tokens %d exceed the context of %d",
                         r->prompt_len, r->max_tokens, s->limits.context);
    if (sequence_blocks(total) > s->limits.kv_blocks)
        return error_set(err, ERR_LIMIT, "%lld tokens need %d KV blocks, the cache has %d",
                         (long long)total, sequence_blocks(total), s->limits.kv_blocks);
    if (queue_count(s->queue) >= SCHED_MAX_WAITING)
        return error_set(err, ERR_LIMIT, "%d requests are waiting already", queue_count(s->queue));
    if (r->constraint.kind != CONSTRAINT_NONE && !s->masks)
        return error_set(
            err, ERR_UNSUPPORTED,
            "response_format: this rank does not know the tokens' bytes, and its log says "
            "why");
    return sampling_check(&r->sampling, err);
}

/* What wants its rows one by one, or edits them, is not guessed ahead of. */
static bool may_guess(const struct request *r)
{
    return !r->on_logits && r->logprobs == 0 && r->shaping.bias_count == 0 &&
           r->constraint.kind == CONSTRAINT_NONE && r->shaping.min_tokens == 0 &&
           !shaping_needs_history(&r->shaping);
}

bool sched_take(const struct scheduler *s, struct sequence *q, int32_t at, int32_t token)
{
    const struct request *r = &q->request;
    int32_t index = at - r->prompt_len;
    if (r->constraint.kind != CONSTRAINT_NONE &&
        !masks_take(s->masks, &r->constraint, token, &q->form))
        return false;
    q->thinks = thinking_after(&r->thinking, q->thinks, index, token);
    /* A form knows bytes: there a thought may be over without its token. */
    if (r->constraint.kind != CONSTRAINT_NONE && index < thinking_end(&r->thinking))
        q->thinks = q->thinks && constraint_run(&q->form) == CONSTRAINT_THOUGHT;
    return true;
}

/* What its answer must be after the tokens that were drawn elsewhere. */
static enum status replay(const struct scheduler *s, struct sequence *q, struct error *err)
{
    const struct request *r = &q->request;
    for (int32_t i = 0, at = r->prompt_len; i < r->answer_len; i++, at++) {
        int32_t token = r->answer[i];
        if (sched_token(q, at, token) != token)
            return error_set(err, ERR_INVALID,
                             "answer: token %d, its %d., stands where its thought is ended", token,
                             i + 1);
        if (!sched_take(s, q, at, token))
            return error_set(err, ERR_INVALID,
                             "answer: token %d, its %d., is not one that its form has there", token,
                             i + 1);
    }
    /* What ends a thought, and what comes behind, thinking_check has found room for. */
    bool counts = r->constraint.kind != CONSTRAINT_NONE && !q->thinks;
    int32_t closing = counts ? constraint_closing(&r->constraint, &q->form) : 0;
    if (closing > 0 && r->max_tokens > 0 && closing > r->max_tokens - r->answer_len - 1)
        return error_set(err, ERR_INVALID,
                         "answer: %d bytes would end its form, and max_tokens leaves %d tokens for "
                         "them and the end",
                         closing, r->max_tokens - r->answer_len);
    return OK;
}

/* What ends a thought is not drawn, so no mask looks at it: the form must have it anyway. */
static enum status check_ending(const struct scheduler *s, const struct request *r,
                                struct error *err)
{
    const struct thinking *t = &r->thinking;
    struct constraint within = r->constraint;
    struct constraint_state form;
    if (t->count == 0 || r->constraint.kind == CONSTRAINT_NONE)
        return OK;
    if (t->inside ? within.thought != CONSTRAINT_IN_THOUGHT
                  : within.thought != CONSTRAINT_MAY_THINK)
        return error_set(err, ERR_INVALID,
                         "thinking: inside: expected as the form's thought, which is %d, found %s",
                         (int)within.thought, t->inside ? "true" : "false");
    within.thought = CONSTRAINT_IN_THOUGHT;
    constraint_start(&within, &form);
    for (int32_t i = 0; i < t->count; i++)
        if (!masks_take(s->masks, &within, t->ids[i], &form))
            return error_set(err, ERR_INVALID,
                             "thinking: ids[%d]: token %d is not one that the form has there", i,
                             t->ids[i]);
    return OK;
}

enum status sched_submit(struct scheduler *s, const struct request *request, uint64_t *id,
                         struct error *err)
{
    TRY(admissible(s, request, err));
    TRY(check_ending(s, request, err));
    struct sequence *q = NULL;
    struct request r = *request;
    r.constraint.name = r.constraint.text_len > 0 ? (uint32_t)s->next_id : 0;
    TRY(sequence_create(&r, s->eos, s->eos_count, &q, err));
    enum status st = replay(s, q, err);
    if (st != OK) {
        sequence_destroy(q);
        return st;
    }
    q->id = s->next_id++;
    guess_init(&q->guess, may_guess(request) ? s->speculate : 0);
    queue_enter(s->queue, q);
    queue_add(s->queue, q);
    if (request->deadline_ns > 0 && request->deadline_ns < s->deadline_ns)
        s->deadline_ns = request->deadline_ns;
    if (id)
        *id = q->id;
    return OK;
}

/* --- giving up slot and blocks, and the end --- */

static void drop_blocks(struct scheduler *s, struct sequence *q)
{
    for (int32_t i = q->block_count - 1; i >= 0; i--)
        blocks_release(s->blocks, q->blocks[i]);
    q->block_count = q->sent_blocks = q->kept_blocks = q->computed = 0;
}

/* No more running; no step in flight feeds it. */
static void vacate(struct scheduler *s, struct sequence *q)
{
    int32_t index = 0;
    while (s->running[index] != q)
        index++;
    drop_blocks(s, q);
    s->by_slot[q->slot] = NULL;
    s->free_slots[s->free_slot_count++] = q->slot;
    memmove(s->running + index, s->running + index + 1,
            (size_t)(s->running_count - index - 1) * sizeof *s->running);
    s->running_count--;
}

static void discard(struct scheduler *s, struct sequence *q)
{
    queue_leave(s->queue, q);
    sequence_destroy(q);
}

void sched_end(struct scheduler *s, struct sequence *q)
{
    q->ended = true;
    if (q->flights > 0)
        return;
    vacate(s, q);
    discard(s, q);
}

static void end_running(struct scheduler *s, struct sequence *q, enum finish finish)
{
    struct request r = q->request;
    sched_end(s, q);
    r.on_token(r.user, -1, finish);
}

static void end_waiting(struct scheduler *s, struct sequence *q, enum finish finish)
{
    struct request r = q->request;
    queue_remove(s->queue, q);
    discard(s, q);
    r.on_token(r.user, -1, finish);
}

bool sched_cancel(struct scheduler *s, uint64_t id)
{
    for (int32_t i = 0; i < s->running_count; i++) {
        if (s->running[i]->id != id || s->running[i]->ended)
            continue;
        end_running(s, s->running[i], FINISH_CANCELLED);
        return true;
    }
    for (struct sequence *q = queue_oldest(s->queue); q; q = q->newer) {
        if (q->id != id)
            continue;
        end_waiting(s, q, FINISH_CANCELLED);
        return true;
    }
    return false;
}

/* Is it to end now? Notes the deadlines of those that are not. */
static bool expired(struct scheduler *s, const struct sequence *q, int64_t now_ns, int32_t *most)
{
    int64_t deadline = q->request.deadline_ns;
    if (deadline <= 0 || q->ended)
        return false;
    if (deadline <= now_ns && *most > 0) {
        --*most;
        return true;
    }
    s->deadline_ns = deadline < s->deadline_ns ? deadline : s->deadline_ns;
    return false;
}

/* Looks at all sequences, but only when a deadline has passed. */
static void expire(struct scheduler *s, int64_t now_ns)
{
    int32_t most = s->limits.max_seqs; /* the caller's room for answers has a bound */
    if (now_ns < s->deadline_ns)
        return;
    s->deadline_ns = INT64_MAX;
    for (int32_t i = s->running_count - 1; i >= 0; i--)
        if (expired(s, s->running[i], now_ns, &most))
            end_running(s, s->running[i], FINISH_DEADLINE);
    for (struct sequence *q = queue_oldest(s->queue), *newer; q; q = newer) {
        newer = q->newer;
        if (expired(s, q, now_ns, &most))
            end_waiting(s, q, FINISH_DEADLINE);
    }
}

/* --- blocks, and who gives way for them --- */

void sched_wait_again(struct scheduler *s, struct sequence *q)
{
    q->preempted = false;
    vacate(s, q);
    queue_add(s->queue, q);
}

/* Makes the last of those that run give way to `q`: the last of a later class where
 * `later_class`. True: its slot and blocks are free. False: nobody has to, or one that gives up its
 * own when a flight has landed, which is then to be waited for. */
static bool preempt_for(struct scheduler *s, const struct sequence *q, bool later_class)
{
    for (int32_t i = 0; i < s->running_count; i++)
        if (sched_leaves(s->running[i]))
            return false;
    struct sequence *last = s->running_count > 0 ? s->running[s->running_count - 1] : NULL;
    if (!last || last == q || !sequence_goes_before(q, last) ||
        (later_class && q->request.priority == last->request.priority))
        return false;
    s->stats.preempted++;
    last->preempted = true;
    if (last->flights > 0)
        return false;
    sched_wait_again(s, last);
    return true;
}

/* Blocks for the sequence's next tokens, up to `count`: those that are free, and where it would get
 * on by no token those that another gives up. Returns how many tokens it has blocks for. */
static int32_t secure(struct scheduler *s, struct sequence *q, int32_t count)
{
    while (q->block_count < sequence_blocks((int64_t)q->computed + count)) {
        int32_t block = blocks_take(s->blocks);
        if (block >= 0)
            q->blocks[q->block_count++] = block;
        else if (q->block_count * KV_BLOCK > q->computed || !preempt_for(s, q, false))
            break;
    }
    return min_of(count, q->block_count * KV_BLOCK - q->computed);
}

void sched_keep_blocks(struct scheduler *s, struct sequence *q)
{
    int32_t full = min_of(q->computed, q->known) / KV_BLOCK;
    for (; q->kept_blocks < full; q->kept_blocks++)
        q->prefix = blocks_keep(s->blocks, q->prefix, q->tokens + q->kept_blocks * KV_BLOCK,
                                q->blocks[q->kept_blocks]);
}

/* Takes what the prefix cache has of a sequence's tokens, all before the first whose row must run:
 * the last, or where logits of every row are wanted, the first that has not had its own. */
static void find_prefix(struct scheduler *s, struct sequence *q)
{
    bool rows_left = q->all_rows && q->told < q->request.prompt_len;
    int32_t most = (rows_left ? q->told : q->length - 1) / KV_BLOCK;
    q->prefix = (struct prefix){.id = q->request.prefix_domain, .domain = true};
    while (q->block_count < most) {
        int32_t block = blocks_find(s->blocks, q->prefix, q->tokens + q->block_count * KV_BLOCK);
        if (block < 0)
            break;
        q->blocks[q->block_count++] = block;
        q->prefix = blocks_prefix(s->blocks, block);
    }
    q->kept_blocks = q->block_count;
    q->computed = q->block_count * KV_BLOCK;
}

/* --- making a step --- */

/* Is its last token perhaps one of those that end its thought? Then it may not be what is drawn. */
static bool may_end_thought(const struct sequence *q)
{
    return q->thinks && q->length - q->request.prompt_len > thinking_end(&q->request.thinking);
}

/* Tokens that the next step may feed; what is drawn last of all is fed no more. */
static int32_t unfed(const struct sequence *q)
{
    int32_t drawn = q->request.max_tokens > 0 ? q->request.max_tokens - 1 : 0;
    int32_t last = min_of(q->request.prompt_len + drawn, q->length);
    bool wait = (q->needs_history || q->guess.tries > 0 || may_end_thought(q)) &&
                q->known < q->length;
    return sched_leaves(q) || wait ? 0 : last - q->computed;
}

/* Is its next token the drawn one that stands last? */
static bool decodes(const struct sequence *q)
{
    return q->computed >= q->request.prompt_len && unfed(q) == 1;
}

static bool fills_up(const struct scheduler *s, const struct sequence *q)
{
    return q->fed_in != s->steps && !decodes(q) && unfed(q) > 0;
}

static bool wants_every_row(const struct sequence *q)
{
    return q->all_rows && q->computed >= q->told && q->computed < q->request.prompt_len;
}

/* What of a sequence a step feeds: `count` of its tokens, and behind them guesses. */
static struct step_seq part_of(const struct sequence *q, int32_t count, int32_t guesses)
{
    int32_t last = q->computed + count, need = sequence_blocks(last + guesses);
    bool complete = last == q->length;
    return (struct step_seq){
        .slot = q->slot,
        .pos = q->computed,
        .count = count + guesses,
        .first_block = q->sent_blocks,
        .blocks = need > q->sent_blocks ? need - q->sent_blocks : 0,
        .logits = wants_every_row(q) || guesses > 0 ? STEP_LOGITS_ALL
                  : complete                        ? STEP_LOGITS_LAST
                                                    : STEP_LOGITS_NONE,
        .draw = complete && q->request.max_tokens > 0 ? 1 + guesses : 0,
        .sampling = q->request.sampling,
    };
}

static void count_rows(struct scheduler *s, struct making *m, const struct sequence *q,
                       const struct step_seq *part)
{
    bool decode = decodes(q);
    m->rows -= part->count;
    m->logits -= part->logits == STEP_LOGITS_ALL ? part->count : part->logits == STEP_LOGITS_LAST;
    m->prompt_rows -= decode ? 0 : part->count;
    m->flight->prompt_rows += decode ? 0 : part->count;
    *(decode ? &s->stats.decode_rows : &s->stats.prompt_rows) += (uint64_t)part->count;
    queue_charge(q, part->count);
}

/* Does the step take all edits of the sequence's logits, and its mask, which a draw would come
 * with? */
static bool has_room_for_draw(const struct making *m, const struct sequence *q)
{
    int32_t room;
    if (q->request.constraint.kind != CONSTRAINT_NONE && m->step->header.masks >= m->masks)
        return false;
    if (!q->edits)
        return true;
    step_edits(m->step, &room);
    return edits_most(q->edits) <= room;
}

/* The edits for the token that the sequence's part draws, which is the answer's `index`-th. */
static void feed_edits(struct step *step, const struct sequence *q, int32_t index)
{
    int32_t room;
    if (!q->edits)
        return;
    struct logit_edit *to = step_edits(step, &room);
    step_edited(step, edits_write(q->edits, index, step->header.vocab_limit, to),
                edits_penalty(q->edits));
}

/* What the token that the sequence's part draws may be. */
static void feed_mask(struct scheduler *s, struct step *step, const struct sequence *q,
                      int32_t index)
{
    if (q->request.constraint.kind == CONSTRAINT_NONE)
        return;
    struct mask mask = masks_of(s->masks, &q->request.constraint, &q->form,
                                q->request.max_tokens - index);
    step_masked(step, &mask);
}

/* Somebody looks at the rows of logits that the part gives. */
static bool keeps_logits(const struct sequence *q, const struct step_seq *part)
{
    const struct request *r = &q->request;
    bool prompt = part->logits == STEP_LOGITS_ALL && part->pos < r->prompt_len;
    return part->logits != STEP_LOGITS_NONE &&
           (r->on_logits || (r->logprobs > 0 && part->draw) || (r->prompt_logprobs > 0 && prompt));
}

/* Puts `count` tokens of a sequence into the step, and guesses that stand behind them. */
static void feed(struct scheduler *s, struct making *m, struct sequence *q, int32_t count,
                 int32_t guesses)
{
    struct flight *f = m->flight;
    const struct step_seq part = part_of(q, count, guesses);
    step_add(m->step, &part, q->tokens + q->computed, q->blocks + q->sent_blocks);
    f->parts[f->count++] = (struct flight_part){q,           part.pos,  part.count,
                                                part.logits, part.draw, decodes(q)};
    if (part.draw) {
        feed_edits(m->step, q, q->computed + count - q->request.prompt_len);
        feed_mask(s, m->step, q, q->computed + count - q->request.prompt_len);
    }
    if (keeps_logits(q, &part))
        m->step->header.keep_logits = 1;
    if (part.draw && q->guess.tries > 0)
        m->step->header.settle = 1;
    count_rows(s, m, q, &part);
    q->flights++;
    q->fed_in = s->steps;
    q->sent_blocks += part.blocks;
    q->computed += count;
    if (part.draw && guesses == 0)
        q->tokens[q->length] = step_drawn_token(f->draws);
    q->length += part.draw > 0;
    f->draws += part.draw;
    sched_keep_blocks(s, q);
}

/* Of a sequence that may think: what ends the thought is known, and what stands before it must not
 * be guessed beyond. */
static int32_t guess_end(struct sequence *q, int32_t most)
{
    const struct thinking *t = &q->request.thinking;
    int32_t at = q->known - q->request.prompt_len - thinking_end(t);
    if (at < 0) /* the last guess is followed by a draw */
        return guess_next(q->tokens, q->known, min_of(most, -at - 1));
    most = min_of(most, t->count - at);
    memcpy(q->tokens + q->known, t->ids + at, (size_t)most * sizeof *t->ids);
    return most;
}

/* Writes guesses behind a decoding sequence's last token and returns how many it has blocks for. */
static int32_t guess(struct scheduler *s, const struct making *m, struct sequence *q)
{
    const struct request *r = &q->request;
    int32_t left = r->prompt_len + r->max_tokens - 1 - q->known;
    int32_t most = min_of(min_of(q->guess.tries, m->guesses), left);
    if (most < 1 || q->known < q->length || q->known - r->prompt_len < r->shaping.min_tokens)
        return 0;
    int32_t count = q->thinks ? guess_end(q, most) : guess_next(q->tokens, q->known, most);
    if (count == 0)
        guess_note(&q->guess, 0, 0);
    return secure(s, q, 1 + count) - 1;
}

/* A block for the next token of everyone who runs, in the order of who goes before whom, and before
 * any is fed: one that is fed gives way only when the step has landed. */
static void secure_all(struct scheduler *s)
{
    for (int32_t i = 0; i < s->running_count; i++)
        if (unfed(s->running[i]) > 0)
            secure(s, s->running[i], 1);
}

static bool turn_to_decode(const struct scheduler *s, const struct sequence *q)
{
    return q && decodes(q) && q->fed_in != s->steps;
}

/* Rows that are left for guesses when each that decodes has one. */
static int32_t rows_for_guesses(const struct scheduler *s, const struct making *m)
{
    int32_t rows = s->speculate > 0 ? min_of(m->rows, m->logits) : 0;
    for (int32_t i = 0; i < s->running_count && rows > 0; i++)
        rows -= turn_to_decode(s, s->running[i]);
    return rows;
}

/* In turn by slots, where not all can: the first that is passed over is the first of the next step.
 * Whose edits or mask find no room holds up nobody else. */
static void feed_decoding(struct scheduler *s, struct making *m)
{
    int32_t start = s->turn;
    bool passed = false;
    m->guesses = rows_for_guesses(s, m);
    for (int32_t i = 0; i < s->limits.max_seqs; i++) {
        int32_t slot = (start + i) % s->limits.max_seqs;
        struct sequence *q = s->by_slot[slot];
        if (!turn_to_decode(s, q) || secure(s, q, 1) < 1)
            continue;
        bool full = m->rows < 1 || m->logits < 1;
        if (full || !has_room_for_draw(m, q)) {
            s->turn = passed ? s->turn : slot;
            passed = true;
            if (full)
                return;
            continue;
        }
        int32_t guesses = guess(s, m, q);
        m->guesses -= guesses;
        feed(s, m, q, 1, guesses);
    }
}

/* As much of a sequence's prompt as the step has room for. */
static void feed_prompt(struct scheduler *s, struct making *m, struct sequence *q)
{
    int32_t count = min_of(min_of(unfed(q), s->chunk), min_of(m->rows, m->prompt_rows));
    if (q->computed < q->told) /* these rows' logits have been handed over */
        count = min_of(count, q->told - q->computed);
    else if (wants_every_row(q))
        count = min_of(min_of(count, m->logits), q->request.prompt_len - q->computed);
    if (q->computed + count == q->length && (m->logits < 1 || !has_room_for_draw(m, q)))
        count--;
    count = secure(s, q, count);
    if (count > 0)
        feed(s, m, q, count, 0);
}

/* Blocks that a running sequence is about to take: those of all its tokens, or its next one. */
static int32_t promised(const struct sequence *q)
{
    int32_t most = sequence_blocks((int64_t)q->request.prompt_len + q->request.max_tokens);
    int32_t soon = sequence_blocks(q->length);
    soon = soon > q->block_count ? soon : q->block_count + 1;
    return sched_leaves(q) ? 0 : min_of(soon, most) - q->block_count;
}

/* Is there a slot for a sequence that waits, and are the blocks there that it takes to feed all its
 * tokens, besides those promised? Whoever came in with less would soon be sent out again. */
static bool fits(const struct scheduler *s, const struct sequence *q)
{
    int32_t need = sequence_blocks(q->length) - q->block_count;
    for (int32_t i = 0; i < s->running_count; i++)
        need += promised(s->running[i]);
    return s->free_slot_count > 0 && need <= blocks_free(s->blocks);
}

static void start(struct scheduler *s, struct sequence *q)
{
    q->slot = s->free_slots[--s->free_slot_count];
    s->by_slot[q->slot] = q;
    int32_t i = s->running_count++;
    for (; i > 0 && sequence_goes_before(q, s->running[i - 1]); i--)
        s->running[i] = s->running[i - 1];
    s->running[i] = q;
    if (q->started)
        return;
    q->started = true;
    s->stats.prefix_asked += (uint64_t)(q->all_rows ? 0 : q->request.prompt_len);
    int32_t found = min_of(q->computed, q->request.prompt_len); /* an answer to go on behind too */
    s->stats.prefix_found += (uint64_t)found;
    if (q->request.on_start)
        q->request.on_start(q->request.user, found);
}

/* Feeds one that waits. False: it must go on waiting, and so must all that come after it. */
static bool admit(struct scheduler *s, struct making *m, struct sequence *q)
{
    find_prefix(s, q);
    while (!fits(s, q)) {
        if (preempt_for(s, q, true))
            continue;
        drop_blocks(s, q);
        return false;
    }
    queue_remove(s->queue, q);
    start(s, q);
    feed_prompt(s, m, q);
    return true;
}

/* Prompts of running sequences, and behind those of its class whoever waits. */
static void feed_prompts(struct scheduler *s, struct making *m)
{
    bool closed = false;
    for (int32_t i = 0; m->rows > 0 && m->prompt_rows > 0;) {
        while (i < s->running_count && !fills_up(s, s->running[i]))
            i++;
        struct sequence *q = i < s->running_count ? s->running[i] : NULL;
        struct sequence *w = closed ? NULL : queue_first(s->queue);
        if (w && (!q || w->request.priority < q->request.priority)) {
            closed = !admit(s, m, w);
            i = 0; /* others stand elsewhere now */
        } else if (q) {
            feed_prompt(s, m, q);
            i++;
        } else {
            return;
        }
    }
}

/* Of `limit`, what decoding leaves to prompts, where there are any. */
static int32_t share_of_prompts(const struct scheduler *s, int32_t limit, int32_t most)
{
    int32_t share = min_of(most, limit / PROMPT_SHARE);
    bool any = queue_count(s->queue) > 0;
    for (int32_t i = 0; i < s->running_count && !any; i++)
        any = fills_up(s, s->running[i]);
    if (share == 0)
        share = limit > 1 ? 1 : (int32_t)(s->steps % 2); /* one row: in turn */
    return any ? share : 0;
}

void sched_wipe(struct scheduler *s, struct step *step)
{
    const int32_t *dirty;
    int32_t count = blocks_dirty(s->blocks, &dirty);
    step_wipe(step, dirty, count);
    blocks_wiped(s->blocks);
}

bool sched_next(struct scheduler *s, struct step *step, int32_t vocab_limit, int64_t now_ns)
{
    CHECK(s->flight_count < SCHED_MAX_FLIGHTS, "%d steps in flight", s->flight_count);
    expire(s, now_ns);
    struct flight *f = &s->flights[s->flight_count];
    f->count = f->draws = f->prompt_rows = 0;
    f->vocab_limit = vocab_limit;
    s->steps++;
    step_begin(step, STEP_RUN, vocab_limit, false);
    secure_all(s);
    int32_t rows = share_of_prompts(s, s->limits.max_rows, PROMPT_SHARE_ROWS);
    int32_t logits = share_of_prompts(s, s->limits.max_logits, 1);
    int32_t masks = share_of_prompts(s, step->max_masks, 1);
    struct making m = {.step = step,
                       .flight = f,
                       .rows = s->limits.max_rows - rows,
                       .logits = s->limits.max_logits - logits,
                       .masks = step->max_masks - masks};
    feed_decoding(s, &m);
    m.rows += rows;
    m.logits += logits;
    m.masks += masks;
    m.prompt_rows = f->count > 0 ? pace_prompt_rows(&s->pace, m.rows) : m.rows;
    feed_prompts(s, &m);
    feed_decoding(s, &m); /* where prompts have left rows */
    if (f->count == 0)
        return false;
    sched_wipe(s, step);
    s->flight_count++;
    return true;
}
