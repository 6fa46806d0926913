/* bitgauge compare: every measurement that fits the model, at every precision. */
#include "cli/settings.h"

#include "core/error.h"

#include <string.h>

static const cli_option rows[] = {
    {"skip", 0, CLI_STRING, "LIST", offsetof(cli_settings, skip),
     "Measurements to leave out: bench, perplexity, classify, generate", NULL, 0, 0},
    {"prompt-tokens", 0, CLI_INT, "N", offsetof(cli_settings, job.bench.prompt_tokens),
     "Speed: length of the prompt in tokens; for a classifier, of the sentence",
     "32; 128 for a classifier", 1, 1 << 20},
    {"new-tokens", 0, CLI_INT, "N", offsetof(cli_settings, job.bench.new_tokens),
     "Speed: tokens decoded after the prompt", NULL, 1, 1 << 20},
    {"batch", 0, CLI_INT, "N", offsetof(cli_settings, job.bench.batch),
     "Speed: sequences side by side", NULL, 1, 4096},
    {"runs", 0, CLI_INT, "N", offsetof(cli_settings, job.bench.runs),
     "Speed: timed runs after warm-up", NULL, 1, 100000},
    {"text", 0, CLI_STRING, "FILE", offsetof(cli_settings, job.perplexity.text),
     "Perplexity: the UTF-8 text to score, or a data file with the column \"text\"",
     "the embedded text", 0, 0},
    {"stride", 0, CLI_INT, "N", offsetof(cli_settings, job.perplexity.stride),
     "Perplexity: step of the sliding windows in tokens", "half of --max-length", 1, 1 << 20},
    {"max-tokens", 0, CLI_INT64, "N", offsetof(cli_settings, job.perplexity.max_tokens),
     "Perplexity: at most so many tokens of the text for sliding windows; 0 is all", "all", 0,
     INT64_MAX},
    {"data", 0, CLI_STRING, "FILE", offsetof(cli_settings, job.classify.data),
     "Accuracy: labelled sentences, a data file with the columns \"sentence\" and \"label\"",
     "the embedded sentences", 0, 0},
    {"task", 0, CLI_STRING, "LIST", offsetof(cli_settings, tasks),
     "Tasks, asked and counted as lm-evaluation-harness does: wikitext2, sst2, boolq, hellaswag, "
     "piqa, arc_easy, lambada_openai; with NAME=FILE from a file, otherwise from the Hub",
     "none", 0, 0},
    {"task-batch", 0, CLI_INT, "N", offsetof(cli_settings, job.tasks.batch),
     "Tasks: questions side by side; 0 runs each answer by itself", NULL, 0, 4096},
    {"limit", 0, CLI_INT64, "N", offsetof(cli_settings, limit),
     "At most so many lines of the text, labelled sentences and questions of a task; 0 is all",
     "200 lines, all sentences and questions", 0, INT64_MAX},
    {"max-length", 0, CLI_INT, "N", offsetof(cli_settings, max_length),
     "Cut lines and sentences, and make windows, at so many tokens",
     "128 for lines and sentences, the model's context, at most 2048, for windows", 2, 1 << 20},
    {"prompt", 0, CLI_STRINGS, "TEXT...", offsetof(cli_settings, prompts),
     "Prompts to complete, one or more; may be repeated", "four well-known ones", 0, 0},
    {"max-new-tokens", 0, CLI_INT, "N", offsetof(cli_settings, job.generate.max_new_tokens),
     "Tokens to generate after each prompt", NULL, 1, 1 << 20},
};
static const cli_group measurements = {"Measurements", rows, CLI_COUNT(rows)};

static void prepare(cli_settings *settings)
{
    bg_job *job = &settings->job;
    job->bench.enabled = true;
    job->perplexity.enabled = true;
    job->classify.enabled = true;
    job->generate.enabled = true;
}

static bg_status run(cli_settings *settings, bg_error *err)
{
    bg_job *job = &settings->job;
    for (size_t i = 0; i < job->tasks.n; i++) {
        const char *task = job->tasks.items[i].name;
        const bool text = strcmp(task, "wikitext2") == 0, data = strcmp(task, "sst2") == 0;
        if ((text && job->perplexity.text) || (data && job->classify.data))
            return bg_fail(err, BG_ERR_USAGE,
                           "--task %s and %s name two files for one thing; give one", task,
                           text ? "--text" : "--data");
    }
    if (settings->limit >= 0) {
        job->perplexity.limit = settings->limit;
        job->classify.limit = settings->limit;
        job->tasks.limit = settings->limit;
    }
    if (settings->max_length) {
        job->perplexity.max_length = settings->max_length;
        job->classify.max_length = settings->max_length;
    }
    if (!job->bench.enabled && !job->perplexity.enabled && !job->classify.enabled &&
        !job->generate.enabled && job->tasks.n == 0)
        return bg_fail(err, BG_ERR_USAGE, "--skip leaves nothing to measure; name fewer");
    if (job->perplexity.enabled && !job->perplexity.text)
        BG_TRY(cli_find_data(settings, "data/demo-text.txt", &job->perplexity.text, err));
    if (job->classify.enabled && !job->classify.data)
        BG_TRY(cli_find_data(settings, "data/demo-reviews.tsv", &job->classify.data, err));

    bg_job jobs[2] = {*job, *job};
    if (settings->arguments.n) {
        jobs[0].model = settings->arguments.items[0];
        return cli_measure(settings, jobs, 1, err);
    }
    /* Each embedded model is given what fits it, unless that is nothing. */
    size_t n = 0;
    jobs[0].classify.enabled = false;
    if (job->bench.enabled || job->perplexity.enabled || job->generate.enabled || job->tasks.n > 0)
        BG_TRY(cli_find_data(settings, "models/demo-decoder", &jobs[n++].model, err));
    if (job->bench.enabled || job->classify.enabled) {
        jobs[n] = *job;
        jobs[n].tasks.n = 0;
        jobs[n].perplexity.enabled = jobs[n].generate.enabled = false;
        BG_TRY(cli_find_data(settings, "models/demo-classifier", &jobs[n++].model, err));
    }
    return cli_measure(settings, jobs, n, err);
}

const cli_command cli_compare = {
    .name = "compare",
    .summary = "measure memory, speed and quality at every precision, side by side",
    .arguments = "[MODEL]",
    .max_arguments = 1,
    .description =
        "Runs MODEL, a directory in the Hugging Face layout or a name on the Hub, once for each "
        "precision, each in a "
        "process of its own, and sets the figures side by side against the first precision: bytes, "
        "memory, load time, prefill and decode speed; for a decoder also perplexity by "
        "lines and by sliding windows, and the texts it generates; for a classifier its accuracy; "
        "for "
        "an encoder-decoder its answers, and what it thinks of labelled sentences (the task sst2). "
        "Measurements that do not fit the model are left out. --task adds accuracies on named data "
        "sets.\n\n"
        "Without MODEL the two embedded models are compared, a small GPT-2 and a small "
        "DistilBERT.\n\n"
        "A precision that fails becomes a row with its reason, and the others go on. After SIGINT "
        "or SIGTERM the rows finished so far are still printed and written.",
    .examples =
        "bitgauge compare # the embedded models at eight precisions\n"
        "bitgauge compare gpt2/ --html report.html --json report.json # a model of your own, with "
        "reports\n"
        "bitgauge compare gpt2/ --precision fp16,nf4,int8 --skip generate # three precisions, fp16 "
        "as the baseline\n"
        "bitgauge compare gpt2 --task wikitext2,hellaswag,piqa --precision fp16,int8,nf4 # "
        "accuracies on "
        "data from the Hub\n"
        "bitgauge compare gpt2/ --text wiki.test.txt --limit 0 --max-tokens 80000 # a text of your "
        "own, every line of it\n",
    .groups = (const cli_group *const[]){&cli_precision_options, &measurements, &cli_report_options,
                                         NULL},
    .prepare = prepare,
    .run = run,
};
