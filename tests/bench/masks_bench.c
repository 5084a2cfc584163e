/*
 * What holding an answer to JSON, or to a call in XML, costs a step: making the mask of a state,
 * finding one that is kept, and laying one over a row of logits. One line each.
 *
 *   masks_bench FOLDER     of a tokenizer.json
 */
#include "base/check.h"
#include "base/clock.h"
#include "coordinator/text/tokenizer.h"
#include "worker/masks.h"
#include "worker/sampler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 200 };

#define BEGUN "<tool_call>\n<function=find>\n"
static const char *const calls[] = {
    "<tool_call>",
    BEGUN,
    BEGUN "<parameter=",
    BEGUN "<parameter=name>\nx",
    BEGUN "<parameter=name>\nx<",
    BEGUN "<parameter=name>\nx</parameter>",
};

static const char *const texts[] = {
    "",
    "{",
    "{\"",
    "{\"a",
    "{\"a\"",
    "{\"a\":",
    "{\"a\": 12",
    "{\"a\": \"x",
    "{\"a\": \"\\u00",
    "{\"a\": [",
    "{\"a\": [true",
    "<think>",
    "<think>so </",
};

static struct words *words_of(const struct tokenizer *t)
{
    uint32_t count = tokenizer_vocab_size(t);
    uint32_t *lengths = check_calloc(count, sizeof *lengths);
    uint8_t *kinds = check_calloc(count, sizeof *kinds);
    struct buf text;
    struct words *w = NULL;
    struct error err;
    buf_init(&text, WORDS_MAX_TEXT);
    enum status st = OK;
    for (uint32_t id = 0; id < count && st == OK; id++) {
        const char *bytes;
        size_t len;
        st = tokenizer_token_bytes(t, id, &bytes, &len, &err);
        lengths[id] = (uint32_t)len;
        kinds[id] = tokenizer_is_special(t, id) ? WORD_NEVER
                    : tokenizer_is_added(t, id) ? WORD_ADDED
                                                : WORD_PLAIN;
        if (st == OK)
            st = buf_append(&text, bytes, len, &err);
    }
    int64_t start = clock_now_ns();
    if (st == OK)
        st = words_create(text.data, text.len, lengths, kinds, count, &w, &err);
    CHECK(st == OK, "%s", err.msg);
    printf("%u tokens of %zu bytes sorted in %.0f ms, %.1f MB\n", count, text.len,
           (double)(clock_now_ns() - start) * 1e-6, (double)words_bytes(w) * 1e-6);
    buf_fini(&text);
    free(lengths);
    free(kinds);
    return w;
}

static int by_time(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The median time of making the mask of a text's state, with rooms so different that none is kept.
 */
static void time_state(struct words *w, int32_t vocab, const char *text, bool xml)
{
    static const char tools[] = "</function>\n</tool_call>\0<tool_call>\n<function=find>\n"
                                "\1?from>\n\1!name>\n";
    const struct constraint c = {.kind = xml ? CONSTRAINT_CODER : CONSTRAINT_JSON_OBJECT,
                                 .thought = *text == '<' && !xml ? CONSTRAINT_MAY_THINK
                                                                 : CONSTRAINT_NO_THOUGHT,
                                 .text = xml ? tools : NULL,
                                 .text_len = xml ? sizeof tools : 0,
                                 .heads = xml};
    uint64_t *row = check_calloc((size_t)masks_row(vocab), sizeof *row);
    struct constraint_state s;
    int64_t times[ROUNDS];
    int32_t allowed = 0;
    constraint_start(&c, &s);
    for (const char *p = text; *p; p++)
        CHECK(constraint_take(&c, &s, (unsigned char)*p), "%s", text);
    for (int i = 0; i < ROUNDS; i++) {
        memset(row, 0, (size_t)masks_row(vocab) * sizeof *row);
        int64_t start = clock_now_ns();
        words_allowed(w, &c, &s, INT32_MAX, vocab, row);
        times[i] = clock_now_ns() - start;
    }
    for (int32_t i = 0; i < masks_row(vocab); i++)
        allowed += __builtin_popcountll(row[i]);
    qsort(times, ROUNDS, sizeof *times, by_time);
    printf("%-14s %7d allowed, made in %7.1f us\n", text, allowed,
           (double)times[ROUNDS / 2] * 1e-3);
    free(row);
}

static void time_kept(struct words *w, int32_t vocab)
{
    const int32_t end = vocab - 1;
    const struct constraint c = {.kind = CONSTRAINT_JSON_OBJECT, .thought = CONSTRAINT_NO_THOUGHT};
    struct masks *m = NULL;
    struct error err;
    struct constraint_state s;
    CHECK(masks_create(w, vocab, &end, 1, &m, &err) == OK, "%s", err.msg);
    constraint_start(&c, &s);
    for (const char *p = "{\"a\": \"x"; *p; p++)
        CHECK(constraint_take(&c, &s, (unsigned char)*p), "a string");
    struct mask mask = masks_of(m, &c, &s, 1000);
    int64_t start = clock_now_ns();
    for (int i = 0; i < 100000; i++)
        mask = masks_of(m, &c, &s, 1000);
    printf("a mask that is kept: %.2f us\n", (double)(clock_now_ns() - start) * 1e-8);
    float *row = check_calloc((size_t)vocab, sizeof *row);
    float *copy = check_calloc((size_t)vocab, sizeof *copy);
    start = clock_now_ns();
    for (int i = 0; i < 1000; i++) {
        memcpy(copy, row, (size_t)vocab * sizeof *row);
        sampler_mask(copy, vocab, mask.allowed);
    }
    printf("laid over a copy of a row: %.1f us; all masks and words: %.1f MB\n",
           (double)(clock_now_ns() - start) * 1e-6, (double)masks_bytes(m) * 1e-6);
    free(row);
    free(copy);
    masks_destroy(m);
}

int main(int argc, char **argv)
{
    struct tokenizer *t = NULL;
    struct error err;
    if (argc != 2) {
        fprintf(stderr, "usage: masks_bench FOLDER\n");
        return 2;
    }
    if (tokenizer_load(argv[1], &t, &err) != OK) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    struct words *w = words_of(t);
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        time_state(w, (int32_t)tokenizer_vocab_size(t), texts[i], false);
    for (size_t i = 0; i < COUNT_OF(calls); i++)
        time_state(w, (int32_t)tokenizer_vocab_size(t), calls[i], true);
    time_kept(w, (int32_t)tokenizer_vocab_size(t));
    tokenizer_destroy(t);
    return 0;
}
