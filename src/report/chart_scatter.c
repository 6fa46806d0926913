/* What a precision buys (speed-up, upwards) against what it costs (quality lost, to the right). */
#include "report/format.h"
#include "report/html.h"
#include "report/svg.h"

#include <math.h>
#include <stdio.h>

enum { LEFT = 46, RIGHT = 14, TOP = 14, HEIGHT = 340, BOTTOM = 46, MOST_POINTS = 64 };

typedef struct {
    double x0, y0, x1, y1;
} box;

typedef struct {
    const bg_report_row *row;
    double loss, speedup, lo, hi; /* data; lo and hi are NaN where there is no interval */
    double x, y, y_lo, y_hi;      /* drawing */
    box label;
    const char *anchor; /* of the label's text in its box */
    bool leader;        /* the label is far enough to need a line to its point */
} point;

static const box plot = {LEFT, TOP, BG_SVG_WIDTH - RIGHT, HEIGHT - BOTTOM};

/* ---- placing labels: the cheapest of some places around each point, one point after another ---
 */

static double overlap(box a, box b)
{
    double w = fmin(a.x1, b.x1) - fmax(a.x0, b.x0), h = fmin(a.y1, b.y1) - fmax(a.y0, b.y0);
    return w > 0 && h > 0 ? w * h : 0;
}

/* From a point's centre to the nearest place of a box. */
static double distance_to(box b, const point *p)
{
    return hypot(fmax(fmax(b.x0 - p->x, p->x - b.x1), 0), fmax(fmax(b.y0 - p->y, p->y - b.y1), 0));
}

static double cost_of(const point *points, size_t n, size_t self, box label, double distance,
                      const box bases[2])
{
    double cost = 0.5 * distance;
    for (int b = 0; b < 2; b++)
        if (overlap(label, bases[b]) > 0) cost += 30;
    if (label.x0 < plot.x0 + 2 || label.x1 > plot.x1 || label.y0 < plot.y0 ||
        label.y1 > plot.y1 - 2)
        cost += 4000;
    for (size_t i = 0; i < n; i++) {
        const point *p = &points[i];
        box mark = {p->x - 8, p->y - 8, p->x + 8, p->y + 8};
        if (overlap(label, mark) > 0) cost += 200 + overlap(label, mark);
        /* A label nearer to another point than to its own would be read as that point's. */
        double nearer = distance_to(label, &points[self]) + 5 - distance_to(label, p);
        if (i != self && nearer > 0) cost += 15 * nearer;
        if (isfinite(p->y_lo)) {
            box bar = {p->x - 2, fmin(p->y_lo, p->y_hi), p->x + 2, fmax(p->y_lo, p->y_hi)};
            if (overlap(label, bar) > 0) cost += 40;
        }
        if (i < self && overlap(label, p->label) > 0) cost += 600 + overlap(label, p->label);
    }
    return cost;
}

static void place(point *points, size_t n, size_t self, const char *text, const box bases[2])
{
    static const double distances[] = {9, 16, 26, 36, 48, 62, 78};
    enum { DIRECTIONS = 16 };
    point *p = &points[self];
    double half = 3.4 * (double)bg_terminal_width(text) + 2, best = INFINITY;
    for (size_t d = 0; d < sizeof distances / sizeof *distances; d++) {
        for (int a = 0; a < DIRECTIONS; a++) {
            double angle = 2 * 3.14159265358979 * a / DIRECTIONS;
            double x = p->x + cos(angle) * (distances[d] + half);
            double y = p->y - sin(angle) * (distances[d] + 3);
            box label = {x - half, y - 7, x + half, y + 7};
            double cost = cost_of(points, n, self, label, distances[d], bases) +
                          3 * (1 - cos(angle)) + fabs(sin(2 * angle));
            if (cost >= best) continue;
            best = cost;
            p->label = label;
            p->anchor = cos(angle) > 0.3 ? "start" : cos(angle) < -0.3 ? "end" : "middle";
            p->leader = d > 1;
        }
    }
}

/* ---- drawing --------------------------------------------------------------------------------- */

static const char *label_of(char out[96], const point *p)
{
    bg_text cut = {0};
    bg_put_terminal(&cut, p->row->label, 20);
    snprintf(out, 96, "%s%s", cut.data ? cut.data : "", p->row->baseline ? " (baseline)" : "");
    bg_text_free(&cut);
    return out;
}

static void put_axes(bg_text *out, const bg_axis *x, const bg_axis *y, const char *x_title,
                     bool sign)
{
    char text[BG_CELL];
    bg_scale change = {"", 1, x->decimals, sign}, plain = {"", 1, y->decimals, false};
    for (size_t t = 0; t < x->n_ticks; t++) {
        double at = bg_axis_at(x, x->ticks[t]);
        bg_svg_line(out, at, plot.y0, at, plot.y1, "grid");
        bg_svg_text(out, at, plot.y1 + 16, "middle", "tick", 0,
                    bg_show(text, x->ticks[t], &change));
    }
    for (size_t t = 0; t < y->n_ticks; t++) {
        char ratio[BG_CELL + 4];
        double at = bg_axis_at(y, y->ticks[t]);
        snprintf(ratio, sizeof ratio, "%s×", bg_show(text, y->ticks[t], &plain));
        bg_svg_line(out, plot.x0, at, plot.x1, at, "grid");
        bg_svg_text(out, plot.x0 - 6, at + 4, "end", "tick", 0, ratio);
    }
    bg_svg_line(out, plot.x0, bg_axis_at(y, 1), plot.x1, bg_axis_at(y, 1), "base");
    bg_svg_line(out, bg_axis_at(x, 0), plot.y0, bg_axis_at(x, 0), plot.y1, "base");
    bg_svg_text(out, (plot.x0 + plot.x1) / 2, HEIGHT - 8, "middle", "key", 0, x_title);
}

static void put_point(bg_text *out, const point *p)
{
    char label[96];
    if (isfinite(p->y_lo)) bg_svg_line(out, p->x, p->y_lo, p->x, p->y_hi, "whisker");
    if (p->leader) {
        double end_x = fmin(fmax(p->x, p->label.x0), p->label.x1);
        double end_y = fmin(fmax(p->y, p->label.y0 + 2), p->label.y1 - 2);
        bg_svg_line(out, p->x, p->y, end_x, end_y, "leader");
    }
    bg_svg_mark(out, p->x, p->y, 5, p->row->family, p->row->baseline);
    double middle = (p->label.x0 + p->label.x1) / 2;
    double x = *p->anchor == 's' ? p->label.x0 : *p->anchor == 'e' ? p->label.x1 : middle;
    bg_svg_text(out, x, p->label.y1 - 3, p->anchor, "name over", 0, label_of(label, p));
}

static void describe(bg_text *out, const point *points, size_t n, bool accuracy)
{
    for (size_t i = 0; i < n; i++) {
        char a[BG_CELL], b[BG_CELL];
        bg_scale change = {"", 1, 2, true};
        bg_text_printf(out, "%s: %s as fast, %s %s%s. ", points[i].row->label,
                       bg_show_alone(a, points[i].speedup, BG_UNIT_RATIO),
                       accuracy ? "accuracy" : "perplexity",
                       bg_show(b, accuracy ? -points[i].loss : points[i].loss, &change),
                       accuracy ? " points" : " %");
    }
}

static void put_key(bg_text *out, const point *points, size_t n)
{
    static const char *const names[BG_FAMILY_COUNT] = {"floating point", "8-bit", "4-bit", "other"};
    bg_text_puts(out, "<p class=\"marks\">");
    for (int f = 0; f < BG_FAMILY_COUNT; f++) {
        bool any = false;
        for (size_t i = 0; i < n; i++) any |= (int)points[i].row->family == f;
        if (!any) continue;
        bg_text_puts(out, "<span><svg viewBox=\"0 0 14 14\" aria-hidden=\"true\">");
        bg_svg_mark(out, 7, 7, 4.6, (bg_report_family)f, false);
        bg_text_printf(out, "</svg>%s</span> ", names[f]);
    }
    bg_text_puts(out, "</p>");
}

static void put_chart(bg_text *out, const bg_report_model *model, const char *id, point *points,
                      size_t n, bool more)
{
    double x_lo = 0, x_hi = 0, y_lo = 1, y_hi = 1;
    for (size_t i = 0; i < n; i++) {
        const point *p = &points[i];
        x_lo = fmin(x_lo, p->loss);
        x_hi = fmax(x_hi, p->loss);
        y_lo = fmin(y_lo, fmin(p->speedup, p->lo)); /* fmin and fmax pass over a NaN */
        y_hi = fmax(y_hi, fmax(p->speedup, p->hi));
    }
    bg_axis x = bg_axis_for(x_lo, x_hi, plot.x0, plot.x1, 5, true);
    bg_axis y = bg_axis_for(y_lo, y_hi, plot.y1, plot.y0, 6, true);
    for (size_t i = 0; i < n; i++) {
        points[i].x = bg_axis_at(&x, points[i].loss);
        points[i].y = bg_axis_at(&y, points[i].speedup);
        points[i].y_lo = bg_axis_at(&y, points[i].lo);
        points[i].y_hi = bg_axis_at(&y, points[i].hi);
    }
    double level = bg_axis_at(&y, 1), upright = bg_axis_at(&x, 0);
    const box bases[2] = {{plot.x0, level - 1, plot.x1, level + 1},
                          {upright - 1, plot.y0, upright + 1, plot.y1}};
    for (size_t i = 0; i < n; i++) {
        char label[96];
        place(points, n, i, label_of(label, &points[i]), bases);
    }
    char name[64], axis[96];
    snprintf(name, sizeof name, "%s-scatter", id);
    if (model->accuracy)
        snprintf(axis, sizeof axis, "accuracy lost%s%s, percentage points →",
                 model->accuracy_task ? ", " : "",
                 model->accuracy_task ? model->accuracy_task : "");
    else
        snprintf(axis, sizeof axis, "perplexity increase (%s), %% →",
                 bg_report_main_protocol(model) ? bg_report_main_protocol(model) : "–");
    bg_text description = {0};
    describe(&description, points, n, model->accuracy != NULL);
    bg_text_printf(out,
                   "<figure><figcaption><b>Speed against quality</b> times as fast as the "
                   "baseline, over what it costs; up and to the left is better, upright lines are "
                   "95\u00A0%% intervals%s</figcaption>\n",
                   more ? "; only the first 64 rows are drawn" : "");
    bg_svg_begin(out, name, HEIGHT, "Speed-up against loss of quality",
                 description.data ? description.data : "");
    put_axes(out, &x, &y, axis, !model->accuracy);
    for (size_t i = 0; i < n; i++) put_point(out, &points[i]);
    bg_svg_end(out);
    put_key(out, points, n);
    bg_text_puts(out, "</figure>\n");
    out->failed |= description.failed;
    bg_text_free(&description);
}

void bg_chart_scatter(bg_text *out, const bg_report_model *model, const char *id)
{
    point points[MOST_POINTS];
    size_t n = 0, compared = 0;
    bool more = false;
    for (size_t i = 0; i < model->n_rows; i++) {
        point p = {.row = &model->rows[i]};
        if (!p.row->ok) continue;
        p.loss = bg_report_quality_loss(model, p.row);
        p.speedup = bg_report_speedup(model, p.row, &p.lo, &p.hi);
        if (!isfinite(p.loss) || !isfinite(p.speedup)) continue;
        more = n == MOST_POINTS;
        if (more) break;
        compared += !p.row->baseline;
        points[n++] = p;
    }
    if (compared) put_chart(out, model, id, points, n, more);
}
