/*
 * Many streams at once, held for long:
 *   streams_bench HOST:PORT COORDINATOR_PID STREAMS SECONDS
 * opens so many streams of completions at a running server (an address in figures), on a connection
 * each, all within a second; a stream that comes to its end begins anew. Once a minute, or four
 * times where there is less time, it prints tokens a second and what the coordinator holds:
 * resident memory and descriptors. At the end it leaves without a word and waits until the
 * coordinator has let go. Exit code 1: a stream failed, or descriptors are left.
 *
 * docs/performance.md has the configuration and figures.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_EVENTS = 256, KEPT = 15, OPENING_MS = 1000, SPARE_FILES = 64, LET_GO_S = 10 };

/* As an ordinary client of the OpenAI API sends it. */
static const char body[] = "{\"prompt\":\"A lighthouse is\",\"max_tokens\":900,\"stream\":true,"
                           "\"ignore_eos\":true,\"temperature\":1}";

struct stream {
    int fd; /* -1: it failed */
    bool began;
    char tail[KEPT + 1]; /* of what came last, for words that are cut */
};

struct bench {
    struct sockaddr_in address;
    struct stream *streams;
    int count, epoll;
    int pid;
    uint64_t tokens, ended, errors;
    char request[512];
};

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "streams_bench: %s: %s\n", what, errno ? strerror(errno) : "not understood");
    exit(1);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* --- the coordinator --- */

static double resident_mb(int pid)
{
    char path[64];
    unsigned long long pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", pid);
    FILE *f = fopen(path, "re");
    if (!f || fscanf(f, "%*u %llu", &pages) != 1)
        die(path);
    fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) * 1e-6;
}

static int open_files(int pid)
{
    char path[64];
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *d = opendir(path);
    if (!d)
        die(path);
    for (struct dirent *e; (e = readdir(d));)
        count += e->d_name[0] != '.';
    closedir(d);
    return count;
}

/* --- streams --- */

static void fail(struct bench *b, struct stream *s, const char *why)
{
    if (b->errors++ < 10)
        fprintf(stderr, "streams_bench: stream %d: %s\n", (int)(s - b->streams), why);
    close(s->fd);
    s->fd = -1;
}

static void ask(struct bench *b, struct stream *s)
{
    size_t len = strlen(b->request);
    s->began = false;
    s->tail[0] = '\0';
    if (send(s->fd, b->request, len, MSG_NOSIGNAL) != (ssize_t)len)
        fail(b, s, "cannot send");
}

static void begin(struct bench *b, struct stream *s)
{
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->fd < 0)
        die("socket");
    if (connect(s->fd, (struct sockaddr *)&b->address, sizeof b->address) != 0) {
        fail(b, s, "cannot connect");
        return;
    }
    if (epoll_ctl(b->epoll, EPOLL_CTL_ADD, s->fd, &e) != 0)
        die("epoll_ctl");
    ask(b, s);
}

/* How often `word` is in the text. */
static uint64_t count_words(const char *text, const char *word)
{
    uint64_t count = 0;
    for (const char *at = text; (at = strstr(at, word)); at += strlen(word))
        count++;
    return count;
}

/* Words of at most KEPT + 1 bytes may come in two pieces: those that lie in the kept part alone
 * have been counted. */
static uint64_t new_words(const struct stream *s, const char *text, const char *word)
{
    return count_words(text, word) - count_words(s->tail, word);
}

static void take(struct bench *b, struct stream *s)
{
    char text[65536 + KEPT + 1];
    size_t kept = strlen(s->tail);
    memcpy(text, s->tail, kept);
    ssize_t n = recv(s->fd, text + kept, 65536, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        fail(b, s, "the server closed it");
        return;
    }
    size_t len = kept + (size_t)n;
    text[len] = '\0';
    if (!s->began && strncmp(text, "HTTP/1.1 200", 12) != 0) {
        fail(b, s, strncmp(text, "HTTP/1.1 ", 9) == 0 ? strtok(text, "\r") : "no HTTP");
        return;
    }
    s->began = true;
    b->tokens += new_words(s, text, "\"text\":");
    bool done = new_words(s, text, "\r\n0\r\n\r\n") > 0; /* the last chunk, after [DONE] */
    if (new_words(s, text, "{\"error\":") > 0) {
        fail(b, s, "an error in the stream");
        return;
    }
    memcpy(s->tail, text + (len > KEPT ? len - KEPT : 0), (len > KEPT ? KEPT : len) + 1);
    if (done) {
        b->ended++;
        ask(b, s);
    }
}

static void pump(struct bench *b, double until)
{
    struct epoll_event events[MAX_EVENTS];
    for (double left; (left = until - now_s()) > 0;) {
        int n = epoll_wait(b->epoll, events, MAX_EVENTS, left < 0.1 ? (int)(left * 1e3) + 1 : 100);
        for (int i = 0; i < n; i++)
            if (((struct stream *)events[i].data.ptr)->fd >= 0)
                take(b, events[i].data.ptr);
    }
}

/* --- the whole --- */

static void raise_files(int streams)
{
    struct rlimit r;
    rlim_t wanted = (rlim_t)streams + SPARE_FILES;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0)
        die("getrlimit");
    r.rlim_cur = r.rlim_max < wanted ? r.rlim_max : wanted;
    if (r.rlim_max < wanted) {
        fprintf(stderr,
                "streams_bench: %d streams need %llu open files, here and in the server, and %llu "
                "are allowed: ulimit -n %llu\n",
                streams, (unsigned long long)wanted, (unsigned long long)r.rlim_max,
                (unsigned long long)wanted);
        exit(1);
    }
    setrlimit(RLIMIT_NOFILE, &r);
}

static void report(struct bench *b, double at, double seconds, uint64_t tokens)
{
    int alive = 0;
    for (int i = 0; i < b->count; i++)
        alive += b->streams[i].fd >= 0;
    printf("%6.0f s: %d streams, %.0f tokens/s, %llu errors, %llu answers ended; coordinator: %.1f "
           "MB resident, %d descriptors\n",
           at, alive, (double)tokens / seconds, (unsigned long long)b->errors,
           (unsigned long long)b->ended, resident_mb(b->pid), open_files(b->pid));
    fflush(stdout);
}

static void hold(struct bench *b, double seconds)
{
    double start = now_s();
    int parts = seconds >= 180 ? (int)(seconds / 60) : 4;
    for (int i = 0; i < b->count; i++) {
        begin(b, &b->streams[i]);
        if (i % 50 == 49)
            pump(b, start + OPENING_MS * 1e-3 * i / b->count);
    }
    for (int i = 1; i <= parts; i++) {
        uint64_t before = b->tokens;
        double from = now_s(), at = seconds * i / parts;
        pump(b, start + at);
        report(b, at, now_s() - from, b->tokens - before);
    }
}

/* True when the coordinator has no more open than before. */
static bool let_go(struct bench *b, int files)
{
    for (int i = 0; i < b->count; i++)
        if (b->streams[i].fd >= 0)
            close(b->streams[i].fd);
    for (int i = 0; i < LET_GO_S * 10 && open_files(b->pid) > files; i++)
        usleep(100000);
    printf("after they left: %.1f MB resident, %d descriptors (%d before they came)\n",
           resident_mb(b->pid), open_files(b->pid), files);
    return open_files(b->pid) <= files;
}

int main(int argc, char **argv)
{
    struct bench b = {.address = {.sin_family = AF_INET}};
    char *colon = argc == 5 ? strchr(argv[1], ':') : NULL;
    if (!colon) {
        fprintf(stderr, "usage: streams_bench HOST:PORT COORDINATOR_PID STREAMS SECONDS\n");
        return 2;
    }
    *colon = '\0';
    b.address.sin_port = htons((uint16_t)atoi(colon + 1));
    b.pid = atoi(argv[2]);
    b.count = atoi(argv[3]);
    if (inet_pton(AF_INET, argv[1], &b.address.sin_addr) != 1 || b.count < 1)
        die(argv[1]);
    snprintf(b.request, sizeof b.request,
             "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
             "Content-Length: %zu\r\n\r\n%s",
             sizeof body - 1, body);
    raise_files(b.count);
    b.streams = calloc((size_t)b.count, sizeof *b.streams);
    b.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!b.streams || b.epoll < 0)
        die("epoll");
    int files = open_files(b.pid);
    printf("before: %.1f MB resident, %d descriptors\n", resident_mb(b.pid), files);
    hold(&b, atof(argv[4]));
    bool gone = let_go(&b, files);
    free(b.streams);
    close(b.epoll);
    return b.errors > 0 || b.tokens == 0 || !gone;
}
