/* `witan status`: what a coordinator says of its groups and ranks, once or again and again. */
#include "cli/status.h"
#include "cli/cli.h"
#include "cli/terminal.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: witan status [--json] [--watch [SECONDS]] [FLAG...]\n"
    "Shows the coordinator's groups and ranks, and what a `witan serve` here keeps of them. Exit "
    "code "
    "0: every\n"
    "group is ready; 3: one is not; 1: the coordinator cannot be reached.\n"
    "  --json             as JSON\n"
    "  --watch [SECONDS]  again every so many seconds (0.1 to 3600, default 2), with what came to "
    "pass\n"
    "                     meanwhile: tokens, requests and steps a second. On a terminal q or "
    "Ctrl-C "
    "ends\n"
    "                     it, and arrows show what lies below; elsewhere pages follow each other\n"
    "  --run-dir DIR      of the `witan serve` that runs in this folder (default: the detached one "
    "of this user,\n"
    "                     where no address is given)\n";

enum { TIMEOUT_MS = 5000, COLUMNS = 100 };

typedef Witan__Inference__V1__GetStatusResponse reply;

/* --- asking ------------------------------------------------------------------------------------
 */

static void on_reply(void *user, const ProtobufCMessage *message)
{
    reply **out = user;
    size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = check_calloc(1, len + 1);
    protobuf_c_message_pack(message, bytes);
    status_free(*out);
    *out = witan__inference__v1__get_status_response__unpack(NULL, len, bytes);
    CHECK(*out, "a message of %zu bytes cannot be read again", len);
    free(bytes);
}

void status_free(reply *r)
{
    if (r)
        witan__inference__v1__get_status_response__free_unpacked(r, NULL);
}

static enum status ask(const struct status_source *s, const struct client_options *where,
                       reply **out, struct error *err)
{
    struct client *client;
    Witan__Inference__V1__GetStatusRequest request = WITAN__INFERENCE__V1__GET_STATUS_REQUEST__INIT;
    struct client_call call = {
        .method = "/witan.inference.v1.Admin/GetStatus",
        .request = &request.base,
        .reply = &witan__inference__v1__get_status_response__descriptor,
        .on_message = on_reply,
        .user = out,
        .timeout_ms = TIMEOUT_MS,
        .interrupted = s->interrupted,
    };
    TRY(client_open(where, &client, err));
    enum status st = client_call(client, &call, err);
    client_close(client);
    if (st == OK && !*out)
        st = error_set(err, ERR_PEER, "%s: the call ended without an answer", where->address);
    return st;
}

enum status status_ask(const struct client_options *where, reply **out, struct error *err)
{
    const struct status_source s = {.where = *where};
    return ask(&s, where, out, err);
}

/* The coordinator of the `witan serve` that is known, where no other address was given. */
static enum status find_and_ask(const struct status_source *s, const json_t *serve, reply **out,
                                struct error *err)
{
    struct client_options where = s->where;
    if (s->anywhere && serve) {
        where.address = status_serve_address(serve);
        if (!where.address)
            return error_set(
                err, ERR_NOT_FOUND,
                "this `witan serve` has no gRPC door: it is starting, or listen.grpc is "
                "off");
    }
    return ask(s, &where, out, err);
}

/* --- showing -----------------------------------------------------------------------------------
 */

static bool is_ready(const reply *r)
{
    bool ready = r->n_groups > 0;
    for (size_t i = 0; i < r->n_groups; i++)
        ready &= strcmp(r->groups[i]->state, "ready") == 0;
    return ready;
}

static void put_json(FILE *f, json_t *all)
{
    CHECK(all, "no memory for the status");
    json_dumpf(all, f, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    fputc('\n', f);
    json_decref(all);
}

/* `r` NULL: the coordinator did not answer. */
static void put(const struct status_source *s, const struct status_page *p, const reply *r,
                json_t *serve)
{
    if (s->json && r)
        put_json(p->f, status_json(r, serve));
    else if (s->json && serve)
        put_json(p->f, json_pack("{s:O}", "serve", serve));
    if (s->json)
        return;
    if (r)
        status_show(p, r);
    if (serve)
        status_serve_show(p, serve);
}

/* What is known of `witan serve` is shown whether or not its coordinator answers. */
int status_once(const struct status_source *s, const struct status_page *p, reply **latest,
                struct error *err)
{
    json_t *serve = NULL;
    reply *r = NULL;
    enum status st = OK;
    if (s->run_dir || s->anywhere)
        st = status_serve_read(s->run_dir, &serve, err);
    if (st == OK)
        st = find_and_ask(s, serve, &r, err);
    put(s, p, st == OK ? r : NULL, serve);
    int code = st != OK ? STATUS_FAILED : is_ready(r) ? STATUS_READY : STATUS_NOT_READY;
    if (latest)
        *latest = r;
    else
        status_free(r);
    json_decref(serve);
    return code;
}

static int show_once(const struct status_source *s)
{
    char *text = NULL;
    size_t len = 0;
    struct buf clean;
    struct error err;
    struct status_page page = {.f = open_memstream(&text, &len), .columns = COLUMNS};
    CHECK(page.f, "no memory for a page");
    int code = status_once(s, &page, NULL, &err);
    fclose(page.f);
    buf_init(&clean, 8 * len + 16);
    if (isatty(STDOUT_FILENO))
        terminal_clean(&clean, text, len, NULL);
    else
        buf_append(&clean, text, len, NULL);
    if (clean.len > 0)
        fwrite(clean.data, 1, clean.len, stdout);
    fflush(stdout);
    if (code == STATUS_FAILED)
        terminal_say(stderr, "witan status: ", err.msg);
    buf_fini(&clean);
    free(text);
    return code;
}

/* --- the command -------------------------------------------------------------------------------
 */

/* --watch's operand, which may be absent: 0 where it is out of bounds. */
static double take_seconds(int argc, char **argv, int *i)
{
    const char *text = *i + 1 < argc ? argv[*i + 1] : "";
    char *end;
    if (!*text || !strchr("0123456789.", *text))
        return 2;
    double seconds = strtod(text, &end);
    ++*i;
    return !*end && seconds >= 0.1 && seconds <= 3600 ? seconds : 0;
}

int cmd_status(int argc, char **argv)
{
    struct status_source s = {0};
    double watch = 0;
    client_init(&s.where);
    const char *nobody = s.where.address;
    for (int i = 1; i < argc; i++) {
        int taken = client_flag(&s.where, argc, argv, &i);
        if (taken < 0)
            return 2;
        if (taken > 0)
            continue;
        if (strcmp(argv[i], "--json") == 0) {
            s.json = true;
        } else if (strcmp(argv[i], "--run-dir") == 0 && i + 1 < argc) {
            s.run_dir = argv[++i];
        } else if (strcmp(argv[i], "--watch") == 0) {
            watch = take_seconds(argc, argv, &i);
            if (watch == 0) {
                fprintf(stderr, "witan status: --watch: expected 0.1 to 3600 seconds, found %s\n",
                        argv[i]);
                return 2;
            }
        } else if (strcmp(argv[i], "--help") == 0) {
            printf("%s%s", usage, client_help);
            return 0;
        } else {
            fprintf(stderr, "%s%s", usage, client_help);
            return 2;
        }
    }
    s.anywhere = s.where.address == nobody;
    return watch > 0 ? status_watch(&s, watch) : show_once(&s);
}
