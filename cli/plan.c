/*
 * `witan plan`: the layouts that a model can have on given devices, from its config.json alone:
 * no weights, no GPU. Where the folder holds safetensors their headers say the dtypes.
 */
#include "base/buf.h"
#include "base/check.h"
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/plan_view.h"
#include "partition/weight_format.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage[] =
    "usage: witan plan DIR|config.json [FLAG...]\n"
    "The layouts that are legal for a model on given devices, the memory of the fullest rank by\n"
    "purpose, what a step says between ranks, and what is refused with the nearest that works.\n"
    "Needs no weights and no GPU.\n"
    "  --gpus N           GPUs of a node (default 8)\n"
    "  --nodes N          nodes (default 1)\n"
    "  --gpu-memory SIZE  of one GPU: 141GB, 80GiB, or H200, H100, A100-80, A100-40\n"
    "  --ranks N          instead of --gpus: ranks on CPUs\n"
    "  --memory SIZE      instead of --gpu-memory: what one rank has\n"
    "  --usable PERCENT   of that memory that a rank may fill (default 90; 85 with --ranks)\n"
    "  --tp, --ep, --pp N only layouts with these; all three: that layout, rank by rank\n"
    "  --layout L         that layout, rank by rank: tp=8,ep=8,pp=2 (pp 1 and the largest ep if\n"
    "                     left out; w= for ranks of a stage)\n"
    "  --context N        tokens of one sequence (default: the model's, at most 32768)\n"
    "  --concurrency N    sequences at once, over all groups (default 16)\n"
    "  --step-tokens N    tokens of one step of a group (default 512)\n"
    "  --weights published|int8|int4\n"
    "                     with --ranks: what weights become in memory (default published)\n"
    "  --kv bf16|f32|int8 type of the KV cache (default bf16)\n"
    "  --threads N        compute threads of a rank, for scratch memory (default 1)\n"
    "  --all              every layout, also those that leave devices idle; every refusal\n"
    "  --json             the same as JSON, bytes as numbers\n"
    "  --svg FILE         who holds what of one layout (the first that is listed), as a drawing\n";

enum {
    CONFIG_LIMIT_BYTES = 16 << 20,
    DEFAULT_CONTEXT = 32768,
    DEFAULT_SEQUENCES = 16,
    DEFAULT_STEP_TOKENS = 512,
    DEFAULT_DEVICES = 8,
    GPU_PERCENT = 90, /* the rest: driver, NCCL's buffers, graphs */
    CPU_PERCENT = 85, /* as a coordinator sizes KV caches */
};

struct plan_flags {
    const char *path;
    const char *gpus, *nodes, *gpu_memory, *ranks, *memory, *usable;
    const char *tp, *ep, *pp, *layout;
    const char *context, *concurrency, *step_tokens, *weights, *kv, *threads, *svg;
    bool all, json;
};

/* Numbers out of the flags; 0 = not given. */
struct plan_numbers {
    struct layout layout;
    bool exact; /* one layout, rank by rank */
    int gpus, nodes, ranks, usable, context, concurrency, step_tokens, threads;
    uint64_t memory_bytes;
    enum weight_mode weights;
    enum kv_dtype kv;
};

/* --- flags -------------------------------------------------------------------------------------
 */

static bool bad(const char *flag, const char *expected, const char *found)
{
    fprintf(stderr, "witan plan: %s: expected %s, found \"%s\"\n", flag, expected, found);
    return false;
}

/* Sizes as data sheets print them: decimal, and so a little less than the driver reports. */
static bool read_memory(const char *flag, const char *text, uint64_t *out)
{
    static const struct {
        const char *name;
        double bytes;
    } names[] = {{"H200", 141e9}, {"H100", 80e9}, {"A100-80", 80e9}, {"A100-40", 40e9}},
      units[] = {{"GB", 1e9}, {"GiB", 0x1p30}, {"MB", 1e6}, {"MiB", 0x1p20}, {"TB", 1e12}};
    double value = 0;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (strcmp(text, names[i].name) == 0)
            value = names[i].bytes;
    size_t digits = strspn(text, "0123456789.");
    for (size_t i = 0; i < COUNT_OF(units) && digits > 0 && digits < 16; i++)
        if (strcmp(text + digits, units[i].name) == 0)
            value = strtod(text, NULL) * units[i].bytes;
    if (!(value >= 1e6 && value <= 1e15))
        return bad(flag, "a size such as 141GB or 80GiB, or H200, H100, A100-80 or A100-40", text);
    *out = (uint64_t)value;
    return true;
}

static bool read_int(const char *flag, const char *text, int max, int *out)
{
    return !text || flags_int("witan plan", flag, text, 1, max, out);
}

/* "tp=8,ep=8,pp=2": each at most once. */
static bool read_layout(const char *text, struct layout *l)
{
    static const char expected[] = "tp=N, ep=N, pp=N or w=N, with commas between them";
    struct {
        const char *name;
        int32_t *out;
    } const keys[] = {{"tp=", &l->tp}, {"ep=", &l->ep}, {"pp=", &l->pp}, {"w=", &l->w}};
    const char *at = text;
    do {
        int32_t *out = NULL;
        for (size_t i = 0; i < COUNT_OF(keys); i++)
            if (strncmp(at, keys[i].name, strlen(keys[i].name)) == 0)
                out = keys[i].out;
        at += strcspn(at, "=") + (out != NULL);
        size_t digits = out ? strspn(at, "0123456789") : 0;
        long value = digits > 0 && digits < 6 ? strtol(at, NULL, 10) : 0;
        if (!out || *out || value < 1 || value > MAX_WORLD || (at[digits] && at[digits] != ','))
            return bad("--layout", expected, text);
        *out = (int32_t)value;
        at += digits;
    } while (*at++ == ',');
    l->pp = l->pp ? l->pp : 1;
    l->tp = l->tp ? l->tp : 1;
    return true;
}

static bool read_numbers(const struct plan_flags *f, struct plan_numbers *n)
{
    *n = (struct plan_numbers){.kv = KV_BF16};
    bool good = read_int("--gpus", f->gpus, MAX_WORLD, &n->gpus) &&
                read_int("--nodes", f->nodes, MAX_WORLD, &n->nodes) &&
                read_int("--ranks", f->ranks, MAX_WORLD, &n->ranks) &&
                read_int("--usable", f->usable, 100, &n->usable) &&
                read_int("--tp", f->tp, MAX_WORLD, &n->layout.tp) &&
                read_int("--ep", f->ep, MAX_WORLD, &n->layout.ep) &&
                read_int("--pp", f->pp, MAX_WORLD, &n->layout.pp) &&
                read_int("--context", f->context, 1 << 24, &n->context) &&
                read_int("--concurrency", f->concurrency, 1 << 20, &n->concurrency) &&
                read_int("--step-tokens", f->step_tokens, 1 << 20, &n->step_tokens) &&
                read_int("--threads", f->threads, 1024, &n->threads);
    if (!good)
        return false;
    if (f->gpus && f->ranks)
        return bad("--ranks", "not together with --gpus", f->ranks);
    if (f->gpu_memory && f->memory)
        return bad("--memory", "not together with --gpu-memory", f->memory);
    if (f->layout && (f->tp || f->ep || f->pp))
        return bad("--layout", "not together with --tp, --ep or --pp", f->layout);
    if (f->gpu_memory && !read_memory("--gpu-memory", f->gpu_memory, &n->memory_bytes))
        return false;
    if (f->memory && !read_memory("--memory", f->memory, &n->memory_bytes))
        return false;
    if (f->weights && !weight_mode_named(f->weights, &n->weights))
        return bad("--weights", "published, int8 or int4", f->weights);
    if (n->weights != WEIGHTS_PUBLISHED && !f->ranks)
        return bad("--weights", "published of GPUs, or --ranks with it", f->weights);
    if (f->kv && !kv_dtype_named(f->kv, &n->kv))
        return bad("--kv", "bf16, f32 or int8", f->kv);
    n->exact = f->layout || (f->tp && f->ep && f->pp);
    return !f->layout || read_layout(f->layout, &n->layout);
}

/* Takes --all and --json out of argv, which flags.h does not know, and reads the others. */
static bool read_flags(int argc, char **argv, struct plan_flags *f)
{
    const struct flag flags[] = {{"--gpus", &f->gpus},
                                 {"--nodes", &f->nodes},
                                 {"--gpu-memory", &f->gpu_memory},
                                 {"--ranks", &f->ranks},
                                 {"--memory", &f->memory},
                                 {"--usable", &f->usable},
                                 {"--tp", &f->tp},
                                 {"--ep", &f->ep},
                                 {"--pp", &f->pp},
                                 {"--layout", &f->layout},
                                 {"--context", &f->context},
                                 {"--concurrency", &f->concurrency},
                                 {"--step-tokens", &f->step_tokens},
                                 {"--weights", &f->weights},
                                 {"--kv", &f->kv},
                                 {"--threads", &f->threads},
                                 {"--svg", &f->svg},
                                 {NULL, &f->path},
                                 {0}};
    int kept = 1;
    for (int i = 1; i < argc; i++) {
        bool all = strcmp(argv[i], "--all") == 0, json = strcmp(argv[i], "--json") == 0;
        f->all = f->all || all;
        f->json = f->json || json;
        if (!all && !json)
            argv[kept++] = argv[i];
    }
    return flags_read("witan plan", kept, argv, 1, flags);
}

/* --- the model ---------------------------------------------------------------------------------
 */

struct plan_model {
    struct model_config config;
    struct inventory *inv;
    bool from_headers;
};

static enum status load_config(const char *path, bool *is_folder, struct model_config *config,
                               struct error *err)
{
    struct stat st;
    struct generation_config ignored;
    if (stat(path, &st) != 0)
        return error_errno(err, errno, "%s", path);
    *is_folder = S_ISDIR(st.st_mode);
    if (*is_folder)
        return config_load(path, config, &ignored, err);
    char *text;
    size_t len;
    TRY(file_read_all(path, CONFIG_LIMIT_BYTES, &text, &len, err));
    enum status parsed = config_parse(path, text, len, config, err);
    free(text);
    return parsed;
}

static bool has_weights(const char *dir)
{
    static const char *const files[] = {"model.safetensors", "model.safetensors.index.json"};
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        char path[PATH_MAX];
        int n = snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        if (n > 0 && n < PATH_MAX && access(path, R_OK) == 0)
            return true;
    }
    return checkpoint_is_gguf(dir, NULL);
}

/* What the headers say, where they can be read; else a word, and what the config says. */
static enum status bind_headers(const char *dir, struct plan_model *m, struct error *err)
{
    struct checkpoint *ck = NULL;
    struct error why;
    if (!has_weights(dir))
        return OK;
    m->from_headers = checkpoint_open(dir, &ck, &why) == OK &&
                      inventory_bind(m->inv, &m->config, ck, &why) == OK;
    checkpoint_close(ck);
    if (m->from_headers)
        return OK;
    bool plain = m->config.quant.format == FORMAT_PLAIN;
    fprintf(stderr, "witan plan: weights are counted as %s: %s\n",
            plain ? dtype_name(m->config.dtype) : weight_format_name(m->config.quant.format),
            why.msg);
    inventory_destroy(m->inv);
    m->inv = NULL;
    return inventory_create(&m->config, &m->inv, err);
}

static enum status load_model(const char *path, struct plan_model *m, struct error *err)
{
    bool is_folder = false;
    TRY(load_config(path, &is_folder, &m->config, err));
    TRY(inventory_create(&m->config, &m->inv, err));
    return is_folder ? bind_headers(path, m, err) : OK;
}

/* --- planning ----------------------------------------------------------------------------------
 */

static enum status make_view(const struct plan_flags *f, const struct plan_numbers *n,
                             const struct plan_model *m, struct plan_view *v, struct error *err)
{
    const struct layout *l = &n->layout;
    int32_t largest = l->tp > l->ep ? l->tp : l->ep, longest = m->config.max_position;
    int32_t world = l->pp * (l->w ? l->w : largest);
    int32_t devices = n->ranks                ? n->ranks
                      : n->gpus               ? n->gpus
                      : n->exact && !f->nodes ? world
                                              : DEFAULT_DEVICES;
    int32_t nodes = n->nodes ? n->nodes : 1;
    if ((int64_t)nodes * devices > MAX_WORLD || world > MAX_WORLD)
        return error_set(err, ERR_LIMIT, "expected at most %d devices, found %lld", MAX_WORLD,
                         (long long)nodes * devices);
    if (n->context)
        TRY(plan_check_context(&m->config, "--context", n->context, n->kv, err));
    int percent = n->usable ? n->usable : n->ranks ? CPU_PERCENT : GPU_PERCENT;
    *v = (struct plan_view){
        .path = f->path,
        .config = &m->config,
        .inv = m->inv,
        .from_headers = m->from_headers,
        .cluster = {nodes, devices, n->memory_bytes / 100 * (uint64_t)percent},
        .device_bytes = n->memory_bytes,
        .usable_percent = percent,
        .wish = {.layout = n->layout,
                 .all = f->all || l->tp || l->ep || l->pp,
                 .sequences = n->concurrency ? n->concurrency : DEFAULT_SEQUENCES,
                 .context = n->context                  ? n->context
                            : longest < DEFAULT_CONTEXT ? longest
                                                        : DEFAULT_CONTEXT,
                 .step_tokens = n->step_tokens ? n->step_tokens : DEFAULT_STEP_TOKENS,
                 .threads = n->threads ? n->threads : 1,
                 .kv_dtype = n->kv},
    };
    return OK;
}

static enum status write_svg(const char *path, const struct plan_view *v,
                             const struct plan_shown *shown, struct error *err)
{
    FILE *out = fopen(path, "we");
    if (!out)
        return error_errno(err, errno, "%s", path);
    plan_svg(out, v, shown);
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed)
        return error_set(err, ERR_IO, "%s: cannot write", path);
    return OK;
}

static enum status write_json(json_t *o, struct error *err)
{
    int failed = json_dumpf(o, stdout, JSON_INDENT(2));
    json_decref(o);
    if (failed)
        return error_set(err, ERR_IO, "standard output: cannot write");
    putchar('\n');
    return OK;
}

/* `print`: on standard output; the drawing in any case, where one is asked for. */
static enum status show_layout(const struct plan_flags *f, const struct plan_view *v,
                               struct layout layout, bool print, struct error *err)
{
    struct planner_layout p = {0};
    struct plan *plan = NULL;
    TRY(planner_layout_of(v->config, v->inv, &v->cluster, &v->wish, layout, &p, &plan, err));
    const struct plan_shown shown = {&p, plan};
    enum status st = OK;
    if (print && f->json)
        st = write_json(plan_json_layout(v, &shown), err);
    else if (print)
        plan_table_layout(stdout, v, &shown);
    if (st == OK && f->svg)
        st = write_svg(f->svg, v, &shown, err);
    plan_destroy(plan);
    return st;
}

/* Why no layout is left: as the refusal of what was asked for. */
static enum status refuse(const struct plan_view *v, const struct survey *s, struct error *err)
{
    struct planner_layout ignored;
    const struct layout *wish = &v->wish.layout;
    struct layout l = {
        .pp = wish->pp ? wish->pp : 1, .tp = wish->tp ? wish->tp : 1, .ep = wish->ep};
    if (s->refusal_count > 0)
        l = s->refusals[0].layout;
    enum status st = planner_layout_of(v->config, v->inv, &v->cluster, &v->wish, l, &ignored, NULL,
                                       err);
    return st != OK ? st
                    : error_set(err, ERR_INVALID, "no layout of %d ranks is like that",
                                v->cluster.nodes * v->cluster.devices);
}

static enum status show_survey(const struct plan_flags *f, const struct plan_view *v,
                               struct error *err)
{
    struct survey *s = NULL;
    enum status st = planner_survey(v->config, v->inv, &v->cluster, &v->wish, &s, err);
    if (st == OK && s->layout_count == 0)
        st = refuse(v, s, err);
    else if (st == OK && f->json)
        st = write_json(plan_json_survey(v, s), err);
    else if (st == OK)
        plan_table_survey(stdout, v, s, f->all);
    if (st == OK && f->svg)
        st = show_layout(f, v, s->layouts[0].layout, false, err);
    survey_destroy(s);
    return st;
}

static enum status plan(const struct plan_flags *f, const struct plan_numbers *n, struct error *err)
{
    struct plan_model m = {0};
    struct plan_view v = {0};
    enum status st;
    TRY_OUT(st, load_model(f->path, &m, err));
    m.inv->mode = n->ranks == 0 ? WEIGHTS_PACKED : n->weights; /* ranks are CPUs' */
    TRY_OUT(st, make_view(f, n, &m, &v, err));
    TRY_OUT(st, n->exact ? show_layout(f, &v, n->layout, true, err) : show_survey(f, &v, err));
    if (fflush(stdout) != 0)
        st = error_set(err, ERR_IO, "standard output: cannot write");
out:
    inventory_destroy(m.inv);
    return st;
}

int cmd_plan(int argc, char **argv)
{
    struct plan_flags f = {0};
    struct plan_numbers n;
    if (flags_ask_help(argc, argv)) {
        fputs(usage, stdout);
        return 0;
    }
    if (!read_flags(argc, argv, &f))
        return 2;
    if (!f.path) {
        fputs(usage, stderr);
        return 2;
    }
    if (!read_numbers(&f, &n))
        return 2;
    struct error err;
    if (plan(&f, &n, &err) != OK) {
        fprintf(stderr, "witan plan: %s\n", err.msg);
        return 1;
    }
    return 0;
}
