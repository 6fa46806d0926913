/* Where the embedded models and texts are. In this order: the directory that the environment
 * variable BITGAUGE_DATA names; share/bitgauge beside the program's bin directory, where
 * `cmake --install` puts them; and, for a program that still lies in the directory it was built in,
 * the source tree. */
#include "cli/settings.h"

#include "core/alloc.h"
#include "core/error.h"
#include "core/file.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The directory of the running program, without a trailing slash. */
static bool program_directory(char *buffer, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", buffer, size - 1);
    if (n <= 0 || (size_t)n == size - 1) return false;
    buffer[n] = '\0';
    char *slash = strrchr(buffer, '/');
    if (!slash) return false;
    *slash = '\0';
    return true;
}

static bool lies_in(const char *path, const char *directory)
{
    size_t n = strlen(directory);
    return strncmp(path, directory, n) == 0 && (path[n] == '/' || !path[n]);
}

static bg_status try_root(cli_settings *settings, const char *root, const char *name,
                          const char **path, bg_error *err)
{
    if (settings->n_paths == CLI_COUNT(settings->paths))
        return bg_fail(err, BG_ERR_INTERNAL, "more than %zu embedded files were asked for",
                       CLI_COUNT(settings->paths));
    char *candidate = bg_path_join(root, name);
    if (!candidate) return bg_fail_memory(err, strlen(root) + strlen(name) + 2, "a path");
    if (access(candidate, R_OK) == 0)
        *path = settings->paths[settings->n_paths++] = candidate;
    else
        bg_free(candidate);
    return BG_OK;
}

bg_status cli_find_data(cli_settings *settings, const char *name, const char **path, bg_error *err)
{
    *path = NULL;
    const char *given = getenv("BITGAUGE_DATA");
    if (given && *given) {
        BG_TRY(try_root(settings, given, name, path, err));
        if (*path) return BG_OK;
        return bg_fail(err, BG_ERR_FILE,
                       "%s is not in %s, the directory that BITGAUGE_DATA names; correct the "
                       "variable or unset it",
                       name, given);
    }
    char directory[PATH_MAX];
    if (program_directory(directory, sizeof directory - sizeof "/../share/bitgauge")) {
        bool build_tree = lies_in(directory, BITGAUGE_BUILD_DIRECTORY);
        strcat(directory, "/../share/bitgauge");
        BG_TRY(try_root(settings, directory, name, path, err));
        if (*path) return BG_OK;
        if (build_tree) BG_TRY(try_root(settings, BITGAUGE_SOURCE_DIRECTORY, name, path, err));
        if (*path) return BG_OK;
    }
    return bg_fail(err, BG_ERR_FILE,
                   "the embedded %s was not found beside the program; name a model and its text on "
                   "the command line, or set BITGAUGE_DATA to the directory that holds models/ and "
                   "data/",
                   name);
}
