#include "report/svg.h"

#include "report/format.h"

#include <math.h>

void bg_svg_begin(bg_text *out, const char *id, int height, const char *title,
                  const char *description)
{
    bg_text_printf(out,
                   "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-labelledby=\"%s-t %s-d\">"
                   "<title id=\"%s-t\">",
                   BG_SVG_WIDTH, height, id, id, id);
    bg_put_html(out, title);
    bg_text_printf(out, "</title><desc id=\"%s-d\">", id);
    bg_put_html(out, description);
    bg_text_puts(out, "</desc>\n");
}

void bg_svg_end(bg_text *out)
{
    bg_text_puts(out, "</svg>\n");
}

void bg_svg_text(bg_text *out, double x, double y, const char *anchor, const char *style,
                 size_t columns, const char *text)
{
    bg_text_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"%s\">", x, y,
                   anchor, style);
    bg_text shown = {0};
    bg_put_terminal(&shown, text, columns ? columns : 200);
    if (shown.data) bg_put_html(out, shown.data);
    out->failed |= shown.failed;
    bg_text_free(&shown);
    bg_text_puts(out, "</text>\n");
}

void bg_svg_line(bg_text *out, double x1, double y1, double x2, double y2, const char *style)
{
    bg_text_printf(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n",
                   x1, y1, x2, y2, style);
}

void bg_svg_mark(bg_text *out, double x, double y, double radius, bg_report_family family,
                 bool hollow)
{
    double r = radius;
    const char *look = hollow ? "hollow " : "";
    switch (family) {
    case BG_FAMILY_INT8:
        bg_text_printf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" ",
                       x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r);
        break;
    case BG_FAMILY_4BIT:
        bg_text_printf(out, "<path d=\"M%.1f %.1fl%.1f %.1fl%.1f %.1fl%.1f %.1fz\" ", x,
                       y - 1.25 * r, 1.25 * r, 1.25 * r, -1.25 * r, 1.25 * r, -1.25 * r, -1.25 * r);
        break;
    case BG_FAMILY_OTHER:
        bg_text_printf(out, "<path d=\"M%.1f %.1fl%.1f %.1fh%.1fz\" ", x, y - 1.1 * r, 1.2 * r,
                       2.1 * r, -2.4 * r);
        break;
    default:
        bg_text_printf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" ", x, y, r);
    }
    bg_text_printf(out, "class=\"%sf%d\"/>\n", look, (int)family);
}

bg_axis bg_axis_for(double lo, double hi, double from, double to, int about, bool loose)
{
    bg_axis axis = {.from = from, .to = to};
    double span = hi - lo;
    if (!isfinite(span)) lo = 0, hi = span = 1; /* only numbers near the largest double get here */
    if (!(span > 1e-9 * fmax(fabs(lo), fabs(hi)))) {
        double half = fmax(fabs(lo) * 0.05, 1e-3);
        lo -= half;
        hi += half;
        span = hi - lo;
    }
    if (loose) {
        lo -= 0.06 * span;
        hi += 0.06 * span;
        span = hi - lo;
    }
    double step = pow(10, floor(log10(span / about)));
    double wanted = span / about / step;
    step *= wanted > 5 ? 10 : wanted > 2 ? 5 : wanted > 1 ? 2 : 1;
    axis.lo = lo;
    axis.hi = hi;
    axis.decimals = (int)fmin(fmax(0, -floor(log10(step) + 1e-9)), 9);
    for (double i = ceil(lo / step - 1e-9); axis.n_ticks < BG_MOST_TICKS; i++) {
        if (i * step > hi + 1e-9 * span) break;
        axis.ticks[axis.n_ticks++] = i * step;
    }
    return axis;
}

double bg_axis_at(const bg_axis *axis, double value)
{
    return axis->from + (value - axis->lo) / (axis->hi - axis->lo) * (axis->to - axis->from);
}
