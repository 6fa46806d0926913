/* What the files of a worker's side share. */
#ifndef BG_BENCH_SERVE_H
#define BG_BENCH_SERVE_H

#include "bench/job.h"
#include "bench/timing.h"
#include "core/json.h"
#include "tokenizer/tokenizer.h"

typedef struct {
    int out;
    json_t *request; /* of the load command: holds the job's strings */
    const char **prompts;
    bg_named_task *tasks;
    bg_job job;
    bg_backend *backend;
    const bg_format *precision;
    bg_config config; /* of the model, from its loading on */
    bg_model *model;
    bg_tokenizer *tokenizer;
    bg_timing *timing;
    bool peak_resets;    /* so that the peak at the end is that of running */
    const char *smaller; /* options that make smaller what is being done, for errors */
    double last_progress;
} bg_server;

/* A bg_progress_fn whose context is the bg_server. */
bool bg_server_progress(void *context, const char *stage, uint64_t done, uint64_t total);

/* The command "load": opens the device, then the model at a precision. */
bg_status bg_server_load(bg_server *server, json_t *request, json_t *run, bg_error *err);

/* Where a GPU's memory has run out, puts behind the error what would fit. */
void bg_server_explain(const bg_server *server, int fitting_batch, bg_error *err);

#endif
