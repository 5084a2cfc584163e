/* `witan plan`'s tables: see plan_view.h. No state. */
#include "cli/plan_view.h"
#include "partition/weight_format.h"

#include <inttypes.h>
#include <string.h>

enum { COLUMNS = 100, MOST_LAYOUTS = 24, MOST_REFUSALS = 8 };

/* --- words that all views share ----------------------------------------------------------------
 */

struct engine_limits plan_view_limits(const struct plan_view *v, const struct planner_layout *l)
{
    return planner_limits(&v->wish, l->replicas);
}

int32_t plan_view_node(const struct plan_view *v, int32_t rank)
{
    return rank / v->cluster.devices;
}

uint64_t plan_parameters(const struct plan_view *v)
{
    uint64_t n = 0;
    for (int32_t i = 0; i < v->inv->count; i++)
        n += (uint64_t)v->inv->weights[i].rows * (uint64_t)v->inv->weights[i].cols;
    return n;
}

static void format_words(const struct plan_view *v, char *words, size_t size)
{
    const struct quantization *q = &v->config->quant;
    if (q->format == FORMAT_PLAIN)
        snprintf(words, size, "%s",
                 v->from_headers ? "dtypes as in the headers" : dtype_name(v->config->dtype));
    else if (q->format == FORMAT_FP8)
        snprintf(words, size, "fp8, blocks of %d x %d", q->block_rows, q->block_cols);
    else
        snprintf(words, size, "%s, %d bits, groups of %d", weight_format_name(q->format), q->bits,
                 q->block_cols);
}

void plan_model_words(const struct plan_view *v, char *words, size_t size)
{
    const struct model_config *c = v->config;
    char format[64], experts[96] = "dense";
    format_words(v, format, sizeof format);
    if (c->experts > 0)
        snprintf(experts, sizeof experts, "%d experts of %d columns, top %d", c->experts,
                 c->moe_intermediate, c->top_k);
    snprintf(words, size,
             "%.1f billion weights (%s); %d layers; %d query and %d KV heads of %d; %s",
             (double)plan_parameters(v) * 1e-9, format, c->layers, c->q_heads, c->kv_heads,
             c->head_dim, experts);
}

/* --- pieces ------------------------------------------------------------------------------------
 */

/* Words in lines of at most COLUMNS, the first after `indent` blanks, the others four deeper. */
static void wrap(FILE *out, int indent, const char *text)
{
    int at = fprintf(out, "%*s", indent, "");
    bool first = true;
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (!first && at + 1 + n > COLUMNS) {
            at = fprintf(out, "\n%*s", indent + 4, "") - 1;
            first = true;
        }
        at += fprintf(out, "%s%.*s", first ? "" : " ", n, text);
        first = false;
        text += n + strspn(text + n, " ");
    }
    fputc('\n', out);
}

/* Bytes in one unit for a whole table, so that its numbers can be compared. */
struct unit {
    const char *name;
    double scale;
    int decimals;
};

static struct unit unit_for(uint64_t largest)
{
    return largest < UINT64_C(10000000000) ? (struct unit){"MB", 1e-6, 1}
                                           : (struct unit){"GB", 1e-9, 2};
}

static void put_bytes(FILE *out, int width, uint64_t bytes, struct unit u)
{
    fprintf(out, " %*.*f", width - 1, u.decimals, (double)bytes * u.scale);
}

static void put_range(FILE *out, int width, struct range r)
{
    char text[32] = "-";
    if (range_size(r) == 1)
        snprintf(text, sizeof text, "%d", r.begin);
    else if (range_size(r) > 1)
        snprintf(text, sizeof text, "%d-%d", r.begin, r.end - 1);
    fprintf(out, " %*s", width - 1, text);
}

static void put_count(FILE *out, int width, int64_t n)
{
    if (n == INT64_MAX)
        fprintf(out, " %*s", width - 1, "-");
    else
        fprintf(out, " %*" PRId64, width - 1, n);
}

static void put_head(FILE *out, const struct plan_view *v)
{
    char words[512], line[1024];
    plan_model_words(v, words, sizeof words);
    snprintf(line, sizeof line, "%.300s: %s", v->path, words);
    wrap(out, 0, line);
    char memory[128] = "memory not said";
    if (v->device_bytes > 0)
        snprintf(memory, sizeof memory, "%.1f GB each, of which a rank fills at most %d %%",
                 (double)v->device_bytes * 1e-9, v->usable_percent);
    bool panels = v->inv->mode == WEIGHTS_INT8 || v->inv->mode == WEIGHTS_INT4;
    snprintf(line, sizeof line,
             "%d node%s of %d device%s, %s; %s%s%s%d sequence%s of %d tokens at once, KV cache in "
             "%s, %d tokens a step",
             v->cluster.nodes, v->cluster.nodes > 1 ? "s" : "", v->cluster.devices,
             v->cluster.devices > 1 ? "s" : "", memory, panels ? "weights as " : "",
             panels ? weight_mode_name(v->inv->mode) : "", panels ? ", " : "", v->wish.sequences,
             v->wish.sequences > 1 ? "s" : "", v->wish.context, kv_dtype_name(v->wish.kv_dtype),
             v->wish.step_tokens);
    wrap(out, 0, line);
}

/* --- the survey --------------------------------------------------------------------------------
 */

static void put_layout_line(FILE *out, const struct planner_layout *p, struct unit u)
{
    const struct memory_plan *m = &p->rank.memory;
    fprintf(out, "%3d %3d %3d %6d", p->layout.pp, p->layout.tp, p->layout.ep, p->replicas);
    put_bytes(out, 8, m->weights, u);
    put_bytes(out, 9, m->kv_cache, u);
    put_bytes(out, 7, m->activations, u);
    put_bytes(out, 7, m->logits, u);
    put_bytes(out, 8, m->scratch, u);
    put_bytes(out, 8, memory_plan_total(m), u);
    put_count(out, 6, p->share);
    put_count(out, 7, p->rank.sequences);
    put_count(out, 6, p->calls);
    put_count(out, 6, p->calls_cross);
    fprintf(out, " %6.0f%s%s\n", (double)p->bytes_a_row * 1e-3, p->fits ? "" : " !",
            p->tp_crosses ? " *" : "");
}

static void put_layouts(FILE *out, const struct survey *s, int32_t most)
{
    uint64_t largest = 0;
    int32_t fit = 0;
    bool crosses = false;
    for (int32_t i = 0; i < s->layout_count; i++) {
        uint64_t total = memory_plan_total(&s->layouts[i].rank.memory);
        largest = total > largest ? total : largest;
        fit += s->layouts[i].fits;
        crosses = crosses || s->layouts[i].tp_crosses;
    }
    struct unit u = unit_for(largest);
    fprintf(
        out,
        "\n%d legal layout%s, %d fit%s. Memory in %s: what the fullest rank needs.\n\n"
        "                      memory of the fullest rank             sequences   collectives a "
        "step\n"
        " pp  tp  ep groups weights KV cache activ. logits scratch   total asked    fit calls "
        "cross kB/row\n",
        s->layout_count, s->layout_count == 1 ? "" : "s", fit, fit == 1 ? "s" : "", u.name);
    for (int32_t i = 0; i < s->layout_count && i < most; i++)
        put_layout_line(out, &s->layouts[i], u);
    if (s->layout_count > most)
        fprintf(out, "and %d more: --all\n", s->layout_count - most);
    fputs("\nasked, fit: sequences of a group, and how many whole contexts have room in it\n"
          "cross: collectives between nodes; kB/row: payload of all for one row of the batch\n",
          out);
    if (fit < s->layout_count)
        fputs("!: does not fit\n", out);
    if (crosses)
        fputs(
            "*: tensor parallelism between nodes: two waits a layer on the network between them\n",
            out);
}

static void put_refusals(FILE *out, const struct survey *s, int32_t most)
{
    if (s->refusal_count == 0)
        return;
    fprintf(out, "\nRefused (%d):\n", s->refusal_count);
    for (int32_t i = 0; i < s->refusal_count && i < most; i++) {
        const struct planner_refusal *r = &s->refusals[i];
        char line[1024];
        int n = snprintf(line, sizeof line,
                         "pp %d tp %d ep %d: %s; nearest that work:", r->layout.pp, r->layout.tp,
                         r->layout.ep, r->why);
        for (int k = 0; k < r->nearest_count; k++)
            n += snprintf(line + n, sizeof line - (size_t)n, "%s pp %d tp %d ep %d", k ? "," : "",
                          r->nearest[k].pp, r->nearest[k].tp, r->nearest[k].ep);
        wrap(out, 2, line);
    }
    if (s->refusal_count > most)
        fprintf(out, "  and %d more: --all\n", s->refusal_count - most);
}

void plan_table_survey(FILE *out, const struct plan_view *v, const struct survey *s, bool all)
{
    put_head(out, v);
    put_layouts(out, s, all ? INT32_MAX : MOST_LAYOUTS);
    put_refusals(out, s, all ? INT32_MAX : MOST_REFUSALS);
}

/* --- one layout --------------------------------------------------------------------------------
 */

static void put_holdings(FILE *out, const struct plan_view *v, const struct plan *plan)
{
    bool dense = range_size(plan->ranks[0].dense_cols) > 0;
    fprintf(out, "\nrank node stage  layers  q heads KV heads  experts   columns%s    vocabulary\n",
            dense ? " dense columns" : "");
    for (int32_t i = 0; i < plan->world; i++) {
        const struct rank_plan *r = &plan->ranks[i];
        fprintf(out, "%4d %4d %5d", i, plan_view_node(v, i), r->stage);
        put_range(out, 8, r->layers);
        put_range(out, 9, r->q_heads);
        put_range(out, 9, r->kv_heads);
        put_range(out, 9, r->experts);
        put_range(out, 10, r->moe_cols);
        if (dense)
            put_range(out, 14, r->dense_cols);
        bool holds = r->stage == 0 || r->stage == plan->layout.pp - 1;
        put_range(out, 14, holds ? r->vocab : (struct range){0, 0});
        fputc('\n', out);
    }
}

static void put_memory(FILE *out, const struct plan_view *v, const struct plan_shown *shown)
{
    struct unit u = unit_for(memory_plan_total(&shown->layout->rank.memory));
    struct engine_limits limits = plan_view_limits(v, shown->layout);
    fprintf(out,
            "\nMemory in %s, the KV cache for %d sequence%s of %d tokens; fit: whole contexts that "
            "have room\n\n"
            "rank  weights  KV cache  activations    logits   scratch     total    fit\n",
            u.name, limits.max_seqs, limits.max_seqs > 1 ? "s" : "", limits.context);
    for (int32_t i = 0; i < shown->plan->world; i++) {
        struct planner_rank r = planner_rank_of(v->config, v->inv, shown->plan,
                                                &shown->plan->ranks[i], &limits, &v->cluster);
        fprintf(out, "%4d", i);
        put_bytes(out, 9, r.memory.weights, u);
        put_bytes(out, 10, r.memory.kv_cache, u);
        put_bytes(out, 13, r.memory.activations, u);
        put_bytes(out, 10, r.memory.logits, u);
        put_bytes(out, 10, r.memory.scratch, u);
        put_bytes(out, 10, memory_plan_total(&r.memory), u);
        put_count(out, 7, r.sequences);
        fprintf(out, "%s\n", r.sequences < limits.max_seqs ? " !" : "");
    }
}

static void put_collectives(FILE *out, const struct plan_view *v, const struct plan_shown *shown)
{
    const struct plan *plan = shown->plan;
    if (plan->world == 1)
        return;
    fputs("\nCollectives of a step\n\n"
          "stage  what                                 ranks  times  bytes a row  between nodes\n",
          out);
    for (int32_t s = 0; s < plan->layout.pp; s++) {
        const struct rank_plan *r = &plan->ranks[s * plan->layout.w];
        struct plan_collective c[PLAN_MAX_COLLECTIVES];
        int n = plan_collectives(v->config, plan, r, c);
        for (int i = 0; i < n; i++)
            fprintf(out, "%5d  %-36s %5d %6d %12" PRIu64 "  %s\n", s, c[i].name, c[i].ranks,
                    c[i].count, c[i].bytes_a_row,
                    planner_crosses(plan, r, c[i].comm, &v->cluster, shown->layout->replicas)
                        ? "yes"
                        : "no");
    }
}

void plan_table_layout(FILE *out, const struct plan_view *v, const struct plan_shown *shown)
{
    const struct planner_layout *p = shown->layout;
    const struct plan *plan = shown->plan;
    put_head(out, v);
    fprintf(out,
            "\nLayout pp %d tp %d ep %d: %d ranks in %d stage%s of %d; attention tp %d x dp %d, "
            "experts ep %d x tp %d;\n%d group%s%s\n",
            p->layout.pp, p->layout.tp, p->layout.ep, plan->world, p->layout.pp,
            p->layout.pp > 1 ? "s" : "", p->layout.w, p->layout.tp, p->layout.w / p->layout.tp,
            p->layout.ep, plan->moe_tp_size, p->replicas, p->replicas > 1 ? "s" : "",
            p->fits ? "" : "; does not fit");
    put_holdings(out, v, plan);
    put_memory(out, v, shown);
    put_collectives(out, v, shown);
    if (p->tp_crosses)
        fputs(
            "\nTensor parallelism crosses nodes: two waits a layer on the network between them.\n",
            out);
}
