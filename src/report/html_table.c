/* The tables of the page. */
#include "report/html.h"
#include "report/words.h"

#include <math.h>
#include <string.h>

/* ---- the summary ----------------------------------------------------------------------------- */

static size_t group_end(const bg_grid *grid, size_t c)
{
    const char *group = grid->columns[c].group;
    while (c < grid->n_columns && strcmp(grid->columns[c].group, group) == 0) c++;
    return c;
}

static bool starts_group(const bg_grid *grid, size_t c)
{
    return c == 0 || strcmp(grid->columns[c - 1].group, grid->columns[c].group) != 0;
}

/* Columns [first, end) of the summary; one too wide for a page, of glass or paper, comes in parts,
 * each a table of its own. */
typedef struct {
    const bg_report_model *model;
    const bg_grid *grid;
    size_t first, end;
} summary;

static void put_headings(bg_text *out, const summary *s)
{
    const bg_grid *grid = s->grid;
    bg_text_puts(out, "<thead><tr><th class=\"row\"></th>");
    for (size_t c = s->first; c < s->end; c = group_end(grid, c)) {
        bg_text_printf(out, "<th class=\"g\" colspan=\"%zu\" scope=\"colgroup\"><span>",
                       group_end(grid, c) - c);
        bg_put_html(out, grid->columns[c].group);
        bg_text_puts(out, "</span></th>");
    }
    bg_text_puts(out, "</tr>\n<tr><th class=\"row\" scope=\"col\">precision</th>");
    for (size_t c = s->first; c < s->end; c++) {
        bg_text_printf(out, "<th scope=\"col\" class=\"%s\">", starts_group(grid, c) ? "g" : "");
        bg_put_html(out, grid->columns[c].title);
        bg_text_puts(out, "</th>");
    }
    bg_text_puts(out, "</tr></thead>\n");
}

static void put_row(bg_text *out, const summary *s, size_t i)
{
    const bg_report_row *row = &s->model->rows[i];
    const bg_grid *grid = s->grid;
    bg_text_puts(out, "<tr><th class=\"row\" scope=\"row\">");
    bg_put_html(out, row->label);
    bg_text_puts(out, "</th>");
    if (!row->ok) {
        bg_text_printf(out, "<td class=\"why g\" colspan=\"%zu\"><span><b>failed:</b> ",
                       s->end > s->first ? s->end - s->first : 1);
        bg_put_html(out, bg_report_reason(row));
        bg_text_puts(out, "</span></td></tr>\n");
        return;
    }
    for (size_t c = s->first; c < s->end; c++) {
        const char *cell = bg_grid_cell(grid, i, c);
        bool quiet = strcmp(cell, "base") == 0 || strcmp(cell, "–") == 0;
        bg_text_printf(out, "<td class=\"%s%s%s\">", starts_group(grid, c) ? "g" : "",
                       quiet ? " quiet" : "", grid->columns[c].interval ? " interval" : "");
        bg_put_html(out, cell);
        bg_text_puts(out, "</td>");
    }
    bg_text_puts(out, "</tr>\n");
}

static void put_summary(bg_text *out, const summary *s)
{
    bg_text_puts(out, "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Summary "
                      "table\"><table>\n");
    put_headings(out, s);
    bg_text_puts(out, "<tbody>\n");
    for (size_t i = 0; i < s->model->n_rows; i++) put_row(out, s, i);
    bg_text_puts(out, "</tbody></table></div>\n");
}

/* Whole groups from `first` on that fit on a page, at least one. */
static size_t page_end(const bg_grid *grid, size_t first)
{
    enum { PAGE = 14 };
    size_t end = group_end(grid, first);
    while (end < grid->n_columns && group_end(grid, end) - first <= PAGE)
        end = group_end(grid, end);
    return end;
}

void bg_html_summary(bg_text *out, const bg_report_model *model, const bg_grid *grid)
{
    summary s = {model, grid, 0, 0};
    do {
        s.first = s.end;
        s.end = s.first < grid->n_columns ? page_end(grid, s.first) : 0;
        put_summary(out, &s);
    } while (s.end < grid->n_columns);
}

/* ---- what ran -------------------------------------------------------------------------------- */

/* A list of strings, each in <code>, or parted by "; "; "–" where there is none. */
static void put_list(bg_text *out, const json_t *list, bool code)
{
    bool any = false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *entry = json_string_value(json_array_get(list, i));
        if (!entry) continue;
        if (any) bg_text_puts(out, code ? " " : "; ");
        if (code) bg_text_puts(out, "<code>");
        bg_put_html(out, entry);
        if (code) bg_text_puts(out, "</code>");
        any = true;
    }
    if (!any) bg_text_puts(out, "–");
}

static void put_number(bg_text *out, double value, bg_unit unit)
{
    char shown[BG_CELL];
    bg_text_puts(out, "<td>");
    bg_put_html(out, bg_show_alone(shown, value, unit));
    bg_text_puts(out, "</td>");
}

static void put_string(bg_text *out, const char *text)
{
    bg_text_puts(out, "<td>");
    bg_put_html(out, text ? text : "–");
    bg_text_puts(out, "</td>");
}

/* "cuda:1, NVIDIA H200" */
static void put_device(bg_text *out, const json_t *run)
{
    const char *name = bg_report_string(run, "device_name");
    const char *device = bg_report_string(run, "device");
    bg_text_puts(out, "<td>");
    bg_put_html(out, device ? device : "–");
    if (name) {
        bg_text_puts(out, ", ");
        bg_put_html(out, name);
    }
    bg_text_puts(out, "</td>");
}

static void put_warmup(bg_text *out, const json_t *run)
{
    double runs = bg_report_number(run, "warmup.runs");
    const json_t *settled = bg_report_get(run, "warmup.settled");
    char shown[BG_CELL];
    bg_text_puts(out, "<td>");
    bg_put_html(out, bg_show_alone(shown, runs, BG_UNIT_COUNT));
    if (isfinite(runs)) bg_text_puts(out, runs == 1 ? " run" : " runs");
    if (json_is_boolean(settled))
        bg_text_puts(out, json_is_true(settled) ? ", settled" : ", not settled");
    bg_text_puts(out, "</td>");
}

void bg_html_evidence(bg_text *out, const bg_report_model *model)
{
    size_t n = 0;
    for (size_t i = 0; i < model->n_rows; i++) n += model->rows[i].ok;
    if (!n) return;
    bg_text_puts(out, "<h3>What ran</h3>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" "
                      "aria-label=\"What ran\"><table>\n<thead><tr><th class=\"row\" scope=\"col\">"
                      "precision</th><th scope=\"col\" class=\"left g\">kernels</th>"
                      "<th scope=\"col\">instructions</th><th scope=\"col\">threads</th>"
                      "<th scope=\"col\">device</th><th scope=\"col\">warm-up</th>"
                      "<th scope=\"col\">load</th><th scope=\"col\">of it quantizing</th>"
                      "<th scope=\"col\" class=\"left g\">notes</th></tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < model->n_rows; i++) {
        const bg_report_row *row = &model->rows[i];
        if (!row->ok) continue;
        bg_text_puts(out, "<tr><th class=\"row\" scope=\"row\">");
        bg_put_html(out, row->label);
        bg_text_puts(out, "</th><td class=\"left g\">");
        put_list(out, bg_report_get(row->run, "kernels"), true);
        bg_text_puts(out, "</td>");
        put_string(out, bg_report_string(row->run, "isa"));
        put_number(out, bg_report_number(row->run, "threads"), BG_UNIT_COUNT);
        put_device(out, row->run);
        put_warmup(out, row->run);
        put_number(out, bg_report_number(row->run, "load_seconds"), BG_UNIT_SECONDS);
        put_number(out, bg_report_number(row->run, "quantize_seconds"), BG_UNIT_SECONDS);
        bg_text_puts(out, "<td class=\"left g\">");
        put_list(out, bg_report_get(row->run, "notes"), false);
        bg_text_puts(out, "</td></tr>\n");
    }
    bg_text_puts(out, "</tbody></table></div>\n");
}
