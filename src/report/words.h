/* The sentences of a report, as plain text for a format to escape. */
#ifndef BG_REPORT_WORDS_H
#define BG_REPORT_WORDS_H

#include "core/text.h"
#include "report/view.h"

/* What quantizing this model came to, in one sentence computed from its rows: the smallest
 * precision (of those within a tenth of the smallest weights, the one that loses least quality)
 * against the baseline. */
void bg_words_finding(bg_text *out, const bg_report_model *model);

/* What the model is: "GPT2LMHeadModel, 6.9 million parameters, float16, 4 layers of 256". */
void bg_words_model(bg_text *out, const bg_report_model *model);

/* Under which conditions the numbers were taken: "Prompt of 32 tokens, 50 new tokens, batch of 1, 2
 * threads; ...". Empty where the rows say nothing. */
void bg_words_conditions(bg_text *out, const bg_report_model *model);

/* What a reader should keep in mind about the numbers; empty where there is nothing. */
void bg_words_cautions(bg_text *out, const bg_report_model *model);

/* The machine: "AMD EPYC, 2 logical processors, 16 GiB, avx512-vnni, Debian 12". */
void bg_words_machine(bg_text *out, const json_t *document);

#endif
