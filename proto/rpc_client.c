/* Channels and the calls that start on them. See rpc.h. */
#include "proto/rpc_private.h"

#include "base/check.h"

#include <grpc/support/time.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A peer that comes back is found again within a second. */
enum { BACKOFF_FIRST_MS = 100, BACKOFF_MAX_MS = 1000, CONNECT_MS = 5000, RESOLVE_EVERY_MS = 1000 };

struct rpc_channel {
    struct rpc *rpc;
    grpc_channel *grpc;
};

static grpc_channel *create_grpc_channel(const char *target, grpc_channel_credentials *credentials,
                                         const char *peer_name)
{
    grpc_arg list[RPC_MAX_ARGS];
    size_t n = RPC_COMMON_ARGS;
    rpc_common_args(list);
    list[n++] = rpc_int_arg(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, BACKOFF_FIRST_MS);
    list[n++] = rpc_int_arg(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, BACKOFF_MAX_MS);
    list[n++] = rpc_int_arg(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, CONNECT_MS); /* one attempt's */
    list[n++] = rpc_int_arg(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, RESOLVE_EVERY_MS);
    list[n++] = rpc_int_arg(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    list[n++] = rpc_int_arg(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    list[n++] = rpc_int_arg(GRPC_ARG_ENABLE_RETRIES, 0); /* a call is tried once: fencing is ours */
    list[n++] = rpc_int_arg(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
    if (peer_name)
        list[n++] = (grpc_arg){.type = GRPC_ARG_STRING,
                               .key = (char *)GRPC_SSL_TARGET_NAME_OVERRIDE_ARG,
                               .value.string = (char *)peer_name};
    grpc_channel_args args = {n, list};
    return grpc_channel_create(target, credentials, &args);
}

enum status rpc_channel_create(struct rpc *r, const char *address, const struct rpc_tls *tls,
                               struct rpc_channel **out, struct error *err)
{
    char host[256], target[300];
    int port;
    TRY(rpc_split_address(address, host, &port, err));
    grpc_channel_credentials *credentials;
    TRY(rpc_tls_channel_credentials(tls, &credentials, err));
    snprintf(target, sizeof target, "dns:///%s", address);
    struct rpc_channel *c = check_calloc(1, sizeof *c);
    c->rpc = r;
    c->grpc = create_grpc_channel(target, credentials, tls ? tls->peer_name : NULL);
    grpc_channel_credentials_release(credentials);
    *out = c;
    return OK;
}

void rpc_channel_destroy(struct rpc_channel *c)
{
    if (!c)
        return;
    grpc_channel_destroy(c->grpc);
    free(c);
}

static grpc_call *create_grpc_call(struct rpc_channel *c, const char *method, int deadline_ms)
{
    gpr_timespec deadline = gpr_inf_future(GPR_CLOCK_MONOTONIC);
    if (deadline_ms > 0)
        deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                gpr_time_from_millis(deadline_ms, GPR_TIMESPAN));
    grpc_slice name = grpc_slice_from_copied_string(method);
    grpc_call *call = grpc_channel_create_call(c->grpc, NULL, GRPC_PROPAGATE_DEFAULTS,
                                               c->rpc->queue, name, NULL, deadline, NULL);
    grpc_slice_unref(name);
    return call;
}

enum status rpc_call_start(struct rpc_channel *c, const char *method,
                           const ProtobufCMessageDescriptor *reply,
                           const struct rpc_call_handlers *handlers, void *user, int deadline_ms,
                           bool wait_ready, const char *authorization, struct rpc_call **out,
                           struct error *err)
{
    grpc_metadata metadata = {0};
    if (authorization) {
        metadata.key = grpc_slice_from_static_string("authorization");
        metadata.value = grpc_slice_from_copied_string(authorization);
        if (!grpc_header_nonbin_value_is_legal(metadata.value)) {
            grpc_slice_unref(metadata.value);
            return error_set(err, ERR_INVALID,
                             "the authorization holds characters that HTTP "
                             "headers cannot");
        }
    }
    struct rpc_call *call = rpc_call_create(c->rpc);
    call->grpc = create_grpc_call(c, method, deadline_ms);
    call->incoming = reply;
    call->handlers = *handlers;
    call->authorization = authorization ? &metadata : NULL;
    call->initial_flags = wait_ready ? GRPC_INITIAL_METADATA_WAIT_FOR_READY : 0;
    rpc_call_set_user(call, user);
    *out = rpc_call_ref(call); /* before the first callback, which may come before we return */
    call->receiving = true;
    rpc_call_watch_end(call);
    rpc_call_receive(call);
    if (authorization)
        grpc_slice_unref(metadata.value);
    return OK;
}
