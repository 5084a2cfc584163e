/* The texts that `witan bench --quality` reads its models through, as token ids. */
#ifndef WITAN_CLI_QUALITY_TEXT_H
#define WITAN_CLI_QUALITY_TEXT_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct manifest;

/* Sequences of at least two tokens each; ids are below the model's vocabulary. */
struct quality_text {
    int32_t *id;   /* [first[count]] owned */
    bool *counted; /* [first[count]] owned: tokens whose prediction is measured */
    size_t counts; /* how many those are; the first of a sequence is none */
    size_t *first; /* [count + 1] owned: where each sequence begins */
    size_t count;
    int32_t longest;
};

struct quality_text_options {
    const char *dir;                 /* the model's: its tokenizer and chat template */
    const struct manifest *manifest; /* of that folder; NULL: none */
    const char *path;                /* the text; NULL: the one beside the model that ships */
    int32_t vocab;                   /* of the model */
    int32_t context;                 /* most tokens of a sequence, at least 2 */
    int32_t tokens;                  /* most of all */
};

enum { QUALITY_MAX_TEXT_BYTES = 64 << 20 };

/*
 * Reads a text by the end of its name. .jsonl: conversations, {"messages": [...]} a line, put
 * through the chat template, a sequence each. .json: a dictionary as deploy/lexicon/covered.json
 * has it, a conversation of one question and its answer for each word. Of conversations the
 * assistant's tokens count, to the end of each turn: what a model was taught to say. Anything else
 * is plain text, cut into sequences of `context` tokens, that count all but their first. What is
 * longer than `context` is cut there, what is beyond `tokens` left out. Errors name file and line.
 * quality_text_fini releases.
 */
enum status quality_text_read(const struct quality_text_options *o, struct quality_text *out,
                              struct error *err);

/* Random ids instead, for models that know no text. */
enum status quality_text_random(const struct quality_text_options *o, struct quality_text *out,
                                struct error *err);

void quality_text_fini(struct quality_text *t);

/* The text that ships with the model in `dir`, to be freed, or NULL where there is none. */
char *quality_text_shipped(const char *dir);

#endif
