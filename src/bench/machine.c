#include "bench/machine.h"

#include "backend/cpu/kernels.h"
#include "core/alloc.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/text.h"
#include "quant/format.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* The value of the first line of a file that begins with `key`, behind the separator, without
 * quotes; false where there is none. */
static bool find_line(const char *path, const char *key, const char *separator, char *out,
                      size_t size)
{
    FILE *file = fopen(path, "re");
    char line[512];
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file)) {
        char *value = strstr(line, separator);
        if (strncmp(line, key, strlen(key)) != 0 || !value) continue;
        value += strlen(separator);
        value += strspn(value, " \t\"");
        value[strcspn(value, "\"\n")] = '\0';
        snprintf(out, size, "%s", value);
        found = true;
    }
    if (file) fclose(file);
    return found;
}

int64_t bg_available_memory(void)
{
    char value[64];
    if (!find_line("/proc/meminfo", "MemAvailable", ":", value, sizeof value)) return 0;
    return 1024 * strtoll(value, NULL, 10);
}

json_t *bg_machine_describe(void)
{
    struct utsname uts;
    char cpu[256] = "unknown", os[256] = "unknown";
    const bg_cpu_kernels *kernels;
    if (uname(&uts) != 0) memset(&uts, 0, sizeof uts);
    if (!find_line("/proc/cpuinfo", "model name", ":", cpu, sizeof cpu))
        find_line("/proc/cpuinfo", "CPU implementer", ":", cpu, sizeof cpu);
    if (!find_line("/etc/os-release", "PRETTY_NAME", "=", os, sizeof os))
        snprintf(os, sizeof os, "%s", uts.sysname);
    bool known = bg_cpu_kernels_choose(&kernels, NULL) == BG_OK;
    return json_pack("{s:s, s:s, s:i, s:I, s:s, s:s, s:s}", "cpu", cpu, "architecture", uts.machine,
                     "logical_processors", bg_processor_count(), "memory_bytes",
                     (json_int_t)sysconf(_SC_PHYS_PAGES) * (json_int_t)sysconf(_SC_PAGESIZE), "os",
                     os, "kernel", uts.release, "isa", known ? kernels->isa : "unknown");
}

/* ---- bandwidth ------------------------------------------------------------------------------- */

enum { BUFFER = 512 << 20, PIECE = 1 << 20, PASSES = 40 };

typedef struct {
    const char *buffer;
    volatile uint64_t sink;
} read_loop;

/* Sums the words of its part, so that every byte must come from memory; eight sums, so that the
 * additions do not wait for each other. */
static void read_part(void *context, size_t begin, size_t end, int thread)
{
    (void)thread;
    read_loop *loop = context;
    typedef uint64_t words __attribute__((vector_size(64)));
    words sums[4] = {{0}};
    const words *p = (const words *)(const void *)(loop->buffer + begin * PIECE);
    for (size_t i = 0; i < (end - begin) * PIECE / sizeof(words); i += 4)
        for (size_t k = 0; k < 4; k++) sums[k] += p[i + k];
    sums[0] += sums[1] + sums[2] + sums[3];
    loop->sink = sums[0][0] + sums[0][7];
}

bg_status bg_measure_bandwidth(bg_threads *threads, double *bytes_per_s, bg_error *err)
{
    read_loop loop = {0};
    char *buffer = bg_alloc_aligned(BUFFER);
    if (!buffer) return bg_fail_memory(err, BUFFER, "measuring the memory's bandwidth");
    memset(buffer, 1, BUFFER); /* untouched pages would all be the one page of zeros */
    loop.buffer = buffer;
    double best = 1e30;
    for (int i = 0; i < PASSES; i++) {
        double start = bg_seconds();
        bg_parallel_for(threads, BUFFER / PIECE, 8, read_part, &loop);
        double seconds = bg_seconds() - start;
        if (seconds < best) best = seconds;
    }
    bg_free_aligned(buffer, BUFFER);
    *bytes_per_s = BUFFER / best;
    return BG_OK;
}
