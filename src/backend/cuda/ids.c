/* Token ids that stay on the device. The kernel that chooses them also writes them to page-locked
 * memory; the host looks there until they have come, and so needs not wait for the end of the
 * launch, nor for what was queued behind it. */
#include "backend/cuda/cuda.h"

#include "core/alloc.h"

/* No id, and not -1 either. */
enum { UNWRITTEN = -2 };

void cuda_ids_free(bg_backend *backend, bg_ids *base)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    cuda_ids *ids = (cuda_ids *)base;
    if (!ids) return;
    cuda_run_first(cuda);
    cuda_give(cuda, BG_USE_ACTIVATIONS, ids->values, base->rows * sizeof *ids->values);
    cudaFreeHost(ids->seen);
    bg_free(ids);
}

bg_status cuda_ids_create(bg_backend *backend, size_t rows, bg_ids **out, bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    const size_t bytes = rows * sizeof(int32_t);
    *out = NULL;
    cuda_ids *ids = bg_calloc(1, sizeof *ids);
    if (!ids) return bg_fail_memory(err, sizeof *ids, "token ids");
    ids->base.rows = rows;
    ids->values = cuda_take(cuda, BG_USE_ACTIVATIONS, bytes, "token ids", err);
    void *seen = NULL;
    bg_status status = ids->values ? BG_OK : BG_ERR_MEMORY;
    if (status == BG_OK)
        status = cuda_check(cudaHostAlloc(&seen, bytes > 0 ? bytes : 1, cudaHostAllocMapped),
                            "token ids", err);
    ids->seen = seen;
    if (status == BG_OK)
        status = cuda_check(cudaMemsetAsync(ids->values, 0, bytes, cuda->launch.stream),
                            "clearing token ids", err);
    if (status != BG_OK) {
        cuda_ids_free(backend, &ids->base);
        return status;
    }
    *out = &ids->base;
    return BG_OK;
}

static bool has_come(const cuda_ids *ids, size_t i)
{
    return __atomic_load_n(&ids->seen[i], __ATOMIC_ACQUIRE) != UNWRITTEN;
}

/* Until the i-th has come, or nothing runs any more. */
static bg_status wait_for(cuda_backend *cuda, const cuda_ids *ids, size_t i, bg_error *err)
{
    BG_TRY(cuda_look_for(cuda, &ids->seen[i], UNWRITTEN, err));
    if (!has_come(ids, i))
        return bg_fail(err, BG_ERR_INTERNAL, "the GPU did not choose token %zu of %zu", i,
                       ids->base.rows);
    return BG_OK;
}

bg_status cuda_ids_read(bg_backend *backend, bg_ids *base, size_t n_rows, int32_t *values,
                        bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    cuda_ids *ids = (cuda_ids *)base;
    if (n_rows > ids->n_chosen)
        return bg_fail(err, BG_ERR_INTERNAL, "%zu token ids of %zu", n_rows, ids->n_chosen);
    /* Of all, so that the launch that writes them is known to be done. */
    for (size_t i = 0; i < ids->n_chosen; i++) BG_TRY(wait_for(cuda, ids, i, err));
    if (ids->written_by > cuda->finished) cuda->finished = ids->written_by;
    memcpy(values, ids->seen, n_rows * sizeof *values);
    return BG_OK;
}

bg_status cuda_ids_await(cuda_backend *cuda, cuda_ids *ids, size_t n_rows, bg_error *err)
{
    if (n_rows > ids->base.rows)
        return bg_fail(err, BG_ERR_INTERNAL, "%zu tokens to choose, and room for %zu", n_rows,
                       ids->base.rows);
    if (ids->written_by > cuda->finished) BG_TRY(cuda_flush(cuda, err));
    for (size_t i = 0; i < n_rows; i++) ids->seen[i] = UNWRITTEN;
    ids->n_chosen = n_rows;
    return BG_OK;
}
