/* A job as JSON, for the way to a worker process. */
#ifndef BG_BENCH_JOB_H
#define BG_BENCH_JOB_H

#include "bitgauge/bitgauge.h"
#include "core/json.h"

/* Everything but the list of precisions; NULL when out of memory. */
json_t *bg_job_to_json(const bg_job *job);

/* The other way. Strings are borrowed from `json`; *prompts and *tasks are arrays to release with
 * bg_free after the job. */
bg_status bg_job_from_json(const json_t *json, bg_job *out, const char ***prompts,
                           bg_named_task **tasks, bg_error *err);

/* Refuses numbers that make no sense. */
bg_status bg_job_check(const bg_job *job, bg_error *err);

#endif
