/* The calls of the service Admin: what an operator asks and orders (proto/inference.proto). On the
 * loop thread. */
#ifndef WITAN_COORDINATOR_INFERENCE_ADMIN_H
#define WITAN_COORDINATOR_INFERENCE_ADMIN_H

#include "coordinator/core.h"
#include "proto/inference.pb-c.h"
#include "proto/rpc.h"

/* Does what one of Admin's requests says. *response: for protobuf_c_message_free_unpacked; NULL
 * where it is refused, with the code and `err` for the client. */
enum rpc_code admin_answer(struct core *core, const ProtobufCMessage *request,
                           ProtobufCMessage **response, struct error *err);

#endif
