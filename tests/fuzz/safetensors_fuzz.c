/*
 * Any bytes as a safetensors header. Input: 8 bytes little-endian, the bytes of data that follow
 * the header in its file, then the header. What is accepted must fill that data exactly; what is
 * refused must say why in one line.
 */
#include "base/check.h"
#include "partition/checkpoint.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    uint64_t end; /* of the tensor before, in the file */
};

static enum status each(const struct tensor_entry *t, void *arg, struct error *err)
{
    (void)err;
    struct seen *s = arg;
    CHECK(t->offset == s->end, "offset %llu", (unsigned long long)t->offset);
    CHECK(t->dims >= 0 && t->dims <= TENSOR_MAX_DIMS, "%d dimensions", t->dims);
    s->end += t->bytes;
    if (t->other_dtype)
        return OK;
    uint64_t bytes = dtype_size(t->dtype);
    for (int i = 0; i < t->dims; i++) {
        CHECK(t->shape[i] >= 0, "shape %lld", (long long)t->shape[i]);
        CHECK(!__builtin_mul_overflow(bytes, (uint64_t)t->shape[i], &bytes), "overflow");
    }
    CHECK(bytes == t->bytes, "%llu bytes of %llu", (unsigned long long)t->bytes,
          (unsigned long long)bytes);
    return OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 8)
        return 0;
    uint64_t data_bytes = 0;
    for (int i = 7; i >= 0; i--)
        data_bytes = data_bytes << 8 | data[i];
    struct error err = {.code = OK};
    struct seen seen = {size};
    enum status st = safetensors_parse_header("header", (const char *)data + 8, size - 8,
                                              data_bytes, each, &seen, &err);
    if (st == OK) {
        CHECK(seen.end == size + data_bytes, "end %llu", (unsigned long long)seen.end);
        return 0;
    }
    CHECK(err.code == st && strncmp(err.msg, "header: ", 8) == 0, "%s", err.msg);
    CHECK(!strchr(err.msg, '\n') && strlen(err.msg) < sizeof err.msg - 1, "%s", err.msg);
    return 0;
}
