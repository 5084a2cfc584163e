/*
 * A server on a thread of its own, before a core that is faked, and clients for it: what the tests
 * of the HTTP door share. Included by one file of a program.
 */
#ifndef WITAN_TESTS_UNIT_COORDINATOR_HTTP_FIXTURE_H
#define WITAN_TESTS_UNIT_COORDINATOR_HTTP_FIXTURE_H

#include "tests/unit/unit.h"
#include "tests/unit/coordinator/fake_core.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "coordinator/http.h"
#include "coordinator/openai_request.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <strings.h>
#include <sys/socket.h>

/* --- the server --------------------------------------------------------------------------------
 */

static struct config config;
static struct core core;
static struct http *http;
static pthread_t thread;
static int port;

static inline void *run(void *arg)
{
    loop_run(arg);
    return NULL;
}

/* Before start() a case may change `config`. */
static inline void prepare(void)
{
    struct error err;
    core = (struct core){0};
    fake_running = fake_cancelled = fake_ended = fake_judged = 0;
    fake_ready = true;
    assert_int_equal(config_init(&config, &err), OK);
    free(config.listen.http);
    config.listen.http = strdup("127.0.0.1:0");
    config.limits.request_timeout_s = 2;
    config.limits.body_kb = 256;
    log_set_level(LOG_ERROR);
}

static inline void start(void)
{
    struct error err;
    core.config = &config;
    metrics_init(&core.metrics);
    assert_int_equal(loop_create(&core.loop, &err), OK);
    core.served = (struct served){
        .name = "tiny",
        .context = 4096,
        .created = 1700000000,
        .numerics_class = "cpu-1",
        .defaults = {.temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = 1.0f},
    };
    if (chat_text_load(WITAN_SOURCE_DIR "/deploy/lexicon/model", false, &core.served.text, &err))
        fail_msg("%s", err.msg);
    core.served.vocab = chat_vocab(core.served.text);
    if (http_create(&core, &http, &err) != OK)
        fail_msg("%s", err.msg);
    port = http_port(http);
    assert_int_equal(pthread_create(&thread, NULL, run, core.loop), 0);
}

static inline void finish(void)
{
    loop_stop(core.loop);
    pthread_join(thread, NULL);
    http_destroy(http);
    assert_int_equal(fake_running, 0);
    loop_destroy(core.loop);
    chat_text_destroy(core.served.text);
    identity_destroy(core.identity);
    quota_destroy(core.quota);
    config_fini(&config);
}

static inline void begin(void)
{
    prepare();
    start();
}

struct posted {
    atomic_bool done;
    int active;
    bool stop;
};

static inline void ask(void *arg)
{
    struct posted *p = arg;
    if (p->stop)
        http_stop(http);
    p->active = http_active(http);
    p->done = true;
}

/* On the loop thread: how many answers are under way, after stopping if asked. */
static inline int active(bool stop)
{
    struct posted p = {.stop = stop};
    assert_int_equal(loop_post(core.loop, ask, &p, NULL), OK);
    while (!p.done)
        usleep(500);
    return p.active;
}

static inline void wait_for(atomic_int *value, int wanted)
{
    for (int i = 0; i < 5000 && *value != wanted; i++)
        usleep(2000);
    assert_int_equal(*value, wanted);
}

/* --- clients -----------------------------------------------------------------------------------
 */

static inline int dial(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval limit = {.tv_sec = 20};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static inline bool put_bytes(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

static inline void put(int fd, const char *text)
{
    assert_true(put_bytes(fd, text, strlen(text)));
}

static inline void put_request(int fd, const char *method, const char *path, const char *headers,
                               const char *body)
{
    char head[2048];
    snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n",
             method, path, headers, strlen(body));
    put(fd, head);
    put(fd, body);
}

/* What came back: the head, and the body with chunks joined. */
struct answer {
    int code;
    char head[8192];
    struct buf body;
    bool whole; /* the body ended as announced */
};

/* Buffered reading of one connection. */
struct reader {
    int fd;
    SSL *ssl;
    char data[65536];
    size_t len, at;
};

static inline bool fill(struct reader *r)
{
    r->at = r->len = 0;
    ssize_t n = r->ssl ? SSL_read(r->ssl, r->data, sizeof r->data)
                       : recv(r->fd, r->data, sizeof r->data, 0);
    if (n > 0)
        r->len = (size_t)n;
    return n > 0;
}

static inline int next_byte(struct reader *r)
{
    if (r->at == r->len && !fill(r))
        return -1;
    return (unsigned char)r->data[r->at++];
}

static inline bool next_line(struct reader *r, char *line, size_t size)
{
    size_t n = 0;
    for (int c; (c = next_byte(r)) >= 0 && n + 1 < size;) {
        if (c == '\n') {
            line[n > 0 && line[n - 1] == '\r' ? n - 1 : n] = '\0';
            return true;
        }
        line[n++] = (char)c;
    }
    return false;
}

static inline bool take_bytes(struct reader *r, size_t count, struct buf *out)
{
    while (count > 0) {
        if (r->at == r->len && !fill(r))
            return false;
        size_t n = r->len - r->at < count ? r->len - r->at : count;
        buf_append(out, r->data + r->at, n, NULL);
        r->at += n;
        count -= n;
    }
    return true;
}

static const char *header(const struct answer *a, const char *name)
{
    static char value[1024];
    size_t len = strlen(name);
    for (const char *p = strchr(a->head, '\n'); p && p[1]; p = strchr(p + 1, '\n')) {
        if (strncasecmp(p + 1, name, len) != 0 || p[1 + len] != ':')
            continue;
        snprintf(value, sizeof value, "%s", p + len + 3);
        value[strcspn(value, "\n")] = '\0';
        return value;
    }
    return NULL;
}

static inline bool read_head(struct reader *r, struct answer *a)
{
    char line[4096];
    a->head[0] = '\0';
    a->code = 0;
    while (next_line(r, line, sizeof line) && line[0]) {
        assert_true(strlen(a->head) + strlen(line) + 2 < sizeof a->head);
        strcat(strcat(a->head, line), "\n");
        if (a->code == 0)
            a->code = atoi(line + strlen("HTTP/1.1 "));
    }
    return a->code != 0;
}

static inline void read_chunks(struct reader *r, struct answer *a)
{
    char line[64];
    while (next_line(r, line, sizeof line)) {
        size_t n = strtoul(line, NULL, 16);
        if (n == 0) {
            a->whole = next_line(r, line, sizeof line);
            return;
        }
        if (!take_bytes(r, n, &a->body) || !next_line(r, line, sizeof line))
            return;
    }
}

/* False: the connection ended before an answer. */
static inline bool read_answer(struct reader *r, struct answer *a, bool has_body)
{
    buf_fini(&a->body);
    buf_init(&a->body, 64 << 20);
    a->whole = false;
    if (!read_head(r, a))
        return false;
    const char *length = header(a, "content-length");
    if (!has_body || a->code == 204 || a->code == 304) {
        a->whole = true;
    } else if (header(a, "transfer-encoding")) {
        read_chunks(r, a);
    } else if (length) {
        a->whole = take_bytes(r, strtoul(header(a, "content-length"), NULL, 10), &a->body);
    } else {
        take_bytes(r, SIZE_MAX, &a->body);
        a->whole = true;
    }
    return true;
}

static struct answer answer;

/* One request on a connection of its own. */
static inline const struct answer *call(const char *method, const char *path, const char *headers,
                                        const char *body)
{
    struct reader r = {.fd = dial()};
    put_request(r.fd, method, path, headers, body);
    assert_true(read_answer(&r, &answer, strcmp(method, "HEAD") != 0));
    assert_true(answer.whole);
    close(r.fd);
    return &answer;
}

static inline json_t *body_of(const struct answer *a)
{
    struct error err;
    json_t *root = NULL;
    if (!a->body.data || json_parse("answer", a->body.data, a->body.len, &root, &err) != OK)
        fail_msg("no JSON: %s", a->body.data ? a->body.data : "nothing");
    return root;
}

static inline void assert_refused(const struct answer *a, int code, const char *param,
                                  const char *word)
{
    json_t *root = body_of(a);
    const json_t *e = json_object_get(root, "error");
    assert_int_equal(a->code, code);
    assert_true(json_is_string(json_object_get(e, "message")));
    assert_true(json_is_string(json_object_get(e, "type")));
    if (param)
        assert_string_equal(json_string_value(json_object_get(e, "param")), param);
    if (word)
        assert_string_equal(json_string_value(json_object_get(e, "code")), word);
    json_decref(root);
}

/* The server closes: true when it did within the time that a read waits. */
static inline bool is_closed(int fd)
{
    char c;
    ssize_t n = recv(fd, &c, 1, 0);
    return n == 0 || (n < 0 && errno == ECONNRESET);
}

static inline int count_of(const char *text, const char *words)
{
    int n = 0;
    for (const char *p = strstr(text, words); p; p = strstr(p + 1, words))
        n++;
    return n;
}

#define CHAT "/v1/chat/completions"
#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define TALK(n) "{" MESSAGES ",\"seed\":100,\"max_tokens\":" #n "}"
#define STREAM(seed, n) "{" MESSAGES ",\"stream\":true,\"seed\":" #seed ",\"max_tokens\":" #n "}"

#endif
