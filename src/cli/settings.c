#include "cli/settings.h"

#include "core/alloc.h"
#include "core/error.h"
#include "core/text.h"

#include <string.h>

static const cli_option precision_rows[] = {
    {"precision", 0, CLI_STRING, "LIST", offsetof(cli_settings, precisions),
     "The precisions to measure, separated by commas; the first is the baseline. int8-plain, "
     "LLM.int8() without outlier columns, runs where it is named",
     NULL, 0, 0},
    {"device", 0, CLI_STRING, "NAME", offsetof(cli_settings, job.device),
     "The device to run on: cpu, cuda (the first NVIDIA GPU), cuda:1, ...; devices lists them",
     NULL, 0, 0},
    {"threads", 0, CLI_INT, "N", offsetof(cli_settings, job.threads), "Threads to run with",
     "one for each processor", 1, 1024},
};
const cli_group cli_precision_options = {"Precision and device", precision_rows,
                                         CLI_COUNT(precision_rows)};

static const cli_option report_rows[] = {
    {"json", 0, CLI_STRING, "FILE", offsetof(cli_settings, json),
     "Write the results as JSON (docs/results.md); \"-\" is standard output, in place of the table",
     NULL, 0, 0},
    {"html", 0, CLI_STRING, "FILE", offsetof(cli_settings, html),
     "Write a report as one self-contained HTML file", NULL, 0, 0},
    {"csv", 0, CLI_STRING, "FILE", offsetof(cli_settings, csv),
     "Write a line for each model and precision as CSV", NULL, 0, 0},
    {"md", 0, CLI_STRING, "FILE", offsetof(cli_settings, markdown), "Write the tables as Markdown",
     NULL, 0, 0},
};
const cli_group cli_report_options = {"Reports", report_rows, CLI_COUNT(report_rows)};

/* "a,b,c"; owned by the caller. */
static char *join(const char *const *items, size_t n)
{
    bg_text text = {0};
    for (size_t i = 0; i < n; i++) bg_text_printf(&text, "%s%s", i ? "," : "", items[i]);
    if (text.failed || !text.data) {
        bg_text_free(&text);
        return NULL;
    }
    return text.data;
}

bg_status cli_settings_init(cli_settings *settings, const cli_command *command, bg_error *err)
{
    memset(settings, 0, sizeof *settings);
    bg_job_defaults(&settings->job);
    settings->limit = -1;
    settings->special = true;
    settings->lists[0] = join(settings->job.precisions, settings->job.n_precisions);
    if (settings->job.n_precisions && !settings->lists[0])
        return bg_fail_memory(err, 64, "the list of precisions");
    settings->precisions = settings->lists[0];
    if (command && command->prepare) command->prepare(settings);
    return BG_OK;
}

void cli_settings_free(cli_settings *settings)
{
    for (size_t i = 0; i < CLI_COUNT(settings->lists); i++) bg_free(settings->lists[i]);
    for (size_t i = 0; i < settings->n_paths; i++) bg_free(settings->paths[i]);
    bg_free((void *)settings->precision_items);
    bg_free(settings->task_items);
    bg_free((void *)settings->prompts.items);
    memset(settings, 0, sizeof *settings);
}

enum { MOST_ITEMS = 64 };

static bg_status unknown_word(const char *option, const char *word, const char *const *words,
                              bg_error *err)
{
    size_t n = 0;
    while (words[n]) n++;
    char *known = join(words, n);
    const char *close = cli_closest(word, words);
    bg_status status = bg_fail(err, BG_ERR_USAGE, "%s: there is no \"%s\"%s%s%s; known are %s",
                               option, word, close ? " (did you mean \"" : "", close ? close : "",
                               close ? "\"?)" : "", known ? known : "");
    bg_free(known);
    return status;
}

static bg_status check_word(const char *option, const char *word, const char *const *words,
                            bg_error *err)
{
    size_t k = 0;
    while (words[k] && strcmp(words[k], word) != 0) k++;
    return words[k] ? BG_OK : unknown_word(option, word, words, err);
}

/* Splits a copy of `list`, kept in *copy, and checks each item against `words`. */
static bg_status split_words(const char *list, const char *option, const char *const *words,
                             char **copy, const char **items, size_t *n, bg_error *err)
{
    char *text = bg_strdup(list);
    if (!text) return bg_fail_memory(err, strlen(list) + 1, option);
    bg_free(*copy);
    *copy = text;
    BG_TRY(cli_split(text, option, items, MOST_ITEMS, n, err));
    for (size_t i = 0; i < *n; i++) BG_TRY(check_word(option, items[i], words, err));
    return BG_OK;
}

static bg_status finish_precisions(cli_settings *settings, bg_error *err)
{
    settings->precision_items = bg_alloc_array(MOST_ITEMS, sizeof *settings->precision_items);
    if (!settings->precision_items)
        return bg_fail_memory(err, MOST_ITEMS * sizeof *settings->precision_items, "--precision");
    size_t n;
    BG_TRY(split_words(settings->precisions, "--precision", bg_precision_names(),
                       &settings->lists[0], settings->precision_items, &n, err));
    settings->precisions = NULL; /* its text may have been the list that was replaced */
    settings->job.precisions = settings->precision_items;
    settings->job.n_precisions = n;
    return BG_OK;
}

static bg_status finish_protocols(cli_settings *settings, bg_error *err)
{
    static const char *const names[] = {"lines", "sliding", "chunks", NULL};
    static const unsigned bits[] = {BG_PROTOCOL_LINES, BG_PROTOCOL_SLIDING, BG_PROTOCOL_CHUNKS};
    const char *items[MOST_ITEMS];
    size_t n;
    BG_TRY(
        split_words(settings->protocols, "--protocol", names, &settings->lists[1], items, &n, err));
    settings->job.perplexity.protocols = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; names[k]; k++)
            if (strcmp(items[i], names[k]) == 0) settings->job.perplexity.protocols |= bits[k];
    return BG_OK;
}

static bg_status finish_skip(cli_settings *settings, bg_error *err)
{
    static const char *const names[] = {"bench", "perplexity", "classify", "generate", NULL};
    bool *const enabled[] = {&settings->job.bench.enabled, &settings->job.perplexity.enabled,
                             &settings->job.classify.enabled, &settings->job.generate.enabled};
    const char *items[MOST_ITEMS];
    size_t n;
    BG_TRY(split_words(settings->skip, "--skip", names, &settings->lists[2], items, &n, err));
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; names[k]; k++)
            if (strcmp(items[i], names[k]) == 0) *enabled[k] = false;
    return BG_OK;
}

/* "boolq,piqa=FILE": names, each with the file that its data is in, if it is not the Hub's. */
static bg_status finish_tasks(cli_settings *settings, bg_error *err)
{
    char *text = bg_strdup(settings->tasks);
    if (!text) return bg_fail_memory(err, strlen(settings->tasks) + 1, "--task");
    settings->lists[3] = text;
    const char *items[MOST_ITEMS];
    size_t n;
    BG_TRY(cli_split(text, "--task", items, MOST_ITEMS, &n, err));
    settings->task_items = bg_calloc(n, sizeof *settings->task_items);
    if (!settings->task_items)
        return bg_fail_memory(err, n * sizeof *settings->task_items, "--task");
    for (size_t i = 0; i < n; i++) {
        char *equals = text + (items[i] - text) + strcspn(items[i], "=");
        const char *data = *equals ? equals + 1 : NULL;
        *equals = '\0';
        if (data && !*data)
            return bg_fail(err, BG_ERR_USAGE, "--task: which file is %s in? \"%s=\" names none",
                           items[i], items[i]);
        BG_TRY(check_word("--task", items[i], bg_task_names(), err));
        for (size_t k = 0; k < i; k++)
            if (strcmp(settings->task_items[k].name, items[i]) == 0)
                return bg_fail(err, BG_ERR_USAGE, "--task names %s twice", items[i]);
        settings->task_items[i] = (bg_named_task){items[i], data};
    }
    settings->job.tasks.items = settings->task_items;
    settings->job.tasks.n = n;
    return BG_OK;
}

bg_status cli_settings_finish(cli_settings *settings, bg_error *err)
{
    if (settings->precisions) BG_TRY(finish_precisions(settings, err));
    if (settings->protocols) BG_TRY(finish_protocols(settings, err));
    if (settings->skip) BG_TRY(finish_skip(settings, err));
    if (settings->tasks) BG_TRY(finish_tasks(settings, err));
    if (settings->prompts.n) {
        settings->job.generate.prompts = settings->prompts.items;
        settings->job.generate.n_prompts = settings->prompts.n;
    }
    return BG_OK;
}
