/*
 * A step allocates nothing, and frees requests that have ended alone, once sequences run, even
 * where they give way to one another, find what others began with and evict blocks. The allocator's
 * functions are replaced in this program by ones that count the calls while the test watches; the
 * ranks are threads here, and all of theirs (and their compute threads') count. Sanitizers replace
 * the same functions: skipped.
 */
#include "tests/unit/unit.h"

#include "base/log.h"
#include "tests/unit/worker/made_words.h"
#include "worker/engine.h"

#include <execinfo.h>
#include <malloc.h>
#include <stdatomic.h>

enum { SEQS = 6, ASKED = 12, WARM_STEPS = 25, WATCHED_STEPS = 150, PROMPT = 130, KV_BLOCKS = 8 };

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

static atomic_bool watching;
static atomic_int allocations, frees;

/* glibc's own names for what we replace. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *p);

/* Says where the first few allocations were, so that a failure can be mended. */
static void count(atomic_int *counter)
{
    void *frames[16];
    if (!atomic_load(&watching) || atomic_fetch_add(counter, 1) > 2 || counter != &allocations)
        return;
    backtrace_symbols_fd(frames, backtrace(frames, 16), STDERR_FILENO);
}

void *malloc(size_t size)
{
    count(&allocations);
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    count(&allocations);
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
    count(&allocations);
    return __libc_realloc(p, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    count(&allocations);
    return __libc_memalign(alignment, size);
}

void *memalign(size_t alignment, size_t size)
{
    count(&allocations);
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    count(&allocations);
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : 12; /* ENOMEM */
}

void free(void *p)
{
    if (p)
        count(&frees);
    __libc_free(p);
}

struct told {
    int drawn, ended;
};

static struct told watched; /* in the watched steps */

static void on_token(void *user, int32_t token, enum finish finish)
{
    struct told *t = user;
    (void)token;
    t->drawn++;
    t->ended += finish != FINISH_NONE;
}

static void on_logits(void *user, int32_t pos, const float *logits, int32_t vocab)
{
    (void)user;
    (void)pos;
    (void)logits;
    (void)vocab;
}

/* Half of them greedy, half sampled with every filter, prompts of several chunks, of which every
 * second begins as others do; some must be JSON. */
static enum status submit(struct engine *e, struct told *told, struct error *err)
{
    static int32_t prompt[PROMPT];
    for (int32_t i = 0; i < ASKED; i++) {
        for (int32_t k = 0; k < PROMPT; k++)
            prompt[k] = ((i / 2 % 2 ? i * 31 : 0) + k * 17 + 5) % 200;
        struct request q = {.prompt = prompt,
                            .prompt_len = PROMPT - 5 * i,
                            .max_tokens = 60,
                            .ignore_eos = true,
                            .sampling = {.top_p = 1.0f},
                            .on_token = on_token,
                            .on_logits = on_logits,
                            .user = told};
        if (i % 2)
            q.sampling = (struct sampling){
                .temperature = 1.0f, .top_p = 0.9f, .min_p = 0.01f, .top_k = 40, .seed = 7};
        if (i % 4 == 3) {
            q.ignore_eos = false;
            q.constraint = (struct constraint){.kind = CONSTRAINT_JSON_OBJECT,
                                               .thought = CONSTRAINT_IN_THOUGHT};
        }
        TRY(engine_submit(e, &q, NULL, err));
    }
    return OK;
}

static enum status watch(struct engine *e, struct error *err)
{
    static struct told told; /* past the engine's end, which forgets the requests still there */
    bool ran;
    static const int32_t ends[] = {381};
    struct made_words words = made_words(384, ends, 1);
    TRY(engine_words(e, made_create(&words), err));
    made_free(&words);
    told = (struct told){0};
    TRY(submit(e, &told, err));
    for (int i = 0; i < WARM_STEPS; i++)
        TRY(engine_step(e, &ran, err));
    void *frames[4];
    backtrace(frames, 4); /* loads the unwinder, which allocates */
    struct told before = told;
    struct sched_stats had = engine_stats(e)->sched;
    atomic_store(&watching, true);
    for (int i = 0; i < WATCHED_STEPS; i++) {
        enum status st = engine_step(e, &ran, err);
        if (st != OK || !ran) {
            atomic_store(&watching, false);
            return st != OK ? st : error_set(err, ERR_INVALID, "the requests ended too early");
        }
    }
    atomic_store(&watching, false);
    watched = (struct told){told.drawn - before.drawn, told.ended - before.ended};
    struct sched_stats has = engine_stats(e)->sched;
    int preempted = (int)(has.preempted - had.preempted),
        evicted = (int)(has.evicted - had.evicted);
    int found = (int)(has.prefix_found - had.prefix_found);
    fprintf(stderr,
            "%d steps, %d tokens drawn, %d preemptions, %d tokens found, %d blocks evicted: %d "
            "allocations, %d frees\n",
            (int)WATCHED_STEPS, watched.drawn, preempted, found, evicted, atomic_load(&allocations),
            atomic_load(&frees));
    return watched.drawn > 0 && preempted > 0 && evicted > 0 && found > 0
               ? OK
               : error_set(err, ERR_INVALID, "not everything happened that was to be watched");
}

struct group {
    struct layout layout;
    enum weight_mode weights;
};

static enum status rank_main(struct comm *world, void *arg, struct error *err)
{
    const struct group *g = arg;
    struct model_options options = {
        .dir = WITAN_SOURCE_DIR "/tests/golden/oracle/sharded",
        .weights = g->weights,
        .layout = g->layout,
        .limits = {.max_rows = 64,
                   .max_logits = SEQS,
                   .max_seqs = SEQS,
                   .context = 256,
                   .kv_blocks = KV_BLOCKS,
                   .threads = 2,
                   .kv_dtype = KV_BF16},
        .kernels = "auto",
    };
    struct model *m = NULL;
    struct engine *e = NULL;
    TRY(model_create(&options, world, &m, err));
    enum status st = engine_create(m, &(struct engine_options){.chunk = 7}, &e, err);
    if (st == OK && world->rank == 0) {
        struct error ignored;
        st = watch(e, err);
        engine_stop(e, &ignored);
    } else if (st == OK) {
        enum engine_left ignored;
        st = engine_follow(e, &ignored, err);
    }
    engine_destroy(e);
    model_destroy(m);
    return st;
}

static void check(struct layout layout, enum weight_mode weights)
{
    struct error err = {0};
    struct group g = {layout, weights};
    log_set_level(LOG_WARN);
    if (comm_local_run(layout.pp * layout.w, rank_main, &g, &err) != OK)
        fail_msg("%s", err.msg);
    assert_int_equal(atomic_load(&allocations), 0);
    assert_int_equal(atomic_load(&frees), watched.ended);
}

/* The counters do count, in any thread and in libraries too. */
static void check_counters(void)
{
    void *frames[4];
    backtrace(frames, 4);
    atomic_store(&watching, true);
    char *copy = strdup("counted");
    free(copy);
    atomic_store(&watching, false);
    assert_int_equal(atomic_load(&allocations), 1);
    assert_int_equal(atomic_load(&frees), 1);
}

#else

static void check(struct layout layout, enum weight_mode weights)
{
    (void)layout, (void)weights;
    fprintf(stderr, "skipped: sanitizers replace the allocator themselves\n");
    exit(77);
}

static void check_counters(void)
{
    check((struct layout){0}, WEIGHTS_PUBLISHED);
}

#endif

static void counters(void **state)
{
    (void)state;
    check_counters();
}

static void one_rank(void **state)
{
    (void)state;
    check((struct layout){.pp = 1, .tp = 1, .ep = 1, .w = 1}, WEIGHTS_PUBLISHED);
}

static void two_ranks(void **state)
{
    (void)state;
    check((struct layout){.pp = 1, .tp = 2, .ep = 2, .w = 2}, WEIGHTS_PUBLISHED);
}

static void two_stages(void **state)
{
    (void)state;
    check((struct layout){.pp = 2, .tp = 2, .ep = 1, .w = 2}, WEIGHTS_PUBLISHED);
}

static void weights_in_panels(void **state)
{
    (void)state;
    check((struct layout){.pp = 1, .tp = 2, .ep = 2, .w = 2}, WEIGHTS_INT4);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(counters),   cmocka_unit_test(one_rank),          cmocka_unit_test(two_ranks),
    cmocka_unit_test(two_stages), cmocka_unit_test(weights_in_panels),
};

UNIT_MAIN(tests)
