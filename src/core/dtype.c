#include "core/dtype.h"

const bg_dtype_info bg_dtypes[BG_DTYPE_COUNT] = {
    [BG_F64] = {"float64", "F64", 8}, [BG_F32] = {"float32", "F32", 4},
    [BG_F16] = {"float16", "F16", 2}, [BG_BF16] = {"bfloat16", "BF16", 2},
    [BG_I64] = {"int64", "I64", 8},   [BG_I32] = {"int32", "I32", 4},
    [BG_I16] = {"int16", "I16", 2},   [BG_I8] = {"int8", "I8", 1},
    [BG_U8] = {"uint8", "U8", 1},     [BG_BOOL] = {"bool", "BOOL", 1},
};
