/* bitgauge pull: a model from the Hub into the cache. */
#include "cli/progress.h"
#include "cli/settings.h"

#include "core/error.h"
#include "core/text.h"

static bg_status run(cli_settings *settings, bg_error *err)
{
    cli_progress progress;
    char *directory = NULL;
    cli_catch_signals();
    bg_progress callback = cli_progress_begin(&progress);
    bg_status status = bg_pull(settings->arguments.items[0], false, callback, &directory, err);
    cli_progress_end(&progress);
    if (status != BG_OK) return status;
    bg_text line = {0};
    bg_text_printf(&line, "%s\n", directory);
    status = line.failed ? bg_fail_memory(err, 256, "the directory's name")
                         : cli_print(NULL, line.data, line.size, err);
    bg_text_free(&line);
    bg_string_free(directory);
    return status;
}

const cli_command cli_pull = {
    .name = "pull",
    .summary = "download a model from the Hugging Face Hub",
    .arguments = "NAME",
    .min_arguments = 1,
    .max_arguments = 1,
    .description =
        "Downloads the configuration, the tokenizer and the weights of the model NAME, ORG/NAME or "
        "ORG/NAME@REVISION from the Hugging Face Hub and prints the directory they are in. What is "
        "in the cache already is not downloaded again, and a download that was interrupted goes on "
        "where it stopped. Every other command takes such a name in place of a directory, too.",
    .examples = "bitgauge pull gpt2 # a model\n"
                "bitgauge pull facebook/opt-125m@main # a branch, a tag or a commit\n"
                "HF_TOKEN=hf_abc bitgauge pull meta-llama/Llama-3.2-1B # one that is gated\n",
    .groups = (const cli_group *const[]){NULL},
    .run = run,
};
