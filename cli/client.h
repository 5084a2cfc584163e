/*
 * A client of a coordinator's gRPC door: the flags that say where it is, and calls that block until
 * they end. One thread but for on_message.
 */
#ifndef WITAN_CLI_CLIENT_H
#define WITAN_CLI_CLIENT_H

#include "base/error.h"

#include <protobuf-c/protobuf-c.h>
#include <signal.h>

struct client_options {
    const char *address;  /* "host:port" */
    const char *ca;       /* PEM file of trusted roots; NULL: the system's, off loopback */
    const char *key_file; /* holds an API key; NULL: WITAN_API_KEY, else none */
};

/* The flags' help, one line each. */
extern const char client_help[];

void client_init(struct client_options *o);

/* Takes argv[*i] and its value if it is one of the client's flags, and moves *i to the last word
 * taken. 1: taken; 0: not a flag of the client; -1: a bad value, said on standard error. */
int client_flag(struct client_options *o, int argc, char **argv, int *i);

struct client;

/* Connects lazily, in plaintext on loopback without `ca`, else by TLS. */
enum status client_open(const struct client_options *o, struct client **out, struct error *err);
void client_close(struct client *c); /* NULL is fine */

struct client_call {
    const char *method; /* "/witan.inference.v1.Inference/Generate" */
    const ProtobufCMessage *request;
    const ProtobufCMessageDescriptor *reply;
    /* Called on another thread while client_call blocks. The message is gone afterwards. */
    void (*on_message)(void *user, const ProtobufCMessage *message);
    void *user;
    int timeout_ms;                           /* 0: none */
    const volatile sig_atomic_t *interrupted; /* not 0: the call is cancelled; NULL: never */
};

/* Runs one call to its end. ERR_CANCELLED when it was interrupted; else what the status says, with
 * the address before the message where the coordinator could not be reached. */
enum status client_call(struct client *c, const struct client_call *call, struct error *err);

#endif
