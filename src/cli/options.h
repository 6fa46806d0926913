/* The command line as data: an option is a row of a table that says its name, its kind, what it is
 * for and where its value goes. The parser, --help and the manual page read the same rows, and the
 * default that they show is the value found in a freshly prepared settings object, so that no
 * default is written down twice.
 *
 * Syntax: --name value, --name=value, -x value; "--" ends the options. A value that begins with
 * "--" has to be written --name=value. Options and arguments may be mixed. */
#ifndef BG_CLI_OPTIONS_H
#define BG_CLI_OPTIONS_H

#include "bitgauge/bitgauge.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What an option's value is, and the type that its offset points at. */
typedef enum {
    CLI_FLAG,     /* bool, set to true */
    CLI_FLAG_OFF, /* bool, set to false */
    CLI_STRING,   /* const char *, borrowed from argv */
    CLI_STRINGS,  /* cli_strings: every argument up to the next option, and may be repeated */
    CLI_OUTPUT,   /* cli_output: a flag that may name a file */
    CLI_INT,      /* int in [min, max] */
    CLI_INT64,    /* int64_t in [min, max] */
    CLI_UINT64,   /* uint64_t */
    CLI_REAL,     /* double in [min, max] */
} cli_kind;

typedef struct {
    const char **items; /* the array is owned, the strings are borrowed from argv */
    size_t n;
} cli_strings;

/* --json, --json=FILE. The next argument is taken as FILE if it is "-" or if the command already
 * has all the arguments it can take. */
typedef struct {
    bool wanted;
    const char *path; /* NULL: standard output */
} cli_output;

typedef struct {
    const char *name; /* without the dashes */
    char letter;      /* 0: none */
    cli_kind kind;
    const char *value; /* what the value is called in --help; NULL for flags */
    size_t offset;     /* of the value in cli_settings */
    const char *help;  /* one sentence without its full stop */
    const char *shown; /* the default in words, where the value itself is 0, NULL or below min */
    int64_t min, max;
} cli_option;

typedef struct {
    const char *title;
    const cli_option *options;
    size_t n;
} cli_group;

enum { CLI_MAX_ARGUMENTS = 4 };

typedef struct {
    const char *items[CLI_MAX_ARGUMENTS];
    size_t n;
} cli_arguments;

typedef struct cli_settings cli_settings;

/* A subcommand. */
typedef struct {
    const char *name;
    const char *summary;   /* one line for the list of commands */
    const char *arguments; /* "MODEL", "[MODEL]", "" */
    size_t min_arguments, max_arguments;
    const char *description;                 /* paragraphs, separated by empty lines */
    const char *examples;                    /* lines of "command # what it does" */
    const cli_group *const *groups;          /* ends with NULL */
    void (*prepare)(cli_settings *settings); /* the command's own defaults; may be NULL */
    bg_status (*run)(cli_settings *settings, bg_error *err);
    bool hidden;
} cli_command;

/* Reads argv[0..argc) (without the program's and the command's name) into `settings` and
 * `arguments`. *help is set, and the rest not looked at, when -h or --help comes by. */
bg_status cli_parse(const cli_command *command, int argc, char **argv, void *settings,
                    cli_arguments *arguments, bool *help, bg_error *err);

/* Splits "a,b,c" in place of `copy` (owned by the caller, written to) into items[0..*n); more than
 * `max` items or an empty one is an error that names `what`. */
bg_status cli_split(char *copy, const char *what, const char **items, size_t max, size_t *n,
                    bg_error *err);

/* The word of `words` (ends with NULL) closest to `word`, or NULL if none is close. */
const char *cli_closest(const char *word, const char *const *words);

#endif
