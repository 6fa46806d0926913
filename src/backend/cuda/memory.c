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

/* Pieces for the arena; the error of the last that there was not is in cuda->piece_error. */
static void *take_piece(void *context, size_t bytes)
{
    cuda_backend *cuda = context;
    void *p = NULL;
    cuda->piece_error = cudaMalloc(&p, bytes);
    if (cuda->piece_error == cudaSuccess) return p;
    cudaGetLastError();
    return NULL;
}

static void give_piece(void *context, void *piece)
{
    (void)context;
    cudaFree(piece);
}

/* Weights share pieces; what comes and goes while a model runs has memory of its own. Where kernels
 * are checked, so have weights: a read beyond one's end is not to be one of its neighbour. */
static bool shares(const cuda_backend *cuda, bg_use use)
{
    return use == BG_USE_WEIGHTS && !cuda->check_each;
}

static cudaError_t allocate(cuda_backend *cuda, bg_use use, size_t bytes, void **out)
{
    if (!shares(cuda, use)) {
        const cudaError_t e = cudaMalloc(out, bytes > 0 ? bytes : 1);
        if (e != cudaSuccess) cudaGetLastError();
        return e;
    }
    const cuda_arena_source source = {take_piece, give_piece, cuda};
    cuda->piece_error = cudaErrorMemoryAllocation; /* where it is the host's */
    *out = cuda_arena_take(&cuda->weights, &source, bytes);
    return *out ? cudaSuccess : cuda->piece_error;
}

void *cuda_take(cuda_backend *cuda, bg_use use, size_t bytes, const char *what, bg_error *err)
{
    void *p = NULL;
    const cudaError_t e = allocate(cuda, use, bytes, &p);
    if (e == cudaSuccess) {
        bg_tally_add(&cuda->held, use, bytes);
        return p;
    }
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
    if (shares(cuda, use))
        cuda_arena_give(&cuda->weights, &(cuda_arena_source){take_piece, give_piece, cuda}, p,
                        bytes);
    else
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
