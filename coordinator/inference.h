/*
 * The gRPC door: Inference and Admin (proto/inference.proto) on their own port. The rpc thread
 * takes calls in and checks their keys; everything else happens on the loop thread.
 */
#ifndef WITAN_COORDINATOR_INFERENCE_H
#define WITAN_COORDINATOR_INFERENCE_H

#include "coordinator/core.h"
#include "proto/rpc.h"

struct inference;

/* Listens on config.listen.grpc. */
enum status inference_create(struct core *core, struct rpc *rpc, struct inference **out,
                             struct error *err);
int inference_port(const struct inference *d);
/* The health service follows: call when readiness changes. */
void inference_set_serving(struct inference *d, bool serving);
/* Cuts off clients that take nothing for limits.read_timeout_s. Called about once a second. */
void inference_tick(struct inference *d);
/* Answers that are still running; new requests are refused from inference_stop on. */
int inference_active(const struct inference *d);
void inference_stop(struct inference *d);
void inference_destroy(struct inference *d); /* after the loop has ended; NULL is fine */

#endif
