/* The cache's way to attention in a program: which keys and values a block looks at, and how they
 * come to shared memory. */
#ifndef BG_BACKEND_CUDA_PROGRAM_CACHE_CUH
#define BG_BACKEND_CUDA_PROGRAM_CACHE_CUH

#include "backend/cuda/attention.cuh"
#include "backend/cuda/program.cuh"

/* One head's row of the cache, or of the new token; or a part of its keys. */
struct head_task {
    cuda_sequence s;
    unsigned number, part; /* the head's among all sequences', and which of its keys' parts */
    unsigned head, kv, d;
    const float *keys, *values; /* the first that are looked at, of n */
    int first, n;
    int own; /* which of them is not in the cache yet, n or more where none is: the last one */
};

static __device__ __forceinline__ head_task task_of(const cuda_attention_args &a,
                                                    const cuda_sequence *sequences, unsigned task)
{
    head_task t;
    t.number = task >> a.parts_shift;
    t.part = task - (t.number << a.parts_shift);
    const unsigned sequence = a.n_sequences == 1 ? 0 : divide(t.number, a.head_inverse);
    t.s = sequences[sequence];
    t.head = t.number - sequence * (unsigned)a.n_heads;
    t.kv = divide(t.head, a.group_inverse);
    t.d = (unsigned)a.head_dim;
    const key_range all = visible_to(a, t.s, t.s.past);
    const int each = (all.end - all.first + (1 << a.parts_shift) - 1) >> a.parts_shift;
    t.first = min(all.first + (int)t.part * each, all.end);
    t.n = min(all.end - t.first, each);
    t.own = a.stored ? t.n : t.s.past - t.first;
    const size_t row =
        (size_t)((unsigned)t.s.slot * (unsigned)a.n_kv_heads + t.kv) * (unsigned)a.max_length +
        (unsigned)t.first;
    t.keys = a.keys + row * t.d;
    t.values = a.values + row * t.d;
    return t;
}

static __device__ __forceinline__ unsigned tasks_of(const cuda_attention_args &a)
{
    return (unsigned)(a.n_heads * a.n_sequences) << a.parts_shift;
}

/* ---- to shared memory ------------------------------------------------------------------------ */

/* A task's keys come to shared memory in pieces, and then its values: all at once where there is
 * room for them, or else each piece when the one STAGES before it has been used. */
enum { STAGES = 4 };

struct cache_pieces {
    float *room;
    int rows;      /* of a piece */
    unsigned size; /* the same in values */
    int keys;      /* how many pieces are of keys; as many are of values */
};

static __device__ __forceinline__ cache_pieces pieces_of(const cuda_attention_args &a,
                                                         const head_task &t, float *room)
{
    cache_pieces c = {room, t.n, 0, t.n > 0};
    if (2 * t.n > (int)(a.ready_rows * STAGES)) {
        c.rows = (int)a.ready_rows;
        c.keys = (t.n + c.rows - 1) / c.rows;
    }
    c.size = (unsigned)c.rows * t.d;
    return c;
}

static __device__ __forceinline__ float *room_of(const cache_pieces &c, int piece)
{
    return c.room + (piece & (STAGES - 1)) * c.size;
}

/* What the cache has of a piece, if there is one of that number. Each thread of the block calls it
 * for all pieces in turn. */
static __device__ __forceinline__ void get_piece(const head_task &t, const cache_pieces &c,
                                                 int piece)
{
    if (piece < 2 * c.keys) {
        const bool values = piece >= c.keys;
        const unsigned begin = (unsigned)(values ? piece - c.keys : piece) * c.size;
        const int left = min(t.n, t.own) * (int)t.d - (int)begin;
        const int end = min(left, (int)c.size);
        const float *from = (values ? t.values : t.keys) + begin;
        float *to = room_of(c, piece);
#pragma unroll 1
        for (int i = (int)threadIdx.x * 4; i < end; i += STEP_THREADS * 4)
            copy_16(to + i, from + i);
    }
    end_of_group();
}

/* Until the oldest of the last STAGES pieces has come, as far as the thread has copied it. */
static __device__ __forceinline__ void wait_for_piece()
{
    wait_for_groups<STAGES - 1>();
}

/* Brings what the block will look at from memory to the second-level cache, by one warp. */
static __device__ __forceinline__ void fetch_rows(const cuda_attention_args &a,
                                                  const cuda_sequence *sequences)
{
#if __CUDA_ARCH__ >= 900
    const unsigned tasks = tasks_of(a);
    for (unsigned task = blockIdx.x + threadIdx.x % WARP * gridDim.x; task < tasks;
         task += WARP * gridDim.x) {
        const head_task t = task_of(a, sequences, task);
        const unsigned bytes = (unsigned)t.n * t.d * sizeof(float);
        if (bytes == 0 || t.head != t.kv * a.group) continue;
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(t.keys), "r"(bytes));
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(t.values), "r"(bytes));
    }
#endif
}

#endif
