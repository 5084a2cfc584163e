/* What a configuration may say: see config_check in config.h. No state. */
#include "coordinator/config.h"

#include "coordinator/config_private.h"
#include "coordinator/jwt.h"
#include "coordinator/text/utf8.h"
#include "partition/shown.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 64, MAX_MODEL_NAME = 128, MAX_INTERFACE = 15 };

static bool all_of(const char *s, size_t len, const char *others)
{
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)s[i]) && !strchr(others, s[i]))
            return false;
    return true;
}

/* A name that is safe in paths, URIs and command lines. */
static enum status check_name(const char *key, const char *name, struct error *err)
{
    size_t len = name ? strlen(name) : 0;
    if (len == 0 || len > MAX_NAME || !all_of(name, len, "._-") || !isalnum((unsigned char)*name))
        return error_set(err, ERR_INVALID,
                         "%s: expected 1 to %d letters, digits, \".\", \"_\", \"-\", a letter or "
                         "digit first, found \"%s\"",
                         key, MAX_NAME, name ? shown(name).s : "");
    return OK;
}

static enum status check_region(const char *key, const char *region, struct error *err)
{
    return region && *region ? check_name(key, region, err) : OK;
}

static enum status check_text(const char *key, const char *text, struct error *err)
{
    size_t len = text ? strlen(text) : 0;
    if (len > CONFIG_MAX_TEXT)
        return error_set(err, ERR_INVALID, "%s: expected at most %d bytes, found %zu", key,
                         CONFIG_MAX_TEXT, len);
    if (len && utf8_valid_prefix(text, len) != len)
        return error_set(err, ERR_INVALID, "%s: expected UTF-8, found \"%s\"", key, shown(text).s);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return error_set(err, ERR_INVALID, "%s: expected no control characters, found \"%s\"",
                             key, shown(text).s);
    return OK;
}

static enum status check_int(const char *key, int32_t n, int32_t min, int32_t max,
                             struct error *err)
{
    if (n < min || n > max)
        return error_set(err, ERR_INVALID, "%s: expected %d to %d, found %d", key, min, max, n);
    return OK;
}

static enum status check_choice(const char *key, const char *value, const char *const *choices,
                                struct error *err)
{
    char words[128] = "";
    for (size_t i = 0, n = 0; choices[i]; i++) {
        if (strcmp(value, choices[i]) == 0)
            return OK;
        n += (size_t)snprintf(words + n, sizeof words - n, "%s\"%s\"", i ? ", " : "", choices[i]);
    }
    return error_set(err, ERR_INVALID, "%s: expected one of %s, found \"%s\"", key, words,
                     shown(value).s);
}

static enum status check_limits(const struct config *c, struct error *err)
{
    static const char *const kv[] = {"bf16", "f32", "int8", NULL};
    static const char *const kernels[] = {"auto", "avx512vnni", "avx512", "avxvnni",  "avx2",
                                          "i8mm", "dotprod",    "neon",   "portable", NULL};
    static const char *const prefixes[] = {"tenant", "shared", "off", NULL};
    static const char *const devices[] = {"cpu", "cuda", NULL};
    static const char *const weights[] = {"published", "int8", "int4", NULL};
    static const char *const collectives[] = {"auto", "nccl", "staged", NULL};
    static const char *const sandbox[] = {"on", "off", NULL};
#define X(key, preset, min, max) TRY(check_int("limits." #key, c->limits.key, min, max, err));
    CONFIG_LIMITS(X)
#undef X
    TRY(check_choice("limits.kv", c->limits.kv, kv, err));
    TRY(check_choice("limits.kernels", c->limits.kernels, kernels, err));
    TRY(check_choice("sandbox", c->sandbox, sandbox, err));
    TRY(check_choice("limits.prefix_cache", c->limits.prefix_cache, prefixes, err));
    TRY(check_choice("model.device", c->model.device, devices, err));
    TRY(check_choice("model.weights", c->model.weights, weights, err));
    TRY(check_choice("model.collectives", c->model.collectives, collectives, err));
    if (config_cuda(c) && strcmp(c->model.weights, "published") != 0)
        return error_set(
            err, ERR_INVALID,
            "model.weights: expected \"published\" with model.device: cuda, which takes "
            "weights as they are stored, found \"%s\"",
            c->model.weights);
    if (config_cuda(c) && strcmp(c->limits.kv, "f32") == 0)
        return error_set(err, ERR_INVALID,
                         "limits.kv: expected \"bf16\" or \"int8\" with model.device: cuda, found "
                         "\"f32\"");
    return OK;
}

/* --- addresses --- */

static bool is_host(const char *host, bool brackets)
{
    struct in6_addr six;
    if (brackets)
        return inet_pton(AF_INET6, host, &six) == 1;
    size_t len = strlen(host);
    return len > 0 && len < 254 && all_of(host, len, ".-_") && isalnum((unsigned char)*host);
}

enum status address_split(const char *address, char host[256], int *port, struct error *err)
{
    const char *colon = strrchr(address, ':');
    size_t len = colon ? (size_t)(colon - address) : 0;
    bool brackets = len >= 2 && address[0] == '[' && colon[-1] == ']';
    const char *from = brackets ? address + 1 : address;
    len -= brackets ? 2 : 0;
    char text[256] = "";
    if (len < sizeof text)
        memcpy(text, from, len);
    size_t digits = colon ? strspn(colon + 1, "0123456789") : 0;
    long n = digits > 0 && digits <= 5 && !colon[1 + digits] ? strtol(colon + 1, NULL, 10) : -1;
    if (!is_host(text, brackets) || n < 0 || n > 65535)
        return error_set(err, ERR_INVALID,
                         "expected \"host:port\" or \"[IPv6]:port\", port 0 to 65535, found \"%s\"",
                         shown(address).s);
    memcpy(host, text, sizeof text);
    *port = (int)n;
    return OK;
}

static bool host_is_loopback(const char *host)
{
    struct in_addr four;
    struct in6_addr six;
    if (strcasecmp(host, "localhost") == 0)
        return true;
    if (inet_pton(AF_INET, host, &four) == 1)
        return ntohl(four.s_addr) >> 24 == 127;
    if (inet_pton(AF_INET6, host, &six) != 1)
        return false;
    return IN6_IS_ADDR_LOOPBACK(&six) || (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == 127);
}

bool address_is_loopback(const char *address)
{
    char host[256];
    int port = 0;
    return address_split(address, host, &port, NULL) == OK && host_is_loopback(host);
}

static enum status check_address(const char *key, const char *address, struct error *err)
{
    char host[256];
    int port = 0;
    enum status st = address_split(address, host, &port, err);
    if (st != OK)
        error_prefix(err, "%s: ", key);
    return st;
}

/* --- listeners --- */

static bool is_off(const char *address)
{
    return strcmp(address, "off") == 0;
}

static enum status check_door(const struct config *c, const char *key, const char *address,
                              struct error *err)
{
    if (is_off(address))
        return OK;
    TRY(check_address(key, address, err));
    if (address_is_loopback(address) || c->listen.insecure)
        return OK;
    if (!c->listen.tls.cert)
        return error_set(err, ERR_INVALID,
                         "%s: %s is reachable from other machines: expected listen.tls.cert and "
                         "listen.tls.key, found none (or say listen.insecure: true)",
                         key, shown(address).s);
    if (!c->listen.keys && !c->auth.jwks)
        return error_set(err, ERR_INVALID,
                         "%s: %s is reachable from other machines: expected listen.keys or "
                         "auth.jwks, found none (or say listen.insecure: true)",
                         key, shown(address).s);
    return OK;
}

static enum status check_tls(const struct config_tls *t, struct error *err)
{
    if (t->cert && !t->key)
        return error_set(err, ERR_INVALID, "listen.tls.key: expected the key of cert, found none");
    if (t->key && !t->cert)
        return error_set(err, ERR_INVALID, "listen.tls.cert: expected one for key, found none");
    if (t->client_ca && !t->cert)
        return error_set(err, ERR_INVALID,
                         "listen.tls.client_ca: expected cert and key with it, found none");
    return OK;
}

/* Two listeners on one address and port would fail later and less clearly. */
static enum status check_distinct(const struct config *c, struct error *err)
{
    const struct {
        const char *key, *address;
    } all[] = {{"listen.http", c->listen.http},
               {"listen.grpc", c->listen.grpc},
               {"listen.cluster", c->listen.cluster}};
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < i; j++) {
            const char *colon = strrchr(all[i].address, ':');
            if (colon && strcmp(all[i].address, all[j].address) == 0 && strtol(colon + 1, NULL, 10))
                return error_set(err, ERR_INVALID, "%s: expected another address than %s, found %s",
                                 all[i].key, all[j].key, shown(all[i].address).s);
        }
    return OK;
}

static enum status check_empty(const char *key, const char *path, struct error *err)
{
    if (path && !*path)
        return error_set(err, ERR_INVALID, "%s: expected a path, found \"\" (leave it out)", key);
    return OK;
}

static enum status check_listen(const struct config *c, struct error *err)
{
    TRY(check_empty("listen.tls.cert", c->listen.tls.cert, err));
    TRY(check_empty("listen.tls.key", c->listen.tls.key, err));
    TRY(check_empty("listen.tls.client_ca", c->listen.tls.client_ca, err));
    TRY(check_empty("listen.keys", c->listen.keys, err));
    TRY(check_empty("pki", c->pki, err));
    TRY(check_tls(&c->listen.tls, err));
    TRY(check_door(c, "listen.http", c->listen.http, err));
    TRY(check_door(c, "listen.grpc", c->listen.grpc, err));
    TRY(check_address("listen.cluster", c->listen.cluster, err));
    if (!address_is_loopback(c->listen.cluster) && !c->pki)
        return error_set(err, ERR_INVALID,
                         "listen.cluster: %s is reachable from other machines: expected pki (the "
                         "folder that `witan pki init` makes), found none",
                         shown(c->listen.cluster).s);
    return check_distinct(c, err);
}

/* --- who may ask --- */

static enum status check_beside(const char *key, const char *text, const char *what,
                                struct error *err)
{
    if (text && *text && strlen(text) <= JWT_MAX_TEXT)
        return OK;
    return error_set(err, ERR_INVALID,
                     "%s: expected %s, 1 to %d bytes, with auth.jwks, found \"%s\"", key, what,
                     (int)JWT_MAX_TEXT, text ? shown(text).s : "");
}

static enum status check_auth(const struct config *c, struct error *err)
{
    TRY(check_empty("auth.jwks", c->auth.jwks, err));
#define X(key, preset, min, max) TRY(check_int("auth." #key, c->auth.key, min, max, err));
    CONFIG_AUTH_INTS(X)
#undef X
#define X(key, preset, min, max)                                                                   \
    TRY(check_int("auth.quotas." #key, c->auth.quotas.key, min, max, err));
    CONFIG_QUOTAS(X)
#undef X
    if (!c->auth.jwks && (c->auth.issuer || c->auth.audience))
        return error_set(err, ERR_INVALID,
                         "auth.jwks: expected the file of public keys of auth.%s, found none",
                         c->auth.issuer ? "issuer" : "audience");
    if (!c->auth.jwks)
        return OK;
    TRY(check_beside("auth.issuer", c->auth.issuer, "what tokens say as \"iss\"", err));
    TRY(check_beside("auth.audience", c->auth.audience, "what tokens say as \"aud\"", err));
    TRY(check_beside("auth.tenant_claim", c->auth.tenant_claim, "a claim's name", err));
    return check_beside("auth.scopes_claim", c->auth.scopes_claim, "a claim's name", err);
}

/* --- groups --- */

/* "eth0" or "10.1.0.0/16" or "fd00::/8". */
static bool is_interface(const char *s)
{
    char address[64];
    unsigned char binary[16];
    const char *slash = strchr(s, '/');
    if (!slash)
        return strlen(s) <= MAX_INTERFACE && all_of(s, strlen(s), "._-") &&
               isalnum((unsigned char)*s);
    size_t len = (size_t)(slash - s), digits = strspn(slash + 1, "0123456789");
    if (len >= sizeof address || digits == 0 || digits > 3 || slash[1 + digits])
        return false;
    memcpy(address, s, len);
    address[len] = '\0';
    long prefix = strtol(slash + 1, NULL, 10);
    if (inet_pton(AF_INET, address, binary) == 1)
        return prefix <= 32;
    return inet_pton(AF_INET6, address, binary) == 1 && prefix <= 128;
}

static enum status check_data_plane(const char *key, const char *list, struct error *err)
{
    for (const char *s = list;; s++) {
        char item[80] = "";
        size_t len = strcspn(s, ",");
        if (len < sizeof item)
            memcpy(item, s, len);
        if (!is_interface(item))
            return error_set(err, ERR_INVALID,
                             "%s: expected interfaces or subnets like \"eth1,10.1.0.0/16\", found "
                             "\"%s\"",
                             key, shown(list).s);
        s += len;
        if (!*s)
            return OK;
    }
}

static enum status check_host(struct config *c, struct config_group *g, const char *group,
                              uint32_t i, struct error *err)
{
    struct config_host *h = &g->hosts[i];
    char key[128];
    snprintf(key, sizeof key, "%s.hosts[%u].name", group, i);
    TRY(check_name(key, h->name, err));
    for (uint32_t j = 0; j < i; j++)
        if (strcmp(g->hosts[j].name, h->name) == 0)
            return error_set(err, ERR_INVALID,
                             "%s: expected each host once, found \"%s\" again (hosts[%u])", key,
                             h->name, j);
#define X(field, preset, min, max)                                                                 \
    snprintf(key, sizeof key, "%s.hosts[%u]." #field, group, i);                                   \
    TRY(check_int(key, h->field, min, max, err));
    CONFIG_HOST_INTS(X)
#undef X
    snprintf(key, sizeof key, "%s.hosts[%u].region", group, i);
    TRY(check_region(key, h->region, err));
    return h->region ? OK : config_set_text(&h->region, c->region, err);
}

static enum status check_hosts(struct config *c, struct config_group *g, const char *group,
                               struct error *err)
{
    if (g->hosts_count > CONFIG_MAX_HOSTS)
        return error_set(err, ERR_INVALID, "%s.hosts: expected at most %d, found %u", group,
                         CONFIG_MAX_HOSTS, g->hosts_count);
    int64_t ranks = 0;
    for (uint32_t i = 0; i < g->hosts_count; i++) {
        TRY(check_host(c, g, group, i, err));
        ranks += g->hosts[i].ranks;
    }
    if (g->hosts_count > 0 && ranks != config_group_world(g))
        return error_set(err, ERR_INVALID,
                         "%s.hosts: expected %d ranks in all (pp x w), found %lld", group,
                         config_group_world(g), (long long)ranks);
    char key[64];
    snprintf(key, sizeof key, "%s.data_plane", group);
    if (g->hosts_count > 0 && !g->data_plane)
        return error_set(err, ERR_INVALID,
                         "%s: expected the interfaces or subnets that MPI may use between the "
                         "hosts (its traffic is not encrypted and carries prompts), found none",
                         key);
    return g->data_plane ? check_data_plane(key, g->data_plane, err) : OK;
}

static enum status check_group(struct config *c, uint32_t i, struct error *err)
{
    struct config_group *g = &c->groups[i];
    char group[32], key[64];
    snprintf(group, sizeof group, "groups[%u]", i);
    snprintf(key, sizeof key, "%s.name", group);
    TRY(check_name(key, g->name, err));
    for (uint32_t j = 0; j < i; j++)
        if (strcmp(c->groups[j].name, g->name) == 0)
            return error_set(err, ERR_INVALID,
                             "%s: expected each name once, found \"%s\" again (groups[%u])", key,
                             g->name, j);
#define X(field, preset, min, max)                                                                 \
    snprintf(key, sizeof key, "%s." #field, group);                                                \
    TRY(check_int(key, g->field, min, max, err));
    CONFIG_GROUP_INTS(X)
#undef X
    int32_t least = g->tp > g->ep ? g->tp : g->ep;
    if (g->w != 0 && g->w < least)
        return error_set(err, ERR_INVALID, "%s.w: expected at least %d (tp and ep), found %d",
                         group, least, g->w);
    if (config_group_world(g) > MAX_WORLD)
        return error_set(err, ERR_INVALID, "%s: expected at most %d ranks (pp x w), found %d",
                         group, MAX_WORLD, config_group_world(g));
    return check_hosts(c, g, group, err);
}

static enum status add_default_group(struct config *c, struct error *err)
{
    struct config_group *g = calloc(1, sizeof *g);
    if (!g)
        return error_set(err, ERR_NO_MEMORY, "no memory for the configuration");
#define X(key, preset, min, max) g->key = preset;
    CONFIG_GROUP_INTS(X)
#undef X
    c->groups = g;
    c->groups_count = 1;
    return config_set_text(&g->name, "g0", err);
}

/* Ranks on other machines must be able to attach. */
static enum status check_reach(const struct config *c, uint32_t i, struct error *err)
{
    const struct config_group *g = &c->groups[i];
    for (uint32_t j = 0; j < g->hosts_count; j++)
        if (!host_is_loopback(g->hosts[j].name) && address_is_loopback(c->listen.cluster))
            return error_set(err, ERR_INVALID,
                             "listen.cluster: expected an address that %s of groups[%u].hosts can "
                             "reach, found %s",
                             g->hosts[j].name, i, shown(c->listen.cluster).s);
    return OK;
}

static enum status check_groups(struct config *c, struct error *err)
{
    if (c->groups_count == 0)
        TRY(add_default_group(c, err));
    if (c->groups_count > CONFIG_MAX_GROUPS)
        return error_set(err, ERR_INVALID, "groups: expected at most %d, found %u",
                         CONFIG_MAX_GROUPS, c->groups_count);
    for (uint32_t i = 0; i < c->groups_count; i++)
        TRY(check_group(c, i, err));
    for (uint32_t i = 0; i < c->groups_count; i++)
        TRY(check_reach(c, i, err));
    return OK;
}

/* --- peers --- */

/* Ranks of other machines must be able to attach to a peer too. */
static enum status check_peer_reach(const struct config *c, uint32_t i, struct error *err)
{
    if (!address_is_loopback(c->peers[i]))
        return OK;
    for (uint32_t j = 0; j < c->groups_count; j++)
        for (uint32_t k = 0; k < c->groups[j].hosts_count; k++)
            if (!host_is_loopback(c->groups[j].hosts[k].name))
                return error_set(err, ERR_INVALID,
                                 "peers[%u]: expected an address that %s of groups[%u].hosts can "
                                 "reach, found %s",
                                 i, c->groups[j].hosts[k].name, j, shown(c->peers[i]).s);
    return OK;
}

static enum status check_peer(const struct config *c, uint32_t i, struct error *err)
{
    char key[32];
    snprintf(key, sizeof key, "peers[%u]", i);
    TRY(check_address(key, c->peers[i], err));
    if (strtol(strrchr(c->peers[i], ':') + 1, NULL, 10) == 0)
        return error_set(err, ERR_INVALID, "%s: expected the port that it listens on, found %s",
                         key, shown(c->peers[i]).s);
    if (strcmp(c->peers[i], c->listen.cluster) == 0)
        return error_set(err, ERR_INVALID,
                         "%s: expected another coordinator's listen.cluster, found this one's, %s",
                         key, shown(c->peers[i]).s);
    for (uint32_t j = 0; j < i; j++)
        if (strcmp(c->peers[j], c->peers[i]) == 0)
            return error_set(err, ERR_INVALID,
                             "%s: expected each address once, found %s again (peers[%u])", key,
                             shown(c->peers[i]).s, j);
    return check_peer_reach(c, i, err);
}

static enum status check_peers(const struct config *c, struct error *err)
{
    if (c->peers_count > CONFIG_MAX_PEERS)
        return error_set(err, ERR_INVALID, "peers: expected at most %d, found %u", CONFIG_MAX_PEERS,
                         c->peers_count);
    for (uint32_t i = 0; i < c->peers_count; i++)
        TRY(check_peer(c, i, err));
    if (c->peers_count > 0 && !c->pki)
        return error_set(err, ERR_INVALID,
                         "peers: expected pki, a folder of the same root for all coordinators "
                         "(witan pki init), found none");
    return OK;
}

/* --- the whole --- */

/* The last component of a path, without slashes behind it, into name[MAX_MODEL_NAME + 2]. */
static void last_component(const char *path, char *name)
{
    size_t end = strlen(path);
    while (end > 0 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    snprintf(name, MAX_MODEL_NAME + 2, "%.*s", (int)(end - start), path + start);
}

static enum status check_manifest(const struct config *c, struct error *err)
{
    TRY(check_empty("model.manifest", c->model.manifest, err));
    TRY(check_empty("model.trust", c->model.trust, err));
    TRY(check_empty("model.weights_cache", c->model.weights_cache, err));
#define X(key, preset, min, max) TRY(check_int("model." #key, c->model.key, min, max, err));
    CONFIG_MODEL_INTS(X)
#undef X
    if (c->model.manifest && !c->model.trust)
        return error_set(err, ERR_INVALID,
                         "model.trust: expected the public keys that may sign model.manifest, "
                         "found none");
    if (c->model.trust && !c->model.manifest)
        return error_set(err, ERR_INVALID,
                         "model.manifest: expected the manifest that the keys of model.trust have "
                         "signed, found none");
    if (c->model.threshold > 1 && !c->model.manifest)
        return error_set(err, ERR_INVALID,
                         "model.threshold: expected model.manifest and model.trust with it, found "
                         "none");
    if (c->model.weights_cache && !c->model.manifest)
        return error_set(err, ERR_INVALID,
                         "model.weights_cache: expected model.manifest and model.trust with it, "
                         "found none");
    return OK;
}

static enum status check_audit(const struct config *c, struct error *err)
{
    static const char *const on_error[] = {"refuse", "continue", NULL};
    const struct {
        const char *key, *value;
    } texts[] = {{"audit.file", c->audit.file},
                 {"audit.key", c->audit.key},
                 {"audit.heads", c->audit.heads},
                 {"audit.hmac_key", c->audit.hmac_key}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        TRY(check_empty(texts[i].key, texts[i].value, err));
        if (texts[i].value && !c->audit.file)
            return error_set(err, ERR_INVALID, "audit.file: expected one with %s, found none",
                             texts[i].key);
    }
    if (c->audit.file && !c->audit.key)
        return error_set(err, ERR_INVALID,
                         "audit.key: expected the key that signs heads of audit.file (witan "
                         "manifest keygen), found none");
    if (c->audit.heads && strcmp(c->audit.heads, c->audit.file) == 0)
        return error_set(err, ERR_INVALID,
                         "audit.heads: expected a file beside audit.file, best on another disk, "
                         "found audit.file");
#define X(key, preset, min, max) TRY(check_int("audit." #key, c->audit.key, min, max, err));
    CONFIG_AUDIT_INTS(X)
#undef X
    return check_choice("audit.on_error", c->audit.on_error, on_error, err);
}

static enum status check_model(struct config *c, struct error *err)
{
    if (!c->model.path || !*c->model.path)
        return error_set(err, ERR_INVALID,
                         "model.path: expected a checkpoint's folder, found none");
    char name[MAX_MODEL_NAME + 2];
    last_component(c->model.path, name);
    if (!c->model.name)
        TRY(config_set_text(&c->model.name, name, err));
    size_t len = strlen(c->model.name);
    if (len == 0 || len > MAX_MODEL_NAME || !all_of(c->model.name, len, "._-/:@+") ||
        !isalnum((unsigned char)*c->model.name))
        return error_set(
            err, ERR_INVALID,
            "model.name: expected 1 to %d letters, digits and \"._-/:@+\", a letter or "
            "digit first, found \"%s\"",
            MAX_MODEL_NAME, shown(c->model.name).s);
    return check_manifest(c, err);
}

enum status config_check(struct config *c, struct error *err)
{
#define X(key) TRY(check_text(#key, c->key, err));
    CONFIG_TEXTS(X)
#undef X
    TRY(check_name("name", c->name, err));
    TRY(check_region("region", c->region, err));
    TRY(check_model(c, err));
    TRY(check_listen(c, err));
    TRY(check_auth(c, err));
    TRY(check_groups(c, err));
    TRY(check_peers(c, err));
    TRY(check_audit(c, err));
    return check_limits(c, err);
}
