/* Nodes of a program that go over rows: embeddings, norms and copies. */
#ifndef BG_BACKEND_CUDA_PROGRAM_ROWS_CUH
#define BG_BACKEND_CUDA_PROGRAM_ROWS_CUH

#include "backend/cuda/program_input.cuh"

static __device__ __forceinline__ unsigned first_value()
{
    return blockIdx.x * STEP_THREADS + threadIdx.x;
}

static __device__ __forceinline__ unsigned values_at_once()
{
    return gridDim.x * STEP_THREADS;
}

static __device__ __forceinline__ void run_embed(const cuda_embed_args &a, const all_blocks &blocks)
{
    blocks.wait();
    const unsigned cols = (unsigned)a.cols;
    for (unsigned row = 0; row < (unsigned)a.n_rows; row++)
        for (unsigned c = first_value(); c < cols; c += values_at_once()) {
            float sum = 0;
            for (size_t k = 0; k < a.n_lookups; k++) {
                const float value = decode_value(a.tables[k], looked_up(a, k, row) * cols + c);
                sum = k == 0 && a.scales[k] == 1 ? value : sum + a.scales[k] * value;
            }
            a.out[row * cols + c] = round_if(a.half, sum);
        }
}

/* A block for each row, which passes through `room`. */
static __device__ __forceinline__ void run_norm(const cuda_norm_args &a, const all_blocks &blocks,
                                                input_rooms &rooms, char *room)
{
    const team everybody = {0, STEP_WARPS, threadIdx.x, STEP_THREADS};
    const unsigned cols = (unsigned)a.cols;
    ready_norm<USUAL_QUADS> ready;
    get_norm_ready(a.norm, cols, exact_inverse(cols), everybody, ready);
    blocks.wait();
    if (blockIdx.x >= a.n_rows) return;
    const size_t at = blockIdx.x * a.cols;
    const input_row<USUAL_QUADS> row =
        input_row_at<USUAL_QUADS>(a.in + at, room, cols / 4, everybody.lane, everybody.threads);
    float4 first[USUAL_QUADS];
    ask_row(row, first);
    const norm_state n =
        a.half ? norm_of<true>(a.norm, cols, ready.inverse, everybody, row, first, rooms.sums)
               : norm_of<false>(a.norm, cols, ready.inverse, everybody, row, first, rooms.sums);
    each_normed(a.norm, a.half, n, row, first, ready, a.out + at,
                [&](const float4 &y, int) INLINE { return y; });
}

static __device__ __forceinline__ void run_copy(const cuda_copy_args &a, const all_blocks &blocks)
{
    blocks.wait();
    const unsigned cols = (unsigned)a.cols;
    for (unsigned row = 0; row < (unsigned)a.n_rows; row++)
        for (unsigned c = first_value(); c < cols; c += values_at_once()) {
            const float x =
                load_fresh(a.in + (a.in_rows ? (size_t)a.in_rows[row] : row) * cols + c);
            a.out[(a.out_rows ? (size_t)a.out_rows[row] : row) * cols + c] =
                a.scale == 1 ? x : round_if(a.half, a.scale * x);
        }
}

#endif
