/* LLM.int8()'s outlier columns as binary16 numbers, multiplied on tensor cores. How many there are
 * is known on the device alone. Sums go over them in ascending order, 16 at a time, whichever
 * kernel and batch it is: a sequence gets what it gets alone, to the last bit. */
#ifndef BG_BACKEND_CUDA_OUTLIERS_CUH
#define BG_BACKEND_CUDA_OUTLIERS_CUH

#include "backend/cuda/mma.cuh"
#include "backend/cuda/quantize.cuh"

/* A tile of TILE x TILE results by THREADS threads, CHUNK columns at a time. */
template <int TILE_, int THREADS_> struct outlier_tile {
    static constexpr int TILE = TILE_, THREADS = THREADS_;
    static constexpr int CHUNK = 64, PITCH = CHUNK + 8, EIGHTS = CHUNK / 8;
    static constexpr int LOADS = TILE * EIGHTS / THREADS; /* of eight numbers by a thread */
    static constexpr int SIZE = TILE * PITCH;             /* of either factor */
};

/* A sequence's columns. */
struct outlier_columns {
    const int32_t *list;
    int n;
};

static __device__ __forceinline__ outlier_columns columns_of(const cuda_quantized &q, int sequence,
                                                             size_t cols)
{
    return {q.outliers + (size_t)sequence * cols, q.n_outliers[sequence]};
}

static __device__ __forceinline__ uint32_t pair_of(float x, float y)
{
    const __half2 pair = __floats2half2_rn(x, y);
    return *(const uint32_t *)&pair;
}

/* Columns number k to k + 7 of a row of the input, zeros behind the last. */
static __device__ __forceinline__ uint4 outlier_inputs(const float *x, outlier_columns o, int k)
{
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = k + i < o.n ? x[o.list[k + i]] : 0;
    return make_uint4(pair_of(v[0], v[1]), pair_of(v[2], v[3]), pair_of(v[4], v[5]),
                      pair_of(v[6], v[7]));
}

/* The same of codes. */
static __device__ __forceinline__ uint2 outlier_codes(const int8_t *codes, outlier_columns o, int k)
{
    uint32_t v[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (k + i < o.n) v[i / 4] |= (uint32_t)(uint8_t)codes[o.list[k + i]] << i % 4 * 8;
    return make_uint2(v[0], v[1]);
}

/* Codes of a row of weights as numbers, decoded as bitsandbytes does it. */
static __device__ __forceinline__ uint4 outlier_weights(uint2 codes, float scale)
{
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const uint32_t word = i < 4 ? codes.x : codes.y;
        v[i] = (float)(int8_t)(word >> i % 4 * 8 & 0xFF) * scale * 7.874015718698502e-3f;
    }
    return make_uint4(pair_of(v[0], v[1]), pair_of(v[2], v[3]), pair_of(v[4], v[5]),
                      pair_of(v[6], v[7]));
}

/* Eight numbers of either factor for each of a thread's places, columns k and on. */
template <typename T, typename Left, typename Right>
static __device__ __forceinline__ void load_chunk(uint4 values[2][T::LOADS], int k, Left left,
                                                  Right right)
{
#pragma unroll
    for (int i = 0; i < T::LOADS; i++) {
        const int at = (int)threadIdx.x + i * T::THREADS, c = k + at % T::EIGHTS * 8;
        values[0][i] = left(i, at / T::EIGHTS, c);
        values[1][i] = right(i, at / T::EIGHTS, c);
    }
}

/* Goes over n columns: `body` is called for each chunk of them with both factors in `room`, x
 * first, as long as SIZE each. `left` and `right` load eight numbers of a row of the tile, a chunk
 * ahead, for one of the thread's places; `keep` stores what else they have loaded. */
template <typename T, typename Left, typename Right, typename Keep, typename Body>
static __device__ __forceinline__ void each_outlier_chunk(int n, __half *room, Left left,
                                                          Right right, Keep keep, Body body)
{
    uint4 values[2][T::LOADS];
    load_chunk<T>(values, 0, left, right);
    for (int k = 0; k < n; k += T::CHUNK) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < T::LOADS; i++) {
            const int at = (int)threadIdx.x + i * T::THREADS;
            __half *to = room + at / T::EIGHTS * T::PITCH + at % T::EIGHTS * 8;
            *(uint4 *)to = values[0][i];
            *(uint4 *)(to + T::SIZE) = values[1][i];
        }
        keep();
        __syncthreads();
        if (k + T::CHUNK < n) load_chunk<T>(values, k + T::CHUNK, left, right);
        body();
    }
}

#endif
