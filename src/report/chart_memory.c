/* Three bars for each precision: its weights, and what the process grew by, loaded and at peak. */
#include "report/format.h"
#include "report/html.h"
#include "report/svg.h"

#include <math.h>
#include <stdio.h>

enum { LEFT = 84, RIGHT = 56, TOP = 30, BAR = 8, PITCH = 36, BOTTOM = 26 };

static double weights_of(const json_t *run)
{
    return bg_report_number(run, "weights_bytes");
}

static const struct {
    const char *name, *style;
    double (*value)(const json_t *run);
} bars[] = {
    {"weights", "m0", weights_of},
    {"loaded", "m1", bg_report_loaded_bytes},
    {"peak", "m2", bg_report_peak_bytes},
};
enum { BARS = sizeof bars / sizeof *bars };

static bool shown(const bg_report_row *row)
{
    bool any = false;
    for (size_t b = 0; b < BARS; b++) any |= isfinite(bars[b].value(row->run));
    return row->ok && any;
}

static void put_legend(bg_text *out)
{
    double x = LEFT;
    for (size_t b = 0; b < BARS; b++, x += 84) {
        bg_text_printf(out, "<rect x=\"%.1f\" y=\"6\" width=\"14\" height=\"%d\" class=\"%s\"/>\n",
                       x, BAR, bars[b].style);
        bg_svg_text(out, x + 19, 14, "start", "key", 0, bars[b].name);
    }
}

void bg_chart_memory(bg_text *out, const bg_report_model *model, const char *id)
{
    size_t n = 0;
    double least = INFINITY, most = 0;
    for (size_t i = 0; i < model->n_rows; i++) {
        if (!shown(&model->rows[i])) continue;
        n++;
        for (size_t b = 0; b < BARS; b++) {
            double value = bars[b].value(model->rows[i].run);
            if (value > 0) least = fmin(least, value);
            most = fmax(most, isfinite(value) ? value : 0);
        }
    }
    if (!n || !(most > 0)) return;
    bg_scale scale = bg_scale_for(BG_UNIT_BYTES, least, most);
    double right = BG_SVG_WIDTH - RIGHT, bottom = TOP + (double)n * PITCH;
    bg_axis axis = bg_axis_for(0, most / scale.divisor, LEFT, right, 5, false);

    char name[64];
    snprintf(name, sizeof name, "%s-memory", id);
    bg_text_puts(out, "<figure><figcaption><b>Memory</b> ");
    bg_text_printf(out,
                   "in %s: the weights with all a format needs to read them, and what the process "
                   "grew by when the model was loaded and at its peak</figcaption>\n",
                   scale.name);
    bg_svg_begin(out, name, (int)bottom + BOTTOM, "Memory of each precision",
                 "Three bars for each precision: weights, loaded, peak. The summary table holds "
                 "the numbers.");
    put_legend(out);
    for (size_t t = 0; t < axis.n_ticks; t++) {
        char tick[BG_CELL];
        bg_scale plain = {"", 1, axis.decimals, false};
        double x = bg_axis_at(&axis, axis.ticks[t]);
        bg_svg_line(out, x, TOP - 4, x, bottom, "grid");
        bg_svg_text(out, x, bottom + 16, "middle", "tick", 0, bg_show(tick, axis.ticks[t], &plain));
    }
    double y = TOP;
    for (size_t i = 0; i < model->n_rows; i++) {
        const bg_report_row *row = &model->rows[i];
        if (!shown(row)) continue;
        bg_svg_text(out, LEFT - 8, y + 1.5 * BAR + 6, "end", "name", 11, row->label);
        for (size_t b = 0; b < BARS; b++) {
            double value = bars[b].value(row->run), top = y + 2 + (double)b * (BAR + 1.5);
            if (!isfinite(value)) continue;
            double length = bg_axis_at(&axis, fmax(value, 0) / scale.divisor) - LEFT;
            char text[BG_CELL];
            bg_text_printf(out,
                           "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" "
                           "class=\"%s\"/>\n",
                           LEFT, top, length, BAR, bars[b].style);
            bg_svg_text(out, LEFT + length + 4, top + BAR - 0.5, "start", "tiny", 0,
                        bg_show(text, value, &scale));
        }
        y += PITCH;
    }
    bg_svg_line(out, LEFT, TOP - 4, LEFT, bottom, "axis");
    bg_svg_end(out);
    bg_text_puts(out, "</figure>\n");
}
