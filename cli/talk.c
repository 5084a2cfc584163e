/* A conversation with a coordinator: see talk.h. */
#include "cli/talk.h"
#include "cli/display.h"
#include "cli/retry.h"

#include "base/check.h"
#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_POSITION = 256 };

typedef Witan__Inference__V1__Message message;
typedef Witan__Inference__V1__GenerateRequest generate_request;
typedef Witan__Inference__V1__GenerateResponse response;

volatile sig_atomic_t talk_interrupted;

void talk_init(struct talk *t)
{
    *t = (struct talk){0};
    witan__inference__v1__sampling__init(&t->sampling);
    witan__inference__v1__float__init(&t->temperature);
    witan__inference__v1__float__init(&t->top_p);
    witan__inference__v1__float__init(&t->min_p);
    witan__inference__v1__float__init(&t->repetition);
    witan__inference__v1__float__init(&t->presence);
    witan__inference__v1__float__init(&t->frequency);
    witan__inference__v1__int__init(&t->top_k);
    witan__inference__v1__seed__init(&t->seed);
}

/* --- turns -------------------------------------------------------------------------------------
 */

static char *copy_of(const char *text)
{
    char *copy = strdup(text);
    CHECK(copy, "no memory for a message of %zu bytes", strlen(text));
    return copy;
}

static message *make_turn(const char *role, const char *text)
{
    message *m = check_calloc(1, sizeof *m);
    witan__inference__v1__message__init(m);
    m->role = copy_of(role);
    m->content = copy_of(text);
    return m;
}

static void free_turn(message *m)
{
    if (!m)
        return;
    free(m->role);
    free(m->content);
    free(m);
}

static void drop(struct talk *t, size_t keep)
{
    while (t->turn_count > keep)
        free_turn(t->turns[--t->turn_count]);
}

void talk_fini(struct talk *t)
{
    drop(t, 0);
    free(t->system);
}

void talk_begin(struct talk *t)
{
    drop(t, 0);
    if (t->system)
        t->turns[t->turn_count++] = make_turn("system", t->system);
}

static bool has_system(const struct talk *t)
{
    return t->turn_count > 0 && strcmp(t->turns[0]->role, "system") == 0;
}

void talk_system(struct talk *t, const char *text)
{
    char *copy = text ? copy_of(text) : NULL;
    if (has_system(t)) {
        free_turn(t->turns[0]);
        t->turn_count--;
        memmove(t->turns, t->turns + 1, t->turn_count * sizeof *t->turns);
    }
    free(t->system);
    t->system = copy;
    if (!copy)
        return;
    drop(t, TALK_MAX_TURNS - 1);
    memmove(t->turns + 1, t->turns, t->turn_count * sizeof *t->turns);
    t->turns[0] = make_turn("system", copy);
    t->turn_count++;
}

enum status talk_add(struct talk *t, const char *role, const char *text, struct error *err)
{
    if (t->turn_count == TALK_MAX_TURNS)
        return error_set(err, ERR_LIMIT, "the conversation has %d messages: begin a new one",
                         TALK_MAX_TURNS);
    t->turns[t->turn_count++] = make_turn(role, text);
    return OK;
}

/* Where the last question stands; turn_count: nowhere. */
static size_t question_at(const struct talk *t)
{
    for (size_t i = t->turn_count; i > 0; i--)
        if (strcmp(t->turns[i - 1]->role, "user") == 0)
            return i - 1;
    return t->turn_count;
}

const char *talk_question(const struct talk *t)
{
    size_t at = question_at(t);
    return at < t->turn_count ? t->turns[at]->content : NULL;
}

bool talk_undo(struct talk *t)
{
    size_t at = question_at(t);
    bool found = at < t->turn_count;
    drop(t, at);
    return found;
}

/* --- asking ------------------------------------------------------------------------------------
 */

/* One answer as it comes, by one call or, where the stream broke, several. */
struct listener {
    struct display display;
    char position[MAX_POSITION]; /* up to which it has come; "": none was told */
    bool broke;                  /* nothing has come since it broke off */
    struct talk_usage usage;
    uint64_t seed;
};

static void on_finished(struct listener *l, const Witan__Inference__V1__Finished *f)
{
    l->usage.prompt_tokens = (uint64_t)f->prompt_tokens;
    l->usage.cached_tokens = (uint64_t)f->cached_tokens;
    l->usage.completion_tokens = (uint64_t)f->completion_tokens;
    l->usage.answers = 1;
    l->seed = f->seed;
}

static void on_message(void *user, const ProtobufCMessage *m)
{
    struct listener *l = user;
    struct display *d = &l->display;
    const response *r = (const response *)m;
    if (l->broke && d->terminal)
        fputs("[reconnected]", stderr);
    l->broke = false;
    if (r->body_case == WITAN__INFERENCE__V1__GENERATE_RESPONSE__BODY_FINISHED)
        on_finished(l, r->finished);
    if (r->body_case != WITAN__INFERENCE__V1__GENERATE_RESPONSE__BODY_DELTA)
        return;
    if (strlen(r->delta->position) < sizeof l->position)
        strcpy(l->position, r->delta->position);
    if (*r->delta->reasoning) {
        if (!d->thinking)
            display_thinking(d, true);
        display_text(d, r->delta->reasoning, strlen(r->delta->reasoning));
    }
    if (*r->delta->text) {
        if (d->thinking)
            display_thinking(d, false);
        display_text(d, r->delta->text, strlen(r->delta->text));
    }
}

/* A stream that breaks is asked for again, from where it was. One that has told nothing yet is not:
 * where no server is, that is said at once. */
static enum status hear_out(struct talk *t, generate_request *request, struct listener *l,
                            struct error *err)
{
    struct client_call call = {
        .method = "/witan.inference.v1.Inference/Generate",
        .request = &request->base,
        .reply = &witan__inference__v1__generate_response__descriptor,
        .on_message = on_message,
        .user = l,
        .interrupted = &talk_interrupted,
    };
    char key[33];
    retry_make_key(key);
    request->idempotency_key = key;
    for (int32_t tries = 0;; tries++) {
        request->resume_after = l->position;
        enum status st = client_call(t->client, &call, err);
        bool again = st == ERR_PEER && *l->position && tries < RETRY_TIMES;
        if (!again)
            return st;
        if (!retry_sleep(tries, &talk_interrupted))
            return error_set(err, ERR_CANCELLED, "cancelled");
        l->broke = true;
    }
}

static void count(struct talk *t, const struct listener *l, double seconds)
{
    t->last = l->usage;
    t->last.seconds = seconds;
    t->last_seed = l->seed;
    t->all.answers += l->usage.answers;
    t->all.prompt_tokens += l->usage.prompt_tokens;
    t->all.cached_tokens += l->usage.cached_tokens;
    t->all.completion_tokens += l->usage.completion_tokens;
    t->all.seconds += seconds;
}

/* The answer to the turns so far. */
static enum status answer(struct talk *t, struct listener *l, struct error *err)
{
    Witan__Inference__V1__Conversation all = WITAN__INFERENCE__V1__CONVERSATION__INIT;
    generate_request request = WITAN__INFERENCE__V1__GENERATE_REQUEST__INIT;
    all.messages = t->turns;
    all.n_messages = t->turn_count;
    all.no_thinking = t->no_think;
    request.input_case = WITAN__INFERENCE__V1__GENERATE_REQUEST__INPUT_CONVERSATION;
    request.conversation = &all;
    request.max_tokens = t->max_tokens;
    request.sampling = &t->sampling;
    int64_t start = clock_now_ns();
    enum status st = hear_out(t, &request, l, err);
    if (l->usage.answers > 0)
        count(t, l, (double)(clock_now_ns() - start) * 1e-9);
    return st;
}

enum status talk_ask(struct talk *t, const char *text, struct error *err)
{
    size_t before = t->turn_count;
    struct error full;
    TRY(talk_add(t, "user", text, err));
    struct listener l = {0};
    struct display *d = &l.display;
    display_init(d, TALK_MAX_TEXT_BYTES);
    enum status st = answer(t, &l, err), kept = OK;
    bool shown = d->begun || d->whole.len > 0;
    if (st == OK || shown)
        display_end(d);
    if (st == OK || (st == ERR_CANCELLED && shown))
        kept = talk_add(t, "assistant", d->whole.data ? d->whole.data : "", &full);
    else
        drop(t, before);
    if (st == OK && kept != OK)
        *err = full;
    display_fini(d);
    return st == OK ? kept : st;
}

enum status talk_retry(struct talk *t, struct error *err)
{
    size_t at = question_at(t), kept = t->turn_count;
    if (at == t->turn_count)
        return error_set(err, ERR_NOT_FOUND, "nothing was asked yet");
    message *question = t->turns[at], *last = at + 1 < kept ? t->turns[at + 1] : NULL;
    drop(t, at + 2);
    t->turn_count = at;
    enum status st = talk_ask(t, question->content, err);
    if (t->turn_count > at) {
        free_turn(question);
        free_turn(last);
        return st;
    }
    t->turns[t->turn_count++] = question;
    if (last)
        t->turns[t->turn_count++] = last;
    return st;
}
