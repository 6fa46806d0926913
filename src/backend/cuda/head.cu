/* What is asked of logits: each row's largest, and the log-likelihood of a target. */
#include "backend/cuda/device.cuh"

enum { THREADS = 256, SCORE_THREADS = 512 };

/* Order of floats as that of unsigned integers, and the lower column first on a tie. */
static __device__ uint64_t sort_key(float x, size_t col)
{
    uint32_t bits = __float_as_uint(x);
    bits = bits & 0x80000000 ? ~bits : bits | 0x80000000;
    if (isnan(x)) bits = 0;
    return (uint64_t)bits << 32 | (0xFFFFFFFFu - (uint32_t)col);
}

static __device__ uint64_t block_largest(uint64_t best, uint64_t *room)
{
    for (int i = WARP / 2; i > 0; i /= 2) {
        uint64_t other = __shfl_xor_sync(0xFFFFFFFF, best, i);
        best = other > best ? other : best;
    }
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = best;
    __syncthreads();
    for (unsigned i = 0; i < blockDim.x / WARP; i++) best = room[i] > best ? room[i] : best;
    return best;
}

static __global__ void argmax_parts(cuda_head_args a)
{
    __shared__ uint64_t room[THREADS / WARP];
    wait_for_earlier();
    let_next_start();
    const size_t row = blockIdx.y, part = blockIdx.x;
    const float *logits = a.logits + row * a.cols;
    uint64_t best = 0;
    for (size_t c = part * THREADS + threadIdx.x; c < a.cols; c += CUDA_ARGMAX_PARTS * THREADS) {
        uint64_t key = sort_key(logits[c], c);
        best = key > best ? key : best;
    }
    best = block_largest(best, room);
    if (threadIdx.x == 0) a.partial[row * CUDA_ARGMAX_PARTS + part] = best;
}

static __global__ void argmax_rows(cuda_head_args a)
{
    __shared__ uint64_t room[1];
    wait_for_earlier();
    let_next_start();
    uint64_t best = a.partial[blockIdx.x * CUDA_ARGMAX_PARTS + threadIdx.x];
    best = block_largest(best, room);
    if (threadIdx.x == 0) a.ids[blockIdx.x] = (int32_t)(0xFFFFFFFFu - (uint32_t)best);
}

static_assert((int)CUDA_ARGMAX_PARTS == (int)WARP, "one warp reads all parts");

cudaError_t bg_cuda_argmax(const cuda_head_args *a, const cuda_launch *l)
{
    cudaError_t e =
        launch(argmax_parts, dim3(CUDA_ARGMAX_PARTS, (unsigned)a->n_rows), THREADS, 0, *a, l);
    if (e != cudaSuccess) return e;
    return launch(argmax_rows, dim3((unsigned)a->n_rows), WARP, 0, *a, l);
}

static __global__ void score_rows(cuda_head_args a)
{
    __shared__ float maxima[SCORE_THREADS / WARP];
    __shared__ double sums[SCORE_THREADS / WARP];
    wait_for_earlier();
    let_next_start();
    const float *x = a.logits + blockIdx.x * a.cols;
    float max = -INFINITY;
    for (size_t c = threadIdx.x; c < a.cols; c += blockDim.x) max = fmaxf(max, x[c]);
    max = block_max(max, maxima);
    double total = 0;
    for (size_t start = threadIdx.x; start < a.cols; start += 64 * (size_t)blockDim.x) {
        float sum = 0;
        for (size_t k = 0, c = start; k < 64 && c < a.cols; k++, c += blockDim.x)
            sum += expf(x[c] - max);
        total += (double)sum;
    }
    total = block_sum(total, sums);
    if (threadIdx.x == 0)
        a.nll[blockIdx.x] = (double)max + log(total) - (double)x[a.targets[blockIdx.x]];
}

cudaError_t bg_cuda_score(const cuda_head_args *a, const cuda_launch *l)
{
    return launch(score_rows, dim3((unsigned)a->n_rows), SCORE_THREADS, 0, *a, l);
}
