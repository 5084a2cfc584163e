/* How the answers of a conversation are drawn: see talk.h. */
#include "cli/talk.h"

#include "base/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef Witan__Inference__V1__Float real;

const char *const talk_settings[] = {
    "temperature",
    "top-p",
    "top-k",
    "min-p",
    "seed",
    "repetition-penalty",
    "presence-penalty",
    "frequency-penalty",
    "min-tokens",
    "max-tokens",
    NULL,
};

/* Those that are real numbers: the value, and the field that points to it when it is set. */
static const struct {
    const char *name;
    size_t value, field; /* in struct talk */
} reals[] = {
    {"temperature", offsetof(struct talk, temperature),
     offsetof(struct talk, sampling.temperature)},
    {"top-p", offsetof(struct talk, top_p), offsetof(struct talk, sampling.top_p)},
    {"min-p", offsetof(struct talk, min_p), offsetof(struct talk, sampling.min_p)},
    {"repetition-penalty", offsetof(struct talk, repetition),
     offsetof(struct talk, sampling.repetition_penalty)},
    {"presence-penalty", offsetof(struct talk, presence),
     offsetof(struct talk, sampling.presence_penalty)},
    {"frequency-penalty", offsetof(struct talk, frequency),
     offsetof(struct talk, sampling.frequency_penalty)},
};

static enum status bad(const char *name, const char *value, struct error *err)
{
    return error_set(err, ERR_INVALID, "%s: expected a number, found %.200s", name, value);
}

static enum status set_real(struct talk *t, size_t which, const char *text, struct error *err)
{
    real *value = (real *)((char *)t + reals[which].value);
    real **field = (real **)((char *)t + reals[which].field);
    char *end = NULL;
    if (!text) {
        *field = NULL;
        return OK;
    }
    float f = strtof(text, &end);
    if (!*text || *end)
        return bad(reals[which].name, text, err);
    value->value = f;
    *field = value;
    return OK;
}

/* NULL: 0, which stands for the default. */
static enum status set_count(const char *name, const char *text, long min, int32_t *out,
                             struct error *err)
{
    char *end = NULL;
    errno = 0;
    long n = text ? strtol(text, &end, 10) : 0;
    if (text && (!*text || *end || errno || n < min || n > INT32_MAX))
        return bad(name, text, err);
    *out = (int32_t)n;
    return OK;
}

static enum status set_seed(struct talk *t, const char *text, struct error *err)
{
    char *end = NULL;
    errno = 0;
    uint64_t seed = text ? strtoull(text, &end, 10) : 0;
    if (text && (!*text || *end || errno || *text == '-'))
        return bad("seed", text, err);
    t->seed.value = seed;
    t->sampling.seed = text ? &t->seed : NULL;
    return OK;
}

bool talk_set(struct talk *t, const char *name, const char *value, enum status *st,
              struct error *err)
{
    const char *text = strcmp(value, "default") == 0 ? NULL : value;
    *st = OK;
    for (size_t i = 0; i < COUNT_OF(reals); i++) {
        if (strcmp(name, reals[i].name) == 0) {
            *st = set_real(t, i, text, err);
            return true;
        }
    }
    if (strcmp(name, "min-tokens") == 0) {
        *st = set_count(name, text, 0, &t->sampling.min_tokens, err);
    } else if (strcmp(name, "max-tokens") == 0) {
        *st = set_count(name, text, 1, &t->max_tokens, err);
    } else if (strcmp(name, "top-k") == 0) {
        int32_t k = 0;
        *st = set_count(name, text, 0, &k, err);
        if (*st == OK) {
            t->top_k.value = k;
            t->sampling.top_k = text ? &t->top_k : NULL;
        }
    } else if (strcmp(name, "seed") == 0) {
        *st = set_seed(t, text, err);
    } else {
        return false;
    }
    return true;
}

void talk_show_settings(const struct talk *t, FILE *f)
{
    for (size_t i = 0; i < COUNT_OF(reals); i++) {
        const real *set = *(real *const *)((const char *)t + reals[i].field);
        if (set)
            fprintf(f, "  %-20s %g\n", reals[i].name, (double)set->value);
    }
    if (t->sampling.top_k)
        fprintf(f, "  %-20s %" PRId32 "\n", "top-k", t->top_k.value);
    if (t->sampling.seed)
        fprintf(f, "  %-20s %" PRIu64 "\n", "seed", t->seed.value);
    if (t->sampling.min_tokens > 0)
        fprintf(f, "  %-20s %" PRId32 "\n", "min-tokens", t->sampling.min_tokens);
    if (t->max_tokens > 0)
        fprintf(f, "  %-20s %" PRId32 "\n", "max-tokens", t->max_tokens);
    fputs("  all others: the model's own; a random seed for each answer\n", f);
}
