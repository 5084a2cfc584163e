/* Admin's calls: see inference_admin.h. */
#include "coordinator/inference_admin.h"
#include "base/check.h"
#include "base/clock.h"
#include "coordinator/audit_request.h"
#include "coordinator/drain.h"
#include "proto/versions.h"

#include <string.h>

static char *copy(const char *s)
{
    char *out = strdup(s);
    CHECK(out, "no memory");
    return out;
}

Witan__Inference__V1__GetStatusResponse *admin_status(const struct core *core)
{
    Witan__Inference__V1__GetStatusResponse *r = check_calloc(1, sizeof *r);
    witan__inference__v1__get_status_response__init(r);
    r->version = copy(WITAN_VERSION);
    r->model = copy(core->served.name);
    r->model_dir = copy(core->config->model.path);
    r->uptime_seconds = (uint64_t)((clock_now_ns() - core->started_ns) / 1000000000);
    r->requests_running = (uint32_t)core->running;
    r->requests_done = core->done;
    if (core->served.manifest) {
        r->manifest = check_calloc(1, sizeof *r->manifest);
        witan__inference__v1__manifest__init(r->manifest);
        r->manifest->digest = copy(manifest_digest(core->served.manifest));
        r->manifest->signers = copy(manifest_signers(core->served.manifest));
    }
    members_status(core->members, r);
    return r;
}

static enum status drain(struct core *core, const Witan__Inference__V1__DrainRequest *q,
                         ProtobufCMessage **response, struct error *err)
{
    uint32_t requests;
    bool stops = q->stop && !q->undo;
    if (stops)
        TRY(drain_stop(core->members, q->group, q->within_s, q->force, &requests, err));
    else
        TRY(drain_group(core->members, q->group, q->undo, q->force, &requests, err));
    Witan__Inference__V1__DrainResponse *r = check_calloc(1, sizeof *r);
    witan__inference__v1__drain_response__init(r);
    r->requests = requests;
    r->stops = stops;
    *response = &r->base;
    return OK;
}

static enum status restart(struct core *core, const Witan__Inference__V1__RestartRequest *q,
                           ProtobufCMessage **response, struct error *err)
{
    uint32_t requests;
    TRY(drain_restart(core->members, q->group, q->force, &requests, err));
    Witan__Inference__V1__RestartResponse *r = check_calloc(1, sizeof *r);
    witan__inference__v1__restart_response__init(r);
    r->requests = requests;
    r->drain_timeout_s = (uint32_t)core->config->limits.drain_timeout_s;
    r->start_timeout_s = (uint32_t)core->config->limits.start_timeout_s;
    *response = &r->base;
    return OK;
}

enum rpc_code admin_answer(struct core *core, const char *key, const ProtobufCMessage *request,
                           ProtobufCMessage **response, struct error *err)
{
    const ProtobufCMessageDescriptor *kind = request->descriptor;
    enum status st = OK;
    *response = NULL;
    if (kind == &witan__inference__v1__drain_request__descriptor) {
        const Witan__Inference__V1__DrainRequest *q = (const void *)request;
        st = drain(core, q, response, err);
        audit_admin(core, q->undo ? "undrain" : "drain", q->group, key, q->force,
                    st == OK ? NULL : err->msg);
    } else if (kind == &witan__inference__v1__restart_request__descriptor) {
        const Witan__Inference__V1__RestartRequest *q = (const void *)request;
        st = restart(core, q, response, err);
        audit_admin(core, "restart", q->group, key, q->force, st == OK ? NULL : err->msg);
    } else {
        *response = &admin_status(core)->base;
    }
    return st == OK ? RPC_OK : st == ERR_NOT_FOUND ? RPC_NOT_FOUND : RPC_FAILED_PRECONDITION;
}
