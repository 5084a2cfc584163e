/*
 * The tensors of a checkpoint folder: safetensors, one file or shards with an index, or GGUF
 * (gguf.h). Opening reads and proves the headers only; bytes are read later, slice by slice, with
 * checkpoint_read, or by chunks that a manifest proves.
 *
 * Format: 8 bytes little-endian header length, a JSON object name -> {dtype, shape, data_offsets},
 * then the data (huggingface/safetensors). Immutable after opening; any thread reads.
 */
#ifndef WITAN_PARTITION_CHECKPOINT_H
#define WITAN_PARTITION_CHECKPOINT_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype { DTYPE_F32, DTYPE_F16, DTYPE_BF16 };

size_t dtype_size(enum dtype t);
const char *dtype_name(enum dtype t); /* "F32", "F16", "BF16", as safetensors writes them */

enum { TENSOR_MAX_DIMS = 4, CHECKPOINT_MAX_FILES = 1000 };

struct tensor_entry {
    const char *name; /* owned by the checkpoint */
    enum dtype dtype;
    const char *other_dtype; /* name of any other type, plain or of blocks; else NULL */
    int dims;
    int64_t shape[TENSOR_MAX_DIMS];
    int file;        /* index for checkpoint_file_name and checkpoint_read */
    uint64_t offset; /* of its first byte in the file */
    uint64_t bytes;
};

struct checkpoint;
struct gguf;
struct manifest;

/*
 * The folder's model.safetensors where there is one, else the shards of
 * model.safetensors.index.json (the order in which Transformers looks), else its one *.gguf or the
 * parts of one that was split; at most CHECKPOINT_MAX_FILES.
 *
 * Opens every shard and proves every header: length within the file and 100 MB, JSON well-formed,
 * no duplicate names, offsets ordered within the data without overlap or hole, bytes = shape x
 * dtype, every tensor of the index present in the file that the index names and the reverse, file
 * ends where the last tensor ends (for GGUF: as gguf_parse proves it). Tensors of other dtypes than
 * enum dtype's are refused when looked up, not here. Errors name file, tensor, expected and found.
 */
enum status checkpoint_open(const char *dir, struct checkpoint **out, struct error *err);

/* The same with a manifest of this folder (NULL: none), which must outlive it: whatever is read,
 * headers and index included, is read chunk by chunk into private memory, proven there, and taken
 * from there. A chunk that does not fit is ERR_INVALID. */
enum status checkpoint_open_proven(const char *dir, const struct manifest *manifest,
                                   struct checkpoint **out, struct error *err);
void checkpoint_close(struct checkpoint *ck);

/* Would checkpoint_open_proven take the folder's *.gguf? Nothing is opened. */
bool checkpoint_is_gguf(const char *dir, const struct manifest *manifest);

/* The metadata of the (first) GGUF; NULL for safetensors. Owned by the checkpoint. */
const struct gguf *checkpoint_gguf(const struct checkpoint *ck);

int checkpoint_file_count(const struct checkpoint *ck);
const char *checkpoint_file_name(const struct checkpoint *ck, int file); /* without the folder */
uint64_t checkpoint_file_bytes(const struct checkpoint *ck, int file);

/* All tensors, sorted by name. */
const struct tensor_entry *checkpoint_tensors(const struct checkpoint *ck, size_t *count);

/* NULL when there is no tensor of that name. Binary search over sorted names. */
const struct tensor_entry *checkpoint_find(const struct checkpoint *ck, const char *name);

/* The tensor with exactly this shape, or ERR_INVALID naming what was expected and found.
 * A dtype other than F32, F16, BF16 is ERR_UNSUPPORTED, named. */
enum status checkpoint_require(const struct checkpoint *ck, const char *name, int dims,
                               const int64_t *shape, const struct tensor_entry **out,
                               struct error *err);

/* The same for a tensor of another dtype, by its name ("F8_E4M3", "I32"); NULL: of any. */
enum status checkpoint_require_dtype(const struct checkpoint *ck, const char *name,
                                     const char *dtype, int dims, const int64_t *shape,
                                     const struct tensor_entry **out, struct error *err);

/* pread of exactly `bytes` at `offset` of the file; safe from many threads. ERR_IO when the file
 * ends before (it changed). With a manifest the chunks around the bytes are read and proven; the
 * last is kept, no more, so loaders read by chunks. */
enum status checkpoint_read(const struct checkpoint *ck, int file, uint64_t offset, void *to,
                            size_t bytes, struct error *err);

/* What follows are reads by chunks of MANIFEST_CHUNK_BYTES; `direct`: around the page cache
 * (O_DIRECT) where the file system can, and then checkpoint_read can no more. Not while other
 * threads read. */
void checkpoint_begin_chunks(struct checkpoint *ck, bool direct);

/* Reads at least [begin, end) of a chunk to its place in `to`, which has room for a whole chunk and
 * lies on a page's border; with a manifest all of it, and proves it there. Any thread. */
enum status checkpoint_read_chunk(const struct checkpoint *ck, int file, uint32_t chunk,
                                  size_t begin, size_t end, void *to, struct error *err);

/* The bytes that it reads for that. */
size_t checkpoint_chunk_bytes(const struct checkpoint *ck, int file, uint32_t chunk, size_t begin,
                              size_t end);

/* Proves one header, for tests and fuzzers: `header` is the JSON text, `data_bytes` what follows
 * it. Calls `each` (may be NULL) for every tensor in order of offsets, with file 0 and a name that
 * lives until it returns. */
enum status safetensors_parse_header(const char *what, const char *header, size_t len,
                                     uint64_t data_bytes,
                                     enum status (*each)(const struct tensor_entry *t, void *arg,
                                                         struct error *err),
                                     void *arg, struct error *err);

#endif
