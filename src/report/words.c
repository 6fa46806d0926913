#include "report/words.h"

#include "report/format.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the finding ----------------------------------------------------------------------------- */

static double weights_ratio(const bg_report_row *row)
{
    return bg_report_number(row->run, "vs_baseline.weights_ratio");
}

static const bg_report_row *smallest(const bg_report_model *model)
{
    double least = INFINITY;
    for (size_t i = 0; i < model->n_rows; i++)
        if (model->rows[i].ok && !model->rows[i].baseline && weights_ratio(&model->rows[i]) < least)
            least = weights_ratio(&model->rows[i]);
    const bg_report_row *best = NULL;
    double best_loss = INFINITY;
    for (size_t i = 0; i < model->n_rows; i++) {
        const bg_report_row *row = &model->rows[i];
        if (!row->ok || row->baseline || !(weights_ratio(row) <= 1.1 * least)) continue;
        double loss = bg_report_quality_loss(model, row);
        if (best && !(loss < best_loss)) continue;
        best = row;
        best_loss = isnan(loss) ? INFINITY : loss;
    }
    return best;
}

static void put_speed(bg_text *out, const bg_report_model *model, const bg_report_row *row)
{
    double lo, hi, speedup = bg_report_speedup(model, row, &lo, &hi);
    const char *verb = model->classifier ? "runs" : "decodes";
    char a[BG_CELL], b[BG_CELL];
    if (!isfinite(speedup)) return;
    if (lo <= 1 && hi >= 1)
        bg_text_printf(out, " and %s no measurably faster or slower (%s to %s)", verb,
                       bg_show_alone(a, lo, BG_UNIT_RATIO), bg_show_alone(b, hi, BG_UNIT_RATIO));
    else if (speedup < 1)
        bg_text_printf(out, " but %s only %s as fast", verb,
                       bg_show_alone(a, speedup, BG_UNIT_RATIO));
    else
        bg_text_printf(out, " and %s %s as fast", verb, bg_show_alone(a, speedup, BG_UNIT_RATIO));
}

static void put_quality(bg_text *out, const bg_report_model *model, const bg_report_row *row)
{
    double loss = bg_report_quality_loss(model, row);
    const char *direction = (loss > 0) == (model->accuracy != NULL) ? "falls" : "rises";
    if (!isfinite(loss)) {
        bg_text_puts(out, "; quality was not measured");
    } else if (model->accuracy) {
        char path[64];
        const char *task = model->accuracy_task;
        snprintf(path, sizeof path, "tasks.%s.documents", task ? task : "");
        double total = bg_report_number(row->run, task ? path : "accuracy.total");
        if (loss == 0)
            bg_text_puts(out, "; accuracy stays the same");
        else
            bg_text_printf(out, "; accuracy %s %.1f points", direction, fabs(loss));
        if (isfinite(total) && task)
            bg_text_printf(out, " on %.0f questions of %s", total, task);
        else if (isfinite(total))
            bg_text_printf(out, " on %.0f sentences", total);
    } else if (fabs(loss) < 0.005) {
        bg_text_puts(out, "; perplexity stays the same");
    } else {
        bg_text_printf(out, "; perplexity %s %.*f\u00A0%%", direction, fabs(loss) < 1 ? 2 : 1,
                       fabs(loss));
    }
}

/* Where nothing is compared: what the first finished row is by itself. */
static void put_single(bg_text *out, const bg_report_model *model)
{
    const bg_report_row *row = NULL;
    for (size_t i = 0; !row && i < model->n_rows; i++)
        if (model->rows[i].ok) row = &model->rows[i];
    if (!row) {
        bg_text_puts(out, "No precision finished; the reasons are below.");
        return;
    }
    static const struct {
        const char *path;
        bg_unit unit;
        const char *before, *after;
    } facts[] = {
        {"weights_bytes", BG_UNIT_BYTES, "weights of ", ""},
        {"decode.tokens_per_s", BG_UNIT_NUMBER, "", " tokens per second"},
        {"prefill.sentences_per_s", BG_UNIT_NUMBER, "", " sentences per second"},
        {"perplexity.lines.value", BG_UNIT_NUMBER, "perplexity ", " by lines"},
        {"perplexity.sliding.value", BG_UNIT_NUMBER, "perplexity ", " by sliding windows"},
        {"perplexity.chunks.value", BG_UNIT_NUMBER, "perplexity ", " by chunks"},
        {"accuracy.value", BG_UNIT_PERCENT, "accuracy ", ""},
        {"tasks.sst2.metrics.acc.value", BG_UNIT_PERCENT, "", " of sst2"},
        {"tasks.boolq.metrics.acc.value", BG_UNIT_PERCENT, "", " of boolq"},
        {"tasks.hellaswag.metrics.acc_norm.value", BG_UNIT_PERCENT, "", " of hellaswag"},
        {"tasks.piqa.metrics.acc_norm.value", BG_UNIT_PERCENT, "", " of piqa"},
        {"tasks.arc_easy.metrics.acc_norm.value", BG_UNIT_PERCENT, "", " of arc_easy"},
        {"tasks.lambada_openai.metrics.acc.value", BG_UNIT_PERCENT, "", " of lambada_openai"},
    };
    bg_text_puts(out, row->label);
    const char *between = ": ";
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        double value = bg_report_number(row->run, facts[i].path);
        char shown[BG_CELL];
        if (!isfinite(value)) continue;
        bg_text_printf(out, "%s%s%s%s", between, facts[i].before,
                       bg_show_alone(shown, value, facts[i].unit), facts[i].after);
        between = ", ";
    }
    bg_text_puts(out, ".");
}

void bg_words_finding(bg_text *out, const bg_report_model *model)
{
    const bg_report_row *row = smallest(model);
    if (!row || !model->baseline) {
        put_single(out, model);
        return;
    }
    char ratio[BG_CELL];
    bg_text_printf(out, "%s holds the weights in %s the memory of %s", row->label,
                   bg_show_alone(ratio, weights_ratio(row), BG_UNIT_RATIO), model->baseline);
    put_speed(out, model, row);
    put_quality(out, model, row);
    bg_text_puts(out, ".");
}

/* ---- descriptions ---------------------------------------------------------------------------- */

/* Appends ", " where something stands before, then the words. */
static void put_part(bg_text *out, size_t start, const char *words)
{
    if (out->size > start) bg_text_puts(out, ", ");
    bg_text_puts(out, words);
}

static void put_number_part(bg_text *out, size_t start, double value, bg_unit unit,
                            const char *before, const char *after)
{
    char shown[BG_CELL], part[128];
    if (!isfinite(value)) return;
    snprintf(part, sizeof part, "%s%s%s", before, bg_show_alone(shown, value, unit), after);
    put_part(out, start, part);
}

void bg_words_model(bg_text *out, const bg_report_model *model)
{
    size_t start = out->size;
    const char *architecture = bg_report_string(model->info, "architecture");
    const char *dtype = bg_report_string(model->info, "dtype");
    double parameters = bg_report_number(model->info, "parameters");
    double layers = bg_report_number(model->info, "num_hidden_layers");
    double hidden = bg_report_number(model->info, "hidden_size");
    put_part(out, start,
             architecture        ? architecture
             : model->classifier ? "classifier"
                                 : "decoder");
    if (parameters >= 1e6 && parameters < 1e15) {
        bool many = parameters >= 1e9;
        char part[64];
        snprintf(part, sizeof part, "%.1f %s parameters", parameters / (many ? 1e9 : 1e6),
                 many ? "billion" : "million");
        put_part(out, start, part);
    } else {
        put_number_part(out, start, parameters, BG_UNIT_COUNT, "", " parameters");
    }
    if (isfinite(layers) && isfinite(hidden)) {
        put_number_part(out, start, layers, BG_UNIT_COUNT, "", " layers of ");
        char shown[BG_CELL];
        bg_text_puts(out, bg_show_alone(shown, hidden, BG_UNIT_COUNT));
    }
    if (bg_report_true(model->info, "random_weights")) {
        put_part(out, start, "random weights at its true shape");
        return;
    }
    if (dtype) {
        put_part(out, start, "checkpoint in ");
        bg_text_puts(out, dtype);
    }
    put_number_part(out, start, bg_report_number(model->info, "checkpoint_bytes"), BG_UNIT_BYTES,
                    "", "");
}

static const json_t *first_with(const bg_report_model *model, const char *path)
{
    for (size_t i = 0; i < model->n_rows; i++)
        if (isfinite(bg_report_number(model->rows[i].run, path))) return model->rows[i].run;
    return NULL;
}

/* What computed: the name of a GPU, and who counted its memory; or so many threads. */
static void put_device(bg_text *out, size_t start, const bg_report_model *model)
{
    const char *name = NULL, *source = NULL;
    double threads = NAN;
    for (size_t i = 0; i < model->n_rows; i++) {
        const json_t *run = model->rows[i].run;
        const char *here = bg_report_string(run, "device_name");
        if (here && !name) name = here;
        if (!source) source = bg_report_string(run, "memory.device.source");
        if (!here && isnan(threads)) threads = bg_report_number(run, "threads");
    }
    put_number_part(out, start, threads, BG_UNIT_COUNT, "", threads == 1 ? " thread" : " threads");
    if (name) put_part(out, start, name);
    if (source)
        put_part(out, start,
                 strcmp(source, "nvml") == 0
                     ? "memory of the GPU as its driver counts it for the process"
                     : "memory of the GPU by how much less of it was free");
}

void bg_words_conditions(bg_text *out, const bg_report_model *model)
{
    size_t start = out->size;
    const json_t *timed = first_with(model, "prefill.median_s");
    const json_t *decoded = first_with(model, "decode.median_s");
    const json_t *scored = first_with(model, "perplexity.lines.tokens");
    const json_t *slid = first_with(model, "perplexity.sliding.tokens");
    const json_t *classified = first_with(model, "accuracy.total");
    put_number_part(out, start, bg_report_number(timed, "prefill.tokens"), BG_UNIT_COUNT,
                    model->classifier ? "sentences of " : "prompt of ", " tokens");
    put_number_part(out, start, bg_report_number(decoded, "decode.new_tokens"), BG_UNIT_COUNT, "",
                    " new tokens");
    put_number_part(out, start, bg_report_number(timed, "prefill.batch"), BG_UNIT_COUNT,
                    "batch of ", "");
    double runs = (double)json_array_size(bg_report_get(timed, "prefill.samples_s"));
    put_number_part(out, start, runs > 0 ? runs : NAN, BG_UNIT_COUNT, "", " timed runs");
    put_device(out, start, model);
    put_number_part(out, start, bg_report_number(scored, "perplexity.lines.tokens"), BG_UNIT_COUNT,
                    "perplexity over ", " tokens by lines");
    put_number_part(out, start, bg_report_number(slid, "perplexity.sliding.tokens"), BG_UNIT_COUNT,
                    scored ? "" : "perplexity over ", " tokens by sliding windows");
    put_number_part(out, start, bg_report_number(classified, "accuracy.total"), BG_UNIT_COUNT,
                    "accuracy on ", " sentences");
    static const struct {
        const char *path, *after;
    } tasks[] = {{"tasks.sst2.documents", " questions of sst2"},
                 {"tasks.boolq.documents", " questions of boolq"},
                 {"tasks.hellaswag.documents", " questions of hellaswag"},
                 {"tasks.piqa.documents", " questions of piqa"},
                 {"tasks.arc_easy.documents", " questions of arc_easy"},
                 {"tasks.lambada_openai.documents", " questions of lambada_openai"}};
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++)
        put_number_part(out, start,
                        bg_report_number(first_with(model, tasks[i].path), tasks[i].path),
                        BG_UNIT_COUNT, "", tasks[i].after);
    /* A sentence starts with a capital letter. */
    if (out->data && out->size > start && out->data[start] >= 'a' && out->data[start] <= 'z')
        out->data[start] = (char)(out->data[start] - 'a' + 'A');
    if (out->size > start) bg_text_puts(out, ".");
}

void bg_words_machine(bg_text *out, const json_t *document)
{
    const json_t *machine = bg_report_get(document, "machine");
    size_t start = out->size;
    const char *cpu = bg_report_string(machine, "cpu"), *os = bg_report_string(machine, "os");
    const char *isa = bg_report_string(machine, "isa");
    if (cpu) put_part(out, start, cpu);
    double processors = bg_report_number(machine, "logical_processors");
    put_number_part(out, start, processors, BG_UNIT_COUNT, "",
                    processors == 1 ? " logical processor" : " logical processors");
    if (isa) put_part(out, start, isa);
    put_number_part(out, start, bg_report_number(machine, "memory_bytes"), BG_UNIT_BYTES, "",
                    " of memory");
    put_number_part(out, start, bg_report_number(machine, "bandwidth_bytes_per_s"),
                    BG_UNIT_BYTE_RATE, "", " measured");
    const json_t *gpus = bg_report_get(machine, "gpus");
    for (size_t i = 0; i < json_array_size(gpus); i++) {
        const json_t *gpu = json_array_get(gpus, i);
        const char *name = bg_report_string(gpu, "name");
        if (!name) continue;
        put_part(out, start, name);
        put_number_part(out, start, bg_report_number(gpu, "bandwidth_bytes_per_s"),
                        BG_UNIT_BYTE_RATE, "", " copying");
    }
    if (os) put_part(out, start, os);
}

/* Appends the labels of the rows that `test` picks between two texts; nothing if there are none. */
static void put_rows(bg_text *out, const bg_report_model *model,
                     bool (*test)(const bg_report_row *), const char *before, const char *after)
{
    bool any = false;
    for (size_t i = 0; i < model->n_rows; i++) {
        if (!model->rows[i].ok || !test(&model->rows[i])) continue;
        if (any)
            bg_text_puts(out, ", ");
        else
            bg_text_printf(out, "%s%s", out->size ? " " : "", before);
        bg_text_puts(out, model->rows[i].label);
        any = true;
    }
    if (any) bg_text_puts(out, after);
}

static bool was_unsettled(const bg_report_row *row)
{
    return json_is_false(bg_report_get(row->run, "warmup.settled"));
}

static bool was_apart(const bg_report_row *row)
{
    return json_is_false(bg_report_get(row->run, "vs_baseline.interleaved"));
}

void bg_words_cautions(bg_text *out, const bg_report_model *model)
{
    if (bg_report_true(model->info, "random_weights"))
        bg_text_puts(out,
                     "The weights are random: speed and memory mean something, text does not.");
    put_rows(out, model, was_unsettled,
             "Times had not settled when the measuring began: ", "; read their speed with care.");
    put_rows(out, model, was_apart,
             "Not timed in turn with the baseline, so that a slow drift of the machine is part of "
             "the speed-up: ",
             ".");
}
