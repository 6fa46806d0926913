/* The summary of one model as a grid of text, the same for every format that shows it. */
#ifndef BG_REPORT_COLUMNS_H
#define BG_REPORT_COLUMNS_H

#include "report/format.h"
#include "report/view.h"

enum { BG_MOST_COLUMNS = 72 };

typedef struct {
    const char *group; /* heading over neighbouring columns: "Perplexity, lines" */
    char title[32];    /* heading with the unit: "time, ms" */
    int importance;    /* how early a narrow table takes the column in, from 1 */
    bool interval;     /* the 95 % interval of the column before it */
} bg_grid_column;

/* Columns in which no row has a value are left out, so a grid may have none. */
typedef struct {
    size_t n_columns, n_rows; /* rows as in the model */
    bg_grid_column columns[BG_MOST_COLUMNS];
    char (*cells)[BG_CELL]; /* (n_rows, BG_MOST_COLUMNS): a number, "base" for the baseline's own
                               comparison, or "–" */
} bg_grid;

bg_status bg_grid_build(const bg_report_model *model, bg_grid *grid, bg_error *err);
void bg_grid_free(bg_grid *grid);
const char *bg_grid_cell(const bg_grid *grid, size_t row, size_t column);

#endif
