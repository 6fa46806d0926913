/* Medians and how far they can be trusted. */
#ifndef BG_BENCH_STATS_H
#define BG_BENCH_STATS_H

#include "core/error.h"

#include <stddef.h>

typedef struct {
    double median, low, high; /* low and high: the 95 % bootstrap percentile interval */
} bg_estimate;

/* The median of n > 0 samples and its interval, from 10,000 resamples with a fixed seed (Efron
 * 1979). With one sample the interval is that sample. */
bg_status bg_estimate_median(const double *samples, size_t n, bg_estimate *out, bg_error *err);

/* The same of the ratios a[i] / b[i]. */
bg_status bg_estimate_ratio(const double *a, const double *b, size_t n, bg_estimate *out,
                            bg_error *err);

#endif
