/* Choosing a token from logits. */
#ifndef BG_EVAL_SAMPLE_H
#define BG_EVAL_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    int32_t id;
    float logit;
} bg_candidate;

/* A repeatable stream of random numbers (SplitMix64, Steele et al. 2014). */
typedef struct {
    uint64_t state;
} bg_random;

/* Uniform in [0, 1). */
double bg_random_uniform(bg_random *random);

/* The id of the largest of n logits, the lowest on a tie; NaN never wins. */
int32_t bg_choose_largest(const float *logits, size_t n);

/* Draws an id as bg_generate documents. `scratch` has room for n candidates. temperature > 0. */
int32_t bg_choose_sampled(const float *logits, size_t n, double temperature, int top_k,
                          double top_p, bg_random *random, bg_candidate *scratch);

#endif
