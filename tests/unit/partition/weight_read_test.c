/*
 * partition/weight_read and the binding of quantised weights, on the oracle's checkpoints
 * (tests/golden/quantised): every value as the formats' own readers give it, in every kind of cut,
 * and what is refused, by name.
 */
#include "tests/unit/partition/folder.h"

#include "base/buf.h"
#include "base/check.h"
#include "partition/plan.h"
#include "partition/weight_read.h"
#include "tests/tools/weight_name.h"
#include "tests/unit/random.h"

struct opened {
    struct model_config config;
    struct checkpoint *ck;
    struct inventory *inv;
};

static enum status open_folder(const char *dir, struct opened *o, struct error *err)
{
    struct generation_config generation;
    *o = (struct opened){.ck = NULL};
    TRY(config_load(dir, &o->config, &generation, err));
    TRY(checkpoint_open(dir, &o->ck, err));
    TRY(inventory_create(&o->config, &o->inv, err));
    return inventory_bind(o->inv, &o->config, o->ck, err);
}

static void close_folder(struct opened *o)
{
    inventory_destroy(o->inv);
    checkpoint_close(o->ck);
}

static const char *golden(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/tests/golden/quantised/%s", WITAN_SOURCE_DIR, name);
    return path;
}

static struct opened open_golden(const char *name)
{
    struct opened o;
    struct error err;
    if (open_folder(golden(name), &o, &err) != OK)
        fail_msg("%s", err.msg);
    return o;
}

/* The rectangle as fp32, whatever the weight is stored as. */
static void read_any(const struct opened *o, const struct weight *w, const struct quant_rect *rect,
                     float *out)
{
    struct error err;
    if (w->store != STORE_PLAIN) {
        if (weight_read(o->ck, o->inv, w, rect, out, &err) != OK)
            fail_msg("%s", err.msg);
        return;
    }
    size_t size = dtype_size(w->dtype);
    for (int64_t r = 0; r < rect->rows; r++)
        for (int64_t c = 0; c < rect->cols; c++) {
            uint64_t at = w->offset + (uint64_t)(rect->row + r) * w->row_stride +
                          (uint64_t)(rect->col + c) * size;
            uint16_t half = 0;
            float *to = &out[r * rect->cols + c];
            void *from = w->dtype == DTYPE_F32 ? (void *)to : (void *)&half;
            assert_int_equal(checkpoint_read(o->ck, w->file, at, from, size, &err), OK);
            if (w->dtype != DTYPE_F32)
                *to = w->dtype == DTYPE_BF16 ? quant_bf16(half) : quant_f16(half);
        }
}

/* CRC-32 as zlib computes it (ISO 3309). */
static uint32_t crc32(const void *data, size_t len)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < len; i++) {
        crc ^= ((const uint8_t *)data)[i];
        for (int b = 0; b < 8; b++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static void check_values(const char *name)
{
    struct opened o = open_golden(name);
    struct error err;
    char path[1100], *sums = NULL, line[256], weight[200];
    size_t len = 0;
    int lines = 0, quantised = 0;
    snprintf(path, sizeof path, "%s/values.crc", golden(name));
    assert_int_equal(file_read_all(path, 1 << 20, &sums, &len, &err), OK);
    for (int32_t i = 0; i < o.inv->count; i++) {
        const struct weight *w = &o.inv->weights[i];
        size_t n = (size_t)w->rows * (size_t)w->cols;
        float *values = check_calloc(n, sizeof *values);
        read_any(&o, w, &(struct quant_rect){0, w->rows, 0, w->cols}, values);
        weight_name(w, weight, sizeof weight);
        snprintf(line, sizeof line, "%08x %s\n", crc32(values, n * sizeof *values), weight);
        if (!strstr(sums, line))
            fail_msg("%s: expected other values than those of %s", name, line);
        quantised += w->store != STORE_PLAIN;
        free(values);
    }
    for (const char *c = sums; *c; c++)
        lines += *c == '\n';
    assert_int_equal(lines, o.inv->count);
    assert_true(quantised > 10);
    free(sums);
    close_folder(&o);
}

/* Rectangles anywhere in every kind of quantised weight hold what the whole holds there. */
static void check_cuts(const char *name)
{
    struct opened o = open_golden(name);
    uint64_t seed = 11;
    for (int32_t i = 0; i < o.inv->count; i++) {
        const struct weight *w = &o.inv->weights[i];
        if (w->store == STORE_PLAIN)
            continue;
        size_t n = (size_t)w->rows * (size_t)w->cols;
        float *whole = check_calloc(n, sizeof *whole), *part = check_calloc(n, sizeof *part);
        read_any(&o, w, &(struct quant_rect){0, w->rows, 0, w->cols}, whole);
        for (int k = 0; k < 5; k++) {
            int32_t r = random_int(&seed, 0, (int32_t)w->rows - 1);
            int32_t c = random_int(&seed, 0, (int32_t)w->cols - 1);
            struct quant_rect rect = {r, random_int(&seed, 1, (int32_t)w->rows - r), c,
                                      random_int(&seed, 1, (int32_t)w->cols - c)};
            read_any(&o, w, &rect, part);
            for (int64_t y = 0; y < rect.rows; y++)
                assert_memory_equal(part + y * rect.cols, whole + (r + y) * w->cols + c,
                                    (size_t)rect.cols * sizeof *part);
        }
        free(whole);
        free(part);
    }
    close_folder(&o);
}

#define FORMAT(name)                                                                               \
    static void values_of_##name(void **state)                                                     \
    {                                                                                              \
        (void)state;                                                                               \
        check_values(#name);                                                                       \
    }                                                                                              \
    static void cuts_of_##name(void **state)                                                       \
    {                                                                                              \
        (void)state;                                                                               \
        check_cuts(#name);                                                                         \
    }
FORMAT(fp8)
FORMAT(gptq)
FORMAT(gptq_order)
FORMAT(awq)
FORMAT(gguf)
FORMAT(gguf_k)

/* --- memory and files --------------------------------------------------------------------------
 */

/* Blocks of 32 rows and columns (fp8), groups of 32 columns (gptq, awq), of rows in units of 64
 * bytes, a matrix to a border of 64. */
static uint64_t packed_bytes(const struct opened *o, const struct weight *w)
{
    uint64_t rows = (uint64_t)w->rows, cols = (uint64_t)w->cols, groups = (cols + 31) / 32;
    if (!w->quantized)
        return rows * cols * dtype_size(w->dtype);
    uint64_t bytes = o->config.quant.format == FORMAT_FP8
                         ? rows * ((cols + 63) / 64 * 64) + (rows + 31) / 32 * groups * 4
                         : rows * ((cols + 127) / 128 * 64) + rows * groups * 4;
    return (bytes + 63) / 64 * 64;
}

/* A quantised weight takes fp32 in memory, or is packed where an engine computes with it. */
static void memory_and_file_bytes(void **state)
{
    (void)state;
    static const char *const names[] = {"fp8", "gptq", "awq", "gguf", "gguf_k"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct opened o = open_golden(names[i]);
        struct plan *plan = NULL;
        struct error err;
        const struct layout one = {.pp = 1, .tp = 1, .ep = 1, .w = 1};
        const struct engine_limits limits = {.max_rows = 1, .max_seqs = 1, .threads = 1};
        assert_int_equal(plan_create(&o.config, o.inv, one, &plan, &err), OK);
        uint64_t memory = 0, files = 0, stored = 0;
        for (int32_t k = 0; k < o.inv->count; k++) {
            const struct weight *w = &o.inv->weights[k];
            memory += (uint64_t)(w->rows * w->cols) * dtype_size(w->dtype);
            assert_true(w->store == STORE_PLAIN || w->dtype == DTYPE_F32);
        }
        struct memory_plan m = plan_memory(&o.config, o.inv, plan, &plan->ranks[0], &limits);
        assert_int_equal(m.weights, memory);
        o.inv->mode = WEIGHTS_PACKED;
        m = plan_memory(&o.config, o.inv, plan, &plan->ranks[0], &limits);
        plan_file_bytes(o.inv, &plan->ranks[0], 1, &files);
        size_t count;
        const struct tensor_entry *t = checkpoint_tensors(o.ck, &count);
        for (size_t k = 0; k < count; k++)
            stored += t[k].bytes;
        /* Factors of fp8 count as fp32, though some are bf16. */
        assert_true(files >= stored && files < stored + stored / 200);
        uint64_t packed = 0;
        for (int32_t k = 0; k < o.inv->count; k++)
            packed += packed_bytes(&o, &o.inv->weights[k]);
        assert_int_equal(m.weights, o.config.quant.format == FORMAT_PLAIN ? files : packed);
        plan_destroy(plan);
        close_folder(&o);
    }
}

/* --- what is refused ---------------------------------------------------------------------------
 */

/* Opens a copy of the golden in which the first `find` after `from` reads `instead`, both of
 * `count` bytes, and tries to bind it. */
static enum status bind_copy(const char *name, const char *file, const char *from, const char *find,
                             const char *instead, size_t count, struct error *err)
{
    static const char *const files[] = {"model.safetensors", "model.gguf", "config.json"};
    struct folder f = folder_make();
    struct opened o;
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        char path[1100], *data = NULL;
        size_t len = 0;
        snprintf(path, sizeof path, "%s/%s", golden(name), files[i]);
        if (access(path, R_OK) != 0)
            continue;
        assert_int_equal(file_read_all(path, 1 << 20, &data, &len, err), OK);
        if (strcmp(files[i], file) == 0) {
            char *at = memmem(data, len, from, strlen(from));
            assert_non_null(at);
            at = memmem(at, (size_t)(data + len - at), find, count);
            assert_non_null(at);
            memcpy(at, instead, count);
        }
        folder_write(&f, files[i], data, len);
        free(data);
    }
    enum status st = open_folder(f.path, &o, err);
    close_folder(&o);
    folder_remove(&f);
    return st;
}

/* Of literals, which may hold NUL. */
#define bind_changed(name, file, from, find, instead, err)                                         \
    bind_copy(name, file, from, find, instead,                                                     \
              sizeof(find) == sizeof(instead) ? sizeof(find) - 1 : 0, err)

#define AGAIN ": fetch config.json and weights again, of one revision"
#define Q_PROJ "model.layers.0.self_attn.q_proj."
static const char tensors[] = "model.safetensors";

static void fp8_without_its_factors(void **state)
{
    (void)state;
    struct error err;
    SAYS(bind_changed("fp8", tensors, Q_PROJ "weight_scale_inv", "scale_inv", "scale_out", &err),
         ERR_INVALID, &err, "tensor " Q_PROJ "weight_scale_inv", "expected shape [4, 2]",
         "found no such tensor", AGAIN);
    SAYS(bind_changed("fp8", tensors, Q_PROJ "weight_scale_inv", "[4,2]", "[2,4]", &err),
         ERR_INVALID, &err,
         "/model.safetensors: tensor " Q_PROJ "weight_scale_inv: shape: ", "expected [4, 2]",
         "found [2, 4]", AGAIN);
    SAYS(bind_changed("fp8", tensors, Q_PROJ "weight\"", "F8_E4M3", "F8_E5M2", &err),
         ERR_UNSUPPORTED, &err, "tensor " Q_PROJ "weight:", "expected F8_E4M3", "found F8_E5M2");
    SAYS(bind_changed("fp8", tensors, Q_PROJ "weight\"", "[128,64]", "[64,128]", &err), ERR_INVALID,
         &err, "tensor " Q_PROJ "weight:", "expected [128, 64]", "found [64, 128]");
    /* The blocks of config.json are others than those of the file. */
    SAYS(bind_changed("fp8", "config.json", "weight_block_size", "32", "64", &err), ERR_INVALID,
         &err, "weight_scale_inv", "shape", "expected");
}

static void gptq_with_parts_amiss(void **state)
{
    (void)state;
    struct error err;
    SAYS(bind_changed("gptq", tensors, Q_PROJ "qzeros", "qzeros", "qzerox", &err), ERR_INVALID,
         &err, "tensor " Q_PROJ "qzeros", "expected shape [2, 16]", "found no such tensor");
    SAYS(bind_changed("gptq", tensors, Q_PROJ "qzeros", "[2,16]", "[16,2]", &err), ERR_INVALID,
         &err, "/model.safetensors: tensor " Q_PROJ "qzeros: shape: ", "expected [2, 16]",
         "found [16, 2]", AGAIN);
    SAYS(bind_changed("gptq", tensors, Q_PROJ "scales", "[2,128]", "[128,2]", &err), ERR_INVALID,
         &err, "tensor " Q_PROJ "scales", "expected [2, 128]", "found [128, 2]");
    SAYS(bind_changed("gptq", tensors, Q_PROJ "qweight", "I32", "U32", &err), ERR_UNSUPPORTED, &err,
         "tensor " Q_PROJ "qweight", "expected I32", "found U32");
    SAYS(bind_changed("gptq", "config.json", "group_size", "32", "64", &err), ERR_INVALID, &err,
         "qzeros", "shape", "expected");
    SAYS(bind_changed("gptq_order", tensors, Q_PROJ "g_idx", "g_idx", "g_idy", &err), ERR_INVALID,
         &err, "tensor " Q_PROJ "g_idx", "expected shape [64]", "found no such tensor");
    /* Where columns are in order, g_idx says nothing new; but a tensor of another name is refused.
     */
    SAYS(bind_changed("gptq", tensors, Q_PROJ "g_idx", "g_idx", "g_idy", &err), ERR_UNSUPPORTED,
         &err, "tensor " Q_PROJ "g_idy", "none of them");
    SAYS(bind_changed("gptq", "config.json", "checkpoint_format", "\"gptq\"", "\"marl\"", &err),
         ERR_UNSUPPORTED, &err, "checkpoint_format", "expected \"gptq\"", "found \"marl\"");
}

static void awq_with_parts_amiss(void **state)
{
    (void)state;
    struct error err;
    SAYS(bind_changed("awq", tensors, Q_PROJ "qweight", "[64,16]", "[16,64]", &err), ERR_INVALID,
         &err, "tensor " Q_PROJ "qweight", "expected [64, 16]", "found [16, 64]");
    SAYS(bind_changed("awq", tensors, Q_PROJ "qzeros", "[2,16]", "[16,2]", &err), ERR_INVALID, &err,
         "/model.safetensors: tensor " Q_PROJ "qzeros: shape: ", "expected [2, 16]",
         "found [16, 2]", AGAIN);
    SAYS(bind_changed("awq", "config.json", "\"bits\"", "4", "8", &err), ERR_UNSUPPORTED, &err,
         "config.json: quantization_config: bits: expected 4, found 8", "as GGUF");
    /* The same file under the other method's name. */
    SAYS(bind_changed("awq", "config.json", "quant_method", "\"awq\",", "\"gptq\"", &err),
         ERR_INVALID, &err, "config.json");
}

static void gguf_with_parts_amiss(void **state)
{
    (void)state;
    static const char file[] = "model.gguf";
    struct error err;
    SAYS(bind_changed("gguf", file, "blk.0.attn_q.weight", "attn_q", "attn_x", &err), ERR_INVALID,
         &err, "tensor blk.0.attn_q.weight", "expected shape [128, 64]", "found no such tensor");
    SAYS(bind_changed("gguf", file, "blk.1.ffn_up_exps.weight", "up_exps", "up_shex", &err),
         ERR_INVALID, &err, "tensor blk.1.ffn_up_exps.weight", "expected shape [4, 256, 64]",
         "found no such tensor");
    SAYS(bind_changed("gguf", file, "qwen3moe.block_count", "\2\0\0\0", "\1\0\0\0", &err),
         ERR_UNSUPPORTED, &err, "tensor blk.1.", "1 layers of this GGUF", "none of them");
    SAYS(bind_changed("gguf", file, "attention.key_length", "\40\0\0\0", "\20\0\0\0", &err),
         ERR_UNSUPPORTED, &err, "qwen3moe.attention.value_length", "expected 16", "found 32");
    SAYS(bind_changed("gguf", file, "expert_feed_forward_length", "\0\1\0\0", "\200\0\0\0", &err),
         ERR_INVALID, &err, "tensor blk.0.ffn_gate_exps.weight", "expected [4, 128, 64]",
         "found [4, 256, 64]");
    SAYS(bind_changed("gguf", file, "token_embd.weight", "embd", "embx", &err), ERR_INVALID, &err,
         "tensor token_embd.weight", "no such tensor");
}

/* A group that there is none of, in the middle of g_idx. */
static void order_out_of_range(void **state)
{
    (void)state;
    struct opened o = open_golden("gptq_order");
    const struct weight *w = &o.inv->weights[inventory_find(o.inv, WEIGHT_Q, 0, -1)];
    struct weight wrong = *w;
    struct error err;
    float out[8];
    /* Scales read as an order are numbers far beyond the groups. */
    wrong.order.offset = w->scales.offset;
    SAYS(weight_read(o.ck, o.inv, &wrong, &(struct quant_rect){0, 1, 0, 8}, out, &err), ERR_INVALID,
         &err, "g_idx[0]", "expected 0 to 1", "found ");
    close_folder(&o);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(values_of_fp8),         cmocka_unit_test(values_of_gptq),
    cmocka_unit_test(values_of_gptq_order),  cmocka_unit_test(values_of_awq),
    cmocka_unit_test(values_of_gguf),        cmocka_unit_test(values_of_gguf_k),
    cmocka_unit_test(cuts_of_fp8),           cmocka_unit_test(cuts_of_gptq),
    cmocka_unit_test(cuts_of_gptq_order),    cmocka_unit_test(cuts_of_awq),
    cmocka_unit_test(cuts_of_gguf),          cmocka_unit_test(cuts_of_gguf_k),
    cmocka_unit_test(memory_and_file_bytes), cmocka_unit_test(fp8_without_its_factors),
    cmocka_unit_test(gptq_with_parts_amiss), cmocka_unit_test(awq_with_parts_amiss),
    cmocka_unit_test(gguf_with_parts_amiss), cmocka_unit_test(order_out_of_range),
};

UNIT_MAIN(tests)
