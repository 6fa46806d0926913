/* Timing a model: one round is one prompt pass and, for a decoder, the tokens after it. */
#ifndef BG_BENCH_TIMING_H
#define BG_BENCH_TIMING_H

#include "model/model.h"

typedef struct {
    const bg_model *model;
    bg_run *run;
    size_t prompt_tokens, new_tokens, batch;
    int32_t *ids;           /* (batch * prompt_tokens) */
    int32_t *next;          /* (batch) */
    size_t *last;           /* (batch) rows of each sequence's last token */
    bg_sequence *sequences; /* (batch) */
    float *labels;          /* classifier: (batch, num_labels) */
} bg_timing;

/* Seconds of one round. */
typedef struct {
    double prefill;     /* prompt ids to states; for a classifier, to labels */
    double first_token; /* prompt ids to the first new id; decoders only */
    double decode;      /* new_tokens further steps; decoders only */
} bg_round;

/* Refuses more tokens than the model has positions. */
bg_status bg_timing_check(const bg_config *config, int prompt_tokens, int new_tokens,
                          bg_error *err);

/* prompt_tokens 0: 32 for a decoder, 128 for a classifier. The prompt is made of ids spread over
 * the vocabulary, the same in every round. */
bg_status bg_timing_create(const bg_model *model, int prompt_tokens, int new_tokens, int batch,
                           bg_timing **out, bg_error *err);
void bg_timing_free(bg_timing *timing);

bg_status bg_timing_round(bg_timing *timing, bg_round *out, bg_error *err);

/* Rounds whose times are not kept, for a quarter of a second at least, until two in a row differ by
 * less than 5 %; at most fifty rounds or five seconds. */
bg_status bg_timing_warm_up(bg_timing *timing, int *rounds, bool *settled, bg_error *err);

#endif
