/* The queue. An operation's nodes wait here until a result is wanted. Neighbours that a program
 * takes (program.cuh) are launched as one where they are many, others by a kernel each. The same
 * nodes with the same arguments, as every step of a decoding loop has them, are a graph that was
 * made the second time and is launched with one call. Equal arguments, addresses included, mean
 * equal launches, so a graph cannot be out of date. */
#include "backend/cuda/cuda.h"
#include "backend/cuda/program.h"

#include "core/alloc.h"
#include "core/checked.h"

#include <string.h>

enum {
    STEP_ALIGN = 16,
    STEP_LEAST = 256 << 10,
    LOOKS = 1 << 12, /* before the driver is asked whether there was an error */
};

static size_t parts_bytes(const cuda_backend *cuda)
{
    return (size_t)cuda->launch.multiprocessors * CUDA_PART_FLOATS * sizeof *cuda->parts;
}

/* ---- the nodes' kernels ---------------------------------------------------------------------- */

#define RUNS(name, function, member)                                                               \
    static cudaError_t name(cuda_backend *cuda, const cuda_node *n)                                \
    {                                                                                              \
        return function(&n->args.member, &cuda->launch);                                           \
    }

RUNS(run_embed, bg_cuda_embed, embed)
RUNS(run_norm, bg_cuda_norm_rows, norm)
RUNS(run_norm_many, bg_cuda_norm_many, norm)
RUNS(run_copy, bg_cuda_copy_rows, copy)
RUNS(run_linear, bg_cuda_linear, linear)
RUNS(run_quantize, bg_cuda_quantize, quantize)
RUNS(run_list, bg_cuda_list, list)
RUNS(run_gather, bg_cuda_gather, gather)
RUNS(run_convert, bg_cuda_convert, convert)
RUNS(run_decode, bg_cuda_decode, decode)
RUNS(run_finish, bg_cuda_finish, finish)
RUNS(run_tile, bg_cuda_product_tile, tile)
RUNS(run_mma, bg_cuda_product_mma, mma)
RUNS(run_place, bg_cuda_place, attention)
RUNS(run_attend, bg_cuda_attend, attention)
RUNS(run_attend_one, bg_cuda_attend_one, attention)
RUNS(run_argmax, bg_cuda_argmax, head)
RUNS(run_sample, bg_cuda_sample, sample)
RUNS(run_score, bg_cuda_score, head)
RUNS(run_score_panel, bg_cuda_score_panel, score)
RUNS(run_score_panels, bg_cuda_score_panels, score)
RUNS(run_wide, bg_cuda_wide, wide)

static cudaError_t run_gemm(cuda_backend *cuda, const cuda_node *n)
{
    return cuda_matmul_run(cuda, &n->args.gemm);
}

static const struct {
    const char *name;
    cudaError_t (*run)(cuda_backend *cuda, const cuda_node *n);
} kinds[NODE_KINDS] = {
    [NODE_EMBED] = {"the embedding", run_embed},
    [NODE_NORM] = {"a norm", run_norm},
    [NODE_NORM_MANY] = {"a norm of many rows", run_norm_many},
    [NODE_COPY] = {"copying rows", run_copy},
    [NODE_LINEAR] = {"a linear layer of few rows", run_linear},
    [NODE_QUANTIZE] = {"quantizing activations", run_quantize},
    [NODE_LIST] = {"listing outliers", run_list},
    [NODE_GATHER] = {"gathering outliers", run_gather},
    [NODE_CONVERT] = {"converting activations", run_convert},
    [NODE_DECODE] = {"decoding weights", run_decode},
    [NODE_GEMM] = {"a matrix product (cuBLASLt)", run_gemm},
    [NODE_FINISH] = {"a linear layer's end", run_finish},
    [NODE_TILE] = {"a linear layer in tiles", run_tile},
    [NODE_MMA] = {"a linear layer of some rows", run_mma},
    [NODE_PLACE] = {"writing keys and values", run_place},
    [NODE_ATTEND] = {"attention", run_attend},
    [NODE_ATTEND_ONE] = {"attention of one query", run_attend_one},
    [NODE_ARGMAX] = {"the largest logit", run_argmax},
    [NODE_SAMPLE] = {"drawing a token", run_sample},
    [NODE_SCORE] = {"log-likelihoods", run_score},
    [NODE_SCORE_PANEL] = {"log-likelihoods of a panel", run_score_panel},
    [NODE_SCORE_PANELS] = {"log-likelihoods of all panels", run_score_panels},
    [NODE_WIDE] = {"a matrix product of many rows", run_wide},
};

/* ---- programs -------------------------------------------------------------------------------- */

/* A stretch of nodes that run at once: as a program, or one by a kernel of its own. */
typedef struct {
    size_t n;
    size_t n_chosen; /* nodes behind them that the program's last one does, too */
    cuda_program_room room;
    bool program;
    bool narrow; /* it ends where the next node would want more room than there is */
} stretch;

/* A program takes longer to start than a few kernels one after the other. */
enum { PROGRAM_NODES = 8 };

/* Whether a node chooses from a layer's outputs as programs can: the largest, of 16-bit weights. */
static bool chooses_from(const cuda_node *n, const cuda_node *layer)
{
    const cuda_head_args *head = &n->args.head;
    const cuda_linear_args *a = &layer->args.linear;
    return n->kind == NODE_ARGMAX && layer->kind == NODE_LINEAR && a->n_parts == 1 &&
           bg_formats[a->w[0].format].bits == 16 && a->epilogue[0].out == head->logits &&
           a->epilogue[0].out_stride == head->cols && a->w[0].rows == head->cols &&
           a->n_rows == head->n_rows;
}

/* The stretch that begins with a node, its weights in pieces of up to so many steps. Plans are
 * written to cuda->planned. */
static stretch stretch_of(cuda_backend *cuda, size_t first, unsigned most_steps)
{
    stretch s = {0};
    const cuda_node *linear = NULL;
    bool needed = false; /* some layers only a program can run */
    for (size_t i = first; i < cuda->n_nodes && (s.n == 0 || !cuda->check_each); i++) {
        cuda_node *n = &cuda->planned[i];
        cuda_program_room room;
        *n = cuda->nodes[i];
        if (s.n > 0 && chooses_from(n, n - 1)) {
            n[-1].args.linear.choice = n->args.head.choice;
            s.n_chosen = 1;
            break;
        }
        const cuda_node *beside = i > first && n[-1].beside ? n - 1 : NULL;
        if (!bg_cuda_program_plan(n, beside, &cuda->launch, most_steps, &room)) break;
        const cuda_node *leader = linear;
        if (n->kind == NODE_LINEAR && bg_cuda_program_leads(n, linear)) {
            bool all = true; /* the nodes before it may be of another kind's programs */
            for (size_t k = first; k < i; k++) all &= bg_cuda_program_joins(n, &cuda->planned[k]);
            if (!all && !linear) return (stretch){.n = 1};
            if (!all) break;
            leader = n;
        } else if (linear && !bg_cuda_program_joins(linear, n)) {
            break;
        }
        s.narrow = !bg_cuda_program_shares(&s.room, &room, &cuda->launch);
        if (s.narrow) break;
        linear = leader;
        needed |=
            n->kind == NODE_LINEAR && bg_cuda_linear_needs_program(&n->args.linear, &cuda->launch);
        s.n++;
        if (s.n > 2 && n[-2].beside)
            bg_cuda_program_divide(n - 1, n, n - 2, cuda->shares, &cuda->launch, most_steps,
                                   &s.room);
    }
    if (!linear || (s.n + s.n_chosen < PROGRAM_NODES && !needed && !cuda->check_each))
        return (stretch){.n = 1, .narrow = s.narrow};
    s.program = true;
    return s;
}

/* Steps that a piece may have in a program that begins with a node, by its first layer. Pieces of
 * 4-bit weights are short: a ring of few long ones is refilled late. */
static unsigned most_steps_from(const cuda_backend *cuda, size_t first)
{
    for (size_t i = first; i < cuda->n_nodes; i++)
        if (cuda->nodes[i].kind == NODE_LINEAR)
            return bg_formats[cuda->nodes[i].args.linear.w[0].format].bits == 4 ? CUDA_SHORT_STEPS
                                                                                : CUDA_MOST_STEPS;
    return CUDA_MOST_STEPS;
}

/* A node of many values leaves room for short pieces alone: then others have them, too, if the
 * stretch is longer for it. */
static stretch next_stretch(cuda_backend *cuda, size_t first)
{
    unsigned steps = most_steps_from(cuda, first), last = steps;
    stretch best = stretch_of(cuda, first, steps);
    while (best.narrow && last > CUDA_SHORT_STEPS) {
        const stretch s = stretch_of(cuda, first, last -= 2);
        if (s.n <= best.n) continue;
        best = s;
        steps = last;
    }
    return steps == last ? best : stretch_of(cuda, first, steps);
}

/* Launches what is queued; `there` is where the planned nodes lie on the device. */
static bg_status launch_all(cuda_backend *cuda, const cuda_node *there, bg_error *err)
{
    const cudaStream_t stream = cuda->launch.stream;
    for (size_t i = 0; i < cuda->n_nodes;) {
        const cuda_node *n = &cuda->planned[i];
        const stretch s = next_stretch(cuda, i);
        const char *name = s.n > 1 ? "a program" : kinds[n->kind].name;
        cudaError_t e =
            s.program ? bg_cuda_program(n, there + i, s.n, cuda->counters, s.room, &cuda->launch)
                      : kinds[n->kind].run(cuda, n);
        if (e == cudaSuccess && cuda->check_each) e = cudaStreamSynchronize(stream);
        BG_TRY(cuda_check(e, name, err));
        i += s.n + s.n_chosen;
    }
    return BG_OK;
}

/* Plans all nodes and copies them to the device. */
static bg_status send_nodes(cuda_backend *cuda, cuda_node *there, bg_error *err)
{
    for (size_t i = 0; i < cuda->n_nodes;) {
        const stretch s = next_stretch(cuda, i);
        i += s.n + s.n_chosen;
    }
    return cuda_check(cudaMemcpyAsync(there, cuda->planned, cuda->n_nodes * sizeof *there,
                                      cudaMemcpyHostToDevice, cuda->launch.stream),
                      "copying a program", err);
}

/* ---- waiting --------------------------------------------------------------------------------- */

static bg_status wait_for_all(cuda_backend *cuda, bg_error *err)
{
    BG_TRY(cuda_check(cudaStreamSynchronize(cuda->launch.stream), "what was queued", err));
    cuda->finished = cuda->launched;
    return BG_OK;
}

bg_status cuda_look_for(cuda_backend *cuda, const int32_t *word, int32_t unwritten, bg_error *err)
{
    for (unsigned looks = 1; __atomic_load_n(word, __ATOMIC_ACQUIRE) == unwritten; looks++) {
        if (looks % LOOKS != 0) continue;
        const cudaError_t e = cudaStreamQuery(cuda->launch.stream);
        if (e != cudaErrorNotReady) return cuda_check(e, "what was queued", err);
    }
    return BG_OK;
}

/* ---- graphs ---------------------------------------------------------------------------------- */

static cuda_graph *find_graph(cuda_backend *cuda)
{
    for (int i = 0; i < MAX_GRAPHS; i++) {
        cuda_graph *g = &cuda->graphs[i];
        if (g->exec && g->n_nodes == cuda->n_nodes &&
            memcmp(g->nodes, cuda->nodes, g->n_nodes * sizeof *g->nodes) == 0)
            return g;
    }
    return NULL;
}

/* Whether these nodes were run before; remembers that they are now. */
static bool seen_before(cuda_backend *cuda)
{
    uint64_t hash = cuda->n_nodes * 0x9E3779B97F4A7C15ULL;
    const char *p = (const char *)cuda->nodes;
    for (size_t i = 0; i + 8 <= cuda->n_nodes * sizeof *cuda->nodes; i += 8) {
        uint64_t word;
        memcpy(&word, p + i, 8);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15ULL;
        hash ^= hash >> 29;
    }
    for (int i = 0; i < MAX_SEEN; i++)
        if (cuda->seen[i] == hash) return true;
    cuda->seen[cuda->n_seen++ % MAX_SEEN] = hash;
    return false;
}

static void free_graph(cuda_backend *cuda, cuda_graph *g)
{
    if (g->exec) cudaGraphExecDestroy(g->exec);
    cuda_release(cuda, g->there, g->n_nodes * sizeof *g->there);
    bg_free(g->nodes);
    *g = (cuda_graph){0};
}

/* The queue as a graph, in the place of the one not used for longest. NULL where that fails: the
 * nodes can be launched one by one then. */
static cuda_graph *make_graph(cuda_backend *cuda)
{
    cuda_graph *g = &cuda->graphs[0];
    for (int i = 1; i < MAX_GRAPHS; i++)
        if (cuda->graphs[i].last_use < g->last_use) g = &cuda->graphs[i];
    const bool idle = wait_for_all(cuda, NULL) == BG_OK;
    free_graph(cuda, g);
    const size_t n = cuda->n_nodes;
    cudaGraph_t graph = NULL;
    g->n_nodes = n;
    g->there = cuda_alloc(cuda, n * sizeof *g->there, "a program", NULL);
    g->nodes = bg_alloc_array(n, sizeof *g->nodes);
    bool ok = idle && g->there && g->nodes && send_nodes(cuda, g->there, NULL) == BG_OK &&
              cudaStreamSynchronize(cuda->launch.stream) == cudaSuccess &&
              cudaStreamBeginCapture(cuda->launch.stream, cudaStreamCaptureModeThreadLocal) ==
                  cudaSuccess;
    if (ok) {
        ok = launch_all(cuda, g->there, NULL) == BG_OK;
        ok = cudaStreamEndCapture(cuda->launch.stream, &graph) == cudaSuccess && ok;
    }
    if (ok) ok = cudaGraphInstantiate(&g->exec, graph, 0) == cudaSuccess;
    if (graph) cudaGraphDestroy(graph);
    if (!ok) {
        cudaGetLastError();
        free_graph(cuda, g);
        cuda->use_graphs = false; /* nor would the next */
        return NULL;
    }
    memcpy(g->nodes, cuda->nodes, n * sizeof *g->nodes);
    return g;
}

/* Not where each kernel is waited for, and not for a handful of launches. */
static cuda_graph *get_graph(cuda_backend *cuda)
{
    if (!cuda->use_graphs || cuda->check_each || cuda->n_nodes < 4) return NULL;
    cuda_graph *g = find_graph(cuda);
    if (!g && seen_before(cuda)) g = make_graph(cuda);
    if (g) g->last_use = ++cuda->uses;
    return g;
}

/* ---- running it ------------------------------------------------------------------------------ */

/* Copies the step's data; while another step runs, beside it. */
static bg_status send_step(cuda_backend *cuda, bg_error *err)
{
    const cuda_step *step = cuda->step;
    const bool beside = cuda->finished < cuda->launched;
    const cudaStream_t stream = beside ? cuda->copies : cuda->launch.stream;
    cudaError_t e = cudaSuccess;
    if (cuda->step_bytes == 0) return BG_OK;
    e = cudaMemcpyAsync(step->device, step->host, cuda->step_bytes, cudaMemcpyHostToDevice, stream);
    if (e == cudaSuccess && beside) e = cudaEventRecord(cuda->copied, stream);
    if (e == cudaSuccess && beside) e = cudaStreamWaitEvent(cuda->launch.stream, cuda->copied, 0);
    return cuda_check(e, "copying a step's data", err);
}

bg_status cuda_start(cuda_backend *cuda, bg_error *err)
{
    if (cuda->n_nodes == 0) return BG_OK;
    cuda_graph *g = get_graph(cuda);
    bg_status status = send_step(cuda, err);
    if (status == BG_OK && g)
        status = cuda_check(cudaGraphLaunch(g->exec, cuda->launch.stream), "a step", err);
    if (status == BG_OK && !g) status = send_nodes(cuda, cuda->there, err);
    if (status == BG_OK && !g) status = launch_all(cuda, cuda->there, err);
    cuda->step->read_by = ++cuda->launched;
    const bool rest = cuda->step == &cuda->steps[CUDA_REST];
    cuda->step = rest ? cuda->after_rest : &cuda->steps[cuda->step == cuda->steps];
    cuda->n_nodes = cuda->step_bytes = cuda->sequences_bytes = 0;
    return status;
}

bg_status cuda_start_early(cuda_backend *cuda, bg_error *err)
{
    if (cuda->finished < cuda->launched || cuda->n_nodes == 0) return BG_OK;
    BG_TRY(cuda_start(cuda, err));
    cuda->after_rest = cuda->step;
    cuda->step = &cuda->steps[CUDA_REST];
    return BG_OK;
}

/* Where nothing runs, the next step's data goes to the first place: texts then have the same
 * graphs, however many steps there were before. */
void cuda_has_finished(cuda_backend *cuda)
{
    cuda->finished = cuda->launched;
    cuda->step = cuda->steps;
    cuda->step_bytes = cuda->sequences_bytes = 0;
}

bg_status cuda_flush(cuda_backend *cuda, bg_error *err)
{
    const bg_status status = cuda_start(cuda, err);
    const bg_status waited = wait_for_all(cuda, status == BG_OK ? err : NULL);
    cuda->step = cuda->steps;
    cuda->step_bytes = cuda->sequences_bytes = 0;
    return status != BG_OK ? status : waited;
}

void cuda_run_first(cuda_backend *cuda)
{
    if (cuda->n_nodes > 0 || cuda->finished < cuda->launched) cuda_flush(cuda, NULL);
}

static void free_steps(cuda_backend *cuda)
{
    for (int i = 0; i < CUDA_STEPS; i++) {
        cudaFreeHost(cuda->steps[i].host);
        cuda_release(cuda, cuda->steps[i].device, cuda->steps[i].bytes);
        cuda->steps[i] = (cuda_step){0};
    }
    cuda->step_capacity = 0;
}

void cuda_queue_free(cuda_backend *cuda)
{
    for (int i = 0; i < MAX_GRAPHS; i++) free_graph(cuda, &cuda->graphs[i]);
    bg_free(cuda->nodes);
    bg_free(cuda->planned);
    cuda_release(cuda, cuda->there, MAX_NODES * sizeof *cuda->there);
    cuda_release(cuda, cuda->counters, CUDA_PROGRAM_COUNTERS * sizeof *cuda->counters);
    cuda_release(cuda, cuda->parts, parts_bytes(cuda));
    cuda_release(cuda, cuda->shares, CUDA_SHARES_FLOATS * sizeof(float));
    free_steps(cuda);
    if (cuda->copied) cudaEventDestroy(cuda->copied);
    if (cuda->copies) cudaStreamDestroy(cuda->copies);
}

bg_status cuda_queue_create(cuda_backend *cuda, bg_error *err)
{
    cuda->step = cuda->steps;
    cuda->nodes = bg_calloc(MAX_NODES, sizeof *cuda->nodes);
    cuda->planned = bg_calloc(MAX_NODES, sizeof *cuda->planned);
    if (!cuda->nodes || !cuda->planned)
        return bg_fail_memory(err, MAX_NODES * sizeof *cuda->nodes, "the queue");
    cuda->there = cuda_alloc(cuda, MAX_NODES * sizeof *cuda->there, "the queue", err);
    cuda->counters =
        cuda_alloc(cuda, CUDA_PROGRAM_COUNTERS * sizeof *cuda->counters, "the queue", err);
    cuda->parts = cuda_alloc(cuda, parts_bytes(cuda), "the queue", err);
    cuda->shares = cuda_alloc(cuda, CUDA_SHARES_FLOATS * sizeof(float), "the queue", err);
    if (!cuda->there || !cuda->counters || !cuda->parts || !cuda->shares) return BG_ERR_MEMORY;
    BG_TRY(cuda_check(cudaStreamCreateWithFlags(&cuda->copies, cudaStreamNonBlocking), "the queue",
                      err));
    BG_TRY(cuda_check(cudaEventCreateWithFlags(&cuda->copied, cudaEventDisableTiming), "the queue",
                      err));
    BG_TRY(cuda_check(cudaMemset(cuda->parts, 0xFF, parts_bytes(cuda)), "the queue", err));
    return cuda_check(cudaMemset(cuda->counters, 0, CUDA_PROGRAM_COUNTERS * sizeof *cuda->counters),
                      "the queue", err);
}

/* ---- filling it ------------------------------------------------------------------------------ */

/* Nothing is queued, and nothing runs. */
static bg_status grow_steps(cuda_backend *cuda, size_t bytes, bg_error *err)
{
    for (int i = 0; i < MAX_GRAPHS; i++) free_graph(cuda, &cuda->graphs[i]);
    free_steps(cuda);
    bytes = bg_max_size(2 * bytes, STEP_LEAST);
    for (int i = 0; i < CUDA_STEPS; i++) {
        cuda_step *step = &cuda->steps[i];
        void *p = NULL;
        BG_TRY(cuda_check(cudaHostAlloc(&p, bytes, 0), "a step's data", err));
        step->host = p;
        step->device = cuda_alloc(cuda, bytes, "a step's data", err);
        if (!step->device) return BG_ERR_MEMORY;
        step->bytes = bytes;
    }
    cuda->step_capacity = bytes;
    return BG_OK;
}

bg_status cuda_begin(cuda_backend *cuda, size_t step_bytes, size_t n_nodes, bg_error *err)
{
    step_bytes += 4 * STEP_ALIGN;
    if (n_nodes > MAX_NODES)
        return bg_fail(err, BG_ERR_INTERNAL, "an operation of %zu kernels; at most %d are possible",
                       n_nodes, MAX_NODES);
    if (step_bytes > cuda->step_capacity - cuda->step_bytes || n_nodes > MAX_NODES - cuda->n_nodes)
        BG_TRY(cuda_flush(cuda, err));
    else if (cuda->step->read_by > cuda->finished)
        BG_TRY(wait_for_all(cuda, err));
    return step_bytes > cuda->step_capacity ? grow_steps(cuda, step_bytes, err) : BG_OK;
}

const void *cuda_put(cuda_backend *cuda, const void *data, size_t n)
{
    char *to = cuda->step->host + cuda->step_bytes;
    const void *there = cuda->step->device + cuda->step_bytes;
    memcpy(to, data, n);
    cuda->step_bytes += (n + STEP_ALIGN - 1) / STEP_ALIGN * STEP_ALIGN;
    return there;
}

void *cuda_put_zeros(cuda_backend *cuda, size_t n)
{
    char *there = cuda->step->device + cuda->step_bytes;
    memset(cuda->step->host + cuda->step_bytes, 0, n);
    cuda->step_bytes += (n + STEP_ALIGN - 1) / STEP_ALIGN * STEP_ALIGN;
    return there;
}

cuda_node *cuda_push(cuda_backend *cuda, node_kind kind)
{
    cuda_node *n = &cuda->nodes[cuda->n_nodes++];
    memset(n, 0, sizeof *n);
    n->kind = kind;
    return n;
}
