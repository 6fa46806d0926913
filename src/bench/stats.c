#include "bench/stats.h"

#include "core/alloc.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { RESAMPLES = 10000 };

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double sorted_median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, ascending);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

bg_status bg_estimate_median(const double *samples, size_t n, bg_estimate *out, bg_error *err)
{
    double *values = bg_alloc_array(n + RESAMPLES, sizeof *values);
    if (!values) return bg_fail_memory(err, (n + RESAMPLES) * sizeof *values, "statistics");
    double *medians = values + n;
    memcpy(values, samples, n * sizeof *values);
    out->median = sorted_median(values, n);
    uint64_t state = 0x2545F4914F6CDD1DULL;
    for (int i = 0; i < RESAMPLES; i++) {
        for (size_t k = 0; k < n; k++) {
            state = state * 6364136223846793005ULL + 1442695040888963407ULL;
            values[k] = samples[(state >> 33) % n];
        }
        medians[i] = sorted_median(values, n);
    }
    qsort(medians, RESAMPLES, sizeof *medians, ascending);
    out->low = medians[RESAMPLES / 40];
    out->high = medians[RESAMPLES - 1 - RESAMPLES / 40];
    bg_free(values);
    return BG_OK;
}

bg_status bg_estimate_ratio(const double *a, const double *b, size_t n, bg_estimate *out,
                            bg_error *err)
{
    double *ratios = bg_alloc_array(n, sizeof *ratios);
    if (!ratios) return bg_fail_memory(err, n * sizeof *ratios, "statistics");
    for (size_t i = 0; i < n; i++) ratios[i] = a[i] / b[i];
    bg_status status = bg_estimate_median(ratios, n, out, err);
    bg_free(ratios);
    return status;
}
