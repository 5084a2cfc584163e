/*
 * The client of any OpenAI-compatible server: HTTP/1.1 with or without TLS, answers as server-sent
 * events, connections kept for the next request. All on the thread of one event base, and every
 * time is taken when bytes have been read.
 */
#ifndef WITAN_CLI_LOAD_HTTP_H
#define WITAN_CLI_LOAD_HTTP_H

#include "base/buf.h"
#include "cli/load_flight.h"

#include <event2/event.h>

struct load_http_options {
    const char *url; /* "http[s]://HOST[:PORT][/PREFIX]", with or without /v1 at its end */
    const char *ca;  /* PEM file of trusted roots; NULL: the system's */
    bool insecure;   /* TLS to whoever answers */
    const char *authorization; /* "Bearer KEY"; NULL: none */
    int32_t most;              /* connections */
    int timeout_ms;            /* of load_http_models */
    /* Of the requests' bodies. */
    const char *model;
    bool chat;        /* /v1/chat/completions, else /v1/completions */
    bool ignore_eos;  /* "ignore_eos": true */
    bool usage;       /* "stream_options": {"include_usage": true} */
    const char *more; /* members of a JSON object, joined to each body; NULL: none */
};

struct load_http;

/* Reads the URL, finds the host's address and makes room for `most` descriptors. ERR_INVALID,
 * ERR_PEER (no such host), ERR_LIMIT. `o` and what it points to outlive the client; `model` may be
 * set until the first start(). */
enum status load_http_create(struct event_base *base, const struct load_http_options *o,
                             struct load_http **out, struct error *err);
void load_http_destroy(struct load_http *h); /* no flight is under way; NULL is fine */
struct load_client *load_http_client(struct load_http *h);

/* Asks GET /v1/models, blocking. `name` gets the first model's, "" where the server has no such
 * list. ERR_PEER when the server cannot be reached or does not speak HTTP. */
enum status load_http_models(struct load_http *h, char *name, size_t size, struct error *err);

/* The server's address and path, for reports. */
const char *load_http_words(const struct load_http *h);

/* Writes a request's body. */
enum status load_http_body(const struct load_http_options *o, const struct load_request *r,
                           struct buf *out, struct error *err);

#endif
