/* The memory of a worker as it goes into the results: the process's on the host, what the backend
 * took by its own account, and the device's. */
#ifndef BG_BENCH_FOOTPRINT_H
#define BG_BENCH_FOOTPRINT_H

#include "backend/backend.h"
#include "core/json.h"

typedef struct {
    int64_t rss;
    bg_usage usage;
} bg_footprint;

void bg_footprint_read(bg_backend *backend, bg_footprint *out);

/* {"allocated": {"before", "loaded"}, "device": {"source", "before", "loaded", "total"}}: the
 * first half of a run's "memory"; "device" only where it was measured both times. */
json_t *bg_footprint_loading(const bg_footprint *before, const bg_footprint *loaded);
/* The second half: {"allocated": {"peak", "end", ...}, "device": {"peak", "end"}}. */
json_t *bg_footprint_end(const bg_footprint *end);

#endif
