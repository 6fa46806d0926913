#include "bench/results.h"

#include "bench/machine.h"
#include "core/alloc.h"
#include "core/file.h"
#include "core/json.h"
#include "core/text.h"
#include "report/report.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

const char *bg_version(void)
{
    return BITGAUGE_VERSION;
}

bg_results *bg_results_create(void)
{
    bg_json_init();
    bg_results *results = bg_calloc(1, sizeof *results);
    if (!results) return NULL;
    char created[32];
    time_t now = time(NULL);
    struct tm utc;
    strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    results->document = json_pack("{s:s, s:s, s:s, s:o, s:[], s:[]}", "schema", "bitgauge/1",
                                  "version", bg_version(), "created", created, "machine",
                                  bg_machine_describe(), "models", "runs");
    if (!results->document) {
        bg_free(results);
        return NULL;
    }
    return results;
}

void bg_results_free(bg_results *results)
{
    if (!results) return;
    json_decref(results->document);
    bg_free(results);
}

size_t bg_results_count(const bg_results *results)
{
    return json_array_size(json_object_get(results->document, "runs"));
}

bg_status bg_results_set_command(bg_results *results, const char *command, bg_error *err)
{
    /* A file name need not be UTF-8, but the document is. */
    json_t *text = json_string(command);
    if (!text) text = json_string("bitgauge (the command line is not valid UTF-8)");
    return bg_json_set(results->document, "command", text, err);
}

bg_status bg_results_add_model(bg_results *results, json_t *model, json_t **entry, bg_error *err)
{
    json_t *models = json_object_get(results->document, "models");
    const char *wanted = json_string_value(json_object_get(model, "name"));
    char name[512];
    snprintf(name, sizeof name, "%s", wanted ? wanted : "model");
    size_t i;
    json_t *other;
    for (int copy = 2, taken = 1; taken; copy++) {
        taken = 0;
        json_array_foreach(models, i, other)
        {
            const char *used = json_string_value(json_object_get(other, "name"));
            taken |= used && strcmp(used, name) == 0;
        }
        if (taken) snprintf(name, sizeof name, "%.480s (%d)", wanted, copy);
    }
    bg_status status = bg_json_set(model, "name", json_string(name), err);
    if (status == BG_OK && json_array_append(models, model) != 0)
        status = bg_fail_memory(err, 256, "a model");
    if (status == BG_OK && json_array_size(models) == 1)
        status = bg_json_set(results->document, "model", json_incref(model), err);
    json_decref(model);
    *entry = status == BG_OK ? model : NULL;
    return status;
}

bg_status bg_results_add_run(bg_results *results, json_t *run, bg_error *err)
{
    if (json_array_append_new(json_object_get(results->document, "runs"), run) == 0) return BG_OK;
    return bg_fail_memory(err, 256, "a run");
}

bg_status bg_results_write(const bg_results *results, bg_report_format format, int width,
                           const char *path, bg_error *err)
{
    bg_text text = {0};
    bg_status status = bg_report_render(results->document, format, width, &text, err);
    if (status == BG_OK) status = bg_write_file(path, text.data ? text.data : "", text.size, err);
    bg_text_free(&text);
    return status;
}
