/* One row of the results: a precision, measured by a worker process. */
#ifndef BG_BENCH_ROW_H
#define BG_BENCH_ROW_H

#include "bench/job.h"
#include "bench/tasks.h"
#include "bench/worker.h"
#include "model/config.h"

/* What the rows of a job share. */
typedef struct {
    const bg_job *job;
    const char *program;
    bg_progress progress;
    bg_config config;
    int64_t checkpoint_bytes;
    json_t *model; /* its entry in the results */
    bg_worker baseline_worker;
    json_t *baseline; /* the baseline's run; NULL until there is one */
    int64_t
        device_available; /* bytes that the device had free when the last row ended; 0: no GPU */
    bg_task_files task_files;
} bg_session;

/* Measures one precision into *out, a run that says "ok", for the caller to release or to mark as
 * failed; NULL where memory is out. Returns what went wrong. The first that succeeds becomes the
 * session's baseline, and its worker stays where there is room for it. */
bg_status bg_measure_row(bg_session *session, const char *precision, json_t **out, bg_error *err);

#endif
