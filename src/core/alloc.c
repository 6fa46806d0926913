#include "core/alloc.h"

#include "core/checked.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static atomic_long allocations;
static atomic_long fail_after = -1;

static bool refuse(void)
{
    long n = atomic_fetch_add(&allocations, 1);
    long limit = atomic_load(&fail_after);
    return limit >= 0 && n >= limit;
}

void bg_alloc_fail_after(long n)
{
    atomic_store(&allocations, 0);
    atomic_store(&fail_after, n);
}

long bg_alloc_count(void)
{
    return atomic_load(&allocations);
}

void *bg_alloc(size_t bytes)
{
    return refuse() ? NULL : malloc(bytes ? bytes : 1);
}

void *bg_calloc(size_t count, size_t size)
{
    size_t bytes;
    if (!bg_mul_size(count, size, &bytes) || refuse()) return NULL;
    return calloc(bytes ? bytes : 1, 1);
}

void *bg_alloc_array(size_t count, size_t size)
{
    size_t bytes;
    return bg_mul_size(count, size, &bytes) ? bg_alloc(bytes) : NULL;
}

void *bg_realloc_array(void *p, size_t count, size_t size)
{
    size_t bytes;
    if (!bg_mul_size(count, size, &bytes) || refuse()) return NULL;
    return realloc(p, bytes ? bytes : 1);
}

char *bg_strndup(const char *text, size_t n)
{
    char *copy = n < SIZE_MAX ? bg_alloc(n + 1) : NULL;
    if (!copy) return NULL;
    memcpy(copy, text, n);
    copy[n] = '\0';
    return copy;
}

char *bg_strdup(const char *text)
{
    return bg_strndup(text, strlen(text));
}

void bg_free(void *p)
{
    free(p);
}

/* Blocks of a page or more come from mmap, so that freeing one gives its memory back to the system
 * at once and resident-memory figures say what is held now; smaller ones from the heap. */
enum { MAP_THRESHOLD = 64 * 1024, HUGE_PAGE = 2 * 1024 * 1024 };

void *bg_alloc_aligned(size_t bytes)
{
    if (refuse()) return NULL;
    if (bytes < MAP_THRESHOLD) {
        size_t rounded = (bytes + 63) / 64 * 64;
        void *p = aligned_alloc(64, rounded ? rounded : 64);
        if (p) memset(p, 0, rounded ? rounded : 64);
        return p;
    }
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    if (bytes >= 2 * HUGE_PAGE) madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

void bg_free_aligned(void *p, size_t bytes)
{
    if (!p) return;
    if (bytes < MAP_THRESHOLD)
        free(p);
    else
        munmap(p, bytes);
}
