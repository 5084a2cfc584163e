/*
 * Any bytes as what a gRPC client sends: the first byte chooses the method, the rest are messages;
 * the group answers each request with two tokens. At the end nothing may be left running.
 */
#include "tests/fuzz/fake_rpc.h"

static void ignore(const char *group, const char *state, const char *message)
{
    (void)group, (void)state, (void)message;
}

/* A group of one rank that is ready, played by messages. */
static void attach(struct core *core, struct rpc_call *rank, const struct rpc_method *method)
{
    static const uint8_t hello[] = {0x0a, 0x1a, 0x08, 0x01, 0x1a, 0x02, 'g',  '0', 0x20, 0x01,
                                    0x30, 0x01, 0x52, 0x05, 'c',  'p',  'u',  '-', '1',  0x5a,
                                    0x07, 0x28, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10};
    static const uint8_t ready[] = {0x12, 0x00};
    static const uint8_t probe[] = {0x22, 0x08, 0x0a, 0x06, 0x10, 0x01, 0x18, 0x01, 0x30, 0x02};
    struct error err;
    fake_open(rank, method, core);
    rank->keeps = true;
    CHECK(fake_deliver(rank, hello, sizeof hello, core), "hello");
    CHECK(fake_deliver(rank, ready, sizeof ready, core), "ready");
    CHECK(fake_deliver(rank, probe, sizeof probe, core), "probe");
    CHECK(core_ready(core, &err) == OK, "%s", err.msg);
}

/* What was sent last: does it want logprobs of drawn tokens, of the prompt's? */
static bool wants(const struct rpc_call *rank, bool prompt)
{
    const Witan__Cluster__V1__CoordinatorMessage *m = (const void *)rank->last;
    return m && m->body_case == WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT &&
           (prompt ? m->submit->prompt_logprobs : m->submit->logprobs);
}

static void answer(struct core *core, uint64_t id, const struct rpc_call *rank)
{
    static const int32_t ids[] = {40, 72};
    static const float values[] = {-0.5f, -1.0f};
    static const struct token_logprobs logprobs[128] = {
        {.logprob = -0.5f, .rank = 1, .count = 2, .top_ids = ids, .top_logprobs = values}};
    const Witan__Cluster__V1__CoordinatorMessage *m = (const void *)rank->last;
    int32_t scored = wants(rank, true) ? (int32_t)m->submit->n_prompt - 1 : 0;
    for (int32_t i = 0; i < 2; i++) {
        struct drawn d = {.id = id,
                          .epoch = core->epoch,
                          .attempt = 1,
                          .position = i,
                          .ids = &ids[i],
                          .count = 1,
                          .logprobs = wants(rank, false) ? logprobs : NULL,
                          .prompt_logprobs = logprobs,
                          .prompt_position = 1,
                          .prompt_count = i == 0 ? scored : 0,
                          .full = i == 1};
        generation_tokens(core, &d);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct core *core;
    static struct inference *door;
    static struct rpc_call rank;
    static const struct rpc_method *methods;
    struct rpc_call call;
    if (!core) {
        struct error err;
        core = fake_core(ignore);
        core->epoch = 1;
        attach(core, &rank, fake_methods);
        CHECK(inference_create(core, NULL, &door, &err) == OK, "%s", err.msg);
        methods = fake_methods;
    }
    if (size < 1)
        return 0;
    uint64_t before = core->next_id;
    fake_open(&call, &methods[data[0] % 3], core);
    fake_deliver(&call, data + 1, size - 1, core);
    if (core->next_id > before && data[0] & 4)
        answer(core, core->next_id, &rank);
    fake_close(&call, core);
    CHECK(core->running == 0 && inference_active(door) == 0, "%d running, %d active", core->running,
          inference_active(door));
    CHECK(!core->claims, "a key outlives its call");
    return 0;
}
