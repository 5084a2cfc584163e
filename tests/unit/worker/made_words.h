/* Tokens' bytes made up for a model that has no tokenizer: every byte, then pieces as JSON has
 * them, and </think> as a tag. */
#ifndef WITAN_TESTS_UNIT_WORKER_MADE_WORDS_H
#define WITAN_TESTS_UNIT_WORKER_MADE_WORDS_H

#include "base/check.h"
#include "tests/unit/random.h"
#include "worker/words.h"

#include <stdlib.h>
#include <string.h>

enum { MADE_MOST = 8 }; /* bytes of a token */

/* [vocab] of it; the tokens of `ends` are special. */
struct made_words {
    int32_t vocab, tag; /* the id of </think> */
    uint32_t *lengths;
    uint8_t *kinds;
    char (*bytes)[MADE_MOST];
};

static inline bool made_is_end(const int32_t *ends, int32_t count, int32_t id)
{
    for (int32_t i = 0; i < count; i++)
        if (ends[i] == id)
            return true;
    return false;
}

static inline void made_word(struct made_words *m, int32_t id, int32_t index, uint64_t *seed)
{
    static const char likely[] = "{}[]\":, \n\\ueabtrfalsn0123-.E\xc3\xa9\xe2\x82\xac";
    m->kinds[id] = WORD_PLAIN;
    if (index < 256) {
        m->bytes[id][0] = (char)index;
        m->lengths[id] = 1;
    } else if (index == 256) {
        memcpy(m->bytes[id], "</think>", MADE_MOST);
        m->lengths[id] = MADE_MOST;
        m->kinds[id] = WORD_ADDED;
        m->tag = id;
    } else {
        m->lengths[id] = (uint32_t)random_int(seed, 2, MADE_MOST);
        for (uint32_t i = 0; i < m->lengths[id]; i++)
            m->bytes[id][i] = likely[random_int(seed, 0, (int32_t)sizeof likely - 2)];
    }
}

static inline struct made_words made_words(int32_t vocab, const int32_t *ends, int32_t end_count)
{
    struct made_words m = {.vocab = vocab, .tag = -1};
    uint64_t seed = 5;
    m.lengths = check_calloc((size_t)vocab, sizeof *m.lengths);
    m.kinds = check_calloc((size_t)vocab, sizeof *m.kinds);
    m.bytes = check_calloc((size_t)vocab, sizeof *m.bytes);
    for (int32_t id = 0, index = 0; id < vocab; id++) {
        if (made_is_end(ends, end_count, id))
            m.kinds[id] = WORD_NEVER;
        else
            made_word(&m, id, index++, &seed);
    }
    return m;
}

static inline struct words *made_create(const struct made_words *m)
{
    struct words *w = NULL;
    struct error err;
    char *text = check_calloc((size_t)m->vocab, MADE_MOST);
    size_t len = 0;
    for (int32_t id = 0; id < m->vocab; len += m->lengths[id++])
        memcpy(text + len, m->bytes[id], m->lengths[id]);
    enum status st = words_create(text, len, m->lengths, m->kinds, (size_t)m->vocab, &w, &err);
    CHECK(st == OK, "%s", err.msg);
    free(text);
    return w;
}

static inline void made_free(struct made_words *m)
{
    free(m->lengths);
    free(m->kinds);
    free(m->bytes);
}

#endif
