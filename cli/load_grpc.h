/*
 * The client of our own servers' gRPC door: Generate with token ids, text or a conversation. Its
 * calls run on the rpc thread (proto/rpc.h), where their times are taken.
 */
#ifndef WITAN_CLI_LOAD_GRPC_H
#define WITAN_CLI_LOAD_GRPC_H

#include "cli/load_flight.h"

struct load_grpc_options {
    const char *address;       /* "HOST:PORT" */
    const char *ca;            /* PEM file of trusted roots; NULL: plaintext on loopback, else the
                                  system's roots */
    const char *authorization; /* "Bearer KEY"; NULL: none */
    int32_t most;
    int timeout_ms; /* of a request, and of load_grpc_models */
    const char *model;
    bool chat; /* texts are a user's message */
    bool ignore_eos;
    bool has_temperature;
    float temperature;
};

struct load_grpc;

/* `o` and what it points to outlive the client; `model` may be set until the first start(). */
enum status load_grpc_create(const struct load_grpc_options *o, struct load_grpc **out,
                             struct error *err);
void load_grpc_destroy(struct load_grpc *g); /* no flight is under way; NULL is fine */
struct load_client *load_grpc_client(struct load_grpc *g);

/* The first model's name and its count of ids, blocking. ERR_PEER when the server cannot be
 * reached. */
enum status load_grpc_models(struct load_grpc *g, char *name, size_t size, int32_t *vocabulary,
                             struct error *err);

/* The energy that the server's groups say that they have used by now, processors and GPUs, or where
 * they do not know their ranks' GPUs, in J, blocking; NAN where none
 * has a meter or the server does not tell. */
double load_grpc_energy(struct load_grpc *g);

#endif
