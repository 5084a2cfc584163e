/*
 * `witan chat`: a conversation with a coordinator over gRPC. On a terminal turn by turn; else all
 * of standard input is one message and the answer is all that is written.
 */
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/display.h"
#include "cli/retry.h"

#include "base/check.h"
#include "proto/inference.pb-c.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: witan chat [FLAG...] [MESSAGE]\n"
    "Asks MESSAGE, or standard input when it is not a terminal, or asks for messages on a "
    "terminal.\n"
    "There a line that ends in \\ goes on, and a block stands between lines of \"\"\"; /reset "
    "forgets\n"
    "the conversation, /exit or Ctrl-D ends it, Ctrl-C ends an answer.\n"
    "  --system TEXT      the system message\n"
    "  --no-think         ask the model not to think\n"
    "  --max-tokens N     of an answer (default: up to the context)\n"
    "  --temperature X, --top-p X, --top-k N, --min-p X, --seed N, --repetition-penalty X\n"
    "                     sampling (default: the checkpoint's; seed random)\n"
    "  --presence-penalty X, --frequency-penalty X, --min-tokens N\n"
    "                     the same (default: 0)\n";

enum { MAX_TEXT_BYTES = 16 << 20, MAX_TURNS = 4096, MAX_POSITION = 256 };

typedef Witan__Inference__V1__Message message;
typedef Witan__Inference__V1__GenerateRequest generate_request;
typedef Witan__Inference__V1__GenerateResponse response;

struct chat {
    struct client_options where;
    const char *system, *prompt;
    bool no_think;
    int32_t max_tokens;
    Witan__Inference__V1__Sampling sampling;
    Witan__Inference__V1__Float temperature, top_p, min_p, repetition, presence, frequency;
    Witan__Inference__V1__Int top_k;
    Witan__Inference__V1__Seed seed;
    struct client *client;
    message *turns[MAX_TURNS]; /* each and its texts owned */
    size_t turn_count;
};

/* Ctrl-C during an answer ends the answer. */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

/* --- the command line --------------------------------------------------------------------------
 */

static int bad(const char *flag, const char *value)
{
    fprintf(stderr, "witan chat: %s: expected a number, found %s\n", flag,
            value ? value : "nothing");
    return -1;
}

static int take_float(const char *flag, const char *value, Witan__Inference__V1__Float *f,
                      Witan__Inference__V1__Float **out)
{
    char *end = NULL;
    f->value = value ? strtof(value, &end) : 0;
    if (!value || !*value || *end)
        return bad(flag, value);
    *out = f;
    return 1;
}

static int take_count(const char *flag, const char *value, long min, int32_t *out)
{
    char *end = NULL;
    errno = 0;
    long n = value ? strtol(value, &end, 10) : 0;
    if (!value || !*value || *end || errno || n < min || n > INT32_MAX)
        return bad(flag, value);
    *out = (int32_t)n;
    return 1;
}

/* 1: taken with its value; 0: not one of these; -1: bad, said. */
static int take_number(struct chat *c, const char *flag, const char *value)
{
    const struct {
        const char *flag;
        Witan__Inference__V1__Float *value, **field;
    } floats[] = {
        {"--temperature", &c->temperature, &c->sampling.temperature},
        {"--top-p", &c->top_p, &c->sampling.top_p},
        {"--min-p", &c->min_p, &c->sampling.min_p},
        {"--repetition-penalty", &c->repetition, &c->sampling.repetition_penalty},
        {"--presence-penalty", &c->presence, &c->sampling.presence_penalty},
        {"--frequency-penalty", &c->frequency, &c->sampling.frequency_penalty},
    };
    for (size_t i = 0; i < COUNT_OF(floats); i++)
        if (strcmp(flag, floats[i].flag) == 0)
            return take_float(flag, value, floats[i].value, floats[i].field);
    if (strcmp(flag, "--min-tokens") == 0)
        return take_count(flag, value, 0, &c->sampling.min_tokens);
    if (strcmp(flag, "--max-tokens") == 0)
        return take_count(flag, value, 1, &c->max_tokens);
    if (strcmp(flag, "--top-k") == 0) {
        c->sampling.top_k = &c->top_k;
        return take_count(flag, value, 0, &c->top_k.value);
    }
    if (strcmp(flag, "--seed") == 0) {
        char *end = NULL;
        errno = 0;
        c->seed.value = value ? strtoull(value, &end, 10) : 0;
        c->sampling.seed = &c->seed;
        return !value || !*value || *end || errno || *value == '-' ? bad(flag, value) : 1;
    }
    return 0;
}

static void init(struct chat *c)
{
    *c = (struct chat){0};
    client_init(&c->where);
    witan__inference__v1__sampling__init(&c->sampling);
    witan__inference__v1__float__init(&c->temperature);
    witan__inference__v1__float__init(&c->top_p);
    witan__inference__v1__float__init(&c->min_p);
    witan__inference__v1__float__init(&c->repetition);
    witan__inference__v1__float__init(&c->presence);
    witan__inference__v1__float__init(&c->frequency);
    witan__inference__v1__int__init(&c->top_k);
    witan__inference__v1__seed__init(&c->seed);
}

/* 0: go on; else the exit code. */
static int parse(struct chat *c, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        int taken = client_flag(&c->where, argc, argv, &i);
        if (taken == 0 && (taken = take_number(c, argv[i], value)) > 0)
            i++;
        if (taken < 0)
            return 2;
        if (taken > 0)
            continue;
        if (strcmp(argv[i], "--help") == 0) {
            printf("%s%s", usage, client_help);
            exit(0);
        }
        if (strcmp(argv[i], "--no-think") == 0) {
            c->no_think = true;
        } else if (strcmp(argv[i], "--system") == 0 && value) {
            c->system = value;
            i++;
        } else if (argv[i][0] == '-' && argv[i][1] == '-') {
            fprintf(stderr, "witan chat: unknown flag %s; `witan chat --help` lists them\n",
                    argv[i]);
            return 2;
        } else if (c->prompt) {
            fprintf(stderr, "witan chat: one MESSAGE only; quote it\n");
            return 2;
        } else {
            c->prompt = argv[i];
        }
    }
    return 0;
}

/* --- the conversation --------------------------------------------------------------------------
 */

static void drop_turns(struct chat *c, size_t keep)
{
    while (c->turn_count > keep) {
        message *m = c->turns[--c->turn_count];
        free(m->role);
        free(m->content);
        free(m);
    }
}

static enum status add_turn(struct chat *c, const char *role, const char *text, struct error *err)
{
    if (c->turn_count == MAX_TURNS)
        return error_set(err, ERR_LIMIT, "the conversation has %d messages: /reset", MAX_TURNS);
    message *m = check_calloc(1, sizeof *m);
    witan__inference__v1__message__init(m);
    m->role = strdup(role);
    m->content = strdup(text);
    CHECK(m->role && m->content, "no memory for a message of %zu bytes", strlen(text));
    c->turns[c->turn_count++] = m;
    return OK;
}

static enum status begin(struct chat *c, struct error *err)
{
    drop_turns(c, 0);
    return c->system ? add_turn(c, "system", c->system, err) : OK;
}

/* One answer as it comes, by one call or, where the stream broke, several. */
struct listener {
    struct display display;
    char position[MAX_POSITION]; /* up to which it has come; "": none was told */
    bool broke;                  /* nothing has come since it broke off */
};

static void on_message(void *user, const ProtobufCMessage *m)
{
    struct listener *l = user;
    struct display *d = &l->display;
    const response *r = (const response *)m;
    if (l->broke && d->terminal)
        fputs("[reconnected]", stderr);
    l->broke = false;
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
static enum status hear_out(struct chat *c, generate_request *request, struct listener *l,
                            struct error *err)
{
    struct client_call call = {
        .method = "/witan.inference.v1.Inference/Generate",
        .request = &request->base,
        .reply = &witan__inference__v1__generate_response__descriptor,
        .on_message = on_message,
        .user = l,
        .interrupted = &interrupted,
    };
    char key[33];
    retry_make_key(key);
    request->idempotency_key = key;
    for (int32_t tries = 0;; tries++) {
        request->resume_after = l->position;
        enum status st = client_call(c->client, &call, err);
        bool again = st == ERR_PEER && *l->position && tries < RETRY_TIMES;
        if (!again)
            return st;
        if (!retry_sleep(tries, &interrupted))
            return error_set(err, ERR_CANCELLED, "cancelled");
        l->broke = true;
    }
}

/* Asks and shows the answer; both join the conversation, unless the question was refused. An answer
 * that was interrupted stays as far as it came. */
static enum status ask(struct chat *c, const char *text, struct error *err)
{
    size_t before = c->turn_count;
    TRY(add_turn(c, "user", text, err));
    Witan__Inference__V1__Conversation talk = WITAN__INFERENCE__V1__CONVERSATION__INIT;
    generate_request request = WITAN__INFERENCE__V1__GENERATE_REQUEST__INIT;
    talk.messages = c->turns;
    talk.n_messages = c->turn_count;
    talk.no_thinking = c->no_think;
    request.input_case = WITAN__INFERENCE__V1__GENERATE_REQUEST__INPUT_CONVERSATION;
    request.conversation = &talk;
    request.max_tokens = c->max_tokens;
    request.sampling = &c->sampling;
    struct listener l = {0};
    struct display *d = &l.display;
    display_init(d, MAX_TEXT_BYTES);
    enum status st = hear_out(c, &request, &l, err);
    bool shown = d->begun || d->whole.len > 0;
    if (st == OK || shown)
        display_end(d);
    if (st == OK || (st == ERR_CANCELLED && shown))
        st = add_turn(c, "assistant", d->whole.data ? d->whole.data : "", err);
    else
        drop_turns(c, before);
    display_fini(d);
    return st;
}

/* --- input -------------------------------------------------------------------------------------
 */

/* Without the newline. False at the end of input, or when Ctrl-C interrupted the line. */
static bool read_line(const char *prompt, char **line, size_t *cap)
{
    fputs(prompt, stderr);
    ssize_t n = getline(line, cap, stdin);
    if (n < 0)
        return false;
    while (n > 0 && ((*line)[n - 1] == '\n' || (*line)[n - 1] == '\r'))
        (*line)[--n] = '\0';
    return true;
}

/* One message: a line, lines that end in \, or a block between lines of """. */
static bool read_message(struct buf *out, char **line, size_t *cap)
{
    static const char quotes[] = "\"\"\"";
    buf_clear(out);
    if (!read_line("> ", line, cap))
        return false;
    if (strcmp(*line, quotes) == 0) {
        while (read_line(". ", line, cap)) {
            if (strcmp(*line, quotes) == 0)
                return true;
            buf_printf(out, NULL, "%s%s", out->len > 0 ? "\n" : "", *line);
        }
        return false;
    }
    for (;;) {
        size_t len = strlen(*line);
        bool more = len > 0 && (*line)[len - 1] == '\\';
        buf_append(out, *line, more ? len - 1 : len, NULL);
        if (!more)
            return true;
        buf_puts(out, "\n", NULL);
        if (!read_line(". ", line, cap))
            return false;
    }
}

/* Ctrl-C at the prompt begins the line again; a refused turn does not end the conversation. */
static enum status converse(struct chat *c, struct error *err)
{
    struct buf text;
    char *line = NULL;
    size_t cap = 0;
    enum status st = OK;
    buf_init(&text, MAX_TEXT_BYTES);
    fputs("Ask; /reset begins anew, Ctrl-C ends an answer, Ctrl-D the conversation.\n", stderr);
    for (;;) {
        interrupted = 0;
        bool got = read_message(&text, &line, &cap);
        if (!got && interrupted && !feof(stdin)) {
            clearerr(stdin);
            fputc('\n', stderr);
            continue;
        }
        if (!got || strcmp(text.data ? text.data : "", "/exit") == 0)
            break;
        if (!text.data || text.len == 0)
            continue;
        if (strcmp(text.data, "/reset") == 0)
            st = begin(c, err);
        else
            st = ask(c, text.data, err);
        if (st != OK && st != ERR_CANCELLED)
            fprintf(stderr, "witan chat: %s\n", err->msg);
    }
    fputc('\n', stderr);
    free(line);
    buf_fini(&text);
    return OK;
}

static enum status ask_input(struct chat *c, struct error *err)
{
    struct buf text;
    char chunk[65536];
    size_t n;
    enum status st = OK;
    buf_init(&text, MAX_TEXT_BYTES);
    while (st == OK && (n = fread(chunk, 1, sizeof chunk, stdin)) > 0)
        st = buf_append(&text, chunk, n, err);
    if (st == OK && ferror(stdin))
        st = error_errno(err, errno, "standard input");
    char *words = text.data ? text.data : "";
    while (text.len > 0 && words[text.len - 1] == '\n')
        words[--text.len] = '\0';
    if (st == OK && (text.len == 0 || strlen(words) != text.len))
        st = error_set(err, ERR_INVALID, "standard input: expected a message, found %s",
                       text.len == 0 ? "nothing" : "NUL characters");
    if (st == OK)
        st = ask(c, words, err);
    buf_fini(&text);
    return st;
}

int cmd_chat(int argc, char **argv)
{
    static struct chat c; /* its table of turns is large */
    struct error err;
    init(&c);
    int code = parse(&c, argc, argv);
    if (code != 0)
        return code;
    struct sigaction act = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &act, NULL);
    enum status st = client_open(&c.where, &c.client, &err);
    if (st == OK)
        st = begin(&c, &err);
    if (st == OK && c.prompt)
        st = ask(&c, c.prompt, &err);
    else if (st == OK && isatty(STDIN_FILENO))
        st = converse(&c, &err);
    else if (st == OK)
        st = ask_input(&c, &err);
    if (st != OK)
        fprintf(stderr, "witan chat: %s\n", err.msg);
    drop_turns(&c, 0);
    client_close(c.client);
    return st == OK ? 0 : 1;
}
