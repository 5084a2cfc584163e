/*
 * Any bytes as the response of a server to `witan bench`, whole and in pieces whose size the first
 * byte says: both come to the same, and nothing is taken past the response's end.
 */
#include "base/check.h"
#include "cli/load_answer.h"
#include "cli/load_response.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    enum status st;
    size_t body, events, tokens;
    int status;
    bool done;
};

struct reader {
    struct load_response response;
    struct load_sse sse;
    struct load_answer answer;
    struct outcome *out;
};

static enum status on_event(void *user, const char *data, size_t len, struct error *err)
{
    struct reader *r = user;
    bool tokens;
    CHECK(data[len] == '\0', "an event without an end");
    r->out->events++;
    TRY(load_answer_event(&r->answer, data, len, &tokens, err));
    r->out->tokens += tokens;
    return OK;
}

static void feed(struct reader *r, const char *data, size_t len)
{
    struct error err;
    for (size_t at = 0, used; at < len && r->out->st == OK && !r->response.done; at += used) {
        const char *body;
        size_t body_len;
        r->out->st = load_response_feed(&r->response, data + at, len - at, &used, &body, &body_len,
                                        &err);
        if (r->out->st != OK)
            return;
        CHECK(used > 0 && used <= len - at, "%zu of %zu bytes used", used, len - at);
        CHECK(body_len == 0 || (body >= data + at && body + body_len <= data + at + used),
              "a body outside the bytes");
        r->out->body += body_len;
        if (body_len > 0)
            r->out->st = load_sse_feed(&r->sse, body, body_len, on_event, r, &err);
    }
}

static struct outcome read_in(const char *data, size_t len, size_t piece)
{
    struct outcome out = {0};
    struct reader r = {.out = &out};
    char words[64];
    load_response_init(&r.response);
    load_sse_init(&r.sse);
    for (size_t at = 0; at < len; at += piece)
        feed(&r, data + at, piece < len - at ? piece : len - at);
    if (out.st == OK)
        out.st = load_response_end(&r.response, NULL);
    out.status = r.response.status;
    out.done = r.response.done;
    load_answer_error(data, len, words, sizeof words);
    CHECK(!strchr(words, '\n'), "two lines");
    load_response_fini(&r.response);
    load_sse_fini(&r.sse);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const char *text = (const char *)data + 1;
    struct outcome whole = read_in(text, size - 1, size);
    struct outcome cut = read_in(text, size - 1, 1 + data[0] % 32);
    CHECK(whole.st == cut.st && whole.status == cut.status, "in pieces %d, whole %d", cut.st,
          whole.st);
    /* A bad event ends the reading where it stands: whole, the body's last byte may be taken. */
    CHECK(whole.st != OK || whole.done == cut.done, "done in pieces %d, whole %d", cut.done,
          whole.done);
    CHECK(whole.events == cut.events && whole.tokens == cut.tokens, "%zu and %zu events",
          cut.events, whole.events);
    CHECK(whole.st != OK || whole.body == cut.body, "%zu and %zu bytes", cut.body, whole.body);
    return 0;
}
