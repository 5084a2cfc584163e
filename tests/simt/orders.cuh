/* Ways in which threads order their accesses, each in a right and a wrong form, for orders_test.cc.
 */
#ifndef WITAN_TESTS_SIMT_ORDERS_CUH
#define WITAN_TESTS_SIMT_ORDERS_CUH

enum order_kind {
    ORDER_SUBGROUPS,  /* __syncwarp of 8 lanes; wrong: lanes of two groups */
    ORDER_LANE_CHAIN, /* __syncwarp of lanes 0 and 1, then of 1 and 2; wrong: the other way round */
    ORDER_WARP_CHAIN, /* named barriers of warps 0 and 1, then of 1 and 2; wrong: likewise */
    ORDER_HALVES, /* neighbours write 16 bits each, a barrier, words are read; wrong: no barrier */
    ORDER_ATOMIC_READ, /* atomics, a barrier, a plain read; wrong: no barrier */
    ORDER_READERS,     /* all read, a barrier, one writes; wrong: no barrier */
    ORDER_BLOCKS,      /* blocks each read their own; wrong: each other's */
    ORDER_SHUFFLE,     /* memory ordered by __syncwarp; wrong: by a shuffle */
    ORDER_TICKET, /* lanes write, meet, one publishes, the last block reads; wrong: they do not meet
                   */
    ORDER_TICKET_AGAIN, /* ... and the last block's threads do more atomics before they read; wrong:
                         * nobody fences */
    ORDER_COPY,         /* cp.async, wait, barrier, others read; wrong: no barrier */
    ORDER_NEXT_LAUNCH,  /* one launch writes, the next reads; wrong: blocks of one launch do */
    ORDER_OVERLAP,      /* a launch that may overlap waits, then reads; wrong: it does not wait */
    ORDER_OVERLAP_CHAIN, /* the same with a launch between that waits and touches nothing */
    ORDER_OVERLAP_LINK,  /* wrong: the launch between does not wait, the last one does */
    ORDERS
};

/* out[1024], and scratch[1024], which is zeros, are the device's. Returns launch's code. */
int run_order(enum order_kind kind, bool wrong, int *out, int *scratch);

#endif
