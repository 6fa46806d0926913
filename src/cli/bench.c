/* bitgauge bench: speed and memory. */
#include "cli/settings.h"

#include "core/error.h"

static const cli_option rows[] = {
    {"prompt-tokens", 0, CLI_INT, "N", offsetof(cli_settings, job.bench.prompt_tokens),
     "Length of the prompt in tokens; for a classifier, of the sentence",
     "32; 128 for a classifier", 1, 1 << 20},
    {"new-tokens", 0, CLI_INT, "N", offsetof(cli_settings, job.bench.new_tokens),
     "Tokens decoded after the prompt", NULL, 1, 1 << 20},
    {"batch", 0, CLI_INT, "N", offsetof(cli_settings, job.bench.batch), "Sequences side by side",
     NULL, 1, 4096},
    {"runs", 0, CLI_INT, "N", offsetof(cli_settings, job.bench.runs), "Timed runs after warm-up",
     NULL, 1, 100000},
    {"random-weights", 0, CLI_STRING, "DIR", offsetof(cli_settings, random_weights),
     "Read only config.json in DIR and make up weights at the true shape, in place of MODEL", NULL,
     0, 0},
};
static const cli_group own = {"Speed", rows, CLI_COUNT(rows)};

static void prepare(cli_settings *settings)
{
    settings->precisions = "fp32";
    settings->job.bench.enabled = true;
}

static bg_status run(cli_settings *settings, bg_error *err)
{
    bg_job *job = &settings->job;
    if (settings->random_weights && settings->arguments.n)
        return bg_fail(err, BG_ERR_USAGE,
                       "bench takes MODEL or --random-weights DIR, but was given both (%s and %s)",
                       settings->arguments.items[0], settings->random_weights);
    if (!settings->random_weights && !settings->arguments.n)
        return bg_fail(err, BG_ERR_USAGE,
                       "bench needs a model: bitgauge bench MODEL, or --random-weights DIR");
    job->random_weights = settings->random_weights != NULL;
    job->model = job->random_weights ? settings->random_weights : settings->arguments.items[0];
    return cli_measure(settings, job, 1, err);
}

const cli_command cli_bench = {
    .name = "bench",
    .summary = "measure speed and memory",
    .arguments = "[MODEL]",
    .max_arguments = 1,
    .description =
        "Measures the time to load and quantize MODEL, its memory, the time to process a "
        "prompt (prefill) and the time for each token after it (decode); for a classifier, "
        "sentences a second. Times are medians over --runs runs after a warm-up; the samples are "
        "in the JSON.\n\n"
        "With --random-weights a model can be sized without its weights: config.json is enough.",
    .examples =
        "bitgauge bench gpt2/ --precision fp32,int8,nf4 # one model, three precisions\n"
        "bitgauge bench --random-weights llama-7b/ --precision nf4 --new-tokens 16 # from "
        "config.json alone\n"
        "bitgauge bench gpt2/ --prompt-tokens 512 --batch 4 --runs 10 # a long prompt, four "
        "at a time\n",
    .groups = (const cli_group *const[]){&own, &cli_precision_options, &cli_report_options, NULL},
    .prepare = prepare,
    .run = run,
};
