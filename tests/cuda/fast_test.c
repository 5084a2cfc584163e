/*
 * Which of a step's products the CUDA backend gives to the fast kernels, and what it gives them:
 * the emulator has none, so their place is taken by functions that compute the same from the
 * reproducible ones.
 */
#include "tests/unit/unit.h"

#include "worker/cuda_backend.h"
#include "worker/engine.h"

#include <math.h>

enum { ROWS = CUDA_FAST_ROWS + 20, LONG = ROWS, SHORT = CUDA_FAST_ROWS - 1, VOCAB = 40 };
enum { EXPERTS = 4, HIDDEN = 32 };

static const struct cuda_plugin *emulator(void)
{
    return witan_cuda_plugin(CUDA_PLUGIN_VERSION);
}

/* --- the fast products' stand-ins: every pointer goes through the emulator's checks --- */

static struct {
    int gemm, gemm_sum, up, down, pack;
} calls;

static void *on_device(const void *from, size_t bytes)
{
    const struct cuda_plugin *p = emulator();
    void *to = NULL;
    assert_int_equal(p->alloc(&to, bytes), 0);
    if (from)
        assert_int_equal(p->put(to, bytes, from, bytes, bytes, 1, NULL), 0);
    return to;
}

static void *on_host(const void *from, size_t bytes)
{
    void *to = malloc(bytes);
    assert_non_null(to);
    assert_int_equal(emulator()->get(to, from, bytes, NULL), 0);
    return to;
}

/* A map holds its matrix' address. */
static int maps(const struct cuda_ffn *ffn, int32_t count, int32_t columns, int32_t hidden,
                struct cuda_fast_ffn *out)
{
    assert_true(columns > 0);
    assert_int_equal(hidden, HIDDEN);
    for (int32_t i = 0; i < count; i++) {
        out[i].gate.opaque[0] = (uint64_t)(uintptr_t)ffn[i].gate;
        out[i].up.opaque[0] = (uint64_t)(uintptr_t)ffn[i].up;
        out[i].down.opaque[0] = (uint64_t)(uintptr_t)ffn[i].down;
    }
    return 0;
}

static int gemm(const cuda_bf16 *x, int32_t m, const struct cuda_part *parts, int32_t count,
                cuda_stream stream)
{
    calls.gemm++;
    assert_true(m >= CUDA_FAST_ROWS);
    return emulator()->gemm(x, NULL, m, parts, count, stream);
}

static int gemm_sum(const cuda_bf16 *x, int32_t m, struct cuda_matrix w, int32_t leaves,
                    double *sum, unsigned long long *out_of_range, cuda_stream stream)
{
    calls.gemm_sum++;
    assert_true(leaves > 0);
    (void)out_of_range; /* none are */
    size_t n = (size_t)m * (size_t)w.rows;
    float *there = on_device(NULL, n * sizeof *there);
    const struct cuda_part part = {w, NULL, there, w.rows};
    assert_int_equal(emulator()->gemm(x, NULL, m, &part, 1, stream), 0);
    float *y = on_host(there, n * sizeof *y);
    double *rounded = malloc(n * sizeof *rounded);
    assert_non_null(rounded);
    for (size_t i = 0; i < n; i++)
        rounded[i] = ldexp(rint(ldexp((double)y[i], 32)), -32);
    assert_int_equal(emulator()->put(sum, n * 8, rounded, n * 8, n * 8, 1, stream), 0);
    emulator()->free(there);
    free(rounded);
    free(y);
    return 0;
}

static struct cuda_ffn *ffn_of(const struct cuda_fast_ffn *there, int32_t count)
{
    struct cuda_fast_ffn *m = on_host(there, (size_t)count * sizeof *m);
    struct cuda_ffn *ffn = calloc((size_t)count, sizeof *ffn);
    assert_non_null(ffn);
    for (int32_t i = 0; i < count; i++) {
        ffn[i].gate = (const cuda_bf16 *)(uintptr_t)m[i].gate.opaque[0];
        ffn[i].up = (const cuda_bf16 *)(uintptr_t)m[i].up.opaque[0];
        ffn[i].down = (const cuda_bf16 *)(uintptr_t)m[i].down.opaque[0];
    }
    free(m);
    return ffn;
}

static int ffn_up(const struct cuda_fast_ffn *m, int32_t count, int32_t slots, int32_t columns,
                  int32_t hidden, struct cuda_route route, const cuda_bf16 *xn, cuda_bf16 *packed,
                  cuda_bf16 *h, cuda_stream stream)
{
    calls.up++;
    struct cuda_ffn *ffn = ffn_of(m, count), *there = on_device(ffn, (size_t)count * sizeof *ffn);
    int e = cuda_pack_rows(xn, route.row, route.first + count, slots, hidden, packed, stream);
    if (e == 0)
        e = emulator()->ffn_up(there, (struct cuda_format){0}, count, slots, columns, hidden, route,
                               xn, h, stream);
    emulator()->free(there);
    free(ffn);
    return e;
}

static int ffn_down(int32_t rows, const struct cuda_fast_ffn *m, int32_t count, int32_t slots,
                    int32_t columns, int32_t hidden, struct cuda_route route, int32_t leaves,
                    const cuda_bf16 *h, float *y, double *sum, unsigned long long *out_of_range,
                    cuda_stream stream)
{
    calls.down++;
    struct cuda_ffn *ffn = ffn_of(m, count);
    int32_t *first = on_host(route.first, ((size_t)count + 1) * sizeof *first);
    assert_true(first[count] <= slots);
    for (int32_t i = 0; i < count; i++) {
        const struct cuda_part part = {
            .w = {.data = ffn[i].down, .rows = hidden, .cols = columns},
            .y = y + (int64_t)first[i] * hidden,
            .ldy = hidden,
        };
        assert_int_equal(emulator()->gemm(h + (int64_t)first[i] * columns, NULL,
                                          first[i + 1] - first[i], &part, 1, stream),
                         0);
    }
    free(first);
    free(ffn);
    return cuda_combine_slots(rows, count, hidden, route, leaves, y, sum, out_of_range, stream);
}

static int pack_rows(const cuda_bf16 *x, const int32_t *index, const int32_t *live, int32_t m,
                     int32_t cols, cuda_bf16 *out, cuda_stream stream)
{
    calls.pack++;
    return cuda_pack_rows(x, index, live, m, cols, out, stream);
}

static const struct cuda_fast_table stand_ins = {maps,     gemm,      gemm_sum,       ffn_up,
                                                 ffn_down, pack_rows, cuda_finish_qkv};

/* --- one request through a model --- */

struct run {
    const char *dir;
    const struct cuda_plugin *cuda;
    bool fast;
    int32_t prompt_len;
    float logits[ROWS * VOCAB];
    int32_t seen;
};

static void on_logits(void *user, int32_t pos, const float *logits, int32_t vocab)
{
    struct run *r = user;
    assert_true(pos >= 0 && pos < r->prompt_len && vocab == VOCAB);
    memcpy(r->logits + (size_t)pos * VOCAB, logits, VOCAB * sizeof *logits);
    r->seen++;
}

static void on_token(void *user, int32_t token, enum finish finish)
{
    (void)user;
    (void)token;
    assert_int_not_equal(finish, FINISH_ERROR);
}

static enum status rank_main(struct comm *world, void *arg, struct error *err)
{
    struct run *r = arg;
    struct model *m = NULL;
    struct engine *e = NULL;
    const struct model_options o = {
        .dir = r->dir,
        .layout = {1, 1, 1, 0},
        .limits = {.max_rows = ROWS,
                   .max_seqs = 1,
                   .max_logits = ROWS,
                   .context = ROWS,
                   .threads = 1,
                   .kv_dtype = KV_BF16,
                   .fast = r->fast},
        .kernels = "auto",
        .cuda = r->cuda,
    };
    const struct engine_options eo = {0};
    int32_t prompt[ROWS];
    uint64_t id = 0;
    for (int32_t i = 0; i < r->prompt_len; i++)
        prompt[i] = (i * 37 + 5) % VOCAB;
    const struct request q = {
        .prompt = prompt,
        .prompt_len = r->prompt_len,
        .max_tokens = 0,
        .ignore_eos = true,
        .all_logits = true,
        .sampling = {.top_p = 1.0f},
        .on_token = on_token,
        .on_logits = on_logits,
        .user = r,
    };
    TRY(model_create(&o, world, &m, err));
    enum status st = engine_create(m, &eo, &e, err);
    if (st == OK)
        st = engine_submit(e, &q, &id, err);
    for (bool ran = true; st == OK && ran;)
        st = engine_step(e, &ran, err);
    if (st == OK)
        st = engine_stop(e, err);
    engine_destroy(e);
    model_destroy(m);
    return st;
}

static char dir[64];

static void make_model(void)
{
    char command[1024];
    snprintf(dir, sizeof dir, "/tmp/witan_test_XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(command, sizeof command,
             "%s %s --vocab %d --hidden %d --layers 2 --heads 2 --kv-heads 1 --head-dim 16 "
             "--experts %d --top-k %d --moe-intermediate 24",
             MAKE_CHECKPOINT, dir, VOCAB, HIDDEN, EXPERTS, EXPERTS);
    assert_int_equal(system(command), 0);
}

static void remove_model(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static void run_it(struct run *r)
{
    struct error err;
    memset(&calls, 0, sizeof calls);
    r->seen = 0;
    if (comm_local_run(1, rank_main, r, &err) != OK)
        fail_msg("%s", err.msg);
    assert_int_equal(r->seen, r->prompt_len);
}

/* Logits from the two ways, over the largest. */
static double distance(const struct run *a, const struct run *b)
{
    double worst = 0, largest = 0;
    for (int32_t i = 0; i < a->prompt_len * VOCAB; i++) {
        assert_true(isfinite(a->logits[i]) && isfinite(b->logits[i]));
        worst = fmax(worst, fabs((double)a->logits[i] - (double)b->logits[i]));
        largest = fmax(largest, fabs((double)a->logits[i]));
    }
    assert_true(largest > 0);
    return worst / largest;
}

static void steps_of_many_rows_are_fast(void **state)
{
    (void)state;
    struct cuda_plugin with = *emulator();
    with.fast = &stand_ins;
    static struct run plain, fast;
    make_model();
    plain = (struct run){.dir = dir, .cuda = &with, .prompt_len = LONG};
    fast = plain;
    fast.fast = true;
    run_it(&plain);
    assert_int_equal(calls.gemm + calls.gemm_sum + calls.up + calls.down + calls.pack, 0);
    run_it(&fast);
    assert_int_equal(calls.gemm, 2 + 1); /* q, k and v of two layers; lm_head */
    assert_int_equal(calls.pack, 1);
    assert_int_equal(calls.gemm_sum, 2);
    assert_int_equal(calls.up, 2);
    assert_int_equal(calls.down, 2);
    double d = distance(&plain, &fast);
    print_message("%.2e of the largest logit\n", d);
    assert_true(d < 2e-2); /* another order of sums, and so some activations' last bit */
    remove_model();
}

static void steps_of_few_rows_are_not(void **state)
{
    (void)state;
    struct cuda_plugin with = *emulator();
    with.fast = &stand_ins;
    static struct run plain, fast;
    make_model();
    plain = (struct run){.dir = dir, .cuda = &with, .prompt_len = SHORT};
    fast = plain;
    fast.fast = true;
    run_it(&plain);
    run_it(&fast);
    assert_int_equal(calls.gemm + calls.gemm_sum + calls.up + calls.down + calls.pack, 0);
    assert_memory_equal(plain.logits, fast.logits, SHORT * VOCAB * sizeof *plain.logits);
    remove_model();
}

/* --- refusals --- */

static int of_blackwell(int device, struct cuda_device_info *out)
{
    int e = emulator()->device_info(device, out);
    out->major = 10;
    return e;
}

static void refused_where_it_cannot_run(void **state)
{
    (void)state;
    struct error err;
    static struct run r;
    make_model();
    r = (struct run){.dir = dir, .cuda = emulator(), .fast = true, .prompt_len = 1};
    assert_int_equal(comm_local_run(1, rank_main, &r, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "--fast: expected a CUDA plug-in with kernels for Hopper"));
    struct cuda_plugin other = *emulator();
    other.fast = &stand_ins;
    other.device_info = of_blackwell;
    r.cuda = &other;
    assert_int_equal(comm_local_run(1, rank_main, &r, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "expected a GPU of compute capability 9.0 (Hopper), found "
                                    "emulator of 10.0: leave out --fast"));
    r.cuda = NULL;
    assert_int_equal(comm_local_run(1, rank_main, &r, &err), ERR_INVALID);
    assert_non_null(strstr(err.msg, "--fast: expected --device cuda beside it, found cpu"));
    remove_model();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(steps_of_many_rows_are_fast),
    cmocka_unit_test(steps_of_few_rows_are_not),
    cmocka_unit_test(refused_where_it_cannot_run),
};

UNIT_MAIN(tests)
