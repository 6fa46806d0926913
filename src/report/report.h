/* From a results document (schema "bitgauge/1", docs/results.md) to something to read: a terminal
 * table, JSON, CSV, Markdown, or an HTML page. Pure functions: nothing is read or written but the
 * arguments.
 *
 * The document's shape is not trusted. What is absent or of another type than it should be is shown
 * as an en dash, and every string is escaped for the format it goes into. */
#ifndef BG_REPORT_REPORT_H
#define BG_REPORT_REPORT_H

#include "core/error.h"
#include "core/text.h"

#include <jansson.h>

/* Appends the report to *out, which starts as {0} and is released with bg_text_free, on failure
 * too. `width` is the terminal's width in columns for BG_REPORT_TABLE (0: 100; less than 40 is
 * taken as 40) and ignored otherwise. Fails with BG_ERR_MEMORY, with BG_ERR_USAGE for an unknown
 * format, or with BG_ERR_INTERNAL where `results` is no JSON object. */
bg_status bg_report_render(const json_t *results, bg_report_format format, int width, bg_text *out,
                           bg_error *err);

#endif
