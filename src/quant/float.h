/* The formats without scales, and int8: encoders and decoders for the table in format.c. */
#ifndef BG_QUANT_FLOAT_H
#define BG_QUANT_FLOAT_H

#include "quant/format.h"

void bg_f32_encode(bg_packed *matrix, const float *values, size_t first, size_t n);
void bg_f32_decode(const bg_packed *matrix, float *values, size_t first, size_t n);
void bg_f16_encode(bg_packed *matrix, const float *values, size_t first, size_t n);
void bg_f16_decode(const bg_packed *matrix, float *values, size_t first, size_t n);
void bg_bf16_encode(bg_packed *matrix, const float *values, size_t first, size_t n);
void bg_bf16_decode(const bg_packed *matrix, float *values, size_t first, size_t n);
void bg_int8_encode(bg_packed *matrix, const float *values, size_t first, size_t n);
void bg_int8_decode(const bg_packed *matrix, float *values, size_t first, size_t n);

#endif
