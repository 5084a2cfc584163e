/*
 * Any bytes as a GGUF. What is accepted has tensors within the file, in order and apart, and
 * whatever model it describes lies within the bounds of config.h; what is refused must say why in
 * one line.
 */
#include "base/check.h"
#include "partition/gguf.h"
#include "partition/quant.h"
#include "tests/tools/gguf_writer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_refusal(enum status st, const struct error *err)
{
    CHECK(err->code == st && strncmp(err->msg, "m.gguf: ", 8) == 0, "%s", err->msg);
    CHECK(!strchr(err->msg, '\n') && strlen(err->msg) < sizeof err->msg - 1, "%s", err->msg);
}

/* The first row of each tensor that holds blocks is dequantised. */
static void check_tensors(const struct gguf *g, const struct buf *b)
{
    static float row[4096];
    size_t count;
    const struct tensor_entry *t = gguf_tensors(g, &count);
    for (size_t i = 0; i < count; i++) {
        CHECK(t[i].offset <= b->len && t[i].bytes <= b->len - t[i].offset, "bounds");
        CHECK(t[i].dims >= 1 && t[i].dims <= TENSOR_MAX_DIMS, "%d dimensions", t[i].dims);
        CHECK(i == 0 || strcmp(t[i - 1].name, t[i].name) < 0, "order");
        CHECK(gguf_tensor(g, t[i].name) == &t[i], "look-up");
        int64_t cols = t[i].shape[t[i].dims - 1];
        for (uint32_t type = 0; t[i].other_dtype && type < 32; type++) {
            const struct ggml_layout *l = ggml_layout(type);
            if (l && strcmp(l->name, t[i].other_dtype) == 0)
                quant_ggml_row((enum ggml_type)type, (const uint8_t *)b->data + t[i].offset, 0,
                               cols < 4096 ? cols : 4096, row);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf b = {.data = (char *)data, .len = size};
    struct gguf_source source = gguf_memory(&b);
    struct gguf *g = NULL;
    struct error err = {.code = OK};
    enum status st = gguf_parse("m.gguf", &source, &g, &err);
    if (st != OK) {
        check_refusal(st, &err);
        return 0;
    }
    check_tensors(g, &b);
    struct model_config c = {.layers = 0};
    st = gguf_config(g, "m.gguf", 100, false, &c, &err);
    if (st != OK)
        check_refusal(st, &err);
    else
        CHECK(c.layers > 0 && c.experts >= c.top_k && c.q_heads % c.kv_heads == 0, "config");
    gguf_destroy(g);
    return 0;
}
