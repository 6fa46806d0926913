/* Choosing a token from logits: the definition that every backend follows. */
#ifndef BG_BACKEND_CHOICE_H
#define BG_BACKEND_CHOICE_H

#include "backend/backend.h"

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

/* The id that is chosen of n logits, -1 where one is NaN; those of forbidden ids become -infinity.
 * `uniform` and `scratch`, with room for n candidates, are used where the temperature is over 0. */
int32_t bg_choose(float *logits, size_t n, const bg_choice *how, double uniform,
                  bg_candidate *scratch);

#endif
