/* Inline SVG for the charts. Every chart is drawn in its own units, about a CSS pixel each, and
 * scaled to its column. Colours are classes that the page's style sheet resolves, so that one
 * drawing serves light, dark and paper. */
#ifndef BG_REPORT_SVG_H
#define BG_REPORT_SVG_H

#include "core/text.h"
#include "report/view.h"

enum { BG_SVG_WIDTH = 440 };

/* Opens an image of BG_SVG_WIDTH by `height`, with a title and a description for those who do not
 * see it; both are escaped here. `id` must be unique in the page. */
void bg_svg_begin(bg_text *out, const char *id, int height, const char *title,
                  const char *description);
void bg_svg_end(bg_text *out);

/* Text at (x, y); `anchor` is "start", "middle" or "end"; `style` is a class. Cut with an ellipsis
 * after `columns` columns (0: not cut). */
void bg_svg_text(bg_text *out, double x, double y, const char *anchor, const char *style,
                 size_t columns, const char *text);
void bg_svg_line(bg_text *out, double x1, double y1, double x2, double y2, const char *style);

/* The mark of a family of precisions, centred: a shape as well as a colour. */
void bg_svg_mark(bg_text *out, double x, double y, double radius, bg_report_family family,
                 bool hollow);

/* A linear axis with round ticks. */
enum { BG_MOST_TICKS = 16 };
typedef struct {
    double lo, hi;   /* data */
    double from, to; /* drawing: lo is drawn at from, hi at to */
    double ticks[BG_MOST_TICKS];
    size_t n_ticks;
    int decimals; /* that the ticks need */
} bg_axis;

/* Covers [lo, hi], a little widened when `loose`, with about `about` ticks. */
bg_axis bg_axis_for(double lo, double hi, double from, double to, int about, bool loose);
double bg_axis_at(const bg_axis *axis, double value);

#endif
