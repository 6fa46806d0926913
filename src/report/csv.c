/* One line for each run, numbers in the units of the JSON, under a heading that names the unit.
 * Every file has the same columns in the same order, so that files can be put together. */
#include "report/formats.h"

typedef struct {
    const char *heading, *path; /* as for bg_report_get */
    int index;                  /* of an entry of the array there; -1: the value itself */
} csv_column;

/* A metric of a task: its value, standard error and change against the baseline. */
#define METRIC(task, metric, change)                                                               \
    {task "_" metric, "tasks." task ".metrics." metric ".value", -1},                              \
        {task "_" metric "_stderr", "tasks." task ".metrics." metric ".stderr", -1},               \
    {                                                                                              \
        task "_" metric "_" change, "vs_baseline.tasks." task ".metrics." metric "." change, -1    \
    }

static const csv_column columns[] = {
    {"model", "model", -1},
    {"precision", "precision", -1},
    {"device", "device", -1},
    {"device_name", "device_name", -1},
    {"status", "status", -1},
    {"error", "error", -1},
    {"threads", "threads", -1},
    {"isa", "isa", -1},
    {"kernels", "kernels", -1},
    {"weights_bytes", "weights_bytes", -1},
    {"quantized_bytes", "weights.quantized_bytes", -1},
    {"unquantized_bytes", "weights.unquantized_bytes", -1},
    {"read_bytes", "weights.read_bytes", -1},
    {"load_seconds", "load_seconds", -1},
    {"quantize_seconds", "quantize_seconds", -1},
    {"rss_before_bytes", "memory.rss_before", -1},
    {"rss_loaded_bytes", "memory.rss_loaded", -1},
    {"rss_peak_bytes", "memory.rss_peak", -1},
    {"rss_growth_bytes", "memory.rss_growth", -1},
    {"allocated_loaded_bytes", "memory.allocated.loaded", -1},
    {"allocated_peak_bytes", "memory.allocated.peak", -1},
    {"device_memory_source", "memory.device.source", -1},
    {"device_memory_before_bytes", "memory.device.before", -1},
    {"device_memory_loaded_bytes", "memory.device.loaded", -1},
    {"device_memory_peak_bytes", "memory.device.peak", -1},
    {"device_memory_end_bytes", "memory.device.end", -1},
    {"warmup_runs", "warmup.runs", -1},
    {"warmup_settled", "warmup.settled", -1},
    {"prefill_tokens", "prefill.tokens", -1},
    {"prefill_batch", "prefill.batch", -1},
    {"prefill_median_seconds", "prefill.median_s", -1},
    {"prefill_ci95_low_seconds", "prefill.ci95_s", 0},
    {"prefill_ci95_high_seconds", "prefill.ci95_s", 1},
    {"prefill_tokens_per_second", "prefill.tokens_per_s", -1},
    {"prefill_sentences_per_second", "prefill.sentences_per_s", -1},
    {"prefill_device_median_seconds", "prefill.device_median_s", -1},
    {"prefill_joules_per_token", "prefill.energy.joules_per_token", -1},
    {"prefill_joules_per_sentence", "prefill.energy.joules_per_sentence", -1},
    {"prefill_mean_watts", "prefill.energy.mean_watts", -1},
    {"first_token_median_seconds", "time_to_first_token.median_s", -1},
    {"first_token_ci95_low_seconds", "time_to_first_token.ci95_s", 0},
    {"first_token_ci95_high_seconds", "time_to_first_token.ci95_s", 1},
    {"decode_new_tokens", "decode.new_tokens", -1},
    {"decode_batch", "decode.batch", -1},
    {"decode_median_seconds", "decode.median_s", -1},
    {"decode_ci95_low_seconds", "decode.ci95_s", 0},
    {"decode_ci95_high_seconds", "decode.ci95_s", 1},
    {"decode_ms_per_token", "decode.ms_per_token", -1},
    {"decode_tokens_per_second", "decode.tokens_per_s", -1},
    {"decode_read_bytes_per_second", "decode.read_bytes_per_s", -1},
    {"decode_device_median_seconds", "decode.device_median_s", -1},
    {"decode_joules_per_token", "decode.energy.joules_per_token", -1},
    {"decode_mean_watts", "decode.energy.mean_watts", -1},
    {"perplexity_lines", "perplexity.lines.value", -1},
    {"perplexity_lines_tokens", "perplexity.lines.tokens", -1},
    {"perplexity_sliding", "perplexity.sliding.value", -1},
    {"perplexity_sliding_tokens", "perplexity.sliding.tokens", -1},
    {"perplexity_chunks", "perplexity.chunks.value", -1},
    {"perplexity_chunks_tokens", "perplexity.chunks.tokens", -1},
    {"accuracy", "accuracy.value", -1},
    {"accuracy_correct", "accuracy.correct", -1},
    {"accuracy_total", "accuracy.total", -1},
    {"baseline", "vs_baseline.baseline", -1},
    {"weights_ratio", "vs_baseline.weights_ratio", -1},
    {"memory_ratio", "vs_baseline.memory_ratio", -1},
    {"prefill_speedup", "vs_baseline.prefill_speedup", -1},
    {"prefill_speedup_ci95_low", "vs_baseline.prefill_speedup_ci95", 0},
    {"prefill_speedup_ci95_high", "vs_baseline.prefill_speedup_ci95", 1},
    {"decode_speedup", "vs_baseline.decode_speedup", -1},
    {"decode_speedup_ci95_low", "vs_baseline.decode_speedup_ci95", 0},
    {"decode_speedup_ci95_high", "vs_baseline.decode_speedup_ci95", 1},
    {"prefill_energy_ratio", "vs_baseline.prefill_energy_ratio", -1},
    {"decode_energy_ratio", "vs_baseline.decode_energy_ratio", -1},
    {"interleaved", "vs_baseline.interleaved", -1},
    {"perplexity_lines_change_percent", "vs_baseline.perplexity_change_percent.lines.value", -1},
    {"perplexity_sliding_change_percent", "vs_baseline.perplexity_change_percent.sliding.value",
     -1},
    {"perplexity_chunks_change_percent", "vs_baseline.perplexity_change_percent.chunks.value", -1},
    {"accuracy_change", "vs_baseline.accuracy_change", -1},
    {"generations_identical", "vs_baseline.generations_identical", -1},
    METRIC("sst2", "acc", "change"),
    METRIC("sst2", "exact_match", "change"),
    METRIC("boolq", "acc", "change"),
    METRIC("hellaswag", "acc", "change"),
    METRIC("hellaswag", "acc_norm", "change"),
    METRIC("piqa", "acc", "change"),
    METRIC("piqa", "acc_norm", "change"),
    METRIC("arc_easy", "acc", "change"),
    METRIC("arc_easy", "acc_norm", "change"),
    METRIC("lambada_openai", "acc", "change"),
    METRIC("lambada_openai", "perplexity", "change_percent"),
};

/* A list of strings (kernels) becomes one field, its entries parted by spaces. */
static void put_list(bg_text *out, const json_t *list)
{
    bg_text joined = {0};
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *entry = json_string_value(json_array_get(list, i));
        if (!entry) continue;
        if (joined.size) bg_text_puts(&joined, " ");
        bg_text_puts(&joined, entry);
    }
    if (joined.data) bg_put_csv(out, joined.data);
    out->failed |= joined.failed;
    bg_text_free(&joined);
}

static void put_field(bg_text *out, const json_t *value)
{
    if (json_is_string(value))
        bg_put_csv(out, json_string_value(value));
    else if (json_is_integer(value))
        bg_text_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_is_real(value))
        bg_text_printf(out, "%.12g", json_real_value(value));
    else if (json_is_boolean(value))
        bg_text_puts(out, json_is_true(value) ? "true" : "false");
    else if (json_is_array(value))
        put_list(out, value);
}

bg_status bg_report_csv(const bg_report_view *view, int width, bg_text *out, bg_error *err)
{
    (void)width;
    (void)err;
    size_t n = sizeof columns / sizeof *columns;
    for (size_t c = 0; c < n; c++) bg_text_printf(out, "%s%s", c ? "," : "", columns[c].heading);
    bg_text_puts(out, "\r\n");
    const json_t *runs = bg_report_get(view->document, "runs");
    for (size_t i = 0; i < json_array_size(runs); i++) {
        const json_t *run = json_array_get(runs, i);
        for (size_t c = 0; c < n; c++) {
            const json_t *value = bg_report_get(run, columns[c].path);
            if (columns[c].index >= 0) value = json_array_get(value, (size_t)columns[c].index);
            if (c) bg_text_puts(out, ",");
            put_field(out, value);
        }
        bg_text_puts(out, "\r\n");
    }
    return BG_OK;
}
