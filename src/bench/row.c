#include "bench/row.h"

#include "bench/machine.h"
#include "bench/results.h"
#include "bench/stats.h"
#include "core/alloc.h"
#include "core/json.h"

#include <string.h>

/* ---- rounds ---------------------------------------------------------------------------------- */

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

static bg_status one_round(bg_session *s, bg_worker *worker, json_t *samples, bg_error *err)
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

static bg_status add_speeds(bg_session *s, json_t *run, const json_t *samples,
                            int64_t prompt_tokens, bg_error *err)
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
    BG_TRY(bg_json_set(decode, "tokens_per_s", json_real((double)(new_tokens * batch) / seconds),
                       err));
    const double read =
        json_number_value(json_object_get(json_object_get(run, "weights"), "read_bytes"));
    return bg_json_set(decode, "read_bytes_per_s", json_real(read * (double)new_tokens / seconds),
                       err);
}

/* A round of the baseline. Where its worker fails, it is another row that is being measured: that
 * one goes on alone, and so do the rest. False then; *status is an interruption, or as it was. */
static bool baseline_round(bg_session *s, json_t *samples, bg_status *status, bg_error *err)
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
static bg_status time_row(bg_session *s, bg_worker *worker, json_t *run, json_t **paired,
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

/* ---- what else a worker tells ---------------------------------------------------------------- */

/* What the GPU's energy counter says of the two phases; or a note why it says nothing. */
static bg_status add_energy(bg_session *s, bg_worker *worker, json_t *run, bg_error *err)
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
static bool fits_beside(const bg_session *s, const json_t *run)
{
    const json_t *memory = json_object_get(run, "memory");
    const json_t *allocated = json_object_get(memory, "allocated");
    int64_t held = json_integer_value(json_object_get(memory, "rss_peak"));
    int64_t available = bg_available_memory();
    if (available > 0 && held >= available * 8 / 10) return false;
    held = json_integer_value(json_object_get(allocated, "peak"));
    return s->device_available == 0 || held < s->device_available * 8 / 10;
}

static bg_status add_memory(bg_session *s, json_t *run, const json_t *finish, bg_error *err)
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

static bg_status add_load(bg_session *s, json_t *run, json_t *load, bg_error *err)
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

/* ---- one row --------------------------------------------------------------------------------- */

static bg_status fill_row(bg_session *s, const char *precision, bool check, bg_worker *worker,
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
static void name_the_fault(bg_session *s, const char *precision, bg_error *err)
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

bg_status bg_measure_row(bg_session *s, const char *precision, json_t **out, bg_error *err)
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
