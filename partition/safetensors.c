/*
 * Proving a safetensors header: see checkpoint.h. Pure, but for the JSON tree that it frees.
 *
 * Format: huggingface/safetensors, README "Format" and safetensors/src/tensor.rs: the header begins
 * with '{', may end in spaces, `__metadata__` maps strings to strings, and the tensors' bytes fill
 * the data without hole or overlap.
 */
#include "base/check.h"
#include "base/json.h"
#include "partition/checkpoint.h"
#include "partition/shown.h"

#include <stdlib.h>
#include <string.h>

/* Real names have about 60 bytes. */
enum { MAX_NAME_BYTES = 1024 };

struct dtype_row {
    const char *name;
    unsigned bits;
    bool read; /* this build computes with it: `dtype` says which it is */
    enum dtype dtype;
};

static const struct dtype_row dtypes[] = {
    {"BF16", 16, true, DTYPE_BF16},     {"F16", 16, true, DTYPE_F16},
    {"F32", 32, true, DTYPE_F32},       {.name = "F64", .bits = 64},
    {.name = "F8_E4M3", .bits = 8},     {.name = "F8_E5M2", .bits = 8},
    {.name = "F8_E8M0", .bits = 8},     {.name = "F8_E4M3FNUZ", .bits = 8},
    {.name = "F8_E5M2FNUZ", .bits = 8}, {.name = "F6_E2M3", .bits = 6},
    {.name = "F6_E3M2", .bits = 6},     {.name = "F4", .bits = 4},
    {.name = "C64", .bits = 64},        {.name = "I64", .bits = 64},
    {.name = "U64", .bits = 64},        {.name = "I32", .bits = 32},
    {.name = "U32", .bits = 32},        {.name = "I16", .bits = 16},
    {.name = "U16", .bits = 16},        {.name = "I8", .bits = 8},
    {.name = "U8", .bits = 8},          {.name = "BOOL", .bits = 8},
};

static const struct dtype_row *row_of(enum dtype t)
{
    for (size_t i = 0; i < COUNT_OF(dtypes); i++)
        if (dtypes[i].read && dtypes[i].dtype == t)
            return &dtypes[i];
    CHECK(false, "dtype %d", (int)t);
}

size_t dtype_size(enum dtype t)
{
    return row_of(t)->bits / 8;
}

const char *dtype_name(enum dtype t)
{
    return row_of(t)->name;
}

/* What messages start with: the source and, once known, the tensor. */
struct place {
    const char *what;
    const char *tensor;
};

static enum status parse_dtype(struct place at, const json_t *info, const struct dtype_row **out,
                               struct tensor_entry *t, struct error *err)
{
    const json_t *v = json_object_get(info, "dtype");
    if (!json_is_string(v))
        return error_set(err, ERR_INVALID, "%s: tensor %s: dtype: expected a string, found %s",
                         at.what, shown(at.tensor).s, json_type_words(v));
    const char *name = json_string_value(v);
    for (size_t i = 0; i < COUNT_OF(dtypes); i++) {
        if (strcmp(dtypes[i].name, name) != 0)
            continue;
        t->dtype = dtypes[i].dtype;
        t->other_dtype = dtypes[i].read ? NULL : dtypes[i].name;
        *out = &dtypes[i];
        return OK;
    }
    return error_set(err, ERR_UNSUPPORTED,
                     "%s: tensor %s: dtype: expected BF16, F16, F32 or another of the format, "
                     "found %s",
                     at.what, shown(at.tensor).s, shown(name).s);
}

/* Fills dims and shape; *elements is their product. */
static enum status parse_shape(struct place at, const json_t *info, struct tensor_entry *t,
                               uint64_t *elements, struct error *err)
{
    const json_t *v = json_object_get(info, "shape");
    if (!json_is_array(v))
        return error_set(err, ERR_INVALID, "%s: tensor %s: shape: expected an array, found %s",
                         at.what, shown(at.tensor).s, json_type_words(v));
    size_t dims = json_array_size(v);
    if (dims > TENSOR_MAX_DIMS)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: tensor %s: shape: expected at most %d dimensions, found %zu", at.what,
                         shown(at.tensor).s, TENSOR_MAX_DIMS, dims);
    uint64_t product = 1;
    for (size_t i = 0; i < dims; i++) {
        const json_t *d = json_array_get(v, i);
        if (!json_is_integer(d))
            return error_set(err, ERR_INVALID,
                             "%s: tensor %s: shape[%zu]: expected an integer, found %s", at.what,
                             shown(at.tensor).s, i, json_type_words(d));
        int64_t x = json_integer_value(d);
        if (x < 0)
            return error_set(err, ERR_INVALID,
                             "%s: tensor %s: shape[%zu]: expected 0 or more, found %lld", at.what,
                             shown(at.tensor).s, i, (long long)x);
        if (__builtin_mul_overflow(product, (uint64_t)x, &product))
            return error_set(err, ERR_INVALID,
                             "%s: tensor %s: shape: expected fewer than 2^64 elements, found more "
                             "at shape[%zu] = %lld",
                             at.what, shown(at.tensor).s, i, (long long)x);
        t->shape[i] = x;
    }
    t->dims = (int)dims;
    *elements = product;
    return OK;
}

/* data_offsets [begin, end): offset and bytes, not yet held against the data or other tensors. */
static enum status parse_offsets(struct place at, const json_t *info, struct tensor_entry *t,
                                 struct error *err)
{
    const json_t *v = json_object_get(info, "data_offsets");
    if (!json_is_array(v))
        return error_set(err, ERR_INVALID,
                         "%s: tensor %s: data_offsets: expected an array, found %s", at.what,
                         shown(at.tensor).s, json_type_words(v));
    if (json_array_size(v) != 2)
        return error_set(err, ERR_INVALID,
                         "%s: tensor %s: data_offsets: expected 2 numbers, found %zu", at.what,
                         shown(at.tensor).s, json_array_size(v));
    int64_t x[2];
    for (size_t i = 0; i < 2; i++) {
        const json_t *n = json_array_get(v, i);
        if (!json_is_integer(n))
            return error_set(err, ERR_INVALID,
                             "%s: tensor %s: data_offsets[%zu]: expected an integer, found %s",
                             at.what, shown(at.tensor).s, i, json_type_words(n));
        x[i] = json_integer_value(n);
    }
    if (x[0] < 0 || x[1] < x[0])
        return error_set(err, ERR_INVALID,
                         "%s: tensor %s: data_offsets: expected 0 <= begin <= end, "
                         "found [%lld, %lld]",
                         at.what, shown(at.tensor).s, (long long)x[0], (long long)x[1]);
    t->offset = (uint64_t)x[0];
    t->bytes = (uint64_t)(x[1] - x[0]);
    return OK;
}

static enum status check_name(const char *what, const char *name, struct error *err)
{
    size_t len = strlen(name);
    if (len == 0 || len > MAX_NAME_BYTES)
        return error_set(err, ERR_INVALID, "%s: tensor %s: name: expected 1 to %d bytes, found %zu",
                         what, shown(name).s, MAX_NAME_BYTES, len);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return error_set(err, ERR_INVALID,
                             "%s: tensor %s: name: expected no control characters, found 0x%02x at "
                             "byte %zu",
                             what, shown(name).s, (unsigned)(unsigned char)name[i], i);
    return OK;
}

static enum status parse_tensor(const char *what, const char *name, const json_t *info,
                                struct tensor_entry *t, struct error *err)
{
    struct place at = {what, name};
    const struct dtype_row *dtype = NULL;
    uint64_t elements = 0;
    *t = (struct tensor_entry){.name = name};
    TRY(check_name(what, name, err));
    if (!json_is_object(info))
        return error_set(err, ERR_INVALID, "%s: tensor %s: expected an object, found %s", what,
                         shown(name).s, json_type_words(info));
    TRY(parse_dtype(at, info, &dtype, t, err));
    TRY(parse_shape(at, info, t, &elements, err));
    TRY(parse_offsets(at, info, t, err));

    uint64_t bits;
    if (__builtin_mul_overflow(elements, (uint64_t)dtype->bits, &bits))
        return error_set(err, ERR_INVALID,
                         "%s: tensor %s: bytes: expected %llu from data_offsets, found shape times "
                         "%s over 2^64 bits",
                         what, shown(name).s, (unsigned long long)t->bytes, dtype->name);
    if (bits % 8 != 0 || bits / 8 != t->bytes)
        return error_set(err, ERR_INVALID,
                         "%s: tensor %s: bytes: expected %llu%s from shape times %s, found %llu "
                         "from data_offsets",
                         what, shown(name).s, (unsigned long long)(bits / 8),
                         bits % 8 ? " and a fraction" : "", dtype->name,
                         (unsigned long long)t->bytes);
    return OK;
}

static enum status check_metadata(const char *what, json_t *meta, struct error *err)
{
    if (!json_is_object(meta))
        return error_set(err, ERR_INVALID, "%s: __metadata__: expected an object, found %s", what,
                         json_type_words(meta));
    const char *key;
    json_t *v;
    json_object_foreach(meta, key, v) if (!json_is_string(v)) return error_set(
        err, ERR_INVALID, "%s: __metadata__: %s: expected a string, found %s", what, shown(key).s,
        json_type_words(v));
    return OK;
}

static int by_offset(const void *a, const void *b)
{
    const struct tensor_entry *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Tensors sorted by_offset, offsets still from the data's first byte. */
static enum status prove_layout(const char *what, const struct tensor_entry *t, size_t count,
                                uint64_t data_bytes, struct error *err)
{
    uint64_t end = 0;
    for (size_t i = 0; i < count; i++) {
        if (t[i].offset + t[i].bytes > data_bytes)
            return error_set(err, ERR_INVALID,
                             "%s: tensor %s: data_offsets: expected an end within the file's %llu "
                             "bytes of data, found %llu",
                             what, shown(t[i].name).s, (unsigned long long)data_bytes,
                             (unsigned long long)(t[i].offset + t[i].bytes));
        if (t[i].offset != end)
            return error_set(err, ERR_INVALID,
                             "%s: tensor %s: data_offsets: expected to begin at %llu, where the "
                             "tensor before ends, found %llu (%s)",
                             what, shown(t[i].name).s, (unsigned long long)end,
                             (unsigned long long)t[i].offset,
                             t[i].offset < end ? "an overlap" : "a hole");
        end += t[i].bytes;
    }
    if (end != data_bytes)
        return error_set(err, ERR_INVALID,
                         "%s: data: expected %llu bytes, where the last tensor (%s) ends, found "
                         "%llu",
                         what, (unsigned long long)end, count ? shown(t[count - 1].name).s : "none",
                         (unsigned long long)data_bytes);
    return OK;
}

static enum status parse_tensors(const char *what, json_t *root, struct tensor_entry *tensors,
                                 size_t *count, struct error *err)
{
    const char *name;
    json_t *info;
    size_t n = 0;
    json_object_foreach(root, name, info)
    {
        if (strcmp(name, "__metadata__") == 0)
            TRY(check_metadata(what, info, err));
        else
            TRY(parse_tensor(what, name, info, &tensors[n++], err));
    }
    *count = n;
    return OK;
}

static enum status
parse_header(const char *what, const char *header, size_t len, uint64_t data_bytes,
             enum status (*each)(const struct tensor_entry *t, void *arg, struct error *err),
             void *arg, struct error *err)
{
    if (len == 0 || header[0] != '{')
        return error_set(err, ERR_INVALID, "%s: header: expected '{' first, found %s%.2x", what,
                         len ? "byte 0x" : "nothing, length ",
                         len ? (unsigned)(unsigned char)header[0] : 0U);
    json_t *root = NULL;
    TRY(json_parse(what, header, len, &root, err));

    enum status st = OK;
    size_t count = json_object_size(root);
    struct tensor_entry *tensors = calloc(count + 1, sizeof *tensors);
    if (!tensors) {
        st = error_set(err, ERR_NO_MEMORY, "%s: no memory for %zu tensors", what, count);
        goto out;
    }
    TRY_OUT(st, parse_tensors(what, root, tensors, &count, err));
    qsort(tensors, count, sizeof *tensors, by_offset);
    TRY_OUT(st, prove_layout(what, tensors, count, data_bytes, err));
    for (size_t i = 0; each && i < count; i++) {
        tensors[i].offset += 8 + len;
        TRY_OUT(st, each(&tensors[i], arg, err));
    }
out:
    free(tensors);
    json_decref(root);
    return st;
}

enum status safetensors_parse_header(const char *what, const char *header, size_t len,
                                     uint64_t data_bytes,
                                     enum status (*each)(const struct tensor_entry *t, void *arg,
                                                         struct error *err),
                                     void *arg, struct error *err)
{
    enum status st = parse_header(what, header, len, data_bytes, each, arg, err);
    return st == ERR_INVALID ? error_advise(err, st, "fetch the file again") : st;
}
