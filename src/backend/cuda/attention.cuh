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

/* Whether rows and columns begin at multiples of four. */
static inline bool attends_in_line(const cuda_attention_args *a)
{
    const size_t all =
        a->head_dim | a->qkv_stride | a->query_col | a->key_col | a->value_col | a->out_stride;
    const uintptr_t pointers =
        (uintptr_t)a->qkv | (uintptr_t)a->keys | (uintptr_t)a->values | (uintptr_t)a->out;
    return all % 4 == 0 && pointers % sizeof(float4) == 0;
}

/* ---- queries and keys to their positions ----------------------------------------------------- */

/* One head's x (head_dim) in shared or global memory, by one warp: normed, then turned. */
static __device__ void place_head(const cuda_norm &norm, const float *rope, size_t rope_dim,
                                  bool half, size_t position, const float *in, float *out, size_t d)
{
    const unsigned lane = threadIdx.x % WARP;
    norm_state s = {0, 0};
    if (norm.weight) {
        double sum = 0, squares = 0;
        if (norm.kind == BG_NORM_LAYER) {
            for (size_t i = lane; i < d; i += WARP) sum += (double)__ldcg(in + i);
            s.mean = (float)(warp_sum(sum) / (double)d);
        }
        for (size_t i = lane; i < d; i += WARP) {
            double v = (double)__ldcg(in + i) - (double)s.mean;
            squares += v * v;
        }
        s.scale = norm_scale(warp_sum(squares), d, norm.eps);
        if (norm.kind == BG_NORM_LAYER && half) s.scale = nextafterf(s.scale, 0);
    }
    const float *angles = rope ? rope + position * rope_dim : NULL;
    const size_t pairs = rope ? rope_dim / 2 : 0;
    for (size_t i = lane; i < pairs; i += WARP) {
        float u = __ldcg(in + i), v = __ldcg(in + i + pairs);
        if (norm.weight) {
            u = norm_value(norm, s, half, u, i);
            v = norm_value(norm, s, half, v, i + pairs);
        }
        const float cosine = angles[i], sine = angles[i + pairs];
        const float a = round_if(half, u * cosine), b = round_if(half, -v * sine);
        const float c = round_if(half, v * cosine), e = round_if(half, u * sine);
        out[i] = round_if(half, a + b);
        out[i + pairs] = round_if(half, c + e);
    }
    for (size_t i = 2 * pairs + lane; i < d; i += WARP)
        out[i] = norm.weight ? norm_value(norm, s, half, __ldcg(in + i), i) : __ldcg(in + i);
}

#endif
