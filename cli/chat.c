/* Prompts and conversations: see chat.h. */
#include "cli/chat.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "cli/display.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_PROMPT_BYTES = 64 << 20, MAX_IDS = 1 << 24 };

/* Ctrl-C during an answer ends the answer; at the prompt it ends the program. */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

/* --- one answer --------------------------------------------------------------------------------
 */

struct answer {
    const struct chat_text *text;
    struct detok detok;
    struct buf piece; /* text not yet written */
    struct display display;
    bool done;
    enum finish finish;
    int32_t tokens;
    int64_t first_ns; /* when the first token came */
};

static void on_token(void *user, int32_t token, enum finish finish)
{
    struct answer *a = user;
    a->finish = finish;
    a->done = finish != FINISH_NONE;
    if (token >= 0) {
        if (a->tokens++ == 0)
            a->first_ns = clock_now_ns();
        if ((uint32_t)token == a->text->think_open)
            display_thinking(&a->display, true);
        else if ((uint32_t)token == a->text->think_close)
            display_thinking(&a->display, false);
        else if (finish != FINISH_STOP)
            detok_push(&a->detok, (uint32_t)token, &a->piece, NULL);
    }
    if (a->done)
        detok_flush(&a->detok, &a->piece, NULL);
    display_text(&a->display, a->piece.data ? a->piece.data : "", a->piece.len);
    buf_clear(&a->piece);
}

static enum status run_to_end(struct engine *e, struct answer *a, uint64_t id, struct error *err)
{
    for (bool ran = true; ran && !a->done;) {
        TRY(engine_step(e, &ran, err));
        if (interrupted && !a->done)
            engine_cancel(e, id);
    }
    return OK;
}

/* Streams one answer to `ids` on standard output; *whole takes its text. */
static enum status answer_ids(struct engine *e, const struct model *m, const struct chat_options *o,
                              const struct token_ids *ids, bool thinking, struct buf *whole,
                              struct error *err)
{
    if (ids->len >= (size_t)m->limits.context)
        return error_set(err, ERR_LIMIT,
                         "the prompt of %zu tokens leaves no room in the context of %d", ids->len,
                         m->limits.context);
    int32_t room = m->limits.context - (int32_t)ids->len;
    struct answer a = {.text = o->text};
    buf_init(&a.piece, MAX_PROMPT_BYTES);
    display_init(&a.display, MAX_PROMPT_BYTES);
    detok_init(&a.detok, o->text->tokenizer, true);
    display_thinking(&a.display, thinking);
    struct request q = {
        .prompt = (const int32_t *)ids->data,
        .prompt_len = (int32_t)ids->len,
        .max_tokens = o->max_tokens > 0 && o->max_tokens < room ? o->max_tokens : room,
        .sampling = o->sampling,
        .shaping = o->shaping,
        .on_token = on_token,
        .user = &a,
    };
    uint64_t id;
    int64_t start = clock_now_ns();
    enum status st = engine_submit(e, &q, &id, err);
    if (st == OK)
        st = run_to_end(e, &a, id, err);
    display_end(&a.display);
    if (st == OK && a.finish == FINISH_ERROR)
        st = error_set(err, ERR_INVALID,
                       "the model's logits are not finite: the checkpoint is broken");
    if (st == OK && a.tokens > 1)
        log_info("%zu prompt tokens, first token after %.0f ms, then %.1f tokens/s; seed %llu",
                 ids->len, (double)(a.first_ns - start) * 1e-6,
                 (double)(a.tokens - 1) * 1e9 / (double)(clock_now_ns() - a.first_ns),
                 (unsigned long long)o->sampling.seed);
    if (st == OK && whole)
        st = buf_append(whole, a.display.whole.data, a.display.whole.len, err);
    buf_fini(&a.piece);
    display_fini(&a.display);
    return st;
}

/* --- conversations -----------------------------------------------------------------------------
 */

static enum status add_message(json_t *messages, const char *role, const char *text, size_t len,
                               struct error *err)
{
    json_t *content = json_stringn(text, len);
    if (!content)
        return error_set(err, ERR_INVALID, "the %s message is not valid UTF-8", role);
    json_array_append_new(messages, json_pack("{s:s, s:o}", "role", role, "content", content));
    return OK;
}

static enum status ask(struct engine *e, struct model *m, struct chat_options *o, json_t *messages,
                       const char *text, size_t len, struct error *err)
{
    struct token_ids ids;
    struct buf whole;
    bool thinking = false;
    token_ids_init(&ids, MAX_IDS);
    buf_init(&whole, MAX_PROMPT_BYTES);
    enum status st;
    if (o->raw) {
        st = tokenizer_encode(o->text->tokenizer, o->text->scratch, text, len, TOKENIZER_PLAIN,
                              &ids, err);
    } else {
        st = add_message(messages, "user", text, len, err);
        json_t *kwargs = o->no_think ? json_pack("{s:b}", "enable_thinking", 0) : NULL;
        if (st == OK)
            st = chat_encode(o->text, messages, NULL, kwargs, &ids, &thinking, err);
        json_decref(kwargs);
    }
    if (st == OK && ids.len == 0)
        st = error_set(err, ERR_INVALID, "the prompt is empty");
    if (st == OK)
        st = answer_ids(e, m, o, &ids, thinking, &whole, err);
    if (st == OK && !o->raw)
        st = add_message(messages, "assistant", whole.data ? whole.data : "", whole.len, err);
    if (!o->fixed_seed)
        o->sampling.seed++;
    token_ids_fini(&ids);
    buf_fini(&whole);
    return st;
}

static enum status read_all(FILE *in, struct buf *b, struct error *err)
{
    char chunk[65536];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, in)) > 0)
        TRY(buf_append(b, chunk, n, err));
    if (ferror(in))
        return error_errno(err, errno, "standard input");
    while (b->len > 0 && b->data[b->len - 1] == '\n')
        b->data[--b->len] = '\0';
    return OK;
}

/* A terminal: one line a turn; a refused turn (too long, not UTF-8) does not end the conversation.
 */
static enum status converse(struct engine *e, struct model *m, struct chat_options *o,
                            json_t *messages, struct error *err)
{
    char *line = NULL;
    size_t cap = 0;
    enum status st = OK;
    fputs("Ask, or end with Ctrl-D; Ctrl-C ends an answer.\n", stderr);
    while (st != ERR_PEER) {
        interrupted = 0;
        fputs("> ", stderr);
        ssize_t n = getline(&line, &cap, stdin);
        if (n < 0)
            break;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            line[--n] = '\0';
        if (n == 0)
            continue;
        size_t turns = json_array_size(messages);
        st = ask(e, m, o, messages, line, (size_t)n, err);
        if (st != OK && st != ERR_PEER) {
            fprintf(stderr, "%s\n", err->msg);
            while (json_array_size(messages) > turns)
                json_array_remove(messages, turns);
            st = OK;
        }
    }
    fputc('\n', stderr);
    free(line);
    return st == ERR_PEER ? st : OK;
}

enum status chat_run(struct engine *e, struct model *m, void *arg, struct error *err)
{
    struct chat_options *o = arg;
    json_t *messages = json_array();
    enum status st = OK;
    struct sigaction act = {.sa_handler = on_interrupt};
    if (isatty(STDIN_FILENO))
        sigaction(SIGINT, &act, NULL);
    if (o->system)
        st = add_message(messages, "system", o->system, strlen(o->system), err);
    if (st == OK && o->prompt) {
        st = ask(e, m, o, messages, o->prompt, strlen(o->prompt), err);
    } else if (st == OK && isatty(STDIN_FILENO)) {
        st = converse(e, m, o, messages, err);
    } else if (st == OK) {
        struct buf text;
        buf_init(&text, MAX_PROMPT_BYTES);
        st = read_all(stdin, &text, err);
        if (st == OK)
            st = ask(e, m, o, messages, text.data ? text.data : "", text.len, err);
        buf_fini(&text);
    }
    json_decref(messages);
    return st;
}
