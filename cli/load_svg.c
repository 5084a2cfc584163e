/* See load_svg.h. */
#include "cli/load_svg.h"
#include "base/check.h"
#include "cli/svg.h"

#include <math.h>
#include <string.h>

/* User units: a chart is 420 wide, of text 12 high; on a phone it is drawn about as large. */
enum {
    WIDTH = 420,
    LEFT = 56,
    RIGHT = 22,
    PLOT_HEIGHT = 190,
    TITLE = 24,
    LEGEND_LINE = 18,
    FOOT = 44,
    LETTER = 7, /* of 12 high, wide on average; more than most fonts take */
    LONGEST = (WIDTH - LEFT - 29) / LETTER, /* name in a legend */
};

/* One chart on its way: where the plot lies and what its axes show. */
struct plot {
    FILE *out;
    const struct load_svg_chart *chart;
    double top;
    double x_ticks[LOAD_SVG_TICKS], y_ticks[LOAD_SVG_TICKS];
    size_t x_count, y_count;
};

/* --- ticks --- */

/* The largest of 1, 2 and 5 times a power of ten at or below v > 0; `up`: the smallest above. */
static double round_of(double v, bool up)
{
    double decade = pow(10, floor(log10(v)));
    static const double steps[] = {1, 2, 5, 10};
    double best = decade;
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        double s = steps[i] * decade;
        if (up && s >= v * (1 - 1e-9))
            return s;
        if (s <= v * (1 + 1e-9))
            best = s;
    }
    return best;
}

static size_t ticks_linear(double lo, double hi, double *ticks)
{
    if (!(hi > lo))
        hi = lo + (lo != 0 ? fabs(lo) * 0.1 : 1);
    double step = round_of((hi - lo) / 6, true), at = floor(lo / step + 1e-9) * step;
    size_t n = 0;
    double first = at;
    while (n < LOAD_SVG_TICKS - 1 && first + (double)n * step < hi - step * 1e-9) {
        ticks[n] = first + (double)n * step;
        n++;
    }
    ticks[n] = first + (double)n * step;
    return n + 1;
}

static size_t ticks_log(double lo, double hi, double *ticks)
{
    static const double parts[] = {1, 2, 5};
    double begin = round_of(lo, false), end = round_of(hi, true);
    int decades = (int)ceil(log10(end) - log10(begin) - 1e-9);
    size_t n = 0;
    if (decades > LOAD_SVG_TICKS - 2) { /* further than anyone measures */
        ticks[0] = begin;
        ticks[1] = end;
        return 2;
    }
    for (int d = (int)floor(log10(begin) + 1e-9); n < LOAD_SVG_TICKS; d++) {
        for (size_t i = 0; i < COUNT_OF(parts) && n < LOAD_SVG_TICKS; i++) {
            double v = parts[i] * pow(10, d);
            bool edge = fabs(v / begin - 1) < 1e-9 || fabs(v / end - 1) < 1e-9;
            if (v < begin * (1 - 1e-9) || (decades > 3 && i > 0 && !edge))
                continue;
            ticks[n++] = v;
            if (v >= end * (1 - 1e-9))
                return n > 1 ? n : (ticks[1] = 2 * v, (size_t)2);
        }
    }
    return n;
}

size_t load_svg_ticks(double lo, double hi, bool log, double ticks[LOAD_SVG_TICKS])
{
    return log ? ticks_log(lo, hi, ticks) : ticks_linear(lo, hi, ticks);
}

/* --- where values lie --- */

static bool shown(const struct load_svg_axis *axis, double v)
{
    return isfinite(v) && (!axis->log || v > 0);
}

/* The ticks of all points' x or y; 0 where there is no point. */
static size_t cover(const struct load_svg_chart *c, bool of_x, double *ticks)
{
    const struct load_svg_axis *axis = of_x ? &c->x : &c->y;
    double lo = INFINITY, hi = -INFINITY;
    for (size_t s = 0; s < c->count; s++) {
        const struct load_svg_series *r = &c->series[s];
        bool steps = !of_x && (r->kind == LOAD_SVG_STEPS || r->kind == LOAD_SVG_BARS);
        for (size_t i = 0; i + steps < r->count; i++) {
            double v = of_x ? r->x[i] : r->y[i];
            if (!shown(axis, v))
                continue;
            lo = fmin(lo, v);
            hi = fmax(hi, v);
        }
    }
    if (!(lo <= hi))
        return 0;
    return load_svg_ticks(axis->from_zero && !axis->log ? fmin(lo, 0) : lo, hi, axis->log, ticks);
}

static double part(const struct load_svg_axis *axis, const double *ticks, size_t n, double v)
{
    double lo = ticks[0], hi = ticks[n - 1];
    double p = axis->log ? log(v / lo) / log(hi / lo) : (v - lo) / (hi - lo);
    return fmin(fmax(p, 0), 1);
}

static double x_of(const struct plot *p, double v)
{
    return LEFT + part(&p->chart->x, p->x_ticks, p->x_count, v) * (WIDTH - LEFT - RIGHT);
}

static double y_of(const struct plot *p, double v)
{
    return p->top + (1 - part(&p->chart->y, p->y_ticks, p->y_count, v)) * PLOT_HEIGHT;
}

/* --- frame --- */

/* "0.05", "20", "1500", "20k", "3M". */
static void put_tick_words(FILE *out, double v)
{
    if (fabs(v) >= 1e6)
        fprintf(out, "%gM", v * 1e-6);
    else if (fabs(v) >= 1e4)
        fprintf(out, "%gk", v * 1e-3);
    else
        fprintf(out, "%g", fabs(v) < 1e-12 ? 0 : v);
}

/* A label is left out where it would touch the one before. */
static void put_x_axis(const struct plot *p)
{
    double bottom = p->top + PLOT_HEIGHT, free_from = -1;
    for (size_t i = 0; i < p->x_count; i++) {
        double x = x_of(p, p->x_ticks[i]), half = LETTER * 2.2;
        fprintf(p->out, "<line class=\"g\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>", x,
                p->top, x, bottom);
        if (x - half < free_from)
            continue;
        free_from = x + half;
        fprintf(p->out, "<text class=\"c\" x=\"%.1f\" y=\"%.1f\">", x, bottom + 18);
        put_tick_words(p->out, p->x_ticks[i]);
        fputs("</text>\n", p->out);
    }
    fprintf(p->out, "<text class=\"c\" x=\"%.1f\" y=\"%.1f\">", (LEFT + WIDTH - RIGHT) / 2.0,
            bottom + 36);
    svg_escaped(p->out, p->chart->x.words);
    fputs("</text>\n", p->out);
}

static void put_y_axis(const struct plot *p)
{
    double free_to = INFINITY;
    for (size_t i = 0; i < p->y_count; i++) {
        double y = y_of(p, p->y_ticks[i]);
        fprintf(p->out, "<line class=\"g\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>", LEFT, y,
                WIDTH - RIGHT, y);
        if (y > free_to)
            continue;
        free_to = y - 13;
        fprintf(p->out, "<text class=\"r\" x=\"%d\" y=\"%.1f\">", LEFT - 6, y + 4);
        put_tick_words(p->out, p->y_ticks[i]);
        fputs("</text>\n", p->out);
    }
    double middle = p->top + PLOT_HEIGHT / 2.0;
    fprintf(p->out, "<text class=\"c\" x=\"14\" y=\"%.1f\" transform=\"rotate(-90 14 %.1f)\">",
            middle, middle);
    svg_escaped(p->out, p->chart->y.words);
    fputs("</text>\n", p->out);
}

/* --- series --- */

static void put_class(FILE *out, const struct load_svg_series *s, const char *what)
{
    static const char *const dashes[] = {"", " u", " d"};
    fprintf(out, " class=\"%s %c%d%s\"", what, s->ordered ? 'o' : 'k', s->colour, dashes[s->dash]);
}

/* `title`: what a pointer shows, for it is the one way to the very numbers; NULL: in the legend. */
static void put_mark(FILE *out, const struct load_svg_series *s, double x, double y,
                     const char *title)
{
    switch (s->colour % 3) {
    case 0:
        fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"", x, y);
        break;
    case 1:
        fprintf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"7\" height=\"7\"", x - 3.5, y - 3.5);
        break;
    default:
        fprintf(out, "<path d=\"M%.1f %.1fl4.5 8h-9z\"", x, y - 5);
    }
    put_class(out, s, "m");
    if (title)
        fprintf(out, "><title>%s</title></%s>", title,
                s->colour % 3 == 0   ? "circle"
                : s->colour % 3 == 1 ? "rect"
                                     : "path");
    else
        fputs("/>", out);
}

/* A place of the plot that a label takes. */
struct spot {
    double x0, y0, x1, y1;
};

enum { MAX_SPOTS = 2048 };

/* What has been taken of a plot. */
struct spots {
    struct spot at[MAX_SPOTS];
    size_t count;
};

static bool is_free(const struct spots *taken, const struct spot *s)
{
    for (size_t i = 0; i < taken->count; i++) {
        const struct spot *t = &taken->at[i];
        if (s->x0 < t->x1 && s->x1 > t->x0 && s->y0 < t->y1 && s->y1 > t->y0)
            return false;
    }
    return s->x0 >= LEFT && s->x1 <= WIDTH;
}

/* Above the point, below it or beside it, where nothing is yet; else nowhere. */
static void put_label(const struct plot *p, const char *words, double x, double y,
                      struct spots *taken)
{
    static const double places[][2] = {{0, 17},  {0, -8}, {1, 14}, {-1, -6}, {1, 4},
                                       {-1, 14}, {-1, 4}, {1, -6}, {0, 29},  {0, -20}};
    double half = (double)strlen(words) * LETTER / 2;
    for (size_t i = 0; i < COUNT_OF(places) && taken->count < MAX_SPOTS; i++) {
        double cx = x + places[i][0] * (half + 6), base = y + places[i][1];
        struct spot s = {cx - half, base - 9, cx + half, base + 1};
        if (s.y1 > p->top + PLOT_HEIGHT || s.y0 < p->top || !is_free(taken, &s))
            continue;
        taken->at[taken->count++] = s;
        fprintf(p->out, "<text class=\"c l\" x=\"%.1f\" y=\"%.1f\">", cx, base);
        svg_escaped(p->out, words);
        fputs("</text>", p->out);
        return;
    }
}

/* A series' corners; bars go down to the axis at both ends. */
static void put_path(const struct plot *p, const struct load_svg_series *s)
{
    bool steps = s->kind == LOAD_SVG_STEPS || s->kind == LOAD_SVG_BARS,
         bars = s->kind == LOAD_SVG_BARS;
    char verb = 'M';
    double before = NAN;
    fputs("<path", p->out);
    put_class(p->out, s, bars ? "b" : "s");
    fputs(" d=\"", p->out);
    if (bars && s->count > 0) {
        fprintf(p->out, "M%.1f %.1f", x_of(p, s->x[0]), p->top + PLOT_HEIGHT);
        verb = 'L';
    }
    for (size_t i = 0; i < s->count; i++) {
        if (!shown(&p->chart->x, s->x[i]) || (!shown(&p->chart->y, s->y[i]) && !steps))
            continue;
        double x = x_of(p, s->x[i]), y = steps && i + 1 == s->count ? before : y_of(p, s->y[i]);
        if (steps && !isnan(before) && fabs(before - y) > 0.05)
            fprintf(p->out, "L%.1f %.1f", x, before);
        fprintf(p->out, "%c%.1f %.1f", verb, x, y);
        before = y;
        verb = 'L';
    }
    if (bars && s->count > 0)
        fprintf(p->out, "L%.1f %.1fz", x_of(p, s->x[s->count - 1]), p->top + PLOT_HEIGHT);
    fputs("\"/>\n", p->out);
}

static void take_spot(struct spots *s, double x, double y, double half)
{
    if (s->count < MAX_SPOTS)
        s->at[s->count++] = (struct spot){x - half, y - half, x + half, y + half};
}

/* The marks of a series and the line between them. */
static void put_marks(const struct plot *p, const struct load_svg_series *s, struct spots *taken)
{
    double before_x = NAN, before_y = NAN;
    for (size_t i = 0; i < s->count; i++) {
        if (!shown(&p->chart->x, s->x[i]) || !shown(&p->chart->y, s->y[i]))
            continue;
        double x = x_of(p, s->x[i]), y = y_of(p, s->y[i]);
        char title[64];
        snprintf(title, sizeof title, "%.4g, %.4g", s->x[i], s->y[i]);
        put_mark(p->out, s, x, y, title);
        take_spot(taken, x, y, 4);
        int parts = isnan(before_x) ? 0 : (int)(hypot(x - before_x, y - before_y) / 4);
        for (int k = 1; k < parts; k++)
            take_spot(taken, before_x + (x - before_x) * k / parts,
                      before_y + (y - before_y) * k / parts, 1);
        before_x = x;
        before_y = y;
    }
}

/* Labels come last: they lie on no mark and on no line. */
static void put_points(const struct plot *p)
{
    struct spots taken;
    taken.count = 0;
    for (size_t i = 0; i < p->chart->count; i++) {
        if (p->chart->series[i].kind == LOAD_SVG_POINTS)
            put_marks(p, &p->chart->series[i], &taken);
    }
    for (size_t k = 0; k < p->chart->count; k++) {
        const struct load_svg_series *s = &p->chart->series[k];
        for (size_t i = 0; s->kind == LOAD_SVG_POINTS && s->labels && i < s->count; i++) {
            if (shown(&p->chart->x, s->x[i]) && shown(&p->chart->y, s->y[i]))
                put_label(p, s->labels[i], x_of(p, s->x[i]), y_of(p, s->y[i]), &taken);
        }
    }
}

/* --- legend --- */

static void put_name(const struct plot *p, const struct load_svg_series *s, double x, double y)
{
    fprintf(p->out, "<path d=\"M%.1f %.1fh24\"", x, y);
    put_class(p->out, s, "s");
    fputs("/>", p->out);
    if (s->kind == LOAD_SVG_POINTS)
        put_mark(p->out, s, x + 12, y, NULL);
    char cut[LONGEST + 1]; /* a name from outside may be as long as it likes */
    snprintf(cut, sizeof cut, "%s", s->name);
    fprintf(p->out, "<text x=\"%.1f\" y=\"%.1f\">", x + 29, y + 4);
    svg_escaped(p->out, cut);
    fputs("</text>\n", p->out);
}

/* The names in columns as wide as the longest; drawn where `p` is not NULL. Returns the lines. */
static int lay_legend(const struct load_svg_chart *c, const struct plot *p)
{
    size_t longest = 0;
    int names = 0;
    for (size_t i = 0; i < c->count; i++) {
        size_t len = c->series[i].name ? strlen(c->series[i].name) : 0;
        longest = len > longest ? len : longest;
    }
    double wide = 44 + (double)longest * LETTER;
    int columns = (int)((WIDTH - LEFT) / wide);
    columns = columns > 0 ? columns : 1;
    for (size_t i = 0; i < c->count; i++) {
        if (!c->series[i].name)
            continue;
        int column = names % columns, line = names / columns;
        if (p)
            put_name(p, &c->series[i], LEFT + column * wide, TITLE + line * LEGEND_LINE + 8);
        names++;
    }
    return (names + columns - 1) / columns;
}

void load_svg_chart(FILE *out, const struct load_svg_chart *c)
{
    struct plot p = {.out = out, .chart = c};
    p.top = TITLE + lay_legend(c, NULL) * LEGEND_LINE + 6;
    p.x_count = cover(c, true, p.x_ticks);
    p.y_count = cover(c, false, p.y_ticks);
    bool empty = p.x_count == 0 || p.y_count == 0;
    fprintf(out, "<svg viewBox=\"0 0 %d %.0f\" role=\"img\" aria-label=\"", WIDTH,
            empty ? p.top + 40 : p.top + PLOT_HEIGHT + FOOT);
    svg_escaped(out, c->said);
    fprintf(out, "\">\n<text class=\"h\" x=\"%d\" y=\"15\">", 4);
    svg_escaped(out, c->title);
    fputs("</text>\n", out);
    if (!empty) {
        put_x_axis(&p);
        put_y_axis(&p);
        for (size_t i = 0; i < c->count; i++)
            put_path(&p, &c->series[i]);
        put_points(&p);
        lay_legend(c, &p);
    } else {
        fprintf(out, "<text x=\"%d\" y=\"%.1f\">Nothing was measured.</text>\n", LEFT, p.top + 18);
    }
    fputs("</svg>\n", out);
}

/* --- style --- */

/* Kinds: Okabe and Ito's colours that show on the paper. An order: from dark to bright. Both are
 * told apart by people who are colour-blind, and by dashes and marks. */
struct palette {
    const char *grid, *kinds[LOAD_SVG_SERIES], *order[LOAD_SVG_SERIES];
};

static const struct palette light = {
    "#e3e6ea",
    {"#0072b2", "#d55e00", "#009e73", "#aa4499", "#7a6000", "#555555"},
    {"#440154", "#414487", "#2a788e", "#1f9a8a", "#43a047", "#9c9a00"}};
static const struct palette dark = {
    "#2c3238",
    {"#56b4e9", "#f0883e", "#2fc79a", "#cc79a7", "#f0e442", "#c0c0c0"},
    {"#8f8be0", "#5ea0d8", "#2fb5b0", "#5ec962", "#addc30", "#fde725"}};

static void put_palette(FILE *out, const struct palette *p)
{
    fprintf(out, "svg .g{stroke:%s}\n", p->grid);
    for (int i = 0; i < LOAD_SVG_SERIES; i++)
        fprintf(out, ".k%d{stroke:%s;fill:%s}.o%d{stroke:%s;fill:%s}\n", i, p->kinds[i],
                p->kinds[i], i, p->order[i], p->order[i]);
}

void load_svg_style(FILE *out)
{
    fputs(
        "svg text{font:12px sans-serif;fill:currentColor}svg .h{font-weight:bold;font-size:13px}\n"
        "svg .c{text-anchor:middle}svg .r{text-anchor:end}svg .g{stroke-width:1}\n"
        "svg .l{font-size:11px}\n",
        out);
    put_palette(out, &light);
    fputs("@media screen and (prefers-color-scheme:dark){\n", out);
    put_palette(out, &dark);
    fputs(
        "}\n"
        "svg .s{fill:none;stroke-width:2;stroke-linejoin:round}\n"
        "svg .b{fill-opacity:.35;stroke-width:1}svg .m{stroke:none}\n"
        ".s.k1,.s.o1,.s.o4{stroke-dasharray:6 3}.s.k2,.s.o2,.s.o5{stroke-dasharray:2 2}\n"
        ".s.k3{stroke-dasharray:8 3 2 3}.s.k4{stroke-dasharray:1 3}.s.k5{stroke-dasharray:10 4}\n"
        "svg .s.u{stroke-dasharray:none}svg .s.d{stroke-dasharray:6 3}svg .m.d{fill-opacity:.6}\n",
        out);
}
