/* cluster.yaml: see config.h. Defaults, reading over them, releasing. */
#include "coordinator/config.h"

#include "coordinator/config_private.h"

#include <stdlib.h>
#include <string.h>

#define X(key, preset, min, max)                                                                   \
    _Static_assert((preset) == 0 || (min) > 0, "0 must mean that " #key " was absent");
CONFIG_LIMITS(X)
CONFIG_MODEL_INTS(X)
CONFIG_AUDIT_INTS(X)
CONFIG_AUTH_INTS(X)
CONFIG_QUOTAS(X)
CONFIG_GROUP_INTS(X)
CONFIG_HOST_INTS(X)
#undef X

enum status config_set_text(char **to, const char *from, struct error *err)
{
    char *copy = strdup(from);
    if (!copy)
        return error_set(err, ERR_NO_MEMORY, "no memory for the configuration");
    free(*to);
    *to = copy;
    return OK;
}

enum status config_init(struct config *c, struct error *err)
{
    *c = (struct config){0};
#define X(key, preset, min, max) c->limits.key = preset;
    CONFIG_LIMITS(X)
#undef X
#define X(key, preset, min, max) c->model.key = preset;
    CONFIG_MODEL_INTS(X)
#undef X
#define X(key, preset, min, max) c->audit.key = preset;
    CONFIG_AUDIT_INTS(X)
#undef X
#define X(key, preset, min, max) c->auth.key = preset;
    CONFIG_AUTH_INTS(X)
#undef X
    const struct {
        char **to;
        const char *text;
    } presets[] = {
        {&c->name, "witan"},
        {&c->region, ""},
        {&c->sandbox, "on"},
        {&c->model.device, "cpu"},
        {&c->model.weights, "published"},
        {&c->model.collectives, "auto"},
        {&c->audit.on_error, "refuse"},
        {&c->auth.tenant_claim, "sub"},
        {&c->auth.scopes_claim, "scope"},
        {&c->listen.http, "127.0.0.1:8000"},
        {&c->listen.grpc, "127.0.0.1:8001"},
        {&c->listen.cluster, "127.0.0.1:8002"},
        {&c->limits.kv, "bf16"},
        {&c->limits.kernels, "auto"},
        {&c->limits.prefix_cache, "tenant"},
    };
    enum status st = OK;
    for (size_t i = 0; st == OK && i < sizeof presets / sizeof *presets; i++)
        st = config_set_text(presets[i].to, presets[i].text, err);
    if (st != OK)
        config_fini(c);
    return st;
}

static void group_fini(struct config_group *g)
{
    for (uint32_t i = 0; i < g->hosts_count; i++) {
        free(g->hosts[i].name);
        free(g->hosts[i].region);
    }
    free(g->hosts);
    free(g->name);
    free(g->data_plane);
    *g = (struct config_group){0};
}

static void free_groups(struct config *c)
{
    for (uint32_t i = 0; i < c->groups_count; i++)
        group_fini(&c->groups[i]);
    free(c->groups);
    c->groups = NULL;
    c->groups_count = 0;
}

static void free_peers(struct config *c)
{
    for (uint32_t i = 0; i < c->peers_count; i++)
        free(c->peers[i]);
    free(c->peers);
    c->peers = NULL;
    c->peers_count = 0;
}

void config_fini(struct config *c)
{
#define X(key) free(c->key);
    CONFIG_TEXTS(X)
#undef X
    free_groups(c);
    free_peers(c);
    *c = (struct config){0};
}

/* Puts the defaults where the text was silent. */
static void complete_groups(struct config *c)
{
    for (uint32_t i = 0; i < c->groups_count; i++) {
        struct config_group *g = &c->groups[i];
#define X(key, preset, min, max)                                                                   \
    if (g->key == 0)                                                                               \
        g->key = preset;
        CONFIG_GROUP_INTS(X)
#undef X
        for (uint32_t j = 0; j < g->hosts_count; j++) {
            struct config_host *h = &g->hosts[j];
#define X(key, preset, min, max)                                                                   \
    if (h->key == 0)                                                                               \
        h->key = preset;
            CONFIG_HOST_INTS(X)
#undef X
        }
    }
}

/* Moves what `from` says over `c`; `from` keeps nothing that matters. */
static void merge(struct config *c, struct config *from)
{
#define X(key)                                                                                     \
    if (from->key) {                                                                               \
        free(c->key);                                                                              \
        c->key = from->key;                                                                        \
        from->key = NULL;                                                                          \
    }
    CONFIG_TEXTS(X)
#undef X
#define X(key, preset, min, max)                                                                   \
    if (from->limits.key != 0)                                                                     \
        c->limits.key = from->limits.key;
    CONFIG_LIMITS(X)
#undef X
#define X(key, preset, min, max)                                                                   \
    if (from->model.key != 0)                                                                      \
        c->model.key = from->model.key;
    CONFIG_MODEL_INTS(X)
#undef X
#define X(key, preset, min, max)                                                                   \
    if (from->audit.key != 0)                                                                      \
        c->audit.key = from->audit.key;
    CONFIG_AUDIT_INTS(X)
#undef X
#define X(key, preset, min, max)                                                                   \
    if (from->auth.key != 0)                                                                       \
        c->auth.key = from->auth.key;
    CONFIG_AUTH_INTS(X)
#undef X
#define X(key, preset, min, max)                                                                   \
    if (from->auth.quotas.key != 0)                                                                \
        c->auth.quotas.key = from->auth.quotas.key;
    CONFIG_QUOTAS(X)
#undef X
    c->listen.insecure |= from->listen.insecure;
    c->core_dumps |= from->core_dumps;
    c->retention.mlock |= from->retention.mlock;
    c->retention.wipe |= from->retention.wipe;
    c->verbose |= from->verbose;
    if (from->groups_count > 0) {
        complete_groups(from);
        free_groups(c);
        c->groups = from->groups;
        c->groups_count = from->groups_count;
        from->groups = NULL;
        from->groups_count = 0;
    }
    if (from->peers_count > 0) {
        free_peers(c);
        c->peers = from->peers;
        c->peers_count = from->peers_count;
        from->peers = NULL;
        from->peers_count = 0;
    }
}

enum status config_read_text(const char *what, const char *text, size_t len, struct config *c,
                             struct error *err)
{
    struct config *said = NULL;
    TRY(config_yaml_load(what, text, len, &said, err));
    merge(c, said);
    config_fini(said);
    free(said);
    return OK;
}

enum status config_read(const char *path, struct config *c, struct error *err)
{
    char *text = NULL;
    size_t len = 0;
    TRY(file_read_all(path, CONFIG_MAX_BYTES, &text, &len, err));
    enum status st = config_read_text(path, text, len, c, err);
    free(text);
    return st;
}

bool config_cuda(const struct config *c)
{
    return strcmp(c->model.device, "cuda") == 0;
}

bool config_sandbox(const struct config *c)
{
    return strcmp(c->sandbox, "on") == 0;
}

uint64_t config_prefix_domain(const struct config *c, uint64_t tenant)
{
    return strcmp(c->limits.prefix_cache, "shared") == 0 ? 0 : tenant;
}

int32_t config_group_world(const struct config_group *g)
{
    int32_t w = g->tp > g->ep ? g->tp : g->ep;
    return g->pp * (g->w > w ? g->w : w);
}
