/* bitgauge worker: one configuration in a process of its own (docs/worker.md). Only the program
 * itself starts it. */
#include "cli/settings.h"

#include "core/error.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

static bg_status run(cli_settings *settings, bg_error *err)
{
    (void)settings;
    /* A Ctrl-C at the terminal reaches the whole process group. The parent decides what becomes of
     * a worker, and a worker does not outlive its parent. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (isatty(STDIN_FILENO))
        return bg_fail(err, BG_ERR_USAGE,
                       "worker is started by bitgauge itself and reads commands from a pipe");
    return bg_worker_main(STDIN_FILENO, STDOUT_FILENO, err);
}

const cli_command cli_worker = {
    .name = "worker",
    .summary = "run one configuration for a parent process",
    .arguments = "",
    .description = "Reads commands from standard input and writes events to standard output, as "
                   "docs/worker.md says.",
    .examples = "",
    .groups = (const cli_group *const[]){NULL},
    .run = run,
    .hidden = true,
};
