/* Sampling: bg_choose of backend/choice.h with a temperature. A row's logits are sorted, their
 * shares summed in chunks, and the chunk and then the place looked up where the sum passes what was
 * drawn. Sums are in double, in an order that is always the same but not the one of the host: the
 * id may be a neighbour of the host's where what was drawn is within rounding of the border between
 * them. */
#include "backend/cuda/head.cuh"

#include <cub/device/device_radix_sort.cuh>

enum { THREADS = 256, EACH = 8, CHUNK = THREADS * EACH };

/* ---- room ------------------------------------------------------------------------------------ */

/* Of one row at a time. */
struct sample_room {
    uint32_t *keys[2], *ids[2]; /* (cols) before and after sorting */
    double *sums;               /* (cols / CHUNK, rounded up) */
    void *sorting;
    size_t sorting_bytes, bytes;
};

template <typename T> static T *take(char *base, size_t *at, size_t n)
{
    T *p = (T *)(base + *at);
    *at += (n * sizeof(T) + 255) / 256 * 256;
    return p;
}

static cudaError_t lay_out(char *base, size_t cols, sample_room *r)
{
    size_t at = 0;
    for (int i = 0; i < 2; i++) {
        r->keys[i] = take<uint32_t>(base, &at, cols);
        r->ids[i] = take<uint32_t>(base, &at, cols);
    }
    r->sums = take<double>(base, &at, (cols + CHUNK - 1) / CHUNK);
    const cudaError_t e = cub::DeviceRadixSort::SortPairsDescending(
        NULL, r->sorting_bytes, r->keys[0], r->keys[1], r->ids[0], r->ids[1], (int)cols);
    r->sorting = take<char>(base, &at, r->sorting_bytes);
    r->bytes = at;
    return e;
}

cudaError_t bg_cuda_sample_room(size_t cols, size_t *bytes)
{
    sample_room r;
    const cudaError_t e = lay_out(NULL, cols, &r);
    *bytes = r.bytes;
    return e;
}

/* ---- kernels --------------------------------------------------------------------------------- */

struct row_args {
    cuda_sample_args a;
    sample_room r;
    size_t row, kept;
};

static __global__ void make_keys(row_args p)
{
    wait_for_earlier();
    let_next_start();
    const uint32_t c = blockIdx.x * THREADS + threadIdx.x;
    if (c >= p.a.cols) return;
    const uint64_t key = choice_key(p.a.choice, p.a.logits[p.row * p.a.cols + c], c);
    p.r.keys[0][c] = (uint32_t)(key >> 32);
    p.r.ids[0][c] = c;
}

static __device__ __forceinline__ float logit_of(uint32_t key)
{
    return __uint_as_float(key & 0x80000000 ? key & 0x7FFFFFFF : ~key);
}

/* What of the first's probability the i-th candidate has. */
static __device__ __forceinline__ double share(const row_args &p, size_t i)
{
    if (i >= p.kept) return 0;
    const float first = logit_of(p.r.keys[1][0]);
    return exp(((double)logit_of(p.r.keys[1][i]) - (double)first) / p.a.temperature);
}

/* A block for each chunk. */
static __global__ void __launch_bounds__(THREADS) sum_chunks(row_args p)
{
    __shared__ double room[THREADS / WARP];
    wait_for_earlier();
    let_next_start();
    double sum = 0;
    for (unsigned i = 0; i < EACH; i++)
        sum += share(p, blockIdx.x * (size_t)CHUNK + threadIdx.x * EACH + i);
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) p.r.sums[blockIdx.x] = sum;
}

struct place {
    size_t index; /* of a candidate */
    double sum;   /* up to it, itself included */
};

/* The first candidate whose sum is more than `limit`, or, if `reached`, at least that; the last if
 * there is none. */
static __device__ place find(const row_args &p, double limit, bool reached)
{
    __shared__ double sums[THREADS], before;
    __shared__ unsigned chunk, found;
    const size_t n_chunks = (p.kept + CHUNK - 1) / CHUNK;
    const auto passes = [=](double sum) { return reached ? sum >= limit : sum > limit; };
    if (threadIdx.x == 0) {
        double sum = 0;
        size_t k = 0;
        while (k + 1 < n_chunks && !passes(sum + p.r.sums[k])) sum += p.r.sums[k++];
        chunk = (unsigned)k;
        before = sum;
        found = THREADS - 1;
    }
    double own[EACH], sum = 0;
    __syncthreads();
    const size_t first = chunk * (size_t)CHUNK + threadIdx.x * EACH;
    for (unsigned i = 0; i < EACH; i++) sum += own[i] = share(p, first + i);
    sums[threadIdx.x] = sum;
    for (unsigned step = 1; step < THREADS; step *= 2) {
        __syncthreads();
        const double other = threadIdx.x >= step ? sums[threadIdx.x - step] : 0;
        __syncthreads();
        sums[threadIdx.x] += other;
    }
    __syncthreads();
    if (passes(before + sums[threadIdx.x])) atomicMin(&found, threadIdx.x);
    __syncthreads();
    __shared__ place result;
    if (threadIdx.x == found) {
        place at = {first, before + (threadIdx.x > 0 ? sums[threadIdx.x - 1] : 0) + own[0]};
        for (unsigned i = 1; i < EACH && !passes(at.sum) && first + i < p.kept; i++) {
            at.index++;
            at.sum += own[i];
        }
        if (at.index >= p.kept) at.index = p.kept - 1;
        result = at;
    }
    __syncthreads();
    const place at = result;
    __syncthreads();
    return at;
}

static __global__ void __launch_bounds__(THREADS) pick(row_args p)
{
    wait_for_earlier();
    let_next_start();
    size_t index = 0;
    if (isfinite(logit_of(p.r.keys[1][0]))) {
        const size_t n_chunks = (p.kept + CHUNK - 1) / CHUNK;
        double sum = 0;
        for (size_t k = 0; k < n_chunks; k++) sum += p.r.sums[k];
        const place last = p.a.top_p < 1 ? find(p, p.a.top_p * sum, true) : place{p.kept - 1, sum};
        const place drawn = find(p, p.a.uniform[p.row] * last.sum, false);
        index = drawn.index < last.index ? drawn.index : last.index;
    }
    const uint32_t id = p.r.ids[1][index];
    const bool nan = p.r.keys[1][0] == (uint32_t)(NAN_KEY >> 32);
    if (threadIdx.x == 0) write_choice(p.a.choice, p.row, nan ? NAN_KEY : ~id);
}

static cudaError_t sample_row(const row_args &p, const cuda_launch *l)
{
    const unsigned blocks = blocks_for(p.a.cols, THREADS), chunks = blocks_for(p.kept, CHUNK);
    size_t bytes = p.r.sorting_bytes;
    cudaError_t e = launch(make_keys, dim3(blocks), THREADS, 0, p, l);
    if (e == cudaSuccess)
        e = cub::DeviceRadixSort::SortPairsDescending(p.r.sorting, bytes, p.r.keys[0], p.r.keys[1],
                                                      p.r.ids[0], p.r.ids[1], (int)p.a.cols, 0, 32,
                                                      l->stream);
    if (e == cudaSuccess) e = launch(sum_chunks, dim3(chunks), THREADS, 0, p, l);
    return e == cudaSuccess ? launch(pick, dim3(1), THREADS, 0, p, l) : e;
}

cudaError_t bg_cuda_sample(const cuda_sample_args *a, const cuda_launch *l)
{
    row_args p = {*a, {}, 0, a->top_k > 0 && a->top_k < a->cols ? a->top_k : a->cols};
    cudaError_t e = lay_out((char *)a->room, a->cols, &p.r);
    for (; e == cudaSuccess && p.row < a->n_rows; p.row++) e = sample_row(p, l);
    return e;
}
