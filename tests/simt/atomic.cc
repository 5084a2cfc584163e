/* Atomics, and the asynchronous copies of a thread. See runtime.h. */
#include "runtime.h"

#include <string.h>

template <class T> static T apply(enum simt_atomic_op op, T old, T x, T compare)
{
    switch (op) {
    case SIMT_ADD:
        return old + x;
    case SIMT_MIN:
        return x < old ? x : old;
    case SIMT_MAX:
        return x > old ? x : old;
    case SIMT_EXCHANGE:
        return x;
    case SIMT_COMPARE:
        return old == compare ? x : old;
    default:
        break;
    }
    if constexpr (std::is_integral<T>::value)
        return op == SIMT_AND ? old & x : old | x;
    return old;
}

/* Others may come first, as on a device: so sums in floating point differ from seed to seed. */
template <class T>
T simt_atomic(enum simt_atomic_op op, T *p, T x, T compare, const char *file, int line)
{
    struct thread *t = simt_self;
    t->place = {file, line, NULL};
    thread_yield();
    memory_check((uintptr_t)p, sizeof *p, ATOMIC, t->place);
    order_atomic(t, (uintptr_t)p);
    T old = *p;
    *p = apply(op, old, x, compare);
    return old;
}

template int simt_atomic(enum simt_atomic_op, int *, int, int, const char *, int);
template unsigned simt_atomic(enum simt_atomic_op, unsigned *, unsigned, unsigned, const char *,
                              int);
template unsigned long long simt_atomic(enum simt_atomic_op, unsigned long long *,
                                        unsigned long long, unsigned long long, const char *, int);
template float simt_atomic(enum simt_atomic_op, float *, float, float, const char *, int);
template double simt_atomic(enum simt_atomic_op, double *, double, double, const char *, int);

/* ---- cp.async: the source is read and the target written when the copy is waited for; from its
 * start on, no one else may touch the target. ---- */

void simt_copy_async(void *shared, const void *global, int size, int bytes, const char *file,
                     int line)
{
    struct thread *t = simt_self;
    struct place place = {file, line, NULL};
    uintptr_t to = (uintptr_t)shared, from = (uintptr_t)global;
    if (bytes < 0 || bytes > size)
        fault(t, place, "cp.async of %d bytes: expected 0 to %d", bytes, size);
    if (!memory_is_shared(to))
        fault(t, place, "cp.async to %s: expected shared memory", address_text(to).c_str());
    if (bytes > 0 && memory_is_shared(from))
        fault(t, place, "cp.async from %s: expected global memory", address_text(from).c_str());
    if (from % (unsigned)size != 0)
        fault(t, place, "cp.async from %s: not aligned to %d", address_text(from).c_str(), size);
    if (bytes > 0)
        memory_check(from, bytes == size ? (unsigned)size : (unsigned)bytes, LOAD, place);
    memory_check(to, (unsigned)size, STORE, place);
    memory_pend(to, (unsigned)size);
    t->copies.push_back({to, from, size, bytes, t->copy_group, place});
}

void simt_copy_commit()
{
    simt_self->copy_group++;
}

void simt_copy_wait(int groups)
{
    struct thread *t = simt_self;
    size_t kept = 0;
    for (const async_copy &c : t->copies) {
        if (c.group >= t->copy_group - groups) {
            t->copies[kept++] = c;
            continue;
        }
        char data[16] = {};
        memcpy(data, (const void *)c.from, (size_t)c.bytes);
        memcpy((void *)c.to, data, (size_t)c.size);
        memory_landed(c.to, (unsigned)c.size, t->tag, c.place);
    }
    t->copies.resize(kept);
}
