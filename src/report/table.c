/* Tables for a terminal. Where a model's columns do not all fit, the most important ones come first
 * and the others follow in further blocks below: nothing is cut off, nothing runs over the edge. */
#include "core/checked.h"
#include "report/formats.h"
#include "report/words.h"

#include <string.h>

enum { DEFAULT_WIDTH = 100, LEAST_WIDTH = 40, MOST_LABEL = 24, GAP = 2 };

typedef struct {
    const bg_report_model *model;
    const bg_grid *grid;
    size_t label_width, width;
    size_t widths[BG_MOST_COLUMNS]; /* of each column */
    bool done[BG_MOST_COLUMNS];     /* shown in an earlier block */
    bool here[BG_MOST_COLUMNS];     /* shown in this block */
} layout;

static void put_repeated(bg_text *out, const char *glyph, size_t n)
{
    while (n--) bg_text_puts(out, glyph);
}

static void put_left(bg_text *out, const char *text, size_t width)
{
    put_repeated(out, " ", width - bg_put_terminal(out, text, width));
}

static void put_right(bg_text *out, const char *text, size_t width)
{
    size_t used = bg_terminal_width(text);
    if (used < width) put_repeated(out, " ", width - used);
    bg_put_terminal(out, text, width);
}

static void measure(layout *l)
{
    l->label_width = strlen("precision");
    for (size_t i = 0; i < l->model->n_rows; i++)
        l->label_width = bg_max_size(l->label_width, bg_terminal_width(l->model->rows[i].label));
    l->label_width = bg_min_size(l->label_width, MOST_LABEL);
    for (size_t c = 0; c < l->grid->n_columns; c++) {
        size_t widest = bg_terminal_width(l->grid->columns[c].title);
        for (size_t i = 0; i < l->grid->n_rows; i++)
            widest = bg_max_size(widest, bg_terminal_width(bg_grid_cell(l->grid, i, c)));
        l->widths[c] = bg_min_size(widest, LEAST_WIDTH - MOST_LABEL - GAP);
    }
}

/* The column after `c` in this block, or n_columns. */
static size_t next_here(const layout *l, size_t c)
{
    while (++c < l->grid->n_columns && !l->here[c]) {
    }
    return c;
}

/* The first column after `c` in this block that is in another group; *span is the width from c to
 * there, gaps between included. */
static size_t group_end(const layout *l, size_t c, size_t *span)
{
    const char *group = l->grid->columns[c].group;
    size_t total = 0;
    while (c < l->grid->n_columns && strcmp(l->grid->columns[c].group, group) == 0) {
        total += l->widths[c] + (total ? GAP : 0);
        c = next_here(l, c);
    }
    *span = total;
    return c;
}

/* Columns that the block takes: each group is as wide as its heading, if that is the wider. */
static size_t block_width(const layout *l)
{
    size_t total = l->label_width;
    for (size_t c = next_here(l, (size_t)-1), span; c < l->grid->n_columns;) {
        size_t heading = bg_terminal_width(l->grid->columns[c].group);
        c = group_end(l, c, &span);
        total += GAP + bg_max_size(span, heading);
    }
    return total;
}

static bool only_intervals_left(const layout *l)
{
    for (size_t c = 0; c < l->grid->n_columns; c++)
        if (!l->done[c] && !l->grid->columns[c].interval) return false;
    return true;
}

/* Chooses the columns of the next block by importance; false when all were shown. */
static bool choose(layout *l)
{
    size_t taken = 0;
    memset(l->here, 0, sizeof l->here);
    bool refused[BG_MOST_COLUMNS] = {false};
    for (;;) {
        size_t best = l->grid->n_columns;
        for (size_t c = 0; c < l->grid->n_columns; c++) {
            if (l->done[c] || refused[c]) continue;
            if (best == l->grid->n_columns ||
                l->grid->columns[c].importance < l->grid->columns[best].importance)
                best = c;
        }
        if (best == l->grid->n_columns) return taken > 0;
        /* An interval alone, its number in an earlier block, is not worth a block. */
        if (!taken && only_intervals_left(l)) return false;
        l->here[best] = l->done[best] = true;
        taken++;
        /* A first column is shown in any case, so that every block makes progress. */
        if (taken > 1 && block_width(l) > l->width) {
            l->here[best] = l->done[best] = false;
            refused[best] = true;
            taken--;
        }
    }
}

static void put_headings(bg_text *out, const layout *l)
{
    put_repeated(out, " ", l->label_width);
    for (size_t c = next_here(l, (size_t)-1), span; c < l->grid->n_columns;) {
        const char *group = l->grid->columns[c].group;
        size_t heading = bg_terminal_width(group);
        c = group_end(l, c, &span);
        put_repeated(out, " ", GAP + (span > heading ? span - heading : 0));
        bg_put_terminal(out, group, heading);
    }
    bg_text_puts(out, "\n");
}

/* One line of cells; `row` is the row, or n_rows for the titles. */
static void put_cells(bg_text *out, const layout *l, size_t row)
{
    bool titles = row == l->grid->n_rows;
    put_left(out, titles ? "precision" : l->model->rows[row].label, l->label_width);
    for (size_t c = next_here(l, (size_t)-1); c < l->grid->n_columns;) {
        size_t span, end = group_end(l, c, &span);
        size_t heading = bg_terminal_width(l->grid->columns[c].group);
        size_t more = heading > span ? heading - span : 0;
        for (; c < end; c = next_here(l, c)) {
            put_repeated(out, " ", GAP + more);
            more = 0;
            put_right(out, titles ? l->grid->columns[c].title : bg_grid_cell(l->grid, row, c),
                      l->widths[c]);
        }
    }
    bg_text_puts(out, "\n");
}

static void put_rule(bg_text *out, size_t width)
{
    put_repeated(out, "─", width);
    bg_text_puts(out, "\n");
}

static void put_block(bg_text *out, const layout *l)
{
    size_t width = block_width(l);
    put_headings(out, l);
    put_cells(out, l, l->grid->n_rows);
    put_rule(out, width);
    for (size_t i = 0; i < l->grid->n_rows; i++) {
        if (l->model->rows[i].ok) {
            put_cells(out, l, i);
            continue;
        }
        put_left(out, l->model->rows[i].label, l->label_width);
        put_repeated(out, " ", GAP);
        bg_put_terminal(out, "failed", width - l->label_width - GAP);
        bg_text_puts(out, "\n");
    }
    put_rule(out, width);
}

/* A sentence from words.h, wrapped, on lines of its own. */
static void put_words(bg_text *out, void (*words)(bg_text *, const bg_report_model *),
                      const bg_report_model *model, size_t width)
{
    bg_text text = {0};
    words(&text, model);
    if (text.size) {
        bg_put_wrapped(out, text.data, 0, 0, width);
        bg_text_puts(out, "\n");
    }
    out->failed |= text.failed;
    bg_text_free(&text);
}

static bg_status put_model(bg_text *out, const bg_report_model *model, size_t width, bg_error *err)
{
    bg_grid grid;
    BG_TRY(bg_grid_build(model, &grid, err));
    layout l = {.model = model, .grid = &grid, .width = width};
    measure(&l);

    bg_put_terminal(out, model->name, width);
    bg_text_puts(out, "\n");
    put_words(out, bg_words_model, model, width);
    bg_text_puts(out, "\n");
    while (choose(&l)) {
        put_block(out, &l);
        bg_text_puts(out, "\n");
    }
    for (size_t i = 0; i < model->n_rows; i++) {
        const bg_report_row *row = &model->rows[i];
        if (row->ok) continue;
        size_t used = bg_put_terminal(out, row->label, l.label_width);
        bg_text_puts(out, " failed:");
        bg_put_wrapped(out, bg_report_reason(row), used + 8, 2, width);
        bg_text_puts(out, "\n");
    }
    bg_table_texts(out, model, width);
    put_words(out, bg_words_finding, model, width);
    put_words(out, bg_words_conditions, model, width);
    put_words(out, bg_words_cautions, model, width);
    bg_grid_free(&grid);
    return BG_OK;
}

bg_status bg_report_table(const bg_report_view *view, int width, bg_text *out, bg_error *err)
{
    size_t columns = width <= 0 ? DEFAULT_WIDTH : bg_max_size((size_t)width, LEAST_WIDTH);
    for (size_t i = 0; i < view->n_models; i++) {
        if (i) bg_text_puts(out, "\n");
        BG_TRY(put_model(out, &view->models[i], columns, err));
    }
    if (!view->n_models) bg_text_puts(out, "No runs.\n");
    return BG_OK;
}
