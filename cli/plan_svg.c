/*
 * `witan plan --svg`: ranks as columns; of each, one under the other, its memory by purpose and its
 * part of the layers, heads, experts and vocabulary as blocks in a frame that is the whole. No
 * state.
 */
#include "base/check.h"
#include "cli/plan_view.h"
#include "cli/svg.h"

#include <inttypes.h>
#include <string.h>

/* Sizes in user units. */
enum {
    LEFT = 96,
    TOP = 74,
    PITCH = 72,
    FRAME = 58,
    A_ROW = 16, /* ranks in a row of columns */
    HEAD = 34,
    GAP = 24, /* with the label of the block above */
    FOOT = 16,
    LEGEND = 30,
};

/* X(enumerator, words, height) */
#define TRACKS(X)                                                                                  \
    X(TRACK_MEMORY, "memory", 130)                                                                 \
    X(TRACK_LAYERS, "layers", 94)                                                                  \
    X(TRACK_Q, "query heads", 64)                                                                  \
    X(TRACK_KV, "KV heads", 40)                                                                    \
    X(TRACK_EXPERTS, "experts", 128)                                                               \
    X(TRACK_VOCAB, "vocabulary", 64)

enum track {
#define X(name, words, height) name,
    TRACKS(X)
#undef X
        TRACK_COUNT
};

static const struct {
    const char *words;
    int height;
} tracks[] = {
#define X(name, words, height) {words, height},
    TRACKS(X)
#undef X
};

/* The classes of blocks, and the colours of one scheme. They are written out for each scheme: few
 * viewers but browsers know variables. */
static const char block_classes[] = "wkalsyqveb";

struct scheme {
    const char *ink, *paper, *rim;
    const char *fills[sizeof block_classes - 1];
};

static const struct scheme light = {"#1b1f24",
                                    "#ffffff",
                                    "#8a929b",
                                    {"#7da7d9", "#f0b95a", "#8cc084", "#cfa3c8", "#c4bab0",
                                     "#9ecae1", "#a1d99b", "#fdbe9c", "#bcbddc", "#f7d87c"}};
static const struct scheme dark = {"#e8eaed",
                                   "#16191d",
                                   "#7d858e",
                                   {"#3f6a9c", "#8f6414", "#3c7536", "#7a4f72", "#5e564f",
                                    "#31688c", "#33713b", "#94502c", "#5a5694", "#80600f"}};

static void put_scheme(FILE *out, const struct scheme *s)
{
    fprintf(out, "text{fill:%s}.p{fill:%s}.f{stroke:%s}.x,.m{stroke:%s}\n", s->ink, s->paper,
            s->rim, s->ink);
    for (size_t i = 0; i < COUNT_OF(s->fills); i++)
        fprintf(out, ".%c{fill:%s}", block_classes[i], s->fills[i]);
    fputc('\n', out);
}

static void put_style(FILE *out)
{
    fputs("<style>\n"
          "text{font:10.5px sans-serif}.h{font-size:15px;font-weight:bold}\n"
          ".c{text-anchor:middle}.r{text-anchor:end}.f{fill:none;stroke-width:.8}\n"
          ".x{stroke-width:.6}.m{stroke-width:1;stroke-dasharray:4 2}\n",
          out);
    put_scheme(out, &light);
    fputs("@media screen and (prefers-color-scheme:dark){\n", out);
    put_scheme(out, &dark);
    fputs("}\n</style>\n", out);
}

/* One rank's place in the drawing. */
struct column {
    FILE *out;
    const struct plan_view *v;
    const struct plan_shown *shown;
    const struct rank_plan *rank;
    double x, y; /* of its head */
};

static int track_top(enum track t)
{
    int y = HEAD;
    for (int i = 0; i < (int)t; i++)
        y += tracks[i].height + GAP;
    return y;
}

static int row_height(void)
{
    return track_top(TRACK_COUNT) + FOOT;
}

static void put_frame(const struct column *c, enum track t)
{
    fprintf(c->out, "<rect class=\"f\" x=\"%g\" y=\"%g\" width=\"%d\" height=\"%d\"/>\n", c->x,
            c->y + track_top(t), FRAME, tracks[t].height);
}

/* A block from (x0, y0) to (x1, y1), in parts of the track's frame, with its title. */
static void open_block(const struct column *c, enum track t, char class, double x0, double y0,
                       double x1, double y1)
{
    double h = tracks[t].height, top = c->y + track_top(t);
    fprintf(c->out,
            "<rect class=\"x %c\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\"><title>",
            class, c->x + x0 * FRAME, top + y0 * h, (x1 - x0) * FRAME, (y1 - y0) * h);
}

static void close_block(const struct column *c)
{
    fputs("</title></rect>\n", c->out);
}

/* What the block says, under the frame. */
static void put_label(const struct column *c, enum track t, const char *text)
{
    fprintf(c->out, "<text class=\"c\" x=\"%g\" y=\"%g\">%s</text>\n", c->x + FRAME / 2.0,
            c->y + track_top(t) + tracks[t].height + 12, text);
}

/* [begin, end) of `total` as a block over the frame's whole width. */
static void put_share(const struct column *c, enum track t, char class, const char *what,
                      struct range r, int32_t total)
{
    put_frame(c, t);
    if (range_size(r) == 0)
        return;
    char label[32];
    double y0 = (double)r.begin / total, y1 = (double)r.end / total;
    open_block(c, t, class, 0, y0, 1, y1);
    fprintf(c->out, "rank %d: %s %d to %d of %d", c->rank->rank, what, r.begin, r.end - 1, total);
    close_block(c);
    if (total > 9999) /* too wide for two numbers */
        snprintf(label, sizeof label, "%d%s", range_size(r), t == TRACK_VOCAB ? " rows" : "");
    else
        snprintf(label, sizeof label, range_size(r) > 1 ? "%d-%d" : "%d", r.begin, r.end - 1);
    put_label(c, t, label);
}

/* Experts downwards, their columns from left to right. */
static void put_experts(const struct column *c)
{
    const struct rank_plan *r = c->rank;
    const struct model_config *m = c->v->config;
    put_frame(c, TRACK_EXPERTS);
    if (range_size(r->experts) == 0 || range_size(r->moe_cols) == 0)
        return;
    double x = m->moe_intermediate, y = m->experts;
    char label[32];
    open_block(c, TRACK_EXPERTS, 'e', r->moe_cols.begin / x, r->experts.begin / y,
               r->moe_cols.end / x, r->experts.end / y);
    fprintf(c->out, "rank %d: experts %d to %d of %d, columns %d to %d of %d", r->rank,
            r->experts.begin, r->experts.end - 1, m->experts, r->moe_cols.begin,
            r->moe_cols.end - 1, m->moe_intermediate);
    close_block(c);
    snprintf(label, sizeof label, "%d-%d", r->experts.begin, r->experts.end - 1);
    put_label(c, TRACK_EXPERTS, label);
}

/* Purposes stacked from the bottom; the dashed line is what a rank may fill. */
static void put_memory(const struct column *c, uint64_t scale)
{
    static const char classes[] = {'w', 'k', 'a', 'l', 's'};
    struct engine_limits limits = plan_view_limits(c->v, c->shown->layout);
    struct planner_rank needs = planner_rank_of(c->v->config, c->v->inv, c->shown->plan, c->rank,
                                                &limits, &c->v->cluster);
    const struct {
        const char *words;
        uint64_t bytes;
    } purposes[] = {
#define X(field, words) {words, needs.memory.field},
        MEMORY_PURPOSES(X)
#undef X
    };
    char label[32];
    double at = 1, full = (double)scale;
    _Static_assert(COUNT_OF(purposes) == COUNT_OF(classes), "a colour for each purpose");
    put_frame(c, TRACK_MEMORY);
    for (size_t i = 0; i < COUNT_OF(purposes); i++) {
        double part = (double)purposes[i].bytes / full;
        open_block(c, TRACK_MEMORY, classes[i], 0, at - part, 1, at);
        fprintf(c->out, "rank %d: %s, %.3f GB", c->rank->rank, purposes[i].words,
                (double)purposes[i].bytes * 1e-9);
        close_block(c);
        at -= part;
    }
    if (c->v->cluster.memory_bytes > 0) {
        double y = c->y + track_top(TRACK_MEMORY) +
                   (1 - (double)c->v->cluster.memory_bytes / full) * tracks[TRACK_MEMORY].height;
        fprintf(c->out, "<line class=\"m\" x1=\"%g\" y1=\"%.2f\" x2=\"%g\" y2=\"%.2f\"/>\n",
                c->x - 3, y, c->x + FRAME + 3, y);
    }
    double total = (double)memory_plan_total(&needs.memory);
    snprintf(label, sizeof label, total < 1e9 ? "%.0f MB" : "%.1f GB",
             total < 1e9 ? total * 1e-6 : total * 1e-9);
    put_label(c, TRACK_MEMORY, label);
}

static void put_column(const struct column *c, uint64_t scale)
{
    const struct rank_plan *r = c->rank;
    const struct model_config *m = c->v->config;
    int32_t last = c->shown->plan->layout.pp - 1;
    bool vocab = r->stage == 0 || r->stage == last;
    fprintf(c->out,
            "<text class=\"c\" x=\"%g\" y=\"%g\">rank %d</text>"
            "<text class=\"c\" x=\"%g\" y=\"%g\">node %d</text>\n",
            c->x + FRAME / 2.0, c->y + 12, r->rank, c->x + FRAME / 2.0, c->y + 26,
            plan_view_node(c->v, r->rank));
    put_memory(c, scale);
    put_share(c, TRACK_LAYERS, 'y', "layers", r->layers, m->layers);
    put_share(c, TRACK_Q, 'q', "query heads", r->q_heads, m->q_heads);
    put_share(c, TRACK_KV, 'v', "KV heads", r->kv_heads, m->kv_heads);
    if (m->experts > 0)
        put_experts(c);
    else
        put_share(c, TRACK_EXPERTS, 'e', "FFN columns", r->dense_cols, m->intermediate);
    put_share(c, TRACK_VOCAB, 'b',
              r->stage == 0 && last == 0 ? "embedding and lm_head, rows"
              : r->stage == 0            ? "embedding, rows"
                                         : "lm_head, rows",
              vocab ? r->vocab : (struct range){0, 0}, m->vocab);
}

static void put_legend(FILE *out, int y)
{
    static const struct {
        char class;
        const char *words;
    } keys[] = {
        {'w', "weights"}, {'k', "KV cache"}, {'a', "activations"},
        {'l', "logits"},  {'s', "scratch"},
    };
    int x = LEFT;
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        fprintf(out,
                "<rect class=\"x %c\" x=\"%d\" y=\"%d\" width=\"11\" height=\"11\"/>"
                "<text x=\"%d\" y=\"%d\">%s</text>\n",
                keys[i].class, x, y, x + 16, y + 10, keys[i].words);
        x += 98;
    }
    fprintf(out,
            "<line class=\"m\" x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\"/>"
            "<text x=\"%d\" y=\"%d\">what a rank may fill</text>\n",
            x, y + 6, x + 24, y + 6, x + 30, y + 10);
}

static void put_heading(FILE *out, const struct plan_view *v, const struct plan_shown *shown,
                        int width, int height)
{
    const struct layout *l = &shown->plan->layout;
    char words[512];
    plan_model_words(v, words, sizeof words);
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
            "height=\"%d\" role=\"img\">\n<title>Who holds what: pp %d tp %d ep %d of ",
            width, height, width, height, l->pp, l->tp, l->ep);
    svg_escaped(out, v->path);
    fputs("</title>\n", out);
    put_style(out);
    fprintf(out, "<rect class=\"p\" width=\"%d\" height=\"%d\"/>\n", width, height);
    fputs("<text class=\"h\" x=\"12\" y=\"24\">", out);
    svg_escaped(out, v->path);
    fprintf(out, ": pp %d, tp %d, ep %d</text>\n<text x=\"12\" y=\"42\">", l->pp, l->tp, l->ep);
    svg_escaped(out, words);
    fprintf(out,
            "</text>\n<text x=\"12\" y=\"58\">%d rank%s of %d group%s; KV cache for %d "
            "sequence%s of %d tokens</text>\n",
            shown->plan->world, shown->plan->world > 1 ? "s" : "", shown->layout->replicas,
            shown->layout->replicas > 1 ? "s" : "", shown->layout->share,
            shown->layout->share > 1 ? "s" : "", v->wish.context);
}

void plan_svg(FILE *out, const struct plan_view *v, const struct plan_shown *shown)
{
    int32_t world = shown->plan->world;
    int columns = world < A_ROW ? world : A_ROW, rows = (world + A_ROW - 1) / A_ROW;
    int width = LEFT + columns * PITCH + 12, height = TOP + rows * row_height() + LEGEND;
    uint64_t most = memory_plan_total(&shown->layout->rank.memory);
    uint64_t scale = most > v->device_bytes ? most : v->device_bytes;
    put_heading(out, v, shown, width < 740 ? 740 : width, height);
    for (int32_t i = 0; i < world; i++) {
        int x = LEFT + i % A_ROW * PITCH, y = TOP + i / A_ROW * row_height();
        struct column c = {
            .out = out, .v = v, .shown = shown, .rank = &shown->plan->ranks[i], .x = x, .y = y};
        for (int t = 0; i % A_ROW == 0 && t < TRACK_COUNT; t++)
            fprintf(out, "<text class=\"r\" x=\"%d\" y=\"%g\">%s</text>\n", LEFT - 10,
                    c.y + track_top((enum track)t) + 12,
                    t == TRACK_EXPERTS && v->config->experts == 0 ? "FFN" : tracks[t].words);
        put_column(&c, scale);
    }
    put_legend(out, TOP + rows * row_height());
    fputs("</svg>\n", out);
}
