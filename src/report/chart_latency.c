/* Every timed run as a dot, with the median and its interval: a reader sees at once whether two
 * precisions differ by more than they scatter. */
#include "report/format.h"
#include "report/html.h"
#include "report/svg.h"

#include <math.h>
#include <stdio.h>

enum { LEFT = 84, RIGHT = 66, TOP = 12, PITCH = 28, BOTTOM = 28, MOST_DOTS = 2000 };

/* One timed thing of a run. */
typedef struct {
    const char *id, *title, *caption, *path;
} timing;

static const timing decoding = {"decode", "Decoding",
                                "ms per token; every timed run is a dot, the line its median, the "
                                "bar the median’s 95\u00A0% interval",
                                "decode"};
static const timing prompting = {"prefill", "Prompt processing",
                                 "ms for the whole prompt; every timed run is a dot, the line its "
                                 "median, the bar the median’s 95\u00A0% interval",
                                 "prefill"};
static const timing batching = {"prefill", "Classifying",
                                "ms for one batch; every timed run is a dot, the line its median, "
                                "the bar the median’s 95\u00A0% interval",
                                "prefill"};

static const json_t *timed(const timing *what, const bg_report_row *row)
{
    const json_t *found = bg_report_get(row->run, what->path);
    return row->ok && isfinite(bg_report_number(found, "median_s")) ? found : NULL;
}

/* Milliseconds drawn for one second of a sample: a decode sample covers many tokens. */
static double ms_per_second(const json_t *found)
{
    double per_token = bg_report_number(found, "ms_per_token");
    double median = bg_report_number(found, "median_s");
    return isfinite(per_token) && median > 0 ? per_token / median : 1e3;
}

static void widen(double value, double *lo, double *hi)
{
    if (!isfinite(value)) return;
    *lo = fmin(*lo, value);
    *hi = fmax(*hi, value);
}

static void put_row(bg_text *out, const bg_report_row *row, const json_t *found,
                    const bg_axis *axis, double y, const bg_scale *scale)
{
    double ms = ms_per_second(found), lo, hi;
    const json_t *samples = bg_report_get(found, "samples_s");
    bg_svg_text(out, LEFT - 8, y + 4, "end", "name", 11, row->label);
    bg_svg_line(out, axis->from, y, axis->to, y, "lane");
    if (bg_report_interval(found, "ci95_s", &lo, &hi)) {
        double a = bg_axis_at(axis, lo * ms), b = bg_axis_at(axis, hi * ms);
        bg_text_printf(out,
                       "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"14\" rx=\"2\" "
                       "class=\"band f%d\"/>\n",
                       fmin(a, b), y - 7, fmax(fabs(b - a), 1), (int)row->family);
    }
    for (size_t i = 0; i < json_array_size(samples) && i < MOST_DOTS; i++) {
        const json_t *sample = json_array_get(samples, i);
        if (!json_is_number(sample)) continue;
        /* Spread over the lane's height, so that equal times do not hide each other. */
        double shift = ((double)(i * 7 % 5) - 2) * 2.2;
        bg_text_printf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.2\" class=\"dot f%d\"/>\n",
                       bg_axis_at(axis, json_number_value(sample) * ms), y + shift,
                       (int)row->family);
    }
    double median = bg_report_number(found, "median_s") * ms, x = bg_axis_at(axis, median);
    char text[BG_CELL];
    bg_svg_line(out, x, y - 9, x, y + 9, "median");
    bg_svg_text(out, BG_SVG_WIDTH - 4, y + 4, "end", "value", 0, bg_show(text, median, scale));
}

static void put_chart(bg_text *out, const bg_report_model *model, const char *id,
                      const timing *what)
{
    size_t n = 0;
    double lo = INFINITY, hi = -INFINITY, least = INFINITY;
    for (size_t i = 0; i < model->n_rows; i++) {
        const json_t *found = timed(what, &model->rows[i]);
        if (!found) continue;
        double ms = ms_per_second(found), a, b;
        double median = bg_report_number(found, "median_s") * ms;
        const json_t *samples = bg_report_get(found, "samples_s");
        n++;
        least = fmin(least, fabs(median));
        widen(median, &lo, &hi);
        if (bg_report_interval(found, "ci95_s", &a, &b)) {
            widen(a * ms, &lo, &hi);
            widen(b * ms, &lo, &hi);
        }
        for (size_t s = 0; s < json_array_size(samples) && s < MOST_DOTS; s++)
            if (json_is_number(json_array_get(samples, s)))
                widen(json_number_value(json_array_get(samples, s)) * ms, &lo, &hi);
    }
    if (!n || !isfinite(hi - lo)) return;
    double bottom = TOP + (double)n * PITCH;
    bg_axis axis = bg_axis_for(lo, hi, LEFT, BG_SVG_WIDTH - RIGHT, 6, true);
    bg_scale scale = bg_scale_for(BG_UNIT_MILLISECONDS, least, hi);

    char name[64];
    snprintf(name, sizeof name, "%s-%s", id, what->id);
    bg_text_printf(out, "<figure><figcaption><b>%s</b> %s%s</figcaption>\n", what->title,
                   what->caption, axis.lo > 0 ? "; the axis does not start at zero" : "");
    bg_svg_begin(out, name, (int)bottom + BOTTOM, what->title,
                 "A row of dots for each precision, one dot for each timed run in milliseconds; "
                 "the number at the end of the row is the median.");
    for (size_t t = 0; t < axis.n_ticks; t++) {
        char tick[BG_CELL];
        bg_scale plain = {"", 1, axis.decimals, false};
        double x = bg_axis_at(&axis, axis.ticks[t]);
        bg_svg_line(out, x, TOP - 6, x, bottom, "grid");
        bg_svg_text(out, x, bottom + 16, "middle", "tick", 0, bg_show(tick, axis.ticks[t], &plain));
    }
    double y = TOP + PITCH / 2.0;
    for (size_t i = 0; i < model->n_rows; i++) {
        const json_t *found = timed(what, &model->rows[i]);
        if (!found) continue;
        put_row(out, &model->rows[i], found, &axis, y, &scale);
        y += PITCH;
    }
    bg_svg_end(out);
    bg_text_puts(out, "</figure>\n");
}

void bg_chart_latency(bg_text *out, const bg_report_model *model, const char *id)
{
    if (model->classifier) {
        put_chart(out, model, id, &batching);
        return;
    }
    put_chart(out, model, id, &decoding);
    put_chart(out, model, id, &prompting);
}
