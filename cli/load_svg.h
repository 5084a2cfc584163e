/*
 * Line charts and histograms as SVG elements inside an HTML page, whose style sheet gives classes
 * their colours (load_svg_style). Axes end at round numbers, all text is escaped, every series is
 * told by colour and by dashes or marks. No state; any thread; writes and keeps nothing.
 */
#ifndef WITAN_CLI_LOAD_SVG_H
#define WITAN_CLI_LOAD_SVG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Series of one drawing at most; colours and dashes are different up to there. */
enum { LOAD_SVG_SERIES = 6 };

enum load_svg_dash {
    LOAD_SVG_BY_COLOUR, /* each colour has its own */
    LOAD_SVG_SOLID,
    LOAD_SVG_DASHED,
};

enum load_svg_kind {
    LOAD_SVG_LINE,
    LOAD_SVG_POINTS, /* a line with marks */
    LOAD_SVG_STEPS,  /* y[i] from x[i] to x[i + 1]; the last y is not used */
    LOAD_SVG_BARS,   /* the same, filled to the axis */
};

struct load_svg_series {
    const char *name; /* in the legend; NULL: none */
    enum load_svg_kind kind;
    int colour; /* 0 to LOAD_SVG_SERIES - 1 of its palette */
    enum load_svg_dash dash;
    bool ordered;        /* the palette: of kinds, or of an order such as rising concurrency */
    const double *x, *y; /* [count], finite; above 0 on a logarithmic axis, others are left out */
    size_t count;
    char (*labels)[24]; /* [count], beside points; NULL: none */
};

struct load_svg_axis {
    const char *words; /* with its unit: "ITL, ms" */
    bool log;
    bool from_zero; /* a linear axis begins at 0 whatever the values */
};

struct load_svg_chart {
    const char *title;
    const char *said; /* the drawing in words, for who does not see it */
    struct load_svg_axis x, y;
    const struct load_svg_series *series; /* [count] */
    size_t count;
};

/* Rules of a style sheet for all charts, light and dark. */
void load_svg_style(FILE *out);

/* One <svg> element; without points, words in its place. */
void load_svg_chart(FILE *out, const struct load_svg_chart *chart);

enum { LOAD_SVG_TICKS = 24 };

/*
 * Round places that cover [lo, hi]: of a linear axis 1, 2 or 5 times a power of ten apart, 3 to 8
 * of them; of a logarithmic one (lo > 0) decades, with 2 and 5 between few of them. ticks[0] <= lo
 * and the last >= hi. Returns their number.
 */
size_t load_svg_ticks(double lo, double hi, bool log, double ticks[LOAD_SVG_TICKS]);

#endif
