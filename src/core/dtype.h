/* Element types that checkpoints hold. */
#ifndef BG_CORE_DTYPE_H
#define BG_CORE_DTYPE_H

#include <stddef.h>

typedef enum {
    BG_F64,
    BG_F32,
    BG_F16,
    BG_BF16,
    BG_I64,
    BG_I32,
    BG_I16,
    BG_I8,
    BG_U8,
    BG_BOOL,
    BG_DTYPE_COUNT,
} bg_dtype;

typedef struct {
    const char *name;        /* as PyTorch and config.json spell it: "float16" */
    const char *safetensors; /* as a safetensors header spells it: "F16" */
    size_t size;             /* bytes */
} bg_dtype_info;

extern const bg_dtype_info bg_dtypes[BG_DTYPE_COUNT];

#endif
