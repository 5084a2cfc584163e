/* Stacks and switching between them: a few instructions, no system call. See runtime.h. */
#include "runtime.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Callee-saved registers are pushed on the old stack and popped from the new one. */
#if defined(__x86_64__) && !defined(SIMT_UCONTEXT)
asm(R"(
    .text
    .globl simt_context_switch
    .type simt_context_switch, @function
simt_context_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size simt_context_switch, .-simt_context_switch
)");
enum { FRAME_WORDS = 7, FRAME_RETURN = 6, FRAME_PAD = 8 };
#elif defined(__aarch64__) && !defined(SIMT_UCONTEXT)
asm(R"(
    .text
    .globl simt_context_switch
    .type simt_context_switch, %function
simt_context_switch:
    stp x29, x30, [sp, #-160]!
    stp x19, x20, [sp, #16]
    stp x21, x22, [sp, #32]
    stp x23, x24, [sp, #48]
    stp x25, x26, [sp, #64]
    stp x27, x28, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #16]
    ldp x21, x22, [sp, #32]
    ldp x23, x24, [sp, #48]
    ldp x25, x26, [sp, #64]
    ldp x27, x28, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    ldp x29, x30, [sp], #160
    ret
    .size simt_context_switch, .-simt_context_switch
)");
enum { FRAME_WORDS = 20, FRAME_RETURN = 1, FRAME_PAD = 0 };
#else /* or where this is defined by hand, to try it */
#undef SIMT_UCONTEXT
#define SIMT_UCONTEXT
#include <ucontext.h>
#endif

#ifdef SIMT_UCONTEXT
static ucontext_t *context_new(char *top, void (*run)())
{
    ucontext_t *c = (ucontext_t *)(top - sizeof(ucontext_t) - sizeof(ucontext_t) % 64);
    getcontext(c);
    c->uc_stack.ss_sp = top - STACK_BYTES + GUARD_BYTES;
    c->uc_stack.ss_size = (size_t)((char *)c - (char *)c->uc_stack.ss_sp);
    c->uc_link = NULL;
    makecontext(c, run, 0);
    return c;
}
void context_switch(void **save, void *to)
{
    ucontext_t here;
    *save = &here; // cppcheck-suppress autoVariables ; used while this call lasts
    swapcontext(&here, (ucontext_t *)to);
}
#else
extern "C" void simt_context_switch(void **save, void *to);
static void *context_new(char *top, void (*run)())
{
    uintptr_t *frame = (uintptr_t *)(void *)(top - FRAME_PAD) - FRAME_WORDS;
    memset(frame, 0, FRAME_WORDS * sizeof *frame);
    frame[FRAME_RETURN] = (uintptr_t)run;
    return frame;
}
void context_switch(void **save, void *to)
{
    simt_context_switch(save, to);
}
#endif

void fibers_create()
{
    static char *stacks;
    if (stacks)
        return;
    void *p = mmap(NULL, (size_t)MAX_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        perror("simt: no memory for the stacks of threads");
        abort();
    }
    stacks = (char *)p;
    for (int i = 0; i < MAX_THREADS; i++) {
        char *low = stacks + (size_t)i * STACK_BYTES;
        mprotect(low, GUARD_BYTES, PROT_NONE);
        threads[i].stack = (uintptr_t)low;
        threads[i].id = i;
    }
}

/* What a new fiber runs first. */
static void (*enter_kernel)(void *arguments);
static size_t arguments_bytes;

/* Stacks begin at different offsets, so that they do not share the same few lines of the cache. */
static void *arguments_of(const struct thread *t)
{
    uintptr_t offset = (uintptr_t)t->id * 704 % 16384;
    return (void *)((t->stack + STACK_BYTES - offset - arguments_bytes) & ~(uintptr_t)63);
}

static void fiber_run()
{
    struct thread *t = simt_self;
    enter_kernel(arguments_of(t));
    thread_wait(EXITED, {NULL, 0, NULL});
}

void fiber_prepare(struct thread *t, const void *arguments, size_t bytes,
                   void (*enter)(void *arguments))
{
    enter_kernel = enter;
    arguments_bytes = bytes;
    char *top = (char *)arguments_of(t);
    memcpy(top, arguments, bytes);
    t->context = context_new(top, fiber_run);
}
