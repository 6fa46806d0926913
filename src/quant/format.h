/* Number formats for weight matrices. A format is one row of bg_formats: its geometry, how values
 * are encoded, how they are decoded. Code elsewhere asks the row; nothing else knows the bits.
 *
 * A matrix has the shape (rows, cols) = (out_features, in_features), row-major, so that a linear
 * layer is y[r] = sum over c of W[r][c] * x[c]. */
#ifndef BG_QUANT_FORMAT_H
#define BG_QUANT_FORMAT_H

#include "core/error.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    BG_FORMAT_F32,
    BG_FORMAT_F16,
    BG_FORMAT_BF16,
    BG_FORMAT_INT8,
    BG_FORMAT_NF4,
    BG_FORMAT_NF4_DQ,
    BG_FORMAT_FP4,
    BG_FORMAT_FP4_DQ,
    BG_FORMAT_INT8_PLAIN,
    BG_FORMAT_COUNT,
} bg_format_id;

enum {
    BG_BLOCK = 64,        /* values of one 4-bit block */
    BG_SCALE_BLOCK = 256, /* scales of one block of double quantization */
};

/* A packed matrix. The arrays belong to whoever allocated them (bg_packed_alloc: the host). Where
 * an array does not apply to the format it is NULL. */
typedef struct {
    bg_format_id format;
    size_t rows, cols;
    /* The values, row after row: 4- or 2-byte floats, int8 codes, or two 4-bit codes a byte with
     * the first in the high nibble. A 4-bit matrix is one flat sequence: where cols is no multiple
     * of 64, blocks run across rows. */
    void *codes;
    /* absmax: of each row (int8), of each block of 64 (nf4, fp4). */
    float *scales; /* (rows) or (blocks) */
    /* Double quantization: absmax of block b = code[scale_codes[b]] * scale_absmax[b / 256] +
     * scale_offset, with code = bg_dynamic_map(). */
    uint8_t *scale_codes;   /* (blocks) */
    float *scale_absmax;    /* (blocks / 256, rounded up) */
    const float *scale_map; /* bg_dynamic_map() */
    float scale_offset;
} bg_packed;

typedef struct {
    const char *name; /* as --precision spells it */
    int bits;         /* of one value, without scales */
    bool blockwise;   /* 4-bit blocks of 64 in the flattened matrix */
    bool double_quant;
    const float *code; /* blockwise: the 16 values of the codes; else NULL */
    /* Encodes values [first, first + n) of the flattened matrix, n floats at `values`, into
     * `matrix`. For a blockwise format `first` must be a multiple of 64, and so must n unless it
     * ends the matrix; for int8 both must be multiples of cols. Different ranges may be encoded by
     * different threads. A double-quantized format writes plain scales to `matrix->scales`, which
     * must be there then; bg_packed_finish turns them into the final form. */
    void (*encode)(bg_packed *matrix, const float *values, size_t first, size_t n);
    /* Decodes values [first, first + n) to floats; any range. The scalar reference that every
     * faster decoder is compared with. */
    void (*decode)(const bg_packed *matrix, float *values, size_t first, size_t n);
    /* LLM.int8(): activations of this magnitude and more make their column an outlier, computed in
     * 16 bits; INFINITY: all are quantized, as with bitsandbytes' threshold of 0. 0 for formats
     * that do not quantize activations. */
    float outlier_threshold;
    bool on_request; /* not among the precisions that are compared where none is named */
} bg_format;

extern const bg_format bg_formats[BG_FORMAT_COUNT];

/* Whether rows of weights and of activations are int8 with an absmax each, and their product int32:
 * LLM.int8(), with or without outlier columns. */
static inline bool bg_format_is_int8(bg_format_id id)
{
    return bg_formats[id].outlier_threshold > 0;
}

/* Whether it has outlier columns, so that what runs in a batch depends on all of its rows. */
static inline bool bg_format_has_outliers(bg_format_id id)
{
    return bg_format_is_int8(id) && isfinite(bg_formats[id].outlier_threshold);
}

/* The format of that name, or NULL. */
const bg_format *bg_format_by_name(const char *name);

/* Bytes of each part of a matrix; the sum counts everything that the format needs. */
typedef struct {
    size_t codes, scales, scale_codes, scale_absmax, total;
} bg_packed_bytes;

/* False when the shape is so large that sizes overflow. */
bool bg_packed_measure(bg_format_id format, size_t rows, size_t cols, bg_packed_bytes *bytes);

/* Allocates the arrays of a matrix on the host, zeroed. For a double-quantized format `scales` is
 * allocated for encoding and released by bg_packed_finish. */
bg_status bg_packed_alloc(bg_format_id format, size_t rows, size_t cols, bg_packed *out,
                          bg_error *err);
void bg_packed_free(bg_packed *matrix);

/* Ends encoding: quantizes the scales of a double-quantized matrix. Nothing for other formats. */
void bg_packed_finish(bg_packed *matrix);

/* Number of 4-bit blocks. */
static inline size_t bg_packed_blocks(const bg_packed *matrix)
{
    return (matrix->rows * matrix->cols + BG_BLOCK - 1) / BG_BLOCK;
}

/* absmax of block b of a blockwise matrix, whichever way it is stored. */
static inline float bg_block_scale(const bg_packed *matrix, size_t block)
{
    if (matrix->scales) return matrix->scales[block];
    return matrix->scale_map[matrix->scale_codes[block]] *
               matrix->scale_absmax[block / BG_SCALE_BLOCK] +
           matrix->scale_offset;
}

/* ---- LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339) ------------------------------------ */

/* The factor that turns a row of largest magnitude `absmax` (a binary16 value) into codes -127 to
 * 127; 0 for an absmax of 0. */
float bg_int8_factor(float absmax);

#endif
