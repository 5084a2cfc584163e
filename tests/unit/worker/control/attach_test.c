/* A rank's control stream by itself: what its heartbeats say of its GPU, with a library in NVML's
 * place. */
#include "tests/tools/fake_nvml.h"
#include "tests/unit/worker/control/fake_coordinator.h"

#include "base/log.h"
#include "worker/control/attach.h"
#include "worker/cuda/plugin.h"

#include <dlfcn.h>

static const struct cuda_device_info gpu = {
    .name = "A GPU", .uuid = "GPU-7", .pci = "00000000:18:00.0", .major = 9, .driver = 13000};

static struct attach *attach_to(const struct fake *f, const char *nvml)
{
    struct attach *a = NULL;
    struct error err;
    const struct attach_options o = {.coordinator = f->address,
                                     .tls_dir = f->dir,
                                     .group = "left",
                                     .region = "",
                                     .incarnation = 1,
                                     .world = 1,
                                     .host = "here",
                                     .ranks_here = 1,
                                     .device = &gpu,
                                     .nvml = nvml};
    log_set_level(LOG_WARN);
    if (attach_create(&o, &a, &err) != OK)
        fail_msg("%s", err.msg);
    return a;
}

static void send_plan(struct fake *f)
{
    const struct rank_plan rank = {.layers = {0, 1}};
    const struct fake_plan p = {.dir = "none",
                                .layout = {1, 1, 1, 1},
                                .max_seqs = 1,
                                .context = 64,
                                .rows = 1,
                                .reattach_timeout_s = 60};
    fake_send_plan(f, &p, &rank, false);
}

/* Of a second stream, while the rank waits for it. */
static void *plan_again(void *arg)
{
    struct fake *f = arg;
    FAKE_WAIT(f, f->ranks[0].hellos == 2);
    send_plan(f);
    return NULL;
}

/* Heartbeats begin with the plan. */
static void give_plan(struct fake *f, struct attach *a)
{
    struct assignment plan;
    struct error err;
    FAKE_WAIT(f, f->ranks[0].hello);
    send_plan(f);
    if (attach_wait_plan(a, &plan, &err) != OK)
        fail_msg("%s", err.msg);
}

static void heartbeats_tell_of_the_gpu(void **state)
{
    (void)state;
    void *so = dlopen(FAKE_NVML, RTLD_NOW | RTLD_LOCAL);
    struct fake_nvml *nvml = so ? dlsym(so, "fake_nvml") : NULL;
    if (!nvml) {
        fail_msg("%s", dlerror());
        return;
    }
    nvml->power_mw = 250000;
    nvml->energy_mj = 1000;
    nvml->no_ecc = 1;
    nvml->xids[0] = 31;
    nvml->posted = 1;
    struct fake *f = fake_start();
    struct attach *a = attach_to(f, FAKE_NVML);
    give_plan(f, a);
    const struct fake_rank *r = &f->ranks[0];
    FAKE_WAIT(f, r->gpu && r->figure[WITAN__CLUSTER__V1__FIGURE_KIND__FIGURE_POWER_W] == 250 &&
                     !r->has[WITAN__CLUSTER__V1__FIGURE_KIND__FIGURE_STEP_J] &&
                     !r->has[WITAN__CLUSTER__V1__FIGURE_KIND__FIGURE_ECC_CORRECTED] &&
                     r->xid_count == 1 && r->xid == 31);
    assert_string_equal(nvml->uuid, "GPU-7");
    attach_stepped(a);
    attach_stepped(a);
    nvml->energy_mj = 5000;
    FAKE_WAIT(f, r->figure[WITAN__CLUSTER__V1__FIGURE_KIND__FIGURE_ENERGY_J] == 4 &&
                     r->has[WITAN__CLUSTER__V1__FIGURE_KIND__FIGURE_STEP_J]);
    attach_close(a, NULL);
    assert_int_equal(nvml->open, 0);
    fake_end(f);
}

static void no_library_no_figures(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct attach *a = attach_to(f, "/nowhere/libnvidia-ml.so.1");
    give_plan(f, a);
    FAKE_WAIT(f, f->ranks[0].heartbeats >= 3 && !f->ranks[0].gpu);
    attach_close(a, NULL);
    fake_end(f);
}

/* A step may last longer than a rank's time to notice that its stream has ended; that time begins
 * when the step ends. A rank that is taken for stuck ends this process. */
static void the_end_of_a_long_step_is_no_hang(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct attach *a = attach_to(f, "/nowhere/libnvidia-ml.so.1");
    give_plan(f, a);
    attach_phase(a, WITAN__CLUSTER__V1__PHASE__PHASE_FORWARD);
    fake_cut(f, 0, RPC_UNAVAILABLE);
    assert_true(mailbox_wait_end(attach_mailbox(a), -1));
    usleep((ATTACH_GRACE_MS + 5 * ATTACH_TICK_MS) * 1000);
    attach_phase(a, WITAN__CLUSTER__V1__PHASE__PHASE_IDLE);
    usleep(5 * ATTACH_TICK_MS * 1000);
    attach_close(a, NULL);
    fake_end(f);
}

/* Counts are told at once, then as they grow, and whole on each stream. */
static void experts_are_told_where_they_grow(void **state)
{
    (void)state;
    static atomic_ullong tokens[3 * 4];
    const struct expert_counts counts = {{2, 5}, 4, tokens};
    const int32_t chosen[] = {0, 3, 3, 1};
    struct error err;
    struct assignment plan;
    struct fake *f = fake_start();
    struct attach *a = attach_to(f, "/nowhere/libnvidia-ml.so.1");
    const struct fake_rank *r = &f->ranks[0];
    give_plan(f, a);
    FAKE_WAIT(f, r->heartbeats >= 2);
    assert_int_equal(r->expert_loads, 0); /* a rank that counts none */
    attach_experts(a, &counts);
    FAKE_WAIT(f, r->expert_loads == 1 && r->first_layer == 2 && r->experts == 4 &&
                     r->expert_counts == 12 && r->expert_sum == 0);
    expert_counts_add((struct expert_counts *)(uintptr_t)&counts, 2, chosen, 4);
    FAKE_WAIT(f, r->expert_loads == 2 && r->expert_sum == 4);
    assert_int_equal(tokens[2 * 4 + 3], 2);
    fake_cut(f, 0, RPC_ABORTED);
    assert_true(mailbox_wait_end(attach_mailbox(a), -1));
    error_set(&err, ERR_IO, "the test has cut the stream");
    pthread_t waits;
    assert_int_equal(pthread_create(&waits, NULL, plan_again, f), 0);
    if (attach_again(a, 60, &plan, &err) != OK)
        fail_msg("%s", err.msg);
    pthread_join(waits, NULL);
    FAKE_WAIT(f, r->hellos == 2 && r->expert_loads == 3 && r->expert_sum == 4);
    attach_close(a, NULL);
    fake_end(f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(heartbeats_tell_of_the_gpu),
    cmocka_unit_test(no_library_no_figures),
    cmocka_unit_test(the_end_of_a_long_step_is_no_hang),
    cmocka_unit_test(experts_are_told_where_they_grow),
};

UNIT_MAIN(tests)
