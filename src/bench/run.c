/* bg_run_job: what can be refused at once, then one row after the other, each in a worker process
 * of its own (row.c). The baseline's worker stays while the others run, so that the two can be
 * timed in turn; every other one ends with its row. */
#include "backend/backend.h"
#include "bench/job.h"
#include "bench/machine.h"
#include "bench/results.h"
#include "bench/row.h"
#include "bench/tasks.h"
#include "bench/timing.h"
#include "bench/worker.h"
#include "checkpoint/checkpoint.h"
#include "core/alloc.h"
#include "core/checked.h"
#include "core/file.h"
#include "core/json.h"
#include "eval/dataset.h"
#include "eval/perplexity.h"
#include "eval/prompt.h"
#include "hub/hub.h"
#include "model/config.h"
#include "quant/format.h"

#include <stdio.h>
#include <string.h>

/* ---- before the first row: what can be refused at once --------------------------------------- */

/* The last part of a path, for a name. */
static const char *base_name(const char *path, char *out, size_t size)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    size_t begin = n;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    snprintf(out, size, "%.*s", (int)bg_min_size(n - begin, size - 1), path + begin);
    return out;
}

/* `given` is what the user calls the model: a path, or a name on the Hub. */
static bg_status describe_model(bg_session *s, const char *given, bg_results *results,
                                bg_error *err)
{
    bg_checkpoint *checkpoint;
    BG_TRY(s->job->random_weights ? bg_checkpoint_open_config(s->job->model, &checkpoint, err)
                                  : bg_checkpoint_open(s->job->model, &checkpoint, err));
    bg_status status = bg_config_load(checkpoint, &s->config, err);
    const bg_dtype dtype = bg_checkpoint_dtype(checkpoint, s->config.dtype);
    s->checkpoint_bytes = (int64_t)bg_checkpoint_file_bytes(checkpoint);
    bg_checkpoint_close(checkpoint);
    if (status != BG_OK) return status;
    static const char *const task_names[] = {[BG_TASK_DECODER] = "decoder",
                                             [BG_TASK_CLASSIFIER] = "classifier",
                                             [BG_TASK_SEQ2SEQ] = "seq2seq",
                                             [BG_TASK_ENCODER] = "encoder"};
    const bg_config *c = &s->config;
    char buffer[256];
    const char *path = s->job->model;
    const char *name = strcmp(given, path) == 0 ? base_name(path, buffer, sizeof buffer) : given;
    json_t *model = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:b}", "name", name,
                              "path", path, "architecture", c->architecture, "model_type",
                              c->arch->model_type, "task", task_names[c->arch->task], "dtype",
                              bg_dtypes[dtype].name, "hidden_size", (json_int_t)c->hidden_size,
                              "num_hidden_layers", (json_int_t)c->num_hidden_layers, "vocab_size",
                              (json_int_t)c->vocab_size, "random_weights", s->job->random_weights);
    if (!model)
        return bg_fail(err, BG_ERR_USAGE, "%s: the path is not valid UTF-8; rename it", path);
    if (s->checkpoint_bytes > 0)
        BG_TRY(bg_json_set(model, "checkpoint_bytes", json_integer(s->checkpoint_bytes), err));
    return bg_results_add_model(results, model, &s->model, err);
}

/* Options that this model cannot do, and a tokenizer that is not there: said once, not row by row.
 */
static bg_status check_options(const bg_job *job, const bg_config *c, bg_error *err)
{
    static const bg_protocol protocols[] = {BG_PROTOCOL_LINES, BG_PROTOCOL_SLIDING,
                                            BG_PROTOCOL_CHUNKS};
    const long long context = (long long)c->max_position_embeddings;
    for (int i = 0; job->perplexity.enabled && i < 3; i++) {
        bg_perplexity_options options = {protocols[i], job->perplexity.max_length,
                                         job->perplexity.stride, 0, 0};
        if (job->perplexity.protocols & protocols[i])
            BG_TRY(bg_perplexity_complete(c, &options, err));
    }
    if (job->classify.enabled && job->classify.max_length > context)
        return bg_fail(
            err, BG_ERR_USAGE,
            "classify: a max length of %d does not fit this model; choose from 3 to %lld",
            job->classify.max_length, context);
    if (job->generate.enabled && job->generate.max_new_tokens >= context)
        return bg_fail(err, BG_ERR_USAGE,
                       "generate: %d new tokens do not fit the %lld positions of this model; lower "
                       "--max-new-tokens",
                       job->generate.max_new_tokens, context);
    if (job->generate.enabled && job->generate.image) {
        float *pixels;
        BG_TRY(bg_prompt_image(c, job->model, job->generate.image, &pixels, err));
        bg_free(pixels);
    }
    if (job->bench.enabled)
        BG_TRY(bg_timing_check(c, job->bench.prompt_tokens, job->bench.new_tokens, err));
    if (!job->perplexity.enabled && !job->classify.enabled && !job->generate.enabled &&
        job->tasks.n == 0)
        return BG_OK;
    bg_tokenizer *tokenizer;
    BG_TRY(bg_tokenizer_open(job->model, &tokenizer, err));
    bg_tokenizer_close(tokenizer);
    return BG_OK;
}

/* The host's, with the threads that compute. */
static bg_status add_bandwidth(const bg_job *job, json_t *machine, bg_error *err)
{
    bg_threads *threads;
    double bandwidth;
    if (json_object_get(machine, "bandwidth_bytes_per_s")) return BG_OK;
    BG_TRY(bg_threads_create(job->threads, &threads, err));
    bg_status status = bg_measure_bandwidth(threads, &bandwidth, err);
    bg_threads_free(threads);
    BG_TRY(status);
    return bg_json_set(machine, "bandwidth_bytes_per_s", json_real(bandwidth), err);
}

/* The GPU's entry in machine.gpus. Looked at by a worker, so that this process takes none of its
 * memory. Where that fails there is no entry, and the rows say why. */
static bg_status add_gpu(const bg_session *s, json_t *machine, bg_error *err)
{
    json_t *gpus = json_object_get(machine, "gpus"), *gpu, *answer;
    const char *device = s->job->device;
    size_t i;
    json_array_foreach(gpus, i, gpu)
    {
        const char *known = json_string_value(json_object_get(gpu, "device"));
        if (known && strcmp(known, device) == 0) return BG_OK;
    }
    bg_worker worker;
    BG_TRY(bg_worker_start(s->program, device, &worker, err));
    bg_status status = bg_worker_ask(&worker, "device", json_pack("{s:s}", "device", device),
                                     s->progress, &answer, err);
    bg_worker_stop(&worker);
    if (status != BG_OK) return status == BG_ERR_INTERRUPTED ? status : BG_OK;
    if (!gpus) {
        gpus = json_array();
        status = bg_json_set(machine, "gpus", gpus, err);
    }
    if (status == BG_OK && json_array_append(gpus, json_object_get(answer, "gpu")) != 0)
        status = bg_fail_memory(err, 4096, "a description of the GPU");
    json_decref(answer);
    return status;
}

/* How fast memory can be read bounds how fast tokens can come: beside speeds it belongs into the
 * results. Measured once. */
static bg_status add_machine(const bg_session *s, bg_results *results, bg_error *err)
{
    json_t *machine = json_object_get(results->document, "machine");
    if (strcmp(s->job->device, "cpu") != 0) return add_gpu(s, machine, err);
    return s->job->bench.enabled ? add_bandwidth(s->job, machine, err) : BG_OK;
}

/* Leaves out the measurements that do not fit the model; an error where none is left. */
static bg_status fit_to_task(bg_session *s, bg_job *job, bg_error *err)
{
    const bg_task task = s->config.arch->task;
    bool wanted = job->perplexity.enabled || job->classify.enabled || job->generate.enabled ||
                  job->tasks.n > 0;
    BG_TRY(bg_tasks_fit(job, &s->config, s->progress, &s->task_files, err));
    if (job->classify.max_length == 0)
        job->classify.max_length =
            (int)(s->config.max_position_embeddings < 128 ? s->config.max_position_embeddings
                                                          : 128);
    job->perplexity.enabled &= task == BG_TASK_DECODER;
    job->classify.enabled &= task == BG_TASK_CLASSIFIER;
    job->generate.enabled &= task != BG_TASK_CLASSIFIER;
    if (job->bench.enabled || job->perplexity.enabled || job->classify.enabled ||
        job->generate.enabled || job->tasks.n > 0 || !wanted)
        return BG_OK;
    return bg_fail(err, BG_ERR_UNSUPPORTED, "%s: %s %s", job->model, s->config.architecture,
                   task == BG_TASK_DECODER
                       ? "predicts tokens and has no labels; use `bitgauge perplexity`, "
                         "`generate`, `bench` or `compare --task sst2`"
                   : task == BG_TASK_SEQ2SEQ
                       ? "answers a text and continues none; use `bitgauge classify`, `generate` "
                         "or `bench`"
                       : "classifies texts and predicts no tokens; use `bitgauge classify` or "
                         "`bench`");
}

static bg_status check_inputs(const bg_job *job, bg_error *err)
{
    for (size_t i = 0; i < job->n_precisions; i++) {
        if (bg_format_by_name(job->precisions[i])) continue;
        char known[128] = "";
        for (int k = 0; k < BG_FORMAT_COUNT; k++) {
            size_t used = strlen(known);
            snprintf(known + used, sizeof known - used, "%s%s", k ? ", " : "", bg_formats[k].name);
        }
        return bg_fail(err, BG_ERR_USAGE, "precision \"%.64s\" is not known; choose from %s",
                       job->precisions[i], known);
    }
    if (job->n_precisions == 0) return bg_fail(err, BG_ERR_USAGE, "no precision was named");
    BG_TRY(bg_backend_check(job->device, err));
    if (job->perplexity.enabled) {
        bg_mapping file;
        BG_TRY(bg_map_file(job->perplexity.text, &file, err));
        bool empty = file.size == 0;
        bg_unmap(&file);
        if (empty)
            return bg_fail(err, BG_ERR_FORMAT, "%s: the text is empty; give one with some words",
                           job->perplexity.text);
    }
    if (job->classify.enabled) {
        bg_dataset data;
        BG_TRY(bg_dataset_open(job->classify.data, job->classify.limit, &data, err));
        bg_dataset_close(&data);
    }
    return BG_OK;
}

/* ---- the rows -------------------------------------------------------------------------------- */

/* A failed row keeps what it had got so far, but nothing half done. */
static bg_status mark_failed(json_t *run, const bg_error *problem, bg_error *err)
{
    static const char *const partial[] = {"warmup", "memory", "vs_baseline"};
    for (size_t i = 0; i < sizeof partial / sizeof *partial; i++) json_object_del(run, partial[i]);
    BG_TRY(bg_json_set(run, "status", json_string("error"), err));
    return bg_json_set(run, "error", json_string(problem->message), err);
}

static bg_status measure_rows(bg_session *s, bg_results *results, bg_error *err)
{
    bg_status overall = BG_OK;
    for (size_t i = 0; i < s->job->n_precisions; i++) {
        json_t *run;
        bg_error problem = {0};
        bg_status status = bg_measure_row(s, s->job->precisions[i], &run, &problem);
        if (status == BG_ERR_INTERRUPTED) {
            json_decref(run);
            return bg_fail(err, status,
                           "interrupted during %s; %zu of %zu precisions were finished",
                           s->job->precisions[i], i, s->job->n_precisions);
        }
        if (status != BG_OK && run) {
            bg_status marked = mark_failed(run, &problem, err);
            if (marked != BG_OK) {
                json_decref(run);
                return marked;
            }
            if (overall == BG_OK)
                overall = bg_fail(err, BG_ERR_ROW, "%s failed: %.900s", s->job->precisions[i],
                                  problem.message);
        }
        if (!run) return bg_fail_memory(err, 256, "a run");
        BG_TRY(bg_results_add_run(results, run, err));
    }
    return overall;
}

bg_status bg_run_job(const bg_job *job, const char *worker, bg_progress progress,
                     bg_results *results, bg_error *err)
{
    bg_job fitted = *job;
    bg_session s = {.job = &fitted,
                    .program = worker,
                    .progress = progress,
                    .baseline_worker = {.pid = -1, .in = -1, .out = -1}};
    bg_json_init();
    BG_TRY(bg_job_check(job, err));
    BG_TRY(check_inputs(&(bg_job){.precisions = job->precisions,
                                  .n_precisions = job->n_precisions,
                                  .device = job->device},
                        err));
    /* Once, here: the workers find the files and ask nobody. */
    char *directory;
    BG_TRY(bg_hub_resolve_model(job->model, job->random_weights, progress, &directory, err));
    fitted.model = directory;
    bg_status status = describe_model(&s, job->model, results, err);
    if (status == BG_OK) status = fit_to_task(&s, &fitted, err);
    if (status == BG_OK) status = check_inputs(&fitted, err);
    if (status == BG_OK) status = check_options(&fitted, &s.config, err);
    if (status == BG_OK) status = add_machine(&s, results, err);
    if (status == BG_OK) status = measure_rows(&s, results, err);
    bg_worker_stop(&s.baseline_worker);
    json_decref(s.baseline);
    bg_config_free(&s.config);
    bg_task_files_free(&s.task_files);
    bg_free(directory);
    return status;
}
