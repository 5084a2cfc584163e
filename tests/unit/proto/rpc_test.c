/* The RPC runtime over plaintext: calls of each kind, how they end, limits, servers that die. */
#include "tests/unit/proto/rpc_fixture.h"

static void unary_call(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    world_open(&w);
    call_list_models(w.channel, WAIT_MS, &s);
    seen_ended(&s, RPC_OK);
    assert_int_equal(s.messages, 1);
    seen_ended(&w.seen, RPC_OK);
    seen_fini(&s);
    world_close(&w);
}

static void server_stream_in_order(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    world_open(&w);
    call_generate(w.channel, "qwen3", 20000, 0, &s);
    seen_ended(&s, RPC_OK);
    assert_int_equal(s.messages, 20000);
    assert_false(s.out_of_order);
    seen_ended(&w.seen, RPC_OK);
    seen_fini(&s);
    world_close(&w);
}

static void bidi_ping_pong(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct seen s;
    world_open(&w);
    call_attach(w.channel, &s);
    for (int i = 0; i < 1000; i++) {
        assert_ok(send_heartbeat(s.call, (uint64_t)i, &err));
        assert_true(seen_reaches(&s, &s.messages, i + 1, WAIT_MS));
    }
    assert_int_equal(seen_get(&s, &s.closed), 0);
    rpc_half_close(s.call);
    seen_ended(&s, RPC_OK);
    seen_ended(&w.seen, RPC_OK);
    assert_false(s.out_of_order);
    assert_false(w.seen.out_of_order);
    assert_int_equal(w.seen.half_closes, 1);
    seen_fini(&s);
    world_close(&w);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(unary_call),
    cmocka_unit_test(server_stream_in_order),
    cmocka_unit_test(bidi_ping_pong),
};

UNIT_MAIN(tests)
