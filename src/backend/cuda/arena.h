/* Weights side by side in few large pieces of the device's memory. The driver gives out whole
 * pieces of 2 MiB: a 4-bit model of a hundred matrices, each in memory of its own, would take a
 * tenth more than it has. Who knows what is to come sets `expected`, and the next piece has room
 * for it. */
#ifndef BG_BACKEND_CUDA_ARENA_H
#define BG_BACKEND_CUDA_ARENA_H

#include <stddef.h>

enum { CUDA_ARENA_PIECE = 2 << 20, CUDA_ARENA_ALIGN = 256 };

/* Where pieces come from. */
typedef struct {
    void *(*take)(void *context, size_t bytes); /* NULL: there is none */
    void (*give)(void *context, void *piece);
    void *context;
} cuda_arena_source;

typedef struct {
    char *base;
    size_t size, used; /* bytes; used: up to the end of what lies last */
    size_t live;       /* bytes that were not given back */
} cuda_piece;

typedef struct {
    cuda_piece *pieces;
    size_t n, capacity;
    size_t expected; /* bytes that will be taken soon */
} cuda_arena;

/* Aligned; NULL where the source has nothing, or the host has no memory for the list. */
void *cuda_arena_take(cuda_arena *arena, const cuda_arena_source *source, size_t bytes);
/* Gives back what was taken with so many bytes. A piece goes back to the source when it is empty;
 * within it, only what lies last can be taken anew. */
void cuda_arena_give(cuda_arena *arena, const cuda_arena_source *source, void *p, size_t bytes);
/* Frees the list, which must be empty. */
void cuda_arena_free(cuda_arena *arena);

#endif
