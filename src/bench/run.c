/* bg_run_job: one row after the other, each in a worker process of its own. The baseline's worker
 * stays while the others run, so that the two can be timed in turn; every other one ends with its
 * row. */
#include "backend/backend.h"
#include "bench/job.h"
#include "bench/machine.h"
#include "bench/results.h"
#include "bench/stats.h"
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
} session;

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
static bg_status describe_model(session *s, const char *given, bg_results *results, bg_error *err)
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
static bg_status add_gpu(const session *s, json_t *machine, bg_error *err)
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
static bg_status add_machine(const session *s, bg_results *results, bg_error *err)
{
    json_t *machine = json_object_get(results->document, "machine");
    if (strcmp(s->job->device, "cpu") != 0) return add_gpu(s, machine, err);
    return s->job->bench.enabled ? add_bandwidth(s->job, machine, err) : BG_OK;
}

/* Leaves out the measurements that do not fit the model; an error where none is left. */
static bg_status fit_to_task(session *s, bg_job *job, bg_error *err)
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

/* ---- one row --------------------------------------------------------------------------------- */

/* Samples of one kind, collected from rounds, as an array; nothing where the round has none. */
static bg_status collect(json_t *samples, const char *key, const json_t *round, const char *field,
                         bg_error *err)
{
    json_t *list = json_object_get(samples, key);
    if (!json_object_get(round, field)) return BG_OK;
    if (!list) {
        list = json_array();
        BG_TRY(bg_json_set(samples, key, list, err));
    }
    if (json_array_append(list, json_object_get(round, field)) == 0) return BG_OK;
    return bg_fail_memory(err, 64, key);
}

static bg_status one_round(session *s, bg_worker *worker, json_t *samples, bg_error *err)
{
    json_t *round;
    BG_TRY(bg_worker_ask(worker, "round", NULL, s->progress, &round, err));
    bg_status status = collect(samples, "prefill", round, "prefill", err);
    if (status == BG_OK) status = collect(samples, "first_token", round, "first_token", err);
    if (status == BG_OK) status = collect(samples, "decode", round, "decode", err);
    if (status == BG_OK) status = collect(samples, "device_prefill", round, "device_prefill", err);
    if (status == BG_OK) status = collect(samples, "device_decode", round, "device_decode", err);
    json_decref(round);
    return status;
}

/* run[key] = {tokens or new_tokens, batch, median_s, ci95_s, samples_s, ...} */
static bg_status add_times(json_t *run, const char *key, const json_t *samples,
                           const char *count_key, int64_t count, int64_t batch, bg_error *err)
{
    size_t n = json_array_size(samples);
    double *values = bg_alloc_array(n, sizeof *values);
    if (!values) return bg_fail_memory(err, n * sizeof *values, key);
    for (size_t i = 0; i < n; i++) values[i] = json_number_value(json_array_get(samples, i));
    bg_estimate e;
    bg_status status = bg_estimate_median(values, n, &e, err);
    bg_free(values);
    BG_TRY(status);
    json_t *times = count_key ? json_pack("{s:I, s:I}", count_key, (json_int_t)count, "batch",
                                          (json_int_t)batch)
                              : json_object();
    BG_TRY(bg_json_set(run, key, times, err));
    BG_TRY(bg_json_set(times, "median_s", json_real(e.median), err));
    BG_TRY(bg_json_set(times, "ci95_s", json_pack("[f, f]", e.low, e.high), err));
    return bg_json_set(times, "samples_s", json_incref((json_t *)samples), err);
}

/* The same regions by the device's own clock, where it has one. */
static bg_status add_device_times(json_t *times, const json_t *samples, bg_error *err)
{
    json_t *device = NULL;
    if (json_array_size(samples) != json_array_size(json_object_get(times, "samples_s")))
        return BG_OK;
    device = json_object();
    bg_status status = add_times(device, "times", samples, NULL, 0, 0, err);
    const json_t *result = json_object_get(device, "times");
    if (status == BG_OK)
        status = bg_json_set(times, "device_median_s",
                             json_incref(json_object_get(result, "median_s")), err);
    if (status == BG_OK)
        status = bg_json_set(times, "device_samples_s", json_incref((json_t *)samples), err);
    json_decref(device);
    return status;
}

static bg_status add_speeds(session *s, json_t *run, const json_t *samples, int64_t prompt_tokens,
                            bg_error *err)
{
    const int64_t batch = s->job->bench.batch, new_tokens = s->job->bench.new_tokens;
    const bool decoder = s->config.arch->task != BG_TASK_CLASSIFIER;
    BG_TRY(add_times(run, "prefill", json_object_get(samples, "prefill"), "tokens", prompt_tokens,
                     batch, err));
    json_t *prefill = json_object_get(run, "prefill");
    double seconds = json_number_value(json_object_get(prefill, "median_s"));
    BG_TRY(bg_json_set(prefill, "tokens_per_s",
                       json_real((double)(prompt_tokens * batch) / seconds), err));
    BG_TRY(add_device_times(prefill, json_object_get(samples, "device_prefill"), err));
    if (!decoder)
        return bg_json_set(prefill, "sentences_per_s", json_real((double)batch / seconds), err);
    BG_TRY(add_times(run, "time_to_first_token", json_object_get(samples, "first_token"), NULL, 0,
                     0, err));
    BG_TRY(add_times(run, "decode", json_object_get(samples, "decode"), "new_tokens", new_tokens,
                     batch, err));
    json_t *decode = json_object_get(run, "decode");
    seconds = json_number_value(json_object_get(decode, "median_s"));
    BG_TRY(add_device_times(decode, json_object_get(samples, "device_decode"), err));
    BG_TRY(
        bg_json_set(decode, "ms_per_token", json_real(1000 * seconds / (double)new_tokens), err));
    return bg_json_set(decode, "tokens_per_s", json_real((double)(new_tokens * batch) / seconds),
                       err);
}

/* A round of the baseline. Where its worker fails, it is another row that is being measured: that
 * one goes on alone, and so do the rest. False then; *status is an interruption, or as it was. */
static bool baseline_round(session *s, json_t *samples, bg_status *status, bg_error *err)
{
    bg_error problem = {0};
    bg_status result = one_round(s, &s->baseline_worker, samples, &problem);
    if (result == BG_OK) return true;
    if (result == BG_ERR_INTERRUPTED)
        *status = bg_fail(err, result, "%s", problem.message);
    else
        bg_worker_stop(&s->baseline_worker);
    return false;
}

/* Times a row, in turn with the baseline where its worker is there: *paired is then the baseline's
 * samples. */
static bg_status time_row(session *s, bg_worker *worker, json_t *run, json_t **paired,
                          bg_error *err)
{
    json_t *warm_up;
    BG_TRY(bg_worker_ask(worker, "warm_up", NULL, s->progress, &warm_up, err));
    int64_t prompt_tokens = json_integer_value(json_object_get(warm_up, "prompt_tokens"));
    bg_status status =
        bg_json_set(run, "warmup", json_incref(json_object_get(warm_up, "warmup")), err);
    json_decref(warm_up);
    BG_TRY(status);
    bool in_turn = s->baseline && s->baseline_worker.pid > 0;
    json_t *mine = json_object(), *theirs = json_object();
    if (!mine || !theirs) status = bg_fail_memory(err, 64, "samples");
    /* A pair that is not kept: the baseline has slept meanwhile. */
    json_t *unkept = json_object();
    if (in_turn && unkept) in_turn = baseline_round(s, unkept, &status, err);
    json_decref(unkept);
    for (int i = 0; i < s->job->bench.runs && status == BG_OK; i++) {
        if (in_turn) in_turn = baseline_round(s, theirs, &status, err);
        if (status == BG_OK) status = one_round(s, worker, mine, err);
    }
    if (status == BG_OK) status = add_speeds(s, run, mine, prompt_tokens, err);
    json_decref(mine);
    if (status == BG_OK && in_turn)
        *paired = theirs;
    else
        json_decref(theirs);
    return status;
}

/* What the GPU's energy counter says of the two phases; or a note why it says nothing. */
static bg_status add_energy(session *s, bg_worker *worker, json_t *run, bg_error *err)
{
    static const char *const phases[] = {"prefill", "decode"};
    json_t *answer;
    BG_TRY(bg_worker_ask(worker, "energy", NULL, s->progress, &answer, err));
    bg_status status = BG_OK;
    for (int i = 0; i < 2 && status == BG_OK; i++) {
        json_t *energy = json_object_get(answer, phases[i]);
        if (energy)
            status =
                bg_json_set(json_object_get(run, phases[i]), "energy", json_incref(energy), err);
    }
    json_t *note = json_object_get(answer, "note"), *notes = json_object_get(run, "notes");
    if (status == BG_OK && note && !notes) {
        notes = json_array();
        status = bg_json_set(run, "notes", notes, err);
    }
    if (status == BG_OK && note && json_array_append(notes, note) != 0)
        status = bg_fail_memory(err, 64, "a note");
    json_decref(answer);
    return status;
}

/* Whether the baseline's worker may stay beside another: both models must fit into memory, and into
 * that of the device. */
static bool fits_beside(const session *s, const json_t *run)
{
    const json_t *memory = json_object_get(run, "memory");
    const json_t *allocated = json_object_get(memory, "allocated");
    int64_t held = json_integer_value(json_object_get(memory, "rss_peak"));
    int64_t available = bg_available_memory();
    if (available > 0 && held >= available * 8 / 10) return false;
    held = json_integer_value(json_object_get(allocated, "peak"));
    return s->device_available == 0 || held < s->device_available * 8 / 10;
}

static bg_status add_memory(session *s, json_t *run, const json_t *finish, bg_error *err)
{
    json_t *memory = json_object_get(run, "memory");
    const json_t *after = json_object_get(finish, "rss_peak_running");
    json_int_t loading = json_integer_value(json_object_get(memory, "rss_peak_loading"));
    json_int_t loaded = json_integer_value(json_object_get(memory, "rss_loaded"));
    json_int_t running = json_integer_value(after);
    s->device_available = json_integer_value(json_object_get(finish, "device_available"));
    json_object_del(memory, "rss_peak_loading");
    BG_TRY(
        bg_json_set(memory, "rss_peak", json_integer(loading > running ? loading : running), err));
    /* Where the peak could not begin anew after loading, growth is not known. */
    if (after)
        BG_TRY(bg_json_set(memory, "rss_growth",
                           json_integer(running > loaded ? running - loaded : 0), err));
    /* The device's figures are whole only where they were measured to the end. */
    json_t *end = json_object_get(finish, "memory");
    if (!json_object_get(memory, "device")) json_object_del(end, "device");
    if (!json_object_get(end, "device")) json_object_del(memory, "device");
    const char *key;
    json_t *half;
    json_object_foreach(end, key,
                        half) if (json_object_update(json_object_get(memory, key), half) !=
                                  0) return bg_fail_memory(err, 256, "memory figures");
    return BG_OK;
}

static bg_status add_load(session *s, json_t *run, json_t *load, bg_error *err)
{
    json_t *parameters = json_object_get(load, "parameters");
    if (!json_object_get(s->model, "parameters"))
        BG_TRY(bg_json_set(s->model, "parameters", json_incref(parameters), err));
    json_object_del(load, "parameters");
    if (json_object_update(run, load) != 0) return bg_fail_memory(err, 256, "a run");
    if (s->checkpoint_bytes == 0) return BG_OK;
    double bytes = json_number_value(json_object_get(run, "weights_bytes"));
    return bg_json_set(json_object_get(run, "weights"), "checkpoint_ratio",
                       json_real(bytes / (double)s->checkpoint_bytes), err);
}

static bg_status fill_row(session *s, const char *precision, bool check, bg_worker *worker,
                          json_t *run, bg_error *err)
{
    json_t *answer, *paired = NULL;
    json_t *request = json_pack("{s:s, s:b, s:o}", "precision", precision, "check", check, "job",
                                bg_job_to_json(s->job));
    if (!request) return bg_fail_memory(err, 1024, "a job");
    BG_TRY(bg_worker_ask(worker, "load", request, s->progress, &answer, err));
    bg_status status = add_load(s, run, answer, err);
    json_decref(answer);
    BG_TRY(status);
    BG_TRY(bg_worker_ask(worker, "evaluate", NULL, s->progress, &answer, err));
    if (json_object_update(run, answer) != 0) status = bg_fail_memory(err, 256, "a run");
    json_decref(answer);
    BG_TRY(status);
    if (s->job->bench.enabled) BG_TRY(time_row(s, worker, run, &paired, err));
    if (s->job->bench.enabled) status = add_energy(s, worker, run, err);
    if (status == BG_OK) status = bg_worker_ask(worker, "finish", NULL, s->progress, &answer, err);
    if (status == BG_OK) {
        status = add_memory(s, run, answer, err);
        json_decref(answer);
    }
    if (status == BG_OK && s->baseline) status = bg_results_compare(run, s->baseline, paired, err);
    json_decref(paired);
    return status;
}

/* A GPU tells that a kernel failed only when a result is asked for, and not which. A row that ended
 * so is run again by a worker that waits for each kernel: its error has the name. */
static void name_the_fault(session *s, const char *precision, bg_error *err)
{
    bg_worker worker;
    bg_error named = {0};
    json_t *run = json_object();
    if (!run) return;
    bg_status status = bg_worker_start(s->program, precision, &worker, &named);
    if (status == BG_OK) {
        status = fill_row(s, precision, true, &worker, run, &named);
        bg_worker_stop(&worker);
    }
    json_decref(run);
    const bg_error first = *err;
    if (status == BG_ERR_INTERRUPTED)
        *err = named;
    else
        bg_fail(err, first.status, "%.480s; run again, waiting for each kernel: %.480s",
                first.message, status == BG_OK ? "it did not fail" : named.message);
}

/* Measures one precision into a run, which says "error" where it failed. Returns what went wrong.
 */
static bg_status measure_row(session *s, const char *precision, json_t **out, bg_error *err)
{
    json_t *run = json_pack("{s:O, s:s, s:s, s:s}", "model", json_object_get(s->model, "name"),
                            "precision", precision, "device", s->job->device, "status", "ok");
    *out = run;
    if (!run) return bg_fail_memory(err, 256, "a run");
    bg_worker worker;
    BG_TRY(bg_worker_start(s->program, precision, &worker, err));
    bg_status status = fill_row(s, precision, false, &worker, run, err);
    if (status == BG_OK && !s->baseline) {
        s->baseline = json_incref(run);
        if (s->job->n_precisions > 1 && s->job->bench.enabled && fits_beside(s, run)) {
            s->baseline_worker = worker;
            return BG_OK;
        }
    }
    bg_worker_stop(&worker);
    if (status != BG_ERR_INTERNAL || strcmp(s->job->device, "cpu") == 0) return status;
    name_the_fault(s, precision, err);
    return err->status;
}

/* A failed row keeps what it had got so far, but nothing half done. */
static bg_status mark_failed(json_t *run, const bg_error *problem, bg_error *err)
{
    static const char *const partial[] = {"warmup", "memory", "vs_baseline"};
    for (size_t i = 0; i < sizeof partial / sizeof *partial; i++) json_object_del(run, partial[i]);
    BG_TRY(bg_json_set(run, "status", json_string("error"), err));
    return bg_json_set(run, "error", json_string(problem->message), err);
}

static bg_status measure_rows(session *s, bg_results *results, bg_error *err)
{
    bg_status overall = BG_OK;
    for (size_t i = 0; i < s->job->n_precisions; i++) {
        json_t *run;
        bg_error problem = {0};
        bg_status status = measure_row(s, s->job->precisions[i], &run, &problem);
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
    session s = {.job = &fitted,
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
