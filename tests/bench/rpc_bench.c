/*
 * Microseconds a bidi message takes there and back over loopback, in plaintext and mutual TLS, over
 * one stream and fifty, and how many messages a second one stream carries: `rpc_bench [MESSAGES]`
 * (default 20000). Server and client are in one process, each with an rpc thread of its own.
 */
#include "base/check.h"
#include "base/clock.h"
#include "proto/cluster.pb-c.h"
#include "proto/rpc.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define ATTACH "/witan.cluster.v1.Cluster/Attach"

enum { MAX_STREAMS = 50, WARM_UP = 200 };

#define MUST(expr)                                                                                 \
    do {                                                                                           \
        enum status st_ = (expr);                                                                  \
        CHECK(st_ == OK, "%s", err.msg);                                                           \
    } while (0)

/* Both directions of the streams; the client's rpc thread alone writes samples. */
struct bench {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int streams_left, each;
    int64_t *samples;
    int sample_count;
};

struct stream {
    struct bench *bench;
    struct rpc_call *call;
    int done;
    int64_t sent_ns;
};

static void send_heartbeat(struct rpc_call *call)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Heartbeat heartbeat = WITAN__CLUSTER__V1__HEARTBEAT__INIT;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HEARTBEAT;
    m.heartbeat = &heartbeat;
    heartbeat.step = 1234567;
    struct error err;
    MUST(rpc_send(call, &m.base, &err));
}

/* --- the server echoes --- */

static void on_heartbeat(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    (void)user, (void)message;
    Witan__Cluster__V1__CoordinatorMessage m = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    Witan__Cluster__V1__Wake wake = WITAN__CLUSTER__V1__WAKE__INIT;
    m.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_WAKE;
    m.wake = &wake;
    wake.generation = 1234567;
    struct error err;
    MUST(rpc_send(call, &m.base, &err));
}

static void on_half_close(struct rpc_call *call, void *user)
{
    (void)user;
    rpc_finish(call, RPC_OK, NULL);
}

static const struct rpc_method echo = {
    .name = ATTACH,
    .request = &witan__cluster__v1__rank_message__descriptor,
    .client_streams = true,
    .handlers = {.on_message = on_heartbeat, .on_half_close = on_half_close},
};

/* --- the client sends the next message when the last is back --- */

static void on_wake(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    (void)message;
    struct stream *s = user;
    int64_t now = clock_now_ns();
    if (s->done++ >= WARM_UP)
        s->bench->samples[s->bench->sample_count++] = now - s->sent_ns;
    if (s->done == s->bench->each + WARM_UP) {
        rpc_half_close(call);
        return;
    }
    s->sent_ns = clock_now_ns();
    send_heartbeat(call);
}

static void on_closed(struct rpc_call *call, void *user, int code, const char *text)
{
    (void)call;
    struct stream *s = user;
    CHECK(code == RPC_OK, "%s: %s", rpc_code_name(code), text);
    pthread_mutex_lock(&s->bench->mutex);
    s->bench->streams_left--;
    pthread_cond_signal(&s->bench->changed);
    pthread_mutex_unlock(&s->bench->mutex);
}

static const struct rpc_call_handlers client = {.on_message = on_wake, .on_closed = on_closed};

static int by_time(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void run_streams(struct rpc_channel *channel, const char *words, int streams, int messages)
{
    struct error err;
    struct stream all[MAX_STREAMS] = {0};
    struct bench b = {.mutex = PTHREAD_MUTEX_INITIALIZER,
                      .changed = PTHREAD_COND_INITIALIZER,
                      .streams_left = streams,
                      .each = messages / streams};
    b.samples = check_calloc((size_t)(b.each * streams), sizeof *b.samples);
    int64_t start = clock_now_ns();
    for (int i = 0; i < streams; i++) {
        all[i].bench = &b;
        all[i].sent_ns = clock_now_ns();
        MUST(rpc_call_start(channel, ATTACH, &witan__cluster__v1__coordinator_message__descriptor,
                            &client, &all[i], 0, true, NULL, &all[i].call, &err));
        send_heartbeat(all[i].call);
    }
    pthread_mutex_lock(&b.mutex);
    while (b.streams_left > 0)
        pthread_cond_wait(&b.changed, &b.mutex);
    pthread_mutex_unlock(&b.mutex);
    double seconds = (double)(clock_now_ns() - start) * 1e-9;
    for (int i = 0; i < streams; i++)
        rpc_call_unref(all[i].call);
    qsort(b.samples, (size_t)b.sample_count, sizeof *b.samples, by_time);
    int64_t median_ns = b.samples[b.sample_count / 2];
    int64_t p99_ns = b.samples[(int64_t)b.sample_count * 99 / 100];
    printf("%-9s %2d streams: median %7.1f us, p99 %7.1f us there and back; %.0f messages/s\n",
           words, streams, (double)median_ns * 1e-3, (double)p99_ns * 1e-3,
           2.0 * (b.each + WARM_UP) * streams / seconds);
    free(b.samples);
}

static void run(const char *words, const struct rpc_tls *serve, const struct rpc_tls *dial,
                int messages)
{
    struct error err;
    struct rpc *ours, *theirs;
    struct rpc_server *server;
    struct rpc_channel *channel;
    char address[64];
    MUST(rpc_create(0, NULL, NULL, &theirs, &err));
    MUST(rpc_create(0, NULL, NULL, &ours, &err));
    MUST(rpc_server_create(theirs, "127.0.0.1:0", serve, &echo, 1, &server, &err));
    snprintf(address, sizeof address, "127.0.0.1:%d", rpc_server_port(server));
    MUST(rpc_channel_create(ours, address, dial, &channel, &err));
    run_streams(channel, words, 1, messages);
    run_streams(channel, words, MAX_STREAMS, messages);
    rpc_channel_destroy(channel);
    rpc_server_stop(server, 1000);
    rpc_destroy(ours);
    rpc_destroy(theirs);
}

/* --- a certificate that is its own authority, for both sides --- */

static char *text_of(BIO *bio)
{
    char *data;
    long n = BIO_get_mem_data(bio, &data);
    char *text = check_calloc((size_t)n + 1, 1);
    for (long i = 0; i < n; i++)
        text[i] = data[i];
    BIO_free(bio);
    return text;
}

static void make_certificate(char **cert_pem, char **key_pem)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_NAME *name = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"bench.witan", -1,
                               -1, 0);
    X509_set_issuer_name(cert, name);
    X509_sign(cert, key, EVP_sha256());
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, cert);
    *cert_pem = text_of(bio);
    bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL);
    *key_pem = text_of(bio);
    X509_free(cert);
    EVP_PKEY_free(key);
}

int main(int argc, char **argv)
{
    int messages = argc > 1 ? atoi(argv[1]) : 20000;
    CHECK(messages >= MAX_STREAMS && messages <= 10000000, "%d messages", messages);
    char *cert, *key;
    make_certificate(&cert, &key);
    struct rpc_tls tls = {.ca = cert, .cert = cert, .key = key, .peer_name = "bench.witan"};
    run("plaintext", NULL, NULL, messages);
    run("mTLS", &tls, &tls, messages);
    free(cert);
    free(key);
    return 0;
}
