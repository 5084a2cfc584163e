/* transport/nccl_library.h against NCCL's own header, where it is. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "transport/nccl_library.h"

#ifdef WITAN_HAVE_NCCL_HEADER

#include <nccl.h>

#define SAME_FIELD(ours, theirs)                                                                   \
    _Static_assert(offsetof(struct nccl_config, ours) == offsetof(ncclConfig_t, theirs) &&         \
                       sizeof(((struct nccl_config *)0)->ours) ==                                  \
                           sizeof(((ncclConfig_t *)0)->theirs),                                    \
                   #theirs)

SAME_FIELD(size, size);
SAME_FIELD(magic, magic);
SAME_FIELD(version, version);
SAME_FIELD(blocking, blocking);
SAME_FIELD(cga_cluster_size, cgaClusterSize);
SAME_FIELD(min_ctas, minCTAs);
SAME_FIELD(max_ctas, maxCTAs);
SAME_FIELD(net_name, netName);
SAME_FIELD(split_share, splitShare);

_Static_assert(sizeof(struct nccl_id) == sizeof(ncclUniqueId), "an identifier");
_Static_assert(sizeof(ncclResult_t) == sizeof(int) && sizeof(ncclDataType_t) == sizeof(int) &&
                   sizeof(ncclRedOp_t) == sizeof(int) && sizeof(cudaStream_t) == sizeof(void *),
               "enums as int, a stream as a pointer");

/* The form that the declarations in NCCL_FUNCTIONS stand for. */
#define FORM(symbol, result, ...)                                                                  \
    _Static_assert(__builtin_types_compatible_p(__typeof__(&symbol), result (*)(__VA_ARGS__)),     \
                   #symbol)

FORM(ncclGetVersion, ncclResult_t, int *);
FORM(ncclGetUniqueId, ncclResult_t, ncclUniqueId *);
FORM(ncclCommInitRankConfig, ncclResult_t, ncclComm_t *, int, ncclUniqueId, int, ncclConfig_t *);
FORM(ncclCommFinalize, ncclResult_t, ncclComm_t);
FORM(ncclCommDestroy, ncclResult_t, ncclComm_t);
FORM(ncclCommAbort, ncclResult_t, ncclComm_t);
FORM(ncclGetErrorString, const char *, ncclResult_t);
FORM(ncclGetLastError, const char *, ncclComm_t);
FORM(ncclCommGetAsyncError, ncclResult_t, ncclComm_t, ncclResult_t *);
FORM(ncclAllReduce, ncclResult_t, const void *, void *, size_t, ncclDataType_t, ncclRedOp_t,
     ncclComm_t, cudaStream_t);
FORM(ncclAllGather, ncclResult_t, const void *, void *, size_t, ncclDataType_t, ncclComm_t,
     cudaStream_t);
FORM(ncclSend, ncclResult_t, const void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t);
FORM(ncclRecv, ncclResult_t, void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t);

/* What the header's own initialiser says, in the fields that ours has. */
static void the_header_means_the_same(void **state)
{
    (void)state;
    const ncclConfig_t theirs = NCCL_CONFIG_INITIALIZER;
    assert_true(theirs.magic == NCCL_CONFIG_MAGIC);
    assert_true(theirs.size >= sizeof(struct nccl_config));
    assert_true(theirs.version >= NCCL_CONFIG_VERSION);
    assert_int_equal(theirs.blocking, NCCL_CONFIG_UNDEFINED);
    assert_int_equal(theirs.cgaClusterSize, NCCL_CONFIG_UNDEFINED);
    assert_int_equal(theirs.minCTAs, NCCL_CONFIG_UNDEFINED);
    assert_int_equal(theirs.maxCTAs, NCCL_CONFIG_UNDEFINED);
    assert_null(theirs.netName);
    assert_int_equal(theirs.splitShare, NCCL_CONFIG_UNDEFINED);
    assert_int_equal(ncclSuccess, NCCL_OK);
    assert_int_equal(ncclRemoteError, NCCL_REMOTE_ERROR);
    assert_int_equal(ncclInProgress, NCCL_IN_PROGRESS);
    assert_int_equal(ncclChar, NCCL_TYPE_BYTE);
    assert_int_equal(ncclFloat64, NCCL_TYPE_F64);
    assert_int_equal(ncclSum, NCCL_OP_SUM);
    assert_int_equal(NCCL_OLDEST, NCCL_VERSION(2, 18, 0));
    assert_int_equal(NCCL_CAPTURES_NODES, NCCL_VERSION(2, 30, 4));
}

#else

static void the_header_means_the_same(void **state)
{
    (void)state;
    printf("skipped: nccl.h is absent\n");
    exit(77);
}

#endif

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(the_header_means_the_same),
};

UNIT_MAIN(tests)
