/* The results document: schema "bitgauge/1", docs/results.md. */
#ifndef BG_BENCH_RESULTS_H
#define BG_BENCH_RESULTS_H

#include "bitgauge/bitgauge.h"
#include "core/json.h"

struct bg_results {
    json_t *document;
};

/* Adds a model ("name", "path", ...; consumed); its name is made unique among those there. The
 * entry is borrowed. */
bg_status bg_results_add_model(bg_results *results, json_t *model, json_t **entry, bg_error *err);

/* Adds a run (consumed). */
bg_status bg_results_add_run(bg_results *results, json_t *run, bg_error *err);

/* Fills in run["vs_baseline"] and the generations' first_difference from what both hold, but for
 * the speed-ups, which need paired samples: those of the baseline taken in turn with this run's, or
 * NULL. */
bg_status bg_results_compare(json_t *run, const json_t *baseline, const json_t *paired,
                             bg_error *err);

#endif
