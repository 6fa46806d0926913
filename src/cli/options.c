#include "cli/options.h"

#include "core/alloc.h"
#include "core/error.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Names longer than this are not compared for suggestions. */
enum { LONGEST_NAME = 40, MOST_OPTIONS = 64 };

/* Edit distance with neighbouring letters swapped counted as one (optimal string alignment). */
static size_t edit_distance(const char *a, const char *b)
{
    size_t rows[3][LONGEST_NAME + 1];
    size_t length_a = strlen(a), length_b = strlen(b);
    if (length_a > LONGEST_NAME || length_b > LONGEST_NAME) return LONGEST_NAME;
    size_t *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= length_b; j++) last[j] = j;
    for (size_t i = 1; i <= length_a; i++) {
        now[0] = i;
        for (size_t j = 1; j <= length_b; j++) {
            size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best) best = last[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
        size_t *oldest = before;
        before = last;
        last = now;
        now = oldest;
    }
    return last[length_b];
}

const char *cli_closest(const char *word, const char *const *words)
{
    const char *best = NULL;
    size_t best_distance = 3; /* two slips of the finger are the most that is taken for one word */
    size_t length = strlen(word);
    for (; *words; words++) {
        size_t distance = edit_distance(word, *words);
        if (length >= 3 && strncmp(word, *words, length) == 0) distance = 1;
        if (distance < best_distance && distance < length) {
            best_distance = distance;
            best = *words;
        }
    }
    return best;
}

bg_status cli_split(char *copy, const char *what, const char **items, size_t max, size_t *n,
                    bg_error *err)
{
    *n = 0;
    for (char *at = copy; at;) {
        char *comma = strchr(at, ',');
        if (comma) *comma++ = '\0';
        if (!*at) return bg_fail(err, BG_ERR_USAGE, "%s has an empty item; write a,b,c", what);
        if (*n == max) return bg_fail(err, BG_ERR_USAGE, "%s has more than %zu items", what, max);
        items[(*n)++] = at;
        at = comma;
    }
    return BG_OK;
}

static const cli_option *find_option(const cli_command *command, const char *name, size_t length)
{
    for (const cli_group *const *group = command->groups; *group; group++)
        for (size_t i = 0; i < (*group)->n; i++) {
            const cli_option *option = &(*group)->options[i];
            if (strlen(option->name) == length && strncmp(option->name, name, length) == 0)
                return option;
        }
    return NULL;
}

static const cli_option *find_letter(const cli_command *command, char letter)
{
    for (const cli_group *const *group = command->groups; *group; group++)
        for (size_t i = 0; i < (*group)->n; i++)
            if ((*group)->options[i].letter == letter) return &(*group)->options[i];
    return NULL;
}

static bg_status unknown_option(const cli_command *command, const char *argument, size_t length,
                                bg_error *err)
{
    const char *names[MOST_OPTIONS + 1] = {NULL};
    size_t n = 0;
    for (const cli_group *const *group = command->groups; *group; group++)
        for (size_t i = 0; i < (*group)->n && n < MOST_OPTIONS; i++)
            names[n++] = (*group)->options[i].name;
    char name[LONGEST_NAME + 1];
    const char *close = NULL;
    if (length > 2 && length - 2 <= LONGEST_NAME) {
        memcpy(name, argument + 2, length - 2);
        name[length - 2] = '\0';
        close = cli_closest(name, names);
    }
    if (close)
        return bg_fail(err, BG_ERR_USAGE, "%s has no option %.*s; did you mean --%s?",
                       command->name, (int)length, argument, close);
    return bg_fail(err, BG_ERR_USAGE,
                   "%s has no option %.*s; \"bitgauge %s --help\" lists its options", command->name,
                   (int)length, argument, command->name);
}

static bg_status parse_integer(const cli_option *option, const char *value, int64_t *out,
                               bg_error *err)
{
    char *end;
    errno = 0;
    long long number = strtoll(value, &end, 10);
    if (end == value || *end || value[0] == ' ')
        return bg_fail(err, BG_ERR_USAGE, "--%s takes a whole number, not \"%s\"", option->name,
                       value);
    if (errno == ERANGE || number < option->min || number > option->max)
        return bg_fail(err, BG_ERR_USAGE, "--%s has to be between %lld and %lld, not %s",
                       option->name, (long long)option->min, (long long)option->max, value);
    *out = number;
    return BG_OK;
}

static bg_status parse_real(const cli_option *option, const char *value, double *out, bg_error *err)
{
    char *end;
    double number = strtod(value, &end);
    if (end == value || *end || value[0] == ' ' || !isfinite(number))
        return bg_fail(err, BG_ERR_USAGE, "--%s takes a number, not \"%s\"", option->name, value);
    if (number < (double)option->min || number > (double)option->max)
        return bg_fail(err, BG_ERR_USAGE, "--%s has to be between %lld and %lld, not %s",
                       option->name, (long long)option->min, (long long)option->max, value);
    *out = number;
    return BG_OK;
}

static bg_status parse_unsigned(const cli_option *option, const char *value, uint64_t *out,
                                bg_error *err)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(value, &end, 10);
    if (end == value || *end || value[0] < '0' || value[0] > '9' || errno == ERANGE)
        return bg_fail(err, BG_ERR_USAGE, "--%s takes a whole number from 0 to 2^64-1, not \"%s\"",
                       option->name, value);
    *out = number;
    return BG_OK;
}

static bg_status append_string(cli_strings *strings, const char *value, bg_error *err)
{
    const char **items =
        bg_realloc_array((void *)strings->items, strings->n + 1, sizeof *strings->items);
    if (!items) return bg_fail_memory(err, (strings->n + 1) * sizeof *items, "the command line");
    items[strings->n++] = value;
    strings->items = items;
    return BG_OK;
}

/* Stores `value` where the option's row says. */
static bg_status store(const cli_option *option, const char *value, void *settings, bg_error *err)
{
    void *target = (char *)settings + option->offset;
    int64_t number;
    switch (option->kind) {
    case CLI_FLAG:
        *(bool *)target = true;
        return BG_OK;
    case CLI_FLAG_OFF:
        *(bool *)target = false;
        return BG_OK;
    case CLI_STRING:
        *(const char **)target = value;
        return BG_OK;
    case CLI_STRINGS:
        return append_string(target, value, err);
    case CLI_OUTPUT:
        ((cli_output *)target)->wanted = true;
        ((cli_output *)target)->path = value;
        return BG_OK;
    case CLI_INT:
        BG_TRY(parse_integer(option, value, &number, err));
        *(int *)target = (int)number;
        return BG_OK;
    case CLI_INT64:
        return parse_integer(option, value, target, err);
    case CLI_UINT64:
        return parse_unsigned(option, value, target, err);
    case CLI_REAL:
        return parse_real(option, value, target, err);
    }
    return bg_fail(err, BG_ERR_INTERNAL, "option --%s has no kind", option->name);
}

/* Whether an argument reads as an option rather than as a value ("-" and "-1" are values). */
static bool is_option(const char *argument)
{
    return argument[0] == '-' && argument[1] && !(argument[1] >= '0' && argument[1] <= '9') &&
           argument[1] != '.';
}

typedef struct {
    const cli_command *command;
    int argc, at; /* argv[at] is the next to be looked at */
    char **argv;
    void *settings;
    cli_arguments *arguments;
} parser;

/* One option; `inlined` is what follows its '=', or NULL. */
static bg_status parse_option(parser *p, const cli_option *option, const char *inlined,
                              bg_error *err)
{
    if (option->kind == CLI_FLAG || option->kind == CLI_FLAG_OFF) {
        if (inlined)
            return bg_fail(err, BG_ERR_USAGE, "--%s takes no value, but was given \"%s\"",
                           option->name, inlined);
        return store(option, NULL, p->settings, err);
    }
    if (inlined) return store(option, inlined, p->settings, err);

    const char *next = p->at < p->argc ? p->argv[p->at] : NULL;
    if (option->kind == CLI_OUTPUT) {
        bool full = p->arguments->n == p->command->max_arguments;
        bool taken = next && (strcmp(next, "-") == 0 || (full && !is_option(next)));
        if (taken) p->at++;
        return store(option, taken ? next : NULL, p->settings, err);
    }
    if (!next || strncmp(next, "--", 2) == 0)
        return bg_fail(err, BG_ERR_USAGE, "--%s needs a value: --%s %s%s", option->name,
                       option->name, option->value,
                       next ? " (one that begins with -- is written after a '=')" : "");
    p->at++;
    BG_TRY(store(option, next, p->settings, err));
    if (option->kind == CLI_STRINGS)
        while (p->at < p->argc && !is_option(p->argv[p->at]))
            BG_TRY(store(option, p->argv[p->at++], p->settings, err));
    return BG_OK;
}

static bg_status add_argument(parser *p, const char *argument, bg_error *err)
{
    if (p->arguments->n == p->command->max_arguments)
        return bg_fail(err, BG_ERR_USAGE,
                       "%s does not know what to do with the argument \"%s\"; usage: bitgauge %s "
                       "%s%s[options]",
                       p->command->name, argument, p->command->name, p->command->arguments,
                       *p->command->arguments ? " " : "");
    p->arguments->items[p->arguments->n++] = argument;
    return BG_OK;
}

bg_status cli_parse(const cli_command *command, int argc, char **argv, void *settings,
                    cli_arguments *arguments, bool *help, bg_error *err)
{
    parser p = {command, argc, 0, argv, settings, arguments};
    bool options_ended = false;
    *help = false;
    arguments->n = 0;
    while (p.at < argc) {
        char *argument = argv[p.at++];
        if (options_ended || !is_option(argument)) {
            BG_TRY(add_argument(&p, argument, err));
        } else if (strcmp(argument, "--") == 0) {
            options_ended = true;
        } else if (strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0) {
            *help = true;
            return BG_OK;
        } else if (argument[1] == '-') {
            size_t length = strcspn(argument, "=");
            const cli_option *option = find_option(command, argument + 2, length - 2);
            if (!option) return unknown_option(command, argument, length, err);
            BG_TRY(parse_option(&p, option, argument[length] ? argument + length + 1 : NULL, err));
        } else {
            const cli_option *option = find_letter(command, argument[1]);
            if (!option) return unknown_option(command, argument, strlen(argument), err);
            BG_TRY(parse_option(&p, option, argument[2] ? argument + 2 : NULL, err));
        }
    }
    if (arguments->n < command->min_arguments)
        return bg_fail(err, BG_ERR_USAGE, "%s needs an argument: bitgauge %s %s [options]",
                       command->name, command->name, command->arguments);
    return BG_OK;
}
