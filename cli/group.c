/* A worker group inside a command: see group.h. */
#include "cli/group.h"
#include "base/check.h"
#include "base/log.h"
#include "base/process.h"
#include "cli/flags.h"
#include "cli/launch.h"
#include "worker/cuda_backend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

const char group_help[] =
    "  --tp N             ranks that share attention heads (default 1)\n"
    "  --ep N             ranks that share the experts (default: the largest that works)\n"
    "  --pp N             pipeline stages (default 1)\n"
    "  --transport T      local: ranks are threads (default); mpi: processes under mpirun\n"
    "  --threads N        compute threads of a rank (default: the cores over the ranks)\n"
    "  --context N        tokens of one conversation (default: the model's, at most 8192)\n"
    "  --weights published|int8|int4\n"
    "                     what weights become in memory (default published)\n"
    "  --kv bf16|f32|int8 type of the KV cache (default bf16)\n"
    "  --max-seqs N       sequences running at once\n"
    "  --step-tokens N    tokens of one step over all sequences (default 512)\n"
    "  --chunk N          prompt tokens of one sequence a step (default: no bound)\n"
    "  --speculate N      tokens guessed ahead from the text so far, each step (default: none)\n"
    "  --device D         cpu (default) or cuda: a GPU for each rank of a machine, in turn\n"
    "  --gpu-memory F     with --device cuda: the part of a GPU that its ranks may fill (default "
    "0.9)\n"
    "  --kv-blocks N      blocks of the KV cache (default: for all sequences, or what fits a GPU)\n"
    "  --collectives C    how ranks on GPUs meet: nccl, staged (through the host) or auto "
    "(default:\n"
    "                     nccl where every rank has a GPU of its own)\n"
    "  --step-timeout N   seconds after which ranks give up GPUs that wait (nccl; default 60)\n"
    "  --fast             with --device cuda, on Hopper: faster prompts, not reproducible ones\n"
    "  --kernels K        auto, avx512vnni, avx512, avxvnni, avx2, i8mm, dotprod, neon\n"
    "                     or portable (the same tokens, bit for bit)\n"
    "  --manifest FILE    prove every byte of the folder that is read by this signed manifest\n"
    "  --trust KEYS       with --manifest: PEM public keys, a file or a folder of NAME.pem\n"
    "  --threshold N      with --manifest: how many of them must have signed (default 1)\n"
    "  --weights-cache DIR\n"
    "                     with --manifest: keep weights there as they lie in memory, for the next "
    "start\n"
    "  --verbose          say where memory and time go\n";

enum { DEFAULT_CONTEXT = 8192, DEFAULT_STEP_TOKENS = 512 };

void group_init(struct group_options *o)
{
    *o = (struct group_options){
        .layout = {.pp = 1, .tp = 1, .ep = 0, .w = 0},
        .limits = {.kv_dtype = KV_BF16},
        .transport = "local",
        .kernels = "auto",
        .collectives = "auto",
        .step_timeout_s = MODEL_STEP_TIMEOUT_S,
    };
}

void group_fini(struct group_options *o)
{
    manifest_close(o->manifest);
    o->manifest = NULL;
}

static int bad(const char *flag, const char *expected, const char *found)
{
    fprintf(stderr, "witan: %s: expected %s, found %s\n", flag, expected,
            found ? found : "nothing");
    return -1;
}

static int take_int(const char *flag, const char *value, int32_t max, int32_t *out)
{
    char *end;
    errno = 0;
    long v = value ? strtol(value, &end, 10) : 0;
    if (!value || !*value || *end || errno || v < 1 || v > max) {
        char words[64];
        snprintf(words, sizeof words, "1 to %d", max);
        return bad(flag, words, value);
    }
    *out = (int32_t)v;
    return 1;
}

int group_flag(struct group_options *o, int argc, char **argv, int *i)
{
    struct {
        const char *name;
        int32_t max;
        int32_t *out;
    } ints[] = {
        {"--tp", MAX_WORLD, &o->layout.tp},
        {"--ep", MAX_WORLD, &o->layout.ep},
        {"--pp", MAX_WORLD, &o->layout.pp},
        {"--threads", POOL_MAX_THREADS, &o->limits.threads},
        {"--context", 1 << 24, &o->limits.context},
        {"--max-seqs", 1 << 16, &o->limits.max_seqs},
        {"--step-tokens", 1 << 20, &o->limits.max_rows},
        {"--chunk", 1 << 20, &o->chunk},
        {"--speculate", MAX_GUESSES, &o->speculate},
        {"--kv-blocks", 1 << 30, &o->limits.kv_blocks},
        {"--step-timeout", 24 * 3600, &o->step_timeout_s},
        {"--threshold", MANIFEST_MAX_KEYS, &o->threshold},
    };
    struct {
        const char *name;
        const char **out;
    } paths[] = {{"--manifest", &o->manifest_path},
                 {"--trust", &o->trust},
                 {"--weights-cache", &o->weights_cache}};
    const char *flag = argv[*i], *value = *i + 1 < argc ? argv[*i + 1] : NULL;
    for (size_t k = 0; k < COUNT_OF(ints); k++) {
        if (strcmp(flag, ints[k].name) != 0)
            continue;
        ++*i;
        return take_int(flag, value, ints[k].max, ints[k].out);
    }
    for (size_t k = 0; k < COUNT_OF(paths); k++) {
        if (strcmp(flag, paths[k].name) != 0)
            continue;
        ++*i;
        *paths[k].out = value;
        return value ? 1 : bad(flag, "a path", NULL);
    }
    if (strcmp(flag, "--verbose") == 0) {
        o->verbose = true;
        return 1;
    }
    if (strcmp(flag, "--fast") == 0) {
        o->limits.fast = true;
        return 1;
    }
    if (strcmp(flag, "--kernels") != 0 && strcmp(flag, "--transport") != 0 &&
        strcmp(flag, "--kv") != 0 && strcmp(flag, "--weights") != 0 &&
        strcmp(flag, "--device") != 0 && strcmp(flag, "--gpu-memory") != 0 &&
        strcmp(flag, "--collectives") != 0)
        return 0;
    ++*i;
    if (!value)
        return bad(flag, "a name", NULL);
    if (strcmp(flag, "--kernels") == 0) {
        o->kernels = value;
    } else if (strcmp(flag, "--device") == 0) {
        if (strcmp(value, "cpu") != 0 && strcmp(value, "cuda") != 0)
            return bad(flag, "cpu or cuda", value);
        o->cuda = strcmp(value, "cuda") == 0;
    } else if (strcmp(flag, "--gpu-memory") == 0) {
        if (!flags_fraction(value, &o->limits.gpu_percent))
            return bad(flag, "0.01 to 1", value);
    } else if (strcmp(flag, "--collectives") == 0) {
        if (strcmp(value, "auto") != 0 && strcmp(value, "nccl") != 0 &&
            strcmp(value, "staged") != 0)
            return bad(flag, "auto, nccl or staged", value);
        o->collectives = value;
    } else if (strcmp(flag, "--transport") == 0) {
        if (strcmp(value, "local") != 0 && strcmp(value, "mpi") != 0)
            return bad(flag, "local or mpi", value);
        o->transport = value;
    } else if (strcmp(flag, "--weights") == 0) {
        if (!weight_mode_named(value, &o->weights))
            return bad(flag, "published, int8 or int4", value);
    } else if (!kv_dtype_named(value, &o->limits.kv_dtype)) {
        return bad(flag, "bf16, f32 or int8", value);
    }
    return 1;
}

/* --- under mpirun ------------------------------------------------------------------------------
 */

static bool in_mpi_job(void)
{
    return getenv("OMPI_COMM_WORLD_RANK") != NULL || getenv("PMIX_RANK") != NULL;
}

bool group_is_leader(void)
{
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (!rank)
        rank = getenv("PMIX_RANK");
    return !rank || strcmp(rank, "0") == 0;
}

bool group_will_exec(const struct group_options *o)
{
    return strcmp(o->transport, "mpi") == 0 && !in_mpi_job();
}

static int32_t world_size(const struct layout *l)
{
    int32_t w = l->tp > l->ep ? l->tp : l->ep;
    return l->pp * w;
}

/* Starts this command line again as `world` ranks; returns only when mpirun cannot be run. */
static enum status exec_mpirun(char **argv, int32_t world, struct error *err)
{
    char self[LAUNCH_MAX_PATH];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0)
        return error_errno(err, errno, "/proc/self/exe");
    self[n] = '\0';
    struct words words = {0};
    launch_mpirun_words(&(struct launch_mpi){.one_host = true}, &words);
    launch_ranks_words(world, NULL, 0, &words);
    words_add(&words, "%s", self);
    for (size_t i = 1; argv[i]; i++)
        words_add(&words, "%s", argv[i]);
    launch_allow_root();
    execvp(words.list[0], words.list);
    int e = errno;
    words_fini(&words);
    return error_errno(err, e, "cannot start mpirun (package openmpi-bin)");
}

/* --- running -----------------------------------------------------------------------------------
 */

struct group_run_args {
    const struct group_options *o;
    int32_t vocab_limit;
    group_fn fn;
    void *arg;
    bool spin;
};

enum status group_open_manifest(struct group_options *o, struct error *err)
{
    if (!o->manifest_path != !o->trust || (o->threshold && !o->manifest_path))
        return error_set(err, ERR_INVALID,
                         "--manifest, --trust: expected both or neither, and --threshold with them "
                         "alone");
    if (o->weights_cache && !o->manifest_path)
        return error_set(err, ERR_INVALID,
                         "--weights-cache: expected --manifest and --trust with it, whose digest "
                         "tells which weights these are, found neither");
    if (!o->manifest_path || o->manifest)
        return OK;
    TRY(manifest_open(o->manifest_path, o->dir, o->trust, o->threshold ? o->threshold : 1,
                      &o->manifest, err));
    if (o->verbose)
        log_info("manifest: SHA-256 %s, signed by %s", manifest_digest(o->manifest),
                 manifest_signers(o->manifest));
    return OK;
}

/* Checks the layout and fills in what was left open; `ranks_here` share this machine's cores. */
static enum status fill_defaults(struct group_options *o, int32_t ranks_here, bool *spin,
                                 struct error *err)
{
    struct model_config c;
    struct generation_config ignored;
    TRY(group_open_manifest(o, err));
    TRY(config_load_proven(o->dir, o->manifest, &c, &ignored, err));
    TRY(layout_check(&c, &o->layout, err));
    struct engine_limits *l = &o->limits;
    if (l->context == 0)
        l->context = c.max_position < DEFAULT_CONTEXT ? c.max_position : DEFAULT_CONTEXT;
    if (l->max_seqs == 0)
        l->max_seqs = 1;
    if (l->max_rows == 0)
        l->max_rows = DEFAULT_STEP_TOKENS;
    if (l->max_rows < l->max_seqs)
        l->max_rows = l->max_seqs;
    if (l->max_logits == 0)
        l->max_logits = plan_max_logits(l, o->speculate);
    pool_size(ranks_here, &l->threads, spin);
    return OK;
}

/* The most that this process has had resident. */
static double peak_mb(void)
{
    struct rusage used;
    return getrusage(RUSAGE_SELF, &used) == 0 ? (double)used.ru_maxrss * 1024e-6 : 0;
}

/* More only while it loads, before the rest is allocated. */
static double planned_peak(const struct model *m)
{
    uint64_t loading = m->weights->bytes + m->weights->loading_bytes;
    uint64_t total = memory_plan_total(&m->memory_plan);
    return (double)(loading > total ? loading : total);
}

/* What a GPU holds is not resident here, and told of elsewhere (worker/gpu_memory.c). */
static void log_resident(const struct model *m, uint64_t before)
{
    if (m->cuda)
        log_info("resident: %.1f MB before loading, %.1f MB now", (double)before * 1e-6,
                 (double)process_resident_bytes() * 1e-6);
    else
        log_info("resident: %.1f MB before loading, %.1f MB now, planned %.1f MB",
                 (double)before * 1e-6, (double)process_resident_bytes() * 1e-6,
                 (double)(before + memory_plan_total(&m->memory_plan)) * 1e-6);
}

static void log_peak(const struct model *m, uint64_t before)
{
    if (m->cuda)
        log_info("resident: at most %.1f MB", peak_mb());
    else
        log_info("resident: at most %.1f MB, planned %.1f MB", peak_mb(),
                 (double)before * 1e-6 + planned_peak(m) * 1e-6);
}

static enum status rank_main(struct comm *world, void *arg, struct error *err)
{
    const struct group_run_args *a = arg;
    struct model_options options = {
        .dir = a->o->dir,
        .manifest = a->o->manifest,
        .weights_cache = a->o->weights_cache,
        .weights = a->o->weights,
        .random_weights = a->o->random_weights,
        .layout = a->o->layout,
        .limits = a->o->limits,
        .kernels = a->o->kernels,
        .collectives = a->o->collectives,
        .step_timeout_s = a->o->step_timeout_s,
        .spin = a->spin,
        .progress = true,
    };
    struct model *m = NULL;
    struct engine *e = NULL;
    uint64_t before = process_resident_bytes();
    TRY(comm_agree(world, a->o->cuda ? cuda_plugin_open(NULL, &options.cuda, err) : OK, err));
    TRY(model_create(&options, world, &m, err));
    struct engine_options eo = {
        .chunk = a->o->chunk, .vocab_limit = a->vocab_limit, .speculate = a->o->speculate};
    enum status st = engine_create(m, &eo, &e, err);
    if (st == OK) {
        log_resident(m, before);
        if (world->rank == 0) {
            st = a->fn(e, m, a->arg, err);
            struct error ignored;
            enum status stop = st == ERR_PEER ? st : engine_stop(e, st == OK ? err : &ignored);
            st = st == OK ? stop : st;
        } else {
            enum engine_left ignored; /* rank 0 of a command never parks */
            st = engine_follow(e, &ignored, err);
        }
        log_peak(m, before);
    }
    engine_destroy(e);
    model_destroy(m);
    return st;
}

static enum status run_mpi(struct group_options *o, struct group_run_args *a, struct error *err)
{
    struct comm *world;
    TRY(comm_mpi_world(&world, err));
    log_set_rank(world->rank);
    const char *here = getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
    int32_t ranks_here = here && atoi(here) > 0 ? atoi(here) : world->size;
    enum status st = comm_agree(world, fill_defaults(o, ranks_here, &a->spin, err), err);
    if (st == OK)
        st = rank_main(world, a, err);
    if (st == ERR_PEER)
        world->ops->abort(world, err->msg);
    world->ops->destroy(world);
    comm_mpi_finalize();
    if (!group_is_leader())
        exit(0); /* rank 0 says what failed, once */
    return st;
}

enum status group_run(struct group_options *o, char **argv, int32_t vocab_limit, group_fn fn,
                      void *arg, struct error *err)
{
    bool mpi = strcmp(o->transport, "mpi") == 0;
    int32_t world = world_size(&o->layout);
    if (group_will_exec(o))
        return exec_mpirun(argv, world, err);
    log_set_level(o->verbose ? LOG_INFO : LOG_WARN);
    struct group_run_args a = {.o = o, .vocab_limit = vocab_limit, .fn = fn, .arg = arg};
    if (mpi)
        return run_mpi(o, &a, err);
    TRY(fill_defaults(o, world, &a.spin, err));
    return comm_local_run(world, rank_main, &a, err);
}

enum status group_sampling(const struct group_options *o, struct sampling *sampling,
                           struct shaping *shaping, struct error *err)
{
    struct model_config config;
    struct generation_config g;
    TRY(config_load_proven(o->dir, o->manifest, &config, &g, err));
    *sampling = (struct sampling){
        .temperature = g.temperature, .top_p = g.top_p, .min_p = g.min_p, .top_k = g.top_k};
    *shaping = (struct shaping){.repetition_penalty = g.repetition_penalty};
    return OK;
}
