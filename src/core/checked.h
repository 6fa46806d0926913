/* Size arithmetic that notices overflow: sizes from a file are multiplied and added with these. */
#ifndef BG_CORE_CHECKED_H
#define BG_CORE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>

/* Each stores a (op) b in *out and returns false on overflow. */
static inline bool bg_mul_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool bg_add_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

static inline size_t bg_min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t bg_max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

#endif
