/* What is asked of logits: each row's largest, and the log-likelihood of a target. */
#include "backend/cuda/head.cuh"

enum { THREADS = 256, SCORE_THREADS = 512 };

static __global__ void argmax_parts(cuda_head_args a)
{
    __shared__ uint64_t room[THREADS / WARP];
    wait_for_earlier();
    let_next_start();
    const size_t row = blockIdx.y, part = blockIdx.x;
    const float *logits = a.logits + row * a.cols;
    uint64_t best = 0;
    for (size_t c = part * THREADS + threadIdx.x; c < a.cols; c += CUDA_ARGMAX_PARTS * THREADS) {
        uint64_t key = choice_key(a.choice, logits[c], (uint32_t)c);
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
    if (threadIdx.x == 0) write_choice(a.choice, blockIdx.x, best);
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

/* ---- panels of the vocabulary ---------------------------------------------------------------- */

enum { HELD = 16 }; /* logits that a thread keeps between its two looks at them */

/* A thread's logits, WIDTH side by side; -infinity behind the last. */
template <int WIDTH>
static __device__ __forceinline__ void load_logits(const float *logits, size_t cols, float x[HELD])
{
#pragma unroll
    for (int i = 0; i < HELD; i += WIDTH) {
        const size_t c = (threadIdx.x + i / WIDTH * (size_t)THREADS) * WIDTH;
#pragma unroll
        for (int k = 0; k < WIDTH; k++) x[i + k] = -INFINITY;
        if (c >= cols) continue;
        if (WIDTH == 4)
            *(float4 *)(x + i) = *(const float4 *)(logits + c);
        else
            x[i] = logits[c];
    }
}

/* A block for each row. */
template <int WIDTH>
static __global__ void __launch_bounds__(THREADS)
    score_panel(const __grid_constant__ cuda_score_args a)
{
    __shared__ float maxima[THREADS / WARP];
    __shared__ double sums[THREADS / WARP];
    wait_for_earlier();
    let_next_start();
    const size_t m = blockIdx.x;
    const float *logits = a.logits + m * a.cols;
    __align__(16) float x[HELD];
    float max = -INFINITY, sum = 0;
    load_logits<WIDTH>(logits, a.cols, x);
#pragma unroll
    for (int i = 0; i < HELD; i++) max = fmaxf(max, x[i]);
    max = block_max(max, maxima);
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        const size_t c = (threadIdx.x + i / WIDTH * (size_t)THREADS) * WIDTH;
        if (c < a.cols) sum += expf(x[i] - max);
    }
    const double total = block_sum((double)sum, sums);
    if (threadIdx.x > 0) return;
    a.maxima[m * a.n_panels + a.panel] = max;
    a.sums[m * a.n_panels + a.panel] = (float)total;
    const size_t target = (size_t)a.targets[m];
    if (target >= a.first && target < a.first + a.cols) a.expected[m] = logits[target - a.first];
}

cudaError_t bg_cuda_score_panel(const cuda_score_args *a, const cuda_launch *l)
{
    if (a->cols > HELD * THREADS) return cudaErrorInvalidConfiguration;
    const bool fours = a->cols % 4 == 0 && (uintptr_t)a->logits % sizeof(float4) == 0;
    return launch(fours ? score_panel<4> : score_panel<1>, dim3((unsigned)a->n_rows), THREADS, 0,
                  *a, l);
}

/* A warp for each row. */
static __global__ void score_panels(cuda_score_args a)
{
    wait_for_earlier();
    let_next_start();
    const unsigned lane = threadIdx.x % WARP;
    const size_t m = (blockIdx.x * (size_t)blockDim.x + threadIdx.x) / WARP;
    if (m >= a.n_rows) return;
    const float *maxima = a.maxima + m * a.n_panels;
    float max = -INFINITY;
    for (size_t i = lane; i < a.n_panels; i += WARP) max = fmaxf(max, maxima[i]);
    max = warp_max(max);
    double total = 0;
    for (size_t i = lane; i < a.n_panels; i += WARP)
        total += (double)a.sums[m * a.n_panels + i] * exp((double)maxima[i] - (double)max);
    total = warp_sum(total);
    if (lane == 0) a.nll[m] = (double)max + log(total) - (double)a.expected[m];
}

cudaError_t bg_cuda_score_panels(const cuda_score_args *a, const cuda_launch *l)
{
    const unsigned blocks = blocks_for(a->n_rows * WARP, THREADS);
    return launch(score_panels, dim3(blocks), THREADS, 0, *a, l);
}
