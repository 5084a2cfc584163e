/* partition/gguf: a file by the gguf package read value for value, what metadata mean, and every
 * way to be broken. */
#include "tests/unit/partition/folder.h"

#include "base/buf.h"
#include "partition/gguf.h"
#include "partition/quant.h"
#include "tests/tools/gguf_writer.h"

/* --- a writer, for files sound or broken -------------------------------------------------------
 */

static void put_tensor(struct buf *b, const char *name, uint64_t cols, uint64_t rows, uint64_t type,
                       uint64_t offset)
{
    gguf_put_tensor(b, name, 2, (uint64_t[]){cols, rows}, type, offset);
}

/* Zeros up to the next multiple of 32 and `data` bytes of them more. */
static void put_data(struct buf *b, size_t data)
{
    gguf_put_padding(b);
    for (size_t i = 0; i < data; i++)
        gguf_put(b, 0, 1);
}

/* Parses the buffer and gives it up. */
static enum status parse(struct buf *b, struct gguf **g, struct error *err)
{
    struct gguf_source source = gguf_memory(b);
    enum status st = gguf_parse("m.gguf", &source, g, err);
    buf_fini(b);
    return st;
}

#define REFUSED(b, status, ...)                                                                    \
    do {                                                                                           \
        struct gguf *g_ = NULL;                                                                    \
        struct error err_;                                                                         \
        SAYS(parse(b, &g_, &err_), status, &err_, "m.gguf: ", __VA_ARGS__);                        \
        assert_null(g_);                                                                           \
    } while (0)

/* --- the package's own file --------------------------------------------------------------------
 */

static struct checkpoint *open_golden(const char *name)
{
    struct checkpoint *ck = NULL;
    struct error err;
    char dir[1024];
    snprintf(dir, sizeof dir, "%s/tests/golden/quant/%s", WITAN_SOURCE_DIR, name);
    if (checkpoint_open(dir, &ck, &err) != OK)
        fail_msg("%s", err.msg);
    return ck;
}

static void check_values(const struct checkpoint *ck, const struct checkpoint *want,
                         const char *name, enum ggml_type type)
{
    char blocks[32];
    struct error err;
    uint8_t row[2][256 * 4];
    float expected[2][256], found[256];
    snprintf(blocks, sizeof blocks, "%s.blocks", name);
    const struct tensor_entry *t = checkpoint_find(ck, blocks), *w = checkpoint_find(want, name);
    assert_true(t && w && t->dims == 2 && t->shape[0] == 2 && t->shape[1] == 256);
    assert_int_equal(t->bytes, 2 * 256 / ggml_layout(type)->elements * ggml_layout(type)->bytes);
    assert_string_equal(t->other_dtype ? t->other_dtype : dtype_name(t->dtype), name);
    assert_int_equal(checkpoint_read(want, w->file, w->offset, expected, w->bytes, &err), OK);
    for (int r = 0; r < 2; r++) {
        assert_int_equal(
            checkpoint_read(ck, t->file, t->offset + r * t->bytes / 2, row[r], t->bytes / 2, &err),
            OK);
        quant_ggml_row(type, row[r], 0, 256, found);
        assert_memory_equal(found, expected[r], sizeof found);
    }
}

static void values_of_the_packages_file(void **state)
{
    (void)state;
    struct checkpoint *ck = open_golden("gguf"), *want = open_golden("gguf_want");
    check_values(ck, want, "F16", GGML_F16);
    check_values(ck, want, "BF16", GGML_BF16);
    check_values(ck, want, "Q8_0", GGML_Q8_0);
    check_values(ck, want, "Q4_0", GGML_Q4_0);
    check_values(ck, want, "Q4_K", GGML_Q4_K);
    check_values(ck, want, "Q5_K", GGML_Q5_K);
    check_values(ck, want, "Q6_K", GGML_Q6_K);
    checkpoint_close(want);
    checkpoint_close(ck);
}

static void metadata_of_the_packages_file(void **state)
{
    (void)state;
    struct checkpoint *ck = open_golden("gguf");
    const struct gguf *g = checkpoint_gguf(ck);
    struct error err;
    char key[32];
    const char *s = NULL;
    double x = 0;
    int64_t v = 0;
    for (int bits = 8; bits <= 64; bits *= 2) {
        snprintf(key, sizeof key, "test.i%d", bits);
        assert_int_equal(gguf_get_int(g, "g", key, true, INT64_MIN, INT64_MAX, &v, &err), OK);
        assert_true(v == -(1ll << (bits - 2)) * 2);
        snprintf(key, sizeof key, "test.u%d", bits);
        enum status st = gguf_get_int(g, "g", key, true, INT64_MIN, INT64_MAX, &v, &err);
        assert_true(bits == 64 ? st == ERR_INVALID : st == OK && v == (1ll << (bits - 1)) + 3);
    }
    assert_int_equal(gguf_get_real(g, "g", "test.f32", true, &x, &err), OK);
    assert_true(x == (double)0.1f);
    assert_int_equal(gguf_get_real(g, "g", "test.f64", true, &x, &err), OK);
    assert_true(x == 0.1);
    assert_int_equal(gguf_get_string(g, "g", "test.string", true, &s, &err), OK);
    assert_string_equal(s, "caf\xc3\xa9");
    SAYS(gguf_get_string(g, "g", "test.long", true, &s, &err), ERR_INVALID, &err, "g: test.long",
         "at most 255 bytes");
    SAYS(gguf_get_int(g, "g", "test.strings", true, 0, 9, &v, &err), ERR_INVALID, &err,
         "expected an integer", "found an array");
    SAYS(gguf_get_int(g, "g", "test.bool", true, 0, 9, &v, &err), ERR_INVALID, &err,
         "found a boolean");
    SAYS(gguf_get_int(g, "g", "test.none", true, 0, 9, &v, &err), ERR_INVALID, &err,
         "found nothing");
    SAYS(gguf_get_real(g, "g", "test.i8", true, &x, &err), ERR_INVALID, &err, "expected a number");
    SAYS(gguf_get_int(g, "g", "test.u8", true, 0, 9, &v, &err), ERR_INVALID, &err,
         "expected 0 to 9", "found 131");
    bool flag = false;
    assert_int_equal(gguf_get_bool(g, "g", "test.bool", true, &flag, &err), OK);
    assert_true(flag);
    assert_int_equal(gguf_get_bool(g, "g", "test.none", false, &flag, &err), OK);
    SAYS(gguf_get_bool(g, "g", "test.u8", true, &flag, &err), ERR_INVALID, &err,
         "expected a boolean, found an integer");
    assert_true(gguf_has(g, "test.numbers") && !gguf_has(g, "test.none"));
    checkpoint_close(ck);
}

/* What is not kept is read from where it lies. */
static void places_in_the_packages_file(void **state)
{
    (void)state;
    struct checkpoint *ck = open_golden("gguf");
    const struct gguf *g = checkpoint_gguf(ck);
    struct gguf_place p = {0};
    struct error err;
    char bytes[64];
    assert_int_equal(gguf_get_place(g, "g", "test.string", GGUF_STRING, &p, &err), OK);
    assert_true(p.bytes == 5 && p.count == 5);
    assert_int_equal(checkpoint_read(ck, 0, p.offset, bytes, 5, &err), OK);
    assert_memory_equal(bytes, "caf\xc3\xa9", 5);
    assert_int_equal(gguf_get_place(g, "g", "test.long", GGUF_STRING, &p, &err), OK);
    assert_true(p.bytes > 255);
    assert_int_equal(gguf_get_place(g, "g", "test.strings", GGUF_STRINGS, &p, &err), OK);
    assert_true(p.count > 0 && p.bytes >= 8 * p.count);
    SAYS(gguf_get_place(g, "g", "test.strings", GGUF_INTS32, &p, &err), ERR_INVALID, &err,
         "g: test.strings: expected an array of 32-bit integers, found an array, each a string");
    SAYS(gguf_get_place(g, "g", "test.strings", GGUF_STRING, &p, &err), ERR_INVALID, &err,
         "expected a string, found an array");
    SAYS(gguf_get_place(g, "g", "test.string", GGUF_STRINGS, &p, &err), ERR_INVALID, &err,
         "expected an array of strings, found a string");
    SAYS(gguf_get_place(g, "g", "test.none", GGUF_STRING, &p, &err), ERR_INVALID, &err,
         "expected a string, found nothing");
    checkpoint_close(ck);
}

static void model_of_the_packages_file(void **state)
{
    (void)state;
    struct model_config c;
    struct generation_config generation;
    struct error err;
    char dir[1024];
    snprintf(dir, sizeof dir, "%s/tests/golden/quant/gguf", WITAN_SOURCE_DIR);
    if (config_load(dir, &c, &generation, &err) != OK)
        fail_msg("%s", err.msg);
    assert_true(c.hidden == 256 && c.layers == 3 && c.q_heads == 8 && c.kv_heads == 2);
    assert_true(c.head_dim == 32 && c.vocab == 10 && c.experts == 6 && c.top_k == 2);
    assert_true(c.moe_intermediate == 128 && c.max_position == 4096 && c.norm_topk_prob);
    assert_true(c.rms_eps == 1e-6f && c.rope_theta == 1e6 && c.tied_embeddings);
    assert_true(c.eos_count == 1 && c.eos[0] == 7 && c.layer_is_moe[2]);
}

/* --- qwen3moe's metadata -----------------------------------------------------------------------
 */

/* A small model's file whose entry `change` is left out, or put by `with`. */
static enum status config_with(const char *change, void (*with)(struct buf *b), struct error *err)
{
    static const struct {
        const char *key;
        uint64_t value;
    } sizes[] = {
        {"qwen3moe.embedding_length", 64},     {"qwen3moe.block_count", 2},
        {"qwen3moe.attention.head_count", 4},  {"qwen3moe.attention.head_count_kv", 2},
        {"qwen3moe.context_length", 100},      {"qwen3moe.expert_count", 4},
        {"qwen3moe.expert_used_count", 2},     {"qwen3moe.expert_feed_forward_length", 32},
        {"qwen3moe.attention.key_length", 16}, {"qwen3moe.attention.value_length", 16},
        {"tokenizer.ggml.eos_token_id", 5},    {"tokenizer.ggml.eot_token_id", 6},
        {"qwen3moe.feed_forward_length", 96},
    };
    struct buf entries, b;
    uint64_t count = 0;
    buf_init(&entries, 1 << 20);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (strcmp(change, sizes[i].key) != 0 && ++count)
            gguf_put_int(&entries, sizes[i].key, sizes[i].value);
    if (strcmp(change, "general.architecture") != 0 && ++count)
        gguf_put_text(&entries, "general.architecture", "qwen3moe");
    if (strcmp(change, "qwen3moe.rope.freq_base") != 0 && ++count)
        gguf_put_float(&entries, "qwen3moe.rope.freq_base", 1e4f);
    if (strcmp(change, "qwen3moe.attention.layer_norm_rms_epsilon") != 0 && ++count)
        gguf_put_float(&entries, "qwen3moe.attention.layer_norm_rms_epsilon", 1e-5f);
    if (with && ++count)
        with(&entries);
    gguf_put_header(&b, 3, 0, count);
    assert_int_equal(buf_append(&b, entries.data, entries.len, NULL), OK);
    buf_fini(&entries);
    struct gguf *g = NULL;
    struct model_config c = {0};
    enum status st = parse(&b, &g, err);
    if (st == OK)
        st = gguf_config(g, "m.gguf", 50, false, &c, err);
    if (st == OK && !with && !*change)
        assert_true(c.hidden == 64 && c.vocab == 50 && c.intermediate == 96 && c.eos_count == 2 &&
                    c.rms_eps == 1e-5f && c.rope_theta == 1e4 && !c.tied_embeddings);
    gguf_destroy(g);
    return st;
}

static void metadata_of_a_model(void **state)
{
    (void)state;
    struct error err;
    static const char *const required[] = {
        "qwen3moe.embedding_length",
        "qwen3moe.block_count",
        "qwen3moe.attention.head_count",
        "qwen3moe.attention.head_count_kv",
        "qwen3moe.context_length",
        "qwen3moe.expert_count",
        "qwen3moe.expert_used_count",
        "qwen3moe.expert_feed_forward_length",
        "general.architecture",
        "qwen3moe.rope.freq_base",
        "qwen3moe.attention.layer_norm_rms_epsilon",
    };
    assert_int_equal(config_with("", NULL, &err), OK);
    for (size_t i = 0; i < sizeof required / sizeof *required; i++)
        SAYS(config_with(required[i], NULL, &err), ERR_INVALID, &err, "m.gguf: ", required[i],
             "found nothing");
}

static void another_architecture(struct buf *b)
{
    gguf_put_text(b, "general.architecture", "llama");
}
static void rope_that_scales(struct buf *b)
{
    gguf_put_text(b, "qwen3moe.rope.scaling.type", "yarn");
}
static void values_of_another_length(struct buf *b)
{
    gguf_put_int(b, "qwen3moe.attention.value_length", 8);
}
static void no_layers(struct buf *b)
{
    gguf_put_int(b, "qwen3moe.block_count", 0);
}
static void heads_that_do_not_divide(struct buf *b)
{
    gguf_put_int(b, "qwen3moe.attention.head_count_kv", 3);
}
static void endless_base(struct buf *b)
{
    gguf_put_float(b, "qwen3moe.rope.freq_base", __builtin_inff());
}

static void models_that_are_refused(void **state)
{
    (void)state;
    struct error err;
    SAYS(config_with("general.architecture", another_architecture, &err), ERR_UNSUPPORTED, &err,
         "general.architecture", "expected \"qwen3moe\"", "found \"llama\"");
    SAYS(config_with("", rope_that_scales, &err), ERR_UNSUPPORTED, &err,
         "qwen3moe.rope.scaling.type", "found \"yarn\"");
    SAYS(config_with("qwen3moe.attention.value_length", values_of_another_length, &err),
         ERR_UNSUPPORTED, &err, "value_length", "expected 16", "found 8");
    SAYS(config_with("qwen3moe.block_count", no_layers, &err), ERR_INVALID, &err,
         "num_hidden_layers", "found 0");
    SAYS(config_with("qwen3moe.attention.head_count_kv", heads_that_do_not_divide, &err),
         ERR_INVALID, &err, "num_key_value_heads", "found 3");
    SAYS(config_with("qwen3moe.rope.freq_base", endless_base, &err), ERR_INVALID, &err,
         "qwen3moe.rope.freq_base", "expected a finite number");
}

/* --- broken files ------------------------------------------------------------------------------
 */

static void least_file(void **state)
{
    (void)state;
    struct buf b;
    struct error err;
    struct gguf *g = NULL;
    size_t count = 1;
    gguf_put_header(&b, 2, 0, 0);
    assert_int_equal(parse(&b, &g, &err), OK);
    gguf_tensors(g, &count);
    assert_true(count == 0 && !gguf_tensor(g, "a") && !gguf_has(g, "a"));
    gguf_destroy(g);
}

static void shapes_and_places(void **state)
{
    (void)state;
    struct buf b;
    struct error err;
    struct gguf *g = NULL;
    gguf_put_header(&b, 3, 2, 0);
    put_tensor(&b, "b", 256, 3, GGML_Q4_K, 64);
    put_tensor(&b, "a", 5, 2, GGML_F32, 0);
    size_t end = b.len + 31;
    put_data(&b, 64 + 3 * 144);
    assert_int_equal(parse(&b, &g, &err), OK);
    const struct tensor_entry *t = gguf_tensor(g, "a");
    assert_true(t->dims == 2 && t->shape[0] == 2 && t->shape[1] == 5 && t->bytes == 40);
    assert_true(t->offset == end / 32 * 32 && t->dtype == DTYPE_F32 && !t->other_dtype);
    t = gguf_tensor(g, "b");
    assert_true(t->shape[0] == 3 && t->shape[1] == 256 && t->bytes == 3 * 144);
    assert_true(t->offset == end / 32 * 32 + 64 && strcmp(t->other_dtype, "Q4_K") == 0);
    gguf_destroy(g);
}

static void headers_that_are_none(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 100);
    buf_puts(&b, "GGU", NULL);
    REFUSED(&b, ERR_INVALID, "header", "expected 4 bytes at 0", "the file at 3");
    buf_init(&b, 100);
    buf_puts(&b, "GGML12345678901234567890", NULL);
    REFUSED(&b, ERR_INVALID, "begins with GGUF");
    gguf_put_header(&b, 1, 0, 0);
    REFUSED(&b, ERR_UNSUPPORTED, "version", "expected 2 or 3", "found 1");
    gguf_put_header(&b, 0x03000000, 0, 0);
    REFUSED(&b, ERR_UNSUPPORTED, "little-endian");
    gguf_put_header(&b, 3, 1ull << 40, 0);
    REFUSED(&b, ERR_LIMIT, "number of tensors", "found 1099511627776");
    gguf_put_header(&b, 3, 0, 65537);
    REFUSED(&b, ERR_LIMIT, "number of metadata", "at most 65536", "found 65537");
    gguf_put_header(&b, 3, 0, 1);
    REFUSED(&b, ERR_INVALID, "metadata 0", "expected 8 bytes", "end of the file");
}

static void metadata_that_break_the_format(void **state)
{
    (void)state;
    struct buf b;
    gguf_put_header(&b, 3, 0, 1);
    gguf_put_string(&b, "");
    REFUSED(&b, ERR_INVALID, "metadata 0", "1 to 65535 bytes", "found 0");
    gguf_put_header(&b, 3, 0, 1);
    gguf_put(&b, UINT64_MAX, 8);
    REFUSED(&b, ERR_INVALID, "metadata 0", "found 18446744073709551615");
    gguf_put_header(&b, 3, 0, 1);
    gguf_put(&b, 3, 8);
    buf_append(&b, "a\0b", 3, NULL);
    REFUSED(&b, ERR_INVALID, "expected no NUL byte");
    gguf_put_header(&b, 3, 0, 1);
    gguf_put_string(&b, "key");
    gguf_put(&b, 13, 4);
    REFUSED(&b, ERR_INVALID, "metadata key", "type", "expected 0 to 12", "found 13");
    gguf_put_header(&b, 3, 0, 1);
    gguf_put_string(&b, "key");
    gguf_put(&b, 7, 4);
    gguf_put(&b, 2, 1);
    REFUSED(&b, ERR_INVALID, "metadata key", "boolean of 0 or 1", "found 2");
    gguf_put_header(&b, 3, 0, 1);
    gguf_put_string(&b, "key");
    gguf_put(&b, 8, 4);
    gguf_put(&b, 1ull << 62, 8);
    REFUSED(&b, ERR_INVALID, "metadata key", "expected 4611686018427387904 bytes");
    gguf_put_header(&b, 3, 0, 2);
    gguf_put_int(&b, "key", 1);
    gguf_put_int(&b, "key", 2);
    REFUSED(&b, ERR_INVALID, "metadata key", "expected once", "found twice");
}

static void arrays_that_break_the_format(void **state)
{
    (void)state;
    struct buf b;
    static const uint64_t cases[][2] = {{4, 1ull << 61}, {8, 1ull << 61}, {0, 100}};
    for (size_t i = 0; i < 3; i++) {
        gguf_put_header(&b, 3, 0, 1);
        gguf_put_string(&b, "key");
        gguf_put(&b, 9, 4);
        gguf_put(&b, cases[i][0], 4);
        gguf_put(&b, cases[i][1], 8);
        REFUSED(&b, ERR_INVALID, "metadata key", "array within the file's");
    }
    gguf_put_header(&b, 3, 0, 1);
    gguf_put_string(&b, "key");
    gguf_put(&b, 9, 4);
    gguf_put(&b, 9, 4);
    gguf_put(&b, 1, 8);
    REFUSED(&b, ERR_UNSUPPORTED, "metadata key", "found one of arrays");
    gguf_put_header(&b, 3, 0, 1);
    gguf_put_string(&b, "key");
    gguf_put(&b, 9, 4);
    gguf_put(&b, 8, 4);
    gguf_put(&b, 1, 8);
    gguf_put(&b, 1000, 8);
    REFUSED(&b, ERR_INVALID, "metadata key", "expected 1000 bytes");
    gguf_put_header(&b, 3, 0, 1);
    gguf_put_int(&b, "general.alignment", 12);
    REFUSED(&b, ERR_INVALID, "general.alignment", "multiple of 8", "found 12");
    gguf_put_header(&b, 3, 0, 1);
    gguf_put_int(&b, "general.alignment", 0);
    REFUSED(&b, ERR_INVALID, "general.alignment", "found 0");
}

/* One tensor in a file with 64 bytes of data. */
static struct buf one_tensor(uint64_t cols, uint64_t rows, uint64_t type, uint64_t offset)
{
    struct buf b;
    gguf_put_header(&b, 3, 1, 0);
    put_tensor(&b, "x", cols, rows, type, offset);
    put_data(&b, 64);
    return b;
}

static void tensors_that_break_the_format(void **state)
{
    (void)state;
    struct buf b = one_tensor(4, 4, GGML_F32, 16);
    REFUSED(&b, ERR_INVALID, "tensor x", "multiple of 32", "found 16");
    b = one_tensor(4, 4, GGML_F32, 32);
    REFUSED(&b, ERR_INVALID, "tensor x", "expected 64 bytes at 32",
            "past its end: fetch the file again");
    b = one_tensor(4, 5, GGML_F32, 0);
    REFUSED(&b, ERR_INVALID, "tensor x", "expected 80 bytes", "past its end");
    b = one_tensor(4, 4, GGML_F32, 1ull << 63);
    REFUSED(&b, ERR_INVALID, "tensor x", "past its end");
    b = one_tensor(0, 4, GGML_F32, 0);
    REFUSED(&b, ERR_INVALID, "tensor x", "sizes of 1 or more", "found 0");
    b = one_tensor(1ull << 40, 1ull << 40, GGML_F32, 0);
    REFUSED(&b, ERR_INVALID, "tensor x", "fewer than 2^64 elements");
    b = one_tensor(1ull << 32, 1ull << 31, GGML_F32, 0);
    REFUSED(&b, ERR_INVALID, "tensor x", "fewer than 2^64 bytes");
    b = one_tensor(48, 1, GGML_Q8_0, 0);
    REFUSED(&b, ERR_INVALID, "tensor x", "whole Q8_0 blocks of 32", "found 48");
    b = one_tensor(32, 1, 20, 0);
    REFUSED(&b, ERR_UNSUPPORTED, "tensor x", "expected F32, F16, BF16, Q8_0, Q4_0, Q4_K",
            "found IQ4_NL, ggml type 20: quantise the model to one of these");
    b = one_tensor(32, 1, UINT32_MAX, 0);
    REFUSED(&b, ERR_UNSUPPORTED, "tensor x", "found ggml type 4294967295");
}

static void tensors_that_collide(void **state)
{
    (void)state;
    struct buf b;
    gguf_put_header(&b, 3, 2, 0);
    put_tensor(&b, "x", 4, 4, GGML_F32, 0);
    put_tensor(&b, "y", 4, 4, GGML_F32, 32);
    put_data(&b, 128);
    REFUSED(&b, ERR_INVALID, "tensor y", "after tensor x", "ends at 64", "found it at 32");
    gguf_put_header(&b, 3, 2, 0);
    put_tensor(&b, "x", 4, 4, GGML_F32, 0);
    put_tensor(&b, "x", 4, 4, GGML_F32, 64);
    put_data(&b, 128);
    REFUSED(&b, ERR_INVALID, "tensor x", "expected once", "found twice");
    gguf_put_header(&b, 3, 1, 0);
    gguf_put_string(&b, "x");
    gguf_put(&b, 5, 4);
    REFUSED(&b, ERR_INVALID, "tensor x", "1 to 4 dimensions", "found 5");
    gguf_put_header(&b, 3, 1, 0);
    gguf_put_string(&b,
                    "a name that is longer than any tensor of a model has ever been, longer than "
                    "the format allows, and longer than this reader takes, too");
    REFUSED(&b, ERR_INVALID, "tensor 0", "1 to 127 bytes");
}

/* Every file cut short is refused, whatever it is cut in. */
static void files_cut_anywhere(void **state)
{
    (void)state;
    char path[1024], *data = NULL;
    struct error err;
    size_t len = 0;
    snprintf(path, sizeof path, "%s/tests/golden/quant/gguf/types.gguf", WITAN_SOURCE_DIR);
    assert_int_equal(file_read_all(path, 1 << 20, &data, &len, &err), OK);
    for (size_t n = 0; n < len - 32; n += n < 3000 ? 1 : 97) {
        struct buf b = {.data = data, .len = n};
        struct gguf_source source = {gguf_read_memory, &b, n};
        struct gguf *g = NULL;
        if (gguf_parse("cut", &source, &g, &err) == OK)
            fail_msg("%zu of %zu bytes were taken", n, len);
        assert_null(strchr(err.msg, '\n'));
    }
    free(data);
}

/* --- folders -----------------------------------------------------------------------------------
 */

/* A part of a split file with one tensor. */
static void put_part(const struct folder *f, const char *file, const char *tensor, uint64_t number,
                     uint64_t count)
{
    struct buf b;
    gguf_put_header(&b, 3, 1, 2);
    gguf_put_int(&b, "split.no", number);
    gguf_put_int(&b, "split.count", count);
    put_tensor(&b, tensor, 4, 4, GGML_F32, 0);
    put_data(&b, 64);
    folder_write(f, file, b.data, b.len);
    buf_fini(&b);
}

static void files_in_parts(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct checkpoint *ck = NULL;
    struct error err;
    put_part(&f, "m-00002-of-00002.gguf", "b", 1, 2);
    SAYS(checkpoint_open(f.path, &ck, &err), ERR_INVALID, &err, "m-00002-of-00002.gguf",
         "expected part 1 of the 1", "found part 2 of 2");
    put_part(&f, "m-00001-of-00002.gguf", "a", 0, 2);
    assert_true(checkpoint_is_gguf(f.path, NULL));
    if (checkpoint_open(f.path, &ck, &err) != OK)
        fail_msg("%s", err.msg);
    assert_int_equal(checkpoint_file_count(ck), 2);
    assert_int_equal(checkpoint_find(ck, "a")->file, 0);
    assert_int_equal(checkpoint_find(ck, "b")->file, 1);
    checkpoint_close(ck);
    put_part(&f, "other.gguf", "c", 0, 1);
    SAYS(checkpoint_open(f.path, &ck, &err), ERR_INVALID, &err, "m-00001-of-00002.gguf",
         "part 1 of the 3", "found part 1 of 2");
    folder_remove(&f);
}

static void safetensors_come_first(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct checkpoint *ck = NULL;
    struct error err;
    put_part(&f, "m.gguf", "a", 0, 1);
    folder_safetensors(&f, "model.safetensors",
                       "{\"s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
    assert_false(checkpoint_is_gguf(f.path, NULL));
    assert_int_equal(checkpoint_open(f.path, &ck, &err), OK);
    assert_true(checkpoint_find(ck, "s") && !checkpoint_gguf(ck));
    checkpoint_close(ck);
    folder_remove(&f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(values_of_the_packages_file),
    cmocka_unit_test(metadata_of_the_packages_file),
    cmocka_unit_test(places_in_the_packages_file),
    cmocka_unit_test(model_of_the_packages_file),
    cmocka_unit_test(metadata_of_a_model),
    cmocka_unit_test(models_that_are_refused),
    cmocka_unit_test(least_file),
    cmocka_unit_test(shapes_and_places),
    cmocka_unit_test(headers_that_are_none),
    cmocka_unit_test(metadata_that_break_the_format),
    cmocka_unit_test(arrays_that_break_the_format),
    cmocka_unit_test(tensors_that_break_the_format),
    cmocka_unit_test(tensors_that_collide),
    cmocka_unit_test(files_cut_anywhere),
    cmocka_unit_test(files_in_parts),
    cmocka_unit_test(safetensors_come_first),
};

UNIT_MAIN(tests)
