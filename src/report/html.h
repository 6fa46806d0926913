/* The parts of the HTML page. Each appends its part, or nothing where the model has nothing for it;
 * `id` is unique to the model in the page. */
#ifndef BG_REPORT_HTML_H
#define BG_REPORT_HTML_H

#include "report/columns.h"
#include "report/view.h"

extern const char bg_html_style[]; /* the style sheet */

void bg_html_summary(bg_text *out, const bg_report_model *model, const bg_grid *grid);
/* What ran: kernels, threads and notes of each precision. */
void bg_html_evidence(bg_text *out, const bg_report_model *model);
/* The generated texts side by side, marked from where they leave the baseline's. */
void bg_html_texts(bg_text *out, const bg_report_model *model);

/* Speed-up against what it costs in quality. */
void bg_chart_scatter(bg_text *out, const bg_report_model *model, const char *id);
/* Weights, loaded and peak memory of each precision. */
void bg_chart_memory(bg_text *out, const bg_report_model *model, const char *id);
/* All samples of decoding, and of the prompt (or batch), with medians and intervals. */
void bg_chart_latency(bg_text *out, const bg_report_model *model, const char *id);

#endif
