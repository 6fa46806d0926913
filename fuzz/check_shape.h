/* What every tensor of a checkpoint promises, whatever file it is from. */
#ifndef BG_FUZZ_CHECK_SHAPE_H
#define BG_FUZZ_CHECK_SHAPE_H

#include "checkpoint/checkpoint.h"

#include <stdlib.h>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) abort();                                                                 \
    } while (0)

/* bytes == product(shape) * element size, in numbers that cannot overflow. */
static inline void check_shape(const bg_tensor *t)
{
    REQUIRE(t->rank >= 0 && t->rank <= BG_MAX_RANK && t->dtype >= 0 && t->dtype < BG_DTYPE_COUNT);
    unsigned __int128 bytes = bg_dtypes[t->dtype].size;
    for (int i = 0; i < t->rank; i++) {
        REQUIRE(t->shape[i] >= 0);
        bytes *= (unsigned __int128)t->shape[i];
        REQUIRE(bytes <= SIZE_MAX);
    }
    REQUIRE(bytes == t->bytes);
}

#endif
