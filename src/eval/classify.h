/* Accuracy of a classifier on labelled sentences. */
#ifndef BG_EVAL_CLASSIFY_H
#define BG_EVAL_CLASSIFY_H

#include "bitgauge/bitgauge.h"
#include "model/model.h"

typedef struct {
    int64_t correct, total;
    double *seconds; /* (total) of each sentence's forward pass; released with bg_accuracy_free */
    int64_t tokens;  /* run in all, padding included */
} bg_accuracy;

/* Classifies each labelled sentence of a data file alone, truncated to max_length tokens and, with
 * `pad`, padded to it (padding is masked; it costs time and, for int8, can make an outlier column).
 * The largest logit decides. */
bg_status bg_classify_measure(const bg_model *model, const bg_tokenizer *tokenizer,
                              const char *path, int64_t limit, int max_length, bool pad,
                              bg_progress progress, bg_accuracy *out, bg_error *err);
void bg_accuracy_free(bg_accuracy *accuracy);

#endif
