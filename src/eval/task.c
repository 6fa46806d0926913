#include "eval/task.h"

#include "core/alloc.h"
#include "core/checked.h"
#include "eval/answers.h"
#include "eval/requests.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const bg_eval_task bg_eval_tasks[BG_EVAL_TASKS] = {
    {.name = "wikitext2",
     .kind = BG_EVAL_TEXT,
     .repository = "Salesforce/wikitext",
     .file = "wikitext-2-raw-v1/test-00000-of-00001.parquet",
     .columns = {"text"}},
    {.name = "sst2",
     .repository = "nyu-mll/glue",
     .file = "sst2/validation-00000-of-00001.parquet",
     .build = bg_document_sst2,
     .question = "Is this review positive or negative? ",
     .columns = {"sentence", "label"}},
    {.name = "boolq",
     .repository = "aps/super_glue",
     .file = "boolq/validation-00000-of-00001.parquet",
     .build = bg_document_boolq,
     .columns = {"passage", "question", "label"}},
    {.name = "hellaswag",
     .normalized = true,
     .repository = "Rowan/hellaswag",
     .file = "data/validation-00000-of-00001.parquet",
     .build = bg_document_hellaswag,
     .columns = {"activity_label", "ctx_a", "ctx_b", "endings", "label"}},
    {.name = "piqa",
     .normalized = true,
     .repository = "baber/piqa",
     .file = "piqa_validation.parquet",
     .build = bg_document_piqa,
     .columns = {"goal", "sol1", "sol2", "label"}},
    {.name = "arc_easy",
     .normalized = true,
     .repository = "allenai/ai2_arc",
     .file = "ARC-Easy/test-00000-of-00001.parquet",
     .build = bg_document_arc,
     .columns = {"question", "choices.text", "choices.label", "answerKey"}},
    {.name = "lambada_openai",
     .kind = BG_EVAL_WORD,
     .repository = "EleutherAI/lambada_openai",
     .file = "data/lambada_test.jsonl",
     .build = bg_document_lambada,
     .columns = {"text"}},
};

const bg_eval_task *bg_eval_task_by_name(const char *name)
{
    for (size_t i = 0; i < BG_EVAL_TASKS; i++)
        if (strcmp(bg_eval_tasks[i].name, name) == 0) return &bg_eval_tasks[i];
    return NULL;
}

static bg_status open_columns(const bg_eval_task *task, bg_table *table, const char *path,
                              int64_t limit, const bg_column **columns, size_t *n, bg_error *err)
{
    for (size_t i = 0; task->columns[i]; i++)
        BG_TRY(bg_table_column(table, task->columns[i], &columns[i], err));
    *n = bg_table_rows(table);
    if (limit > 0) *n = bg_min_size(*n, (size_t)limit);
    if (*n > 0) return BG_OK;
    return bg_fail(err, BG_ERR_FORMAT, "%s: there are no rows in it; give the data of %s", path,
                   task->name);
}

bg_status bg_task_check(const bg_eval_task *task, const char *path, int64_t limit, bg_error *err)
{
    bg_table *table;
    bg_document document = {0};
    const bg_column *columns[BG_MOST_COLUMNS_READ];
    size_t n = 0;
    BG_TRY(bg_table_open(path, &table, err));
    bg_status status = open_columns(task, table, path, limit, columns, &n, err);
    for (size_t i = 0; i < n && status == BG_OK; i++)
        status = task->build(columns, i, &document, err);
    bg_text_free(&document.text);
    bg_table_close(table);
    if (status != BG_OK) bg_error_context(err, "%s", task->name);
    return status;
}

/* ---- loading --------------------------------------------------------------------------------- */

static bg_status load_rows(const bg_request_rules *rules, const bg_eval_task *task,
                           const bg_column *const *columns, bg_progress progress, bg_task_set *out,
                           size_t n, bg_error *err)
{
    bg_document document = {0};
    char stage[64];
    bg_status status = BG_OK;
    snprintf(stage, sizeof stage, "%s, tokenizing", task->name);
    for (size_t i = 0; i < n && status == BG_OK; i++) {
        status = task->build(columns, i, &document, err);
        if (status != BG_OK) break;
        status = bg_requests_make(rules, &document, &out->groups[i], err);
        if (status != BG_OK) {
            bg_error_context(err, "%s, row %zu", task->name, i + 1);
            break;
        }
        out->n++;
        out->answers[i].gold = document.gold;
        for (size_t k = 0; k < document.n_choices; k++)
            out->answers[i].characters[k] = document.choices[k].characters;
        if (progress.call && !progress.call(progress.context, stage, i + 1, n))
            status = bg_fail(err, BG_ERR_INTERRUPTED, "interrupted during %s", stage);
    }
    bg_text_free(&document.text);
    return status;
}

static bg_status load_table(const bg_request_rules *rules, const bg_eval_task *task,
                            bg_table *table, const char *path, int64_t limit, bg_progress progress,
                            bg_task_set *out, bg_error *err)
{
    const bg_column *columns[BG_MOST_COLUMNS_READ];
    size_t n;
    BG_TRY(open_columns(task, table, path, limit, columns, &n, err));
    out->groups = bg_calloc(n, sizeof *out->groups);
    out->answers = bg_calloc(n, sizeof *out->answers);
    if (!out->groups || !out->answers)
        return bg_fail_memory(err, n * sizeof *out->groups, task->name);
    return load_rows(rules, task, columns, progress, out, n, err);
}

bg_status bg_task_set_load(const bg_config *config, const bg_tokenizer *tokenizer,
                           const bg_eval_task *task, const char *path, int64_t limit,
                           bg_progress progress, bg_task_set *out, bg_error *err)
{
    bg_request_rules rules;
    bg_table *table = NULL;
    *out = (bg_task_set){0};
    if (!task->build)
        return bg_fail(err, BG_ERR_INTERNAL, "%s is a text and has no questions", task->name);
    bg_status status = bg_request_rules_init(config, tokenizer, &rules, err);
    if (status == BG_OK) status = bg_table_open(path, &table, err);
    if (status == BG_OK) status = load_table(&rules, task, table, path, limit, progress, out, err);
    bg_table_close(table);
    bg_request_rules_free(&rules);
    if (status != BG_OK) bg_task_set_free(out);
    return status;
}

void bg_task_set_free(bg_task_set *set)
{
    for (size_t i = 0; i < set->n; i++) bg_requests_free(&set->groups[i]);
    bg_free(set->groups);
    bg_free(set->answers);
    *set = (bg_task_set){0};
}

/* ---- counting -------------------------------------------------------------------------------- */

/* The mean of n samples and its standard error. */
static bg_task_metric mean_of(const char *name, const double *samples, size_t n)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) sum += samples[i];
    const double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) squares += (samples[i] - mean) * (samples[i] - mean);
    double error = n > 1 ? sqrt(squares / (double)(n - 1)) / sqrt((double)n) : NAN;
    return (bg_task_metric){name, mean, error};
}

/* Whether the first of the largest log-likelihoods, each divided by its length where `lengths` are
 * given, is the right one. */
static bool is_right(const bg_request_group *group, const size_t *lengths, size_t gold)
{
    size_t best = 0;
    double most = -INFINITY;
    for (size_t k = 0; k < group->n; k++) {
        double value = -group->requests[k].nll;
        if (lengths) value /= (double)lengths[k];
        if (value > most) {
            best = k;
            most = value;
        }
    }
    return best == gold;
}

static void count_choices(const bg_task_set *set, bool normalized, double *samples,
                          bg_task_result *out)
{
    for (int norm = 0; norm < 1 + normalized; norm++) {
        for (size_t i = 0; i < set->n; i++)
            samples[i] = is_right(&set->groups[i], norm ? set->answers[i].characters : NULL,
                                  set->answers[i].gold);
        out->metrics[out->n_metrics++] = mean_of(norm ? "acc_norm" : "acc", samples, set->n);
    }
}

static void count_words(const bg_task_set *set, double *samples, bg_task_result *out)
{
    for (size_t i = 0; i < set->n; i++) samples[i] = set->groups[i].requests[0].greedy;
    out->metrics[out->n_metrics++] = mean_of("acc", samples, set->n);
    for (size_t i = 0; i < set->n; i++) samples[i] = set->groups[i].requests[0].nll;
    bg_task_metric *perplexity = &out->metrics[out->n_metrics++];
    *perplexity = mean_of("perplexity", samples, set->n);
    perplexity->value = exp(perplexity->value);
    perplexity->stderr_ *= perplexity->value;
}

bg_status bg_task_set_count(const bg_task_set *set, const bg_eval_task *task, bg_task_result *out,
                            bg_error *err)
{
    *out = (bg_task_result){.documents = (int64_t)set->n};
    double *samples = bg_alloc_array(set->n, sizeof *samples);
    if (!samples) return bg_fail_memory(err, set->n * sizeof *samples, task->name);
    for (size_t i = 0; i < set->n; i++) out->requests += (int64_t)set->groups[i].n;
    if (task->kind == BG_EVAL_CHOICE)
        count_choices(set, task->normalized, samples, out);
    else
        count_words(set, samples, out);
    bg_free(samples);
    return BG_OK;
}

static bg_status count_answers(const bg_model *model, const bg_tokenizer *tokenizer,
                               const bg_eval_task *task, const char *path, int64_t limit,
                               bg_progress progress, bg_task_result *out, bg_error *err)
{
    double *right;
    size_t n;
    bg_status status = bg_answers_measure(model, tokenizer, task->question, path, limit, progress,
                                          &right, &n, err);
    if (status == BG_OK) out->metrics[out->n_metrics++] = mean_of("exact_match", right, n);
    bg_free(right);
    return status;
}

bg_status bg_task_measure(const bg_model *model, const bg_tokenizer *tokenizer,
                          const bg_eval_task *task, const char *path,
                          const bg_task_options *options, bg_progress progress, bg_task_result *out,
                          bg_error *err)
{
    bg_task_set set;
    *out = (bg_task_result){0};
    BG_TRY(bg_task_set_load(&model->config, tokenizer, task, path, options->limit, progress, &set,
                            err));
    bg_likelihood_options how = {options->batch, task->kind == BG_EVAL_WORD};
    bg_status status = bg_likelihood_run(model, set.groups, set.n, &how, task->name, progress, err);
    if (status == BG_OK) status = bg_task_set_count(&set, task, out, err);
    bg_task_set_free(&set);
    if (status == BG_OK && task->question && model->config.arch->task == BG_TASK_SEQ2SEQ)
        status = count_answers(model, tokenizer, task, path, options->limit, progress, out, err);
    return status;
}
