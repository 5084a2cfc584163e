/* From ids to text: see answer_text.h. Text goes detok -> raw -> reasoning -> plain -> stop ->
 * answer -> calls; without a split of parts detok writes to plain, and without calls the answer is
 * what is told. */
#include "coordinator/answer_text.h"
#include "base/check.h"

#include <stdlib.h>

enum { TEXT_LIMIT = 64 << 20, HELD_FIRST = 16 };

/* A token with logprobs whose text is not told yet. */
struct held_token {
    int32_t id;
    bool end;
    bool decided; /* its part is known: whether <think> comes may not be */
    enum part part;
    int64_t begin;  /* where its text begins: byte of the content */
    int64_t offset; /* and character of all text */
    float logprob;
    int32_t rank, count;
    int32_t ids[SAMPLING_MAX_LOGPROBS];
    float logprobs[SAMPLING_MAX_LOGPROBS];
    struct token_logprobs told; /* of the fields above, as answer_text_next gives it */
};

enum status answer_text_init(struct answer_text *t, const struct tokenizer *tokenizer,
                             const struct generation_params *p, struct error *err)
{
    *t = (struct answer_text){.split = p->split_reasoning};
    detok_init(&t->detok, tokenizer, true);
    reasoning_init(&t->reasoning, p->in_reasoning);
    calls_init(&t->calls, p->calls, p->tools, p->one_call);
    buf_init(&t->raw, TEXT_LIMIT);
    buf_init(&t->plain, TEXT_LIMIT);
    buf_init(&t->thought, TEXT_LIMIT);
    buf_init(&t->answer, TEXT_LIMIT);
    return stop_init(&t->stop, p->stop, p->stop_count, err);
}

void answer_text_fini(struct answer_text *t)
{
    reasoning_fini(&t->reasoning);
    stop_fini(&t->stop);
    calls_fini(&t->calls);
    free(t->told);
    t->told = NULL;
    buf_fini(&t->raw);
    buf_fini(&t->plain);
    buf_fini(&t->thought);
    buf_fini(&t->answer);
    free(t->held);
    t->held = NULL;
    t->held_count = 0;
}

void answer_text_clear(struct answer_text *t)
{
    buf_clear(&t->thought);
    answer_text_clear_content(t);
}

void answer_text_clear_content(struct answer_text *t)
{
    buf_clear(&t->answer);
    calls_clear(&t->calls);
}

/* --- tokens that wait --------------------------------------------------------------------------
 */

static struct held_token *held(const struct answer_text *t, size_t i)
{
    return &t->held[(t->held_at + i) % t->held_cap];
}

/* At most the tokens of one answer: its max_tokens bounds them. */
static enum status grow(struct answer_text *t, struct error *err)
{
    size_t cap = t->held_cap ? 2 * t->held_cap : HELD_FIRST;
    struct held_token *more = calloc(cap, sizeof *more);
    if (!more)
        return error_set(err, ERR_NO_MEMORY, "no memory for the logprobs of %zu tokens", cap);
    for (size_t i = 0; i < t->held_count; i++)
        more[i] = *held(t, i);
    free(t->held);
    t->held = more;
    t->held_at = 0;
    t->held_cap = cap;
    return OK;
}

static enum status hold(struct answer_text *t, int32_t id, bool end, const struct token_logprobs *l,
                        struct error *err)
{
    if (t->held_count == t->held_cap)
        TRY(grow(t, err));
    struct held_token *h = held(t, t->held_count);
    *h = (struct held_token){
        .id = id,
        .end = end,
        .begin = t->plain_bytes,
        .offset = t->chars,
        .logprob = l->logprob,
        .rank = l->rank,
        .count = l->count < SAMPLING_MAX_LOGPROBS ? l->count : SAMPLING_MAX_LOGPROBS,
    };
    for (int32_t i = 0; i < h->count; i++) {
        h->ids[i] = l->top_ids[i];
        h->logprobs[i] = l->top_logprobs[i];
    }
    t->held_count++;
    return OK;
}

/* The part of the tokens before is known once the reasoning's state tells it: not while <think>
 * may yet come, nor when the first character behind </think> is not whole. */
static void decide(struct answer_text *t, bool last)
{
    enum reasoning_state s = t->reasoning.state;
    bool open = s == REASONING_START || (s == REASONING_CLOSED && t->detok.pending_len > 0);
    bool content = !t->split || s == REASONING_ANSWER || open;
    if (t->split && open && !last)
        return;
    for (size_t i = t->held_count; i-- > 0 && !held(t, i)->decided;) {
        held(t, i)->decided = true;
        held(t, i)->part = content ? PART_CONTENT : PART_REASONING;
    }
}

bool answer_text_next(struct answer_text *t, enum part part, struct told_token *out)
{
    if (t->held_count == 0)
        return false;
    struct held_token *h = held(t, 0);
    if (!h->decided || h->part != part || (part == PART_CONTENT && h->begin >= t->told_bytes))
        return false;
    h->told = (struct token_logprobs){.logprob = h->logprob,
                                      .rank = h->rank,
                                      .count = h->count,
                                      .top_ids = h->ids,
                                      .top_logprobs = h->logprobs};
    *out = (struct told_token){
        .id = h->id, .part = part, .end = h->end, .offset = h->offset, .logprobs = &h->told};
    t->held_at = (t->held_at + 1) % t->held_cap;
    t->held_count--;
    return true;
}

/* --- text --------------------------------------------------------------------------------------
 */

static bool is_reasoning(const struct answer_text *t)
{
    return t->split &&
           (t->reasoning.state == REASONING_OPENED || t->reasoning.state == REASONING_INSIDE);
}

/* Characters of `b` from byte `from` on. */
static int64_t count_chars(const struct buf *b, size_t from)
{
    int64_t n = 0;
    for (size_t i = from; i < b->len; i++)
        n += ((unsigned char)b->data[i] & 0xc0) != 0x80;
    return n;
}

/* What detok has written goes on to `thought` and `plain`. */
static enum status pass_on(struct answer_text *t, size_t plain_before, struct error *err)
{
    if (t->split) {
        t->chars += count_chars(&t->raw, 0);
        TRY(reasoning_push(&t->reasoning, t->raw.data, t->raw.len, &t->thought, &t->plain, err));
        buf_clear(&t->raw);
    } else {
        t->chars += count_chars(&t->plain, plain_before);
    }
    t->plain_bytes += (int64_t)(t->plain.len - plain_before);
    return OK;
}

int64_t answer_text_bytes(const struct answer_text *t)
{
    return (int64_t)(t->raw.cap + t->plain.cap + t->thought.cap + t->answer.cap +
                     t->held_cap * sizeof *t->held) +
           calls_bytes(&t->calls);
}

enum status answer_text_push(struct answer_text *t, int32_t id, bool end,
                             const struct token_logprobs *logprobs, struct error *err)
{
    size_t before = t->plain.len;
    t->reasoning_tokens += is_reasoning(t);
    if (logprobs)
        TRY(hold(t, id, end, logprobs, err));
    if (!end)
        TRY(detok_push(&t->detok, (uint32_t)id, t->split ? &t->raw : &t->plain, err));
    TRY(pass_on(t, before, err));
    decide(t, false);
    return OK;
}

static enum status flush(struct answer_text *t, struct error *err)
{
    size_t before = t->plain.len;
    TRY(detok_flush(&t->detok, t->split ? &t->raw : &t->plain, err));
    TRY(pass_on(t, before, err));
    decide(t, true);
    return t->split ? reasoning_flush(&t->reasoning, &t->thought, &t->plain, err) : OK;
}

/* The answer so far goes on to where calls are told from content. */
static enum status part_calls(struct answer_text *t, bool last, bool *stopped, struct error *err)
{
    TRY(calls_push(&t->calls, t->answer.data ? t->answer.data : "", t->answer.len, err));
    buf_clear(&t->answer);
    if (last || *stopped)
        TRY(calls_flush(&t->calls, err));
    *stopped = *stopped || t->calls.over;
    return OK;
}

enum status answer_text_settle(struct answer_text *t, bool last, bool *stopped, struct error *err)
{
    size_t before = t->answer.len;
    if (last)
        TRY(flush(t, err));
    TRY(stop_push(&t->stop, t->plain.data ? t->plain.data : "", t->plain.len, &t->answer, stopped,
                  err));
    buf_clear(&t->plain);
    if (last && !*stopped)
        TRY(stop_flush(&t->stop, &t->answer, err));
    t->told_bytes += (int64_t)(t->answer.len - before);
    if (last && !*stopped)
        t->told_bytes = INT64_MAX; /* tokens without text too */
    return t->calls.format == CALLS_NONE ? OK : part_calls(t, last, stopped, err);
}

const struct told_piece *answer_text_pieces(struct answer_text *t, int32_t *count)
{
    const struct calls *c = &t->calls;
    const char *out = c->out.data;
    *count = (int32_t)c->count;
    if (c->count == 0)
        return NULL;
    free(t->told);
    t->told = check_calloc(c->count, sizeof *t->told);
    for (size_t i = 0; i < c->count; i++) {
        const struct call_piece *p = &c->pieces[i];
        t->told[i] = (struct told_piece){.call = p->index,
                                         .name = p->named ? out + p->name : NULL,
                                         .text = p->len > 0 ? out + p->begin : "",
                                         .len = p->len,
                                         .end = p->end};
    }
    return t->told;
}
