/* bitgauge devices: what this machine can run. */
#include "cli/settings.h"

#include "core/error.h"

#include <string.h>

static const cli_option rows[] = {
    {"threads", 0, CLI_INT, "N", offsetof(cli_settings, job.threads),
     "Threads to measure the memory bandwidth with", "one for each processor", 1, 1024},
    {"json", 0, CLI_OUTPUT, "[=FILE]", offsetof(cli_settings, json_output),
     "Print JSON instead of a table, or write it to FILE", NULL, 0, 0},
};
static const cli_group own = {"Options", rows, CLI_COUNT(rows)};

static bg_status run(cli_settings *settings, bg_error *err)
{
    char *text = NULL;
    const cli_output *json = &settings->json_output;
    BG_TRY(bg_describe_devices(settings->job.threads, json->wanted, &text, err));
    bg_status status = cli_print(json->path, text, strlen(text), err);
    bg_string_free(text);
    return status;
}

const cli_command cli_devices = {
    .name = "devices",
    .summary = "show the devices, their kernels and memory bandwidth",
    .arguments = "",
    .description =
        "Lists the devices of this machine: cores and instruction sets, NVIDIA GPUs with their "
        "compute capability, memory and driver (or why none can be used), the kernels that each "
        "precision would use, and the memory bandwidth, which is measured now (about a second).",
    .examples = "bitgauge devices # this machine\n"
                "bitgauge devices --threads 1 --json # the bandwidth of one core, as JSON\n",
    .groups = (const cli_group *const[]){&own, NULL},
    .run = run,
};
