/* Rotary position embedding (Su et al. 2021, arXiv:2104.09864): pair i of a head's values, (x[i],
 * x[i + dim / 2]), turns by position * frequency[i]. How the frequencies are stretched for contexts
 * longer than the trained one:
 *   linear   all by one factor (Chen et al. 2023, arXiv:2306.15595)
 *   llama3   low ones by the factor, high ones not, between them a blend (Llama 3.1)
 *   yarn     the same idea with a ramp over the dimensions, and a factor on the cosines and sines
 *            (Peng et al. 2023, arXiv:2309.00071)
 *   dynamic  not within the positions that the model has */
#ifndef BG_MODEL_ROPE_H
#define BG_MODEL_ROPE_H

#include "core/error.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { BG_ROPE_DEFAULT, BG_ROPE_LINEAR, BG_ROPE_LLAMA3, BG_ROPE_YARN } bg_rope_kind;

typedef struct {
    bg_rope_kind kind;
    int64_t dim; /* values of a head that turn, from its first; even */
    double theta;
    double factor;
    double original_positions;      /* llama3, yarn: the trained context */
    double low_factor, high_factor; /* llama3 */
    double beta_fast, beta_slow;    /* yarn: turns within the trained context */
    bool truncate;                  /* yarn: the ramp's ends are whole dimensions */
    double attention_factor;        /* yarn: on cosines and sines */
} bg_rope;

/* Reads "rope_parameters", or the older "rope_theta", "rope_scaling" and "partial_rotary_factor",
 * from config.json; what is absent is taken from `defaults`. */
bg_status bg_rope_parse(const json_t *config, const json_t *defaults, const char *where,
                        int64_t head_dim, int64_t max_positions, bg_rope *out, bg_error *err);

/* Row p of `table` (positions, dim) becomes dim / 2 cosines, then their sines, of position p +
 * first. */
bg_status bg_rope_table(const bg_rope *rope, size_t first, size_t positions, float *table,
                        bg_error *err);

#endif
