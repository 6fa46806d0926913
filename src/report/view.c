#include "report/view.h"

#include "core/alloc.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *const bg_report_protocols[] = {"lines", "sliding", "chunks", NULL};

/* Whether an entry of a list goes by this name. */
static bool is_called(const json_t *entry, const char *name)
{
    static const char *const keys[] = {"protocol", "task", "metric"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *here = json_string_value(json_object_get(entry, keys[i]));
        if (here && strcmp(here, name) == 0) return true;
    }
    return false;
}

const json_t *bg_report_get(const json_t *value, const char *path)
{
    while (value && path) {
        char key[64];
        const char *dot = strchr(path, '.');
        size_t n = dot ? (size_t)(dot - path) : strlen(path);
        if (n >= sizeof key) return NULL;
        memcpy(key, path, n);
        key[n] = '\0';
        path = dot ? dot + 1 : NULL;
        if (json_is_object(value)) {
            value = json_object_get(value, key);
            continue;
        }
        const json_t *found = NULL;
        for (size_t i = 0; !found && i < json_array_size(value); i++)
            if (is_called(json_array_get(value, i), key)) found = json_array_get(value, i);
        value = found;
    }
    return value;
}

double bg_report_number(const json_t *value, const char *path)
{
    const json_t *found = bg_report_get(value, path);
    return json_is_number(found) ? json_number_value(found) : NAN;
}

const char *bg_report_string(const json_t *value, const char *path)
{
    const char *text = json_string_value(bg_report_get(value, path));
    return text && *text ? text : NULL;
}

bool bg_report_interval(const json_t *value, const char *path, double *lo, double *hi)
{
    const json_t *pair = bg_report_get(value, path);
    const json_t *a = json_array_get(pair, 0), *b = json_array_get(pair, 1);
    if (json_array_size(pair) != 2 || !json_is_number(a) || !json_is_number(b)) return false;
    *lo = json_number_value(a);
    *hi = json_number_value(b);
    return true;
}

bool bg_report_true(const json_t *value, const char *path)
{
    return json_is_true(bg_report_get(value, path));
}

bool bg_report_on_device(const json_t *run)
{
    return bg_report_string(run, "memory.device.source");
}

double bg_report_loaded_bytes(const json_t *run)
{
    if (bg_report_on_device(run))
        return bg_report_number(run, "memory.device.loaded") -
               bg_report_number(run, "memory.device.before");
    return bg_report_number(run, "memory.rss_loaded") - bg_report_number(run, "memory.rss_before");
}

double bg_report_peak_bytes(const json_t *run)
{
    if (bg_report_on_device(run))
        return bg_report_number(run, "memory.device.peak") -
               bg_report_number(run, "memory.device.before");
    return bg_report_number(run, "memory.rss_peak") - bg_report_number(run, "memory.rss_before");
}

const char *bg_report_reason(const bg_report_row *row)
{
    const char *reason = bg_report_string(row->run, "error");
    return reason ? reason : "no reason was recorded";
}

/* ---- building -------------------------------------------------------------------------------- */

static bg_report_family family_of(const char *precision)
{
    static const struct {
        const char *part;
        bg_report_family family;
    } parts[] = {
        {"nf4", BG_FAMILY_4BIT},   {"fp4", BG_FAMILY_4BIT},   {"int4", BG_FAMILY_4BIT},
        {"q4", BG_FAMILY_4BIT},    {"int8", BG_FAMILY_INT8},  {"q8", BG_FAMILY_INT8},
        {"fp32", BG_FAMILY_FLOAT}, {"fp16", BG_FAMILY_FLOAT}, {"bf16", BG_FAMILY_FLOAT},
    };
    for (size_t i = 0; precision && i < sizeof parts / sizeof *parts; i++)
        if (strstr(precision, parts[i].part)) return parts[i].family;
    return BG_FAMILY_OTHER;
}

static const char *model_name_of(const json_t *run)
{
    const char *name = bg_report_string(run, "model");
    return name ? name : "unnamed model";
}

/* Cuts after at most `max` bytes, at a UTF-8 boundary. */
static int cut(const char *text, size_t max)
{
    size_t n = strnlen(text, max);
    while (n && text[n] && ((unsigned char)text[n] & 0xC0) == 0x80) n--;
    return (int)n;
}

/* The accuracy that stands for a model's quality: a classifier's, or where no perplexity can be
 * compared, that of the first task. */
static void choose_accuracy(bg_report_model *model)
{
#define CHANGE(task)                                                                               \
    {                                                                                              \
        task, "vs_baseline.tasks." task ".metrics.acc.change"                                      \
    }
    static const struct {
        const char *task, *path;
    } tasks[] = {CHANGE("sst2"), CHANGE("boolq"),    CHANGE("hellaswag"),
                 CHANGE("piqa"), CHANGE("arc_easy"), CHANGE("lambada_openai")};
#undef CHANGE
    model->accuracy = model->classifier ? "vs_baseline.accuracy_change" : NULL;
    model->accuracy_task = NULL;
    if (model->accuracy || bg_report_main_protocol(model)) return;
    for (size_t t = 0; !model->accuracy && t < sizeof tasks / sizeof *tasks; t++)
        for (size_t i = 0; i < model->n_rows; i++)
            if (!isnan(bg_report_number(model->rows[i].run, tasks[t].path))) {
                model->accuracy = tasks[t].path;
                model->accuracy_task = tasks[t].task;
            }
}

static void describe_rows(bg_report_model *model)
{
    const char *device = NULL;
    bool several = false, decoded = false, classified = false;
    model->baseline = NULL;
    for (size_t i = 0; i < model->n_rows; i++) {
        const json_t *run = model->rows[i].run;
        const char *here = bg_report_string(run, "device");
        several |= here && device && strcmp(here, device) != 0;
        if (here) device = here;
        decoded |= json_is_object(bg_report_get(run, "decode"));
        classified |= json_is_object(bg_report_get(run, "accuracy"));
        if (!model->baseline) model->baseline = bg_report_string(run, "vs_baseline.baseline");
    }
    const char *task = bg_report_string(model->info, "task");
    model->classifier = task ? strcmp(task, "classifier") == 0 : classified && !decoded;

    bool found = false;
    for (size_t i = 0; i < model->n_rows; i++) {
        bg_report_row *row = &model->rows[i];
        const char *precision = bg_report_string(row->run, "precision");
        const char *here = bg_report_string(row->run, "device");
        const char *status = bg_report_string(row->run, "status");
        const char *name = precision ? precision : "–";
        if (several && here)
            snprintf(row->label, sizeof row->label, "%.*s, %.*s", cut(name, 36), name,
                     cut(here, 20), here);
        else
            snprintf(row->label, sizeof row->label, "%.*s", cut(name, 60), name);
        row->ok = status && strcmp(status, "ok") == 0;
        row->family = family_of(precision);
        row->baseline = !found && row->ok && precision && model->baseline &&
                        strcmp(precision, model->baseline) == 0;
        found |= row->baseline;
    }
    choose_accuracy(model);
}

static bg_status add_model(bg_report_view *view, const char *name, const json_t *info,
                           const json_t *runs, bg_error *err)
{
    for (size_t i = 0; i < view->n_models; i++)
        if (strcmp(view->models[i].name, name) == 0) return BG_OK;
    bg_report_model *model = &view->models[view->n_models];
    *model = (bg_report_model){.name = name, .info = info};
    size_t n = json_array_size(runs), count = 0;
    for (size_t i = 0; i < n; i++)
        count += strcmp(model_name_of(json_array_get(runs, i)), name) == 0;
    if (!count) return BG_OK;
    model->rows = bg_calloc(count, sizeof *model->rows);
    if (!model->rows) return bg_fail_memory(err, count * sizeof *model->rows, "the report's rows");
    for (size_t i = 0; i < n; i++) {
        const json_t *run = json_array_get(runs, i);
        if (strcmp(model_name_of(run), name) == 0) model->rows[model->n_rows++].run = run;
    }
    describe_rows(model);
    view->n_models++;
    return BG_OK;
}

bg_status bg_report_view_open(const json_t *document, bg_report_view *view, bg_error *err)
{
    *view = (bg_report_view){.document = document};
    if (!json_is_object(document))
        return bg_fail(err, BG_ERR_INTERNAL,
                       "the results to report are not a JSON object; pass a document of the "
                       "schema bitgauge/1");
    const json_t *models = json_object_get(document, "models");
    const json_t *runs = json_object_get(document, "runs");
    size_t most = json_array_size(models) + json_array_size(runs);
    if (!most) return BG_OK;
    view->models = bg_calloc(most, sizeof *view->models);
    if (!view->models) return bg_fail_memory(err, most * sizeof *view->models, "the report");
    bg_status status = BG_OK;
    for (size_t i = 0; status == BG_OK && i < json_array_size(models); i++) {
        const json_t *info = json_array_get(models, i);
        const char *name = bg_report_string(info, "name");
        if (name) status = add_model(view, name, info, runs, err);
    }
    for (size_t i = 0; status == BG_OK && i < json_array_size(runs); i++)
        status = add_model(view, model_name_of(json_array_get(runs, i)), NULL, runs, err);
    if (status != BG_OK) bg_report_view_close(view);
    return status;
}

void bg_report_view_close(bg_report_view *view)
{
    for (size_t i = 0; i < view->n_models; i++) bg_free(view->models[i].rows);
    bg_free(view->models);
    *view = (bg_report_view){0};
}

/* ---- speed and quality against the baseline -------------------------------------------------- */

const char *bg_report_main_protocol(const bg_report_model *model)
{
    for (size_t p = 0; bg_report_protocols[p]; p++) {
        char path[64];
        snprintf(path, sizeof path, "vs_baseline.perplexity_change_percent.%s.value",
                 bg_report_protocols[p]);
        for (size_t i = 0; i < model->n_rows; i++)
            if (!isnan(bg_report_number(model->rows[i].run, path))) return bg_report_protocols[p];
    }
    return NULL;
}

double bg_report_quality_loss(const bg_report_model *model, const bg_report_row *row)
{
    if (row->baseline) return 0;
    if (model->accuracy) return -100 * bg_report_number(row->run, model->accuracy);
    const char *protocol = bg_report_main_protocol(model);
    char path[64];
    if (!protocol) return NAN;
    snprintf(path, sizeof path, "vs_baseline.perplexity_change_percent.%s.value", protocol);
    return bg_report_number(row->run, path);
}

double bg_report_speedup(const bg_report_model *model, const bg_report_row *row, double *lo,
                         double *hi)
{
    double low = NAN, high = NAN;
    double speedup = 1;
    if (!row->baseline) {
        const char *what =
            model->classifier ? "vs_baseline.prefill_speedup" : "vs_baseline.decode_speedup";
        char interval[64];
        snprintf(interval, sizeof interval, "%s_ci95", what);
        speedup = bg_report_number(row->run, what);
        bg_report_interval(row->run, interval, &low, &high);
    }
    if (lo) *lo = low;
    if (hi) *hi = high;
    return speedup;
}
