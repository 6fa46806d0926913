/* The option parser: values of every kind, where they may stand, and what it says otherwise. */
#include "cli/options.h"
#include "core/alloc.h"
#include "test.h"

struct cli_settings {
    bool flag, off;
    const char *string;
    cli_strings strings;
    cli_output output;
    int number;
    int64_t wide;
    uint64_t huge;
    double real;
};

static const cli_option rows[] = {
    {"flag", 'f', CLI_FLAG, NULL, offsetof(cli_settings, flag), "", NULL, 0, 0},
    {"no-off", 0, CLI_FLAG_OFF, NULL, offsetof(cli_settings, off), "", NULL, 0, 0},
    {"string", 's', CLI_STRING, "S", offsetof(cli_settings, string), "", NULL, 0, 0},
    {"strings", 0, CLI_STRINGS, "S...", offsetof(cli_settings, strings), "", NULL, 0, 0},
    {"output", 0, CLI_OUTPUT, "[=F]", offsetof(cli_settings, output), "", NULL, 0, 0},
    {"number", 'n', CLI_INT, "N", offsetof(cli_settings, number), "", NULL, -5, 100},
    {"wide", 0, CLI_INT64, "N", offsetof(cli_settings, wide), "", NULL, 0, INT64_MAX},
    {"huge", 0, CLI_UINT64, "N", offsetof(cli_settings, huge), "", NULL, 0, 0},
    {"real", 0, CLI_REAL, "X", offsetof(cli_settings, real), "", NULL, 0, 2},
};
static const cli_group group = {"Options", rows, sizeof rows / sizeof *rows};
static const cli_command command = {
    .name = "try",
    .arguments = "A [B]",
    .min_arguments = 1,
    .max_arguments = 2,
    .groups = (const cli_group *const[]){&group, NULL},
};

static cli_settings settings;
static cli_arguments arguments;
static bool help;
static bg_error error;

/* Parses the words up to NULL into fresh settings. */
static bg_status parse(char **words)
{
    int n = 0;
    while (words[n]) n++;
    bg_free((void *)settings.strings.items);
    memset(&settings, 0, sizeof settings);
    memset(&error, 0, sizeof error);
    settings.off = true;
    return cli_parse(&command, n, words, &settings, &arguments, &help, &error);
}

#define PARSE(...) parse((char *[]){__VA_ARGS__, NULL})

static void test_every_kind(void)
{
    bg_status status =
        PARSE("a", "--flag", "--no-off", "--string", "x y", "--number=-3", "--wide",
              "9223372036854775807", "--huge", "18446744073709551615", "--real", "0.25", "b");
    CHECK(status == BG_OK, "%s", error.message);
    CHECK(settings.flag && !settings.off);
    CHECK_STRING(settings.string, "x y");
    CHECK(settings.number == -3 && settings.wide == INT64_MAX && settings.huge == UINT64_MAX);
    CHECK(settings.real == 0.25);
    CHECK(arguments.n == 2);
    CHECK_STRING(arguments.items[1], "b");
}

static void test_letters(void)
{
    CHECK(PARSE("-f", "a", "-n", "7", "-sword") == BG_OK, "%s", error.message);
    CHECK(settings.flag && settings.number == 7);
    CHECK_STRING(settings.string, "word");
    CHECK(PARSE("a", "-x") == BG_ERR_USAGE);
}

static void test_several_strings(void)
{
    CHECK(PARSE("a", "--strings", "one", "two", "-1", "--flag", "b", "--strings=--three") == BG_OK,
          "%s", error.message);
    CHECK(settings.strings.n == 4, "%zu", settings.strings.n);
    CHECK_STRING(settings.strings.items[2], "-1");
    CHECK_STRING(settings.strings.items[3], "--three");
    CHECK(arguments.n == 2);
    CHECK(PARSE("a", "--strings", "--flag") == BG_ERR_USAGE);
}

static void test_output_with_and_without_a_file(void)
{
    CHECK(PARSE("a", "--output") == BG_OK && settings.output.wanted && !settings.output.path);
    CHECK(PARSE("a", "--output", "b") == BG_OK && !settings.output.path && arguments.n == 2);
    CHECK(PARSE("a", "b", "--output", "file") == BG_OK && settings.output.path);
    CHECK_STRING(settings.output.path, "file");
    CHECK(PARSE("--output", "-", "a") == BG_OK && settings.output.path);
    CHECK(PARSE("a", "b", "--output", "--flag") == BG_OK && !settings.output.path && settings.flag);
}

static void test_end_of_options(void)
{
    CHECK(PARSE("--", "--flag", "-") == BG_OK && arguments.n == 2 && !settings.flag);
    CHECK_STRING(arguments.items[0], "--flag");
    CHECK_STRING(arguments.items[1], "-");
    CHECK(PARSE("-h") == BG_OK && help);
    CHECK(PARSE("--", "--help") == BG_OK && !help);
}

static void test_refusals(void)
{
    char *const bad[][3] = {
        {"--number", "101", "between -5 and 100"},
        {"--number", "-6", "between -5 and 100"},
        {"--number", "7k", "whole number"},
        {"--number", "", "whole number"},
        {"--wide", "9223372036854775808", "betwe"},
        {"--huge", "-1", "whole number"},
        {"--huge", "18446744073709551616", "whole"},
        {"--real", "inf", "number"},
        {"--real", "2.5", "between 0 and 2"},
        {"--flag=1", "", "takes no value"},
        {"--numbr", "1", "did you mean --number?"},
        {"--num", "1", "did you mean --number?"},
        {"--qqqq", "1", "try --help"},
        {"--string", NULL, "needs a value"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bg_status status = PARSE("a", bad[i][0], bad[i][1]);
        CHECK(status == BG_ERR_USAGE, "%s", bad[i][0]);
        CHECK(strstr(error.message, bad[i][2]), "%s: %s", bad[i][0], error.message);
    }
    CHECK(PARSE("--flag") == BG_ERR_USAGE && strstr(error.message, "A [B]"), "%s", error.message);
    CHECK(PARSE("a", "b", "c") == BG_ERR_USAGE && strstr(error.message, "\"c\""));
}

static void test_split(void)
{
    const char *items[3];
    size_t n;
    char list[] = "a,bb,c", empty[] = "a,", nothing[] = "", many[] = "a,b,c,d";
    CHECK(cli_split(list, "list", items, 3, &n, &error) == BG_OK && n == 3);
    CHECK_STRING(items[1], "bb");
    CHECK(cli_split(empty, "list", items, 3, &n, &error) == BG_ERR_USAGE);
    CHECK(cli_split(nothing, "list", items, 3, &n, &error) == BG_ERR_USAGE);
    CHECK(cli_split(many, "list", items, 3, &n, &error) == BG_ERR_USAGE);
}

static void test_suggestions(void)
{
    static const char *const words[] = {"lines", "sliding", "chunks", "nf4", NULL};
    CHECK_STRING(cli_closest("line", words), "lines");
    CHECK_STRING(cli_closest("sldiing", words), "sliding");
    CHECK_STRING(cli_closest("chu", words), "chunks");
    CHECK_STRING(cli_closest("nf5", words), "nf4");
    CHECK(!cli_closest("words", words));
    CHECK(!cli_closest("a", words));
    CHECK(!cli_closest("", words));
}

static void test_memory_runs_out(void)
{
    bg_alloc_fail_after(0);
    bg_status status = PARSE("a", "--strings", "one");
    bg_alloc_fail_after(-1);
    CHECK(status == BG_ERR_MEMORY, "%d", (int)status);
}

int main(void)
{
    RUN(test_every_kind);
    RUN(test_letters);
    RUN(test_several_strings);
    RUN(test_output_with_and_without_a_file);
    RUN(test_end_of_options);
    RUN(test_refusals);
    RUN(test_split);
    RUN(test_suggestions);
    RUN(test_memory_runs_out);
    bg_free((void *)settings.strings.items);
    return test_finish();
}
