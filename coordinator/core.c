/* The model that is served, and what the doors share: see core.h. */
#include "coordinator/core.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/audit_request.h"
#include "coordinator/members.h"
#include "partition/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum { DEFAULT_CONTEXT = 32768 };

uint64_t core_draw_seed(void)
{
    uint64_t seed;
    while (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        CHECK(errno == EINTR, "getrandom: %d", errno);
    return seed;
}

static enum status open_manifest(struct served *s, const struct config *c, struct error *err)
{
    if (!c->model.manifest)
        return OK;
    TRY(manifest_open(c->model.manifest, c->model.path, c->model.trust, c->model.threshold,
                      &s->manifest, err));
    log_info("manifest: SHA-256 %s, signed by %s", manifest_digest(s->manifest),
             manifest_signers(s->manifest));
    return OK;
}

/* Ends a thought in the model's own stead, in the words that Qwen gives for it (Qwen3 technical
 * report, 4.3). */
static void set_thinking(struct served *s)
{
    static const char before[] = "\n\nConsidering the limited time by the user, I have to give the "
                                 "solution based on the thinking directly now.\n",
                      behind[] = "\n\n";
    const struct chat_text *t = s->text;
    struct token_ids ids;
    struct error err;
    if (t->think_open >= (uint32_t)s->vocab || t->think_close >= (uint32_t)s->vocab)
        return;
    token_ids_init(&ids, THINKING_MAX_END);
    enum status st = tokenizer_encode(t->tokenizer, t->scratch, before, sizeof before - 1,
                                      TOKENIZER_PLAIN, &ids, &err);
    if (st == OK)
        st = token_ids_append(&ids, &t->think_close, 1, &err);
    if (st == OK)
        st = tokenizer_encode(t->tokenizer, t->scratch, behind, sizeof behind - 1, TOKENIZER_PLAIN,
                              &ids, &err);
    if (st == OK) {
        s->thinking.count = (int32_t)ids.len;
        s->thinking.open = (int32_t)t->think_open;
        s->thinking.close = (int32_t)t->think_close;
        memcpy(s->thinking.ids, ids.data, ids.len * sizeof *ids.data);
    } else {
        log_warn("thinking_budget will be refused: %s", err.msg);
    }
    token_ids_fini(&ids);
}

static enum status load_served(struct served *s, const struct config *c, struct error *err)
{
    TRY(open_manifest(s, c, err));
    TRY(config_load_proven(c->model.path, s->manifest, &s->config, &s->defaults, err));
    TRY(chat_text_load_proven(c->model.path, s->manifest, false, &s->text, err));
    s->name = c->model.name;
    s->vocab = chat_vocab(s->text);
    if (s->vocab > s->config.vocab)
        s->vocab = s->config.vocab;
    set_thinking(s);
    s->context = c->limits.context;
    if (s->context == 0)
        s->context = s->config.max_position < DEFAULT_CONTEXT ? s->config.max_position
                                                              : DEFAULT_CONTEXT;
    CHECK(weight_mode_named(c->model.weights, &s->weights), "model.weights %s was not checked",
          c->model.weights);
    enum kv_dtype kv = KV_BF16;
    CHECK(kv_dtype_named(c->limits.kv, &kv), "limits.kv %s was not checked", c->limits.kv);
    return plan_check_context(&s->config, "limits.context", s->context, kv, err);
}

enum status core_create(const struct config *config, struct loop *loop, struct core **out,
                        struct error *err)
{
    struct core *core = check_calloc(1, sizeof *core);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    core->config = config;
    core->loop = loop;
    /* A later start of a coordinator has a higher epoch. */
    core->epoch = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    core->started_ns = clock_now_ns();
    metrics_init(&core->metrics);
    core->served.created = now.tv_sec;
    enum status st = load_served(&core->served, config, err);
    if (st == OK)
        st = identity_create(config, &core->identity, err);
    if (st == OK)
        st = audit_start(core, generation_audited, err);
    core->quota = quota_create(&(struct quota_limits){config->auth.quotas.requests_per_minute,
                                                      config->auth.quotas.tokens_per_minute,
                                                      config->auth.quotas.concurrent});
    if (st != OK) {
        core_destroy(core);
        return st;
    }
    *out = core;
    return OK;
}

void core_destroy(struct core *core)
{
    if (!core)
        return;
    for (size_t i = 0; i < COUNT_OF(core->table); i++)
        CHECK(!core->table[i], "a request outlives its doors");
    audit_close(core->audit);
    chat_text_destroy(core->served.text);
    manifest_close(core->served.manifest);
    identity_destroy(core->identity);
    quota_destroy(core->quota);
    free(core);
}
