/* A progress bar on standard error: drawn in place, at most ten times a second, once a stage has
 * lasted a second, and only if standard error is a terminal that can move its cursor. It honours
 * NO_COLOR (https://no-color.org). Also the way SIGINT and SIGTERM reach a job: the callback
 * returns false after one. */
#ifndef BG_CLI_PROGRESS_H
#define BG_CLI_PROGRESS_H

#include "bitgauge/bitgauge.h"

typedef struct {
    bool terminal, color;
    bool drawn; /* a line is on the screen and has to be cleared */
    char stage[160];
    double began, drew; /* seconds on the monotonic clock */
    uint64_t first;     /* what was done when the stage began */
} cli_progress;

/* From now on the first SIGINT or SIGTERM interrupts the job, and a second one ends the program. */
void cli_catch_signals(void);

bg_progress cli_progress_begin(cli_progress *progress);
void cli_progress_end(cli_progress *progress);

/* bg_find_model with a progress bar. */
bg_status cli_find_model(const char *model, bool config_only, char **directory, bg_error *err);

/* Columns of the terminal that `fd` is, or 0 if it is none. */
int cli_terminal_width(int fd);

#endif
