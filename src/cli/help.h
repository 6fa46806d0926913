/* The words about the program that --help and the manual page share, and the page layout. */
#ifndef BG_CLI_HELP_H
#define BG_CLI_HELP_H

#include "cli/settings.h"
#include "core/text.h"

/* A term and what it means: an exit code, an environment variable, a file. */
typedef struct {
    const char *term, *meaning;
} cli_note;

extern const char cli_about[];
extern const cli_note cli_exit_codes[], cli_environment[], cli_files[]; /* end with {NULL, NULL} */

/* --help of a command, or of the program if `command` is NULL. */
bg_status cli_print_help(const cli_command *command, bg_error *err);

/* The default that --help shows for an option, as text in `buffer`, or "" if there is none to show.
 * `settings` are freshly initialised for the command. */
const char *cli_default_text(const cli_option *option, const cli_settings *settings, char *buffer,
                             size_t size);

/* Takes the next line of "command # meaning" off *lines; returns false at the end. */
bool cli_next_example(const char **lines, size_t *command_length, const char **command,
                      size_t *meaning_length, const char **meaning);

#endif
