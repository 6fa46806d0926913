/* The GPU's memory, and the CUDA runtime's errors in words. */
#include "backend/cuda/cuda.h"

#include "core/text.h"

/* ---- errors ---------------------------------------------------------------------------------- */

bg_status cuda_check(cudaError_t e, const char *what, bg_error *err)
{
    if (e == cudaSuccess) return BG_OK;
    if (e == cudaErrorMemoryAllocation)
        return bg_fail(err, BG_ERR_MEMORY, "out of memory on the GPU: there is none for %s", what);
    return bg_fail(err, BG_ERR_INTERNAL, "the GPU reports \"%s\" (%s), in %s",
                   cudaGetErrorString(e), cudaGetErrorName(e), what);
}

static bg_status refused(cuda_backend *cuda, size_t bytes, const char *what, bg_error *err)
{
    char wanted[BG_AMOUNT], left[BG_AMOUNT], all[BG_AMOUNT];
    size_t available = 0, total = 0;
    cuda->refused = bytes;
    if (cudaMemGetInfo(&available, &total) != cudaSuccess) {
        cudaGetLastError();
        return cuda_check(cudaErrorMemoryAllocation, what, err);
    }
    return bg_fail(err, BG_ERR_MEMORY,
                   "out of memory on cuda:%d: %s are wanted for %s, and %s of %s are free",
                   cuda->index, bg_amount(wanted, (double)bytes), what,
                   bg_amount(left, (double)available), bg_amount(all, (double)total));
}

/* ---- taking and giving ----------------------------------------------------------------------- */

void *cuda_take(cuda_backend *cuda, bg_use use, size_t bytes, const char *what, bg_error *err)
{
    void *p = NULL;
    cudaError_t e = cudaMalloc(&p, bytes > 0 ? bytes : 1);
    if (e == cudaSuccess) {
        bg_tally_add(&cuda->held, use, bytes);
        return p;
    }
    cudaGetLastError();
    if (e == cudaErrorMemoryAllocation)
        refused(cuda, bytes, what, err);
    else
        cuda_check(e, what, err);
    return NULL;
}

void cuda_give(cuda_backend *cuda, bg_use use, void *p, size_t bytes)
{
    if (!p) return;
    /* Before it falls from a peak that counts, the driver's figure for it is read. */
    const size_t peak = cuda->held.peak;
    if (cuda->held.total == peak && peak > cuda->meter.read_at + cuda->meter.read_at / 64)
        cuda_meter_read(cuda);
    cudaFree(p);
    bg_tally_drop(&cuda->held, use, bytes);
}

void *cuda_alloc(cuda_backend *cuda, size_t bytes, const char *what, bg_error *err)
{
    return cuda_take(cuda, BG_USE_WORKSPACE, bytes, what, err);
}

void cuda_release(cuda_backend *cuda, void *p, size_t bytes)
{
    cuda_give(cuda, BG_USE_WORKSPACE, p, bytes);
}

bg_status cuda_reserve(cuda_backend *cuda, cuda_room *room, size_t bytes, bg_error *err)
{
    if (bytes <= room->bytes) return BG_OK;
    BG_TRY(cuda_flush(cuda, err));
    cuda_release(cuda, room->data, room->bytes);
    *room = (cuda_room){0};
    room->data = cuda_alloc(cuda, bytes, "working memory", err);
    if (!room->data) return BG_ERR_MEMORY;
    room->bytes = bytes;
    return BG_OK;
}

bg_status cuda_reserve_results(cuda_backend *cuda, size_t bytes, bg_error *err)
{
    if (bytes <= cuda->results_bytes) return BG_OK;
    BG_TRY(cuda_flush(cuda, err));
    cudaFreeHost(cuda->results);
    cuda->results = NULL;
    cuda->results_bytes = 0;
    void *p = NULL;
    BG_TRY(cuda_check(cudaHostAlloc(&p, bytes, cudaHostAllocMapped), "room for results", err));
    cuda->results = p;
    cuda->results_bytes = bytes;
    return BG_OK;
}
