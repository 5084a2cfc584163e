/* cluster.yaml as libcyaml knows it: the schema, loading and printing. See config_private.h. */
#include "coordinator/config_private.h"
#include "coordinator/yaml_prove.h"

#include <cyaml/cyaml.h>
#include <stddef.h>
#include <stdlib.h>

/* Texts are printed in quotes, so that none reads back as null. */
enum { TEXT = CYAML_FLAG_OPTIONAL | CYAML_FLAG_SCALAR_QUOTE_DOUBLE };
enum { ITEMS = CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER };

#define MODEL __typeof__(((struct config *)NULL)->model)
#define LISTEN __typeof__(((struct config *)NULL)->listen)
#define RETENTION __typeof__(((struct config *)NULL)->retention)
#define AUDIT __typeof__(((struct config *)NULL)->audit)
#define AUTH __typeof__(((struct config *)NULL)->auth)
#define QUOTAS __typeof__(((struct config *)NULL)->auth.quotas)
#define LIMITS __typeof__(((struct config *)NULL)->limits)

#define FIELD_TEXT(type, member)                                                                   \
    CYAML_FIELD_STRING_PTR(#member, TEXT, type, member, 0, CONFIG_MAX_TEXT)
#define FIELD_BOOL(type, member) CYAML_FIELD_BOOL(#member, CYAML_FLAG_OPTIONAL, type, member)
#define FIELD_INT(type, member) CYAML_FIELD_INT(#member, CYAML_FLAG_OPTIONAL, type, member)
#define FIELD_MAPPING(type, member)                                                                \
    CYAML_FIELD_MAPPING(#member, CYAML_FLAG_OPTIONAL, type, member, member##_fields)

static const cyaml_schema_field_t hosts_fields[] = {
    FIELD_TEXT(struct config_host, name),
#define X(key, preset, min, max) FIELD_INT(struct config_host, key),
    CONFIG_HOST_INTS(X)
#undef X
        FIELD_TEXT(struct config_host, region),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t host_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct config_host, hosts_fields),
};

static const cyaml_schema_field_t groups_fields[] = {
    FIELD_TEXT(struct config_group, name),
#define X(key, preset, min, max) FIELD_INT(struct config_group, key),
    CONFIG_GROUP_INTS(X)
#undef X
        FIELD_BOOL(struct config_group, external),
    FIELD_TEXT(struct config_group, data_plane),
    CYAML_FIELD_SEQUENCE("hosts", ITEMS, struct config_group, hosts, &host_schema, 0,
                         CONFIG_MAX_HOSTS),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t group_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct config_group, groups_fields),
};

static const cyaml_schema_value_t peer_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER | CYAML_FLAG_SCALAR_QUOTE_DOUBLE, char *, 0,
                       CONFIG_MAX_TEXT),
};

static const cyaml_schema_field_t model_fields[] = {
    FIELD_TEXT(MODEL, path),
    FIELD_TEXT(MODEL, name),
    FIELD_TEXT(MODEL, manifest),
    FIELD_TEXT(MODEL, trust),
    FIELD_TEXT(MODEL, weights_cache),
    FIELD_TEXT(MODEL, device),
    FIELD_TEXT(MODEL, weights),
    FIELD_TEXT(MODEL, collectives),
#define X(key, preset, min, max) FIELD_INT(MODEL, key),
    CONFIG_MODEL_INTS(X)
#undef X
        CYAML_FIELD_END,
};

static const cyaml_schema_field_t tls_fields[] = {
    FIELD_TEXT(struct config_tls, cert),
    FIELD_TEXT(struct config_tls, key),
    FIELD_TEXT(struct config_tls, client_ca),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t listen_fields[] = {
    FIELD_TEXT(LISTEN, http),
    FIELD_TEXT(LISTEN, grpc),
    FIELD_TEXT(LISTEN, cluster),
    FIELD_MAPPING(LISTEN, tls),
    FIELD_TEXT(LISTEN, keys),
    FIELD_BOOL(LISTEN, insecure),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t audit_fields[] = {
    FIELD_TEXT(AUDIT, file),
    FIELD_TEXT(AUDIT, key),
    FIELD_TEXT(AUDIT, heads),
    FIELD_TEXT(AUDIT, on_error),
    FIELD_TEXT(AUDIT, hmac_key),
#define X(key, preset, min, max) FIELD_INT(AUDIT, key),
    CONFIG_AUDIT_INTS(X)
#undef X
        CYAML_FIELD_END,
};

static const cyaml_schema_field_t quotas_fields[] = {
#define X(key, preset, min, max) FIELD_INT(QUOTAS, key),
    CONFIG_QUOTAS(X)
#undef X
        CYAML_FIELD_END,
};

static const cyaml_schema_field_t auth_fields[] = {
    FIELD_TEXT(AUTH, jwks),
    FIELD_TEXT(AUTH, issuer),
    FIELD_TEXT(AUTH, audience),
    FIELD_TEXT(AUTH, tenant_claim),
    FIELD_TEXT(AUTH, scopes_claim),
#define X(key, preset, min, max) FIELD_INT(AUTH, key),
    CONFIG_AUTH_INTS(X)
#undef X
        FIELD_MAPPING(AUTH, quotas),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t limits_fields[] = {
#define X(key, preset, min, max) FIELD_INT(LIMITS, key),
    CONFIG_LIMITS(X)
#undef X
        FIELD_TEXT(LIMITS, kv),
    FIELD_TEXT(LIMITS, kernels),
    FIELD_TEXT(LIMITS, prefix_cache),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t retention_fields[] = {
    FIELD_BOOL(RETENTION, mlock),
    FIELD_BOOL(RETENTION, wipe),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t config_fields[] = {
    FIELD_TEXT(struct config, name),
    FIELD_TEXT(struct config, region),
    FIELD_MAPPING(struct config, model),
    FIELD_MAPPING(struct config, listen),
    FIELD_MAPPING(struct config, auth),
    FIELD_TEXT(struct config, pki),
    FIELD_TEXT(struct config, sandbox),
    FIELD_BOOL(struct config, core_dumps),
    FIELD_MAPPING(struct config, retention),
    FIELD_MAPPING(struct config, audit),
    CYAML_FIELD_SEQUENCE("groups", ITEMS, struct config, groups, &group_schema, 0,
                         CONFIG_MAX_GROUPS),
    CYAML_FIELD_SEQUENCE("peers", ITEMS, struct config, peers, &peer_schema, 0, CONFIG_MAX_PEERS),
    FIELD_MAPPING(struct config, limits),
    FIELD_BOOL(struct config, verbose),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t config_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct config, config_fields),
};

static const struct yaml_bound bounds[] = {
#define X(key, preset, min, max) {"limits." #key, min, max},
    CONFIG_LIMITS(X)
#undef X
#define X(key, preset, min, max) {"model." #key, min, max},
        CONFIG_MODEL_INTS(X)
#undef X
#define X(key, preset, min, max) {"audit." #key, min, max},
            CONFIG_AUDIT_INTS(X)
#undef X
#define X(key, preset, min, max) {"auth." #key, min, max},
                CONFIG_AUTH_INTS(X)
#undef X
#define X(key, preset, min, max) {"auth.quotas." #key, min, max},
                    CONFIG_QUOTAS(X)
#undef X
#define X(key, preset, min, max) {"groups." #key, min, max},
                        CONFIG_GROUP_INTS(X)
#undef X
#define X(key, preset, min, max) {"groups.hosts." #key, min, max},
                            CONFIG_HOST_INTS(X)
#undef X
                                {0},
};

/* cyaml_mem is realloc and free, so that what is loaded may be free()d. */
static const cyaml_config_t quiet = {
    .mem_fn = cyaml_mem,
    .log_level = CYAML_LOG_ERROR,
    .flags = CYAML_CFG_NO_ALIAS | CYAML_CFG_STYLE_BLOCK,
};

enum status config_yaml_load(const char *what, const char *text, size_t len, struct config **out,
                             struct error *err)
{
    if (len > CONFIG_MAX_BYTES)
        return error_set(err, ERR_LIMIT, "%s: expected at most %d bytes, found %zu", what,
                         CONFIG_MAX_BYTES, len);
    TRY(yaml_prove(what, text, len, &config_schema, bounds, err));
    struct config *c = NULL;
    cyaml_err_t code = cyaml_load_data((const uint8_t *)text, len, &quiet, &config_schema,
                                       (cyaml_data_t **)&c, NULL);
    if (code != CYAML_OK)
        return error_set(err, code == CYAML_ERR_OOM ? ERR_NO_MEMORY : ERR_INVALID, "%s: %s", what,
                         cyaml_strerror(code));
    if (!c) /* "{}": libcyaml made nothing */
        c = calloc(1, sizeof *c);
    if (!c)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for the configuration", what);
    *out = c;
    return OK;
}

enum status config_print(const struct config *c, struct buf *out, struct error *err)
{
    char *text = NULL;
    size_t len = 0;
    cyaml_err_t code = cyaml_save_data(&text, &len, &quiet, &config_schema, c, 0);
    if (code != CYAML_OK)
        return error_set(err, code == CYAML_ERR_OOM ? ERR_NO_MEMORY : ERR_INVALID,
                         "the configuration as YAML: %s", cyaml_strerror(code));
    enum status st = buf_append(out, text, len, err);
    free(text);
    return st;
}
