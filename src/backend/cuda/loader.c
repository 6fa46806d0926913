/* Finds the CUDA backend's library, and says in one sentence why it cannot be used. */
#include "backend/cuda/library.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME "libbitgauge_cuda.so"

static const bg_cuda_library *library;
static char problem[PATH_MAX + 512];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Whether there is something, which is the library or the problem; `remedy` is for that. */
static bool try_path(const char *path, const char *remedy)
{
    if (access(path, F_OK) != 0) return false;
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const bg_cuda_library *table = handle ? dlsym(handle, BG_CUDA_SYMBOL) : NULL;
    if (!table) {
        const char *reason = handle ? NULL : dlerror();
        snprintf(problem, sizeof problem, "%s cannot be loaded (%.400s); %s", path,
                 reason ? reason : "it is no backend of bitgauge", remedy);
        return true;
    }
    if (table->abi != BG_CUDA_ABI)
        snprintf(problem, sizeof problem,
                 "%s belongs to another version of bitgauge; install the two together", path);
    else
        library = table;
    return true;
}

/* Beside the program, where a build leaves it; where an installation has it; in the build's folder,
 * for programs that lie elsewhere in it. BITGAUGE_CUDA_LIBRARY in the environment names another. */
static void load(void)
{
    char path[PATH_MAX], directory[PATH_MAX - 64];
    const char *wanted = getenv("BITGAUGE_CUDA_LIBRARY");
    if (wanted && !*wanted) wanted = NULL;
    if (wanted && try_path(wanted, "correct or unset BITGAUGE_CUDA_LIBRARY")) return;
    ssize_t n = wanted ? -1 : readlink("/proc/self/exe", directory, sizeof directory - 1);
    if (n > 0) {
        directory[n] = '\0';
        char *end = strrchr(directory, '/');
        if (end) *end = '\0';
        static const char *const places[] = {"%s/" NAME, "%s/../" BITGAUGE_LIBDIR "/bitgauge/" NAME,
                                             BITGAUGE_BUILD_DIRECTORY "/bin/" NAME};
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(path, sizeof path, places[i], directory);
#pragma GCC diagnostic pop
            if (try_path(path, "build or install bitgauge again")) return;
        }
    }
    if (wanted)
        snprintf(problem, sizeof problem,
                 "BITGAUGE_CUDA_LIBRARY names %s, which is not there; correct or unset it", wanted);
    else
        snprintf(problem, sizeof problem,
                 "this installation has no CUDA backend (" NAME " is missing); build bitgauge "
                 "where nvcc is");
}

static bg_status get_library(bg_error *err)
{
    pthread_once(&once, load);
    if (library) return BG_OK;
    return bg_fail(err, BG_ERR_UNSUPPORTED, "no GPU can be used: %s", problem);
}

int bg_cuda_count(bg_error *err)
{
    return get_library(err) == BG_OK ? library->count(err) : 0;
}

bg_status bg_cuda_describe(int index, bg_cuda_device *out, bg_error *err)
{
    BG_TRY(get_library(err));
    return library->describe(index, out, err);
}

bg_status bg_cuda_find(const char *device, int *out, bg_error *err)
{
    long index = 0;
    const char *number = strchr(device, ':');
    if (number) {
        char *end;
        index = strtol(number + 1, &end, 10);
        if (number[1] < '0' || number[1] > '9' || *end || index < 0 || index > 1023)
            return bg_fail(err, BG_ERR_USAGE,
                           "device \"%.64s\": behind the colon stands no number of a GPU; "
                           "`bitgauge devices` lists them",
                           device);
    }
    BG_TRY(get_library(err));
    const int count = library->count(err);
    if (count == 0) return BG_ERR_UNSUPPORTED;
    if (index >= count)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "device \"%.64s\" is not there: this machine has %d GPU%s, counted from 0",
                       device, count, count == 1 ? "" : "s");
    *out = (int)index;
    return BG_OK;
}

bg_status bg_cuda_open(const char *device, int threads, bg_backend **out, bg_error *err)
{
    (void)threads;
    int index = 0;
    BG_TRY(bg_cuda_find(device, &index, err));
    return library->open(index, out, err);
}
