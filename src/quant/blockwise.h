/* 4-bit formats with an absmax for each block of 64 (QLoRA, Dettmers et al. 2023,
 * arXiv:2305.14314), bit-exact with bitsandbytes. What differs between them is the code: */
#ifndef BG_QUANT_BLOCKWISE_H
#define BG_QUANT_BLOCKWISE_H

#include "quant/format.h"

/* Maps a value, scaled to [-1, 1] by its block's absmax, to its 4-bit code. NaN, which a block of
 * zeros gives, maps to 0. */
typedef uint8_t (*bg_nibble_encoder)(float x);

void bg_blockwise_encode(bg_packed *matrix, const float *values, size_t first, size_t n,
                         bg_nibble_encoder nibble);
void bg_blockwise_decode(const bg_packed *matrix, float *values, size_t first, size_t n);

extern const float bg_nf4_code[16], bg_fp4_code[16];

void bg_nf4_encode(bg_packed *matrix, const float *values, size_t first, size_t n);
void bg_fp4_encode(bg_packed *matrix, const float *values, size_t first, size_t n);

#endif
