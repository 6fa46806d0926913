/* The kernel that runs a program. Its linear layers have weights of one family of formats, beside
 * 16-bit ones, and all of up to four rows of activations or all of more: one for all families would
 * need too many registers. Included by one file for each family. */
#ifndef BG_BACKEND_CUDA_PROGRAM_KERNEL_CUH
#define BG_BACKEND_CUDA_PROGRAM_KERNEL_CUH

#include "backend/cuda/program_attention.cuh"
#include "backend/cuda/program_linear.cuh"
#include "backend/cuda/program_rows.cuh"

struct program_args {
    const cuda_node *nodes;
    int n_nodes;
    unsigned *counters;
    const float *code; /* of 4-bit weights, and what its values are multiplied by in the table */
    float code_scale, pair_scale;  /* and its inverse */
    const float *scale_map;        /* of double quantization */
    const float *reciprocals;      /* of int8 */
    unsigned n_slots, piece_steps; /* of the ring, and of the longest piece */
    bool long_rows;                /* MOST_QUADS make a normed row short, USUAL_QUADS do not */
    bool joint;                    /* all 4-bit tiles that are abreast may be */
};

/* `room`: shared memory that the nodes need; the ring has the rest. */
typedef cudaError_t (*program_launch)(const program_args &args, size_t room, const cuda_launch *l);

/* Up to PACKED_ROWS rows of activations at once, and up to MOST_ROWS. */
cudaError_t program_f16_packed(const program_args &args, size_t room, const cuda_launch *l);
cudaError_t program_f16(const program_args &args, size_t room, const cuda_launch *l);
cudaError_t program_bf16_packed(const program_args &args, size_t room, const cuda_launch *l);
cudaError_t program_bf16(const program_args &args, size_t room, const cuda_launch *l);
cudaError_t program_int8_packed(const program_args &args, size_t room, const cuda_launch *l);
cudaError_t program_int8(const program_args &args, size_t room, const cuda_launch *l);
cudaError_t program_4bit_packed(const program_args &args, size_t room, const cuda_launch *l);
cudaError_t program_4bit(const program_args &args, size_t room, const cuda_launch *l);
cudaError_t program_4bit_dq_packed(const program_args &args, size_t room, const cuda_launch *l);
cudaError_t program_4bit_dq(const program_args &args, size_t room, const cuda_launch *l);

/* Room for what is declared in the kernel; nodes, tables and the ring have the rest. */
enum { SHARED_STATIC = 13 << 10 };

static inline size_t program_shared(const cuda_launch *l)
{
    return l->max_shared > SHARED_STATIC ? (size_t)l->max_shared - SHARED_STATIC : 0;
}

enum { NODE_WORDS = sizeof(cuda_node) / 4 };

static_assert(sizeof(cuda_node) % 8 == 0, "nodes are copied by 8 bytes");

/* A node to shared memory by the warps that run nodes; they may read it after wait_for_copies and a
 * barrier. (With words of it on their way to a register, the compiler has what comes next wait for
 * them.) */
static __device__ __forceinline__ void copy_node(const cuda_node *node, uint32_t *to)
{
    static_assert(NODE_WORDS <= STEP_THREADS * 2, "a thread has 8 bytes");
    const unsigned i = threadIdx.x * 2;
    if (i < NODE_WORDS) copy_few<8>(shared_address(to + i), (const uint32_t *)node + i);
}

/* The same by the copying warps, a part of it with each thread. */
struct node_words {
    enum { THREADS = COPY_THREADS, EACH = (NODE_WORDS + THREADS - 1) / THREADS };
    uint32_t words[EACH];

    __device__ __forceinline__ void ask(const cuda_node *node, unsigned thread)
    {
#pragma unroll
        for (unsigned k = 0; k < EACH; k++)
            if (thread + k * THREADS < NODE_WORDS)
                words[k] = __ldg((const uint32_t *)node + thread + k * THREADS);
    }
    __device__ __forceinline__ void put(uint32_t *to, unsigned thread) const
    {
#pragma unroll
        for (unsigned k = 0; k < EACH; k++)
            if (thread + k * THREADS < NODE_WORDS) to[thread + k * THREADS] = words[k];
    }
};

/* What the nodes' functions have for themselves. */
union rooms_of_nodes {
    input_rooms input;
    attention_rooms attention;
};

/* Sequences that attention finds in shared memory. */
enum { READY_SEQUENCES = 8, SEQUENCE_WORDS = sizeof(cuda_sequence) / 4 };

/* Gets a node's sequences, if it is attention, while the node before it runs: otherwise they would
 * have to come from memory before the keys can be asked for. These, too, get a start. */
static __device__ __forceinline__ void get_sequences(const cuda_node &node, uint32_t *to)
{
    if (node.kind != NODE_ATTEND_ONE) return;
    const cuda_attention_args &a = node.args.attention;
    const uint32_t *from = (const uint32_t *)a.sequences;
    const unsigned n = (unsigned)a.n_sequences;
    for (unsigned i = threadIdx.x % WARP; i < min(n, (unsigned)READY_SEQUENCES) * SEQUENCE_WORDS;
         i += WARP)
        to[i] = __ldcg(from + i);
    __syncwarp();
    fetch_rows(a, n <= READY_SEQUENCES ? (const cuda_sequence *)to : a.sequences);
}

/* Tables to the beginning of shared memory, tile_shape's, by the warps that run nodes. */
template <kind K>
static __device__ __forceinline__ void fill_tables(const program_args &p, char *tables)
{
    if constexpr (K == KIND_INT8)
        for (unsigned i = threadIdx.x; i < RECIPROCAL_BYTES / 4; i += STEP_THREADS)
            ((float *)tables)[i] = __ldg(p.reciprocals + i);
    if constexpr (K == KIND_4BIT_DQ)
        for (unsigned i = threadIdx.x; i < SCALE_MAP_BYTES / 4; i += STEP_THREADS)
            ((float *)(tables + PAIR_TABLE_BYTES))[i] = __ldg(p.scale_map + i);
    if constexpr (is_4bit(K)) {
        static_assert(STEP_THREADS == 256, "a thread for each pair of codes");
        const unsigned byte = threadIdx.x;
        const __half2 pair = __floats2half2_rn(__ldg(p.code + (byte >> 4)) * p.code_scale,
                                               __ldg(p.code + (byte & 15)) * p.code_scale);
        const uint32_t word = *(const uint32_t *)&pair;
        uint4 *to = (uint4 *)tables + byte * (WARP / 4);
#pragma unroll
        for (unsigned i = 0; i < WARP / 4; i++)
            to[(i + byte) % (WARP / 4)] = make_uint4(word, word, word, word);
    }
}

/* Beside layers of weights of K, a program of quantized weights runs those that are spared, with
 * 16-bit weights: f(kind) with the layer's as a constant. */
template <kind K> struct kind_constant {
    static constexpr kind value = K;
};

template <kind K, typename F>
static __device__ __forceinline__ void with_kind(const cuda_linear_args &a, F f)
{
    if constexpr (K != KIND_F16 && K != KIND_BF16) {
        if (a.w[0].format == BG_FORMAT_F16) return f(kind_constant<KIND_F16>{});
        if (a.w[0].format == BG_FORMAT_BF16) return f(kind_constant<KIND_BF16>{});
    }
    f(kind_constant<K>{});
}

/* What the copying warps do. The next node comes while they copy this one's weights. */
template <kind K, bool JOINT>
static __device__ __forceinline__ void copy_all(const program_args &p, uint32_t *node, ring weights)
{
    const unsigned thread = threadIdx.x - STEP_THREADS;
    node_words next;
    next.ask(p.nodes, thread);
    for (int i = 0; i < p.n_nodes; i++) {
        copy_sync();
        next.put(node, thread);
        copy_sync();
        if (i + 1 < p.n_nodes) next.ask(p.nodes + i + 1, thread);
        const cuda_node &now = *(const cuda_node *)node;
        if (now.kind != NODE_LINEAR) continue;
        with_kind<K>(now.args.linear, [&](auto k) INLINE {
            constexpr kind OWN = decltype(k)::value;
            copy_weights<OWN, JOINT && is_4bit(OWN)>(now.args.linear, weights);
        });
    }
}

/* A block's first warp, when it has run the last node. Nobody waits any more when the last block
 * leaves; it writes what was chosen. Called, as all that comes before has too few registers with it
 * inlined. */
static __device__ __noinline__ void leave(const cuda_node &last, unsigned *counters)
{
    const cuda_linear_args &a = last.args.linear;
    const bool chooses = last.kind == NODE_LINEAR && a.choice.ids;
    unsigned left = 0;
    if (chooses) __threadfence();
    __syncwarp();
    if (threadIdx.x == 0) left = atomicAdd(counters + 1, 1u) + 1;
    if (__shfl_sync(0xFFFFFFFF, left, 0) < gridDim.x) return;
    if (threadIdx.x < CUDA_PROGRAM_COUNTERS) counters[threadIdx.x] = 0;
    if (!chooses) return;
    __threadfence();
    for (unsigned m = threadIdx.x; m < (unsigned)a.n_rows; m += WARP)
        write_choice(a.choice, m, load_fresh(a.choice.largest + m));
}

static_assert(3 * sizeof(cuda_node) + sizeof(rooms_of_nodes) + sizeof(ring_barriers) <=
                  SHARED_STATIC - 1024,
              "room for what is declared, and for what the driver takes");

template <kind K, bool PACKED, int Q, bool JOINT>
static __global__ void __launch_bounds__(BLOCK_THREADS, 1) run_program(program_args p)
{
#if __CUDA_ARCH__ >= 800
    extern __shared__ __align__(128) char tables[];
    __shared__ __align__(16) uint32_t nodes[2][NODE_WORDS], copied[NODE_WORDS];
    __shared__ __align__(16) rooms_of_nodes room_of_nodes;
    __shared__ ring_barriers barriers;
    __shared__ __align__(8) uint32_t sequences[2][READY_SEQUENCES * SEQUENCE_WORDS];
    ring weights = {tables + tile_shape<K>::TABLES, &barriers, p.piece_steps * step_shape<K>::PITCH,
                    p.n_slots};
    char *room = weights.slots + p.n_slots * weights.slot_bytes;
    rooms_of_nodes &rooms = *settled_room(&room_of_nodes);
    const all_blocks blocks = {p.counters};
    if (threadIdx.x < STEP_THREADS) init_ring(weights);
    for (unsigned i = threadIdx.x; i < NODE_WORDS; i += blockDim.x)
        nodes[0][i] = __ldg((const uint32_t *)p.nodes + i);
    __syncthreads();
    if (threadIdx.x >= STEP_THREADS + COPY_THREADS) {
        unsigned times = 0;
        bool beside = false; /* nobody waits between the two nodes */
        for (int i = 0; i < p.n_nodes; i++) {
            if (!beside && i > 0) blocks.arrive();
            if (!beside) blocks.watch(times++);
            beside = p.nodes[i].beside;
            if (i + 1 < p.n_nodes) get_sequences(p.nodes[i + 1], sequences[(i + 1) & 1]);
        }
        return;
    }
    if (threadIdx.x >= STEP_THREADS) {
        weights.slot = threadIdx.x / WARP - STEP_WARPS;
        copy_all<K, JOINT>(p, copied, weights);
        return;
    }
    fill_tables<K>(p, tables); /* the first node has a barrier before it reads them */
    weights.slot = threadIdx.x / WARP;
    if constexpr (K == KIND_INT8) weights.barriers = settled_room(weights.barriers);
    bool waits = true; /* what the node reads other blocks may still write */
    for (int i = 0; i < p.n_nodes; i++) {
        const cuda_node &node = *(const cuda_node *)nodes[i & 1];
        if (i + 1 < p.n_nodes) copy_node(p.nodes + i + 1, nodes[(i + 1) & 1]);
        const bool last = i + 1 == p.n_nodes, beside = node.beside && !last;
        switch (node.kind) {
        case NODE_EMBED:
            run_embed(node.args.embed, blocks);
            break;
        case NODE_NORM:
            run_norm(node.args.norm, blocks, rooms.input, room);
            break;
        case NODE_COPY:
            run_copy(node.args.copy, blocks);
            break;
        case NODE_ATTEND_ONE:
            waits = !run_attention<K == KIND_INT8>(node.args.attention,
                                                   i > 0 && node.args.attention.n_sequences <=
                                                                READY_SEQUENCES
                                                       ? (const cuda_sequence *)sequences[i & 1]
                                                       : node.args.attention.sequences,
                                                   blocks, rooms.attention, room);
            if (waits && !beside) blocks.wait();
            break;
        default:
            with_kind<K>(node.args.linear, [&](auto k) INLINE {
                constexpr kind OWN = decltype(k)::value;
                run_linear<OWN, PACKED, K == KIND_INT8, Q, JOINT && is_4bit(OWN)>(
                    node.args.linear, waits, !last, blocks, weights, tables, p.pair_scale, room,
                    rooms.input);
            });
            waits = true;
            continue;
        }
        if (last) break;
        wait_for_copies();
        if (beside) {
            step_sync();
            continue;
        }
        blocks.done();
        waits = true;
    }
    if (threadIdx.x < WARP) leave(*(const cuda_node *)nodes[(p.n_nodes - 1) & 1], p.counters);
#endif
}

template <kind K, bool PACKED>
static cudaError_t launch_program(const program_args &args, size_t room, const cuda_launch *l)
{
    /* More quads and two tiles at once take registers: kernels for double-quantized weights have
     * none for more quads, and those for many rows none for either. */
    constexpr int LONG = PACKED && K != KIND_4BIT_DQ ? MOST_QUADS : USUAL_QUADS;
    auto kernel = run_program<K, PACKED, USUAL_QUADS, false>;
    if constexpr (PACKED && is_4bit(K)) {
        if (args.joint)
            kernel = args.long_rows ? run_program<K, PACKED, LONG, true>
                                    : run_program<K, PACKED, USUAL_QUADS, true>;
    } else if (args.long_rows) {
        kernel = run_program<K, PACKED, LONG, false>;
    }
    program_args p = args;
    const size_t slot = (size_t)p.piece_steps * step_shape<K>::PITCH;
    const size_t slots = (program_shared(l) - tile_shape<K>::TABLES - room) / slot;
    p.n_slots = (unsigned)(slots < MOST_SLOTS ? slots : MOST_SLOTS);
    while (!is_ring_length(p.n_slots)) p.n_slots--;
    const size_t shared = tile_shape<K>::TABLES + p.n_slots * slot + room;
    cudaError_t e = cudaFuncSetAttribute((const void *)kernel,
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    if (e != cudaSuccess) return e;
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)l->multiprocessors);
    config.blockDim = dim3(BLOCK_THREADS);
    config.dynamicSmemBytes = shared;
    config.stream = l->stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, kernel, p);
}

#endif
