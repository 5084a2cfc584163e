/*
 * The cache of weights: the same bytes as loading without it, and nothing of a file that is not as
 * it was written, whichever bit of it changed.
 */
#include "tests/unit/worker/signed_model.h"

#include "worker/weights_cache.h"

#include <linux/capability.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define LEXICON WITAN_SOURCE_DIR "/deploy/lexicon/model"

static const struct layout whole = {1, 1, 1, 0};

/* What one start of a rank made of the cache. */
struct start {
    struct weights *w;
    bool loaded;
    char said[8192]; /* on standard error */
};

/* The largest file that a start may write to the cache. */
static rlim_t write_limit = RLIM_INFINITY;

static void save_limited(struct weights_cache *c)
{
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    const struct rlimit limited = {write_limit, before.rlim_max};
    if (write_limit != RLIM_INFINITY)
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limited), 0);
    weights_cache_save(c);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
}

/* Standard error goes to a file while a rank starts. */
static int catch_begin(FILE **to)
{
    int saved = dup(2);
    *to = tmpfile();
    assert_non_null(*to);
    assert_true(saved >= 0 && dup2(fileno(*to), 2) == 2);
    return saved;
}

static void catch_end(int saved, FILE *from, char *said, size_t size)
{
    assert_int_equal(dup2(saved, 2), 2);
    close(saved);
    rewind(from);
    said[fread(said, 1, size - 1, from)] = '\0';
    fclose(from);
    fputs(said, stderr);
}

/* As setup.c does; with `save` also what follows a start without a good file. */
static struct start start_in(struct memory *memory, const struct model *m, const struct plan *p,
                             int rank, const char *dir, bool save)
{
    struct start s = {0};
    struct weights_cache *c = NULL;
    struct error err;
    FILE *words = NULL;
    const struct rank_plan *r = &p->ranks[rank];
    must(weights_create(&m->config, m->inv, p, r, memory, &s.w, &err), &err);
    must(weights_cache_open(dir, m->manifest, m->inv, p, r, s.w, &c, &err), &err);
    int saved = catch_begin(&words);
    enum status st = weights_cache_load(c, NULL, &s.loaded, &err);
    if (st == OK && !s.loaded && save) {
        st = weights_load(s.w, m->inv, m->ck, p, r, NULL, NULL, NULL, NULL, &err);
        if (st == OK)
            save_limited(c);
    }
    catch_end(saved, words, s.said, sizeof s.said);
    must(st, &err);
    weights_cache_close(c);
    return s;
}

static struct start start_rank(const struct model *m, const struct plan *p, int rank,
                               const char *dir, bool save)
{
    return start_in(memory_host(), m, p, rank, dir, save);
}

/* The same, when only what it comes to is wanted. */
static bool start_loads(const struct model *m, const struct plan *p, int rank, const char *dir,
                        bool save)
{
    struct start s = start_rank(m, p, rank, dir, save);
    weights_destroy(s.w);
    return s.loaded;
}

static void check_says(const struct start *s, const char *a, const char *b)
{
    if (!strstr(s->said, a) || !strstr(s->said, b))
        fail_msg("expected \"%s\" and \"%s\" in: %s", a, b, s->said);
}

/* A start that finds the file bad: says so with these words, and takes nothing. */
static void check_bad(const struct model *m, const struct plan *p, int rank, const char *dir,
                      const char *a, const char *b)
{
    struct start s = start_rank(m, p, rank, dir, false);
    assert_false(s.loaded);
    check_says(&s, a, b);
    check_says(&s, "the checkpoint is read instead", ".weights");
    weights_destroy(s.w);
}

/* The path of the one file that this rank has in the folder. */
static const char *file_of(const struct model *m, const struct plan *p, int rank, const char *dir)
{
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];
    const struct layout *l = &p->layout;
    static const char *const modes[] = {
        [WEIGHTS_PUBLISHED] = "", [WEIGHTS_INT8] = "-int8", [WEIGHTS_INT4] = "-int4"};
    snprintf(path, sizeof paths[0], "%s/%.16s-pp%d-tp%d-ep%d-w%d-rank%d%s.weights", dir,
             manifest_digest(m->manifest), l->pp, l->tp, l->ep, l->w, rank, modes[m->inv->mode]);
    return path;
}

static struct plan *plan_of(const struct model *m, struct layout layout)
{
    struct plan *p = NULL;
    struct error err;
    must(plan_create(&m->config, m->inv, layout, &p, &err), &err);
    return p;
}

static uint64_t file_bytes(const char *path)
{
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    return (uint64_t)s.st_size;
}

/* --- the same bytes --- */

static void check_rank(const struct model *m, const struct plan *p, int rank, const char *dir)
{
    struct start first = start_rank(m, p, rank, dir, true);
    struct start second = start_rank(m, p, rank, dir, true);
    assert_false(first.loaded);
    assert_true(second.loaded);
    uint64_t bytes = first.w->bytes + first.w->vector_bytes;
    assert_int_equal(second.w->bytes + second.w->vector_bytes, bytes);
    assert_memory_equal(first.w->arena, second.w->arena, bytes);
    struct stat s;
    assert_int_equal(stat(file_of(m, p, rank, dir), &s), 0);
    assert_int_equal(s.st_mode & 07777, 0600);
    weights_destroy(first.w);
    weights_destroy(second.w);
}

static void check_layouts_as(const char *from, enum weight_mode mode)
{
    static const struct layout layouts[] = {
        {1, 1, 1, 0}, {1, 2, 1, 0}, {1, 2, 2, 0}, {2, 1, 2, 0}, {1, 1, 3, 0}};
    struct model m = model_open(from);
    struct folder cache = folder_make();
    struct error err;
    int used = 0;
    m.inv->mode = mode;
    for (size_t i = 0; i < COUNT_OF(layouts); i++) {
        struct layout layout = layouts[i];
        if (layout_check(&m.config, &layout, &err) != OK)
            continue;
        struct plan *p = plan_of(&m, layout);
        for (int r = 0; r < p->world; r++)
            check_rank(&m, p, r, cache.path);
        plan_destroy(p);
        used++;
    }
    assert_true(used > 1);
    folder_remove(&cache);
    model_close(&m);
}

static void check_layouts(const char *from)
{
    check_layouts_as(from, WEIGHTS_PUBLISHED);
}

static void equal_to_loading_without(void **state)
{
    (void)state;
    static const char *const names[] = {"dense", "fused", "sharded", "tied", "odd", "qwen2"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        check_layouts(golden(names[i]));
}

static void quantised_weights(void **state)
{
    (void)state;
    static const char *const names[] = {"fp8", "gptq_order", "awq", "gguf_k"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        check_layouts(quantised(names[i]));
}

static void panels(void **state)
{
    (void)state;
    check_layouts_as(golden("sharded"), WEIGHTS_INT8);
    check_layouts_as(golden("tied"), WEIGHTS_INT4);
    check_layouts_as(quantised("gptq"), WEIGHTS_INT4);
}

/* Each mode's file stays for its own next start, and is no other's, though it had its name. */
static void each_mode_has_its_own(void **state)
{
    (void)state;
    static const enum weight_mode modes[] = {WEIGHTS_PUBLISHED, WEIGHTS_INT8, WEIGHTS_INT4};
    struct model m = model_open(golden("sharded"));
    struct folder cache = folder_make();
    struct plan *p = plan_of(&m, whole);
    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        m.inv->mode = modes[i];
        assert_false(start_loads(&m, p, 0, cache.path, true));
    }
    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        m.inv->mode = modes[i];
        assert_true(start_loads(&m, p, 0, cache.path, false));
    }
    const char *int4 = file_of(&m, p, 0, cache.path);
    m.inv->mode = WEIGHTS_INT8;
    const char *int8 = file_of(&m, p, 0, cache.path);
    assert_int_equal(rename(int4, int8), 0);
    check_bad(&m, p, 0, cache.path, "expected", "bytes");
    plan_destroy(p);
    folder_remove(&cache);
    model_close(&m);
}

static void several_chunks(void **state)
{
    (void)state;
    check_layouts(LEXICON);
}

/* --- weights in the file's pages --- */

/* A start that found the file, as a process that may lock no memory; its exit code is the child's.
 */
static int start_without_locks(const struct model *m, const struct plan *p, const char *dir,
                               const void *bytes)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0}};
    const struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_MEMLOCK, &none) != 0 || syscall(SYS_capset, &header, data) != 0)
        return 2;
    struct start s = start_rank(m, p, 0, dir, false);
    bool good = s.loaded && !s.w->mapped && strstr(s.said, "read, not mapped") &&
                strstr(s.said, "ulimit -l unlimited") &&
                memcmp(s.w->arena, bytes, s.w->bytes + s.w->vector_bytes) == 0;
    weights_destroy(s.w);
    return good ? 0 : 1;
}

static void mapped_where_memory_may_be_locked(void **state)
{
    (void)state;
    struct model m = model_open(LEXICON);
    struct folder cache = folder_make();
    struct plan *p = plan_of(&m, whole);
    struct rlimit limit;
    int status = 0;
    start_loads(&m, p, 0, cache.path, true);
    struct start s = start_rank(&m, p, 0, cache.path, false);
    assert_true(s.loaded);
    assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
    if (geteuid() == 0 && limit.rlim_cur > s.w->bytes + s.w->vector_bytes)
        assert_true(s.w->mapped);
    pid_t child = fork();
    if (child == 0)
        _exit(start_without_locks(&m, p, cache.path, s.w->arena));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    /* The file may go, as the checkpoint's may; the pages stay. */
    char *kept = malloc(s.w->bytes);
    assert_non_null(kept);
    memcpy(kept, s.w->arena, s.w->bytes);
    assert_int_equal(unlink(file_of(&m, p, 0, cache.path)), 0);
    assert_memory_equal(kept, s.w->arena, s.w->bytes);
    weights_unmap(s.w); /* memory again, which may be written */
    assert_false(s.w->mapped);
    memset(s.w->arena, 1, s.w->bytes);
    free(kept);
    weights_destroy(s.w);
    plan_destroy(p);
    folder_remove(&cache);
    model_close(&m);
}

/* --- weights on a device --- */

/* Memory that keeps every byte inverted, so that nobody can use it in place. */
static void *far_alloc(struct memory *m, uint64_t bytes, bool zero)
{
    (void)m;
    (void)zero;
    return malloc(bytes);
}

static void far_free(struct memory *m, void *p)
{
    (void)m;
    free(p);
}

static enum status far_put(struct memory *m, void *to, uint64_t to_stride, const void *from,
                           uint64_t from_stride, uint64_t run, uint64_t rows, struct error *err)
{
    (void)m;
    (void)err;
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t i = 0; i < run; i++)
            ((uint8_t *)to)[r * to_stride + i] = (uint8_t) ~(
                (const uint8_t *)from)[r * from_stride + i];
    return OK;
}

static enum status far_get(struct memory *m, void *to, const void *from, uint64_t bytes,
                           struct error *err)
{
    return far_put(m, to, bytes, from, bytes, bytes, 1, err);
}

/* Files are the same wherever the weights lie. */
static void weights_on_a_device(void **state)
{
    (void)state;
    const char *const dirs[] = {LEXICON, quantised("gguf_k")};
    struct memory far = {.alloc = far_alloc, .free = far_free, .put = far_put, .get = far_get};
    for (size_t i = 0; i < COUNT_OF(dirs); i++) {
        struct model m = model_open(dirs[i]);
        struct folder cache = folder_make();
        struct plan *p = plan_of(&m, whole);
        struct error err;
        struct start here = start_rank(&m, p, 0, cache.path, false);
        must(weights_load(here.w, m.inv, m.ck, p, &p->ranks[0], NULL, NULL, NULL, NULL, &err),
             &err);
        struct start first = start_in(&far, &m, p, 0, cache.path, true);
        struct start second = start_in(&far, &m, p, 0, cache.path, false);
        struct start third = start_rank(&m, p, 0, cache.path, false);
        assert_true(!first.loaded && second.loaded && third.loaded);
        uint64_t bytes = here.w->bytes + here.w->vector_bytes;
        char *back = malloc(bytes);
        assert_non_null(back);
        far_get(&far, back, second.w->arena, bytes, &err);
        assert_memory_equal(back, here.w->arena, bytes);
        assert_memory_equal(third.w->arena, here.w->arena, bytes);
        free(back);
        weights_destroy(here.w);
        weights_destroy(first.w);
        weights_destroy(second.w);
        weights_destroy(third.w);
        plan_destroy(p);
        folder_remove(&cache);
        model_close(&m);
    }
}

/* --- ranks together --- */

struct world {
    const struct model *m;
    struct plan *p;
    const char *dir[8]; /* of each rank; NULL: it has no cache */
    bool loaded[8];
};

static enum status start_in_world(struct comm *comm, void *arg, struct error *err)
{
    struct world *w = arg;
    const struct model *m = w->m;
    const struct rank_plan *r = &w->p->ranks[comm->rank];
    const char *dir = w->dir[comm->rank];
    struct checkpoint *ck = NULL;
    struct weights *weights = NULL;
    struct weights_cache *c = NULL;
    bool loaded = false;
    TRY(checkpoint_open_proven(m->s.files.path, m->manifest, &ck, err));
    enum status st = weights_create(&m->config, m->inv, w->p, r, memory_host(), &weights, err);
    if (st == OK && dir)
        st = weights_cache_open(dir, m->manifest, m->inv, w->p, r, weights, &c, err);
    st = comm_agree(comm, st, err);
    if (st == OK)
        st = weights_cache_load(c, comm, &loaded, err);
    if (st == OK && !loaded) {
        st = weights_load(weights, m->inv, ck, w->p, r, comm, NULL, NULL, NULL, err);
        if (st == OK)
            weights_cache_save(c);
    }
    w->loaded[comm->rank] = loaded;
    weights_cache_close(c);
    weights_destroy(weights);
    checkpoint_close(ck);
    return st;
}

static void check_world(struct world *w, bool loaded)
{
    struct error err;
    must(comm_local_run(w->p->world, start_in_world, w, &err), &err);
    for (int r = 0; r < w->p->world; r++)
        assert_int_equal(w->loaded[r], loaded);
}

/* One rank without a good file sends all to the checkpoint, and only it writes. */
static void all_ranks_or_none(void **state)
{
    (void)state;
    struct model m = model_open(golden("sharded"));
    struct folder cache = folder_make();
    struct stat before, after;
    struct world w = {.m = &m, .p = plan_of(&m, (struct layout){1, 2, 2, 0})};
    w.dir[0] = w.dir[1] = cache.path;
    check_world(&w, false);
    check_world(&w, true);
    const char *first = file_of(&m, w.p, 0, cache.path), *second = file_of(&m, w.p, 1, cache.path);
    assert_int_equal(stat(first, &before), 0);
    assert_int_equal(unlink(second), 0);
    check_world(&w, false);
    assert_int_equal(stat(first, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    check_world(&w, true);
    flip_bit(second, file_bytes(second) - 1, 0);
    check_world(&w, false);
    check_world(&w, true);
    w.dir[1] = NULL;
    check_world(&w, false);
    plan_destroy(w.p);
    folder_remove(&cache);
    model_close(&m);
}

/* --- files that are not as they were written --- */

static void every_flip_is_found(void **state)
{
    (void)state;
    enum { HEADER = 4096, TABLE = 4096 };
    const uint64_t data = 2 << 20, chunk = LOADER_CHUNK;
    struct model m = model_open(LEXICON);
    struct folder cache = folder_make();
    struct plan *p = plan_of(&m, whole);
    start_loads(&m, p, 0, cache.path, true);
    const char *path = file_of(&m, p, 0, cache.path);
    uint64_t bytes = file_bytes(path);
    assert_true(bytes > data + chunk && bytes <= data + 2 * chunk); /* two chunks */
    const struct {
        uint64_t at;
        const char *words;
    } flips[] = {
        {0, "expected a cache of weights of this version"},
        {15, "expected a cache of weights of this version"},
        {16, "expected the key"},
        {47, "expected the key"},
        {48, "byte 48: expected "},
        {55, "byte 48: expected "},
        {56, "byte 56: expected "},
        {64, "byte 64: expected 2, found "},
        {71, "byte 64: expected 2, found "},
        {72, "expected a table as its hash says"},
        {103, "expected a table as its hash says"},
        {104, "expected zeros"},
        {HEADER - 1, "expected zeros"},
        {HEADER, "expected a table as its hash says"},
        {HEADER + 31, "expected a table as its hash says"},
        {HEADER + 32, "expected a table as its hash says"},
        {HEADER + TABLE - 1, "expected a table as its hash says"},
        {data, "chunk 0 (bytes 2097152 to 18874367)"},
        {data + chunk - 1, "chunk 0 (bytes 2097152 to 18874367)"},
        {data + chunk, "chunk 1 (bytes 18874368 to "},
        {bytes - 1, "chunk 1 (bytes 18874368 to "},
    };
    for (size_t i = 0; i < COUNT_OF(flips); i++) {
        flip_bit(path, flips[i].at, (int)(i % 8));
        check_bad(&m, p, 0, cache.path, path, flips[i].words);
        flip_bit(path, flips[i].at, (int)(i % 8));
    }
    assert_true(start_loads(&m, p, 0, cache.path, false));
    plan_destroy(p);
    folder_remove(&cache);
    model_close(&m);
}

/* A bad file is written anew. */
static void a_bad_file_is_replaced(void **state)
{
    (void)state;
    struct model m = model_open(golden("dense"));
    struct folder cache = folder_make();
    struct plan *p = plan_of(&m, whole);
    start_loads(&m, p, 0, cache.path, true);
    flip_bit(file_of(&m, p, 0, cache.path), (2 << 20) + 900, 1);
    assert_false(start_loads(&m, p, 0, cache.path, true));
    assert_true(start_loads(&m, p, 0, cache.path, true));
    plan_destroy(p);
    folder_remove(&cache);
    model_close(&m);
}

static void other_sizes(void **state)
{
    (void)state;
    struct model m = model_open(golden("dense"));
    struct folder cache = folder_make();
    struct plan *p = plan_of(&m, whole);
    start_loads(&m, p, 0, cache.path, true);
    const char *path = file_of(&m, p, 0, cache.path);
    off_t bytes = (off_t)file_bytes(path);
    const off_t sizes[] = {bytes + 1, bytes - 1, 8192, 4096, 1, 0};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        char found[64];
        snprintf(found, sizeof found, "bytes, found %lld", (long long)sizes[i]);
        assert_int_equal(truncate(path, sizes[i]), 0);
        check_bad(&m, p, 0, cache.path, path, found);
    }
    plan_destroy(p);
    folder_remove(&cache);
    model_close(&m);
}

/* Files of other ranks, layouts, models and manifests, under this one's name. */
static void files_of_others(void **state)
{
    (void)state;
    struct model m = model_open(golden("sharded"));
    folder_puts(&m.s.files, "more.txt", "more"); /* the same files, and one more */
    struct model other = model_open(m.s.files.path);
    struct folder cache = folder_make(), there = folder_make();
    struct plan *p = plan_of(&m, (struct layout){1, 2, 2, 0}), *one = plan_of(&m, whole);
    start_loads(&m, p, 0, cache.path, true);
    start_loads(&m, p, 1, cache.path, true);
    const char *first = file_of(&m, p, 0, cache.path), *second = file_of(&m, p, 1, cache.path);
    assert_int_equal(file_bytes(first), file_bytes(second)); /* so that only the key tells */
    copy_file(second, first);
    check_bad(&m, p, 0, cache.path, first, "expected the key of this manifest, layout, rank");
    start_loads(&m, one, 0, cache.path, true);
    copy_file(file_of(&m, one, 0, cache.path), first);
    check_bad(&m, p, 0, cache.path, first, "bytes, found ");
    assert_string_not_equal(manifest_digest(other.manifest), manifest_digest(m.manifest));
    start_loads(&other, p, 0, there.path, true);
    copy_file(file_of(&other, p, 0, there.path), first);
    check_bad(&m, p, 0, cache.path, first, "expected the key of this manifest");
    plan_destroy(p);
    plan_destroy(one);
    folder_remove(&cache);
    folder_remove(&there);
    model_close(&m);
    model_close(&other);
}

static void files_that_others_can_open(void **state)
{
    (void)state;
    struct model m = model_open(golden("dense"));
    struct folder cache = folder_make();
    struct plan *p = plan_of(&m, whole);
    start_loads(&m, p, 0, cache.path, true);
    char path[512];
    snprintf(path, sizeof path, "%s", file_of(&m, p, 0, cache.path));
    assert_int_equal(chmod(path, 0620), 0);
    check_bad(&m, p, 0, cache.path, path, "(mode 0600), found mode 0620");
    assert_int_equal(chmod(path, 0600), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 4242, (gid_t)-1), 0);
        check_bad(&m, p, 0, cache.path, path, "found mode 0600, user 4242");
        assert_int_equal(chown(path, 0, (gid_t)-1), 0);
    }
    assert_true(start_loads(&m, p, 0, cache.path, false));
    assert_int_equal(rename(path, folder_path(&cache, "aside")), 0);
    assert_int_equal(symlink("aside", path), 0);
    check_bad(&m, p, 0, cache.path, path, "symbolic links");
    plan_destroy(p);
    folder_remove(&cache);
    model_close(&m);
}

/* --- folders --- */

static void check_refused(const struct model *m, const char *dir, const struct manifest *manifest,
                          enum status expected, const char *a, const char *b)
{
    struct plan *p = plan_of(m, whole);
    struct weights *w = NULL;
    struct weights_cache *c = NULL;
    struct error err;
    must(weights_create(&m->config, m->inv, p, &p->ranks[0], memory_host(), &w, &err), &err);
    SAYS(weights_cache_open(dir, manifest, m->inv, p, &p->ranks[0], w, &c, &err), expected, &err, a,
         b);
    assert_null(c);
    weights_destroy(w);
    plan_destroy(p);
}

static void folders_that_are_refused(void **state)
{
    (void)state;
    struct model m = model_open(golden("dense"));
    struct folder cache = folder_make();
    check_refused(&m, cache.path, NULL, ERR_INVALID, cache.path, "expected a manifest");
    check_refused(&m, folder_path(&cache, "none"), m.manifest, ERR_NOT_FOUND,
                  "/none: weights cache", "mkdir -m 700");
    folder_puts(&cache, "file", "");
    check_refused(&m, folder_path(&cache, "file"), m.manifest, ERR_IO, "/file", "Not a directory");
    static const mode_t modes[] = {0720, 0702, 01777};
    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        char found[32];
        snprintf(found, sizeof found, "found mode %04o", (unsigned)modes[i]);
        assert_int_equal(chmod(cache.path, modes[i]), 0);
        check_refused(&m, cache.path, m.manifest, ERR_INVALID, found, "only its owner may write");
    }
    assert_int_equal(chmod(cache.path, 0755), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(cache.path, 4242, (gid_t)-1), 0);
        check_refused(&m, cache.path, m.manifest, ERR_INVALID, "found one of user 4242",
                      "a folder of user 0");
    }
    folder_remove(&cache);
    model_close(&m);
}

/* --- writing that fails --- */

static int count_files(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

/* A start whose write fails: a warning, all weights there, and no file left. */
static void check_not_written(const struct model *m, const char *dir, const char *why)
{
    struct plan *p = plan_of(m, whole);
    struct start s = start_rank(m, p, 0, dir, true);
    assert_false(s.loaded);
    check_says(&s, why, "not written, the next start reads the checkpoint");
    assert_int_equal(count_files(dir), 0);
    weights_destroy(s.w);
    plan_destroy(p);
}

static void files_may_be_too_large(void **state)
{
    (void)state;
    struct model m = model_open(golden("dense"));
    struct folder cache = folder_make();
    signal(SIGXFSZ, SIG_IGN);
    write_limit = 9000;
    check_not_written(&m, cache.path, "File too large");
    write_limit = RLIM_INFINITY;
    folder_remove(&cache);
    model_close(&m);
}

static void the_disk_may_be_full(void **state)
{
    (void)state;
    struct folder cache = folder_make();
    if (mount("tmpfs", cache.path, "tmpfs", 0, "size=64k,mode=0700") != 0) {
        rmdir(cache.path);
        fprintf(stderr, "skipped: a small file system cannot be mounted here\n");
        exit(77);
    }
    struct model m = model_open(golden("dense"));
    check_not_written(&m, cache.path, "No space left on device");
    assert_int_equal(umount(cache.path), 0);
    folder_remove(&cache);
    model_close(&m);
}

/* Killed by the kernel at its first byte past a limit. */
static void killed_while_writing(void **state)
{
    (void)state;
    struct model m = model_open(golden("dense"));
    struct folder cache = folder_make();
    struct plan *p = plan_of(&m, whole);
    int status = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGXFSZ, SIG_DFL);
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        write_limit = 9000;
        start_loads(&m, p, 0, cache.path, true);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
    /* What is left is not taken for the file, nor in the way of the next. */
    assert_int_equal(count_files(cache.path), 1); /* it had begun */
    assert_int_not_equal(access(file_of(&m, p, 0, cache.path), F_OK), 0);
    assert_false(start_loads(&m, p, 0, cache.path, true));
    assert_int_equal(count_files(cache.path), 1);
    assert_true(start_loads(&m, p, 0, cache.path, true));
    plan_destroy(p);
    folder_remove(&cache);
    model_close(&m);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(equal_to_loading_without),
    cmocka_unit_test(quantised_weights),
    cmocka_unit_test(panels),
    cmocka_unit_test(each_mode_has_its_own),
    cmocka_unit_test(several_chunks),
    cmocka_unit_test(mapped_where_memory_may_be_locked),
    cmocka_unit_test(weights_on_a_device),
    cmocka_unit_test(all_ranks_or_none),
    cmocka_unit_test(every_flip_is_found),
    cmocka_unit_test(a_bad_file_is_replaced),
    cmocka_unit_test(other_sizes),
    cmocka_unit_test(files_of_others),
    cmocka_unit_test(files_that_others_can_open),
    cmocka_unit_test(folders_that_are_refused),
    cmocka_unit_test(files_may_be_too_large),
    cmocka_unit_test(the_disk_may_be_full),
    cmocka_unit_test(killed_while_writing),
};

UNIT_MAIN(tests)
