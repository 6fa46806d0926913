/* The bitgauge program: finds the subcommand, reads its options, runs it, and turns what it came to
 * into one sentence on standard error and an exit code. */
#include "cli/help.h"
#include "cli/progress.h"
#include "cli/settings.h"

#include "core/error.h"
#include "core/text.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

const cli_command *const cli_commands[] = {
    &cli_compare, &cli_perplexity, &cli_classify, &cli_generate, &cli_bench,
    &cli_inspect, &cli_tokenize,   &cli_pull,     &cli_devices,  &cli_help,
    &cli_version, &cli_man,        &cli_worker,   NULL,
};

const cli_command *cli_find_command(const char *name)
{
    for (const cli_command *const *command = cli_commands; *command; command++)
        if (strcmp((*command)->name, name) == 0) return *command;
    return NULL;
}

bg_status cli_unknown_command(const char *name, bg_error *err)
{
    const char *names[CLI_COUNT(cli_commands) + 1] = {NULL};
    size_t n = 0;
    for (const cli_command *const *command = cli_commands; *command; command++)
        if (!(*command)->hidden) names[n++] = (*command)->name;
    const char *close = cli_closest(name, names);
    if (close)
        return bg_fail(err, BG_ERR_USAGE, "there is no command \"%s\"; did you mean \"%s\"?", name,
                       close);
    return bg_fail(err, BG_ERR_USAGE,
                   "there is no command \"%s\"; \"bitgauge help\" lists the commands", name);
}

/* One argument as a shell would need it typed. */
static void append_quoted(bg_text *out, const char *argument)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./,:@%";
    if (*argument && !argument[strspn(argument, plain)]) {
        bg_text_puts(out, argument);
        return;
    }
    bg_text_puts(out, "'");
    for (; *argument; argument++) {
        if (*argument == '\'')
            bg_text_puts(out, "'\\''");
        else
            bg_text_append(out, argument, 1);
    }
    bg_text_puts(out, "'");
}

static bg_status run_command(const cli_command *command, int argc, char **argv, bg_error *err)
{
    bool help;
    cli_settings settings;
    bg_text line = {0};
    bg_status status = cli_settings_init(&settings, command, err);
    if (status == BG_OK)
        status = cli_parse(command, argc, argv, &settings, &settings.arguments, &help, err);
    if (status == BG_OK && help) {
        status = cli_print_help(command, err);
    } else if (status == BG_OK) {
        bg_text_printf(&line, "bitgauge %s", command->name);
        for (int i = 0; i < argc; i++) {
            bg_text_puts(&line, " ");
            append_quoted(&line, argv[i]);
        }
        settings.command_line = line.failed ? NULL : line.data;
        status = cli_settings_finish(&settings, err);
        if (status == BG_OK) status = command->run(&settings, err);
    }
    bg_text_free(&line);
    cli_settings_free(&settings);
    return status;
}

static bg_status dispatch(int argc, char **argv, bg_error *err)
{
    if (argc < 2)
        return bg_fail(err, BG_ERR_USAGE,
                       "which command? \"bitgauge help\" lists them; \"bitgauge compare\" compares "
                       "the embedded models");
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) name = "help";
    if (strcmp(name, "--version") == 0) name = "version";
    const cli_command *command = cli_find_command(name);
    if (!command) return cli_unknown_command(name, err);
    return run_command(command, argc - 2, argv + 2, err);
}

int main(int argc, char **argv)
{
    bg_error err = {0};
    /* A closed pipe or a file-size limit is a write error with a sentence, not a silent end. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    bg_status status = dispatch(argc, argv, &err);
    if (status != BG_OK) fprintf(stderr, "bitgauge: %s\n", err.message);
    return (int)status;
}
