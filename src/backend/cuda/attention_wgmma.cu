/* Attention of whole sequences on a Hopper GPU, each factor one binary16 number: attention_flash.cu
 * says of what, and why. Queries, keys and values have been written as binary16 numbers, by
 * bg_cuda_place or bg_cuda_wide. A block is a warpgroup with 64 queries of a head; tiles of 64 keys
 * and values come one ahead (cp.async). A block waits for what it multiplies: there are other
 * blocks on its multiprocessor meanwhile. */
#include "backend/cuda/attention_stage.cuh"
#include "backend/cuda/copy.cuh"
#include "backend/cuda/operand.cuh"
#include "backend/cuda/wgmma.cuh"

enum {
    THREADS = 128,
    QUERIES = 64,
    KEYS = 64,         /* of a tile */
    TILE_COLUMNS = 64, /* that lie side by side in shared memory */
    TILE_BYTES = KEYS * TILE_COLUMNS * 2,
};

template <int DIM_> struct wide_shape {
    static constexpr int DIM = DIM_, SCORES = KEYS / 2, SUMS = DIM / 2; /* of a thread */
    static constexpr int KEY_BYTES = KEYS * DIM * 2;
    /* Queries, and two tiles of keys and of values. */
    static constexpr size_t SHARED = 5 * KEY_BYTES + STAGE_ALIGN;
    static constexpr int BLOCKS = DIM <= 64 ? 4 : 2; /* of a multiprocessor: its registers */
};

/* Where 8 columns of a row lie in a tile, swizzled as products want it. */
static __device__ __forceinline__ int place_of(int row, int columns)
{
    return columns / 8 * TILE_BYTES + row * TILE_COLUMNS * 2 + (columns % 8 ^ row % 8) * 16;
}

/* Rows from `first` on, before `end`, to a place in shared memory. */
template <typename S>
static __device__ __forceinline__ void fetch(char *to, const __half *from, size_t stride, int first,
                                             int end)
{
    enum { CHUNKS = S::DIM / 8, ROWS = THREADS / CHUNKS };
    const int c = (int)threadIdx.x % CHUNKS, row = (int)threadIdx.x / CHUNKS;
#pragma unroll
    for (int n = 0; n < KEYS / ROWS; n++) {
        const int i = row + n * ROWS;
        const bool there = first + i < end;
        const __half *own = from + (size_t)(unsigned)(there ? first + i : 0) * stride + c * 8;
        copy_or_clear_16(to + place_of(i, c), own, there);
    }
}

/* What is known of a thread's two queries. */
struct query_pair {
    float max[2], sum[2];
};

/* Scores to weights as pairs of binary16; what was summed with a smaller score as the largest is
 * scaled to it. */
template <typename S>
static __device__ __forceinline__ void weigh(query_pair &q, float (&score)[S::SCORES],
                                             float (&y)[S::SUMS], float scale,
                                             uint32_t weights[KEYS / 16][4])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float most = q.max[r];
#pragma unroll
        for (int i = r * 2; i < S::SCORES; i += 4)
            most = fmaxf(most, fmaxf(score[i], score[i + 1]));
        most = quad_max(most);
        const float rescale = q.max[r] == -INFINITY ? 0 : power_of_two((q.max[r] - most) * scale);
        const float shift =
            most == -INFINITY ? 0 : -most * scale; /* then there is nothing to see */
        q.max[r] = most;
        q.sum[r] *= rescale;
#pragma unroll
        for (int i = r * 2; i < S::SUMS; i += 4) {
            y[i] *= rescale;
            y[i + 1] *= rescale;
        }
#pragma unroll
        for (int i = r * 2; i < S::SCORES; i += 4) {
            const float u = power_of_two(__fmaf_rn(score[i], scale, shift));
            const float v = power_of_two(__fmaf_rn(score[i + 1], scale, shift));
            q.sum[r] += u + v;
            weights[i / 8][i / 4 % 2 * 2 + r] = half_pair(u, v);
        }
    }
}

template <typename S>
static __global__ void __launch_bounds__(THREADS, S::BLOCKS)
    attend_wide(const __grid_constant__ cuda_attention_args a)
{
    if (!BG_WGMMA_HERE) __trap(); /* the driver took code for another architecture */
    extern __shared__ char room[];
    char *const queries = room + (STAGE_ALIGN - shared_address(room) % STAGE_ALIGN) % STAGE_ALIGN;
    char *const tiles = queries + S::KEY_BYTES;
    /* The step's data are older than all that is queued. */
    const cuda_sequence s = a.sequences[blockIdx.z];
    /* The last queries see the most keys: they begin first. */
    const int first = (int)(gridDim.x - 1 - blockIdx.x) * QUERIES;
    const int last = min(first + QUERIES, s.rows) - 1;
    const unsigned head = blockIdx.y, kv = head / (unsigned)(a.n_heads / a.n_kv_heads);
    const int lane = (int)threadIdx.x % WARP, own = first + (int)threadIdx.x / WARP * 16;
    const size_t stride = (a.n_heads + 2 * a.n_kv_heads) * S::DIM;
    const __half *const rows = (const __half *)a.halves + (size_t)s.first_row * stride;
    const __half *const keys = rows + (a.n_heads + kv) * S::DIM;
    const __half *const values = keys + a.n_kv_heads * S::DIM;
    const int begin = visible_to(a, s, first).first, end = visible_to(a, s, last).end;
    /* What all of the block's queries see. */
    const int low = visible_to(a, s, last).first, high = visible_to(a, s, first).end;
    wait_for_earlier();
    let_next_start();
    if (first >= s.rows) return;

    fetch<S>(queries, rows + head * S::DIM, stride, first, s.rows);
    fetch<S>(tiles, keys, stride, begin, end);
    fetch<S>(tiles + S::KEY_BYTES, values, stride, begin, end);
    end_of_group();
    key_range sees[2];
    for (int r = 0; r < 2; r++) sees[r] = visible_to(a, s, min(own + lane / 4 + r * 8, last));
    query_pair q = {{-INFINITY, -INFINITY}, {0, 0}};
    float y[S::SUMS];
#pragma unroll
    for (int i = 0; i < S::SUMS; i++) y[i] = 0;
    const float scale = a.scale * LOG2_E;
    const uint32_t query = shared_address(queries);
#pragma unroll 1
    for (int tile = begin, i = 0; tile < end; tile += KEYS, i ^= 1) {
        wait_for_groups<0>();
        show_to_products();
        __syncthreads();
        if (tile + KEYS < end) {
            char *const next = tiles + (i ^ 1) * 2 * S::KEY_BYTES;
            fetch<S>(next, keys, stride, tile + KEYS, end);
            fetch<S>(next + S::KEY_BYTES, values, stride, tile + KEYS, end);
            end_of_group();
        }
        const uint32_t at = shared_address(tiles + i * 2 * S::KEY_BYTES);
        float score[S::SCORES];
        begin_products();
#pragma unroll
        for (int k = 0; k < S::DIM / 16; k++)
            multiply_tiles(score, tile_at(query + k / 4 * TILE_BYTES) + k % 4 * 2,
                           tile_at(at + k / 4 * TILE_BYTES) + k % 4 * 2, k > 0);
        end_of_products();
        wait_for_products<0>();
        keep_behind(score);
        if (tile < low || tile + KEYS > high)
#pragma unroll
            for (int k = 0; k < S::SCORES; k++) {
                const int key = tile + k / 4 * 8 + lane % 4 * 2 + k % 2;
                const key_range &range = sees[k / 2 % 2];
                if (key < range.first || key >= range.end) score[k] = -INFINITY;
            }
        uint32_t weights[KEYS / 16][4];
        weigh<S>(q, score, y, scale, weights);
        keep_behind(y);
        begin_products();
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++)
            multiply_rows(y, weights[k], tile_at(at + S::KEY_BYTES, TILE_BYTES) + k * 128);
        end_of_products();
        wait_for_products<0>();
        keep_behind(y);
    }

#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = own + lane / 4 + r * 8;
        const float sum = quad_sum(q.sum[r]), inverse = sum > 0 ? 1.0f / sum : 0;
        if (row > last) continue;
        const size_t to =
            (size_t)(s.first_row + row) * a.out_stride + head * S::DIM + (size_t)(lane % 4 * 2);
#pragma unroll
        for (int i = r * 2; i < S::SUMS; i += 4) {
            const float u = y[i] * inverse, v = y[i + 1] * inverse;
            const size_t there = to + i / 4 * 8;
            if (!a.operand.alone) *(float2 *)(a.out + there) = make_float2(u, v);
            if (a.operand.out)
                ((uint32_t *)a.operand.out)[there / 2] = pack_pair(a.operand.type, u, v);
        }
    }
}

template <typename S>
static cudaError_t launch_shape(const cuda_attention_args *a, const cuda_launch *l)
{
    const dim3 grid(blocks_for(a->max_rows, QUERIES), (unsigned)a->n_heads,
                    (unsigned)a->n_sequences);
    return launch(attend_wide<S>, grid, THREADS, S::SHARED, *a, l);
}

bool bg_cuda_attends_wide(const cuda_attention_args *a, size_t n_rows, const cuda_launch *l)
{
#ifdef BG_WGMMA
    const size_t blocks = n_rows / QUERIES * a->n_heads;
    return l->warpgroups && (a->head_dim == 64 || a->head_dim == 128) && a->rounded &&
           !a->out_half && !a->position_bias && !a->query_norm.weight && !a->key_norm.weight &&
           (!a->rope || (a->turn && a->rope_dim == a->head_dim)) && attends_in_line(a) &&
           blocks >= 2 * (size_t)l->multiprocessors;
#else
    return false;
#endif
}

cudaError_t bg_cuda_attend_wide(const cuda_attention_args *a, const cuda_launch *l)
{
    return a->head_dim == 64 ? launch_shape<wide_shape<64>>(a, l)
                             : launch_shape<wide_shape<128>>(a, l);
}
