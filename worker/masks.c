/* Which tokens may be drawn next: see masks.h. */
#include "worker/masks.h"
#include "base/check.h"

#include <stdlib.h>
#include <string.h>

enum { ANY = INT32_MAX };

/* A mask that is kept. */
struct kept {
    struct constraint_state state;
    int32_t most;     /* bytes to the end after its tokens, at most; ANY: as many as they need */
    int32_t greatest; /* that a token which may follow needs, one that it leaves out too */
    uint64_t name;    /* 0: none is kept here */
    uint64_t used;    /* when, in masks_of's calls */
};

struct masks {
    struct words *words;
    int32_t vocab;
    uint64_t calls, made;
    uint64_t *rows; /* [MASKS_KEPT][masks_row(vocab)] */
    uint64_t *ends; /* [masks_row(vocab)]: what may follow a whole answer */
    struct kept kept[MASKS_KEPT];
};

enum status masks_create(struct words *words, int32_t vocab, const int32_t *ends, int32_t end_count,
                         struct masks **out, struct error *err)
{
    size_t row = (size_t)masks_row(vocab);
    int32_t found = 0;
    struct masks *m = calloc(1, sizeof *m);
    if (m)
        m->rows = calloc((MASKS_KEPT + 1) * row, sizeof *m->rows);
    if (!m || !m->rows) {
        free(m);
        return error_set(err, ERR_NO_MEMORY, "no memory for masks of %d tokens", vocab);
    }
    m->ends = m->rows + MASKS_KEPT * row;
    m->vocab = vocab;
    for (int32_t i = 0; i < end_count; i++) {
        if (ends[i] < 0 || ends[i] >= vocab)
            continue;
        m->ends[ends[i] / 64] |= UINT64_C(1) << (ends[i] % 64);
        found++;
    }
    if (found == 0) {
        masks_destroy(m);
        return error_set(err, ERR_UNSUPPORTED,
                         "response_format: the model has no end-of-sequence token that may be "
                         "drawn, so that no answer could end");
    }
    m->words = words;
    *out = m;
    return OK;
}

void masks_destroy(struct masks *m)
{
    if (!m)
        return;
    words_destroy(m->words);
    free(m->rows);
    free(m);
}

const struct words *masks_words(const struct masks *m)
{
    return m->words;
}

size_t masks_bytes(const struct masks *m)
{
    return sizeof *m + (MASKS_KEPT + 1) * (size_t)masks_row(m->vocab) * sizeof *m->rows +
           words_bytes(m->words);
}

static uint64_t *row_of(const struct masks *m, const struct kept *k)
{
    return m->rows + (k - m->kept) * masks_row(m->vocab);
}

static struct kept *find(struct masks *m, const struct constraint_state *s, int32_t most)
{
    for (struct kept *k = m->kept; k < m->kept + MASKS_KEPT; k++)
        if (k->name != 0 && k->most == most && memcmp(&k->state, s, sizeof *s) == 0)
            return k;
    return NULL;
}

/* In the place of the one that has not been asked for the longest. One that leaves nothing out for
 * `most` is as good for any. */
static struct kept *make(struct masks *m, const struct constraint *c,
                         const struct constraint_state *s, int32_t most)
{
    struct kept *k = m->kept;
    for (struct kept *other = m->kept; other < m->kept + MASKS_KEPT; other++)
        if (other->used < k->used)
            k = other;
    uint64_t *row = row_of(m, k);
    memset(row, 0, (size_t)masks_row(m->vocab) * sizeof *row);
    *k = (struct kept){.state = *s, .name = ++m->made};
    k->greatest = words_allowed(m->words, c, s, most, m->vocab, row);
    k->most = k->greatest > most ? most : ANY;
    for (int64_t i = 0; i < (int64_t)masks_row(m->vocab); i++)
        row[i] &= ~m->ends[i]; /* a model may end its sequences by an ordinary token */
    return k;
}

struct mask masks_of(struct masks *m, const struct constraint *c, const struct constraint_state *s,
                     int32_t left)
{
    int32_t most = left - 2; /* this token and the end of the sequence */
    if (constraint_closing(c, s) == 0)
        return (struct mask){m->ends, UINT64_MAX};
    struct kept *k = find(m, s, ANY);
    if (!k || k->greatest > most) /* near the end, not all that may follow leaves room for it */
        k = find(m, s, most);
    k = k ? k : make(m, c, s, most);
    k->used = ++m->calls;
    return (struct mask){row_of(m, k), k->name};
}

bool masks_take(const struct masks *m, const struct constraint *c, int32_t token,
                struct constraint_state *s)
{
    if (token < 0 || token >= m->vocab)
        return false;
    bool end = m->ends[token / 64] >> (token % 64) & 1;
    if (end || constraint_closing(c, s) == 0)
        return end && constraint_closing(c, s) == 0;
    return words_take(m->words, c, token, s);
}

uint64_t masks_made(const struct masks *m)
{
    return m->made;
}
