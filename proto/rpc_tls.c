/*
 * Credentials from PEM texts. gRPC tells nothing of a text that it cannot read, so OpenSSL reads it
 * first.
 */
#include "proto/rpc_private.h"

#include "base/check.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

/* An encrypted key gets no password, rather than a question on the terminal. */
static int no_password(char *buf, int size, int writing, void *arg)
{
    (void)buf, (void)size, (void)writing, (void)arg;
    return 0;
}

/* The first certificate into `first` (may be NULL). */
static enum status check_certificates(const char *pem, const char *what, X509 **first,
                                      struct error *err)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    CHECK(bio, "no memory to read a PEM text");
    int count = 0;
    for (X509 *cert; (cert = PEM_read_bio_X509(bio, NULL, no_password, NULL)); count++)
        if (first && !*first)
            *first = cert;
        else
            X509_free(cert);
    unsigned long e = ERR_peek_last_error();
    bool at_end = ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE;
    BIO_free(bio);
    ERR_clear_error();
    if (count == 0 || !at_end)
        return error_set(err, ERR_INVALID, "TLS: the %s is not a PEM certificate%s", what,
                         count > 0 ? " throughout" : "");
    return OK;
}

static enum status check_key(const char *pem, X509 *cert, struct error *err)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    CHECK(bio, "no memory to read a PEM text");
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
    BIO_free(bio);
    enum status st = OK;
    if (!key)
        st = error_set(err, ERR_INVALID, "TLS: the private key is not a PEM key without password");
    else if (X509_check_private_key(cert, key) != 1)
        st = error_set(err, ERR_INVALID, "TLS: the private key is not the certificate's");
    EVP_PKEY_free(key);
    ERR_clear_error();
    return st;
}

static enum status check_pair(const struct rpc_tls *tls, struct error *err)
{
    X509 *cert = NULL;
    enum status st = check_certificates(tls->cert, "certificate", &cert, err);
    if (st == OK)
        st = check_key(tls->key, cert, err);
    X509_free(cert);
    return st;
}

static bool is_plaintext(const struct rpc_tls *tls)
{
    return !tls || (!tls->ca && !tls->cert && !tls->key);
}

enum status rpc_tls_server_credentials(const struct rpc_tls *tls, grpc_server_credentials **out,
                                       struct error *err)
{
    if (is_plaintext(tls)) {
        *out = grpc_insecure_server_credentials_create();
        return OK;
    }
    if (!tls->cert || !tls->key)
        return error_set(err, ERR_INVALID, "TLS: a server needs a certificate and its private key");
    TRY(check_pair(tls, err));
    if (tls->ca)
        TRY(check_certificates(tls->ca, "trusted root", NULL, err));
    grpc_ssl_pem_key_cert_pair pair = {tls->key, tls->cert};
    grpc_ssl_server_certificate_config *config = grpc_ssl_server_certificate_config_create(
        tls->ca, &pair, 1);
    *out = grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config(
            tls->ca ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                    : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
            config));
    return OK;
}

enum status rpc_tls_channel_credentials(const struct rpc_tls *tls, grpc_channel_credentials **out,
                                        struct error *err)
{
    if (is_plaintext(tls)) {
        *out = grpc_insecure_credentials_create();
        return OK;
    }
    if (!tls->ca || !tls->cert != !tls->key)
        return error_set(err, ERR_INVALID,
                         "TLS: a client needs trusted roots, and a certificate "
                         "and its private key together or not at all");
    TRY(check_certificates(tls->ca, "trusted root", NULL, err));
    if (tls->cert)
        TRY(check_pair(tls, err));
    grpc_ssl_pem_key_cert_pair pair = {tls->key, tls->cert};
    *out = grpc_ssl_credentials_create_ex(tls->ca, tls->cert ? &pair : NULL, NULL, NULL);
    return OK;
}

static bool is_printable(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s[i] <= 0x20 || s[i] == 0x7f)
            return false;
    return n > 0;
}

static bool starts_with(const char *s, size_t n, const char *prefix)
{
    return n >= strlen(prefix) && memcmp(s, prefix, strlen(prefix)) == 0;
}

/* Appends the values of one property of the peer, skipping what no URI is. */
static void append_names(grpc_auth_context *context, const char *property, bool any_scheme,
                         char **uris, size_t *len)
{
    grpc_auth_property_iterator it = grpc_auth_context_find_properties_by_name(context, property);
    for (const grpc_auth_property *p; (p = grpc_auth_property_iterator_next(&it));) {
        size_t n = p->value_length;
        if (!is_printable(p->value, n) || (!any_scheme && !starts_with(p->value, n, "urn:") &&
                                           !starts_with(p->value, n, "witan:")))
            continue;
        char *grown = realloc(*uris, *len + n + 2);
        CHECK(grown, "no memory for a peer's names");
        *uris = grown;
        if (*len > 0)
            grown[(*len)++] = '\n';
        memcpy(grown + *len, p->value, n);
        *len += n;
        grown[*len] = '\0';
    }
}

char *rpc_tls_peer_uris(grpc_call *call)
{
    char *uris = check_calloc(1, 1);
    size_t len = 0;
    grpc_auth_context *context = grpc_call_auth_context(call);
    if (context && grpc_auth_context_peer_is_authenticated(context)) {
        append_names(context, GRPC_PEER_URI_PROPERTY_NAME, true, &uris, &len);
        if (len == 0)
            append_names(context, GRPC_X509_SAN_PROPERTY_NAME, false, &uris, &len);
    }
    grpc_auth_context_release(context);
    return uris;
}
