/*
 * What Witan uses of NCCL, declared here so that it builds where NCCL is not: after nccl.h of NCCL
 * 2.28.9, in the form that 2.18 has had and that every later 2.x takes (a config says its own size
 * and version). tests/unit/transport/nccl_header_test.c holds it against that header.
 */
#ifndef WITAN_TRANSPORT_NCCL_LIBRARY_H
#define WITAN_TRANSPORT_NCCL_LIBRARY_H

#include "base/error.h"

#include <limits.h>
#include <stddef.h>

/* ncclResult_t */
enum nccl_result {
    NCCL_OK = 0,
    NCCL_REMOTE_ERROR = 6,
    NCCL_IN_PROGRESS = 7,
};

/* ncclDataType_t, ncclRedOp_t */
enum { NCCL_TYPE_BYTE = 0, NCCL_TYPE_F64 = 8, NCCL_OP_SUM = 0 };

/* NCCL_VERSION_CODE as 2.9 and later have it: 22809 is 2.28.9. */
enum {
    NCCL_OLDEST = 21800,         /* non-blocking communicators and this config */
    NCCL_CAPTURES_NODES = 23004, /* before, graphs with collectives across nodes may deadlock */
    NCCL_CONFIG_VERSION = 21800, /* of the struct below */
    NCCL_CONFIG_UNDEFINED = INT_MIN,
};

#define NCCL_CONFIG_MAGIC 0xcafebeefu

/* ncclUniqueId */
struct nccl_id {
    char bytes[128];
};

/* The first fields of ncclConfig_t. */
struct nccl_config {
    size_t size;
    unsigned int magic;
    unsigned int version;
    int blocking;
    int cga_cluster_size;
    int min_ctas;
    int max_ctas;
    const char *net_name;
    int split_share;
};

typedef struct ncclComm *nccl_handle; /* ncclComm_t */

/* X(field, symbol, result, arguments): a stream is CUDA's, a pointer to it. */
#define NCCL_FUNCTIONS(X)                                                                          \
    X(get_version, ncclGetVersion, int, (int *version))                                            \
    X(get_unique_id, ncclGetUniqueId, int, (struct nccl_id * id))                                  \
    X(init, ncclCommInitRankConfig, int,                                                           \
      (nccl_handle * out, int size, struct nccl_id id, int rank, struct nccl_config *config))      \
    X(finalize, ncclCommFinalize, int, (nccl_handle c))                                            \
    X(destroy, ncclCommDestroy, int, (nccl_handle c))                                              \
    X(abort, ncclCommAbort, int, (nccl_handle c))                                                  \
    X(error_text, ncclGetErrorString, const char *, (int result))                                  \
    X(last_error, ncclGetLastError, const char *, (nccl_handle c))                                 \
    X(async_error, ncclCommGetAsyncError, int, (nccl_handle c, int *result))                       \
    X(all_reduce, ncclAllReduce, int,                                                              \
      (const void *from, void *to, size_t count, int type, int op, nccl_handle c, void *stream))   \
    X(all_gather, ncclAllGather, int,                                                              \
      (const void *from, void *to, size_t count, int type, nccl_handle c, void *stream))           \
    X(send, ncclSend, int,                                                                         \
      (const void *from, size_t count, int type, int peer, nccl_handle c, void *stream))           \
    X(recv, ncclRecv, int,                                                                         \
      (void *to, size_t count, int type, int peer, nccl_handle c, void *stream))

struct nccl_library {
    int version;
#define X(field, symbol, result, arguments) result(*field) arguments;
    NCCL_FUNCTIONS(X)
#undef X
};

/*
 * Opens the file, or where `path` is NULL libnccl.so.2 from where the loader looks; it stays
 * loaded. ERR_NOT_FOUND, ERR_UNSUPPORTED: what is missing and what to do. Needs no GPU. Any thread.
 */
enum status nccl_library_open(const char *path, struct nccl_library *out, struct error *err);

/* "2.28.9" of 22809. */
void nccl_version_text(int version, char out[24]);

#endif
