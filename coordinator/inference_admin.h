/* The calls of the service Admin: what an operator asks and orders (proto/inference.proto). On the
 * loop thread. */
#ifndef WITAN_COORDINATOR_INFERENCE_ADMIN_H
#define WITAN_COORDINATOR_INFERENCE_ADMIN_H

#include "coordinator/core.h"
#include "proto/inference.pb-c.h"
#include "proto/rpc.h"

/* Does what one of Admin's requests says, and records orders, with the id of the `key` that they
 * came by, in the audit log. *response: for protobuf_c_message_free_unpacked; NULL where it is
 * refused, with the code and `err` for the client. */
enum rpc_code admin_answer(struct core *core, const char *key, const ProtobufCMessage *request,
                           ProtobufCMessage **response, struct error *err);

/* The answer to GetStatus, for ..._get_status_response__free_unpacked. */
Witan__Inference__V1__GetStatusResponse *admin_status(const struct core *core);

#endif
