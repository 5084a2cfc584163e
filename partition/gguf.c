/* GGUF: see gguf.h. A `struct gguf` owns its tables and strings. */
#include "partition/gguf.h"
#include "base/check.h"
#include "partition/quant.h"
#include "partition/shown.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_KEY = 65535, /* the format's own */
    MAX_KEPT = 255,  /* of a string value */
    MAX_NAME = 127,  /* of a tensor; the format says 64 */
    MAX_ALIGNMENT = 1 << 20,
    WINDOW = 1 << 14,
};

enum value_type {
    TYPE_U8,
    TYPE_I8,
    TYPE_U16,
    TYPE_I16,
    TYPE_U32,
    TYPE_I32,
    TYPE_F32,
    TYPE_BOOL,
    TYPE_STRING,
    TYPE_ARRAY,
    TYPE_U64,
    TYPE_I64,
    TYPE_F64,
    TYPE_COUNT,
};

/* Bytes of a value; 0 where it says itself. */
static const uint8_t type_bytes[TYPE_COUNT] = {
    [TYPE_U8] = 1,  [TYPE_I8] = 1,   [TYPE_U16] = 2, [TYPE_I16] = 2, [TYPE_U32] = 4, [TYPE_I32] = 4,
    [TYPE_F32] = 4, [TYPE_BOOL] = 1, [TYPE_U64] = 8, [TYPE_I64] = 8, [TYPE_F64] = 8,
};

static const char *const type_words[TYPE_COUNT] = {
    [TYPE_U8] = "an integer",  [TYPE_I8] = "an integer",  [TYPE_U16] = "an integer",
    [TYPE_I16] = "an integer", [TYPE_U32] = "an integer", [TYPE_I32] = "an integer",
    [TYPE_F32] = "a number",   [TYPE_BOOL] = "a boolean", [TYPE_STRING] = "a string",
    [TYPE_ARRAY] = "an array", [TYPE_U64] = "an integer", [TYPE_I64] = "an integer",
    [TYPE_F64] = "a number",
};

struct entry {
    char *key;
    enum value_type type;
    bool big; /* an unsigned integer beyond int64_t */
    int64_t integer;
    double real;
    char *string;            /* NULL when too long to keep */
    enum value_type of;      /* an array's elements */
    struct gguf_place place; /* of a string or an array */
};

struct gguf {
    struct entry *entries; /* sorted by key once parsed */
    size_t entry_count, entry_cap;
    struct tensor_entry *tensors; /* the same, by name */
    size_t tensor_count, tensor_cap;
};

/* The file as a stream: what lies at `at` next. */
struct reader {
    const char *what;
    const struct gguf_source *source;
    uint64_t at;
    char part[64 + SHOWN_BYTES]; /* what is being read, for messages */
    uint64_t window_at;
    size_t window_bytes;
    uint8_t window[WINDOW];
};

static enum status refuse_short(const struct reader *r, uint64_t bytes, struct error *err)
{
    return error_set(err, ERR_INVALID,
                     "%s: %s: expected %llu bytes at %llu, found the end of the file at %llu",
                     r->what, r->part, (unsigned long long)bytes, (unsigned long long)r->at,
                     (unsigned long long)r->source->size);
}

static enum status no_memory(const struct reader *r, struct error *err)
{
    return error_set(err, ERR_NO_MEMORY, "%s: no memory for its header", r->what);
}

static enum status take(struct reader *r, void *to, size_t bytes, struct error *err)
{
    if (bytes > r->source->size - r->at)
        return refuse_short(r, bytes, err);
    for (char *out = to; bytes > 0;) {
        uint64_t skip = r->at - r->window_at;
        if (r->at < r->window_at || skip >= r->window_bytes) {
            uint64_t left = r->source->size - r->at;
            r->window_bytes = left < WINDOW ? (size_t)left : WINDOW;
            r->window_at = r->at;
            skip = 0;
            TRY(r->source->read(r->source->arg, r->at, r->window, r->window_bytes, err));
        }
        size_t n = r->window_bytes - (size_t)skip;
        n = n < bytes ? n : bytes;
        memcpy(out, r->window + skip, n);
        out += n;
        r->at += n;
        bytes -= n;
    }
    return OK;
}

static enum status pass_over(struct reader *r, uint64_t bytes, struct error *err)
{
    if (bytes > r->source->size - r->at)
        return refuse_short(r, bytes, err);
    r->at += bytes;
    return OK;
}

static enum status take_int(struct reader *r, size_t bytes, uint64_t *out, struct error *err)
{
    uint8_t le[8] = {0};
    TRY(take(r, le, bytes, err));
    *out = 0;
    for (size_t i = bytes; i-- > 0;)
        *out = *out << 8 | le[i];
    return OK;
}

/* A name of 1 to `most` bytes without NUL, which the caller frees. */
static enum status take_name(struct reader *r, uint64_t most, char **out, struct error *err)
{
    uint64_t len = 0;
    TRY(take_int(r, 8, &len, err));
    if (len < 1 || len > most)
        return error_set(err, ERR_INVALID, "%s: %s: name: expected 1 to %llu bytes, found %llu",
                         r->what, r->part, (unsigned long long)most, (unsigned long long)len);
    char *s = malloc((size_t)len + 1);
    if (!s)
        return no_memory(r, err);
    enum status st = take(r, s, (size_t)len, err);
    s[len] = '\0';
    if (st == OK && strlen(s) != len)
        st = error_set(err, ERR_INVALID, "%s: %s: name: expected no NUL byte, found one", r->what,
                       r->part);
    if (st != OK) {
        free(s);
        return st;
    }
    *out = s;
    return OK;
}

/* The array with room for one more after `count`, moved if need be; NULL without memory. */
static void *grown(void *array, size_t count, size_t *cap, size_t size)
{
    if (count < *cap)
        return array;
    size_t n = *cap ? 2 * *cap : 256;
    void *p = realloc(array, n * size);
    if (p)
        *cap = n;
    return p;
}

/* --- metadata ----------------------------------------------------------------------------------
 */

static enum status take_type(struct reader *r, enum value_type *out, struct error *err)
{
    uint64_t type = 0;
    TRY(take_int(r, 4, &type, err));
    if (type >= TYPE_COUNT)
        return error_set(err, ERR_INVALID, "%s: %s: type: expected 0 to %d, found %llu", r->what,
                         r->part, TYPE_COUNT - 1, (unsigned long long)type);
    *out = (enum value_type)type;
    return OK;
}

static enum status take_string(struct reader *r, struct entry *e, struct error *err)
{
    uint64_t len = 0;
    TRY(take_int(r, 8, &len, err));
    e->place = (struct gguf_place){r->at, len, len};
    if (len > MAX_KEPT)
        return pass_over(r, len, err);
    e->string = malloc((size_t)len + 1);
    if (!e->string)
        return no_memory(r, err);
    e->string[len] = '\0';
    return take(r, e->string, (size_t)len, err);
}

/* Goes over `count` strings. */
static enum status pass_strings(struct reader *r, uint64_t count, struct error *err)
{
    uint64_t len = 0;
    for (uint64_t i = 0; i < count; i++) {
        TRY(take_int(r, 8, &len, err));
        TRY(pass_over(r, len, err));
    }
    return OK;
}

/* Proves that an array lies within the file, and goes past it. */
static enum status pass_array(struct reader *r, struct entry *e, struct error *err)
{
    enum value_type type = TYPE_U8;
    uint64_t count = 0;
    TRY(take_type(r, &type, err));
    TRY(take_int(r, 8, &count, err));
    if (type == TYPE_ARRAY)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: %s: expected an array of values, found one of arrays", r->what,
                         r->part);
    uint64_t least = type == TYPE_STRING ? 8 : type_bytes[type];
    if (count > (r->source->size - r->at) / least)
        return error_set(err, ERR_INVALID,
                         "%s: %s: expected an array within the file's %llu bytes, found %llu "
                         "elements",
                         r->what, r->part, (unsigned long long)r->source->size,
                         (unsigned long long)count);
    e->of = type;
    e->place = (struct gguf_place){.offset = r->at, .count = count};
    if (type == TYPE_STRING)
        TRY(pass_strings(r, count, err));
    else
        TRY(pass_over(r, count * least, err));
    e->place.bytes = r->at - e->place.offset;
    return OK;
}

static enum status take_value(struct reader *r, struct entry *e, struct error *err)
{
    uint64_t bits = 0;
    if (e->type == TYPE_STRING)
        return take_string(r, e, err);
    if (e->type == TYPE_ARRAY)
        return pass_array(r, e, err);
    TRY(take_int(r, type_bytes[e->type], &bits, err));
    uint32_t low = (uint32_t)bits;
    float f;
    switch (e->type) {
    case TYPE_F32:
        memcpy(&f, &low, sizeof f);
        e->real = (double)f;
        return OK;
    case TYPE_F64:
        memcpy(&e->real, &bits, sizeof e->real);
        return OK;
    case TYPE_I8:
        e->integer = (int64_t)(bits ^ 0x80) - 0x80;
        return OK;
    case TYPE_I16:
        e->integer = (int64_t)(bits ^ 0x8000) - 0x8000;
        return OK;
    case TYPE_I32:
        e->integer = (int64_t)(bits ^ 0x80000000u) - 0x80000000ll;
        return OK;
    case TYPE_BOOL:
        if (bits > 1)
            return error_set(err, ERR_INVALID, "%s: %s: expected a boolean of 0 or 1, found %llu",
                             r->what, r->part, (unsigned long long)bits);
        break;
    default:
        break;
    }
    e->big = e->type == TYPE_U64 && bits > INT64_MAX;
    e->integer = (int64_t)bits;
    return OK;
}

static enum status take_entry(struct reader *r, struct gguf *g, uint64_t number, struct error *err)
{
    snprintf(r->part, sizeof r->part, "metadata %llu", (unsigned long long)number);
    struct entry *all = grown(g->entries, g->entry_count, &g->entry_cap, sizeof *all);
    if (!all)
        return no_memory(r, err);
    g->entries = all;
    struct entry *e = &all[g->entry_count];
    *e = (struct entry){.key = NULL};
    TRY(take_name(r, MAX_KEY, &e->key, err));
    CHECK(e->key, "%s without a key", r->part);
    g->entry_count++;
    snprintf(r->part, sizeof r->part, "metadata %s", shown(e->key).s);
    TRY(take_type(r, &e->type, err));
    return take_value(r, e, err);
}

static int by_key(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return strcmp(x->key, y->key);
}

static enum status take_entries(struct reader *r, struct gguf *g, uint64_t count, struct error *err)
{
    for (uint64_t i = 0; i < count; i++)
        TRY(take_entry(r, g, i, err));
    if (g->entry_count > 0)
        qsort(g->entries, g->entry_count, sizeof *g->entries, by_key);
    for (size_t i = 1; i < g->entry_count; i++)
        if (strcmp(g->entries[i - 1].key, g->entries[i].key) == 0)
            return error_set(err, ERR_INVALID, "%s: metadata %s: expected once, found twice",
                             r->what, shown(g->entries[i].key).s);
    return OK;
}

/* --- tensors -----------------------------------------------------------------------------------
 */

/* Fills dims, shape and *elements; sizes come columns first and are kept rows first. */
static enum status take_shape(struct reader *r, struct tensor_entry *t, uint64_t *elements,
                              struct error *err)
{
    uint64_t dims = 0, size[TENSOR_MAX_DIMS];
    TRY(take_int(r, 4, &dims, err));
    if (dims < 1 || dims > TENSOR_MAX_DIMS)
        return error_set(err, ERR_INVALID, "%s: %s: expected 1 to %d dimensions, found %llu",
                         r->what, r->part, TENSOR_MAX_DIMS, (unsigned long long)dims);
    t->dims = (int)dims;
    *elements = 1;
    for (uint64_t i = 0; i < dims; i++) {
        TRY(take_int(r, 8, &size[i], err));
        if (size[i] < 1 || size[i] > INT64_MAX ||
            __builtin_mul_overflow(*elements, size[i], elements))
            return error_set(err, ERR_INVALID,
                             "%s: %s: expected sizes of 1 or more and fewer than 2^64 elements, "
                             "found %llu in dimension %llu",
                             r->what, r->part, (unsigned long long)size[i], (unsigned long long)i);
    }
    for (uint64_t i = 0; i < dims; i++)
        t->shape[i] = (int64_t)size[dims - 1 - i];
    return OK;
}

/* What ggml calls a type that is not read here; "" where it has no such type. */
static const char *other_type(uint64_t type)
{
    static const char *const names[] = {
        [3] = "Q4_1",   [6] = "Q5_0",    [7] = "Q5_1",     [9] = "Q8_1",    [10] = "Q2_K",
        [11] = "Q3_K",  [15] = "Q8_K",   [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS",
        [19] = "IQ1_S", [20] = "IQ4_NL", [21] = "IQ3_S",   [22] = "IQ2_S",  [23] = "IQ4_XS",
        [24] = "I8",    [25] = "I16",    [26] = "I32",     [27] = "I64",    [28] = "F64",
        [29] = "IQ1_M", [34] = "TQ1_0",  [35] = "TQ2_0",   [39] = "MXFP4",  [40] = "NVFP4",
        [41] = "Q1_0",
    };
    return type < COUNT_OF(names) && names[type] ? names[type] : "";
}

/* The dtype, or the name of a type that is dequantised; *bytes are those of `elements`. */
static enum status take_ggml_type(struct reader *r, struct tensor_entry *t, uint64_t elements,
                                  struct error *err)
{
    uint64_t type = 0;
    TRY(take_int(r, 4, &type, err));
    const struct ggml_layout *l = ggml_layout((uint32_t)type);
    if (!l)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: %s: expected F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K or Q6_K, found "
                         "%s%sggml type %llu: quantise the model to one of these",
                         r->what, r->part, other_type(type), *other_type(type) ? ", " : "",
                         (unsigned long long)type);
    int64_t columns = t->shape[t->dims - 1];
    if (columns % l->elements != 0)
        return error_set(err, ERR_INVALID,
                         "%s: %s: expected columns in whole %s blocks of %d, found %lld", r->what,
                         r->part, l->name, l->elements, (long long)columns);
    if (__builtin_mul_overflow(elements / (uint64_t)l->elements, (uint64_t)l->bytes, &t->bytes))
        return error_set(err, ERR_INVALID, "%s: %s: expected fewer than 2^64 bytes, found more",
                         r->what, r->part);
    t->other_dtype = NULL;
    if (type == GGML_F32)
        t->dtype = DTYPE_F32;
    else if (type == GGML_F16)
        t->dtype = DTYPE_F16;
    else if (type == GGML_BF16)
        t->dtype = DTYPE_BF16;
    else
        t->other_dtype = l->name;
    return OK;
}

/* One row of the table; `offset` is still that into the data. */
static enum status take_tensor(struct reader *r, struct gguf *g, uint64_t number, struct error *err)
{
    uint64_t elements = 0;
    char *name = NULL;
    snprintf(r->part, sizeof r->part, "tensor %llu", (unsigned long long)number);
    struct tensor_entry *all = grown(g->tensors, g->tensor_count, &g->tensor_cap, sizeof *all);
    if (!all)
        return no_memory(r, err);
    g->tensors = all;
    struct tensor_entry *t = &all[g->tensor_count];
    *t = (struct tensor_entry){.name = NULL};
    TRY(take_name(r, MAX_NAME, &name, err));
    CHECK(name, "%s without a name", r->part);
    t->name = name;
    g->tensor_count++;
    snprintf(r->part, sizeof r->part, "tensor %s", shown(name).s);
    TRY(take_shape(r, t, &elements, err));
    TRY(take_ggml_type(r, t, elements, err));
    return take_int(r, 8, &t->offset, err);
}

static enum status alignment_of(const struct reader *r, const struct gguf *g, uint64_t *out,
                                struct error *err)
{
    int64_t n = 32;
    TRY(gguf_get_int(g, r->what, "general.alignment", false, 8, MAX_ALIGNMENT, &n, err));
    if (n % 8 != 0)
        return error_set(err, ERR_INVALID,
                         "%s: general.alignment: expected a multiple of 8, found %lld", r->what,
                         (long long)n);
    *out = (uint64_t)n;
    return OK;
}

static int by_offset(const void *a, const void *b)
{
    const struct tensor_entry *x = a, *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int by_name(const void *a, const void *b)
{
    const struct tensor_entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* Turns offsets into those of the file; every tensor within it, aligned, and after the one before.
 */
static enum status place_tensors(const struct reader *r, struct gguf *g, struct error *err)
{
    uint64_t align = 32, end = 0;
    TRY(alignment_of(r, g, &align, err));
    uint64_t data = (r->at + align - 1) / align * align, size = r->source->size;
    if (g->tensor_count > 0)
        qsort(g->tensors, g->tensor_count, sizeof *g->tensors, by_offset);
    for (size_t i = 0; i < g->tensor_count; i++) {
        struct tensor_entry *t = &g->tensors[i];
        if (t->offset % align != 0)
            return error_set(err, ERR_INVALID,
                             "%s: tensor %s: expected an offset on a multiple of %llu, found %llu",
                             r->what, shown(t->name).s, (unsigned long long)align,
                             (unsigned long long)t->offset);
        if (data > size || t->offset > size - data || t->bytes > size - data - t->offset)
            return error_set(err, ERR_INVALID,
                             "%s: tensor %s: expected %llu bytes at %llu of the data within the "
                             "file's %llu bytes, found them past its end",
                             r->what, shown(t->name).s, (unsigned long long)t->bytes,
                             (unsigned long long)t->offset, (unsigned long long)size);
        if (t->offset < end)
            return error_set(err, ERR_INVALID,
                             "%s: tensor %s: expected it after tensor %s, which ends at %llu, "
                             "found it at %llu",
                             r->what, shown(t->name).s, shown(g->tensors[i - 1].name).s,
                             (unsigned long long)end, (unsigned long long)t->offset);
        end = t->offset + t->bytes;
        t->offset += data;
    }
    return OK;
}

static enum status take_tensors(struct reader *r, struct gguf *g, uint64_t count, struct error *err)
{
    for (uint64_t i = 0; i < count; i++)
        TRY(take_tensor(r, g, i, err));
    TRY(place_tensors(r, g, err));
    if (g->tensor_count > 0)
        qsort(g->tensors, g->tensor_count, sizeof *g->tensors, by_name);
    for (size_t i = 1; i < g->tensor_count; i++)
        if (strcmp(g->tensors[i - 1].name, g->tensors[i].name) == 0)
            return error_set(err, ERR_INVALID, "%s: tensor %s: expected once, found twice", r->what,
                             shown(g->tensors[i].name).s);
    return OK;
}

/* --- the whole ---------------------------------------------------------------------------------
 */

static enum status take_count(struct reader *r, const char *of, uint64_t *out, struct error *err)
{
    snprintf(r->part, sizeof r->part, "number of %s", of);
    TRY(take_int(r, 8, out, err));
    if (*out > GGUF_MAX_ENTRIES)
        return error_set(err, ERR_LIMIT, "%s: %s: expected at most %d, found %llu", r->what,
                         r->part, GGUF_MAX_ENTRIES, (unsigned long long)*out);
    return OK;
}

static enum status take_all(struct reader *r, struct gguf *g, struct error *err)
{
    char magic[4];
    uint64_t version = 0, tensors = 0, entries = 0;
    snprintf(r->part, sizeof r->part, "header");
    TRY(take(r, magic, sizeof magic, err));
    if (memcmp(magic, "GGUF", sizeof magic) != 0)
        return error_set(err, ERR_INVALID,
                         "%s: expected a file that begins with GGUF, found "
                         "another",
                         r->what);
    TRY(take_int(r, 4, &version, err));
    if (version != 2 && version != 3)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: version: expected 2 or 3 (little-endian), found %llu", r->what,
                         (unsigned long long)version);
    TRY(take_count(r, "tensors", &tensors, err));
    TRY(take_count(r, "metadata", &entries, err));
    TRY(take_entries(r, g, entries, err));
    return take_tensors(r, g, tensors, err);
}

enum status gguf_parse(const char *what, const struct gguf_source *source, struct gguf **out,
                       struct error *err)
{
    struct gguf *g = calloc(1, sizeof *g);
    struct reader *r = calloc(1, sizeof *r);
    enum status st = OK;
    if (!g || !r) {
        st = error_set(err, ERR_NO_MEMORY, "%s: no memory", what);
        goto out;
    }
    r->what = what;
    r->source = source;
    TRY_OUT(st, take_all(r, g, err));
    *out = g;
    g = NULL;
out:
    if (st == ERR_INVALID)
        error_advise(err, st, "fetch the file again");
    free(r);
    gguf_destroy(g);
    return st;
}

void gguf_destroy(struct gguf *g)
{
    if (!g)
        return;
    for (size_t i = 0; i < g->entry_count; i++) {
        free(g->entries[i].key);
        free(g->entries[i].string);
    }
    for (size_t i = 0; i < g->tensor_count; i++)
        free((char *)g->tensors[i].name);
    free(g->entries);
    free(g->tensors);
    free(g);
}

const struct tensor_entry *gguf_tensors(const struct gguf *g, size_t *count)
{
    *count = g->tensor_count;
    return g->tensors;
}

const struct tensor_entry *gguf_tensor(const struct gguf *g, const char *name)
{
    struct tensor_entry key = {.name = name};
    if (g->tensor_count == 0)
        return NULL;
    return bsearch(&key, g->tensors, g->tensor_count, sizeof key, by_name);
}

static const struct entry *find(const struct gguf *g, const char *key)
{
    struct entry k = {.key = (char *)key};
    return g->entry_count ? bsearch(&k, g->entries, g->entry_count, sizeof k, by_key) : NULL;
}

bool gguf_has(const struct gguf *g, const char *key)
{
    return find(g, key) != NULL;
}

static enum status refuse_type(const char *what, const char *key, const char *expected,
                               const struct entry *e, struct error *err)
{
    return error_set(err, ERR_INVALID, "%s: %s: expected %s, found %s", what, key, expected,
                     e ? type_words[e->type] : "nothing");
}

static bool is_integer(enum value_type t)
{
    return t != TYPE_F32 && t != TYPE_F64 && t != TYPE_BOOL && t != TYPE_STRING && t != TYPE_ARRAY;
}

enum status gguf_get_int(const struct gguf *g, const char *what, const char *key, bool required,
                         int64_t min, int64_t max, int64_t *out, struct error *err)
{
    const struct entry *e = find(g, key);
    if (!e && !required)
        return OK;
    if (!e || !is_integer(e->type))
        return refuse_type(what, key, "an integer", e, err);
    if (e->big)
        return error_set(err, ERR_INVALID, "%s: %s: expected %lld to %lld, found %llu", what, key,
                         (long long)min, (long long)max, (unsigned long long)e->integer);
    if (e->integer < min || e->integer > max)
        return error_set(err, ERR_INVALID, "%s: %s: expected %lld to %lld, found %lld", what, key,
                         (long long)min, (long long)max, (long long)e->integer);
    *out = e->integer;
    return OK;
}

enum status gguf_get_real(const struct gguf *g, const char *what, const char *key, bool required,
                          double *out, struct error *err)
{
    const struct entry *e = find(g, key);
    if (!e && !required)
        return OK;
    if (!e || (e->type != TYPE_F32 && e->type != TYPE_F64))
        return refuse_type(what, key, "a number", e, err);
    *out = e->real;
    return OK;
}

enum status gguf_get_bool(const struct gguf *g, const char *what, const char *key, bool required,
                          bool *out, struct error *err)
{
    const struct entry *e = find(g, key);
    if (!e && !required)
        return OK;
    if (!e || e->type != TYPE_BOOL)
        return refuse_type(what, key, "a boolean", e, err);
    *out = e->integer != 0;
    return OK;
}

enum status gguf_get_string(const struct gguf *g, const char *what, const char *key, bool required,
                            const char **out, struct error *err)
{
    const struct entry *e = find(g, key);
    if (!e && !required)
        return OK;
    if (!e || !e->string)
        return refuse_type(what, key, "a string of at most 255 bytes", e, err);
    *out = e->string;
    return OK;
}

static bool is_of_kind(const struct entry *e, enum gguf_kind kind)
{
    if (kind == GGUF_STRING)
        return e->type == TYPE_STRING;
    if (e->type != TYPE_ARRAY)
        return false;
    return kind == GGUF_STRINGS ? e->of == TYPE_STRING : e->of == TYPE_I32 || e->of == TYPE_U32;
}

enum status gguf_get_place(const struct gguf *g, const char *what, const char *key,
                           enum gguf_kind kind, struct gguf_place *out, struct error *err)
{
    static const char *const words[] = {
        [GGUF_STRING] = "a string",
        [GGUF_STRINGS] = "an array of strings",
        [GGUF_INTS32] = "an array of 32-bit integers",
    };
    const struct entry *e = find(g, key);
    if (e && e->type == TYPE_ARRAY && !is_of_kind(e, kind))
        return error_set(err, ERR_INVALID, "%s: %s: expected %s, found an array, each %s", what,
                         key, words[kind], type_words[e->of]);
    if (!e || !is_of_kind(e, kind))
        return refuse_type(what, key, words[kind], e, err);
    *out = e->place;
    return OK;
}
