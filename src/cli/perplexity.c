/* bitgauge perplexity: how well a decoder predicts a text. */
#include "cli/settings.h"

#include "core/error.h"

static const cli_option rows[] = {
    {"text", 0, CLI_STRING, "FILE", offsetof(cli_settings, job.perplexity.text),
     "The UTF-8 text to score, or a data file with the column \"text\"", "the embedded text", 0, 0},
    {"protocol", 0, CLI_STRING, "LIST", offsetof(cli_settings, protocols),
     "How the text is cut: lines (each alone), sliding (overlapping windows, each token scored "
     "once), chunks (windows side by side)",
     NULL, 0, 0},
    {"max-length", 0, CLI_INT, "N", offsetof(cli_settings, job.perplexity.max_length),
     "Tokens of a line or a window",
     "128 for lines, the model's context, at most 2048, for windows", 2, 1 << 20},
    {"stride", 0, CLI_INT, "N", offsetof(cli_settings, job.perplexity.stride),
     "Step of the sliding windows in tokens", "half of --max-length", 1, 1 << 20},
    {"limit", 0, CLI_INT64, "N", offsetof(cli_settings, job.perplexity.limit),
     "Lines: at most so many lines; 0 is all", NULL, 0, INT64_MAX},
    {"max-tokens", 0, CLI_INT64, "N", offsetof(cli_settings, job.perplexity.max_tokens),
     "Windows: at most so many tokens of the text; 0 is all", "all", 0, INT64_MAX},
};
static const cli_group own = {"Perplexity", rows, CLI_COUNT(rows)};

static void prepare(cli_settings *settings)
{
    settings->precisions = "fp32";
    settings->protocols = "lines";
    settings->job.perplexity.enabled = true;
}

static bg_status run(cli_settings *settings, bg_error *err)
{
    bg_job *job = &settings->job;
    job->model = settings->arguments.items[0];
    if (job->perplexity.max_length && job->perplexity.stride > job->perplexity.max_length)
        return bg_fail(err, BG_ERR_USAGE,
                       "--stride %d is longer than --max-length %d: tokens would be left out",
                       job->perplexity.stride, job->perplexity.max_length);
    if (!job->perplexity.text)
        BG_TRY(cli_find_data(settings, "data/demo-text.txt", &job->perplexity.text, err));
    return cli_measure(settings, job, 1, err);
}

const cli_command cli_perplexity = {
    .name = "perplexity",
    .summary = "score a text with a decoder",
    .arguments = "MODEL",
    .min_arguments = 1,
    .max_arguments = 1,
    .description =
        "Computes the perplexity of a text under MODEL: the exponential of the mean negative "
        "log-likelihood of its tokens. The protocol decides what each token is predicted from, so "
        "only figures of the same protocol, length and text can be compared.",
    .examples =
        "bitgauge perplexity gpt2/ --text wiki.test.txt # the first 200 lines at fp32\n"
        "bitgauge perplexity gpt2/ --text wiki.test.txt --protocol sliding --max-length 512 "
        "--stride 256 --max-tokens 80000 --precision fp32,nf4 # windows, two precisions\n",
    .groups = (const cli_group *const[]){&own, &cli_precision_options, &cli_report_options, NULL},
    .prepare = prepare,
    .run = run,
};
