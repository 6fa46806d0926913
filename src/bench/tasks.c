#include "bench/tasks.h"

#include "core/alloc.h"
#include "core/clock.h"
#include "eval/task.h"
#include "hub/hub.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- before the first row -------------------------------------------------------------------- */

static bg_status unknown(const char *name, bg_error *err)
{
    char known[256] = "";
    for (size_t i = 0; i < BG_EVAL_TASKS; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", bg_eval_tasks[i].name);
    }
    return bg_fail(err, BG_ERR_USAGE, "task \"%.64s\" is not known; choose from %s", name, known);
}

/* Whether a model of this kind can be asked the task. */
static bool fits(const bg_eval_task *task, const bg_config *config)
{
    switch (config->arch->task) {
    case BG_TASK_DECODER:
        return true;
    case BG_TASK_SEQ2SEQ:
        return task->kind != BG_EVAL_TEXT;
    case BG_TASK_CLASSIFIER:
        return strcmp(task->name, "sst2") == 0;
    default:
        return false;
    }
}

static bg_status data_file(const bg_eval_task *task, const char *given, bg_progress progress,
                           char **path, bg_error *err)
{
    if (!given) return bg_hub_dataset_file(task->repository, NULL, task->file, progress, path, err);
    *path = bg_strdup(given);
    return *path ? BG_OK : bg_fail_memory(err, strlen(given) + 1, "a path");
}

static bg_status fit_one(bg_job *job, const bg_config *config, const bg_named_task *wanted,
                         bg_progress progress, bg_task_files *owned, size_t *kept, bg_error *err)
{
    const bg_eval_task *task = bg_eval_task_by_name(wanted->name);
    if (!task) return unknown(wanted->name, err);
    if (!fits(task, config))
        return bg_fail(err, BG_ERR_UNSUPPORTED, "task %s cannot be asked of %s: %s; leave it out",
                       task->name, config->architecture,
                       config->arch->task == BG_TASK_CLASSIFIER
                           ? "a classifier can do sst2 alone"
                           : "an encoder-decoder has no perplexity");
    char **path = &owned->paths[owned->n];
    BG_TRY(data_file(task, wanted->data, progress, path, err));
    owned->n++;
    if (task->kind == BG_EVAL_TEXT) {
        job->perplexity.enabled = true;
        job->perplexity.text = *path;
        if (job->tasks.limit > 0) job->perplexity.limit = job->tasks.limit;
    } else if (config->arch->task == BG_TASK_CLASSIFIER) {
        job->classify.enabled = true;
        job->classify.data = *path;
        if (job->tasks.limit > 0) job->classify.limit = job->tasks.limit;
    } else {
        BG_TRY(bg_task_check(task, *path, job->tasks.limit, err));
        owned->items[(*kept)++] = (bg_named_task){task->name, *path};
    }
    return BG_OK;
}

bg_status bg_tasks_fit(bg_job *job, const bg_config *config, bg_progress progress,
                       bg_task_files *owned, bg_error *err)
{
    *owned = (bg_task_files){0};
    const bg_named_task *wanted = job->tasks.items;
    size_t n = job->tasks.n, kept = 0;
    const bool asked = config->arch->task == BG_TASK_SEQ2SEQ && job->classify.enabled;
    if (n + asked == 0) return BG_OK;
    owned->items = bg_calloc(n + asked, sizeof *owned->items);
    owned->paths = bg_calloc(n + asked, sizeof *owned->paths);
    if (!owned->items || !owned->paths)
        return bg_fail_memory(err, (n + 1) * sizeof *owned->items, "tasks");
    if (asked && job->tasks.limit == 0) job->tasks.limit = job->classify.limit;
    bool sst2 = false;
    for (size_t i = 0; i < n; i++) {
        sst2 |= strcmp(wanted[i].name, "sst2") == 0;
        BG_TRY(fit_one(job, config, &wanted[i], progress, owned, &kept, err));
    }
    if (asked && !sst2) {
        const bg_named_task sentences = {"sst2", job->classify.data};
        BG_TRY(fit_one(job, config, &sentences, progress, owned, &kept, err));
    }
    job->tasks.items = owned->items;
    job->tasks.n = kept;
    return BG_OK;
}

void bg_task_files_free(bg_task_files *files)
{
    for (size_t i = 0; i < files->n; i++) bg_free(files->paths[i]);
    bg_free(files->paths);
    bg_free(files->items);
    *files = (bg_task_files){0};
}

/* ---- in a worker ----------------------------------------------------------------------------- */

static json_t *metrics_of(const bg_task_result *result)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < result->n_metrics; i++) {
        const bg_task_metric *m = &result->metrics[i];
        json_t *metric = json_pack("{s:s, s:f}", "metric", m->name, "value", m->value);
        if (metric && isfinite(m->stderr_) &&
            json_object_set_new(metric, "stderr", json_real(m->stderr_)) != 0) {
            json_decref(metric);
            metric = NULL;
        }
        if (json_array_append_new(list, metric) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

bg_status bg_tasks_run(const bg_job *job, const bg_model *model, const bg_tokenizer *tokenizer,
                       bg_progress progress, json_t *run, bg_error *err)
{
    json_t *list = json_array();
    if (!list || json_object_set_new(run, "tasks", list) != 0)
        return bg_fail_memory(err, 64, "tasks");
    const bg_task_options options = {job->tasks.limit, (size_t)job->tasks.batch};
    for (size_t i = 0; i < job->tasks.n; i++) {
        const bg_named_task *named = &job->tasks.items[i];
        const bg_eval_task *task = bg_eval_task_by_name(named->name);
        if (!task) return unknown(named->name, err);
        bg_task_result result;
        double start = bg_seconds();
        BG_TRY(
            bg_task_measure(model, tokenizer, task, named->data, &options, progress, &result, err));
        json_t *entry = json_pack("{s:s, s:I, s:I, s:o, s:f, s:s}", "task", task->name, "documents",
                                  (json_int_t)result.documents, "requests",
                                  (json_int_t)result.requests, "metrics", metrics_of(&result),
                                  "seconds", bg_seconds() - start, "data", named->data);
        if (!entry || json_array_append_new(list, entry) != 0)
            return bg_fail_memory(err, 512, task->name);
    }
    return BG_OK;
}

/* ---- against the baseline -------------------------------------------------------------------- */

/* The entry of a list whose `key` is a word. */
static const json_t *find(const json_t *list, const char *key, const json_t *word)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        if (json_equal(json_object_get(entry, key), word)) return entry;
    }
    return NULL;
}

static json_t *changes_of(const json_t *metrics, const json_t *theirs)
{
    json_t *list = json_array(), *m;
    size_t i;
    json_array_foreach(metrics, i, m)
    {
        const json_t *other = find(theirs, "metric", json_object_get(m, "metric"));
        if (!list || !other) continue;
        const char *name = json_string_value(json_object_get(m, "metric"));
        double a = json_number_value(json_object_get(m, "value"));
        double b = json_number_value(json_object_get(other, "value"));
        bool perplexity = strcmp(name, "perplexity") == 0;
        json_t *entry =
            json_pack("{s:s, s:f}", "metric", name, perplexity ? "change_percent" : "change",
                      perplexity ? 100 * (a / b - 1) : a - b);
        if (json_array_append_new(list, entry) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

bg_status bg_tasks_compare(json_t *out, const json_t *run, const json_t *baseline, bg_error *err)
{
    const json_t *mine = json_object_get(run, "tasks"),
                 *theirs = json_object_get(baseline, "tasks");
    if (json_array_size(mine) == 0 || json_array_size(theirs) == 0) return BG_OK;
    json_t *list = json_array(), *t;
    size_t i;
    if (!list || json_object_set_new(out, "tasks", list) != 0)
        return bg_fail_memory(err, 64, "tasks");
    json_array_foreach(mine, i, t)
    {
        const json_t *other = find(theirs, "task", json_object_get(t, "task"));
        if (!other) continue;
        json_t *entry =
            json_pack("{s:O, s:o}", "task", json_object_get(t, "task"), "metrics",
                      changes_of(json_object_get(t, "metrics"), json_object_get(other, "metrics")));
        if (!entry || json_array_append_new(list, entry) != 0)
            return bg_fail_memory(err, 256, "a task");
    }
    return BG_OK;
}
