#include "report/columns.h"

#include "core/alloc.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const char *group, *title;
    const char *path; /* of the number in a run; NULL where another gives it */
    double (*compute)(const json_t *run);
    bg_unit unit;
    const char *interval;    /* path of the 95 % interval, or NULL */
    bool relative;           /* against the baseline */
    int decoder, classifier; /* importance for each task; 0: not shown */
} source;

#define CHANGE "vs_baseline.perplexity_change_percent."

/* A task's metric: its value, what that changed, and its standard error. */
#define RESULT(task, metric, title, unit, importance)                                              \
    {                                                                                              \
        task, title, "tasks." task ".metrics." metric ".value", NULL, unit, NULL, false,           \
            importance, 0                                                                          \
    }
#define ACCURACY(task, metric, importance)                                                         \
    RESULT(task, metric, metric, BG_UNIT_PERCENT, importance),                                     \
        {task, "Δ " metric,    "vs_baseline.tasks." task ".metrics." metric ".change",             \
         NULL, BG_UNIT_POINTS, NULL,                                                               \
         true, importance + 1, 0},                                                                 \
    {                                                                                              \
        task, "± " metric, "tasks." task ".metrics." metric ".stderr", NULL, BG_UNIT_PERCENT,      \
            NULL, false, importance + 30, 0                                                        \
    }

static const source columns[] = {
    {"Weights", "size", "weights_bytes", NULL, BG_UNIT_BYTES, NULL, false, 2, 4},
    {"Weights", "ratio", "vs_baseline.weights_ratio", NULL, BG_UNIT_RATIO, NULL, true, 7, 5},
    {"Decode", "ms/token", "decode.ms_per_token", NULL, BG_UNIT_MILLISECONDS, NULL, false, 3, 0},
    {"Decode", "tokens/s", "decode.tokens_per_s", NULL, BG_UNIT_RATE, NULL, false, 6, 0},
    {"Decode", "speed-up", "vs_baseline.decode_speedup", NULL, BG_UNIT_RATIO,
     "vs_baseline.decode_speedup_ci95", true, 1, 0},
    {"Decode", "reads", "decode.read_bytes_per_s", NULL, BG_UNIT_BYTE_RATE, NULL, false, 24, 0},
    {"Batch", "time", "prefill.median_s", NULL, BG_UNIT_S_AS_MS, NULL, false, 0, 9},
    {"Batch", "sentences/s", "prefill.sentences_per_s", NULL, BG_UNIT_RATE, NULL, false, 0, 5},
    {"Batch", "speed-up", "vs_baseline.prefill_speedup", NULL, BG_UNIT_RATIO,
     "vs_baseline.prefill_speedup_ci95", true, 0, 1},
    {"Perplexity, lines", "value", "perplexity.lines.value", NULL, BG_UNIT_NUMBER, NULL, false, 4,
     0},
    {"Perplexity, lines", "change", CHANGE "lines.value", NULL, BG_UNIT_CHANGE, NULL, true, 5, 0},
    {"Perplexity, sliding", "value", "perplexity.sliding.value", NULL, BG_UNIT_NUMBER, NULL, false,
     16, 0},
    {"Perplexity, sliding", "change", CHANGE "sliding.value", NULL, BG_UNIT_CHANGE, NULL, true, 17,
     0},
    {"Perplexity, chunks", "value", "perplexity.chunks.value", NULL, BG_UNIT_NUMBER, NULL, false,
     18, 0},
    {"Perplexity, chunks", "change", CHANGE "chunks.value", NULL, BG_UNIT_CHANGE, NULL, true, 19,
     0},
    {"Accuracy", "correct", "accuracy.correct", NULL, BG_UNIT_COUNT, NULL, false, 22, 8},
    {"Accuracy", "value", "accuracy.value", NULL, BG_UNIT_PERCENT, NULL, false, 21, 2},
    {"Accuracy", "change", "vs_baseline.accuracy_change", NULL, BG_UNIT_POINTS, NULL, true, 23, 3},
    ACCURACY("sst2", "acc", 6),
    ACCURACY("sst2", "exact_match", 6),
    ACCURACY("boolq", "acc", 6),
    ACCURACY("hellaswag", "acc", 6),
    ACCURACY("hellaswag", "acc_norm", 6),
    ACCURACY("piqa", "acc", 6),
    ACCURACY("piqa", "acc_norm", 6),
    ACCURACY("arc_easy", "acc", 6),
    ACCURACY("arc_easy", "acc_norm", 6),
    ACCURACY("lambada_openai", "acc", 6),
    RESULT("lambada_openai", "perplexity", "perplexity", BG_UNIT_NUMBER, 6),
    {"lambada_openai", "± perplexity", "tasks.lambada_openai.metrics.perplexity.stderr", NULL,
     BG_UNIT_NUMBER, NULL, false, 9, 0},
    {"lambada_openai", "change",
     "vs_baseline.tasks.lambada_openai.metrics.perplexity.change_percent", NULL, BG_UNIT_CHANGE,
     NULL, true, 7, 0},
    {"Texts", "same", NULL, NULL, BG_UNIT_COUNT, NULL, true, 10, 10}, /* by add_texts */
    {"Memory", "loaded", NULL, bg_report_loaded_bytes, BG_UNIT_BYTES, NULL, false, 8, 6},
    {"Memory", "peak", NULL, bg_report_peak_bytes, BG_UNIT_BYTES, NULL, false, 9, 7},
    {"Energy", "per token", "decode.energy.joules_per_token", NULL, BG_UNIT_JOULES, NULL, false, 20,
     0},
    {"Energy", "ratio", "vs_baseline.decode_energy_ratio", NULL, BG_UNIT_RATIO, NULL, true, 27, 0},
    {"Energy", "W", "decode.energy.mean_watts", NULL, BG_UNIT_COUNT, NULL, false, 28, 0},
    {"Energy", "per sentence", "prefill.energy.joules_per_sentence", NULL, BG_UNIT_JOULES, NULL,
     false, 0, 12},
    {"Energy", "ratio", "vs_baseline.prefill_energy_ratio", NULL, BG_UNIT_RATIO, NULL, true, 0, 13},
    {"Energy", "W", "prefill.energy.mean_watts", NULL, BG_UNIT_COUNT, NULL, false, 0, 14},
    {"Energy of the prompt", "per token", "prefill.energy.joules_per_token", NULL, BG_UNIT_JOULES,
     NULL, false, 25, 0},
    {"Energy of the prompt", "W", "prefill.energy.mean_watts", NULL, BG_UNIT_COUNT, NULL, false, 26,
     0},
    {"Prompt", "time", "prefill.median_s", NULL, BG_UNIT_S_AS_MS, NULL, false, 12, 0},
    {"Prompt", "tokens/s", "prefill.tokens_per_s", NULL, BG_UNIT_RATE, NULL, false, 15, 0},
    {"Prompt", "speed-up", "vs_baseline.prefill_speedup", NULL, BG_UNIT_RATIO, NULL, true, 13, 0},
    {"First token", "time", "time_to_first_token.median_s", NULL, BG_UNIT_S_AS_MS, NULL, false, 11,
     0},
    {"Load", "time", "load_seconds", NULL, BG_UNIT_SECONDS, NULL, false, 14, 11},
};

static double value_of(const source *column, const json_t *run)
{
    return column->compute ? column->compute(run) : bg_report_number(run, column->path);
}

/* The scale of a column over the model's rows; false where none has a value. */
static bool scale_of(const bg_report_model *model, const source *column, bg_scale *scale)
{
    double least = INFINITY, most = 0;
    bool any = false;
    for (size_t i = 0; i < model->n_rows; i++) {
        double value = value_of(column, model->rows[i].run);
        if (!isfinite(value)) continue;
        any = true;
        if (value != 0) least = fmin(least, fabs(value));
        most = fmax(most, fabs(value));
    }
    if (!isfinite(least)) least = most = 1;
    *scale = bg_scale_for(column->unit, least, most);
    return any;
}

/* Adds a column of dashes; returns its index. */
static size_t add(bg_grid *grid, const char *group, const char *title, const char *unit,
                  int importance)
{
    bg_grid_column *added = &grid->columns[grid->n_columns];
    *added = (bg_grid_column){.group = group, .importance = importance};
    snprintf(added->title, sizeof added->title, "%s%s%s", title, *unit ? ", " : "", unit);
    for (size_t i = 0; i < grid->n_rows; i++)
        snprintf(grid->cells[i * BG_MOST_COLUMNS + grid->n_columns], BG_CELL, "–");
    return grid->n_columns++;
}

static char *cell_of(bg_grid *grid, size_t row, size_t at)
{
    return grid->cells[row * BG_MOST_COLUMNS + at];
}

static void add_numbers(bg_grid *grid, const bg_report_model *model, const source *from,
                        const bg_scale *scale, int importance)
{
    bool bare = from->unit == BG_UNIT_RATIO || from->unit == BG_UNIT_MILLISECONDS ||
                from->unit == BG_UNIT_RATE;
    const char *unit = from->unit == BG_UNIT_POINTS ? "pp" : bare ? "" : scale->name;
    size_t at = add(grid, from->group, from->title, unit, importance);
    for (size_t i = 0; i < grid->n_rows; i++) {
        double value = value_of(from, model->rows[i].run);
        char *cell = cell_of(grid, i, at);
        if (isnan(value) && model->rows[i].baseline && from->relative) {
            snprintf(cell, BG_CELL, "base");
            continue;
        }
        bg_show(cell, value, scale);
        size_t n = strlen(cell);
        if (isfinite(value) && from->unit == BG_UNIT_RATIO) snprintf(cell + n, BG_CELL - n, "×");
    }
}

static void add_intervals(bg_grid *grid, const bg_report_model *model, const source *from,
                          const bg_scale *scale, int importance)
{
    size_t at = grid->n_columns;
    for (size_t i = 0; i < grid->n_rows; i++) {
        double lo, hi;
        char a[BG_CELL], b[BG_CELL];
        if (!bg_report_interval(model->rows[i].run, from->interval, &lo, &hi)) continue;
        if (at == grid->n_columns) {
            add(grid, from->group, "95 %", "", importance);
            grid->columns[at].interval = true;
        }
        snprintf(cell_of(grid, i, at), BG_CELL, "%.20s–%.20s", bg_show(a, lo, scale),
                 bg_show(b, hi, scale));
    }
}

/* How many of the generated texts equal the baseline's. */
static void add_texts(bg_grid *grid, const bg_report_model *model, const source *from,
                      int importance)
{
    size_t at = grid->n_columns;
    for (size_t i = 0; i < grid->n_rows; i++) {
        const json_t *run = model->rows[i].run;
        size_t n = json_array_size(bg_report_get(run, "generations"));
        double same = bg_report_number(run, "vs_baseline.generations_identical");
        if (!n || !isfinite(same) || fabs(same) > 1e9) continue;
        if (at == grid->n_columns) add(grid, from->group, from->title, "", importance);
        snprintf(cell_of(grid, i, at), BG_CELL, "%.0f of %zu", same, n);
    }
    for (size_t i = 0; at < grid->n_columns && i < grid->n_rows; i++)
        if (model->rows[i].baseline) snprintf(cell_of(grid, i, at), BG_CELL, "base");
}

#undef RESULT
#undef ACCURACY

bg_status bg_grid_build(const bg_report_model *model, bg_grid *grid, bg_error *err)
{
    *grid = (bg_grid){.n_rows = model->n_rows};
    grid->cells = bg_calloc(model->n_rows, sizeof *grid->cells * BG_MOST_COLUMNS);
    if (!grid->cells)
        return bg_fail_memory(err, model->n_rows * sizeof *grid->cells * BG_MOST_COLUMNS,
                              "the report's table");
    _Static_assert(sizeof columns / sizeof *columns + 4 <= BG_MOST_COLUMNS,
                   "room for every column, the intervals and the texts");
    for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) {
        int importance = model->classifier ? columns[c].classifier : columns[c].decoder;
        bg_scale scale;
        if (!columns[c].path && !columns[c].compute) {
            add_texts(grid, model, &columns[c], importance);
            continue;
        }
        if (!importance || !scale_of(model, &columns[c], &scale)) continue;
        add_numbers(grid, model, &columns[c], &scale, importance);
        if (columns[c].interval) add_intervals(grid, model, &columns[c], &scale, importance + 9);
    }
    return BG_OK;
}

void bg_grid_free(bg_grid *grid)
{
    bg_free(grid->cells);
    *grid = (bg_grid){0};
}

const char *bg_grid_cell(const bg_grid *grid, size_t row, size_t at)
{
    return grid->cells[row * BG_MOST_COLUMNS + at];
}
