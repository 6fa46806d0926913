/* The named tasks of a job: which measurement of a model each one is, where its data comes from,
 * and what it adds to a run. */
#ifndef BG_BENCH_TASKS_H
#define BG_BENCH_TASKS_H

#include "core/json.h"
#include "model/model.h"

/* What a job's tasks point into after bg_tasks_fit. */
typedef struct {
    bg_named_task *items;
    char **paths; /* (n) */
    size_t n;
} bg_task_files;

/* Leaves in job->tasks what this model can be asked, with the data file of each, pulled from the
 * Hub where none was named. "wikitext2" becomes the job's text for perplexity; "sst2", and for an
 * encoder-decoder model the labelled sentences, become what the model can do with them: a
 * classifier classifies, the others are asked. Data that a task cannot read is refused. */
bg_status bg_tasks_fit(bg_job *job, const bg_config *config, bg_progress progress,
                       bg_task_files *owned, bg_error *err);
void bg_task_files_free(bg_task_files *files);

/* A worker's side: runs them all and sets run["tasks"]. */
bg_status bg_tasks_run(const bg_job *job, const bg_model *model, const bg_tokenizer *tokenizer,
                       bg_progress progress, json_t *run, bg_error *err);

/* Sets out["tasks"]: for each metric that both runs have, how this one's differs from the
 * baseline's. */
bg_status bg_tasks_compare(json_t *out, const json_t *run, const json_t *baseline, bg_error *err);

#endif
