/* bitgauge help, version, and --help. */
#include "cli/help.h"

#include "core/error.h"

#include <stdio.h>
#include <string.h>

enum { PAGE_WIDTH = 80, TERM_WIDTH = 22 };

const char cli_about[] =
    "bitgauge measures what quantizing a language model costs and what it buys on this machine. It "
    "loads a checkpoint, runs the model at each precision, and sets memory, speed and quality side "
    "by side.";

const cli_note cli_exit_codes[] = {
    {"0", "Everything asked for was done."},
    {"1", "A defect in bitgauge."},
    {"2", "An option or argument that makes no sense."},
    {"3", "A file that is not there or cannot be read."},
    {"4", "A file that is damaged, or not what it should be."},
    {"5", "A valid request for something bitgauge cannot do."},
    {"6", "Out of memory."},
    {"7", "A result that could not be written."},
    {"8", "At least one precision failed; its row says why, the others are there."},
    {"130", "Stopped by SIGINT or SIGTERM; what was finished is printed and written."},
    {NULL, NULL},
};

const cli_note cli_environment[] = {
    {"BITGAUGE_DATA", "The directory that holds models/ and data/ with the embedded models and "
                      "texts, in place of the installed one."},
    {"BITGAUGE_ISA",
     "The kernels to use in place of the best that the processor has: scalar, avx2, "
     "avx512, avx512-vnni or neon (see devices)."},
    {"BITGAUGE_CUDA_LIBRARY",
     "The CUDA backend's library (libbitgauge_cuda.so), in place of the one "
     "beside the program or in its installation."},
    {"BITGAUGE_CUDA_CHECK", "If set, and not 0, every kernel is waited for, so that an error names "
                            "the one that failed; figures are too slow then."},
    {"HF_HOME, HF_HUB_CACHE", "Where models from the Hub are kept (default: "
                              "~/.cache/huggingface, and hub in it)."},
    {"HF_TOKEN", "The token for gated and private models; else the file token in HF_HOME."},
    {"HF_ENDPOINT", "The Hub to ask, in place of https://huggingface.co."},
    {"HF_HUB_OFFLINE", "If 1, nothing is downloaded: models come from the cache."},
    {"NO_COLOR", "If set and not empty, the progress bar is drawn without colour."},
    {"TERM", "If unset or \"dumb\", no progress bar is drawn."},
    {"COLUMNS", "Width of the terminal, where the terminal itself does not tell."},
    {NULL, NULL},
};

const cli_note cli_files[] = {
    {"share/bitgauge/models", "The embedded models: demo-decoder, demo-classifier."},
    {"share/bitgauge/data", "The embedded text and labelled sentences."},
    {NULL, NULL},
};

/* Appends words with line breaks at PAGE_WIDTH; continuation lines begin at column `indent`.
 * `column` is where the first word goes. */
static void append_wrapped(bg_text *out, const char *words, size_t indent, size_t column)
{
    bool first = true;
    while (*words) {
        size_t n = strcspn(words, " \n");
        if (!first && column + 1 + n > PAGE_WIDTH) {
            bg_text_printf(out, "\n%*s", (int)indent, "");
            column = indent;
            first = true;
        }
        if (!first) {
            bg_text_puts(out, " ");
            column++;
        }
        bg_text_append(out, words, n);
        column += n;
        first = false;
        words += n;
        if (words[0] == '\n' && words[1] == '\n') {
            bg_text_printf(out, "\n\n%*s", (int)indent, "");
            column = indent;
            first = true;
        }
        words += strspn(words, " \n");
    }
    bg_text_puts(out, "\n");
}

/* "  term                meaning", the meaning on a line of its own below a long term. */
static void append_term(bg_text *out, const char *term, const char *meaning)
{
    size_t n = strlen(term);
    bg_text_printf(out, "  %s", term);
    if (n + 4 > TERM_WIDTH)
        bg_text_printf(out, "\n%*s", TERM_WIDTH, "");
    else
        bg_text_printf(out, "%*s", (int)(TERM_WIDTH - 2 - n), "");
    append_wrapped(out, meaning, TERM_WIDTH, TERM_WIDTH);
}

const char *cli_default_text(const cli_option *option, const cli_settings *settings, char *buffer,
                             size_t size)
{
    const void *value = (const char *)settings + option->offset;
    int64_t number = 0;
    *buffer = '\0';
    switch (option->kind) {
    case CLI_STRING:
        if (*(const char *const *)value) return *(const char *const *)value;
        break;
    case CLI_INT:
        number = *(const int *)value;
        break;
    case CLI_INT64:
        number = *(const int64_t *)value;
        break;
    case CLI_UINT64:
        snprintf(buffer, size, "%llu", (unsigned long long)*(const uint64_t *)value);
        break;
    case CLI_REAL:
        snprintf(buffer, size, "%g", *(const double *)value);
        break;
    case CLI_FLAG:
    case CLI_FLAG_OFF:
    case CLI_STRINGS:
    case CLI_OUTPUT:
        break;
    }
    if (number && number >= option->min) snprintf(buffer, size, "%lld", (long long)number);
    return !*buffer && option->shown ? option->shown : buffer;
}

static void append_option(bg_text *out, const cli_option *option, const cli_settings *settings)
{
    char term[64], letter[8] = "", buffer[64];
    if (option->letter) snprintf(letter, sizeof letter, "-%c, ", option->letter);
    snprintf(term, sizeof term, "%s--%s%s%s", letter, option->name,
             option->value && option->value[0] != '[' ? " " : "",
             option->value ? option->value : "");
    const char *value = cli_default_text(option, settings, buffer, sizeof buffer);
    bg_text meaning = {0};
    bg_text_puts(&meaning, option->help);
    if (*value) bg_text_printf(&meaning, " (default: %s)", value);
    if (meaning.failed) out->failed = true;
    append_term(out, term, meaning.data ? meaning.data : "");
    bg_text_free(&meaning);
}

bool cli_next_example(const char **lines, size_t *command_length, const char **command,
                      size_t *meaning_length, const char **meaning)
{
    if (!**lines) return false;
    size_t length = strcspn(*lines, "\n");
    const char *mark = memmem(*lines, length, " # ", 3);
    *command = *lines;
    *command_length = mark ? (size_t)(mark - *lines) : length;
    *meaning = mark ? mark + 3 : *lines + length;
    *meaning_length = length - (size_t)(*meaning - *lines);
    *lines += length + ((*lines)[length] == '\n');
    return true;
}

static void append_examples(bg_text *out, const char *lines)
{
    const char *command, *meaning;
    size_t command_length, meaning_length;
    if (!*lines) return;
    bg_text_puts(out, "\nExamples:\n");
    while (cli_next_example(&lines, &command_length, &command, &meaning_length, &meaning))
        bg_text_printf(out, "  # %.*s\n  %.*s\n", (int)meaning_length, meaning, (int)command_length,
                       command);
}

static void append_command_help(bg_text *out, const cli_command *command,
                                const cli_settings *settings)
{
    bg_text_printf(out, "usage: bitgauge %s%s%s%s\n\n", command->name,
                   *command->arguments ? " " : "", command->arguments,
                   *command->groups ? " [options]" : "");
    append_wrapped(out, command->description, 0, 0);
    for (const cli_group *const *group = command->groups; *group; group++) {
        bg_text_printf(out, "\n%s:\n", (*group)->title);
        for (size_t i = 0; i < (*group)->n; i++)
            append_option(out, &(*group)->options[i], settings);
    }
    append_examples(out, command->examples);
}

static void append_program_help(bg_text *out)
{
    bg_text_puts(out, "usage: bitgauge COMMAND [arguments] [options]\n\n");
    append_wrapped(out, cli_about, 0, 0);
    bg_text_puts(out, "\nCommands:\n");
    for (const cli_command *const *command = cli_commands; *command; command++)
        if (!(*command)->hidden) append_term(out, (*command)->name, (*command)->summary);
    bg_text_puts(out, "\n\"bitgauge COMMAND --help\" says more about each.\n\nExit codes:\n");
    for (const cli_note *note = cli_exit_codes; note->term; note++)
        append_term(out, note->term, note->meaning);
    bg_text_puts(out, "\nEnvironment:\n");
    for (const cli_note *note = cli_environment; note->term; note++)
        append_term(out, note->term, note->meaning);
    append_examples(out, cli_compare.examples);
}

bg_status cli_print_help(const cli_command *command, bg_error *err)
{
    bg_text out = {0};
    cli_settings settings;
    bg_status status = cli_settings_init(&settings, command, err);
    if (status == BG_OK) {
        if (command)
            append_command_help(&out, command, &settings);
        else
            append_program_help(&out);
        status = out.failed ? bg_fail_memory(err, out.size, "the help text")
                            : cli_print(NULL, out.data, out.size, err);
    }
    bg_text_free(&out);
    cli_settings_free(&settings);
    return status;
}

static bg_status run_help(cli_settings *settings, bg_error *err)
{
    if (!settings->arguments.n) return cli_print_help(NULL, err);
    const cli_command *command = cli_find_command(settings->arguments.items[0]);
    if (!command) return cli_unknown_command(settings->arguments.items[0], err);
    return cli_print_help(command, err);
}

const cli_command cli_help = {
    .name = "help",
    .summary = "show this help, or that of a command",
    .arguments = "[COMMAND]",
    .max_arguments = 1,
    .description = "Shows what the program or one of its commands does.",
    .examples = "bitgauge help compare # the options of compare\n",
    .groups = (const cli_group *const[]){NULL},
    .run = run_help,
};

static bg_status run_version(cli_settings *settings, bg_error *err)
{
    (void)settings;
    char line[64];
    int n = snprintf(line, sizeof line, "bitgauge %s\n", bg_version());
    return cli_print(NULL, line, (size_t)n, err);
}

const cli_command cli_version = {
    .name = "version",
    .summary = "show the version",
    .arguments = "",
    .description = "Shows the version of the program.",
    .examples = "",
    .groups = (const cli_group *const[]){NULL},
    .run = run_version,
};
