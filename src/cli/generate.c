/* bitgauge generate: what a model writes. */
#include "cli/settings.h"

static const cli_option rows[] = {
    {"prompt", 0, CLI_STRINGS, "TEXT...", offsetof(cli_settings, prompts),
     "Prompts to complete, one or more; may be repeated; one that begins with a dash is written "
     "--prompt=TEXT",
     "four well-known ones", 0, 0},
    {"image", 0, CLI_STRING, "FILE", offsetof(cli_settings, job.generate.image),
     "A PNG or JPEG file that the prompts are about, for a model that looks at images", "none", 0,
     0},
    {"max-new-tokens", 0, CLI_INT, "N", offsetof(cli_settings, job.generate.max_new_tokens),
     "Tokens to generate after each prompt", NULL, 1, 1 << 20},
    {"stop-at-eos", 0, CLI_FLAG, NULL, offsetof(cli_settings, job.generate.stop_at_eos),
     "End a text at an end-of-text token; without this none is ever chosen, so that all texts are "
     "equally long. An encoder-decoder's answers always end so",
     NULL, 0, 0},
    {"temperature", 0, CLI_REAL, "X", offsetof(cli_settings, job.generate.temperature),
     "Divide the logits by X and draw from the distribution; 0 is greedy", NULL, 0, 1000},
    {"top-k", 0, CLI_INT, "N", offsetof(cli_settings, job.generate.top_k),
     "Draw from the N likeliest tokens; 0 is off", "off", 0, 1 << 24},
    {"top-p", 0, CLI_REAL, "X", offsetof(cli_settings, job.generate.top_p),
     "Draw from the likeliest tokens that together reach probability X; 1 is off", NULL, 0, 1},
    {"seed", 0, CLI_UINT64, "N", offsetof(cli_settings, job.generate.seed),
     "Seed of the random numbers; the same seed draws the same text", NULL, 0, 0},
};
static const cli_group own = {"Generation", rows, CLI_COUNT(rows)};

static void prepare(cli_settings *settings)
{
    settings->precisions = "fp32";
    settings->job.generate.enabled = true;
}

static bg_status run(cli_settings *settings, bg_error *err)
{
    settings->job.model = settings->arguments.items[0];
    return cli_measure(settings, &settings->job, 1, err);
}

const cli_command cli_generate = {
    .name = "generate",
    .summary = "complete prompts, or answer them",
    .arguments = "MODEL",
    .min_arguments = 1,
    .max_arguments = 1,
    .description = "Completes prompts with MODEL (an encoder-decoder answers them), greedily "
                   "unless --temperature says otherwise, and "
                   "says at which token each precision first departs from the first one listed. "
                   "Since --prompt takes every text up to the next option, MODEL goes before it.",
    .examples =
        "bitgauge generate gpt2/ --prompt \"The capital of France is\" \"Once upon a "
        "time\" # two prompts, greedy\n"
        "bitgauge generate gpt2/ --prompt \"Dear\" --temperature 0.8 --top-k 40 --seed 7 # "
        "drawn at random\n"
        "bitgauge generate paligemma/ --image photo.jpg --prompt \"caption en\" # what is on "
        "a photo\n"
        "bitgauge generate gpt2/ --precision fp32,nf4 # where nf4 departs from fp32\n",
    .groups = (const cli_group *const[]){&own, &cli_precision_options, &cli_report_options, NULL},
    .prepare = prepare,
    .run = run,
};
