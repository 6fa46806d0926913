/* Text generation: a prompt's tokens, then one token after the other. */
#ifndef BG_EVAL_GENERATE_H
#define BG_EVAL_GENERATE_H

#include "bitgauge/bitgauge.h"
#include "model/model.h"

typedef struct {
    int max_new_tokens;
    bool stop_at_eos;   /* else end tokens are never chosen: every text has max_new_tokens */
    double temperature; /* 0: greedy */
    int top_k;          /* 0: off */
    double top_p;       /* 1: off */
    uint64_t seed;
    const float *pixels; /* an image for the prompt's image tokens, or NULL */
} bg_generate_options;

typedef struct {
    /* (n) prompt and new tokens; for an encoder-decoder its start token and the new ones. Released
     * with bg_generation_free. */
    int32_t *ids;
    size_t n;
    size_t first_new;     /* where the new ones begin */
    size_t prompt_tokens; /* read before them */
    bool ended;           /* by an end token, which is the last id */
} bg_generation;

/* Continues one prompt; an encoder-decoder answers it. Where generation_config.json forces first
 * tokens, they come first. Greedy choice takes the largest logit, the lowest id on a tie. Sampling
 * divides the logits by the temperature, keeps the top_k largest, then the smallest set whose
 * probability reaches top_p, and draws from it with a generator seeded by `seed`. */
bg_status bg_generate(const bg_model *model, const int32_t *prompt, size_t n_prompt,
                      const bg_generate_options *options, bg_progress progress, bg_generation *out,
                      bg_error *err);
void bg_generation_free(bg_generation *generation);

#endif
