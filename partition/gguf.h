/*
 * GGUF files, the container of llama.cpp and Ollama: metadata, tensor table, data. Parsing proves
 * the header and keeps what an engine asks for; of long strings and arrays (the tokenizer) it
 * proves that they lie within the file, and keeps where. Immutable after parsing; any thread reads.
 *
 * Format: ggml's gguf.md, versions 2 and 3, little-endian: "GGUF", u32 version, u64 tensors, u64
 * metadata; then per metadata a string key, u32 type, value; then per tensor a string name, u32
 * dimensions, u64 sizes (columns first), u32 ggml_type, u64 offset into the data, which begins at
 * the next multiple of general.alignment. A string is u64 bytes and those bytes.
 */
#ifndef WITAN_PARTITION_GGUF_H
#define WITAN_PARTITION_GGUF_H

#include "partition/checkpoint.h"
#include "partition/config.h"

enum { GGUF_MAX_ENTRIES = 1 << 16 }; /* of tensors, and of metadata */

/* Where the bytes are: a file, or memory in tests and fuzzers. `read` gives exactly `bytes` at
 * `offset`, both within `size`. */
struct gguf_source {
    enum status (*read)(void *arg, uint64_t offset, void *to, size_t bytes, struct error *err);
    void *arg;
    uint64_t size;
};

struct gguf;

/*
 * Proves the header: magic and version, every length within the file, keys and tensor names unique
 * and within the format's lengths, types known, at most TENSOR_MAX_DIMS dimensions of 1 or more,
 * columns in whole blocks, offsets aligned, tensors within the file and apart from each other.
 * Types that this build cannot dequantise are refused by name. Errors name `what` and the entry.
 */
enum status gguf_parse(const char *what, const struct gguf_source *source, struct gguf **out,
                       struct error *err);
void gguf_destroy(struct gguf *g);

/* All tensors by name: `shape` with rows first as in safetensors, `offset` in the file, `file` 0,
 * other_dtype a name of quant.h's ggml_layout where the type is none of DTYPE_*. Names are owned by
 * `g`. */
const struct tensor_entry *gguf_tensors(const struct gguf *g, size_t *count);
const struct tensor_entry *gguf_tensor(const struct gguf *g, const char *name);

/* Metadata of one value. As json_get_*: absent leaves *out as it is unless required; another type
 * or a value outside the bounds is ERR_INVALID. Integers of any width are integers. */
bool gguf_has(const struct gguf *g, const char *key);
enum status gguf_get_int(const struct gguf *g, const char *what, const char *key, bool required,
                         int64_t min, int64_t max, int64_t *out, struct error *err);
enum status gguf_get_real(const struct gguf *g, const char *what, const char *key, bool required,
                          double *out, struct error *err);
enum status gguf_get_bool(const struct gguf *g, const char *what, const char *key, bool required,
                          bool *out, struct error *err);
/* Strings of more than 255 bytes are not kept and count as of another type. */
enum status gguf_get_string(const struct gguf *g, const char *what, const char *key, bool required,
                            const char **out, struct error *err);

/* Values to be read from the file: a string of any length, an array of strings (each u64 bytes and
 * those bytes), an array of signed or unsigned 32-bit integers. */
enum gguf_kind { GGUF_STRING, GGUF_STRINGS, GGUF_INTS32 };

/* Where such a value lies, all of it within the file when that was parsed. */
struct gguf_place {
    uint64_t offset, bytes; /* of the string, or of all elements */
    uint64_t count;         /* of elements; for a string its bytes */
};

/* ERR_INVALID when it is absent or of another kind. */
enum status gguf_get_place(const struct gguf *g, const char *what, const char *key,
                           enum gguf_kind kind, struct gguf_place *out, struct error *err);

/*
 * The model that a qwen3moe file's metadata describe (gguf_config.c), checked as config.json is.
 * Vocabulary rows and whether there is an output.weight come from the tensors. Every layer is a MoE
 * layer and router weights are renormalised, as llama.cpp computes the architecture. The end tokens
 * are the tokenizer's eos, eot and eom.
 */
enum status gguf_config(const struct gguf *g, const char *what, int64_t vocab, bool tied,
                        struct model_config *config, struct error *err);

#endif
