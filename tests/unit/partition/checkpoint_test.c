/* partition/checkpoint: safetensors headers, shards and their index, and every way to be broken. */
#include "tests/unit/partition/folder.h"

#include "base/buf.h"
#include "base/clock.h"
#include "partition/checkpoint.h"

#define TENSOR(name, dtype, shape, begin, end)                                                     \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end \
    "]}"

/* A case of one broken header: refused with the status, naming the file and all the words given. */
#define REFUSES(case_name, header, data_bytes, status, ...)                                        \
    static void case_name(void **state)                                                            \
    {                                                                                              \
        (void)state;                                                                               \
        struct error err;                                                                          \
        SAYS(safetensors_parse_header("m.safetensors", header, sizeof(header) - 1, data_bytes,     \
                                      NULL, NULL, &err),                                           \
             status, &err, "m.safetensors: ", __VA_ARGS__);                                        \
    }

REFUSES(overlapping_tensors,
        "{" TENSOR("a", "F32", "[2]", 0, 8) "," TENSOR("b", "F32", "[1]", 4, 8) "}", 8, ERR_INVALID,
        "tensor b", "begin at 8", "found 4", "overlap")
REFUSES(hole_between_tensors,
        "{" TENSOR("a", "F32", "[1]", 0, 4) "," TENSOR("b", "F32", "[1]", 8, 12) "}", 12,
        ERR_INVALID, "tensor b", "begin at 4", "found 8", "hole")
REFUSES(hole_before_the_first_tensor, "{" TENSOR("a", "F32", "[1]", 4, 8) "}", 8, ERR_INVALID,
        "tensor a", "begin at 0", "found 4")
REFUSES(data_beyond_the_last_tensor, "{" TENSOR("a", "F32", "[1]", 0, 4) "}", 5, ERR_INVALID,
        "expected 4 bytes", "(a)", "found 5")
REFUSES(data_without_tensors, "{}", 5, ERR_INVALID, "expected 0 bytes", "found 5")
REFUSES(data_cut_short, "{" TENSOR("a", "F32", "[2]", 0, 8) "}", 7, ERR_INVALID, "tensor a",
        "within the file's 7 bytes", "found 8")
REFUSES(negative_dimension, "{" TENSOR("a", "F32", "[2, -1]", 0, 8) "}", 8, ERR_INVALID, "tensor a",
        "shape[1]", "expected 0 or more", "found -1")
REFUSES(shape_that_overflows, "{" TENSOR("a", "F32", "[4294967296, 4294967296, 4]", 0, 0) "}", 0,
        ERR_INVALID, "tensor a", "fewer than 2^64 elements", "shape[1] = 4294967296")
REFUSES(bytes_that_overflow, "{" TENSOR("a", "F32", "[4611686018427387904]", 0, 0) "}", 0,
        ERR_INVALID, "tensor a", "expected 0 from data_offsets", "found shape times F32 over 2^64")
REFUSES(dimension_beyond_int64, "{" TENSOR("a", "F32", "[9223372036854775808]", 0, 4) "}", 4,
        ERR_INVALID, "too big integer")
REFUSES(bytes_unlike_the_shape, "{" TENSOR("a", "BF16", "[2, 3]", 0, 16) "}", 16, ERR_INVALID,
        "tensor a", "expected 12 from shape times BF16", "found 16")
REFUSES(half_a_byte, "{" TENSOR("a", "F4", "[3]", 0, 1) "}", 1, ERR_INVALID, "tensor a",
        "expected 1 and a fraction from shape times F4", "found 1")
REFUSES(offsets_reversed, "{" TENSOR("a", "F32", "[1]", 4, 0) "}", 4, ERR_INVALID, "tensor a",
        "begin <= end", "found [4, 0]")
REFUSES(offsets_negative, "{" TENSOR("a", "F32", "[1]", -4, 0) "}", 4, ERR_INVALID, "tensor a",
        "0 <= begin", "found [-4, 0]")
REFUSES(offsets_at_the_end_of_int64,
        "{" TENSOR("a", "F32", "[1]", 9223372036854775803, 9223372036854775807) "}", 4, ERR_INVALID,
        "tensor a", "found 9223372036854775807")
REFUSES(duplicate_names,
        "{" TENSOR("a", "F32", "[1]", 0, 4) "," TENSOR("a", "F32", "[1]", 4, 8) "}", 8, ERR_INVALID,
        "duplicate", "\"a\"")
REFUSES(five_dimensions, "{" TENSOR("a", "F32", "[1,1,1,1,1]", 0, 4) "}", 4, ERR_UNSUPPORTED,
        "tensor a", "at most 4 dimensions", "found 5")
REFUSES(dtype_outside_the_format, "{" TENSOR("a", "F33", "[1]", 0, 4) "}", 4, ERR_UNSUPPORTED,
        "tensor a", "dtype", "expected BF16", "found F33")
REFUSES(dtype_of_wrong_type, "{\"a\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
        ERR_INVALID, "tensor a", "dtype", "expected a string", "found an integer")
REFUSES(shape_of_wrong_type, "{" TENSOR("a", "F32", "4", 0, 4) "}", 4, ERR_INVALID, "tensor a",
        "shape", "expected an array", "found an integer")
REFUSES(dimension_of_wrong_type, "{" TENSOR("a", "F32", "[1.5]", 0, 4) "}", 4, ERR_INVALID,
        "tensor a", "shape[0]", "expected an integer", "found a real number")
REFUSES(offsets_missing, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, ERR_INVALID, "tensor a",
        "data_offsets", "expected an array", "found nothing")
REFUSES(offsets_of_three, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4,
        ERR_INVALID, "tensor a", "data_offsets", "expected 2 numbers", "found 3")
REFUSES(offset_of_wrong_type,
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,\"4\"]}}", 4, ERR_INVALID,
        "tensor a", "data_offsets[1]", "expected an integer", "found a string")
REFUSES(tensor_that_is_no_object, "{\"a\":7}", 0, ERR_INVALID, "tensor a", "expected an object",
        "found an integer")
REFUSES(metadata_that_is_no_object, "{\"__metadata__\":7}", 0, ERR_INVALID, "__metadata__",
        "expected an object", "found an integer")
REFUSES(metadata_that_is_no_string, "{\"__metadata__\":{\"k\":7}}", 0, ERR_INVALID, "__metadata__",
        "k: expected a string", "found an integer")
REFUSES(empty_name, "{" TENSOR("", "F32", "[1]", 0, 4) "}", 4, ERR_INVALID, "expected 1 to",
        "found 0")
REFUSES(newline_in_a_name, "{" TENSOR("a\\nb", "F32", "[1]", 0, 4) "}", 4, ERR_INVALID,
        "tensor a?b", "no control characters", "found 0x0a at byte 1")
REFUSES(nul_in_a_name, "{" TENSOR("a\\u0000", "F32", "[1]", 0, 4) "}", 4, ERR_INVALID, "u0000")
REFUSES(bytes_that_are_not_utf8, "{" TENSOR("a\xff", "F32", "[1]", 0, 4) "}", 4, ERR_INVALID,
        "unable to decode byte 0xff")
REFUSES(header_of_another_type, "[]", 0, ERR_INVALID, "expected '{'", "found byte 0x5b")
REFUSES(header_of_no_bytes, "", 0, ERR_INVALID, "expected '{'", "found nothing, length 0")
REFUSES(header_with_a_nul_after_it, "{}\0", 0, ERR_INVALID, "end of file expected")
REFUSES(header_cut_short, "{\"a\":{\"dtype\":\"F32\",", 0, ERR_INVALID, "line 1")
REFUSES(header_nested_too_deep,
        "{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", 0,
        ERR_INVALID, "nested deeper than 64")
/* Found by safetensors_fuzz: jansson quotes the text, and with it a newline behind a backslash. */
REFUSES(regression_newline_in_quoted_json, "{\"a&n\\\n9\":{\"dts\":[0,4]}}", 0, ERR_INVALID,
        "invalid escape near")

struct listed {
    int count;
    struct tensor_entry t[4];
    char names[4][16];
};

static enum status list(const struct tensor_entry *t, void *arg, struct error *err)
{
    (void)err;
    struct listed *l = arg;
    assert_true(l->count < 4);
    l->t[l->count] = *t;
    snprintf(l->names[l->count], sizeof l->names[0], "%s", t->name);
    l->count++;
    return OK;
}

static void header_lists_tensors_by_offset(void **state)
{
    (void)state;
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"}," TENSOR(
        "late", "BF16", "[2, 3]", 4,
        16) "," TENSOR("zero", "F16", "[0, 7]", 4,
                       4) "," TENSOR("early", "F32", "[]", 0, 4) "," TENSOR("q", "F8_E4M3", "[4]",
                                                                            16, 20) "}   ";
    struct listed l = {0};
    struct error err;
    size_t len = sizeof header - 1;
    assert_int_equal(safetensors_parse_header("h", header, len, 20, list, &l, &err), OK);
    assert_int_equal(l.count, 4);
    assert_string_equal(l.names[0], "early");
    assert_string_equal(l.names[1], "zero");
    assert_string_equal(l.names[2], "late");
    assert_string_equal(l.names[3], "q");
    assert_int_equal(l.t[0].dims, 0);
    assert_int_equal(l.t[0].dtype, DTYPE_F32);
    assert_int_equal(l.t[1].bytes, 0);
    assert_int_equal(l.t[2].dtype, DTYPE_BF16);
    assert_int_equal(l.t[2].offset, 8 + len + 4);
    assert_int_equal(l.t[2].shape[1], 3);
    assert_null(l.t[2].other_dtype);
    assert_string_equal(l.t[3].other_dtype, "F8_E4M3");
}

static enum status stop(const struct tensor_entry *t, void *arg, struct error *err)
{
    ++*(int *)arg;
    return error_set(err, ERR_CANCELLED, "at %s", t->name);
}

static void header_stops_where_the_caller_fails(void **state)
{
    (void)state;
    static const char header[] = "{" TENSOR("a", "F32", "[1]", 0, 4) "," TENSOR("b", "F32", "[1]",
                                                                                4, 8) "}";
    int calls = 0;
    struct error err;
    assert_int_equal(
        safetensors_parse_header("h", header, sizeof header - 1, 8, stop, &calls, &err),
        ERR_CANCELLED);
    assert_string_equal(err.msg, "at a");
    assert_int_equal(calls, 1);
}

static void long_name_leaves_room_for_expected_and_found(void **state)
{
    (void)state;
    struct buf b;
    struct error err;
    buf_init(&b, 1 << 20);
    buf_puts(&b, "{\"", &err);
    for (int i = 0; i < 300; i++)
        buf_puts(&b, "\xc3\xa9", &err); /* two bytes: a cut must not fall between them */
    buf_puts(&b, "\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", &err);
    SAYS(safetensors_parse_header("m", b.data, b.len, 8, NULL, NULL, &err), ERR_INVALID, &err,
         "tensor \xc3\xa9", "\xc3\xa9...: bytes: expected 4", "found 8");
    buf_fini(&b);
}

static void header_of_40000_tensors_is_quick(void **state)
{
    (void)state;
    enum { TENSORS = 40000 };
    struct buf b;
    struct error err;
    buf_init(&b, 100 << 20);
    buf_puts(&b, "{\"__metadata__\":{\"format\":\"pt\"}", &err);
    for (int i = 0; i < TENSORS; i++)
        buf_printf(&b, &err,
                   ",\"model.layers.%d.mlp.experts.%d.gate_proj.weight\":{\"dtype\":\"BF16\","
                   "\"shape\":[1536,4096],\"data_offsets\":[%lld,%lld]}",
                   i / 384, i % 384, i * 12582912LL, (i + 1) * 12582912LL);
    buf_puts(&b, "}", &err);
    int64_t start = clock_now_ns();
    assert_int_equal(
        safetensors_parse_header("h", b.data, b.len, TENSORS * 12582912ULL, NULL, NULL, &err), OK);
    double seconds = (double)(clock_now_ns() - start) / 1e9;
    printf("header of %d tensors, %zu bytes: %.3f s\n", TENSORS, b.len, seconds);
    assert_true(seconds < 5); /* about 0.1 without a sanitizer; the bound only catches squares */
    buf_fini(&b);
}

static const char two[] = "{" TENSOR("b", "F32", "[2, 1]", 4, 12) "," TENSOR("a", "F16", "[2]", 0,
                                                                             4) "}";
static const char one[] = "{" TENSOR("c", "BF16", "[3]", 0, 6) "}";

static void opens_a_single_file(void **state)
{
    (void)state;
    struct folder f = folder_make();
    folder_safetensors(&f, "model.safetensors", two, 12);
    struct checkpoint *ck = NULL;
    struct error err;
    assert_int_equal(checkpoint_open(f.path, &ck, &err), OK);
    assert_int_equal(checkpoint_file_count(ck), 1);
    assert_string_equal(checkpoint_file_name(ck, 0), "model.safetensors");
    assert_int_equal(checkpoint_file_bytes(ck, 0), 8 + sizeof two - 1 + 12);
    size_t count;
    const struct tensor_entry *all = checkpoint_tensors(ck, &count);
    assert_int_equal(count, 2);
    assert_string_equal(all[0].name, "a");
    assert_null(checkpoint_find(ck, "c"));
    const struct tensor_entry *b = checkpoint_find(ck, "b");
    assert_ptr_equal(b, &all[1]);
    unsigned char bytes[8];
    assert_int_equal(checkpoint_read(ck, b->file, b->offset, bytes, b->bytes, &err), OK);
    for (int i = 0; i < 8; i++)
        assert_int_equal(bytes[i], 4 + i);
    checkpoint_close(ck);
    folder_remove(&f);
}

static void write_shards(const struct folder *f)
{
    folder_safetensors(f, "model-2.safetensors", two, 12);
    folder_safetensors(f, "model-1.safetensors", one, 6);
}

#define INDEX(entries) "{\"metadata\":{\"total_size\":18},\"weight_map\":{" entries "}}"
#define AB "\"a\":\"model-2.safetensors\",\"b\":\"model-2.safetensors\""

/* Opens the two shards under this index. */
static enum status open_indexed(const char *index, struct error *err)
{
    struct folder f = folder_make();
    struct checkpoint *ck = NULL;
    write_shards(&f);
    folder_puts(&f, "model.safetensors.index.json", index);
    enum status st = checkpoint_open(f.path, &ck, err);
    assert_true((st == OK) == (ck != NULL));
    checkpoint_close(ck);
    folder_remove(&f);
    return st;
}

static void opens_shards_in_order_of_their_names(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct checkpoint *ck = NULL;
    struct error err;
    write_shards(&f);
    folder_puts(&f, "model.safetensors.index.json", INDEX(AB ",\"c\":\"model-1.safetensors\""));
    assert_int_equal(checkpoint_open(f.path, &ck, &err), OK);
    assert_int_equal(checkpoint_file_count(ck), 2);
    assert_string_equal(checkpoint_file_name(ck, 0), "model-1.safetensors");
    assert_int_equal(checkpoint_find(ck, "c")->file, 0);
    assert_int_equal(checkpoint_find(ck, "b")->file, 1);
    checkpoint_close(ck);

    folder_safetensors(&f, "model.safetensors", one, 6);
    assert_int_equal(checkpoint_open(f.path, &ck, &err), OK); /* the single file comes first */
    assert_int_equal(checkpoint_file_count(ck), 1);
    assert_null(checkpoint_find(ck, "a"));
    checkpoint_close(ck);
    folder_remove(&f);
}

static void shard_missing(void **state)
{
    (void)state;
    struct error err;
    SAYS(open_indexed(INDEX(AB ",\"c\":\"model-9.safetensors\""), &err), ERR_NOT_FOUND, &err,
         "/model-9.safetensors: No such file");
}

static void index_names_a_tensor_that_the_shard_lacks(void **state)
{
    (void)state;
    struct error err;
    SAYS(open_indexed(INDEX(AB ",\"c\":\"model-1.safetensors\",\"d\":\"model-1.safetensors\""),
                      &err),
         ERR_INVALID, &err, "index.json", "tensor d", "expected in model-1.safetensors",
         "found in no file");
}

static void index_names_another_shard(void **state)
{
    (void)state;
    struct error err;
    SAYS(open_indexed(INDEX(AB ",\"c\":\"model-2.safetensors\""), &err), ERR_INVALID, &err,
         "index.json", "tensor c", "expected in model-2.safetensors", "found in no file");
    SAYS(open_indexed(INDEX("\"a\":\"model-1.safetensors\",\"b\":\"model-2.safetensors\","
                            "\"c\":\"model-1.safetensors\""),
                      &err),
         ERR_INVALID, &err, "tensor a", "expected in model-1.safetensors",
         "found in model-2.safetensors");
}

static void shard_holds_a_tensor_outside_the_index(void **state)
{
    (void)state;
    struct error err;
    SAYS(open_indexed(INDEX("\"a\":\"model-2.safetensors\",\"c\":\"model-1.safetensors\""), &err),
         ERR_INVALID, &err, "model-2.safetensors: tensor b",
         "expected in model.safetensors.index.json", "found in model-2.safetensors alone");
}

static void two_shards_hold_the_same_tensor(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct checkpoint *ck = NULL;
    struct error err;
    folder_safetensors(&f, "x.safetensors", one, 6);
    folder_safetensors(&f, "y.safetensors", one, 6);
    folder_puts(&f, "model.safetensors.index.json",
                INDEX("\"c\":\"y.safetensors\",\"z\":\"x.safetensors\""));
    SAYS(checkpoint_open(f.path, &ck, &err), ERR_INVALID, &err, "tensor c", "expected in one file",
         "found in x.safetensors and y.safetensors");
    folder_remove(&f);
}

static void index_names_a_path(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "/etc/passwd", "../m.safetensors", "a/b", "..", ".", "", ".hidden", "a..b", "x\\ny"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char index[256];
        struct error err;
        snprintf(index, sizeof index, "{\"weight_map\":{\"a\":\"%s\"}}", bad[i]);
        SAYS(open_indexed(index, &err), ERR_INVALID, &err, "index.json: weight_map: tensor a",
             "expected the plain name of a file", "found \"");
    }
}

static void index_of_too_many_files(void **state)
{
    (void)state;
    struct buf b;
    struct error err;
    buf_init(&b, 1 << 20);
    buf_puts(&b, "{\"weight_map\":{\"t\":\"s\"", &err);
    for (int i = 0; i < CHECKPOINT_MAX_FILES; i++)
        buf_printf(&b, &err, ",\"t%d\":\"s%d\"", i, i);
    buf_puts(&b, "}}", &err);
    SAYS(open_indexed(b.data, &err), ERR_LIMIT, &err, "weight_map", "at most 1000 files");
    buf_fini(&b);
}

static void index_that_is_malformed(void **state)
{
    (void)state;
    struct error err;
    SAYS(open_indexed("{", &err), ERR_INVALID, &err, "index.json: line 1");
    SAYS(open_indexed("[]", &err), ERR_INVALID, &err, "weight_map", "an object", "found nothing");
    SAYS(open_indexed("{\"weight_map\":3}", &err), ERR_INVALID, &err, "weight_map",
         "expected an object", "found an integer");
    SAYS(open_indexed(INDEX("\"a\":7"), &err), ERR_INVALID, &err, "tensor a", "expected a string",
         "found an integer");
    SAYS(open_indexed(INDEX(""), &err), ERR_INVALID, &err, "expected tensors", "found none");
}

static void folder_without_a_model(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct checkpoint *ck = NULL;
    struct error err;
    SAYS(checkpoint_open(f.path, &ck, &err), ERR_NOT_FOUND, &err, f.path, "model.safetensors",
         "found neither");
    folder_remove(&f);
    SAYS(checkpoint_open(f.path, &ck, &err), ERR_NOT_FOUND, &err, f.path, "found neither");
}

/* Opens a folder whose model.safetensors is these bytes. */
static enum status open_bytes(const void *data, size_t len, struct error *err)
{
    struct folder f = folder_make();
    struct checkpoint *ck = NULL;
    folder_write(&f, "model.safetensors", data, len);
    enum status st = checkpoint_open(f.path, &ck, err);
    checkpoint_close(ck);
    folder_remove(&f);
    return st;
}

static void file_cut_at_every_byte(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct error err;
    unsigned char whole[256];
    folder_safetensors(&f, "x", two, 12);
    FILE *in = fopen(folder_path(&f, "x"), "rb");
    size_t len = fread(whole, 1, sizeof whole, in);
    fclose(in);
    folder_remove(&f);
    assert_int_equal(open_bytes(whole, len, &err), OK);
    for (size_t n = 0; n < len; n++)
        SAYS(open_bytes(whole, n, &err), ERR_INVALID, &err, "/model.safetensors: ", "expected",
             "found");
}

static void header_length_beyond_the_file(void **state)
{
    (void)state;
    struct error err;
    SAYS(open_bytes("\x03\0\0\0\0\0\0\0{}", 10, &err), ERR_INVALID, &err, "header length",
         "at most 2 (the file's bytes after it)", "found 3");
    SAYS(open_bytes("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, &err), ERR_INVALID, &err,
         "header length", "found 18446744073709551615");
    SAYS(open_bytes("12345", 5, &err), ERR_INVALID, &err, "at least 8 bytes", "found 5");
}

static void header_length_beyond_the_limit(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct checkpoint *ck = NULL;
    struct error err;
    folder_write(&f, "model.safetensors", "\x01\xe1\xf5\x05\0\0\0\0{", 9); /* 100,000,001 */
    assert_int_equal(truncate(folder_path(&f, "model.safetensors"), 200000000), 0);
    SAYS(checkpoint_open(f.path, &ck, &err), ERR_INVALID, &err, "header length",
         "at most 100000000 (the format's limit)", "found 100000001");
    folder_remove(&f);
}

static void require_demands_shape_and_dtype(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct checkpoint *ck = NULL;
    struct error err;
    const struct tensor_entry *t = NULL;
    folder_safetensors(
        &f, "model.safetensors",
        "{" TENSOR("a", "F16", "[2, 3]", 0, 12) "," TENSOR("q", "F8_E4M3", "[4]", 12, 16) "}", 16);
    assert_int_equal(checkpoint_open(f.path, &ck, &err), OK);
    assert_int_equal(checkpoint_require(ck, "a", 2, (int64_t[]){2, 3}, &t, &err), OK);
    assert_ptr_equal(t, checkpoint_find(ck, "a"));
    SAYS(checkpoint_require(ck, "a", 2, (int64_t[]){3, 2}, &t, &err), ERR_INVALID, &err,
         "/model.safetensors: tensor a", "expected [3, 2]", "found [2, 3]");
    SAYS(checkpoint_require(ck, "a", 1, (int64_t[]){2}, &t, &err), ERR_INVALID, &err, "tensor a",
         "expected [2]", "found [2, 3]");
    SAYS(checkpoint_require(ck, "b", 1, (int64_t[]){2}, &t, &err), ERR_INVALID, &err, "tensor b",
         "expected shape [2]", "found no such tensor");
    SAYS(checkpoint_require(ck, "q", 1, (int64_t[]){4}, &t, &err), ERR_UNSUPPORTED, &err,
         "tensor q", "expected BF16, F16 or F32", "found F8_E4M3");
    checkpoint_close(ck);
    folder_remove(&f);
}

static void file_that_shrinks_after_opening(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct checkpoint *ck = NULL;
    struct error err;
    folder_safetensors(&f, "model.safetensors", one, 6);
    assert_int_equal(checkpoint_open(f.path, &ck, &err), OK);
    const struct tensor_entry *t = checkpoint_find(ck, "c");
    assert_int_equal(truncate(folder_path(&f, "model.safetensors"), (off_t)t->offset + 2), 0);
    char bytes[6];
    char expected[64], found[64];
    snprintf(expected, sizeof expected, "expected bytes up to %d", (int)t->offset + 6);
    snprintf(found, sizeof found, "found the end at %d", (int)t->offset + 2);
    SAYS(checkpoint_read(ck, 0, t->offset, bytes, 6, &err), ERR_IO, &err, "model.safetensors",
         expected, found);
    checkpoint_close(ck);
    folder_remove(&f);
}

static void dtypes_have_names_and_sizes(void **state)
{
    (void)state;
    assert_int_equal(dtype_size(DTYPE_F32), 4);
    assert_int_equal(dtype_size(DTYPE_F16), 2);
    assert_int_equal(dtype_size(DTYPE_BF16), 2);
    assert_string_equal(dtype_name(DTYPE_F32), "F32");
    assert_string_equal(dtype_name(DTYPE_F16), "F16");
    assert_string_equal(dtype_name(DTYPE_BF16), "BF16");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(overlapping_tensors),
    cmocka_unit_test(hole_between_tensors),
    cmocka_unit_test(hole_before_the_first_tensor),
    cmocka_unit_test(data_beyond_the_last_tensor),
    cmocka_unit_test(data_without_tensors),
    cmocka_unit_test(data_cut_short),
    cmocka_unit_test(negative_dimension),
    cmocka_unit_test(shape_that_overflows),
    cmocka_unit_test(bytes_that_overflow),
    cmocka_unit_test(dimension_beyond_int64),
    cmocka_unit_test(bytes_unlike_the_shape),
    cmocka_unit_test(half_a_byte),
    cmocka_unit_test(offsets_reversed),
    cmocka_unit_test(offsets_negative),
    cmocka_unit_test(offsets_at_the_end_of_int64),
    cmocka_unit_test(duplicate_names),
    cmocka_unit_test(five_dimensions),
    cmocka_unit_test(dtype_outside_the_format),
    cmocka_unit_test(dtype_of_wrong_type),
    cmocka_unit_test(shape_of_wrong_type),
    cmocka_unit_test(dimension_of_wrong_type),
    cmocka_unit_test(offsets_missing),
    cmocka_unit_test(offsets_of_three),
    cmocka_unit_test(offset_of_wrong_type),
    cmocka_unit_test(tensor_that_is_no_object),
    cmocka_unit_test(metadata_that_is_no_object),
    cmocka_unit_test(metadata_that_is_no_string),
    cmocka_unit_test(empty_name),
    cmocka_unit_test(newline_in_a_name),
    cmocka_unit_test(nul_in_a_name),
    cmocka_unit_test(bytes_that_are_not_utf8),
    cmocka_unit_test(header_of_another_type),
    cmocka_unit_test(header_of_no_bytes),
    cmocka_unit_test(header_with_a_nul_after_it),
    cmocka_unit_test(header_cut_short),
    cmocka_unit_test(header_nested_too_deep),
    cmocka_unit_test(regression_newline_in_quoted_json),
    cmocka_unit_test(header_lists_tensors_by_offset),
    cmocka_unit_test(header_stops_where_the_caller_fails),
    cmocka_unit_test(long_name_leaves_room_for_expected_and_found),
    cmocka_unit_test(header_of_40000_tensors_is_quick),
    cmocka_unit_test(opens_a_single_file),
    cmocka_unit_test(opens_shards_in_order_of_their_names),
    cmocka_unit_test(shard_missing),
    cmocka_unit_test(index_names_a_tensor_that_the_shard_lacks),
    cmocka_unit_test(index_names_another_shard),
    cmocka_unit_test(shard_holds_a_tensor_outside_the_index),
    cmocka_unit_test(two_shards_hold_the_same_tensor),
    cmocka_unit_test(index_names_a_path),
    cmocka_unit_test(index_of_too_many_files),
    cmocka_unit_test(index_that_is_malformed),
    cmocka_unit_test(folder_without_a_model),
    cmocka_unit_test(file_cut_at_every_byte),
    cmocka_unit_test(header_length_beyond_the_file),
    cmocka_unit_test(header_length_beyond_the_limit),
    cmocka_unit_test(require_demands_shape_and_dtype),
    cmocka_unit_test(file_that_shrinks_after_opening),
    cmocka_unit_test(dtypes_have_names_and_sizes),
};

UNIT_MAIN(tests)
