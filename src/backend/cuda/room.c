/* Rooms that operations share. One grows when nothing is queued that uses it. */
#include "backend/cuda/cuda.h"

bg_status cuda_reserve(cuda_backend *cuda, cuda_room *room, size_t bytes, bg_error *err)
{
    if (bytes <= room->bytes) return BG_OK;
    if (room->data) BG_TRY(cuda_flush(cuda, err)); /* what is queued may use it */
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
