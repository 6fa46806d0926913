/* The one way to heap memory: overflow-checked, counted, and made to fail on demand by tests.
 * Every pointer from here is released with bg_free. Running out of memory is an error like any
 * other: callers report it with bg_fail_memory. */
#ifndef BG_CORE_ALLOC_H
#define BG_CORE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

void *bg_alloc(size_t bytes);                    /* uninitialised; NULL on failure */
void *bg_calloc(size_t count, size_t size);      /* zeroed; NULL on overflow or failure */
void *bg_alloc_array(size_t count, size_t size); /* uninitialised count*size */
void *bg_realloc_array(void *p, size_t count, size_t size); /* p stays valid on failure */
char *bg_strdup(const char *text);
char *bg_strndup(const char *text, size_t n);
void bg_free(void *p);

/* 64-byte aligned and zeroed, for weights and activations; large ones are asked of the kernel with
 * huge pages. Released with bg_free_aligned(p, bytes). */
void *bg_alloc_aligned(size_t bytes);
void bg_free_aligned(void *p, size_t bytes);

/* Makes the (n+1)-th allocation from now, and all after it, fail; a negative n ends that. */
void bg_alloc_fail_after(long n);
/* How many allocations were made since the last bg_alloc_fail_after. */
long bg_alloc_count(void);

#endif
