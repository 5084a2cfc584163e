/*
 * `witan bench --quality`: what narrower weights, or a narrower cache, cost in answers. A text goes
 * through the published weights with a cache in fp32, and step by step beside them through each
 * format; of both only the logits of one step are kept. One process, ranks as threads: the format's
 * group runs inside rank 0 of the published one's.
 */
#include "cli/flags.h"
#include "cli/quality.h"
#include "base/check.h"
#include "base/json.h"
#include "cli/group.h"
#include "cli/quality_stats.h"
#include "cli/quality_text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char usage[] =
    "usage: witan bench --quality DIR [--text FILE] [FLAG...]\n"
    "Compares next-token distributions over a text with those of the published weights (a KV cache "
    "in\n"
    "fp32): perplexity, KL divergence, share of equal likeliest tokens, bits a weight.\n"
    "  --text FILE        .jsonl: {\"messages\": [...]} a line; .json: a dictionary as\n"
    "                     deploy/lexicon/covered.json; else plain text (default: covered.json\n"
    "                     beside a model that ships with it)\n"
    "  --tokens N         most tokens of the text (default: 65536)\n"
    "  --context N        most tokens of a sequence (default: 512)\n"
    "  --weights W[,W...] what weights become: published, int8, int4 (default: int8,int4; "
    "published\n"
    "                     with --kv or --other)\n"
    "  --kv T[,T...]      types of the KV cache to compare (default: f32)\n"
    "  --other DIR        weights of another folder beside these, with the same tokens; may come "
    "again\n"
    "  --random-weights   none are read: DIR needs its config.json alone; errors of logits only\n"
    "  --json FILE        the figures for programs\n";

enum {
    MAX_NAMES = 4, /* of one flag's list */
    MAX_OTHERS = 8,
    MAX_FORMATS = 32,
    DEFAULT_TOKENS = 65536,
    DEFAULT_RANDOM_TOKENS = 2048,
    DEFAULT_QUALITY_CONTEXT = 512,
    WINDOW_BYTES = 64 << 20, /* of the published weights' logits that are kept */
    MAX_WINDOW_ROWS = 256,
};

/* One comparison: whose weights, and how the cache is kept. */
struct format {
    const char *dir;
    enum weight_mode weights;
    enum kv_dtype kv;
    uint64_t bytes, elements; /* of all ranks' weights */
    struct quality_figures figures;
};

struct run {
    struct group_options group; /* the published weights' */
    const char *text_path;
    char *shipped; /* text_path's, where it is owned */
    const char *json_path;
    const char *other[MAX_OTHERS];
    int32_t other_count;
    enum weight_mode weights[MAX_NAMES];
    int32_t weights_count;
    enum kv_dtype kv[MAX_NAMES];
    int32_t kv_count;
    int32_t tokens;
    struct quality_text text;
    struct format published, format[MAX_FORMATS];
    int32_t format_count;
    /* while a format is measured */
    struct format *at;
    struct engine *base, *found;
    struct quality quality;
    const int32_t *sequence; /* [length] */
    const bool *counted;
    float *window;       /* [window_rows, vocab]: logits of positions [first, base_end) */
    int32_t window_rows; /* a step's most */
    int32_t first, base_end, found_end, length, vocab;
    enum status st;
    struct error err;
};

/* --- flags --- */

static int wrong(const char *flag, const char *expected, const char *found)
{
    fprintf(stderr, "witan bench: %s: expected %s, found %s\n", flag, expected,
            found ? found : "nothing");
    return -1;
}

/* The next of names with commas between them, at *at; false at the end or where it is too long. */
static bool next_name(const char **at, char word[16])
{
    size_t n = *at ? strcspn(*at, ",") : 16;
    if (n >= 16)
        return false;
    memcpy(word, *at, n);
    word[n] = '\0';
    *at = (*at)[n] ? *at + n + 1 : NULL;
    return true;
}

static int take_kvs(struct run *r, const char *flag, const char *value)
{
    char word[16];
    const char *at = value;
    bool good = value != NULL;
    for (r->kv_count = 0; good && at && r->kv_count < MAX_NAMES;)
        good = next_name(&at, word) && kv_dtype_named(word, &r->kv[r->kv_count++]);
    return good && !at ? 1 : wrong(flag, "bf16, f32 or int8, or several with commas", value);
}

static int take_weights(struct run *r, const char *flag, const char *value)
{
    char word[16];
    const char *at = value;
    bool good = value != NULL;
    for (r->weights_count = 0; good && at && r->weights_count < MAX_NAMES;)
        good = next_name(&at, word) && weight_mode_named(word, &r->weights[r->weights_count++]);
    return good && !at ? 1 : wrong(flag, "published, int8 or int4, or several with commas", value);
}

static int take_tokens(struct run *r, const char *flag, const char *value)
{
    char *end = NULL;
    long v = value ? strtol(value, &end, 10) : 0;
    if (!value || end == value || *end || v < 2 || v > QUALITY_MAX_POSITIONS)
        return wrong(flag, "2 to 16777216", value);
    r->tokens = (int32_t)v;
    return 1;
}

/* 1: taken; 0: not a flag of this command; -1: bad, said. */
static int take_flag(struct run *r, char **argv, int *i)
{
    const char *flag = argv[*i], *value = argv[*i + 1];
    struct {
        const char *name;
        const char **out;
    } paths[] = {{"--text", &r->text_path},
                 {"--json", &r->json_path},
                 {"--other", &r->other[r->other_count]}};
    if (strcmp(flag, "--quality") == 0)
        return 1;
    if (strcmp(flag, "--random-weights") == 0) {
        r->group.random_weights = true;
        return 1;
    }
    for (size_t k = 0; k < COUNT_OF(paths); k++) {
        if (strcmp(flag, paths[k].name) != 0)
            continue;
        ++*i;
        if (!value)
            return wrong(flag, "a path", NULL);
        if (paths[k].out == &r->other[r->other_count] && r->other_count == MAX_OTHERS - 1)
            return wrong(flag, "at most 7 folders", "more");
        *paths[k].out = value;
        r->other_count += paths[k].out == &r->other[r->other_count];
        return 1;
    }
    if (strcmp(flag, "--kv") == 0)
        return ++*i, take_kvs(r, flag, value);
    if (strcmp(flag, "--weights") == 0)
        return ++*i, take_weights(r, flag, value);
    if (strcmp(flag, "--tokens") == 0)
        return ++*i, take_tokens(r, flag, value);
    return 0;
}

static bool parse(struct run *r, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        int taken = take_flag(r, argv, &i);
        if (taken == 0)
            taken = group_flag(&r->group, argc, argv, &i);
        if (taken < 0)
            return false;
        if (taken > 0)
            continue;
        if (argv[i][0] == '-' || r->group.dir) {
            fprintf(stderr, "%s%s", usage, group_help);
            return false;
        }
        r->group.dir = argv[i];
    }
    if (!r->group.dir) {
        fprintf(stderr, "%s%s", usage, group_help);
        return false;
    }
    if (strcmp(r->group.transport, "local") == 0)
        return true;
    wrong("--transport", "local: one process, ranks as its threads", r->group.transport);
    return false;
}

static enum status add_format(struct run *r, const struct format *f, struct error *err)
{
    if (f->dir == r->group.dir && f->weights == WEIGHTS_PUBLISHED && f->kv == KV_F32)
        return OK; /* the published run itself */
    if (r->format_count == MAX_FORMATS)
        return error_set(err, ERR_LIMIT, "expected at most %d formats, found more", MAX_FORMATS);
    r->format[r->format_count++] = *f;
    return OK;
}

/* What is compared: forms of the weights and other folders, with each type of the cache. */
static enum status list_formats(struct run *r, struct error *err)
{
    if (r->weights_count == 0 && r->kv_count == 0 && r->other_count == 0) {
        r->weights[r->weights_count++] = WEIGHTS_INT8;
        r->weights[r->weights_count++] = WEIGHTS_INT4;
    }
    if (r->weights_count == 0)
        r->weights[r->weights_count++] = WEIGHTS_PUBLISHED;
    if (r->kv_count == 0)
        r->kv[r->kv_count++] = KV_F32;
    for (int32_t k = 0; k < r->kv_count; k++) {
        struct format f = {.dir = r->group.dir, .kv = r->kv[k]};
        for (int32_t i = 0; i < r->weights_count; i++) {
            f.weights = r->weights[i];
            TRY(add_format(r, &f, err));
        }
        f.weights = WEIGHTS_PUBLISHED;
        for (int32_t i = 0; i < r->other_count; i++) {
            f.dir = r->other[i];
            TRY(add_format(r, &f, err));
        }
    }
    if (r->format_count > 0)
        return OK;
    return error_set(err, ERR_INVALID,
                     "nothing to compare with the published weights: add --weights, --kv or "
                     "--other");
}

/* --- the text --- */

static enum status read_text(struct run *r, struct error *err)
{
    struct model_config c;
    struct generation_config ignored;
    struct engine_limits *l = &r->group.limits;
    TRY(group_open_manifest(&r->group, err));
    TRY(config_load_proven(r->group.dir, r->group.manifest, &c, &ignored, err));
    if (l->context == 0)
        l->context = DEFAULT_QUALITY_CONTEXT < c.max_position ? DEFAULT_QUALITY_CONTEXT
                                                              : c.max_position;
    if (l->context < 2)
        return error_set(err, ERR_INVALID, "--context: expected at least 2, found %d", l->context);
    if (r->tokens == 0)
        r->tokens = r->group.random_weights ? DEFAULT_RANDOM_TOKENS : DEFAULT_TOKENS;
    r->vocab = c.vocab;
    l->max_seqs = 1;
    int64_t rows = WINDOW_BYTES / ((int64_t)c.vocab * (int64_t)sizeof(float));
    rows = rows < 1 ? 1 : rows > MAX_WINDOW_ROWS ? MAX_WINDOW_ROWS : rows;
    if (l->max_rows == 0 || l->max_rows > rows)
        l->max_rows = (int32_t)rows;
    l->max_logits = r->window_rows = l->max_rows;
    r->window = malloc((size_t)r->window_rows * (size_t)c.vocab * sizeof *r->window);
    if (!r->window)
        return error_set(err, ERR_NO_MEMORY, "no memory for a step's logits");
    struct quality_text_options o = {.dir = r->group.dir,
                                     .manifest = r->group.manifest,
                                     .vocab = c.vocab,
                                     .context = l->context,
                                     .tokens = r->tokens};
    if (r->group.random_weights)
        return quality_text_random(&o, &r->text, err);
    if (!r->text_path)
        r->text_path = r->shipped = quality_text_shipped(r->group.dir);
    if (!r->text_path)
        return error_set(err, ERR_INVALID,
                         "--text: expected a file, as none ships with %s, found nothing",
                         r->group.dir);
    o.path = r->text_path;
    return quality_text_read(&o, &r->text, err);
}

/* --- two engines, step by step --- */

static void on_token(void *user, int32_t token, enum finish finish)
{
    struct run *r = user;
    (void)token;
    if (finish == FINISH_ERROR && r->st == OK)
        r->st = error_set(&r->err, ERR_INVALID, "the model's logits are not finite");
}

static void on_base(void *user, int32_t pos, const float *logits, int32_t vocab)
{
    struct run *r = user;
    CHECK(vocab == r->vocab && pos == r->base_end && pos - r->first < r->window_rows,
          "position %d after %d, of %d ids", pos, r->base_end, vocab);
    memcpy(r->window + (size_t)(pos - r->first) * (size_t)vocab, logits,
           (size_t)vocab * sizeof *logits);
    r->base_end++;
}

static void on_found(void *user, int32_t pos, const float *logits, int32_t vocab)
{
    struct run *r = user;
    CHECK(vocab == r->vocab && pos == r->found_end && pos < r->base_end,
          "position %d after %d, of %d ids", pos, r->found_end, vocab);
    r->found_end++;
    if (pos + 1 < r->length && r->counted[pos + 1] && r->st == OK)
        r->st = quality_add(&r->quality, r->window + (size_t)(pos - r->first) * (size_t)vocab,
                            logits, vocab, r->sequence[pos + 1], &r->err);
}

/* Runs `e` until *end is `target`, or has grown where that is 0. */
static enum status advance(struct run *r, struct engine *e, const int32_t *end, int32_t target,
                           struct error *err)
{
    int32_t before = *end;
    while (*end < target || (target == 0 && *end == before)) {
        bool ran = false;
        TRY(engine_step(e, &ran, err));
        if (r->st != OK) {
            *err = r->err;
            return r->st;
        }
        CHECK(ran, "a sequence of %d ended at %d", r->length, *end);
    }
    return OK;
}

static enum status compare_sequence(struct run *r, size_t i, struct error *err)
{
    r->sequence = r->text.id + r->text.first[i];
    r->counted = r->text.counted + r->text.first[i];
    r->length = (int32_t)(r->text.first[i + 1] - r->text.first[i]);
    r->first = r->base_end = r->found_end = 0;
    struct request q = {.prompt = r->sequence,
                        .prompt_len = r->length,
                        .all_logits = true,
                        .sampling = {.top_p = 1.0f},
                        .on_token = on_token,
                        .user = r};
    TRY(quality_begin(&r->quality, err));
    q.on_logits = on_base;
    TRY(engine_submit(r->base, &q, NULL, err));
    q.on_logits = on_found;
    TRY(engine_submit(r->found, &q, NULL, err));
    while (r->base_end < r->length) {
        r->first = r->base_end;
        TRY(advance(r, r->base, &r->base_end, 0, err));
        TRY(advance(r, r->found, &r->found_end, r->base_end, err));
    }
    return OK;
}

/* What the weights of all ranks take. */
static enum status weigh(const struct model *m, struct format *f, struct error *err)
{
    struct inventory *inv = NULL;
    TRY(inventory_create(&m->config, &inv, err));
    inv->mode = m->mode;
    for (int32_t i = 0; i < m->plan->world; i++) {
        const struct rank_plan *rank = &m->plan->ranks[i];
        f->bytes += plan_memory(&m->config, inv, m->plan, rank, &m->limits).weights;
        f->elements += rank->weight_elements;
    }
    inventory_destroy(inv);
    return OK;
}

/* Rank 0 of a format's group, inside rank 0 of the published one's. */
static enum status compare(struct engine *e, struct model *m, void *arg, struct error *err)
{
    struct run *r = arg;
    r->found = e;
    TRY(weigh(m, r->at, err));
    if (m->config.vocab != r->vocab)
        return error_set(err, ERR_INVALID,
                         "%s: expected %d rows of vocabulary, as %s has, found %d", r->at->dir,
                         r->vocab, r->group.dir, m->config.vocab);
    for (size_t i = 0; i < r->text.count; i++)
        TRY(compare_sequence(r, i, err));
    quality_figures(&r->quality, &r->at->figures);
    return OK;
}

static enum status measure(struct run *r, struct format *f, struct error *err)
{
    struct group_options o = r->group;
    o.dir = f->dir;
    o.weights = f->weights;
    o.limits.kv_dtype = f->kv;
    if (f->dir != r->group.dir) { /* which the manifest does not speak of */
        o.manifest = NULL;
        o.manifest_path = o.trust = o.weights_cache = NULL;
        o.threshold = 0;
    }
    r->at = f;
    quality_init(&r->quality);
    enum status st = group_run(&o, NULL, 0, compare, r, err);
    quality_fini(&r->quality);
    return st;
}

/* --- what is said --- */

static double bits(const struct format *f)
{
    return f->elements ? 8.0 * (double)f->bytes / (double)f->elements : 0;
}

static const char *format_name(const struct run *r, const struct format *f)
{
    return f->dir == r->group.dir ? weight_mode_name(f->weights) : f->dir;
}

static void say_head(const struct run *r)
{
    printf("%s: %zu of %zu tokens in %zu sequences of at most %d (%s)\n", r->group.dir,
           r->text.counts, r->text.first[r->text.count], r->text.count, r->text.longest,
           r->text_path ? r->text_path : "random ids");
    printf("%-24s %5s %10s", "format", "bits", "MB");
    if (r->group.random_weights)
        printf(" %14s\n", "error of logits");
    else
        printf(" %11s %10s %21s %9s %9s\n", "perplexity", "log ratio", "KL, mean", "KL, p99",
               "same top");
}

static void say(const struct run *r, const struct format *f)
{
    char name[64];
    const struct quality_figures *q = &f->figures;
    bool published = f == &r->published;
    snprintf(name, sizeof name, "%s, kv %s", format_name(r, f), kv_dtype_name(f->kv));
    printf("%-24s %5.2f %10.2f", name, bits(f), (double)f->bytes * 1e-6);
    if (r->group.random_weights && !published)
        printf(" %14.3e", q->relative_error);
    else if (!r->group.random_weights && published)
        printf(" %11.5f", q->perplexity);
    else if (!published)
        printf(" %11.5f %+10.2e %9.3e +- %8.1e %9.2e %8.3f%%", q->perplexity_other, q->rise, q->kl,
               q->kl_error, q->kl_p99, q->same_top * 100);
    printf("\n");
    fflush(stdout);
}

/* A number, or null where there is none. */
static json_t *real(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *format_json(const struct run *r, const struct format *f)
{
    const struct quality_figures *q = &f->figures;
    json_t *o = json_pack("{s:s, s:s, s:s, s:I, s:o}", "dir", f->dir, "weights", format_name(r, f),
                          "kv", kv_dtype_name(f->kv), "bytes", (json_int_t)f->bytes,
                          "bits_a_weight", real(bits(f)));
    if (f == &r->published || !o) {
        if (o && !r->group.random_weights)
            json_object_set_new(o, "perplexity", real(q->perplexity));
        return o;
    }
    json_object_set_new(o, "logits_relative_error", real(q->relative_error));
    if (r->group.random_weights)
        return o;
    const struct {
        const char *key;
        double value;
    } figures[] = {{"perplexity", q->perplexity_other},
                   {"log_perplexity_ratio", q->rise},
                   {"log_perplexity_ratio_error", q->rise_error},
                   {"kl_mean", q->kl},
                   {"kl_mean_error", q->kl_error},
                   {"kl_p99", q->kl_p99},
                   {"kl_max", q->kl_max},
                   {"same_top", q->same_top}};
    for (size_t i = 0; i < COUNT_OF(figures); i++)
        json_object_set_new(o, figures[i].key, real(figures[i].value));
    return o;
}

static enum status write_json(const struct run *r, struct error *err)
{
    char date[32];
    time_t now = time(NULL);
    struct tm utc;
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    json_t *formats = json_array();
    for (int32_t i = 0; i < r->format_count; i++)
        json_array_append_new(formats, format_json(r, &r->format[i]));
    json_t *all = json_pack(
        "{s:s, s:i, s:s, s:s, s:s?, s:b, s:I, s:I, s:I, s:i, s:o, s:o}", "schema", "witan-quality",
        "version", 1, "date", date, "model", r->group.dir, "text", r->text_path, "random_weights",
        (int)r->group.random_weights, "tokens", (json_int_t)r->text.first[r->text.count],
        "positions", (json_int_t)r->format[0].figures.positions, "sequences",
        (json_int_t)r->text.count, "longest", (int)r->text.longest, "published",
        format_json(r, &r->published), "formats", formats);
    int failed = !all || json_dump_file(all, r->json_path, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    int e = errno;
    json_decref(all);
    return failed ? error_errno(err, e, "%s", r->json_path) : OK;
}

/* Rank 0 of the published weights' group. */
static enum status rank0(struct engine *e, struct model *m, void *arg, struct error *err)
{
    struct run *r = arg;
    r->base = e;
    r->published = (struct format){.dir = r->group.dir, .kv = KV_F32};
    TRY(weigh(m, &r->published, err));
    say_head(r);
    for (int32_t i = 0; i < r->format_count; i++) {
        TRY(measure(r, &r->format[i], err));
        if (i == 0) {
            r->published.figures = r->format[0].figures;
            say(r, &r->published);
        }
        say(r, &r->format[i]);
    }
    return r->json_path ? write_json(r, err) : OK;
}

int quality_main(int argc, char **argv)
{
    if (flags_ask_help(argc, argv)) {
        printf("%s%s", usage, group_help);
        return 0;
    }
    struct run r = {0};
    struct error err;
    group_init(&r.group);
    if (!parse(&r, argc, argv))
        return 2;
    r.group.limits.kv_dtype = KV_F32;
    enum status st = list_formats(&r, &err);
    if (st == OK)
        st = read_text(&r, &err);
    if (st == OK)
        st = group_run(&r.group, argv - 1, 0, rank0, &r, &err);
    group_fini(&r.group);
    quality_text_fini(&r.text);
    free(r.window);
    free(r.shipped);
    if (st == OK)
        return 0;
    fprintf(stderr, "witan bench: %s\n", err.msg);
    return 1;
}
