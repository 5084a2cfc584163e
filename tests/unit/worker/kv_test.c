/*
 * The KV cache as the engine fills it: how int8 keeps what fp32 would, and that a number which is
 * not finite ends an answer, whatever it is kept in.
 */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "base/log.h"
#include "worker/cpu/vec.h"
#include "worker/engine.h"

#include <math.h>

static const char *const MODEL = WITAN_SOURCE_DIR "/tests/golden/oracle/qwen2";

/* Heads of three groups, the last one a half. */
static const char WIDE[] =
    "{\"architectures\": [\"Qwen3ForCausalLM\"], \"model_type\": \"qwen3\", \"head_dim\": 80, "
    "\"hidden_act\": \"silu\", \"hidden_size\": 64, \"intermediate_size\": 128, "
    "\"max_position_embeddings\": 512, \"num_attention_heads\": 4, \"num_hidden_layers\": 2, "
    "\"num_key_value_heads\": 2, \"rms_norm_eps\": 1e-06, \"rope_theta\": 10000.0, "
    "\"tie_word_embeddings\": false, \"torch_dtype\": \"bfloat16\", \"vocab_size\": 256}";

enum { PROMPT = 60, TOKENS = 4 }; /* the cache has one block */

struct run {
    const char *random; /* a folder with a config.json alone; NULL: MODEL */
    enum kv_dtype kv;
    float k_bias, v_bias; /* of the first layer's first element, where it is not 0 */
    enum finish finish;
    int32_t row;
    float *cached; /* [positions][K, V][row] of the first layer and last head, as floats */
};

static void on_token(void *user, int32_t token, enum finish finish)
{
    (void)token;
    ((struct run *)user)->finish = finish;
}

static enum status answer(struct engine *e, struct run *r, struct error *err)
{
    int32_t prompt[PROMPT];
    for (int32_t i = 0; i < PROMPT; i++)
        prompt[i] = i * 7 % 250;
    struct request q = {.prompt = prompt,
                        .prompt_len = PROMPT,
                        .max_tokens = TOKENS,
                        .ignore_eos = true,
                        .sampling = {.top_p = 1.0f},
                        .on_token = on_token,
                        .user = r};
    TRY(engine_submit(e, &q, NULL, err));
    for (bool ran = true; ran;)
        TRY(engine_step(e, &ran, err));
    return OK;
}

static float element(const struct kv_layer *kv, char *tile, int32_t d, int64_t slot, bool of_k)
{
    int64_t i = of_k ? (int64_t)d * KV_BLOCK + slot : slot * kv->row + d;
    if (kv->dtype == KV_F32)
        return ((float *)(void *)tile)[i];
    if (kv->dtype == KV_BF16)
        return bf16_to_f32(((uint16_t *)(void *)tile)[i]);
    uint16_t scale = kv8_scales(tile, kv->row)[d / KV8_GROUP * KV_BLOCK + slot];
    return (float)((int8_t *)tile)[i] * bf16_to_f32(scale);
}

static void keep(struct model *m, struct run *r)
{
    struct kv_layer kv = kv_layer_of(&m->kv, 0);
    r->row = kv.row;
    r->cached = check_calloc((size_t)PROMPT * 2 * (size_t)kv.row, sizeof(float));
    for (int32_t pos = 0; pos < PROMPT; pos++)
        for (int32_t d = 0; d < kv.row; d++)
            for (int32_t v = 0; v < 2; v++) {
                char *tile = kv_tile(&kv, 0, kv.heads - 1);
                tile += (size_t)v * kv_tile_bytes(kv.dtype, kv.row);
                r->cached[(pos * 2 + v) * kv.row + d] = element(&kv, tile, d, pos % KV_BLOCK,
                                                                v == 0);
            }
}

static enum status rank_main(struct comm *world, void *arg, struct error *err)
{
    struct run *r = arg;
    struct model_options options = {.dir = r->random ? r->random : MODEL,
                                    .random_weights = r->random != NULL,
                                    .layout = {.pp = 1, .tp = 1, .ep = 1, .w = 1},
                                    .limits = {.max_rows = PROMPT,
                                               .max_logits = 1,
                                               .max_seqs = 1,
                                               .context = PROMPT + TOKENS,
                                               .threads = 1,
                                               .kv_dtype = r->kv},
                                    .kernels = "auto",
                                    .collectives = "staged"};
    struct model *m = NULL;
    struct engine *e = NULL;
    TRY(model_create(&options, world, &m, err));
    struct layer_weights *w = &m->weights->layers[0];
    if (r->k_bias != 0.0f)
        ((float *)(uintptr_t)w->k_bias)[0] = r->k_bias;
    if (r->v_bias != 0.0f)
        ((float *)(uintptr_t)w->v_bias)[0] = r->v_bias;
    enum status st = engine_create(m, &(struct engine_options){0}, &e, err);
    if (st == OK)
        st = answer(e, r, err);
    if (st == OK)
        keep(m, r);
    engine_destroy(e);
    model_destroy(m);
    return st;
}

static void run(struct run *r)
{
    struct error err = {0};
    log_set_level(LOG_ERROR);
    if (comm_local_run(1, rank_main, r, &err) != OK)
        fail_msg("%s", err.msg);
}

/* Every element is within half a step of what fp32 keeps, a step being of the largest of the group;
 * it is the scale's rounding that may make it larger. Returns the largest difference. */
static double check_group(const float *exact, const float *found, int32_t n)
{
    double largest = 0.0, apart = 0.0;
    for (int32_t d = 0; d < n; d++) {
        largest = fmax(largest, fabs((double)exact[d]));
        apart = fmax(apart, fabs((double)exact[d] - (double)found[d]));
    }
    assert_true(apart <= 0.5 * (1.0 + 0x1p-7) / 127.0 * largest);
    return largest > 0.0 ? apart / largest : 0.0;
}

static void check_kept(const char *random)
{
    struct run exact = {.random = random, .kv = KV_F32};
    struct run narrow = {.random = random, .kv = KV_INT8};
    run(&exact);
    run(&narrow);
    assert_int_equal(narrow.finish, FINISH_LENGTH);
    assert_int_equal(narrow.row, exact.row);
    double apart = 0.0;
    for (int32_t i = 0; i < 2 * PROMPT; i++)
        for (int32_t d = 0; d < exact.row; d += KV8_GROUP) {
            int32_t n = exact.row - d < KV8_GROUP ? exact.row - d : KV8_GROUP,
                    at = i * exact.row + d;
            apart = fmax(apart, check_group(exact.cached + at, narrow.cached + at, n));
        }
    assert_true(apart > 0.4 / 127.0);
    free(exact.cached);
    free(narrow.cached);
}

static void int8_keeps_what_f32_does(void **state)
{
    (void)state;
    char dir[] = "/tmp/witan-kv-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(WIDE, f) >= 0);
    assert_int_equal(fclose(f), 0);
    check_kept(NULL);
    check_kept(dir);
    unlink(path);
    rmdir(dir);
}

static void not_finite_ends_the_answer(void **state)
{
    (void)state;
    const float odd[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 2 * COUNT_OF(odd); i++)
        for (int kv = KV_BF16; kv <= KV_INT8; kv++) {
            float x = odd[i / 2];
            struct run r = {
                .kv = (enum kv_dtype)kv, .k_bias = i % 2 ? x : 0.0f, .v_bias = i % 2 ? 0.0f : x};
            run(&r);
            assert_int_equal(r.finish, FINISH_ERROR);
            free(r.cached);
        }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(int8_keeps_what_f32_does),
    cmocka_unit_test(not_finite_ends_the_answer),
};

UNIT_MAIN(tests)
