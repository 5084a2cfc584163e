/* What the coordinator gives up after its start: see confine.h. No state. */
#include "coordinator/confine.h"
#include "base/log.h"
#include "base/process.h"
#include "base/sandbox.h"
#include "base/wipe.h"
#include "coordinator/config_private.h"

#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>

enum {
    DNS_PORT = 53,            /* of peers by name, when an answer is too long for UDP */
    FIRST_FREE_PORT = 1024,   /* those below want a capability */
    LOCKED_MORE = 1024 << 20, /* beside limits.memory_mb: threads' stacks, libraries' buffers */
};

/* Files of the configuration that the coordinator only reads. A text that is not here and names a
 * path may be written: a new key that is a file to write works, and one to read is to be added. */
static bool only_read(const struct config *c, const char *text)
{
    const char *const known[] = {
        c->name,
        c->region,
        c->model.path,
        c->model.name,
        c->model.manifest,
        c->model.trust,
        c->model.weights_cache,
        c->model.device,
        c->model.weights,
        c->model.collectives,
        c->listen.http,
        c->listen.grpc,
        c->listen.cluster,
        c->listen.tls.cert,
        c->listen.tls.key,
        c->listen.tls.client_ca,
        c->listen.keys,
        c->auth.jwks,
        c->auth.issuer,
        c->auth.audience,
        c->auth.tenant_claim,
        c->auth.scopes_claim,
        c->pki,
        c->sandbox,
        c->audit.key,
        c->audit.hmac_key,
        c->audit.on_error,
        c->limits.kv,
        c->limits.kernels,
        c->limits.prefix_cache,
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i] == text)
            return true;
    return false;
}

/* A file may be replaced, and be new: its folder. */
static void may_write_beside(struct sandbox *s, const char *text, char *folders[], uint32_t *count)
{
    char *folder = strdup(text), *slash = folder ? strrchr(folder, '/') : NULL;
    sandbox_may_write(s, text);
    if (!slash) /* beside the working folder */
        sandbox_may_write(s, ".");
    if (!slash || slash == folder) {
        free(folder);
        return;
    }
    *slash = '\0';
    sandbox_may_write(s, folder);
    folders[(*count)++] = folder;
}

static uint64_t needed(const struct config *c)
{
    char host[256];
    int port;
    uint64_t keep = c->retention.mlock ? UINT64_C(1) << CAP_IPC_LOCK : 0;
    const char *const doors[] = {c->listen.http, c->listen.grpc, c->listen.cluster};
    for (size_t i = 0; i < sizeof doors / sizeof *doors; i++)
        if (address_split(doors[i], host, &port, NULL) == OK && port > 0 && port < FIRST_FREE_PORT)
            keep |= UINT64_C(1) << CAP_NET_BIND_SERVICE;
    return keep;
}

static enum status sandbox(const struct config *c, struct error *err)
{
    struct sandbox s = {.connects = true, .alone = true, .keep = needed(c)};
    char host[256], words[SANDBOX_WORDS] = "", *folders[SANDBOX_MAX_WRITE];
    uint32_t count = 0;
    int port;
#define X(key)                                                                                     \
    if (c->key && *c->key && !only_read(c, c->key))                                                \
        may_write_beside(&s, c->key, folders, &count);
    CONFIG_TEXTS(X)
#undef X
    sandbox_may_write(&s, "/dev/null");
    if (c->core_dumps) /* the kernel writes them as this process would, beside it by default */
        sandbox_may_write(&s, ".");
    for (uint32_t i = 0; i < c->peers_count; i++)
        if (address_split(c->peers[i], host, &port, NULL) == OK)
            sandbox_may_connect(&s, port);
    if (c->peers_count > 0)
        sandbox_may_connect(&s, DNS_PORT);
    enum status st = sandbox_begin(&s, words, err);
    for (uint32_t i = 0; i < count; i++)
        free(folders[i]);
    if (st == OK)
        st = sandbox_seal(words, err);
    if (st == OK)
        log_info("sandbox: %s", words);
    return st;
}

enum status confine(const struct config *c, struct error *err)
{
    if (!c->core_dumps)
        process_no_dumps();
    else
        log_warn("core_dumps: true: a dump of this process holds prompts and answers");
    if (c->retention.wipe && !wipe_on_free())
        log_warn("retention.wipe: this build does not wipe what it frees, KV blocks alone");
    if (c->retention.mlock)
        TRY(process_lock_memory(((uint64_t)c->limits.memory_mb << 20) + LOCKED_MORE, err));
    if (config_sandbox(c)) {
        enum status st = sandbox(c, err);
        return st == OK ? OK : error_advise(err, st, "sandbox: off goes without");
    }
    log_warn("sandbox: off: this process may do all that its user may");
    return OK;
}
