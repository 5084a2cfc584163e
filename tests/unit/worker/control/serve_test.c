/* Ranks from hello to goodbye: what they say, what they compute, what they refuse. */
#include "tests/unit/worker/control/ranks.h"

#include "proto/versions.h"
#include "worker/cuda_backend.h"

static void hello_says_who_and_where(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    char host[256] = "";
    group_start(&g, f, 2);
    FAKE_WAIT(f, f->ranks[0].hello && f->ranks[1].hello);
    gethostname(host, sizeof host - 1);
    for (uint32_t i = 0; i < 2; i++) {
        const struct fake_rank *r = &f->ranks[i];
        assert_int_equal(r->protocol, CLUSTER_PROTOCOL_VERSION);
        assert_int_equal(r->rank, i);
        assert_int_equal(r->world, 2);
        assert_int_equal(r->ranks_here, 2);
        assert_string_equal(r->group, "left");
        assert_string_equal(r->region, "north");
        assert_string_equal(r->class, "cpu-1");
        assert_string_equal(r->host, host);
        assert_int_equal(r->pid, getpid());
        assert_true(r->cores > 0 && r->memory > 1 << 20);
        assert_true(strlen(r->processor) > 0 && strlen(r->kernels) > 0);
        assert_string_equal(r->device, "");
        assert_int_not_equal(r->incarnation, 0);
    }
    assert_int_equal(f->ranks[0].incarnation, f->ranks[1].incarnation);
    fake_stop(f, 2); /* before there is a plan */
    group_wait(&g, OK);
    fake_end(f);
}

/* Two ranks of a machine with two GPUs. */
static void hello_says_which_gpu(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    struct error err;
    const struct cuda_plugin *plugin;
    setenv("FAKE_CUDA_COUNT", "2", 1);
    assert_int_equal(cuda_plugin_open(FAKE_CUDA_PLUGIN, &plugin, &err), OK); /* for good */
    group_start_on(&g, f, 2, true);
    FAKE_WAIT(f, f->ranks[0].hello && f->ranks[1].hello);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(f->ranks[i].class, "cuda-1-sm90");
        assert_string_equal(f->ranks[i].kernels, "cuda");
        assert_string_equal(f->ranks[i].device, "Fake GPU");
        assert_string_equal(f->ranks[i].uuid, i == 0 ? "GPU-00000000-0000-0000-0000-000000000000"
                                                     : "GPU-00000000-0000-0000-0000-000000000001");
    }
    fake_stop(f, 2);
    group_wait(&g, OK);
    fake_end(f);
}

/* Another group has the first two of three: one rank takes the third, the next the first again. */
static void later_groups_take_later_gpus(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    struct error err;
    const struct cuda_plugin *plugin;
    setenv("FAKE_CUDA_COUNT", "3", 1);
    assert_int_equal(cuda_plugin_open(FAKE_CUDA_PLUGIN, &plugin, &err), OK);
    group_run(&g, f, 2, (struct serve_options){.cuda = true, .first_gpu = 2});
    FAKE_WAIT(f, f->ranks[0].hello && f->ranks[1].hello);
    assert_string_equal(f->ranks[0].pci, "00000000:03:00.0");
    assert_string_equal(f->ranks[1].pci, "00000000:01:00.0");
    fake_stop(f, 2);
    group_wait(&g, OK);
    fake_end(f);
}

/* Nobody is told of a rank that has no GPU. */
static void no_gpu_no_hello(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    struct error err;
    const struct cuda_plugin *plugin;
    setenv("FAKE_CUDA_DRIVER", "0", 1);
    assert_int_equal(cuda_plugin_open(FAKE_CUDA_PLUGIN, &plugin, &err), OK);
    group_start_on(&g, f, 1, true);
    group_wait(&g, ERR_NOT_FOUND);
    assert_non_null(strstr(g.err.msg, "no GPU: expected NVIDIA's driver, found none"));
    assert_false(f->ranks[0].hello);
    fake_end(f);
}

static void tokens_are_the_engine_s(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = group_up(&g, one);
    assert_true(f->ranks[0].purposes >= 5 && f->ranks[0].planned_bytes > 0);
    assert_true(f->ranks[0].resident_bytes > 0);
    const struct fake_request greedy = {
        .id = 1, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = ANSWER};
    const struct fake_request warm = {.id = 2,
                                      .prompt = prompt + 1,
                                      .prompt_len = PROMPT - 3,
                                      .max_tokens = ANSWER - 4,
                                      .temperature = 0.8f,
                                      .seed = 4711};
    fake_submit(f, &greedy);
    fake_submit(f, &warm);
    assert_answer(f, &greedy);
    assert_answer(f, &warm);
    assert_int_equal(f->ranks[0].wakes, 0); /* there is nobody to wake */
    FAKE_WAIT(f, f->ranks[0].phase == WITAN__CLUSTER__V1__PHASE__PHASE_IDLE &&
                     f->ranks[0].steps >= ANSWER && f->ranks[0].kv_blocks > 0 &&
                     f->ranks[0].kv_blocks_free == f->ranks[0].kv_blocks);
    group_down(&g, f);
}

static void one_message_a_step(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = group_up(&g, one);
    for (uint64_t id = 1; id <= 3; id++) {
        const struct fake_request q = {
            .id = id, .prompt = prompt, .prompt_len = 2, .max_tokens = ANSWER};
        fake_submit(f, &q);
    }
    for (uint64_t id = 1; id <= 3; id++)
        FAKE_WAIT(f, fake_ended(f, id));
    assert_true(f->messages <= (int)f->tokens[f->count - 1].step);
    assert_int_equal(f->count, 3 * ANSWER);
    group_down(&g, f);
}

static void two_ranks_park_and_wake(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = group_up(&g, two);
    for (uint64_t id = 1; id <= 5; id++) {
        const struct fake_request q = {
            .id = id, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = ANSWER, .seed = id};
        fake_submit(f, &q);
        assert_answer(f, &q);
        assert_int_equal(f->ranks[0].wakes, id);
        for (int i = 0; i < 2; i++)
            wait_parked(f, &f->ranks[i]);
    }
    assert_int_equal(f->ranks[1].wakes, 0);
    fake_stop(f, 2);
    group_wait(&g, OK);
    assert_int_equal(f->ranks[0].wakes, 6); /* to let the other go */
    fake_end(f);
}

static void heartbeats_tell_of_the_engine(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = group_up(&g, two);
    for (uint64_t id = 1; id <= 2; id++) {
        const struct fake_request q = {
            .id = id, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = ANSWER, .seed = id};
        fake_submit(f, &q);
        FAKE_WAIT(f, fake_ended(f, id));
    }
    for (int i = 0; i < 2; i++)
        wait_parked(f, &f->ranks[i]);
    pthread_mutex_lock(&f->mutex);
    const struct fake_rank lead = f->ranks[0], other = f->ranks[1];
    pthread_mutex_unlock(&f->mutex);
    assert_true(lead.engine && other.engine);
    assert_true(lead.collective_seconds > 0 && lead.collective_seconds <= lead.forward_seconds);
    assert_true(other.collective_seconds > 0 && other.collective_seconds <= other.forward_seconds);
    assert_int_equal(lead.decode_rows, 2 * (ANSWER - 1));
    assert_in_range(lead.prompt_rows, PROMPT, 2 * PROMPT); /* the second may find the first's */
    assert_int_equal(lead.drawn, 2 * ANSWER);
    assert_in_range(lead.prompt_steps, 2, 2 * PROMPT);
    assert_int_equal(lead.prompt_steps + lead.decode_steps, lead.steps);
    assert_int_equal(lead.batches, lead.steps);
    assert_int_equal(lead.queued, 2);
    assert_int_equal(lead.overheads, lead.steps - 2); /* but for the first after a pause */
    assert_int_equal(other.batches + other.queued + other.prompt_rows, 0);
    fake_stop(f, 2);
    group_wait(&g, OK);
    fake_end(f);
}

/* A request of a group with this layout: 2 layers, 3 of 10 experts a token. */
static struct fake *run_one(struct group *g, struct layout layout)
{
    struct fake *f = group_up(g, layout);
    const struct fake_request q = {
        .id = 1, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = ANSWER};
    fake_submit(f, &q);
    FAKE_WAIT(f, fake_ended(f, 1));
    return f;
}

static void end_two(struct group *g, struct fake *f)
{
    fake_stop(f, 2);
    group_wait(g, OK);
    fake_end(f);
}

static void the_first_rank_tells_of_experts(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = run_one(&g, two);
    FAKE_WAIT(f, f->ranks[0].expert_sum == (PROMPT + ANSWER - 1) * 2 * 3);
    assert_int_equal(f->ranks[0].first_layer, 0);
    assert_int_equal(f->ranks[0].experts, 10);
    assert_int_equal(f->ranks[0].expert_counts, 2 * 10);
    assert_int_equal(f->ranks[1].expert_loads, 0);
    end_two(&g, f);
}

static void each_stage_tells_of_its_experts(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = run_one(&g, (struct layout){2, 1, 1, 1});
    for (uint32_t i = 0; i < 2; i++) {
        const struct fake_rank *r = &f->ranks[i];
        FAKE_WAIT(f, r->expert_sum == (PROMPT + ANSWER - 1) * 3);
        assert_int_equal(r->first_layer, i);
        assert_int_equal(r->expert_counts, 10);
    }
    end_two(&g, f);
}

static void a_plan_that_differs_is_refused(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    struct fake_plan p = plan_for(two);
    p.wrong_rank = 1;
    group_start(&g, f, 2);
    fake_plan(f, &p);
    group_wait(&g, ERR_INVALID);
    assert_non_null(strstr(g.err.msg, "plan: slices.q_heads: the coordinator says"));
    for (int i = 0; i < 2; i++) {
        FAKE_WAIT(f, f->ranks[i].closed);
        assert_non_null(strstr(f->ranks[i].failed, "slices.q_heads"));
    }
    assert_memory_equal(f->ranks[0].failed, "rank 1: ", 8);
    fake_end(f);
}

static void an_unreadable_model_is_told(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    struct fake_plan p = plan_for(one);
    group_start(&g, f, 1);
    FAKE_WAIT(f, f->ranks[0].hello);
    static const struct rank_plan nothing;
    p.dir = "no/such/folder";
    fake_send_plan(f, &p, &nothing, false);
    group_wait(&g, ERR_NOT_FOUND);
    assert_non_null(strstr(g.err.msg, "no/such/folder/config.json"));
    assert_string_equal(f->ranks[0].failed, g.err.msg);
    fake_end(f);
}

/* --- requests --- */

static void bad_requests_are_answered(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = group_up(&g, one);
    static int32_t bad[2] = {3, 1 << 20};
    const struct {
        struct fake_request q;
        const char *words;
    } cases[] = {
        {{.id = 1, .epoch = 12, .prompt = prompt, .prompt_len = 4, .max_tokens = 4}, "epoch"},
        {{.id = 2, .prompt = bad, .prompt_len = 2, .max_tokens = 4}, "token 1 of the prompt"},
        {{.id = 3, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = CONTEXT}, "context"},
        {{.id = 4, .prompt = prompt, .prompt_len = 0, .max_tokens = 4}, "empty"},
        {{.id = 5, .prompt = prompt, .prompt_len = 4, .max_tokens = -1}, "max_tokens"},
        {{.id = 6, .prompt = prompt, .prompt_len = 4, .max_tokens = 4, .temperature = -1},
         "temperature"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const struct fake_request *q = &cases[i].q;
        fake_submit(f, q);
        FAKE_WAIT(f, fake_ended(f, q->id));
        const struct fake_token *t = fake_ended(f, q->id);
        assert_int_equal(t->finish, WITAN__CLUSTER__V1__FINISH__FINISH_ERROR);
        assert_int_equal(t->epoch, q->epoch ? q->epoch : FAKE_EPOCH);
        assert_int_equal(t->ids, 0);
        assert_non_null(strstr(t->error, cases[i].words));
    }
    const struct fake_request good = {
        .id = 9, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = ANSWER};
    fake_submit(f, &good);
    assert_answer(f, &good);
    group_down(&g, f);
}

static void a_cancelled_request_ends(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    struct fake_plan p = plan_for(one);
    p.dir = "deploy/lexicon/model"; /* slow enough to be caught */
    p.max_seqs = 1;
    p.context = 1024;
    group_start(&g, f, 1);
    fake_bring_up(f, &p);
    for (uint64_t id = 1; id <= 3; id++) { /* one runs, two wait */
        const struct fake_request q = {
            .id = id, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = 900};
        fake_submit(f, &q);
    }
    FAKE_WAIT(f, f->count > 2);
    fake_cancel(f, 3);
    fake_cancel(f, 99); /* none of this id */
    fake_cancel(f, 1);
    FAKE_WAIT(f, fake_ended(f, 1) && fake_ended(f, 3));
    FAKE_WAIT(f, f->tokens[f->count - 1].request_id == 2);
    fake_cancel(f, 2);
    FAKE_WAIT(f, fake_ended(f, 2));
    for (uint64_t id = 1; id <= 3; id++) {
        static int32_t ids[FAKE_TOKENS];
        assert_int_equal(fake_ended(f, id)->finish, WITAN__CLUSTER__V1__FINISH__FINISH_CANCELLED);
        int n = fake_answer(f, id, ids, FAKE_TOKENS); /* checks the positions */
        assert_int_equal(n == 0, id == 3);
    }
    group_down(&g, f);
}

static void a_refusal_is_the_error(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    fake_refuse(f, RPC_PERMISSION_DENIED);
    group_start(&g, f, 1);
    group_wait(&g, ERR_IO);
    assert_non_null(strstr(g.err.msg, "PERMISSION_DENIED: as the test asks"));
    fake_end(f);
}

static void a_late_coordinator_is_found(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    struct fake_plan p = plan_for(one);
    int port = rpc_server_port(f->server);
    fake_vanish(f);
    int held = hold_port(port);
    group_start(&g, f, 1);
    usleep(1500000);
    close(held);
    fake_listen(f, port);
    fake_bring_up(f, &p);
    group_down(&g, f);
}

static void stopping_waits_for_no_request(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    struct fake_plan p = plan_for(two);
    p.dir = "deploy/lexicon/model";
    p.context = 1024;
    group_start(&g, f, 2);
    fake_bring_up(f, &p);
    const struct fake_request q = {
        .id = 1, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = 900};
    fake_submit(f, &q);
    FAKE_WAIT(f, f->count > 2);
    fake_stop(f, 2);
    group_wait(&g, OK);
    assert_true(f->count < 900);
    fake_end(f);
}

static void the_end_of_the_stream_ends_a_parked_group(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = group_up(&g, two);
    fake_vanish(f);
    group_wait(&g, ERR_IO);
    assert_non_null(strstr(g.err.msg, "coordinator 127.0.0.1:"));
    fake_end(f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(hello_says_who_and_where),
    cmocka_unit_test(hello_says_which_gpu),
    cmocka_unit_test(later_groups_take_later_gpus),
    cmocka_unit_test(no_gpu_no_hello),
    cmocka_unit_test(tokens_are_the_engine_s),
    cmocka_unit_test(one_message_a_step),
    cmocka_unit_test(two_ranks_park_and_wake),
    cmocka_unit_test(heartbeats_tell_of_the_engine),
    cmocka_unit_test(the_first_rank_tells_of_experts),
    cmocka_unit_test(each_stage_tells_of_its_experts),
    cmocka_unit_test(a_plan_that_differs_is_refused),
    cmocka_unit_test(an_unreadable_model_is_told),
    cmocka_unit_test(bad_requests_are_answered),
    cmocka_unit_test(a_cancelled_request_ends),
    cmocka_unit_test(a_refusal_is_the_error),
    cmocka_unit_test(a_late_coordinator_is_found),
    cmocka_unit_test(stopping_waits_for_no_request),
    cmocka_unit_test(the_end_of_the_stream_ends_a_parked_group),
};

UNIT_MAIN(tests)
