/* The HTTP door over TLS. */
#include "tests/unit/unit.h"
#include "tests/unit/coordinator/http_fixture.h"

#include "proto/pki.h"

static char tls_dir[64];

static char *in_dir(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", tls_dir, name);
    return strdup(path);
}

static void start_tls(bool clients)
{
    struct error err;
    prepare();
    strcpy(tls_dir, "/tmp/witan-tls-XXXXXX");
    assert_non_null(mkdtemp(tls_dir));
    if (pki_init(tls_dir, "t", &err) != OK ||
        pki_issue_door(tls_dir, tls_dir, "door", "127.0.0.1,localhost", 10, &err) != OK)
        fail_msg("%s", err.msg);
    config.listen.tls.cert = in_dir("door.pem");
    config.listen.tls.key = in_dir("door.key");
    if (clients)
        config.listen.tls.client_ca = in_dir("door-ca.pem");
    start();
}

static void finish_tls(void)
{
    char words[128];
    finish();
    snprintf(words, sizeof words, "rm -r %s", tls_dir);
    assert_int_equal(system(words), 0);
}

/* NULL: the handshake, or the first read after it, failed. */
static SSL *dial_tls(SSL_CTX *ctx, int version, bool with_certificate)
{
    char *ca = in_dir("door-ca.pem"), *cert = in_dir("door.pem"), *key = in_dir("door.key");
    SSL_CTX_set_max_proto_version(ctx, version);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    assert_int_equal(SSL_CTX_load_verify_file(ctx, ca), 1);
    if (with_certificate) {
        assert_int_equal(SSL_CTX_use_certificate_chain_file(ctx, cert), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM), 1);
    }
    free(ca);
    free(cert);
    free(key);
    SSL *ssl = SSL_new(ctx);
    SSL_set_fd(ssl, dial());
    if (SSL_connect(ssl) == 1)
        return ssl;
    close(SSL_get_fd(ssl));
    SSL_free(ssl);
    return NULL;
}

/* Over TLS: 0 when there is no answer. */
static int call_tls(int version, bool with_certificate, const char *body)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = dial_tls(ctx, version, with_certificate);
    int code = 0;
    if (ssl) {
        struct reader r = {.ssl = ssl};
        char request[512];
        int n = snprintf(request, sizeof request,
                         "POST %s HTTP/1.1\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
                         CHAT, strlen(body), body);
        if (SSL_write(ssl, request, n) == n && read_answer(&r, &answer, true)) {
            code = answer.code;
            /* The end is said, not only felt: close_notify. */
            char c;
            int end = SSL_read(ssl, &c, 1);
            assert_int_equal(SSL_get_error(ssl, end), SSL_ERROR_ZERO_RETURN);
        }
        close(SSL_get_fd(ssl));
        SSL_free(ssl);
    }
    SSL_CTX_free(ctx);
    return code;
}

static void tls_serves(void **state)
{
    (void)state;
    start_tls(false);
    assert_int_equal(call_tls(TLS1_3_VERSION, false, TALK(3)), 200);
    assert_int_equal(call_tls(TLS1_2_VERSION, false, STREAM(100, 50)), 200);
    assert_int_equal(count_of(answer.body.data, "data: [DONE]"), 1);
    assert_int_equal(call_tls(TLS1_1_VERSION, false, TALK(3)), 0);
    /* Plaintext on the port of TLS, and a handshake that never comes. */
    int plain = dial(), silent = dial();
    put(plain, "GET / HTTP/1.1\r\n\r\n");
    char c[512];
    ssize_t n = recv(plain, c, sizeof c, 0);
    assert_true(n <= 0 || strncmp(c, "HTTP", 4) != 0);
    assert_true(is_closed(silent));
    close(plain);
    close(silent);
    finish_tls();
}

/* What evhttp says by itself is said in JSON here too. */
static void tls_refuses_large_bodies(void **state)
{
    (void)state;
    static char body[1 << 20];
    char head[128];
    start_tls(false);
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = dial_tls(ctx, TLS1_3_VERSION, false);
    assert_non_null(ssl);
    struct reader r = {.ssl = ssl};
    int n = snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nContent-Length: %zu\r\n\r\n", CHAT,
                     sizeof body);
    assert_int_equal(SSL_write(ssl, head, n), n);
    assert_int_equal(SSL_write(ssl, body, sizeof body), sizeof body);
    assert_true(read_answer(&r, &answer, true));
    assert_refused(&answer, 413, NULL, "request_too_large");
    close(SSL_get_fd(ssl));
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    finish_tls();
}

static void tls_demands_clients(void **state)
{
    (void)state;
    start_tls(true);
    assert_int_equal(call_tls(TLS1_3_VERSION, false, TALK(3)), 0);
    assert_int_equal(call_tls(TLS1_2_VERSION, false, TALK(3)), 0);
    assert_int_equal(fake_ended, 0);
    finish_tls();
}

/* Quiet for longer than the timeouts, then left. */
static void tls_streams_live_and_are_left(void **state)
{
    (void)state;
    start_tls(false);
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = dial_tls(ctx, TLS1_3_VERSION, false);
    assert_non_null(ssl);
    const char *body = STREAM(200, 1);
    char request[512];
    int n = snprintf(request, sizeof request, "POST %s HTTP/1.1\r\nContent-Length: %zu\r\n\r\n%s",
                     CHAT, strlen(body), body);
    assert_int_equal(SSL_write(ssl, request, n), n);
    wait_for(&fake_running, 1);
    sleep(5);
    assert_int_equal(fake_running, 1);
    close(SSL_get_fd(ssl));
    wait_for(&fake_running, 0);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    finish_tls();
}

static void bad_tls_files_are_named(void **state)
{
    (void)state;
    struct error err;
    prepare();
    core.config = &config;
    assert_int_equal(loop_create(&core.loop, &err), OK);
    config.listen.tls.cert = strdup("/nonexistent/door.pem");
    config.listen.tls.key = strdup("/nonexistent/door.key");
    assert_int_not_equal(http_create(&core, &http, &err), OK);
    assert_non_null(strstr(err.msg, "/nonexistent/door.pem"));
    loop_destroy(core.loop);
    config_fini(&config);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(tls_serves),
    cmocka_unit_test(tls_refuses_large_bodies),
    cmocka_unit_test(tls_demands_clients),
    cmocka_unit_test(tls_streams_live_and_are_left),
    cmocka_unit_test(bad_tls_files_are_named),
};

UNIT_MAIN(tests)
