/* A results document seen as models with their runs, and look-ups in it that never trust a type.
 * Everything here is borrowed from the document, which must outlive the view. */
#ifndef BG_REPORT_VIEW_H
#define BG_REPORT_VIEW_H

#include "core/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* What kind of number format a precision is; charts give each kind a shape and a colour. */
typedef enum {
    BG_FAMILY_FLOAT, /* fp32, fp16, bf16 */
    BG_FAMILY_INT8,
    BG_FAMILY_4BIT, /* nf4, fp4, int4, with or without double quantization */
    BG_FAMILY_OTHER,
    BG_FAMILY_COUNT,
} bg_report_family;

typedef struct {
    const json_t *run; /* an entry of "runs"; may be any JSON value */
    char label[64];    /* the precision, with the device where a model's rows differ in it */
    bool ok;           /* status is "ok" */
    bool baseline;     /* the row that the model's other rows are compared with */
    bg_report_family family;
} bg_report_row;

typedef struct {
    const char *name;   /* never NULL */
    const json_t *info; /* its entry in "models", or NULL */
    bool classifier;    /* otherwise a decoder */
    /* Path of the accuracy change that stands for quality, and the task that it is of, NULL for a
     * classifier's sentences; NULL where perplexity stands for it. */
    const char *accuracy, *accuracy_task;
    const char *baseline; /* precision compared with, or NULL where nothing is compared */
    bg_report_row *rows;
    size_t n_rows;
} bg_report_model;

typedef struct {
    const json_t *document;
    bg_report_model *models; /* those with runs, in the order of "models", then of "runs" */
    size_t n_models;
} bg_report_view;

bg_status bg_report_view_open(const json_t *document, bg_report_view *view, bg_error *err);
void bg_report_view_close(bg_report_view *view);

/* The value at a dotted path ("memory.rss_peak"), or NULL. A part that meets an array picks its
 * first entry whose "protocol", "task" or "metric" is that part: "perplexity.lines.value",
 * "tasks.boolq.metrics.acc.value". */
const json_t *bg_report_get(const json_t *value, const char *path);
/* The number there, or NaN. */
double bg_report_number(const json_t *value, const char *path);
/* The string there, or NULL where there is none or it is empty. */
const char *bg_report_string(const json_t *value, const char *path);
/* The pair of numbers there; false where there is none. */
bool bg_report_interval(const json_t *value, const char *path, double *lo, double *hi);
bool bg_report_true(const json_t *value, const char *path);

/* Whether the run's memory is that of a device with its own; else it is the host's. */
bool bg_report_on_device(const json_t *run);
/* Memory above what the process held before the model was loaded, in bytes, or NaN. */
double bg_report_loaded_bytes(const json_t *run);
double bg_report_peak_bytes(const json_t *run);

/* The reason of a row that is not ok. */
const char *bg_report_reason(const bg_report_row *row);

/* Perplexity protocols in the order of preference where one must stand for quality; ends with
 * NULL. */
extern const char *const bg_report_protocols[];
/* The first of them for which some run of the model has a change against the baseline, or NULL. */
const char *bg_report_main_protocol(const bg_report_model *model);

/* A run's change in quality against the baseline, with more being worse: perplexity in per cent, or
 * where a classifier or a task was measured instead, accuracy lost in percentage points. NaN where
 * unknown; 0 for the baseline itself. */
double bg_report_quality_loss(const bg_report_model *model, const bg_report_row *row);
/* How many times as fast as the baseline, decoding (for a classifier: running sentences); *lo and
 * *hi, which may be NULL, are its interval, or NaN. NaN where unknown; 1 for the baseline itself.
 */
double bg_report_speedup(const bg_report_model *model, const bg_report_row *row, double *lo,
                         double *hi);

#endif
