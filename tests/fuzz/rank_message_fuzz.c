/*
 * Any bytes as what a rank sends: the first byte says how far the stream has come (nothing;
 * attached; loaded; serving, with a request running), by its third bit whether the request wants
 * logprobs, by its fourth whether the group is being restarted; the rest are messages. At the end
 * the stream closes; a request that has not ended goes on in the group that comes next, and the
 * next, until it may lose no more. Nothing of it may be left then.
 */
#include "tests/fuzz/fake_rpc.h"

#include "coordinator/drain.h"
#include "proto/versions.h"

static void ignore(const char *group, const char *state, const char *message)
{
    (void)group, (void)state, (void)message;
}

static int ends, prompt_told;

static void on_text(void *user, enum part part, const char *text, size_t len)
{
    (void)user, (void)part;
    CHECK(text && len > 0, "no text");
}

static void on_told(void *user, const struct told_token *t)
{
    (void)user;
    CHECK(t->offset >= 0 && t->logprobs->count <= SAMPLING_MAX_LOGPROBS, "%d", t->logprobs->count);
}

static void on_prompt(void *user, int32_t position, const struct token_logprobs *logprobs,
                      int32_t count)
{
    (void)user;
    CHECK(position == 1 + prompt_told && logprobs && count > 0, "position %d", position);
    prompt_told += count;
    CHECK(prompt_told <= 2, "%d logprobs", prompt_told);
}

static void on_end(void *user, const struct generation_end *end)
{
    (void)user, (void)end;
    ends++;
}

static void hello(struct rpc_call *call, struct core *core)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Hello h = WITAN__CLUSTER__V1__HELLO__INIT;
    Witan__Cluster__V1__Hardware hw = WITAN__CLUSTER__V1__HARDWARE__INIT;
    hw.memory_bytes = (uint64_t)64 << 30;
    hw.ranks_here = 1;
    h.protocol_version = CLUSTER_PROTOCOL_VERSION;
    h.group = "g0";
    h.world = 1;
    h.incarnation = 1;
    h.numerics_class = NUMERICS_CLASS_CPU;
    h.hardware = &hw;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HELLO;
    m.hello = &h;
    fake_deliver_message(call, &m.base, core);
}

static void ready(struct rpc_call *call, struct core *core)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Ready r = WITAN__CLUSTER__V1__READY__INIT;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_READY;
    m.ready = &r;
    fake_deliver_message(call, &m.base, core);
}

static void answer_probe(struct rpc_call *call, struct core *core)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Tokens t = WITAN__CLUSTER__V1__TOKENS__INIT;
    Witan__Cluster__V1__SequenceTokens s = WITAN__CLUSTER__V1__SEQUENCE_TOKENS__INIT;
    Witan__Cluster__V1__SequenceTokens *list[] = {&s};
    s.epoch = core->epoch;
    s.attempt = 1;
    s.finish = WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH;
    t.sequences = list;
    t.n_sequences = 1;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_TOKENS;
    m.tokens = &t;
    fake_deliver_message(call, &m.base, core);
}

static bool start(struct core *core, bool logprobs)
{
    static const struct generation_sink sink = {
        .on_text = on_text, .on_told = on_told, .on_prompt = on_prompt, .on_end = on_end};
    static const char *const stops[] = {"stop", "\n"};
    int32_t prompt[] = {1, 2, 3};
    struct generation *g;
    struct generation_params p = {
        .prompt = prompt,
        .prompt_len = 3,
        .sampling = {.top_p = 1},
        .logprobs = logprobs ? 3 : 0,
        .prompt_logprobs = logprobs ? 1 : 0,
        .split_reasoning = true,
        .stop = stops,
        .stop_count = 2,
    };
    return generation_start(core, &p, &sink, NULL, &g, NULL) == OK;
}

/* A group comes, takes what waits and is lost again. */
static void lose_again(struct rpc_call *call, const struct rpc_method *attach, struct core *core)
{
    fake_open(call, attach, core);
    hello(call, core);
    ready(call, core);
    answer_probe(call, core);
    fake_close(call, core);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct core *core;
    static const struct rpc_method *attach;
    struct rpc_call call;
    const uint8_t *piece;
    size_t len;
    uint32_t requests;
    if (!core) {
        core = fake_core(ignore);
        core->epoch = 1; /* so that a fuzzer can spell it */
        attach = fake_methods;
    }
    if (size < 1)
        return 0;
    int stage = data[0] % 4, started = 0;
    bool logprobs = data[0] & 4, restarts = data[0] & 8;
    data++, size--;
    core->next_id = 0;
    ends = prompt_told = 0;
    fake_open(&call, attach, core);
    if (stage >= 1)
        hello(&call, core);
    if (stage >= 2)
        ready(&call, core);
    if (stage == 3) {
        answer_probe(&call, core);
        started = start(core, logprobs);
        CHECK(started, "no request");
    }
    restarts = restarts && stage == 3;
    if (restarts)
        CHECK(drain_restart(core->members, "g0", true, &requests, NULL) == OK, "no restart");
    while (fake_piece(&data, &size, &piece, &len))
        fake_deliver(&call, piece, len, core);
    members_tick(core->members);
    fake_close(&call, core);
    /* A restart is no loss. */
    for (int i = 0; i < core->config->limits.failovers + restarts && ends < started; i++) {
        CHECK(core->held == 1, "%d held", core->held);
        lose_again(&call, attach, core);
    }
    CHECK(ends == started && core->running == 0, "%d ends, %d running", ends, core->running);
    CHECK(members_gone(core->members), "the stream is still there");
    return 0;
}
