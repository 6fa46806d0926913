/* One writer for each format; report.c chooses. Each appends to *out and may leave out->failed set;
 * the other failures come back as a status. */
#ifndef BG_REPORT_FORMATS_H
#define BG_REPORT_FORMATS_H

#include "report/columns.h"
#include "report/report.h"
#include "report/view.h"

bg_status bg_report_table(const bg_report_view *view, int width, bg_text *out, bg_error *err);
bg_status bg_report_json(const bg_report_view *view, int width, bg_text *out, bg_error *err);
bg_status bg_report_csv(const bg_report_view *view, int width, bg_text *out, bg_error *err);
bg_status bg_report_markdown(const bg_report_view *view, int width, bg_text *out, bg_error *err);
bg_status bg_report_html(const bg_report_view *view, int width, bg_text *out, bg_error *err);

/* A part of the table: the texts, where they are all that was measured. */
void bg_table_texts(bg_text *out, const bg_report_model *model, size_t width);

#endif
