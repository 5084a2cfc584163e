/*
 * GGUF files in memory for tests and fuzzers: read as any other, and written, values one by one for
 * broken files and whole sound ones with a model's tokenizer. Without memory a CHECK fails.
 */
#ifndef WITAN_TESTS_TOOLS_GGUF_WRITER_H
#define WITAN_TESTS_TOOLS_GGUF_WRITER_H

#include "base/buf.h"
#include "base/check.h"
#include "partition/gguf.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { GGUF_WRITER_MAX_BYTES = 1 << 28 };

static inline enum status gguf_read_memory(void *arg, uint64_t offset, void *to, size_t bytes,
                                           struct error *err)
{
    (void)err;
    const struct buf *b = arg;
    CHECK(offset <= b->len && bytes <= b->len - offset, "%zu bytes at %llu of %zu", bytes,
          (unsigned long long)offset, b->len);
    memcpy(to, b->data + offset, bytes);
    return OK;
}

/* `b` is borrowed. */
static inline struct gguf_source gguf_memory(struct buf *b)
{
    return (struct gguf_source){gguf_read_memory, b, b->len};
}

static inline void gguf_put_bytes(struct buf *b, const void *data, size_t len)
{
    CHECK(buf_append(b, data, len, NULL) == OK, "%zu bytes", len);
}

static inline void gguf_put(struct buf *b, uint64_t v, int bytes)
{
    uint8_t le[8];
    for (int i = 0; i < 8; i++)
        le[i] = (uint8_t)(v >> (8 * i));
    gguf_put_bytes(b, le, (size_t)bytes);
}

static inline void gguf_put_string(struct buf *b, const char *s)
{
    gguf_put(b, strlen(s), 8);
    gguf_put_bytes(b, s, strlen(s));
}

static inline void gguf_put_header(struct buf *b, uint64_t version, uint64_t tensors,
                                   uint64_t entries)
{
    buf_init(b, GGUF_WRITER_MAX_BYTES);
    gguf_put_bytes(b, "GGUF", 4);
    gguf_put(b, version, 4);
    gguf_put(b, tensors, 8);
    gguf_put(b, entries, 8);
}

static inline void gguf_put_int(struct buf *b, const char *key, uint64_t v)
{
    gguf_put_string(b, key);
    gguf_put(b, 4, 4);
    gguf_put(b, v, 4);
}

static inline void gguf_put_float(struct buf *b, const char *key, float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    gguf_put_string(b, key);
    gguf_put(b, 6, 4);
    gguf_put(b, bits, 4);
}

static inline void gguf_put_bool(struct buf *b, const char *key, bool v)
{
    gguf_put_string(b, key);
    gguf_put(b, 7, 4);
    gguf_put(b, v, 1);
}

static inline void gguf_put_text(struct buf *b, const char *key, const char *text)
{
    gguf_put_string(b, key);
    gguf_put(b, 8, 4);
    gguf_put_string(b, text);
}

/* An array without its elements, which come next: of 32-bit integers (5) or strings (8). */
static inline void gguf_put_array(struct buf *b, const char *key, uint64_t type, uint64_t count)
{
    gguf_put_string(b, key);
    gguf_put(b, 9, 4);
    gguf_put(b, type, 4);
    gguf_put(b, count, 8);
}

/* `sizes`: columns first. */
static inline void gguf_put_tensor(struct buf *b, const char *name, int dims, const uint64_t *sizes,
                                   uint64_t type, uint64_t offset)
{
    gguf_put_string(b, name);
    gguf_put(b, (uint64_t)dims, 4);
    for (int i = 0; i < dims; i++)
        gguf_put(b, sizes[i], 8);
    gguf_put(b, type, 4);
    gguf_put(b, offset, 8);
}

static inline void gguf_put_padding(struct buf *b)
{
    while (b->len % 32)
        gguf_put(b, 0, 1);
}

/* --- a whole file ---------------------------------------------------------------------------- */

struct gguf_writer {
    struct buf entries, tensors, data;
    uint64_t entry_count, tensor_count; /* counted by the caller as it puts them */
};

static inline void gguf_writer_init(struct gguf_writer *w)
{
    *w = (struct gguf_writer){.entry_count = 0};
    buf_init(&w->entries, GGUF_WRITER_MAX_BYTES);
    buf_init(&w->tensors, GGUF_WRITER_MAX_BYTES);
    buf_init(&w->data, GGUF_WRITER_MAX_BYTES);
}

/* The file into *file, which is initialised; the writer is spent. */
static inline void gguf_writer_end(struct gguf_writer *w, struct buf *file)
{
    gguf_put_header(file, 3, w->tensor_count, w->entry_count);
    gguf_put_bytes(file, w->entries.data, w->entries.len);
    gguf_put_bytes(file, w->tensors.data, w->tensors.len);
    gguf_put_padding(file);
    gguf_put_bytes(file, w->data.data, w->data.len);
    buf_fini(&w->entries);
    buf_fini(&w->tensors);
    buf_fini(&w->data);
}

/* llama.cpp's converter takes all that looks so for a control token. */
static inline bool gguf_looks_special(const char *text)
{
    size_t n = strlen(text);
    return n >= 4 && strncmp(text, "<|", 2) == 0 && strcmp(text + n - 2, "|>") == 0;
}

static inline void gguf_put_merges(struct buf *b, const json_t *merges)
{
    size_t i;
    json_t *merge;
    gguf_put_array(b, "tokenizer.ggml.merges", 8, json_array_size(merges));
    json_array_foreach((json_t *)merges, i, merge)
    {
        if (json_is_string(merge)) {
            gguf_put_string(b, json_string_value(merge));
            continue;
        }
        const char *left = json_string_value(json_array_get(merge, 0));
        const char *right = json_string_value(json_array_get(merge, 1));
        gguf_put(b, strlen(left) + 1 + strlen(right), 8);
        gguf_put_bytes(b, left, strlen(left));
        gguf_put(b, ' ', 1);
        gguf_put_bytes(b, right, strlen(right));
    }
}

/* Writes a tokenizer.json as llama.cpp's converter does, for an embedding of `rows`. With
 * `by_looks` it tells special tokens as that does, else by the file's word. The vocabulary is at
 * most `rows`. */
static inline void gguf_put_tokenizer(struct gguf_writer *w, const json_t *tokenizer, uint32_t rows,
                                      bool by_looks)
{
    const json_t *model = json_object_get(tokenizer, "model");
    const char **texts = check_calloc(rows, sizeof *texts);
    int32_t *types = check_calloc(rows, sizeof *types);
    const char *text;
    json_t *v;
    size_t i;
    json_object_foreach(json_object_get(model, "vocab"), text, v)
    {
        texts[json_integer_value(v)] = text;
        types[json_integer_value(v)] = 1;
    }
    json_array_foreach(json_object_get(tokenizer, "added_tokens"), i, v)
    {
        json_int_t id = json_integer_value(json_object_get(v, "id"));
        bool special = json_is_true(json_object_get(v, "special"));
        texts[id] = json_string_value(json_object_get(v, "content"));
        types[id] = special || (by_looks && gguf_looks_special(texts[id])) ? 3 : 4;
    }
    gguf_put_text(&w->entries, "tokenizer.ggml.model", "gpt2");
    gguf_put_text(&w->entries, "tokenizer.ggml.pre", "qwen2");
    gguf_put_array(&w->entries, "tokenizer.ggml.tokens", 8, rows);
    for (uint32_t id = 0; id < rows; id++) {
        char pad[32];
        snprintf(pad, sizeof pad, "[PAD%u]", id);
        gguf_put_string(&w->entries, texts[id] ? texts[id] : pad);
    }
    gguf_put_array(&w->entries, "tokenizer.ggml.token_type", 5, rows);
    for (uint32_t id = 0; id < rows; id++)
        gguf_put(&w->entries, (uint64_t)(types[id] ? types[id] : 5), 4);
    gguf_put_merges(&w->entries, json_object_get(model, "merges"));
    gguf_put_bool(&w->entries, "tokenizer.ggml.add_bos_token", false);
    w->entry_count += 6;
    free(texts);
    free(types);
}

#endif
