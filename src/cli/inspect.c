/* bitgauge inspect: what is in a checkpoint. */
#include "cli/progress.h"
#include "cli/settings.h"

#include "core/error.h"

#include <string.h>

static const cli_option rows[] = {
    {"json", 0, CLI_OUTPUT, "[=FILE]", offsetof(cli_settings, json_output),
     "Print JSON instead of a table, or write it to FILE", NULL, 0, 0},
};
static const cli_group own = {"Output", rows, CLI_COUNT(rows)};

static bg_status run(cli_settings *settings, bg_error *err)
{
    char *text = NULL;
    const cli_output *json = &settings->json_output;
    char *path;
    BG_TRY(cli_find_model(settings->arguments.items[0], false, &path, err));
    bg_status status = bg_inspect(path, json->wanted, &text, err);
    bg_string_free(path);
    BG_TRY(status);
    status = cli_print(json->path, text, strlen(text), err);
    bg_string_free(text);
    return status;
}

const cli_command cli_inspect = {
    .name = "inspect",
    .summary = "show a checkpoint's configuration, tensors, types and sizes",
    .arguments = "PATH",
    .min_arguments = 1,
    .max_arguments = 1,
    .description = "Describes a model directory or a single checkpoint file without running it.",
    .examples = "bitgauge inspect gpt2/ # configuration and tensors\n"
                "bitgauge inspect gpt2/model.safetensors --json # one file, as JSON\n",
    .groups = (const cli_group *const[]){&own, NULL},
    .run = run,
};
