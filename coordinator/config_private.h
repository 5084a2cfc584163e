/*
 * What the files behind config.h share: every scalar key once, with its default and its bounds.
 * From these lists come the defaults, the schema, the checks and the release of memory.
 */
#ifndef WITAN_COORDINATOR_CONFIG_PRIVATE_H
#define WITAN_COORDINATOR_CONFIG_PRIVATE_H

#include "coordinator/config.h"
#include "coordinator/quota.h"
#include "partition/manifest.h"
#include "partition/plan.h"

enum { CONFIG_MAX_TEXT = 4096 }; /* bytes of a value */

/* X(key, default, min, max) of `limits`. A default other than 0 needs min > 0: a 0 that libcyaml
 * leaves behind then means that the key was absent (asserted in config.c). */
#define CONFIG_LIMITS(X)                                                                           \
    X(context, 0, 0, 1 << 24)                                                                      \
    X(sequences, 64, 1, 1 << 16)                                                                   \
    X(step_tokens, 512, 1, 1 << 20)                                                                \
    X(chunk, 0, 0, 1 << 20)                                                                        \
    X(kv_blocks, 0, 0, 1 << 30)                                                                    \
    X(threads, 0, 0, 1024)                                                                         \
    X(gpu_percent, 90, 1, 100)                                                                     \
    X(requests, 1024, 1, 1 << 20)                                                                  \
    X(connections, 4096, 1, 1 << 20)                                                               \
    X(body_kb, 8192, 1, 1 << 20)                                                                   \
    X(request_timeout_s, 30, 1, 86400)                                                             \
    X(answer_timeout_s, 3600, 1, 604800)                                                           \
    X(start_timeout_s, 3600, 1, 604800)                                                            \
    X(step_timeout_s, 4, 1, 3600)                                                                  \
    X(probe_s, 10, 1, 3600)                                                                        \
    X(stall_ms, 100, 1, 60000)                                                                     \
    X(speculate, 0, 0, CONFIG_MAX_SPECULATE)                                                       \
    X(waiting, 1024, 1, 4096)                                                                      \
    X(waiting_tokens, 1 << 24, 1, 1 << 30)                                                         \
    X(waiting_ms, 60000, 1, 604800000)                                                             \
    X(memory_mb, 1024, 1, 1 << 24)                                                                 \
    X(tenant_requests, 0, 0, 1 << 20)                                                              \
    X(queue_timeout_s, 0, 0, 604800)                                                               \
    X(read_timeout_s, 30, 1, 86400)                                                                \
    X(failovers, 3, 1, 100)                                                                        \
    X(failover_timeout_s, 300, 1, 604800)                                                          \
    X(drain_timeout_s, 600, 1, 604800)                                                             \
    X(reattach_timeout_s, 300, 1, 604800)

/* The same of auth and its quotas. */
#define CONFIG_AUTH_INTS(X) X(leeway_s, 60, 1, 600)
#define CONFIG_QUOTAS(X)                                                                           \
    X(requests_per_minute, 0, 0, QUOTA_MOST_REQUESTS)                                              \
    X(tokens_per_minute, 0, 0, QUOTA_MOST_TOKENS)                                                  \
    X(concurrent, 0, 0, QUOTA_MOST_CONCURRENT)

/* The same of the model, of a group and of a host. */
#define CONFIG_MODEL_INTS(X) X(threshold, 1, 1, MANIFEST_MAX_KEYS)
#define CONFIG_AUDIT_INTS(X) X(head_s, 60, 1, 86400)
#define CONFIG_GROUP_INTS(X)                                                                       \
    X(pp, 1, 1, MAX_LAYERS)                                                                        \
    X(tp, 1, 1, MAX_WORLD)                                                                         \
    X(ep, 0, 0, MAX_WORLD)                                                                         \
    X(w, 0, 0, MAX_WORLD)
#define CONFIG_HOST_INTS(X) X(ranks, 1, 1, MAX_WORLD)

/* X(key) of every text but those of groups. */
#define CONFIG_TEXTS(X)                                                                            \
    X(name)                                                                                        \
    X(region)                                                                                      \
    X(model.path)                                                                                  \
    X(model.name)                                                                                  \
    X(model.manifest)                                                                              \
    X(model.trust)                                                                                 \
    X(model.weights_cache)                                                                         \
    X(model.device)                                                                                \
    X(model.weights)                                                                               \
    X(model.collectives)                                                                           \
    X(listen.http)                                                                                 \
    X(listen.grpc)                                                                                 \
    X(listen.cluster)                                                                              \
    X(listen.tls.cert)                                                                             \
    X(listen.tls.key)                                                                              \
    X(listen.tls.client_ca)                                                                        \
    X(listen.keys)                                                                                 \
    X(auth.jwks)                                                                                   \
    X(auth.issuer)                                                                                 \
    X(auth.audience)                                                                               \
    X(auth.tenant_claim)                                                                           \
    X(auth.scopes_claim)                                                                           \
    X(pki)                                                                                         \
    X(sandbox)                                                                                     \
    X(audit.file)                                                                                  \
    X(audit.key)                                                                                   \
    X(audit.heads)                                                                                 \
    X(audit.on_error)                                                                              \
    X(audit.hmac_key)                                                                              \
    X(limits.kv)                                                                                   \
    X(limits.kernels)                                                                              \
    X(limits.prefix_cache)

/* config_yaml.c: what the text says and nothing else, zero and NULL where it says nothing; *out is
 * the caller's. */
enum status config_yaml_load(const char *what, const char *text, size_t len, struct config **out,
                             struct error *err);

/* Replaces *to by a copy of `from`. */
enum status config_set_text(char **to, const char *from, struct error *err);

#endif
