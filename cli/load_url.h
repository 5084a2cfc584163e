/* Where an HTTP server is: its URL taken apart, its addresses, TLS to it. One thread. */
#ifndef WITAN_CLI_LOAD_URL_H
#define WITAN_CLI_LOAD_URL_H

#include "base/error.h"

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <sys/socket.h>

enum { LOAD_MAX_ADDRESSES = 8 };

struct load_url {
    bool tls;
    char host[256];      /* without brackets */
    char authority[280]; /* for Host */
    char path[512];      /* before "/v1": "" or "/..." */
    int port;
    struct sockaddr_storage addresses[LOAD_MAX_ADDRESSES];
    socklen_t lengths[LOAD_MAX_ADDRESSES];
    int address_count; /* 0 until load_url_resolve */
};

/* "http[s]://HOST[:PORT][/PREFIX][/v1][/]". ERR_INVALID says what was expected. */
enum status load_url_parse(const char *text, struct load_url *out, struct error *err);
/* Asks for the host's addresses, blocking. ERR_PEER when there is no such host. */
enum status load_url_resolve(struct load_url *u, struct error *err);

/* A context for clients: TLS 1.2 and newer, the roots of `ca` (NULL: the system's), or none. */
enum status load_tls_create(const char *ca, bool insecure, SSL_CTX **out, struct error *err);
/* One connection's, that demands a certificate for the host. NULL without memory. */
SSL *load_tls_begin(SSL_CTX *ctx, const struct load_url *u);

#endif
