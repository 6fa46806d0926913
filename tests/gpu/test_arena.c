/* The arena of a GPU's weights, over the host's memory. */
#include "test.h"

#include "backend/cuda/arena.h"
#include "core/alloc.h"

#include <stdint.h>
#include <stdlib.h>

enum { MIB = 1 << 20, MOST = 1000 };

static size_t taken, limit;

static void *take(void *context, size_t bytes)
{
    (void)context;
    CHECK(bytes % CUDA_ARENA_PIECE == 0, "%zu bytes", bytes);
    if (taken + bytes > limit) return NULL;
    size_t *p = aligned_alloc(CUDA_ARENA_ALIGN, bytes + CUDA_ARENA_ALIGN);
    *p = bytes; /* its size, before what is handed out */
    taken += bytes;
    return (char *)p + CUDA_ARENA_ALIGN;
}

static void give(void *context, void *piece)
{
    (void)context;
    size_t *p = (size_t *)(void *)((char *)piece - CUDA_ARENA_ALIGN);
    taken -= *p;
    free(p);
}

static const cuda_arena_source source = {take, give, NULL};

/* The tensors of a model at nf4, in the order of loading: those before the layers, those of each.
 */
typedef struct {
    size_t first[2], layer[16];
    int layers;
} tensors;

static const tensors models[] = {
    {{525336576}, {8192, 2359296, 589824, 589824, 2359296, 8192, 9437184, 9437184, 9437184}, 16},
    {{77194752, 1572864},
     {3072, 3072, 995328, 9216, 331776, 3072, 3072, 3072, 1327104, 12288, 1327104, 3072},
     12},
    {{262144000},
     {10240, 10240, 3686400, 10240, 3686400, 10240, 3686400, 10240, 3686400, 10240, 14745600, 40960,
      14745600, 10240},
     32},
};

/* They take little more than they have, none is written over, and all is given back. */
static void check_model(const tensors *m)
{
    char *at[MOST];
    size_t sizes[MOST], n = 0, sum = 0;
    cuda_arena arena = {0};
    for (int i = 0; i < 2 && m->first[i]; i++) sizes[n++] = m->first[i];
    for (int layer = 0; layer < m->layers; layer++)
        for (int i = 0; i < 16 && m->layer[i]; i++) sizes[n++] = m->layer[i];
    /* Biases and norms are not in what is expected. */
    for (size_t i = 0; i < n; i++)
        if (sizes[i] > 100000) arena.expected += sizes[i];
    for (size_t i = 0; i < n; i++) {
        at[i] = cuda_arena_take(&arena, &source, sizes[i]);
        CHECK(at[i] && (uintptr_t)at[i] % CUDA_ARENA_ALIGN == 0, "tensor %zu", i);
        if (!at[i]) return;
        at[i][0] = at[i][sizes[i] - 1] = (char)i;
        sum += sizes[i];
    }
    CHECK((double)taken < 1.01 * (double)sum, "%zu bytes for %zu", taken, sum);
    for (size_t i = 0; i < n; i++)
        CHECK(at[i][0] == (char)i && at[i][sizes[i] - 1] == (char)i, "tensor %zu was written over",
              i);
    for (size_t i = 0; i < n; i++)
        cuda_arena_give(&arena, &source, at[i * 1009 % n], sizes[i * 1009 % n]);
    CHECK(taken == 0 && arena.n == 0, "%zu bytes left", taken);
    cuda_arena_free(&arena);
}

static void test_models(void)
{
    limit = SIZE_MAX;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) check_model(&models[i]);
}

/* What is taken and given back again and again, as the table of a run is, takes no more. */
static void test_last(void)
{
    cuda_arena arena = {0};
    void *model = cuda_arena_take(&arena, &source, MIB);
    const size_t before = taken;
    for (int i = 0; i < 100; i++) {
        void *run = cuda_arena_take(&arena, &source, MIB / 2);
        CHECK(run && taken == before, "round %d", i);
        cuda_arena_give(&arena, &source, run, MIB / 2);
    }
    void *nothing = cuda_arena_take(&arena, &source, 0);
    CHECK(nothing, "of no bytes");
    cuda_arena_give(&arena, &source, nothing, 0);
    cuda_arena_give(&arena, &source, model, MIB);
    CHECK(taken == 0, "%zu bytes left", taken);
    cuda_arena_free(&arena);
}

static void test_shortage(void)
{
    cuda_arena arena = {.expected = 9 * MIB};
    limit = 8 * MIB;
    void *first = cuda_arena_take(&arena, &source, 5 * MIB / 2);
    CHECK(first && taken == 4 * MIB, "not all, but this one: %zu bytes", taken);
    void *second = cuda_arena_take(&arena, &source, 3 * MIB / 2);
    CHECK(second && taken == 4 * MIB, "what is left of the piece");
    CHECK(!cuda_arena_take(&arena, &source, 5 * MIB), "too large");
    CHECK(!cuda_arena_take(&arena, &source, SIZE_MAX), "far too large");
    cuda_arena_give(&arena, &source, first, 5 * MIB / 2);
    cuda_arena_give(&arena, &source, second, 3 * MIB / 2);
    CHECK(taken == 0, "%zu bytes left", taken);
    cuda_arena_free(&arena);
    bg_alloc_fail_after(0);
    CHECK(!cuda_arena_take(&arena, &source, MIB) && taken == 0, "no memory for the list");
    bg_alloc_fail_after(-1);
}

int main(void)
{
    RUN(test_models);
    RUN(test_last);
    RUN(test_shortage);
    return test_finish();
}
