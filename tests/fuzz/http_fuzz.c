/*
 * Any bytes on a connection to the HTTP door, in two pieces cut where the first byte says, over a
 * faked core: whatever they are, the server goes on, answers another connection, and lets go of
 * this one.
 */
#include "tests/unit/coordinator/fake_core.h"

#include "base/log.h"
#include "coordinator/http.h"

#include <errno.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Made once, for the process's life. */
static struct config config;
static struct core core;
static struct http *http;

static void make_world(void)
{
    struct error err;
    log_set_level(LOG_ERROR);
    CHECK(config_init(&config, &err) == OK, "%s", err.msg);
    free(config.listen.http);
    config.listen.http = strdup("127.0.0.1:0");
    config.limits.body_kb = 16;
    core.config = &config;
    metrics_init(&core.metrics);
    CHECK(loop_create(&core.loop, &err) == OK, "%s", err.msg);
    core.served = (struct served){
        .name = "tiny",
        .context = 4096,
        .defaults = {.temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = 1.0f},
    };
    CHECK(chat_text_load(WITAN_SOURCE_DIR "/deploy/lexicon/model", false, &core.served.text,
                         &err) == OK,
          "%s", err.msg);
    core.served.vocab = chat_vocab(core.served.text);
    CHECK(http_create(&core, &http, &err) == OK, "%s", err.msg);
}

static void turn(int times)
{
    for (int i = 0; i < times; i++)
        event_base_loop(loop_base(core.loop), EVLOOP_NONBLOCK);
}

static int dial(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)http_port(http))};
    struct linger now = {.l_onoff = 1}; /* no port is left waiting */
    /* Where the server closes first one is: a long run goes through all of 127.0.0.0/16. */
    static uint32_t turns;
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + turns++ % 65000);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&from, sizeof from) == 0, "no address: %s",
          strerror(errno));
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        /* libFuzzer's timer is a signal that restarts nothing: the connection goes on by itself. */
        CHECK(errno == EINTR, "no connection: %s", strerror(errno));
        while (connect(fd, (struct sockaddr *)&a, sizeof a) != 0 && errno != EISCONN)
            CHECK(errno == EINTR || errno == EALREADY, "no connection: %s", strerror(errno));
    }
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    return fd;
}

static void put(int fd, const void *data, size_t size)
{
    if (send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
        turn(3);
}

static void check_alive(void)
{
    static const char request[] = "GET /health/live HTTP/1.1\r\n\r\n";
    char answer[512] = "";
    int fd = dial();
    put(fd, request, sizeof request - 1);
    for (int i = 0; i < 1000; i++) {
        if (recv(fd, answer, sizeof answer - 1, MSG_DONTWAIT) > 0)
            break;
        turn(1);
    }
    CHECK(strncmp(answer, "HTTP/1.1 200 OK", 15) == 0, "%s", answer);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!http)
        make_world();
    if (size < 2 || size > 60000)
        return 0;
    size_t cut = 1 + data[0] * (size - 1) / 255;
    int fd = dial();
    turn(2);
    put(fd, data + 1, cut - 1);
    put(fd, data + cut, size - cut);
    turn(4);
    close(fd);
    check_alive();
    for (int i = 0; i < 1000 && (http_active(http) > 0 || fake_running > 0); i++)
        turn(1);
    CHECK(http_active(http) == 0 && fake_running == 0, "an answer outlives its client");
    CHECK(!core.claims, "a key outlives its answer");
    return 0;
}
