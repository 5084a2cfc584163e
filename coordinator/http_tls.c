/* TLS of the HTTP door: see http_private.h. State: OpenSSL's, owned by the door. */
#include "coordinator/http_private.h"

#include <event2/bufferevent_ssl.h>
#include <openssl/err.h>
#include <stdio.h>

static enum status fail(const char *path, struct error *err)
{
    char why[256];
    ERR_error_string_n(ERR_peek_last_error(), why, sizeof why);
    ERR_clear_error();
    return error_set(err, ERR_INVALID, "%s: %s", path, why);
}

static enum status demand_clients(SSL_CTX *ctx, const char *ca, struct error *err)
{
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(ca);
    if (!names || SSL_CTX_load_verify_file(ctx, ca) != 1)
        return fail(ca, err);
    SSL_CTX_set_client_CA_list(ctx, names);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return OK;
}

static enum status fill(SSL_CTX *ctx, const struct config_tls *config, struct error *err)
{
    static const unsigned char session_words[] = "witan-http";
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    /* Of TLS 1.2 what has forward secrecy and authenticates what it encrypts; 1.3 has nothing else.
     */
    if (SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20") != 1)
        return fail("TLS", err);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_id_context(ctx, session_words, sizeof session_words - 1);
    if (SSL_CTX_use_certificate_chain_file(ctx, config->cert) != 1)
        return fail(config->cert, err);
    if (SSL_CTX_use_PrivateKey_file(ctx, config->key, SSL_FILETYPE_PEM) != 1)
        return fail(config->key, err);
    if (SSL_CTX_check_private_key(ctx) != 1)
        return fail(config->key, err);
    return config->client_ca ? demand_clients(ctx, config->client_ca, err) : OK;
}

enum status http_tls_create(const struct config_tls *config, SSL_CTX **out, struct error *err)
{
    *out = SSL_CTX_new(TLS_server_method());
    if (!*out)
        return fail("TLS", err);
    enum status st = fill(*out, config, err);
    if (st != OK) {
        SSL_CTX_free(*out);
        *out = NULL;
    }
    return st;
}

void http_tls_goodbye(struct bufferevent *bev)
{
    SSL *ssl = bufferevent_openssl_get_ssl(bev);
    if (ssl && SSL_is_init_finished(ssl) && !SSL_get_shutdown(ssl))
        SSL_shutdown(ssl);
    ERR_clear_error(); /* the queue is the thread's, and others look at it */
}
