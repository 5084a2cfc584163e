/* See load_url.h. No state. */
#include "cli/load_url.h"

#include "coordinator/config.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

static enum status bad_url(const char *text, struct error *err)
{
    return error_set(err, ERR_INVALID,
                     "expected http://HOST[:PORT][/PREFIX] or https://..., found \"%.200s\"", text);
}

/* "HOST", "HOST:PORT", "[::1]:PORT". */
static bool take_authority(struct load_url *u)
{
    char full[300];
    const char *bracket = strrchr(u->authority, ']'), *colon = strrchr(u->authority, ':');
    bool has_port = colon && (!bracket || colon > bracket);
    snprintf(full, sizeof full, "%s%s", u->authority, has_port ? "" : u->tls ? ":443" : ":80");
    return address_split(full, u->host, &u->port, NULL) == OK && u->port > 0 && *u->host;
}

enum status load_url_parse(const char *text, struct load_url *out, struct error *err)
{
    *out = (struct load_url){0};
    out->tls = strncmp(text, "https://", 8) == 0;
    if (!out->tls && strncmp(text, "http://", 7) != 0)
        return bad_url(text, err);
    const char *at = text + (out->tls ? 8 : 7);
    size_t len = strcspn(at, "/");
    if (len >= sizeof out->authority || strlen(at + len) >= sizeof out->path ||
        strpbrk(at, "?#@ \t\r\n\"\\"))
        return bad_url(text, err);
    memcpy(out->authority, at, len);
    if (!take_authority(out))
        return bad_url(text, err);
    snprintf(out->path, sizeof out->path, "%s", at + len);
    for (size_t n = strlen(out->path); n > 0 && out->path[n - 1] == '/'; n--)
        out->path[n - 1] = '\0';
    size_t n = strlen(out->path);
    if (n >= 3 && strcmp(out->path + n - 3, "/v1") == 0)
        out->path[n - 3] = '\0';
    return OK;
}

enum status load_url_resolve(struct load_url *u, struct error *err)
{
    char port[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    snprintf(port, sizeof port, "%d", u->port);
    int code = getaddrinfo(u->host, port, &hints, &found);
    if (code != 0)
        return error_set(err, ERR_PEER, "%s: %s", u->host, gai_strerror(code));
    u->address_count = 0;
    for (const struct addrinfo *a = found; a && u->address_count < LOAD_MAX_ADDRESSES;
         a = a->ai_next) {
        memcpy(&u->addresses[u->address_count], a->ai_addr, a->ai_addrlen);
        u->lengths[u->address_count++] = a->ai_addrlen;
    }
    freeaddrinfo(found);
    return OK;
}

/* --- TLS ---------------------------------------------------------------------------------------
 */

static enum status trust(SSL_CTX *ctx, const char *ca, struct error *err)
{
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    int good = ca ? SSL_CTX_load_verify_file(ctx, ca) : SSL_CTX_set_default_verify_paths(ctx);
    if (good == 1)
        return OK;
    char why[256];
    ERR_error_string_n(ERR_peek_last_error(), why, sizeof why);
    ERR_clear_error();
    return error_set(err, ERR_INVALID, "%s: %s", ca ? ca : "the system's trusted roots", why);
}

enum status load_tls_create(const char *ca, bool insecure, SSL_CTX **out, struct error *err)
{
    static const unsigned char protocols[] = "\x08http/1.1";
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (!ctx)
        return error_set(err, ERR_NO_MEMORY, "no memory for TLS");
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_alpn_protos(ctx, protocols, sizeof protocols - 1);
    enum status st = insecure ? OK : trust(ctx, ca, err);
    if (st != OK)
        SSL_CTX_free(ctx);
    else
        *out = ctx;
    return st;
}

SSL *load_tls_begin(SSL_CTX *ctx, const struct load_url *u)
{
    unsigned char bytes[sizeof(struct in6_addr)];
    SSL *ssl = SSL_new(ctx);
    if (!ssl)
        return NULL;
    bool is_ip = inet_pton(AF_INET, u->host, bytes) == 1 ||
                 inet_pton(AF_INET6, u->host, bytes) == 1;
    int good = is_ip ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), u->host)
                     : SSL_set1_host(ssl, u->host) && SSL_set_tlsext_host_name(ssl, u->host);
    if (good == 1)
        return ssl;
    SSL_free(ssl);
    return NULL;
}
