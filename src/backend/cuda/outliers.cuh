/* LLM.int8()'s outlier columns: gathered as binary16 numbers, of the input and of the weights, and
 * multiplied on tensor cores. How many there are is known on the device alone. */
#ifndef BG_BACKEND_CUDA_OUTLIERS_CUH
#define BG_BACKEND_CUDA_OUTLIERS_CUH

#include "backend/cuda/mma.cuh"

/* A tile of TILE x TILE results by THREADS threads, CHUNK columns at a time. */
template <int TILE_, int THREADS_> struct outlier_tile {
    static constexpr int TILE = TILE_, THREADS = THREADS_;
    static constexpr int CHUNK = 64, PITCH = CHUNK + 8, EIGHTS = CHUNK / 8;
    static constexpr int LOADS = TILE * EIGHTS / THREADS; /* of eight numbers by a thread */
    static constexpr int SIZE = TILE * PITCH;             /* of either factor */
};

/* Rows [row, row + TILE) of a gathered matrix, columns [k, k + CHUNK), zeros behind its last row.
 */
template <typename T>
static __device__ __forceinline__ void load_outliers(uint4 out[T::LOADS], const void *from,
                                                     size_t row, size_t rows, size_t cols, int k)
{
#pragma unroll
    for (int i = 0; i < T::LOADS; i++) {
        const int at = (int)threadIdx.x + i * T::THREADS, c = k + at % T::EIGHTS * 8;
        const size_t r = row + (size_t)(at / T::EIGHTS);
        out[i] = make_uint4(0, 0, 0, 0);
        if (r < rows && (size_t)c < cols)
            out[i] = *(const uint4 *)((const __half *)from + r * cols + (size_t)c);
    }
}

template <typename T>
static __device__ __forceinline__ void keep_outliers(__half *to, const uint4 values[T::LOADS])
{
#pragma unroll
    for (int i = 0; i < T::LOADS; i++) {
        const int at = (int)threadIdx.x + i * T::THREADS;
        *(uint4 *)(to + at / T::EIGHTS * T::PITCH + at % T::EIGHTS * 8) = values[i];
    }
}

/* Goes over n outlier columns of x (n_rows, cols) and w (n_out, cols): `body` is called for each
 * chunk of them with both factors in `room`, x first, as long as SIZE each. */
template <typename T, typename Body>
static __device__ __forceinline__ void
each_outlier_chunk(const void *x, size_t row, size_t n_rows, const void *w, size_t out,
                   size_t n_out, size_t cols, int n, __half *room, Body body)
{
    uint4 left[T::LOADS], right[T::LOADS];
    load_outliers<T>(left, x, row, n_rows, cols, 0);
    load_outliers<T>(right, w, out, n_out, cols, 0);
    for (int k = 0; k < n; k += T::CHUNK) {
        __syncthreads();
        keep_outliers<T>(room, left);
        keep_outliers<T>(room + T::SIZE, right);
        __syncthreads();
        if (k + T::CHUNK < n) {
            load_outliers<T>(left, x, row, n_rows, cols, k + T::CHUNK);
            load_outliers<T>(right, w, out, n_out, cols, k + T::CHUNK);
        }
        body();
    }
}

#endif
