/* A job's prompts, continued. */
#ifndef BG_BENCH_GENERATIONS_H
#define BG_BENCH_GENERATIONS_H

#include "bitgauge/bitgauge.h"
#include "model/model.h"

#include <jansson.h>

/* Adds "generations" to a run: what the model writes after each prompt. */
bg_status bg_generations_run(const bg_job *job, const bg_model *model,
                             const bg_tokenizer *tokenizer, bg_progress progress, json_t *run,
                             bg_error *err);

#endif
