/* Timing a model: one round is one prompt pass and, where the model predicts tokens, those after
 * it. An encoder-decoder reads the prompt with its encoder; a model that looks at images is given
 * one before each prompt. */
#ifndef BG_BENCH_TIMING_H
#define BG_BENCH_TIMING_H

#include "model/model.h"

typedef struct {
    const bg_model *model;
    bg_run *run;
    size_t prompt_tokens; /* of each sequence, an image's included */
    size_t new_tokens, batch;
    int32_t *ids;           /* (batch * prompt_tokens) */
    int32_t *next;          /* (batch) */
    size_t *last;           /* (batch) rows of each sequence's last token */
    bg_sequence *sequences; /* (batch) */
    float *labels;          /* classifier: (batch, num_labels) */
    float *pixels;          /* images: (batch, channels, size, size) */
} bg_timing;

/* Seconds of one round, by the host's clock: from a device that is idle to one that is again. */
typedef struct {
    /* Prompt ids to states; for a classifier, to labels. A mean where one takes less than 5 ms:
     * passes are then repeated for as long. */
    double prefill;
    double first_token; /* the same and the first choice; not for classifiers */
    double decode;      /* new_tokens further steps; not for classifiers */
    /* The same by the device's clock; negative where it has none. */
    double device_prefill, device_decode;
} bg_round;

/* What a pass over and over came to, by the device's energy counter. */
typedef struct {
    double joules, seconds;
    size_t passes; /* 0: not measured */
} bg_energy;

/* Refuses more tokens than the model has positions. */
bg_status bg_timing_check(const bg_config *config, int prompt_tokens, int new_tokens,
                          bg_error *err);

/* prompt_tokens 0: 32, or 128 for a classifier; an image's tokens come on top of them. The prompt
 * is made of ids spread over the vocabulary, the same in every round. */
bg_status bg_timing_create(const bg_model *model, int prompt_tokens, int new_tokens, int batch,
                           bg_timing **out, bg_error *err);
void bg_timing_free(bg_timing *timing);

bg_status bg_timing_round(bg_timing *timing, bg_round *out, bg_error *err);

/* The energy of the prompt's pass, and of decoding steps (behind a prompt that is not counted; a
 * pass is one step of each sequence). A counter moves only some times a second, so each is repeated
 * until it was seen to move at two moments more than a second apart, and counts between these.
 * Where there is none, or it does not move for five seconds, nothing is measured. */
bg_status bg_timing_energy(bg_timing *timing, bg_energy *prefill, bg_energy *decode, bg_error *err);

/* Rounds whose times are not kept, for a quarter of a second at least, until two in a row differ by
 * less than 5 %; at most fifty rounds or five seconds. */
bg_status bg_timing_warm_up(bg_timing *timing, int *rounds, bool *settled, bg_error *err);

#endif
