/* What is said where the CUDA backend cannot run, by a plug-in whose answers are the test's. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "worker/cuda_backend.h"

static const struct cuda_plugin *plugin(void)
{
    const struct cuda_plugin *p = NULL;
    struct error err;
    if (cuda_plugin_open(FAKE_CUDA_PLUGIN, &p, &err) != OK)
        fail_msg("%s", err.msg);
    return p;
}

static void expect_words(const struct error *err, const char *words)
{
    if (!strstr(err->msg, words) || strchr(err->msg, '\n'))
        fail_msg("expected one line with \"%s\", found \"%s\"", words, err->msg);
}

struct refusal {
    const char *set[3][2]; /* of the environment; CUDA_VISIBLE_DEVICES is otherwise absent */
    enum status status;
    const char *words, *advice;
};

static void set_answers(const struct refusal *r)
{
    unsetenv("CUDA_VISIBLE_DEVICES");
    for (size_t k = 0; k < COUNT_OF(r->set) && r->set[k][0]; k++)
        setenv(r->set[k][0], r->set[k][1], 1);
}

static void forget_answers(const struct refusal *r)
{
    for (size_t k = 0; k < COUNT_OF(r->set) && r->set[k][0]; k++)
        unsetenv(r->set[k][0]);
}

static void refuses_where_there_is_no_gpu(void **state)
{
    (void)state;
    static const struct refusal cases[] = {
        {{{"FAKE_CUDA_DRIVER", "0"}}, ERR_NOT_FOUND, "NVIDIA's driver, found none", "install one"},
        {{{"FAKE_CUDA_DRIVER", "12040"}},
         ERR_UNSUPPORTED,
         "CUDA 13 or later, found one for CUDA 12.4",
         "install a newer driver"},
        {{{"FAKE_CUDA_COUNT", "0"}}, ERR_NOT_FOUND, "the driver sees none", "look at `nvidia-smi`"},
        {{{"FAKE_CUDA_COUNT", "0"}, {"FAKE_CUDA_COUNT_ERROR", "100"}},
         ERR_NOT_FOUND,
         "no CUDA-capable device is detected",
         "look at `nvidia-smi`"},
        {{{"FAKE_CUDA_DRIVER_ERROR", "999"}, {"FAKE_CUDA_COUNT_ERROR", "999"}},
         ERR_NOT_FOUND,
         "another error",
         "look at `nvidia-smi`"},
        {{{"FAKE_CUDA_COUNT", "0"}, {"CUDA_VISIBLE_DEVICES", ""}},
         ERR_NOT_FOUND,
         "CUDA_VISIBLE_DEVICES=\"\" leaves none",
         "unset it"},
        {{{"FAKE_CUDA_COUNT", "0"},
          {"FAKE_CUDA_COUNT_ERROR", "100"},
          {"CUDA_VISIBLE_DEVICES", "9"}},
         ERR_NOT_FOUND,
         "CUDA_VISIBLE_DEVICES=\"9\" leaves none",
         "unset it"},
    };
    const struct cuda_plugin *p = plugin();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct error err;
        int count = -1;
        set_answers(&cases[i]);
        assert_int_equal(cuda_plugin_devices(p, &count, &err), cases[i].status);
        expect_words(&err, cases[i].words);
        expect_words(&err, cases[i].advice);
        forget_answers(&cases[i]);
    }
}

static void refuses_a_gpu_it_has_no_code_for(void **state)
{
    (void)state;
    static const struct refusal cases[] = {
        {{{"FAKE_CUDA_MAJOR", "7"}, {"FAKE_CUDA_MINOR", "5"}},
         ERR_UNSUPPORTED,
         "GPU 0 (Fake GPU): expected compute capability 8.0 or later, found 7.5",
         "--device cpu"},
        {{{"FAKE_CUDA_MAJOR", "12"}, {"FAKE_CUDA_RUNS", "209"}},
         ERR_UNSUPPORTED,
         "expected compute capability 8.0, 9.0, 10.0, which the CUDA plug-in holds code for, found "
         "12.0",
         "-DWITAN_CUDA_ARCHITECTURES=120"},
        {{{"FAKE_CUDA_MINOR", "9"}, {"FAKE_CUDA_SHARED", "101376"}},
         ERR_UNSUPPORTED,
         "GPU 0 (Fake GPU, 9.9): expected 163 KiB of shared memory a block, as GPUs of data "
         "centres "
         "have, found 99",
         "--device cpu"},
    };
    const struct cuda_plugin *p = plugin();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct error err;
        struct cuda_device_info info;
        set_answers(&cases[i]);
        assert_int_equal(cuda_plugin_device(p, 0, &info, &err), cases[i].status);
        expect_words(&err, cases[i].words);
        expect_words(&err, cases[i].advice);
        forget_answers(&cases[i]);
    }
}

static void takes_a_gpu_that_can_run(void **state)
{
    (void)state;
    const struct cuda_plugin *p = plugin();
    struct cuda_device_info info;
    struct error err;
    int count = 0;
    setenv("FAKE_CUDA_COUNT", "2", 1);
    setenv("FAKE_CUDA_DRIVER", "14000", 1); /* newer drivers run older builds */
    assert_int_equal(cuda_plugin_devices(p, &count, &err), OK);
    assert_int_equal(count, 2);
    assert_int_equal(cuda_plugin_device(p, 1, &info, &err), OK);
    assert_string_equal(info.uuid, "GPU-00000000-0000-0000-0000-000000000001");
    assert_int_equal(info.driver, 14000);
    assert_int_equal(cuda_plugin_device(p, 2, &info, &err), ERR_IO);
    expect_words(&err, "GPU 2: opening it");
}

static void refuses_another_plugin(void **state)
{
    (void)state;
    const struct cuda_plugin *p = NULL;
    struct error err;
    setenv("FAKE_CUDA_VERSION", "99", 1);
    assert_int_equal(cuda_plugin_open(FAKE_CUDA_PLUGIN, &p, &err), ERR_UNSUPPORTED);
    char words[128];
    snprintf(words, sizeof words,
             "expected version %d of the CUDA plug-in: install the one of this build",
             CUDA_PLUGIN_VERSION);
    expect_words(&err, words);
    assert_int_equal(cuda_plugin_open("/nowhere/witan_cuda.so", &p, &err), ERR_NOT_FOUND);
    expect_words(&err, "the CUDA plug-in cannot be loaded: /nowhere/witan_cuda.so");
    unsetenv("FAKE_CUDA_VERSION"); /* a refusal is not for good */
    assert_non_null(plugin());
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(refuses_where_there_is_no_gpu),
    cmocka_unit_test(refuses_a_gpu_it_has_no_code_for),
    cmocka_unit_test(takes_a_gpu_that_can_run),
    cmocka_unit_test(refuses_another_plugin),
};

UNIT_MAIN(tests)
