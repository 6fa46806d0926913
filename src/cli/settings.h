/* Everything that the options of all subcommands can set, the option groups that several of them
 * share, and the list of subcommands. */
#ifndef BG_CLI_SETTINGS_H
#define BG_CLI_SETTINGS_H

#include "cli/options.h"

struct cli_settings {
    bg_job job; /* what bg_job_defaults and the command's prepare() say, then the options */
    cli_arguments arguments;
    const char *command_line; /* as the user would type it again; owned by main */

    /* lists, still as text */
    const char *precisions, *protocols, *skip, *tasks;
    cli_strings prompts;
    const char *random_weights; /* bench: the directory */
    int64_t limit;              /* compare: lines and sentences alike; -1: not given */
    int max_length;             /* compare: lines and sentences alike; 0: not given */

    /* where reports of a measuring command go; NULL: not wanted */
    const char *json, *html, *csv, *markdown;

    /* inspect, devices, tokenize */
    cli_output json_output;
    const char *text, *text_file, *pair, *decode;
    bool ids_only, special, truncate, pad;

    /* owned by the settings: what the fields above and the job point into */
    char *lists[4];
    char *paths[4];
    size_t n_paths;
    const char **precision_items;
    bg_named_task *task_items;
};

/* The defaults of `command`. Released with cli_settings_free even when this fails. */
bg_status cli_settings_init(cli_settings *settings, const cli_command *command, bg_error *err);
void cli_settings_free(cli_settings *settings);

/* Takes the lists (--precision, --protocol, --skip, --task, --prompt) apart into the job, and
 * checks the words in them. */
bg_status cli_settings_finish(cli_settings *settings, bg_error *err);

/* Finds a file that comes with the program, such as "models/demo-decoder"; see data.c for where.
 * *path is owned by the settings. */
bg_status cli_find_data(cli_settings *settings, const char *name, const char **path, bg_error *err);

/* Runs the jobs one after another and writes the table and the reports that were asked for. */
bg_status cli_measure(const cli_settings *settings, const bg_job *jobs, size_t n_jobs,
                      bg_error *err);

/* Writes a text for the user to standard output or, where --json names one, to a file. */
bg_status cli_print(const char *path, const char *text, size_t size, bg_error *err);

extern const cli_group cli_precision_options; /* --precision --device --threads */
extern const cli_group cli_report_options;    /* --json --html --csv --md */

#define CLI_COUNT(table) (sizeof(table) / sizeof *(table))

extern const cli_command cli_compare, cli_perplexity, cli_classify, cli_generate, cli_bench,
    cli_inspect, cli_tokenize, cli_pull, cli_devices, cli_help, cli_version, cli_man, cli_worker;

/* All subcommands in the order of --help; ends with NULL. */
extern const cli_command *const cli_commands[];
const cli_command *cli_find_command(const char *name);
/* The error for a name that no command has. */
bg_status cli_unknown_command(const char *name, bg_error *err);

#endif
