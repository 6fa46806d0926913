#include "bench/memory.h"

#include <fcntl.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A line of /proc/self/status, "VmRSS:     1234 kB". */
static int64_t status_bytes(const char *key)
{
    FILE *file = fopen("/proc/self/status", "re");
    if (!file) return 0;
    char line[256];
    int64_t bytes = 0;
    size_t n = strlen(key);
    while (fgets(line, sizeof line, file))
        if (strncmp(line, key, n) == 0) bytes = 1024 * strtoll(line + n, NULL, 10);
    fclose(file);
    return bytes;
}

int64_t bg_resident_bytes(void)
{
    return status_bytes("VmRSS:");
}

/* The kernel adds to VmRSS in batches of pages for each thread, so the mark can lag behind it. */
int64_t bg_peak_resident_bytes(void)
{
    int64_t peak = status_bytes("VmHWM:"), now = bg_resident_bytes();
    return peak > now ? peak : now;
}

/* "5" resets VmHWM: proc(5), /proc/pid/clear_refs. */
bool bg_reset_peak(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = write(fd, "5", 1) == 1;
    close(fd);
    return ok;
}

void bg_return_memory(void)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}
