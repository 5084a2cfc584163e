/* The runtime: see rpc.h. */
#include "proto/rpc.h"

enum rpc_code rpc_code_of(enum status st)
{
    static const enum rpc_code codes[] = {
        [OK] = RPC_OK,
        [ERR_INVALID] = RPC_INVALID_ARGUMENT,
        [ERR_UNSUPPORTED] = RPC_UNIMPLEMENTED,
        [ERR_NOT_FOUND] = RPC_NOT_FOUND,
        [ERR_IO] = RPC_INTERNAL,
        [ERR_NO_MEMORY] = RPC_RESOURCE_EXHAUSTED,
        [ERR_LIMIT] = RPC_RESOURCE_EXHAUSTED,
        [ERR_CANCELLED] = RPC_CANCELLED,
        [ERR_PEER] = RPC_UNAVAILABLE,
    };
    return codes[st];
}
