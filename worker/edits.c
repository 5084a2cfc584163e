/* Which logits are changed before a draw: see edits.h. */
#include "worker/edits.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A token of which something is known. */
struct entry {
    int32_t id;
    int32_t count; /* in the answer */
    float bias;
    bool seen; /* in the prompt */
    bool ends; /* the answer */
};

struct edits {
    float repetition, presence, frequency;
    int32_t min_tokens;
    bool history; /* of the answer's tokens */
    int32_t count, cap;
    struct entry entries[]; /* [cap], ids ascending */
};

/* Where an id stands, or would. */
static int32_t find(const struct edits *e, int32_t id)
{
    int32_t low = 0, high = e->count;
    while (low < high) {
        int32_t middle = (low + high) / 2;
        if (e->entries[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct entry *entry_of(struct edits *e, int32_t id)
{
    int32_t at = find(e, id);
    struct entry *p = &e->entries[at];
    if (at < e->count && p->id == id)
        return p;
    memmove(p + 1, p, (size_t)(e->count - at) * sizeof *p);
    e->count++;
    *p = (struct entry){.id = id};
    return p;
}

static int by_id(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* The prompt's tokens, each once. */
static enum status see_prompt(struct edits *e, const int32_t *prompt, int32_t prompt_len,
                              struct error *err)
{
    size_t bytes = (size_t)prompt_len * sizeof *prompt;
    int32_t *sorted = malloc(bytes);
    if (!sorted)
        return error_set(err, ERR_NO_MEMORY, "no memory for the penalties of %d tokens",
                         prompt_len);
    memcpy(sorted, prompt, bytes);
    qsort(sorted, (size_t)prompt_len, sizeof *sorted, by_id);
    for (int32_t i = 0; i < prompt_len; i++)
        if (i == 0 || sorted[i] != sorted[i - 1])
            e->entries[e->count++] = (struct entry){.id = sorted[i], .seen = true};
    free(sorted);
    return OK;
}

enum status edits_create(const struct shaping *s, const int32_t *prompt, int32_t prompt_len,
                         int32_t max_tokens, const int32_t *ends, int32_t end_count,
                         struct edits **out, struct error *err)
{
    bool history = shaping_needs_history(s);
    float repetition = s->repetition_penalty == 0.0f ? 1.0f : s->repetition_penalty;
    *out = NULL;
    if (!history && s->bias_count == 0 && s->min_tokens == 0)
        return OK;
    int64_t cap = (int64_t)s->bias_count + (history ? max_tokens : 0) +
                  (repetition != 1.0f ? prompt_len : 0) + s->stop_id_count + end_count;
    struct edits *e = malloc(sizeof *e + (size_t)cap * sizeof e->entries[0]);
    if (!e)
        return error_set(err, ERR_NO_MEMORY, "no memory for the penalties of %lld tokens",
                         (long long)cap);
    *e = (struct edits){.repetition = repetition,
                        .presence = s->presence_penalty,
                        .frequency = s->frequency_penalty,
                        .min_tokens = s->min_tokens,
                        .history = history,
                        .cap = (int32_t)cap};
    enum status st = repetition != 1.0f ? see_prompt(e, prompt, prompt_len, err) : OK;
    if (st != OK) {
        free(e);
        return st;
    }
    for (int32_t i = 0; i < s->bias_count; i++)
        entry_of(e, s->bias[i].id)->bias = s->bias[i].bias;
    for (int32_t i = 0; s->min_tokens > 0 && i < s->stop_id_count; i++)
        entry_of(e, s->stop_ids[i])->ends = true;
    for (int32_t i = 0; s->min_tokens > 0 && i < end_count; i++)
        entry_of(e, ends[i])->ends = true;
    *out = e;
    return OK;
}

void edits_destroy(struct edits *e)
{
    free(e);
}

void edits_drew(struct edits *e, int32_t token)
{
    if (e->history)
        entry_of(e, token)->count++;
}

int32_t edits_most(const struct edits *e)
{
    return e->count;
}

/* What is added, rounded to fp32 once. */
static float addition(const struct edits *e, const struct entry *p, int32_t index)
{
    double taken = 0.0;
    if (p->bias == -100.0f || (p->ends && index < e->min_tokens))
        return -INFINITY;
    if (p->count > 0)
        taken = (double)e->presence + (double)e->frequency * p->count;
    return (float)((double)p->bias - taken);
}

int32_t edits_write(const struct edits *e, int32_t index, int32_t vocab, struct logit_edit *out)
{
    int32_t n = 0;
    for (int32_t i = 0; i < e->count && e->entries[i].id < vocab; i++) {
        const struct entry *p = &e->entries[i];
        float add = addition(e, p, index);
        int32_t repeated = e->repetition != 1.0f && (p->seen || p->count > 0);
        if (repeated || add != 0.0f)
            out[n++] = (struct logit_edit){p->id, add, repeated};
    }
    return n;
}

float edits_penalty(const struct edits *e)
{
    return e->repetition;
}

int32_t edits_most_bans(const struct shaping *s, int32_t end_count)
{
    int32_t bans = s->min_tokens > 0 ? s->stop_id_count + end_count : 0;
    for (int32_t i = 0; i < s->bias_count; i++)
        bans += s->bias[i].bias == -100.0f;
    return bans;
}
