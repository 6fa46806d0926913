/* bitgauge classify: the accuracy of a sentence classifier, or of a model that is asked. */
#include "cli/settings.h"

#include "core/error.h"

static const cli_option rows[] = {
    {"data", 0, CLI_STRING, "FILE", offsetof(cli_settings, job.classify.data),
     "Labelled sentences: a data file with the columns \"sentence\" and \"label\"",
     "the embedded sentences", 0, 0},
    {"limit", 0, CLI_INT64, "N", offsetof(cli_settings, job.classify.limit),
     "At most so many sentences; 0 is all", "all", 0, INT64_MAX},
    {"max-length", 0, CLI_INT, "N", offsetof(cli_settings, job.classify.max_length),
     "Cut sentences at so many tokens; an encoder-decoder reads them whole",
     "128, or what the model has", 3, 1 << 20},
    {"pad", 0, CLI_FLAG, NULL, offsetof(cli_settings, job.classify.pad),
     "Pad every sentence to --max-length tokens", NULL, 0, 0},
};
static const cli_group own = {"Classification", rows, CLI_COUNT(rows)};

static void prepare(cli_settings *settings)
{
    settings->precisions = "fp32";
    settings->job.classify.enabled = true;
}

static bg_status run(cli_settings *settings, bg_error *err)
{
    bg_job *job = &settings->job;
    job->model = settings->arguments.items[0];
    if (!job->classify.data)
        BG_TRY(cli_find_data(settings, "data/demo-reviews.tsv", &job->classify.data, err));
    return cli_measure(settings, job, 1, err);
}

const cli_command cli_classify = {
    .name = "classify",
    .summary = "count a classifier's correct answers",
    .arguments = "MODEL",
    .min_arguments = 1,
    .max_arguments = 1,
    .description =
        "Classifies labelled sentences with MODEL and counts the correct answers. The "
        "label of a line is the number of the class. An encoder-decoder is asked whether "
        "each is positive, 1, or negative, 0, as the task sst2 does.",
    .examples = "bitgauge classify distilbert/ --data sst2.tsv # every sentence at fp32\n"
                "bitgauge classify distilbert/ --data sst2.tsv --pad --max-length 128 --precision "
                "fp32,int8 # padded, two precisions\n",
    .groups = (const cli_group *const[]){&own, &cli_precision_options, &cli_report_options, NULL},
    .prepare = prepare,
    .run = run,
};
