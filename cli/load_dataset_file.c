/* Files of requests: see load_dataset.h. Traces are of the form that Mooncake's were published in
 * (Qin et al. 2024): JSON lines of timestamp in ms, input_length, output_length, hash_ids. */
#include "cli/load_dataset_private.h"

#include "base/check.h"
#include "base/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum status add_entry(struct load_dataset *d, const char *what, const struct load_entry *e,
                             struct error *err)
{
    if (d->count == LOAD_MAX_ENTRIES)
        return error_set(err, ERR_LIMIT, "%s: expected at most %d requests, found more", what,
                         LOAD_MAX_ENTRIES);
    if (d->count == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 256;
        struct load_entry *more = realloc(d->entries, cap * sizeof *more);
        if (!more)
            return error_set(err, ERR_NO_MEMORY, "%s: no memory for %zu requests", what, cap);
        d->entries = more;
        d->cap = cap;
    }
    d->entries[d->count++] = *e;
    return OK;
}

static enum status wrong_type(const char *what, const char *field, const char *expected,
                              const json_t *found, struct error *err)
{
    return error_set(err, ERR_INVALID, "%s: %s: expected %s, found %s", what, field, expected,
                     json_type_words(found));
}

/* --- trace -------------------------------------------------------------------------------------
 */

static enum status add_hash(struct load_dataset *d, int64_t hash, struct error *err)
{
    if (d->hash_count == d->hash_cap) {
        size_t cap = d->hash_cap ? d->hash_cap * 2 : 4096;
        int64_t *more = realloc(d->hashes, cap * sizeof *more);
        if (!more)
            return error_set(err, ERR_NO_MEMORY, "no memory for %zu hash_ids", cap);
        d->hashes = more;
        d->hash_cap = cap;
    }
    d->hashes[d->hash_count++] = hash;
    return OK;
}

static enum status read_hashes(struct load_dataset *d, const char *what, const json_t *list,
                               struct load_entry *e, struct error *err)
{
    size_t i, need = ((size_t)e->input + (size_t)d->o.block_tokens - 1) / (size_t)d->o.block_tokens;
    const json_t *hash;
    if (!list || json_is_null(list))
        return OK;
    if (!json_is_array(list))
        return wrong_type(what, "hash_ids", "an array", list, err);
    if (json_array_size(list) != need || need > LOAD_MAX_HASHES)
        return error_set(err, ERR_INVALID,
                         "%s: hash_ids: expected %zu (at most %d) for input_length %d in blocks of "
                         "%d tokens, found %zu: --block-tokens gives another size",
                         what, need, LOAD_MAX_HASHES, (int)e->input, (int)d->o.block_tokens,
                         json_array_size(list));
    e->hash_at = d->hash_count;
    e->hash_count = need;
    json_array_foreach(list, i, hash)
    {
        char field[32];
        snprintf(field, sizeof field, "hash_ids[%zu]", i);
        if (!json_is_integer(hash))
            return wrong_type(what, field, "an integer", hash, err);
        TRY(add_hash(d, json_integer_value(hash), err));
    }
    return OK;
}

static enum status read_traced(struct load_dataset *d, const char *what, json_t *line,
                               struct load_entry *e, struct error *err)
{
    double ms = 0;
    int64_t input = 0, output = 0;
    TRY(json_get_real(line, what, "timestamp", true, 0, 1e12, &ms, err));
    TRY(json_get_int(line, what, "input_length", true, 1, LOAD_MAX_LENGTH, &input, err));
    TRY(json_get_int(line, what, "output_length", true, 1, LOAD_MAX_LENGTH, &output, err));
    e->input = (int32_t)input;
    e->output = (int32_t)output;
    e->at_ns = (int64_t)(ms * 1e6);
    if (d->count > 0 && e->at_ns < d->entries[d->count - 1].at_ns)
        return error_set(err, ERR_INVALID,
                         "%s: timestamp: expected at least the line before's %.6g, found %.6g",
                         what, (double)d->entries[d->count - 1].at_ns * 1e-6, ms);
    return read_hashes(d, what, json_object_get(line, "hash_ids"), e, err);
}

/* --- prompts -----------------------------------------------------------------------------------
 */

static enum status check_messages(const char *what, const json_t *messages, struct error *err)
{
    size_t i;
    const json_t *message;
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return wrong_type(what, "messages", "an array with messages", messages, err);
    json_array_foreach(messages, i, message)
    {
        char field[48];
        snprintf(field, sizeof field, "messages[%zu].role", i);
        const json_t *role = json_object_get(message, "role");
        if (!json_is_string(role))
            return wrong_type(what, field, "a string", role, err);
    }
    return OK;
}

static enum status read_prompt(struct load_dataset *d, const char *what, json_t *line,
                               struct load_entry *e, struct error *err)
{
    const json_t *prompt = json_object_get(line, "prompt");
    const json_t *messages = json_object_get(line, "messages");
    int64_t output = 0;
    TRY(json_get_int(line, what, "max_tokens", false, 1, LOAD_MAX_LENGTH, &output, err));
    e->output = (int32_t)output;
    if ((prompt != NULL) == (messages != NULL))
        return error_set(err, ERR_INVALID, "%s: expected either prompt or messages, found %s", what,
                         prompt ? "both" : "neither");
    if (messages && !d->o.messages)
        return error_set(err, ERR_INVALID, "%s: messages: expected a prompt: --api chat takes both",
                         what);
    if (messages)
        TRY(check_messages(what, messages, err));
    else if (json_string_length(prompt) == 0)
        return wrong_type(what, "prompt", "a string that is not empty", prompt, err);
    e->messages = messages;
    e->text = json_string_value(prompt);
    e->text_len = json_string_length(prompt);
    e->line = json_incref(line);
    return OK;
}

/* --- lines -------------------------------------------------------------------------------------
 */

static enum status read_line(struct load_dataset *d, const char *what, const char *text, size_t len,
                             struct error *err)
{
    struct load_entry e = {0};
    json_t *line;
    if (len > LOAD_MAX_LINE)
        return error_set(err, ERR_LIMIT, "%s: expected at most %d bytes, found %zu", what,
                         LOAD_MAX_LINE, len);
    TRY(json_parse(what, text, len, &line, err));
    enum status st = OK;
    if (!json_is_object(line))
        st = error_set(err, ERR_INVALID, "%s: expected an object, found %s", what,
                       json_type_words(line));
    else if (d->o.kind == LOAD_TRACE)
        st = read_traced(d, what, line, &e, err);
    else
        st = read_prompt(d, what, line, &e, err);
    if (st == OK && (st = add_entry(d, what, &e, err)) != OK)
        json_decref(e.line);
    json_decref(line);
    return st;
}

static enum status read_lines(struct load_dataset *d, const char *path, const char *text,
                              size_t len, struct error *err)
{
    char what[400];
    for (size_t at = 0, number = 1; at < len; number++) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t n = end ? (size_t)(end - text) - at : len - at;
        size_t blank = 0;
        while (blank < n && strchr(" \t\r", text[at + blank]) && text[at + blank])
            blank++;
        snprintf(what, sizeof what, "%.300s: line %zu", path, number);
        if (blank < n)
            TRY(read_line(d, what, text + at, n, err));
        at += n + 1;
    }
    return OK;
}

/* A trace begins with its first line. */
static void begin_at_zero(struct load_dataset *d)
{
    int64_t first = d->count > 0 ? d->entries[0].at_ns : 0;
    for (size_t i = 0; i < d->count; i++)
        d->entries[i].at_ns -= first;
}

/* --- sharegpt ----------------------------------------------------------------------------------
 */

static bool says(const json_t *turn, const char *const *names)
{
    const char *from = json_string_value(json_object_get(turn, "from"));
    for (; from && *names; names++)
        if (strcmp(from, *names) == 0)
            return json_string_length(json_object_get(turn, "value")) > 0;
    return false;
}

static enum status check_turn(const char *what, size_t i, const json_t *turn, struct error *err)
{
    static const char *const fields[] = {"from", "value"};
    char field[64];
    for (size_t k = 0; k < COUNT_OF(fields); k++) {
        const json_t *v = json_object_get(turn, fields[k]);
        snprintf(field, sizeof field, "conversations[%zu].%s", i, fields[k]);
        if (!json_is_string(v))
            return wrong_type(what, field, "a string", v, err);
    }
    return OK;
}

/* The answer's tokens are how many are asked for. */
static enum status count_answer(struct load_dataset *d, const char *what, const json_t *answer,
                                struct load_entry *e, struct error *err)
{
    struct token_ids ids;
    if (d->o.has_output)
        return OK;
    if (!d->o.tokenizer)
        return error_set(err, ERR_INVALID,
                         "%s: how long answers are is told in text alone: --tokenizer DIR counts "
                         "their tokens, --output gives a length",
                         what);
    token_ids_init(&ids, LOAD_MAX_LENGTH);
    enum status st = tokenizer_encode(d->o.tokenizer, d->scratch, json_string_value(answer),
                                      json_string_length(answer), TOKENIZER_PLAIN, &ids, err);
    e->output = (int32_t)ids.len;
    token_ids_fini(&ids);
    if (st != OK)
        error_prefix(err, "%s: ", what);
    return st;
}

/* The first question that is answered. */
static enum status read_conversation(struct load_dataset *d, const char *what, const json_t *entry,
                                     struct error *err)
{
    static const char *const asking[] = {"human", "user", NULL};
    static const char *const answering[] = {"gpt", "assistant", "chatgpt", "bing", "bard", NULL};
    const json_t *turns = json_object_get(entry, "conversations"), *turn, *before = NULL;
    size_t i;
    if (!json_is_array(turns))
        return wrong_type(what, "conversations", "an array", turns, err);
    json_array_foreach(turns, i, turn)
    {
        TRY(check_turn(what, i, turn, err));
        if (before && says(before, asking) && says(turn, answering)) {
            const json_t *question = json_object_get(before, "value");
            struct load_entry e = {.text = json_string_value(question),
                                   .text_len = json_string_length(question)};
            TRY(count_answer(d, what, json_object_get(turn, "value"), &e, err));
            return add_entry(d, what, &e, err);
        }
        before = turn;
    }
    d->skipped++;
    return OK;
}

static enum status read_sharegpt(struct load_dataset *d, const char *path, const char *text,
                                 size_t len, struct error *err)
{
    char what[400];
    size_t i;
    const json_t *entry;
    TRY(json_parse(path, text, len, &d->root, err));
    if (!json_is_array(d->root))
        return error_set(err, ERR_INVALID, "%s: expected an array of conversations, found %s", path,
                         json_type_words(d->root));
    json_array_foreach(d->root, i, entry)
    {
        snprintf(what, sizeof what, "%.300s: conversation %zu", path, i + 1);
        TRY(read_conversation(d, what, entry, err));
    }
    return OK;
}

enum status load_dataset_read(struct load_dataset *d, const char *what, const char *text,
                              size_t len, struct error *err)
{
    enum status st = d->o.kind == LOAD_SHAREGPT ? read_sharegpt(d, what, text, len, err)
                                                : read_lines(d, what, text, len, err);
    if (st == OK && d->count == 0)
        st = error_set(err, ERR_INVALID, "%s: expected requests, found none", what);
    begin_at_zero(d);
    return st;
}
