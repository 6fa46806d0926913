/* One page that needs nothing but itself: no script, no font, no picture from elsewhere. */
#include "report/html.h"

#include "report/formats.h"
#include "report/words.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void put_words(bg_text *out, void (*words)(bg_text *, const bg_report_model *),
                      const bg_report_model *model, const char *class)
{
    bg_text text = {0};
    words(&text, model);
    if (text.size) {
        bg_text_printf(out, "<p class=\"%s\">", class);
        bg_put_html(out, text.data);
        bg_text_puts(out, "</p>\n");
    }
    out->failed |= text.failed;
    bg_text_free(&text);
}

static void put_title(bg_text *out, const bg_report_view *view, bool markup)
{
    if (!view->n_models) {
        bg_text_puts(out, "No runs");
        return;
    }
    bg_text_puts(out, "What quantizing ");
    for (size_t i = 0; i < view->n_models; i++) {
        if (i) bg_text_puts(out, i + 1 == view->n_models ? " and " : ", ");
        /* A short name is not broken at its hyphens. In <title>, markup would be shown as it is. */
        bool whole = markup && strlen(view->models[i].name) <= 24;
        if (whole) bg_text_puts(out, "<span class=\"whole\">");
        bg_put_html(out, view->models[i].name);
        if (whole) bg_text_puts(out, "</span>");
    }
    bg_text_puts(out, " costs and buys");
}

static bg_status put_model(bg_text *out, const bg_report_model *model, size_t index, bool alone,
                           bg_error *err)
{
    bg_grid grid;
    char id[32];
    BG_TRY(bg_grid_build(model, &grid, err));
    snprintf(id, sizeof id, "m%zu", index + 1);
    bg_text_printf(out, "<section class=\"model\" id=\"%s\">\n", id);
    if (!alone) {
        bg_text_puts(out, "<h2>");
        bg_put_html(out, model->name);
        bg_text_puts(out, "</h2>\n");
    }
    put_words(out, bg_words_finding, model, "finding");
    put_words(out, bg_words_model, model, "about");
    bg_html_summary(out, model, &grid);
    bg_grid_free(&grid);
    put_words(out, bg_words_conditions, model, "notes");
    put_words(out, bg_words_cautions, model, "notes");
    bg_text_puts(out, "<div class=\"figures\">\n");
    bg_chart_scatter(out, model, id);
    bg_chart_memory(out, model, id);
    bg_chart_latency(out, model, id);
    bg_text_puts(out, "</div>\n");
    bg_html_texts(out, model);
    bg_html_evidence(out, model);
    bg_text_puts(out, "</section>\n");
    return BG_OK;
}

/* ---- the machine and the method -------------------------------------------------------------- */

static void put_term(bg_text *out, const char *term, const char *text)
{
    if (!text) return;
    bg_text_puts(out, "<dt>");
    bg_put_html(out, term);
    bg_text_puts(out, "</dt><dd>");
    bg_put_html(out, text);
    bg_text_puts(out, "</dd>\n");
}

static void put_measure(bg_text *out, const char *term, double value, bg_unit unit)
{
    char shown[BG_CELL];
    if (isfinite(value)) put_term(out, term, bg_show_alone(shown, value, unit));
}

/* "2026-11-22T04:00:00Z" as "22 November 2026, 04:00 UTC"; anything else as it is. */
static void put_date(bg_text *out, const char *created)
{
    static const char *const months[] = {"January",   "February", "March",    "April",
                                         "May",       "June",     "July",     "August",
                                         "September", "October",  "November", "December"};
    int year, month, day, hour, minute, second, end = 0;
    if (strlen(created) == 20 &&
        sscanf(created, "%4d-%2d-%2dT%2d:%2d:%2dZ%n", &year, &month, &day, &hour, &minute, &second,
               &end) == 6 &&
        end == 20 && month >= 1 && month <= 12)
        bg_text_printf(out, "%d %s %04d, %02d:%02d UTC", day, months[month - 1], year, hour,
                       minute);
    else
        bg_put_html(out, created);
}

static void put_gpus(bg_text *out, const json_t *gpus)
{
    for (size_t i = 0; i < json_array_size(gpus); i++) {
        const json_t *gpu = json_array_get(gpus, i);
        put_term(out, "GPU", bg_report_string(gpu, "name"));
        put_measure(out, "its memory", bg_report_number(gpu, "memory_bytes"), BG_UNIT_BYTES);
        put_measure(out, "its bandwidth, measured by copying",
                    bg_report_number(gpu, "bandwidth_bytes_per_s"), BG_UNIT_BYTE_RATE);
        put_term(out, "its driver", bg_report_string(gpu, "driver_version"));
        put_term(out, "its driver, for CUDA", bg_report_string(gpu, "driver"));
    }
}

static void put_machine(bg_text *out, const bg_report_view *view)
{
    const json_t *machine = bg_report_get(view->document, "machine");
    const char *command = bg_report_string(view->document, "command");
    if (json_is_object(machine)) {
        bg_text_puts(out, "<h3>The machine</h3>\n<dl>\n");
        put_term(out, "Processor", bg_report_string(machine, "cpu"));
        put_term(out, "Architecture", bg_report_string(machine, "architecture"));
        put_measure(out, "Logical processors", bg_report_number(machine, "logical_processors"),
                    BG_UNIT_COUNT);
        put_term(out, "Instruction set used", bg_report_string(machine, "isa"));
        put_measure(out, "Memory", bg_report_number(machine, "memory_bytes"), BG_UNIT_BYTES);
        put_measure(out, "Memory bandwidth, measured",
                    bg_report_number(machine, "bandwidth_bytes_per_s"), BG_UNIT_BYTE_RATE);
        put_gpus(out, bg_report_get(machine, "gpus"));
        put_term(out, "System", bg_report_string(machine, "os"));
        put_term(out, "Kernel", bg_report_string(machine, "kernel"));
        for (size_t i = 0; i < view->n_models; i++)
            put_term(out, i ? "and" : "Model files",
                     bg_report_string(view->models[i].info, "path"));
        bg_text_puts(out, "</dl>\n");
    }
    if (command) {
        bg_text_puts(out, "<h3>To repeat it</h3>\n<pre><code>");
        bg_put_html(out, command);
        bg_text_puts(out, "</code></pre>\n");
    }
}

static void put_definitions(bg_text *out)
{
    static const char *const terms[][2] = {
        {"base", "The first precision asked for; speed-ups, ratios and changes are against it."},
        {"Weights", "Every byte that the precision needs to hold the model, scales included, and "
                    "what it leaves unquantized. Ratio: divided by the baseline’s."},
        {"Memory", "Resident memory of a process that holds this precision alone, less what it "
                   "held before loading: once loaded, and at its peak during inference. On a GPU, "
                   "that of the GPU."},
        {"Energy",
         "What the whole GPU used, by its own counter, while the pass or step was repeated "
         "for a second; what it uses when idle is part of it."},
        {"Load", "From opening the files to being ready to run; quantizing is part of it."},
        {"Prompt", "Processing all tokens of the prompt at once."},
        {"First token", "From the prompt’s token ids to the first generated token."},
        {"Decode", "Each step generates one token for every sequence of the batch. Tokens/s counts "
                   "the tokens of all sequences. Reads: bytes of the weights that every step goes "
                   "through, in a second; beside the memory’s bandwidth it says how much there is "
                   "left to gain."},
        {"Batch", "Classifying one batch of sentences of the stated length."},
        {"Medians and 95 %", "Times are medians of the timed runs after warm-up. Their intervals "
                             "are bootstrap percentile intervals of 10,000 resamples."},
        {"Speed-up", "Median of the ratios baseline/this over runs taken in turn, so that a drift "
                     "of the machine meets both; above 1 is faster."},
        {"Perplexity, lines", "Lines longer than 20 characters, each scored alone and cut at the "
                              "maximum length; exp of the mean negative log-likelihood of all "
                              "tokens but each line’s first."},
        {"Perplexity, sliding", "Windows of the maximum length moved by a stride over the whole "
                                "text; each token but the first scored once."},
        {"Perplexity, chunks", "Windows of the maximum length side by side, each scored alone."},
        {"Accuracy", "Sentences whose largest logit is their label’s, of all; changes are in "
                     "percentage points (pp)."},
        {"Tasks: acc",
         "Questions of which the right answer is the likeliest of those offered, or for "
         "lambada_openai, the last word is what greedy choice gives; asked and counted "
         "as lm-evaluation-harness does, without examples (docs/tasks.md)."},
        {"Tasks: acc_norm", "The same with each answer’s log-likelihood divided by its length in "
                            "characters."},
        {"Tasks: exact_match", "Answers that an encoder-decoder generated which are the label’s "
                               "word."},
        {"Tasks: Δ and ±", "Difference to the baseline, and the standard error of the mean over "
                           "the questions, both in percentage points."},
        {"Texts, same", "Generations whose token ids all equal the baseline’s."},
        {"The sentence at the top", "Of the precisions whose weights are within a tenth of the "
                                    "smallest, the one that loses least quality."},
    };
    bg_text_puts(out, "<h3>How each number is defined</h3>\n<dl>\n");
    for (size_t i = 0; i < sizeof terms / sizeof *terms; i++)
        put_term(out, terms[i][0], terms[i][1]);
    bg_text_puts(out, "</dl>\n");
}

bg_status bg_report_html(const bg_report_view *view, int width, bg_text *out, bg_error *err)
{
    (void)width;
    const char *version = bg_report_string(view->document, "version");
    const char *created = bg_report_string(view->document, "created");
    bg_text_puts(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                      "<title>");
    put_title(out, view, false);
    bg_text_puts(out, "</title>\n<style>\n");
    bg_text_puts(out, bg_html_style);
    bg_text_puts(out, "</style>\n</head>\n<body>\n<div class=\"page\">\n<header>\n"
                      "<p class=\"kicker\">bitgauge ");
    bg_put_html(out, version ? version : "report");
    if (created) {
        bg_text_puts(out, " · measured ");
        put_date(out, created);
    }
    bg_text_puts(out, "</p>\n<h1>");
    put_title(out, view, true);
    bg_text_puts(out, "</h1>\n");
    bg_text machine = {0};
    bg_words_machine(&machine, view->document);
    if (machine.size) {
        bg_text_puts(out, "<p class=\"about\">");
        bg_put_html(out, machine.data);
        bg_text_puts(out, "</p>\n");
    }
    out->failed |= machine.failed;
    bg_text_free(&machine);
    bg_text_puts(out, "</header>\n<main>\n");
    for (size_t i = 0; i < view->n_models; i++)
        BG_TRY(put_model(out, &view->models[i], i, view->n_models == 1, err));
    bg_text_puts(out, "<section class=\"method\">\n");
    put_machine(out, view);
    put_definitions(out);
    bg_text_puts(out, "</section>\n</main>\n<footer><p>All samples are in the JSON report of the "
                      "same run.</p></footer>\n</div>\n</body>\n</html>\n");
    return BG_OK;
}
