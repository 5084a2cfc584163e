/*
 * Meetings of a warp's lanes. A lane that calls an operation waits until every lane of its mask
 * that has not exited waits in the same operation with the same mask; the last one computes for
 * all. Only __syncwarp orders memory (the others promise nothing of the kind).
 *
 * Fragment layouts: PTX ISA, "Matrix Fragments for mma.m16n8k16" and "m16n8k32", and "ldmatrix".
 * Sums of products: exact products added in double precision in the order of k, C first, rounded to
 * fp32 once. A tensor core rounds otherwise; that is not emulated.
 */
#include "runtime.h"

#include <string.h>

typedef simt_lane_call *const lanes[WARP]; /* NULL: not in the mask, or exited */

static const char *const op_names[] = {"__syncwarp",
                                       "__shfl_sync",
                                       "__ballot_sync (or any, all)",
                                       "__match_any_sync",
                                       "__reduce_add_sync",
                                       "__reduce_min_sync",
                                       "__reduce_max_sync",
                                       "__reduce_min_sync",
                                       "__reduce_max_sync",
                                       "__reduce_and_sync",
                                       "__reduce_or_sync",
                                       "__reduce_xor_sync",
                                       "ldmatrix",
                                       "ldmatrix.trans",
                                       "mma.m16n8k16 of bf16",
                                       "mma.m16n8k16 of f16",
                                       "mma.m16n8k32 of e4m3",
                                       "mma.m16n8k32 of s8"};

const char *warp_op_name(enum simt_warp_op op)
{
    return op_names[op];
}

static void do_shuffle(lanes call, const struct thread *t)
{
    for (int lane = 0; lane < WARP; lane++) {
        if (!call[lane])
            continue;
        int from = call[lane]->from;
        const struct thread *reader = lane_of(t, lane);
        if (call[from])
            call[lane]->result = call[from]->value;
        else
            fault(reader, reader->place, "__shfl_sync reads lane %d, which %s (mask 0x%08x)", from,
                  t->mask >> from & 1 ? "has exited" : "is not in the mask", t->mask);
    }
}

static void do_ballot(lanes call)
{
    uint64_t ballot = 0;
    for (int lane = 0; lane < WARP; lane++)
        if (call[lane] && call[lane]->value)
            ballot |= 1u << lane;
    for (int lane = 0; lane < WARP; lane++)
        if (call[lane])
            call[lane]->result = ballot;
}

static void do_match(lanes call)
{
    for (int lane = 0; lane < WARP; lane++)
        for (int other = 0; call[lane] && other < WARP; other++)
            if (call[other] && call[other]->value == call[lane]->value)
                call[lane]->result |= 1u << other;
}

static uint32_t reduce(enum simt_warp_op op, uint32_t a, uint32_t b)
{
    switch (op) {
    case SIMT_REDUCE_ADD:
        return a + b;
    case SIMT_REDUCE_MIN:
        return a < b ? a : b;
    case SIMT_REDUCE_MAX:
        return a > b ? a : b;
    case SIMT_REDUCE_MIN_SIGNED:
        return (int32_t)a < (int32_t)b ? a : b;
    case SIMT_REDUCE_MAX_SIGNED:
        return (int32_t)a > (int32_t)b ? a : b;
    case SIMT_REDUCE_AND:
        return a & b;
    case SIMT_REDUCE_OR:
        return a | b;
    default:
        return a ^ b;
    }
}

static void do_reduce(lanes call, enum simt_warp_op op)
{
    bool first = true;
    uint32_t r = 0;
    for (int lane = 0; lane < WARP; lane++) {
        if (!call[lane])
            continue;
        r = first ? (uint32_t)call[lane]->value : reduce(op, r, (uint32_t)call[lane]->value);
        first = false;
    }
    for (int lane = 0; lane < WARP; lane++)
        if (call[lane])
            call[lane]->result = r;
}

/* Lane 8 m + r holds the address of row r of matrix m; element (row, column) goes to lane
 * 4 row + column / 2, half column % 2, or with .trans, to that of (column, row). */
static void do_ldmatrix(lanes call, bool trans)
{
    for (int m = 0; m < call[0]->from; m++)
        for (int row = 0; row < 8; row++) {
            uint16_t half[8];
            memcpy(half, call[8 * m + row]->in, sizeof half);
            for (int column = 0; column < 8; column++) {
                int major = trans ? column : row, minor = trans ? row : column;
                uint32_t *r = (uint32_t *)call[4 * major + minor / 2]->out + m;
                int shift = 16 * (minor % 2);
                *r = (*r & ~(0xffffu << shift)) | (uint32_t)half[column] << shift;
            }
        }
}

/* A [16][k] and B [k][8] of an mma, gathered from the lanes. T: the element as it is stored; E: as
 * it is multiplied. */
template <class E> struct tiles {
    E a[16][32], b[32][8];
};

template <class T, class E, class F> static void gather(lanes call, tiles<E> *m, F &&value)
{
    const int per = 4 / (int)sizeof(T), half = 4 * per; /* elements of a register; k / 2 */
    for (int lane = 0; lane < WARP; lane++) {
        int group = lane / 4, pos = lane % 4 * per;
        T a[4][4 / sizeof(T)] = {}, b[2][4 / sizeof(T)] = {};
        memcpy(a, call[lane]->in, sizeof a);
        memcpy(b, call[lane]->b, sizeof b);
        for (int r = 0; r < 4; r++)
            for (int i = 0; i < per; i++)
                m->a[group + r % 2 * 8][pos + i + r / 2 * half] = (E)value(a[r][i]);
        for (int r = 0; r < 2; r++)
            for (int i = 0; i < per; i++)
                m->b[pos + i + r * half][group] = (E)value(b[r][i]);
    }
}

/* D: the accumulator's type; E: the sum's. */
template <class D, class E> static void multiply(lanes call, const tiles<E> *m, int k)
{
    for (int row = 0; row < 16; row++) {
        D *d[4]; /* lanes' pairs of columns */
        E sum[8];
        for (int pair = 0; pair < 4; pair++) {
            d[pair] = (D *)call[row % 8 * 4 + pair]->out + row / 8 * 2;
            sum[2 * pair] = (E)d[pair][0], sum[2 * pair + 1] = (E)d[pair][1];
        }
        for (int i = 0; i < k; i++)
            for (int column = 0; column < 8; column++)
                sum[column] += m->a[row][i] * m->b[i][column];
        for (int pair = 0; pair < 4; pair++)
            d[pair][0] = (D)sum[2 * pair], d[pair][1] = (D)sum[2 * pair + 1];
    }
}

static void do_mma(lanes call, enum simt_warp_op op)
{
    static tiles<double> m;
    static tiles<int64_t> s;
    if (op == SIMT_MMA_S8) {
        gather<int8_t>(call, &s, [](int8_t x) { return x; });
        multiply<int32_t>(call, &s, 32);
        return;
    }
    if (op == SIMT_MMA_E4M3)
        gather<uint8_t>(call, &m, [](uint8_t x) { return e4m3_to_f32(x); });
    else if (op == SIMT_MMA_BF16)
        gather<uint16_t>(call, &m, [](uint16_t x) { return bf16_to_f32(x); });
    else
        gather<uint16_t>(call, &m, [](uint16_t x) { return f16_to_f32(x); });
    multiply<float>(call, &m, op == SIMT_MMA_E4M3 ? 32 : 16);
}

static void complete(struct thread *t, unsigned mask)
{
    simt_lane_call *call[WARP] = {};
    for (int lane = 0; lane < WARP; lane++)
        if (mask >> lane & 1)
            call[lane] = lane_of(t, lane)->call;
    switch (t->op) {
    case SIMT_SYNC:
        order_lanes(t, mask);
        break;
    case SIMT_SHUFFLE:
        do_shuffle(call, t);
        break;
    case SIMT_BALLOT:
        do_ballot(call);
        break;
    case SIMT_MATCH:
        do_match(call);
        break;
    case SIMT_LDMATRIX:
    case SIMT_LDMATRIX_TRANS:
        do_ldmatrix(call, t->op == SIMT_LDMATRIX_TRANS);
        break;
    case SIMT_MMA_BF16:
    case SIMT_MMA_F16:
    case SIMT_MMA_E4M3:
    case SIMT_MMA_S8:
        do_mma(call, t->op);
        break;
    default:
        do_reduce(call, t->op);
    }
}

/* If all whom the waiting lane `t` waits for are there, computes and readies them. */
static void try_complete(struct thread *t)
{
    unsigned mask = t->mask & warp_present(t), *waiting = &launch_now.waiting[t->id / WARP];
    if ((mask & *waiting) != mask)
        return;
    for (int lane = 0; lane < WARP; lane++) {
        const struct thread *other = lane_of(t, lane);
        if ((mask >> lane & 1) && (other->op != t->op || other->mask != t->mask))
            return;
    }
    *waiting &= ~mask;
    complete(t, mask);
    for (int lane = 0; lane < WARP; lane++)
        if (mask >> lane & 1)
            thread_ready(lane_of(t, lane));
}

void warp_exited(struct thread *t)
{
    launch_now.present[t->id / WARP] &= ~(1u << (t->id % WARP));
    for (int lane = 0; lane < WARP; lane++)
        if (launch_now.waiting[t->id / WARP] >> lane & 1)
            try_complete(lane_of(t, lane));
}

static void ldmatrix_check(const struct thread *t, const simt_lane_call *call, struct place place)
{
    int lane = t->id % WARP;
    if (lane >= 8 * call->from)
        return;
    uintptr_t a = (uintptr_t)call->in;
    if (a % 16 != 0)
        fault(t, place, "ldmatrix: a row at %s: expected 16-byte alignment",
              address_text(a).c_str());
    if (!memory_is_shared(a))
        fault(t, place, "ldmatrix: a row at %s: expected shared memory", address_text(a).c_str());
    memory_check(a, 16, LOAD, place);
}

void simt_warp(enum simt_warp_op op, unsigned mask, simt_lane_call *call, const char *file,
               int line)
{
    struct thread *t = simt_self;
    struct place place = {file, line, NULL};
    if (!(mask >> (t->id % WARP) & 1))
        fault(t, place, "%s by lane %d, which is not in its mask 0x%08x", warp_op_name(op),
              t->id % WARP, mask);
    if (op == SIMT_LDMATRIX || op == SIMT_LDMATRIX_TRANS)
        ldmatrix_check(t, call, place);
    if (op >= SIMT_LDMATRIX && warp_present(t) != 0xffffffffu)
        fault(t, place, "%s needs all 32 lanes: found 0x%08x", warp_op_name(op), warp_present(t));
    t->op = op;
    t->mask = mask;
    t->call = call;
    t->state = IN_WARP_OP;
    t->place = place;
    launch_now.waiting[t->id / WARP] |= 1u << (t->id % WARP);
    try_complete(t);
    thread_wait(t->state, place);
}
