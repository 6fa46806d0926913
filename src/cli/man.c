/* bitgauge man: the manual page bitgauge(1), in the man macros of troff, from the same tables as
 * --help. The build runs it once and installs what it prints. */
#include "cli/help.h"

#include "core/error.h"

#include <ctype.h>
#include <string.h>

/* Text with what troff would take for itself escaped; a line may begin with any character. */
static void append_escaped(bg_text *out, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool starts_line = !out->size || out->data[out->size - 1] == '\n';
        if (starts_line && (text[i] == '.' || text[i] == '\'')) bg_text_puts(out, "\\&");
        if (text[i] == '\\')
            bg_text_puts(out, "\\e");
        else if (text[i] == '-')
            bg_text_puts(out, "\\-");
        else if (text[i] == '\n' && i + 1 < n && text[i + 1] == '\n') {
            bg_text_puts(out, "\n.PP\n");
            i++;
        } else
            bg_text_append(out, text + i, 1);
    }
}

static void append_string(bg_text *out, const char *text)
{
    append_escaped(out, text, strlen(text));
}

static void append_heading(bg_text *out, const char *macro, const char *title)
{
    bg_text_printf(out, ".%s ", macro);
    for (; *title; title++) bg_text_printf(out, "%c", toupper((unsigned char)*title));
    bg_text_puts(out, "\n");
}

static void append_note(bg_text *out, const char *term, const char *meaning)
{
    bg_text_puts(out, ".TP\n.B ");
    append_string(out, term);
    bg_text_puts(out, "\n");
    append_string(out, meaning);
    bg_text_puts(out, "\n");
}

static void append_notes(bg_text *out, const char *heading, const cli_note *notes)
{
    append_heading(out, "SH", heading);
    for (; notes->term; notes++) append_note(out, notes->term, notes->meaning);
}

static void append_option(bg_text *out, const cli_option *option, const cli_settings *settings)
{
    char buffer[64];
    bg_text_puts(out, ".TP\n\\fB");
    if (option->letter) bg_text_printf(out, "\\-%c, ", option->letter);
    append_string(out, "--");
    append_string(out, option->name);
    bg_text_puts(out, "\\fR");
    if (option->value) {
        bg_text_puts(out, option->value[0] == '[' ? "\\fI" : " \\fI");
        append_string(out, option->value);
        bg_text_puts(out, "\\fR");
    }
    bg_text_puts(out, "\n");
    append_string(out, option->help);
    const char *value = cli_default_text(option, settings, buffer, sizeof buffer);
    if (*value) {
        bg_text_puts(out, " (default: ");
        append_string(out, value);
        bg_text_puts(out, ")");
    }
    bg_text_puts(out, ".\n");
}

static void append_examples(bg_text *out, const char *lines)
{
    const char *command, *meaning;
    size_t command_length, meaning_length;
    while (cli_next_example(&lines, &command_length, &command, &meaning_length, &meaning)) {
        bg_text_puts(out, ".PP\n");
        append_escaped(out, meaning, meaning_length);
        bg_text_puts(out, ":\n.PP\n.nf\n.RS\n");
        append_escaped(out, command, command_length);
        bg_text_puts(out, "\n.RE\n.fi\n");
    }
}

static bg_status append_command(bg_text *out, const cli_command *command, bg_error *err)
{
    cli_settings settings;
    bg_status status = cli_settings_init(&settings, command, err);
    if (status == BG_OK) {
        bg_text_printf(out, ".SS \"bitgauge %s%s%s\"\n", command->name,
                       *command->arguments ? " " : "", command->arguments);
        append_string(out, command->description);
        bg_text_puts(out, "\n");
        for (const cli_group *const *group = command->groups; *group; group++)
            for (size_t i = 0; i < (*group)->n; i++)
                append_option(out, &(*group)->options[i], &settings);
        append_examples(out, command->examples);
    }
    cli_settings_free(&settings);
    return status;
}

static bg_status run(cli_settings *settings, bg_error *err)
{
    (void)settings;
    bg_text out = {0};
    bg_status status = BG_OK;
    bg_text_printf(&out, ".TH BITGAUGE 1 \"\" \"bitgauge %s\" \"User Commands\"\n", bg_version());
    bg_text_puts(&out, ".SH NAME\nbitgauge \\- measure what quantizing a language model costs and "
                       "buys\n.SH SYNOPSIS\n.B bitgauge\n.I COMMAND\n[arguments] [options]\n"
                       ".SH DESCRIPTION\n");
    append_string(&out, cli_about);
    bg_text_puts(&out, "\n.SH COMMANDS\n");
    for (const cli_command *const *command = cli_commands; *command && status == BG_OK; command++)
        if (!(*command)->hidden) status = append_command(&out, *command, err);
    append_notes(&out, "exit status", cli_exit_codes);
    append_notes(&out, "environment", cli_environment);
    append_notes(&out, "files", cli_files);
    if (status == BG_OK)
        status = out.failed ? bg_fail_memory(err, out.size, "the manual page")
                            : cli_print(NULL, out.data, out.size, err);
    bg_text_free(&out);
    return status;
}

const cli_command cli_man = {
    .name = "man",
    .summary = "print the manual page",
    .arguments = "",
    .description = "Prints the manual page bitgauge(1) as troff source.",
    .examples = "",
    .groups = (const cli_group *const[]){NULL},
    .run = run,
    .hidden = true,
};
