/*
 * Any bytes as what coordinators that share groups send each other. The first byte: bit 0: as a
 * peer that dials (else as a home that is dialled); bits 1 and 2: how far it has come (nothing;
 * hello or welcome; a group is ready; a request of its runs); bit 3: the other side reads nothing
 * any more; bit 4: the group is lost halfway. The rest are messages. At the end the stream closes,
 * and a request that has not ended goes on when the peer is back, until it may lose no more.
 * Nothing of it may be left then.
 */
#include "tests/fuzz/fake_rpc.h"

#include "base/clock.h"
#include "coordinator/share_private.h"
#include "proto/versions.h"

static struct core *core;
static const struct rpc_method *attach, *share;
static int ends;

static void look(const char *group, const char *state, const char *message)
{
    CHECK(*group && *state && !strchr(message, '\n'), "group %s: %s", group, state);
}

static void on_text(void *user, enum part part, const char *text, size_t len)
{
    (void)user, (void)part;
    CHECK(text && len > 0, "no text");
}

static void on_end(void *user, const struct generation_end *end)
{
    (void)user, (void)end;
    ends++;
}

/* --- a rank of group g0 ------------------------------------------------------------------------
 */

static void rank_says_hello(struct rpc_call *call)
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

static void rank_says_tokens(struct rpc_call *call, uint64_t id, bool last)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Tokens t = WITAN__CLUSTER__V1__TOKENS__INIT;
    Witan__Cluster__V1__SequenceTokens s = WITAN__CLUSTER__V1__SEQUENCE_TOKENS__INIT, *list = &s;
    int32_t drawn = 5;
    s.request_id = id;
    s.epoch = core->epoch;
    s.attempt = 1;
    s.ids = &drawn;
    s.n_ids = id > 0;
    s.finish = last ? WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH
                    : WITAN__CLUSTER__V1__FINISH__FINISH_NONE;
    t.sequences = &list;
    t.n_sequences = 1;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_TOKENS;
    m.tokens = &t;
    fake_deliver_message(call, &m.base, core);
}

static void rank_serves(struct rpc_call *call)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Ready r = WITAN__CLUSTER__V1__READY__INIT;
    fake_open(call, attach, core);
    rank_says_hello(call);
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_READY;
    m.ready = &r;
    fake_deliver_message(call, &m.base, core);
    rank_says_tokens(call, 0, true);
    CHECK(core->members->groups[0].state == GROUP_READY, "not ready");
}

/* --- as a peer that dials ----------------------------------------------------------------------
 */

static void peer_says_hello(struct rpc_call *call)
{
    char shape[SHARE_MAX_TEXT];
    Witan__Cluster__V1__ShareRequest m = WITAN__CLUSTER__V1__SHARE_REQUEST__INIT;
    Witan__Cluster__V1__ShareHello h;
    share_hello_fill(core, &h, shape);
    h.epoch = 7;
    m.body_case = WITAN__CLUSTER__V1__SHARE_REQUEST__BODY_HELLO;
    m.hello = &h;
    fake_deliver_message(call, &m.base, core);
}

static void peer_submits(struct rpc_call *call)
{
    int32_t prompt[] = {1, 2, 3};
    Witan__Cluster__V1__ShareRequest m = WITAN__CLUSTER__V1__SHARE_REQUEST__INIT;
    Witan__Cluster__V1__ShareSubmit w = WITAN__CLUSTER__V1__SHARE_SUBMIT__INIT;
    Witan__Cluster__V1__Submit q = WITAN__CLUSTER__V1__SUBMIT__INIT;
    Witan__Cluster__V1__Sampling s = WITAN__CLUSTER__V1__SAMPLING__INIT;
    s.top_p = 1;
    q.request_id = q.attempt = 1;
    q.epoch = 7;
    q.prompt = prompt;
    q.n_prompt = 3;
    q.max_tokens = 4;
    q.sampling = &s;
    w.group = "g0";
    w.submit = &q;
    w.start = 1;
    m.body_case = WITAN__CLUSTER__V1__SHARE_REQUEST__BODY_SUBMIT;
    m.submit = &w;
    fake_deliver_message(call, &m.base, core);
    CHECK(members_relays(core->members) == 1, "it is not relayed");
}

static void watch(void)
{
    members_watch(core->members);
    loop_drain(core->loop);
}

static void dial_in(int stage, bool full, bool lose, const uint8_t *data, size_t size)
{
    struct rpc_call call, rank;
    const uint8_t *piece;
    size_t len;
    bool serves = stage >= 2;
    core->members->groups[0].times_ready = 0;
    if (serves)
        rank_serves(&rank);
    fake_open(&call, share, core);
    if (stage >= 1)
        peer_says_hello(&call);
    if (stage == 3)
        peer_submits(&call);
    call.full = full;
    while (fake_piece(&data, &size, &piece, &len)) {
        fake_deliver(&call, piece, len, core);
        if (serves && !rank.finished) /* of those that may run, the newest */
            rank_says_tokens(&rank, core->next_id, len % 2);
        watch();
        if (serves && lose)
            fake_close(&rank, core);
        serves = serves && !lose;
    }
    CHECK(core->members->share->relays >= 0 &&
              core->members->groups[0].active == core->members->share->relays,
          "%d relays, %d on the group", core->members->share->relays,
          core->members->groups[0].active);
    fake_close(&call, core);
    CHECK(members_relays(core->members) == 0 && core->members->groups[0].active == 0 &&
              core->members->groups[0].owed == 0,
          "relays are left");
    if (serves)
        fake_close(&rank, core);
}

/* --- as a home that is dialled -----------------------------------------------------------------
 */

static void home_welcomes(uint64_t start)
{
    Witan__Cluster__V1__ShareReply m = WITAN__CLUSTER__V1__SHARE_REPLY__INIT;
    Witan__Cluster__V1__ShareWelcome w = WITAN__CLUSTER__V1__SHARE_WELCOME__INIT;
    Witan__Cluster__V1__GroupState g = WITAN__CLUSTER__V1__GROUP_STATE__INIT;
    m.body_case = WITAN__CLUSTER__V1__SHARE_REPLY__BODY_WELCOME;
    m.welcome = &w;
    fake_deliver_message(&fake_client, &m.base, core);
    g.group = "g0";
    g.numerics_class = NUMERICS_CLASS_CPU;
    g.ready = g.takes_new = true;
    g.start = start;
    g.protocol = CLUSTER_PROTOCOL_VERSION;
    m.body_case = WITAN__CLUSTER__V1__SHARE_REPLY__BODY_GROUP;
    m.group = &g;
    if (start > 0)
        fake_deliver_message(&fake_client, &m.base, core);
}

static void dial_out(void)
{
    struct share_link *l = &core->members->share->links[0];
    l->retry_ns = 0;
    l->logged[0] = '\0';
    watch();
    CHECK(l->call == &fake_client, "not dialled");
}

static bool start(void)
{
    static const struct generation_sink sink = {.on_text = on_text, .on_end = on_end};
    int32_t prompt[] = {1, 2, 3};
    struct generation *g;
    struct generation_params p = {
        .prompt = prompt, .prompt_len = 3, .sampling = {.top_p = 1}, .prompt_logprobs = 1};
    return generation_start(core, &p, &sink, NULL, &g, NULL) == OK;
}

static void close_link(void)
{
    fake_close(&fake_client, core);
    CHECK(!core->members->share->links[0].call, "the link is still there");
    for (uint32_t i = 0; i < core->members->count; i++)
        CHECK(!core->members->groups[i].via && core->members->groups[i].active == 0,
              "a group is still served");
}

static void dialled(int stage, bool full, bool lose, const uint8_t *data, size_t size)
{
    const uint8_t *piece;
    size_t len;
    int started = 0;
    dial_out();
    if (stage >= 1)
        home_welcomes(stage >= 2 ? 1 : 0);
    if (stage == 3) {
        started = start();
        CHECK(started, "no request");
    }
    fake_client.full = full;
    while (fake_piece(&data, &size, &piece, &len)) {
        fake_deliver(&fake_client, piece, len, core);
        watch();
        if (lose)
            fake_client.finished = true;
    }
    close_link();
    /* One that came back has not been lost. */
    for (int i = 0; i <= core->config->limits.failovers && ends < started; i++) {
        CHECK(core->held == 1, "%d held", core->held);
        dial_out();
        home_welcomes((uint64_t)i + 2);
        close_link();
    }
    CHECK(ends == started && core->running == 0, "%d ends, %d running", ends, core->running);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!core) {
        core = fake_core_of(look, "pki: none\n"
                                  "peers: ['127.0.0.1:9']\n");
        core->epoch = 1; /* so that a fuzzer can spell it */
        attach = &fake_methods[0];
        share = &fake_methods[1];
    }
    if (size < 1)
        return 0;
    int stage = data[0] >> 1 & 3;
    bool full = data[0] & 8, lose = data[0] & 16;
    core->next_id = 0;
    ends = 0;
    core->members->share->links[0].retry_ns = INT64_MAX; /* until it is to be dialled */
    (data[0] & 1 ? dial_in : dialled)(stage, full, lose, data + 1, size - 1);
    members_tick(core->members);
    CHECK(!core->members->share->streams && !core->members->open, "a stream is left");
    return 0;
}
