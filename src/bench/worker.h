/* The two sides of a worker process, which holds one model at one precision: docs/worker.md has the
 * protocol. bg_worker_main, in the public header, is the worker's side; this is the parent's. */
#ifndef BG_BENCH_WORKER_H
#define BG_BENCH_WORKER_H

#include "bitgauge/bitgauge.h"
#include "core/json.h"

#include <sys/types.h>

typedef struct {
    pid_t pid;
    int in, out; /* pipes to and from it */
    char *buffer;
    size_t size, capacity; /* bytes of the line being read */
    const char *label;     /* put before the stages of its progress, borrowed: "nf4" */
} bg_worker;

/* Starts `program` (NULL: the running executable) as "bitgauge worker". */
bg_status bg_worker_start(const char *program, const char *label, bg_worker *out, bg_error *err);

/* Sends a command and waits for its answer, passing progress on; `progress` is also called while
 * nothing comes, and ends the wait by returning false. `arguments` (may be NULL) is merged into the
 * command and consumed. On success *answer is the run's new keys, owned by the caller. An error
 * that the worker reports, or its death, is returned as such. */
bg_status bg_worker_ask(bg_worker *worker, const char *command, json_t *arguments,
                        bg_progress progress, json_t **answer, bg_error *err);

/* Ends it, whatever it is doing. */
void bg_worker_stop(bg_worker *worker);

#endif
