/*
 * The RPC runtime over TLS: who is let in, whose names are seen, what is said of PEM texts that do
 * not fit. Certificates are made here, each for one test.
 */
#include "tests/unit/proto/rpc_fixture.h"

#include <arpa/inet.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

/* --- certificates --- */

struct identity {
    EVP_PKEY *key;
    X509 *cert;
    char *key_pem, *cert_pem;
};

static char *bio_text(BIO *bio)
{
    char *data;
    long n = BIO_get_mem_data(bio, &data);
    char *text = check_calloc((size_t)n + 1, 1);
    memcpy(text, data, (size_t)n);
    BIO_free(bio);
    return text;
}

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    CHECK(extension, "%s", value);
    X509_add_ext(cert, extension, -1);
    X509_EXTENSION_free(extension);
}

/* `names`: the subjectAltName; NULL: a root of its own. `days` from now: valid until. */
static struct identity make_identity(const struct identity *issuer, const char *names, int days)
{
    static long serial = 1;
    struct identity id = {.key = EVP_EC_gen("P-256"), .cert = X509_new()};
    const struct identity *by = issuer ? issuer : &id;
    X509_set_version(id.cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(id.cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(id.cert), -30L * 86400);
    X509_gmtime_adj(X509_getm_notAfter(id.cert), days * 86400L);
    X509_set_pubkey(id.cert, id.key);
    X509_NAME *subject = X509_get_subject_name(id.cert);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                               (const unsigned char *)(issuer ? "member" : "root"), -1, -1, 0);
    X509_set_issuer_name(id.cert, X509_get_subject_name(by->cert));
    add_extension(id.cert, by->cert, NID_basic_constraints,
                  issuer ? "critical,CA:FALSE" : "critical,CA:TRUE");
    if (names)
        add_extension(id.cert, by->cert, NID_subject_alt_name, names);
    X509_sign(id.cert, by->key, EVP_sha256());
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, id.cert);
    id.cert_pem = bio_text(bio);
    bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(bio, id.key, NULL, NULL, 0, NULL, NULL);
    id.key_pem = bio_text(bio);
    return id;
}

static void drop_identity(struct identity *id)
{
    EVP_PKEY_free(id->key);
    X509_free(id->cert);
    free(id->key_pem);
    free(id->cert_pem);
}

/* One authority, a server and a client of it, and another authority's client and server. */
struct pki {
    struct identity root, server, client, other_root, other_client, other_server;
    struct rpc_tls serve, dial;
};

#define CLIENT_URI "witan://cluster/demo/worker/w1"

static void pki_open(struct pki *p)
{
    p->root = make_identity(NULL, NULL, 30);
    p->server = make_identity(&p->root, "DNS:coordinator.witan,IP:127.0.0.1", 30);
    p->client = make_identity(&p->root, "URI:" CLIENT_URI ",URI:urn:witan:second", 30);
    p->other_root = make_identity(NULL, NULL, 30);
    p->other_client = make_identity(&p->other_root, "URI:" CLIENT_URI, 30);
    p->other_server = make_identity(&p->other_root, "DNS:coordinator.witan,IP:127.0.0.1", 30);
    p->serve = (struct rpc_tls){
        .ca = p->root.cert_pem, .cert = p->server.cert_pem, .key = p->server.key_pem};
    p->dial = (struct rpc_tls){.ca = p->root.cert_pem,
                               .cert = p->client.cert_pem,
                               .key = p->client.key_pem,
                               .peer_name = "coordinator.witan"};
}

static void pki_close(struct pki *p)
{
    drop_identity(&p->root);
    drop_identity(&p->server);
    drop_identity(&p->client);
    drop_identity(&p->other_root);
    drop_identity(&p->other_client);
    drop_identity(&p->other_server);
}

/* A client with `dial` of a server with `serve`. */
static void world_open_tls(struct world *w, const struct rpc_tls *serve, const struct rpc_tls *dial)
{
    struct error err = {0};
    world_serve(w, serve);
    assert_ok(rpc_channel_create(w->rpc, w->address, dial, &w->channel, &err));
}

/* No call gets through, and the client is told within some seconds. */
static void is_kept_out(const struct rpc_tls *serve, const struct rpc_tls *dial)
{
    struct world w;
    struct seen s;
    world_open_tls(&w, serve, dial);
    call_list_models(w.channel, WAIT_MS, &s);
    seen_ended(&s, RPC_UNAVAILABLE);
    assert_int_equal(s.messages, 0);
    assert_int_equal(w.seen.opened, 0);
    seen_fini(&s);
    world_close(&w);
}

/* --- who is let in --- */

static void mutual_tls_shows_the_peers_uris(void **state)
{
    (void)state;
    struct pki p;
    struct world w;
    pki_open(&p);
    world_open_tls(&w, &p.serve, &p.dial);
    list_models_works(w.channel);
    assert_string_equal(rpc_peer_uris(w.seen.call), CLIENT_URI "\nurn:witan:second");
    world_close(&w);
    pki_close(&p);
}

static void mutual_tls_carries_streams(void **state)
{
    (void)state;
    struct error err = {0};
    struct pki p;
    struct world w;
    struct seen s;
    pki_open(&p);
    world_open_tls(&w, &p.serve, &p.dial);
    call_generate(w.channel, "", 10000, 0, &s);
    seen_ended(&s, RPC_OK);
    assert_int_equal(s.messages, 10000);
    assert_false(s.out_of_order);
    seen_fini(&s);
    call_attach(w.channel, &s);
    for (int i = 0; i < 200; i++) {
        assert_ok(send_heartbeat(s.call, (uint64_t)i, &err));
        assert_true(seen_reaches(&s, &s.messages, i + 1, WAIT_MS));
    }
    rpc_half_close(s.call);
    seen_ended(&s, RPC_OK);
    seen_fini(&s);
    world_close(&w);
    pki_close(&p);
}

static void server_only_tls(void **state)
{
    (void)state;
    struct pki p;
    struct world w;
    pki_open(&p);
    p.serve.ca = NULL;
    p.dial.cert = p.dial.key = NULL;
    world_open_tls(&w, &p.serve, &p.dial);
    list_models_works(w.channel);
    assert_string_equal(rpc_peer_uris(w.seen.call), "");
    world_close(&w);
    pki_close(&p);
}

/* Where no certificate is demanded, one that is offered proves nothing. */
static void uris_of_unverified_clients_are_not_shown(void **state)
{
    (void)state;
    struct pki p;
    struct world w;
    pki_open(&p);
    p.serve.ca = NULL;
    p.dial.cert = p.other_client.cert_pem;
    p.dial.key = p.other_client.key_pem;
    world_open_tls(&w, &p.serve, &p.dial);
    list_models_works(w.channel);
    assert_string_equal(rpc_peer_uris(w.seen.call), "");
    world_close(&w);
    pki_close(&p);
}

static void name_of_the_dialled_host_counts(void **state)
{
    (void)state;
    struct pki p;
    struct world w;
    pki_open(&p);
    p.dial.peer_name = NULL; /* 127.0.0.1, which the certificate carries */
    world_open_tls(&w, &p.serve, &p.dial);
    list_models_works(w.channel);
    world_close(&w);
    pki_close(&p);
}

static void client_without_certificate_is_kept_out(void **state)
{
    (void)state;
    struct pki p;
    pki_open(&p);
    p.dial.cert = p.dial.key = NULL;
    is_kept_out(&p.serve, &p.dial);
    pki_close(&p);
}

static void client_of_another_authority_is_kept_out(void **state)
{
    (void)state;
    struct pki p;
    pki_open(&p);
    p.dial.cert = p.other_client.cert_pem;
    p.dial.key = p.other_client.key_pem;
    is_kept_out(&p.serve, &p.dial);
    pki_close(&p);
}

static void expired_client_is_kept_out(void **state)
{
    (void)state;
    struct pki p;
    pki_open(&p);
    struct identity expired = make_identity(&p.root, "URI:" CLIENT_URI, -1);
    p.dial.cert = expired.cert_pem;
    p.dial.key = expired.key_pem;
    is_kept_out(&p.serve, &p.dial);
    drop_identity(&expired);
    pki_close(&p);
}

static void server_of_another_authority_is_refused(void **state)
{
    (void)state;
    struct pki p;
    pki_open(&p);
    p.serve.cert = p.other_server.cert_pem;
    p.serve.key = p.other_server.key_pem;
    is_kept_out(&p.serve, &p.dial);
    pki_close(&p);
}

static void wrong_peer_name_is_refused(void **state)
{
    (void)state;
    struct pki p;
    pki_open(&p);
    p.dial.peer_name = "other.witan";
    is_kept_out(&p.serve, &p.dial);
    pki_close(&p);
}

static void plaintext_client_of_tls_server(void **state)
{
    (void)state;
    struct pki p;
    pki_open(&p);
    is_kept_out(&p.serve, NULL);
    pki_close(&p);
}

static void tls_client_of_plaintext_server(void **state)
{
    (void)state;
    struct pki p;
    pki_open(&p);
    is_kept_out(NULL, &p.dial);
    pki_close(&p);
}

static void raw_connections_do_not_hold_the_stop(void **state)
{
    (void)state;
    struct pki p;
    struct world w;
    pki_open(&p);
    world_open_tls(&w, &p.serve, &p.dial);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)rpc_server_port(w.server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fds[6];
    for (size_t i = 0; i < COUNT_OF(fds); i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fds[i], (struct sockaddr *)&to, sizeof to), 0);
        if (i % 2) /* a TLS record begins, or plain nonsense */
            send(fds[i], i % 3 ? "\x16\x03\x01\x02\x00\x01" : "GET / HTTP/1.1\r\n\r\n", 6,
                 MSG_NOSIGNAL);
    }
    list_models_works(w.channel);
    int64_t start = clock_now_ns();
    rpc_server_stop(w.server, 300);
    w.server = NULL;
    assert_in_range((clock_now_ns() - start) / 1000000, 0, 5000);
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        close(fds[i]);
    world_close(&w);
    pki_close(&p);
}

/* --- PEM texts that do not fit --- */

/* Both sides refuse `tls`, saying `words`; a NULL says that one side takes it. */
static void refused_with(const struct rpc_tls *tls, const char *server_words,
                         const char *client_words)
{
    struct error err = {0};
    struct rpc *rpc;
    struct rpc_server *server = NULL;
    struct rpc_channel *channel = NULL;
    assert_ok(rpc_create(0, NULL, NULL, &rpc, &err));
    enum status st = rpc_server_create(rpc, "127.0.0.1:0", tls, NULL, 0, &server, &err);
    assert_int_equal(st, server_words ? ERR_INVALID : OK);
    if (server_words && !strstr(err.msg, server_words))
        fail_msg("\"%s\" lacks \"%s\"", err.msg, server_words);
    st = rpc_channel_create(rpc, "127.0.0.1:1", tls, &channel, &err);
    assert_int_equal(st, client_words ? ERR_INVALID : OK);
    if (client_words && !strstr(err.msg, client_words))
        fail_msg("\"%s\" lacks \"%s\"", err.msg, client_words);
    rpc_server_stop(server, 0);
    rpc_channel_destroy(channel);
    rpc_destroy(rpc);
}

static void pem_that_does_not_parse_is_named(void **state)
{
    (void)state;
    struct pki p;
    pki_open(&p);
    struct rpc_tls good = {p.root.cert_pem, p.server.cert_pem, p.server.key_pem, NULL}, tls = good;
    refused_with(&tls, NULL, NULL);
    tls.ca = "nonsense";
    refused_with(&tls, "trusted root", "trusted root");
    tls.ca = "";
    refused_with(&tls, "trusted root", "trusted root");
    tls = good;
    tls.cert = p.server.key_pem;
    refused_with(&tls, "the certificate is not", "the certificate is not");
    tls = good;
    tls.key = p.server.cert_pem;
    refused_with(&tls, "the private key is not a PEM key", "the private key is not a PEM key");
    tls = good;
    tls.key = p.client.key_pem;
    refused_with(&tls, "not the certificate's", "not the certificate's");
    tls = good;
    tls.key = NULL;
    refused_with(&tls, "needs a certificate and its private key", "together or not at all");
    tls.cert = NULL;
    refused_with(&tls, "needs a certificate and its private key", NULL);
    tls = good;
    tls.ca = NULL;
    refused_with(&tls, NULL, "needs trusted roots");
    pki_close(&p);
}

static void chain_that_is_cut_is_named(void **state)
{
    (void)state;
    struct pki p;
    char chain[8192];
    pki_open(&p);
    snprintf(chain, sizeof chain, "%s%.100s", p.server.cert_pem, p.root.cert_pem);
    struct rpc_tls tls = {p.root.cert_pem, chain, p.server.key_pem, NULL};
    refused_with(&tls, "throughout", "throughout");
    pki_close(&p);
}

static void key_with_password_is_refused_without_asking(void **state)
{
    (void)state;
    struct pki p;
    pki_open(&p);
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PKCS8PrivateKey(bio, p.server.key, EVP_aes_128_cbc(), "secret", 6, NULL, NULL);
    char *encrypted = bio_text(bio);
    struct rpc_tls tls = {p.root.cert_pem, p.server.cert_pem, encrypted, NULL};
    refused_with(&tls, "without password", "without password");
    free(encrypted);
    pki_close(&p);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(mutual_tls_shows_the_peers_uris),
    cmocka_unit_test(mutual_tls_carries_streams),
    cmocka_unit_test(server_only_tls),
    cmocka_unit_test(uris_of_unverified_clients_are_not_shown),
    cmocka_unit_test(name_of_the_dialled_host_counts),
    cmocka_unit_test(client_without_certificate_is_kept_out),
    cmocka_unit_test(client_of_another_authority_is_kept_out),
    cmocka_unit_test(expired_client_is_kept_out),
    cmocka_unit_test(server_of_another_authority_is_refused),
    cmocka_unit_test(wrong_peer_name_is_refused),
    cmocka_unit_test(plaintext_client_of_tls_server),
    cmocka_unit_test(tls_client_of_plaintext_server),
    cmocka_unit_test(raw_connections_do_not_hold_the_stop),
    cmocka_unit_test(pem_that_does_not_parse_is_named),
    cmocka_unit_test(chain_that_is_cut_is_named),
    cmocka_unit_test(key_with_password_is_refused_without_asking),
};

UNIT_MAIN(tests)
