/* What the kernels of attention share: where keys and values lie, which of them a query sees, and
 * what is added to a score. */
#ifndef BG_BACKEND_CUDA_ATTENTION_CUH
#define BG_BACKEND_CUDA_ATTENTION_CUH

#include "backend/cuda/device.cuh"

static __device__ __forceinline__ size_t plane(const cuda_attention_args &a, int slot, size_t head)
{
    return ((size_t)slot * a.n_kv_heads + head) * a.max_length * a.head_dim;
}

struct key_range {
    int first, end;
};

static __device__ __forceinline__ key_range visible_to(const cuda_attention_args &a,
                                                       const cuda_sequence &s, int position)
{
    key_range r = {0, s.keys};
    if (!a.causal) return r;
    r.end = min(max(position + 1, s.prefix), s.keys);
    if (a.window && position + 1 > (int)a.window) r.first = position + 1 - (int)a.window;
    r.first = min(r.first, r.end);
    return r;
}

static __device__ __forceinline__ float bias_of(const cuda_attention_args &a, size_t head,
                                                int distance)
{
    const int most = (int)(a.bias_cols / 2);
    return a.position_bias[head * a.bias_cols + (size_t)(min(max(distance, -most), most) + most)];
}

#endif
