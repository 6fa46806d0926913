/* Floating-point element types as floats. */
#ifndef BG_QUANT_WIDEN_H
#define BG_QUANT_WIDEN_H

#include "core/dtype.h"

/* Elements [first, first + n) of an array, which need not be aligned, as floats. */
typedef void (*bg_widen_fn)(const void *data, size_t first, size_t n, float *out);

/* Indexed by bg_dtype; NULL for integers. */
extern const bg_widen_fn bg_widen[BG_DTYPE_COUNT];

#endif
