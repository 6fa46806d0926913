/* What the measuring subcommands share: run the jobs, then print the table and write the reports,
 * also after an interruption or when some precision failed. */
#include "cli/progress.h"
#include "cli/settings.h"

#include "core/error.h"
#include "core/file.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    const char *option;
    bg_report_format format;
    const char *path; /* NULL: not wanted */
} report;

/* Whether a report could be written to `path`, asked before the work and not after it. */
static bg_status check_writable(const report *wanted, bg_error *err)
{
    char copy[PATH_MAX];
    struct stat info;
    if (strcmp(wanted->path, "-") == 0) return BG_OK;
    if (!*wanted->path)
        return bg_fail(err, BG_ERR_USAGE, "%s needs the name of a file", wanted->option);
    if (strlen(wanted->path) >= sizeof copy)
        return bg_fail(err, BG_ERR_OUTPUT, "%s: the file name is too long", wanted->option);
    bool exists = stat(wanted->path, &info) == 0;
    if (exists && S_ISDIR(info.st_mode))
        return bg_fail(err, BG_ERR_OUTPUT, "%s %s: this is a directory; name a file in it",
                       wanted->option, wanted->path);
    if (exists && !S_ISREG(info.st_mode)) return BG_OK; /* a device or a pipe: writing will tell */
    strcpy(copy, wanted->path);
    if (access(dirname(copy), W_OK) != 0)
        return bg_fail(err, BG_ERR_OUTPUT, "%s %s: its directory cannot be written to: %s",
                       wanted->option, wanted->path, strerror(errno));
    return BG_OK;
}

static bg_status check_reports(const report *reports, size_t n, bg_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (!reports[i].path) continue;
        for (size_t k = 0; k < i; k++)
            if (reports[k].path && strcmp(reports[k].path, reports[i].path) == 0 &&
                strcmp(reports[i].path, "/dev/null") != 0)
                return bg_fail(err, BG_ERR_USAGE, "%s and %s both want to write to %s",
                               reports[k].option, reports[i].option, reports[i].path);
        BG_TRY(check_writable(&reports[i], err));
    }
    return BG_OK;
}

static void complain(const bg_error *error)
{
    fprintf(stderr, "bitgauge: %s\n", error->message);
}

/* Writes every report, also after one of them failed. */
static bg_status write_reports(const bg_results *results, const report *reports, size_t n,
                               bg_error *err)
{
    bool table = true;
    for (size_t i = 0; i < n; i++)
        if (reports[i].path && strcmp(reports[i].path, "-") == 0) table = false;
    bg_status status = BG_OK;
    if (table)
        status =
            bg_results_write(results, BG_REPORT_TABLE, cli_terminal_width(STDOUT_FILENO), "-", err);
    for (size_t i = 0; i < n; i++) {
        bg_error error = {0};
        if (!reports[i].path ||
            bg_results_write(results, reports[i].format, 0, reports[i].path, &error) == BG_OK)
            continue;
        if (status == BG_OK) {
            status = error.status;
            *err = error;
        } else {
            complain(&error);
        }
    }
    return status;
}

static bg_status run_jobs(const bg_job *jobs, size_t n_jobs, bg_results *results, bg_error *err)
{
    cli_progress progress;
    bg_progress callback = cli_progress_begin(&progress);
    bg_status worst = BG_OK;
    for (size_t i = 0; i < n_jobs; i++) {
        bg_error error = {0};
        bg_status status = bg_run_job(&jobs[i], NULL, callback, results, &error);
        cli_progress_end(&progress);
        if (status == BG_OK) continue;
        if (worst != BG_OK) complain(err); /* only the last is left to main */
        worst = status;
        *err = error;
        if (status != BG_ERR_ROW) break;
    }
    return worst;
}

bg_status cli_measure(const cli_settings *settings, const bg_job *jobs, size_t n_jobs,
                      bg_error *err)
{
    const report reports[] = {
        {"--json", BG_REPORT_JSON, settings->json},
        {"--html", BG_REPORT_HTML, settings->html},
        {"--csv", BG_REPORT_CSV, settings->csv},
        {"--md", BG_REPORT_MARKDOWN, settings->markdown},
    };
    BG_TRY(check_reports(reports, CLI_COUNT(reports), err));

    bg_results *results = bg_results_create();
    if (!results) return bg_fail_memory(err, 0, "the results");
    bg_status status = BG_OK;
    if (settings->command_line)
        status = bg_results_set_command(results, settings->command_line, err);
    if (status == BG_OK) {
        cli_catch_signals();
        status = run_jobs(jobs, n_jobs, results, err);
        bg_error error = {0};
        if (bg_results_count(results) > 0 &&
            write_reports(results, reports, CLI_COUNT(reports), &error) != BG_OK) {
            /* An interruption stays one; otherwise a lost report weighs more than a failed row. */
            if (status == BG_OK || status == BG_ERR_ROW) {
                if (status == BG_ERR_ROW) complain(err);
                status = error.status;
                *err = error;
            } else {
                complain(&error);
            }
        }
    }
    bg_results_free(results);
    return status;
}

bg_status cli_print(const char *path, const char *text, size_t size, bg_error *err)
{
    return bg_write_file(path ? path : "-", text, size, err);
}
