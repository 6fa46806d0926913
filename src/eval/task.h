/* Named tasks: a data set, how its rows become questions, and how the answers are counted, as
 * lm-evaluation-harness does it, zero-shot. docs/tasks.md defines each. */
#ifndef BG_EVAL_TASK_H
#define BG_EVAL_TASK_H

#include "bitgauge/bitgauge.h"
#include "eval/document.h"
#include "eval/likelihood.h"

enum { BG_MOST_COLUMNS_READ = 6 };

typedef enum {
    BG_EVAL_CHOICE, /* acc: the right choice is the likeliest; acc_norm: so divided by its length */
    BG_EVAL_WORD,   /* acc: the word is what greedy choice gives; perplexity of the word */
    BG_EVAL_TEXT,   /* a text, whose perplexity is measured by eval/perplexity.h */
} bg_eval_kind;

typedef struct {
    const char *name;
    bg_eval_kind kind;
    bool normalized;               /* acc_norm is reported */
    const char *repository, *file; /* of the data set on the Hub */
    bg_document_builder build;     /* NULL for a text */
    /* Put before the sentence to ask an encoder-decoder model, whose answers are counted beside the
     * likelihoods: exact_match. NULL: they are not. */
    const char *question;
    const char *const columns[BG_MOST_COLUMNS_READ]; /* that it reads; ends with NULL */
} bg_eval_task;

/* All of them, in the order of the documentation. */
enum { BG_EVAL_TASKS = 7 };
extern const bg_eval_task bg_eval_tasks[BG_EVAL_TASKS];
/* NULL for a name that none has. */
const bg_eval_task *bg_eval_task_by_name(const char *name);

typedef struct {
    int64_t limit; /* at most so many documents, the first ones; 0: all */
    size_t batch;  /* as in bg_likelihood_options */
} bg_task_options;

typedef struct {
    const char *name; /* "acc", "acc_norm", "exact_match", "perplexity" */
    double value;
    double stderr_; /* standard error; NaN where one document gives none */
} bg_task_metric;

enum { BG_MOST_METRICS = 4 };

typedef struct {
    int64_t documents, requests;
    bg_task_metric metrics[BG_MOST_METRICS];
    size_t n_metrics;
} bg_task_result;

/* The documents of a data file as requests, ready to be run. */
typedef struct {
    bg_request_group *groups; /* (n) */
    struct bg_task_answer {
        size_t gold;
        size_t characters[BG_MOST_CHOICES];
    } * answers; /* (n) */
    size_t n;
} bg_task_set;

/* Refuses a data file that the task cannot read. */
bg_status bg_task_check(const bg_eval_task *task, const char *path, int64_t limit, bg_error *err);

/* Reads a data file and makes its requests. */
bg_status bg_task_set_load(const bg_config *config, const bg_tokenizer *tokenizer,
                           const bg_eval_task *task, const char *path, int64_t limit,
                           bg_progress progress, bg_task_set *out, bg_error *err);
void bg_task_set_free(bg_task_set *set);
/* The metrics of requests that were run. The standard error of an accuracy is that of a mean, from
 * the sample's deviation; that of a perplexity is the mean's, carried through exp to first order.
 */
bg_status bg_task_set_count(const bg_task_set *set, const bg_eval_task *task, bg_task_result *out,
                            bg_error *err);

/* All three: loads a data file, runs its requests and counts. */
bg_status bg_task_measure(const bg_model *model, const bg_tokenizer *tokenizer,
                          const bg_eval_task *task, const char *path,
                          const bg_task_options *options, bg_progress progress, bg_task_result *out,
                          bg_error *err);

#endif
