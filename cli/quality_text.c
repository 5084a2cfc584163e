/* Texts as token ids: see quality_text.h. */
#include "cli/quality_text.h"
#include "base/buf.h"
#include "base/json.h"
#include "coordinator/text/template.h"
#include "coordinator/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct reader {
    const struct quality_text_options *o;
    struct quality_text *out;
    size_t ids, first_cap; /* entries used, entries there are */
    enum template_kind kind;
    struct tokenizer *tok;
    struct tokenizer_scratch *scratch;
    struct token_ids line;
    uint32_t turn_begin, turn_end; /* with conversations: <|im_start|>, <|im_end|> */
    struct token_ids role;         /* what follows the first of them in an assistant's turn */
};

void quality_text_fini(struct quality_text *t)
{
    free(t->id);
    free(t->first);
    free(t->counted);
    *t = (struct quality_text){0};
}

/* --- sequences --- */

static bool full(const struct reader *r)
{
    return r->ids + 2 > (size_t)r->o->tokens;
}

/* Marks what counts of ids [from, to). */
static void count_tokens(struct reader *r, size_t from, size_t to)
{
    const int32_t *id = r->out->id;
    bool inside = r->role.len == 0;
    for (size_t i = from + 1; i < to; i++) {
        size_t n = r->role.len, k = 0;
        if (n && i >= from + n + 1 && (uint32_t)id[i - n - 1] == r->turn_begin) {
            while (k < n && (uint32_t)id[i - n + k] == r->role.data[k])
                k++;
            inside |= k == n;
        }
        r->out->counted[i] = inside;
        r->out->counts += inside;
        inside &= !n || (uint32_t)id[i] != r->turn_end;
    }
}

/* Appends what of these ids there is room for; fewer than two say nothing about a next token. */
static enum status take_sequence(struct reader *r, const uint32_t *ids, size_t count,
                                 struct error *err)
{
    struct quality_text *t = r->out;
    size_t room = (size_t)r->o->tokens - r->ids;
    count = count > (size_t)r->o->context ? (size_t)r->o->context : count;
    count = count > room ? room : count;
    if (count < 2)
        return OK;
    if (t->count + 2 > r->first_cap) {
        size_t more = r->first_cap ? r->first_cap * 2 : 256;
        size_t *grown = realloc(t->first, more * sizeof *grown);
        if (!grown)
            return error_set(err, ERR_NO_MEMORY, "no memory for %zu sequences", more);
        t->first = grown;
        r->first_cap = more;
    }
    for (size_t i = 0; i < count; i++) {
        if (ids[i] >= (uint32_t)r->o->vocab)
            return error_set(err, ERR_INVALID,
                             "the tokenizer gives id %u: expected below the model's %d: are both "
                             "of one model?",
                             ids[i], r->o->vocab);
        t->id[r->ids + i] = (int32_t)ids[i];
    }
    count_tokens(r, r->ids, r->ids + count);
    t->first[t->count++] = r->ids;
    r->ids += count;
    t->first[t->count] = r->ids;
    t->longest = (int32_t)count > t->longest ? (int32_t)count : t->longest;
    return OK;
}

static enum status take_plain(struct reader *r, const char *text, size_t len, struct error *err)
{
    TRY(tokenizer_encode(r->tok, r->scratch, text, len, TOKENIZER_PLAIN, &r->line, err));
    size_t piece = (size_t)r->o->context;
    for (size_t at = 0; at < r->line.len && !full(r); at += piece)
        TRY(take_sequence(r, r->line.data + at, r->line.len - at, err));
    return OK;
}

static enum status take_messages(struct reader *r, const json_t *messages, struct error *err)
{
    struct template_rendered text;
    TRY(template_render(r->kind, messages, NULL, NULL, QUALITY_MAX_TEXT_BYTES, &text, err));
    token_ids_clear(&r->line);
    enum status st = tokenizer_encode_spans(r->tok, r->scratch, text.text, text.len, text.spans,
                                            text.span_count, &r->line, err);
    template_rendered_fini(&text);
    return st == OK ? take_sequence(r, r->line.data, r->line.len, err) : st;
}

/* --- files --- */

static enum status take_lines(struct reader *r, const char *text, struct error *err)
{
    int number = 1;
    for (const char *at = text; *at && !full(r); number++) {
        size_t len = strcspn(at, "\n");
        char what[32];
        json_t *root = NULL;
        snprintf(what, sizeof what, "line %d", number);
        enum status st = json_parse(what, at, len, &root, err);
        if (st == OK) {
            st = take_messages(r, json_object_get(root, "messages"), err);
            if (st != OK)
                error_prefix(err, "%s: ", what);
        }
        json_decref(root);
        TRY(st);
        at += len + (at[len] == '\n');
    }
    return OK;
}

/* A word's question, in the form that its part of speech asks for, and its answer. */
static enum status ask_word(const json_t *word, const char *what, json_t **messages,
                            struct error *err)
{
    const char *phrase = NULL, *answer = NULL, *part = NULL;
    TRY(json_get_string(word, what, "phrase", true, &phrase, err));
    TRY(json_get_string(word, what, "answer", true, &answer, err));
    TRY(json_get_string(word, what, "pos", true, &part, err));
    const char *form = *part == 'v'   ? "What does it mean"
                       : *part == 'a' ? "What does it mean to be"
                                      : "What is";
    *messages = json_pack("[{s:s, s:o}, {s:s, s:s}]", "role", "user", "content",
                          json_sprintf("%s %s?", form, phrase), "role", "assistant", "content",
                          answer);
    return *messages ? OK : error_set(err, ERR_NO_MEMORY, "no memory for a conversation");
}

static enum status take_dictionary(struct reader *r, const char *text, size_t len,
                                   struct error *err)
{
    char what[32];
    json_t *root = NULL;
    TRY(json_parse("dictionary", text, len, &root, err));
    enum status st = json_is_array(root)
                         ? OK
                         : error_set(err, ERR_INVALID, "expected an array of words, found %s",
                                     json_type_words(root));
    for (size_t i = 0; st == OK && i < json_array_size(root) && !full(r); i++) {
        json_t *messages = NULL;
        snprintf(what, sizeof what, "[%zu]", i);
        st = ask_word(json_array_get(root, i), what, &messages, err);
        if (st == OK)
            st = take_messages(r, messages, err);
        json_decref(messages);
    }
    json_decref(root);
    return st;
}

static bool ends_in(const char *path, const char *end)
{
    size_t n = strlen(path), m = strlen(end);
    return n >= m && strcmp(path + n - m, end) == 0;
}

static enum status learn_template(struct reader *r, struct error *err)
{
    static const char begin[] = "<|im_start|>", end[] = "<|im_end|>", role[] = "assistant\n";
    TRY(template_detect_proven(r->o->dir, r->o->manifest, &r->kind, err));
    TRY(tokenizer_id_of_token(r->tok, begin, sizeof begin - 1, &r->turn_begin, err));
    TRY(tokenizer_id_of_token(r->tok, end, sizeof end - 1, &r->turn_end, err));
    return tokenizer_encode(r->tok, r->scratch, role, sizeof role - 1, TOKENIZER_PLAIN, &r->role,
                            err);
}

static enum status take_file(struct reader *r, struct error *err)
{
    char *text = NULL;
    size_t len = 0;
    bool lines = ends_in(r->o->path, ".jsonl"), dictionary = ends_in(r->o->path, ".json");
    TRY(file_read_all(r->o->path, QUALITY_MAX_TEXT_BYTES, &text, &len, err));
    enum status st = lines || dictionary ? learn_template(r, err) : OK;
    if (st == OK) {
        st = lines        ? take_lines(r, text, err)
             : dictionary ? take_dictionary(r, text, len, err)
                          : take_plain(r, text, len, err);
        if (st != OK)
            error_prefix(err, "%s: ", r->o->path);
    }
    free(text);
    if (st == OK && r->out->counts == 0)
        st = error_set(err, ERR_INVALID, "%s: expected %s, found none", r->o->path,
                       lines || dictionary ? "answers of an assistant" : "at least two tokens");
    return st;
}

/* --- both ways --- */

static enum status begin(struct reader *r, struct error *err)
{
    *r->out = (struct quality_text){0};
    r->out->id = malloc((size_t)r->o->tokens * sizeof *r->out->id);
    r->out->counted = calloc((size_t)r->o->tokens, sizeof *r->out->counted);
    return r->out->id && r->out->counted
               ? OK
               : error_set(err, ERR_NO_MEMORY, "no memory for %d tokens", r->o->tokens);
}

enum status quality_text_read(const struct quality_text_options *o, struct quality_text *out,
                              struct error *err)
{
    struct reader r = {.o = o, .out = out};
    token_ids_init(&r.line, QUALITY_MAX_TEXT_BYTES);
    token_ids_init(&r.role, 64);
    enum status st = begin(&r, err);
    if (st == OK)
        st = tokenizer_load_proven(o->dir, o->manifest, &r.tok, err);
    if (st == OK)
        st = tokenizer_scratch_create(r.tok, &r.scratch, err);
    if (st == OK)
        st = take_file(&r, err);
    token_ids_fini(&r.line);
    token_ids_fini(&r.role);
    tokenizer_scratch_destroy(r.scratch);
    tokenizer_destroy(r.tok);
    if (st != OK)
        quality_text_fini(out);
    return st;
}

enum status quality_text_random(const struct quality_text_options *o, struct quality_text *out,
                                struct error *err)
{
    struct reader r = {.o = o, .out = out};
    uint64_t state = 88172645463325252;
    uint32_t *ids = malloc((size_t)o->context * sizeof *ids);
    enum status st = ids ? begin(&r, err) : error_set(err, ERR_NO_MEMORY, "no memory for ids");
    while (st == OK && !full(&r)) {
        for (int32_t i = 0; i < o->context; i++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ids[i] = (uint32_t)((state >> 20) % (uint64_t)o->vocab);
        }
        st = take_sequence(&r, ids, (size_t)o->context, err);
    }
    free(ids);
    if (st != OK)
        quality_text_fini(out);
    return st;
}

char *quality_text_shipped(const char *dir)
{
    static const char name[] = "/../covered.json";
    size_t size = strlen(dir) + sizeof name;
    char *path = malloc(size);
    if (!path)
        return NULL;
    snprintf(path, size, "%s%s", dir, name);
    if (access(path, R_OK) == 0)
        return path;
    free(path);
    return NULL;
}
