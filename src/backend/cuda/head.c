/* The output head: logits in chunks of rows, so that those of a whole text are never in memory at
 * once, and reduced where they arise. */
#include "backend/cuda/cuda.h"

#include "core/checked.h"

#include <string.h>

/* Bytes of a chunk's logits, and at least so many rows of them. */
enum { CHUNK_BYTES = 128 << 20, CHUNK_ROWS = 8 };

typedef struct {
    const bg_weight *head, *bias;
    const bg_act *in;
    size_t rows; /* of a chunk */
} head_loop;

static bg_status begin(cuda_backend *cuda, head_loop *loop, size_t n_rows, bg_error *err)
{
    const size_t cols = loop->head->rows;
    loop->rows = bg_max_size(CHUNK_BYTES / sizeof(float) / cols, CHUNK_ROWS);
    loop->rows = bg_min_size(loop->rows, n_rows);
    return cuda_reserve(cuda, &cuda->logits, loop->rows * cols * sizeof(float), err);
}

/* Queues the logits of rows [first, first + n). */
static bg_status chunk(cuda_backend *cuda, const head_loop *loop, size_t first, size_t n,
                       bg_error *err)
{
    const size_t cols = loop->head->rows;
    cuda_act rows = {{n, loop->in->cols, loop->in->half},
                     cuda_values(loop->in) + first * loop->in->cols};
    cuda_act logits = {{n, cols, false}, cuda->logits.data};
    const bg_linear args = {.weight = loop->head,
                            .bias = loop->bias,
                            .in = &rows.base,
                            .n_rows = n,
                            .out = &logits.base};
    return cuda_linear(&cuda->base, &args, err);
}

bg_status cuda_logits(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                      const bg_act *in, size_t n_rows, float *logits, bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    head_loop loop = {head, bias, in, 0};
    BG_TRY(begin(cuda, &loop, n_rows, err));
    for (size_t first = 0; first < n_rows; first += loop.rows) {
        const size_t n = bg_min_size(loop.rows, n_rows - first);
        BG_TRY(chunk(cuda, &loop, first, n, err));
        BG_TRY(cuda_flush(cuda, err));
        cudaError_t e = cudaMemcpyAsync(logits + first * head->rows, cuda->logits.data,
                                        n * head->rows * sizeof(float), cudaMemcpyDeviceToHost,
                                        cuda->launch.stream);
        if (e == cudaSuccess) e = cudaStreamSynchronize(cuda->launch.stream);
        BG_TRY(cuda_check(e, "reading logits", err));
    }
    return BG_OK;
}

bg_status cuda_argmax(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                      const bg_act *in, size_t n_rows, int32_t *ids, bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    head_loop loop = {head, bias, in, 0};
    BG_TRY(begin(cuda, &loop, n_rows, err));
    BG_TRY(
        cuda_reserve(cuda, &cuda->partial, loop.rows * CUDA_ARGMAX_PARTS * sizeof(uint64_t), err));
    BG_TRY(cuda_reserve_results(cuda, n_rows * sizeof *ids, err));
    for (size_t first = 0; first < n_rows; first += loop.rows) {
        const size_t n = bg_min_size(loop.rows, n_rows - first);
        BG_TRY(chunk(cuda, &loop, first, n, err));
        BG_TRY(cuda_begin(cuda, 0, 1, err));
        cuda_head_args *a = &cuda_push(cuda, NODE_ARGMAX)->args.head;
        a->logits = cuda->logits.data;
        a->n_rows = n;
        a->cols = head->rows;
        a->partial = cuda->partial.data;
        a->ids = (int32_t *)(void *)cuda->results + first;
    }
    BG_TRY(cuda_flush(cuda, err));
    memcpy(ids, cuda->results, n_rows * sizeof *ids);
    return BG_OK;
}

bg_status cuda_score(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                     const bg_act *in, size_t n_rows, const int32_t *targets, double *nll,
                     bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    head_loop loop = {head, bias, in, 0};
    BG_TRY(begin(cuda, &loop, n_rows, err));
    BG_TRY(cuda_reserve_results(cuda, n_rows * sizeof *nll, err));
    for (size_t first = 0; first < n_rows; first += loop.rows) {
        const size_t n = bg_min_size(loop.rows, n_rows - first);
        BG_TRY(chunk(cuda, &loop, first, n, err));
        BG_TRY(cuda_begin(cuda, n * sizeof *targets, 1, err));
        cuda_head_args *a = &cuda_push(cuda, NODE_SCORE)->args.head;
        a->logits = cuda->logits.data;
        a->n_rows = n;
        a->cols = head->rows;
        a->targets = cuda_put(cuda, targets + first, n * sizeof *targets);
        a->nll = (double *)(void *)cuda->results + first;
    }
    BG_TRY(cuda_flush(cuda, err));
    memcpy(nll, cuda->results, n_rows * sizeof *nll);
    return BG_OK;
}
