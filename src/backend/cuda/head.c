/* The output head: logits in chunks of rows, so that those of a whole text are never in memory at
 * once, and reduced where they arise. */
#include "backend/cuda/cuda.h"

#include "core/checked.h"

#include <string.h>

/* Bytes of a chunk's logits, and at least so many rows of them. */
enum { CHUNK_BYTES = 128 << 20, CHUNK_ROWS = 8 };

typedef struct {
    const bg_weight *head, *bias;
    const bg_act *in;
    size_t rows; /* of a chunk */
} head_loop;

static bg_status begin(cuda_backend *cuda, head_loop *loop, size_t n_rows, bg_error *err)
{
    const size_t cols = loop->head->rows;
    loop->rows = bg_max_size(CHUNK_BYTES / sizeof(float) / cols, CHUNK_ROWS);
    loop->rows = bg_min_size(loop->rows, n_rows);
    return cuda_reserve(cuda, &cuda->logits, loop->rows * cols * sizeof(float), err);
}

/* Queues the logits of rows [first, first + n). */
static bg_status chunk(cuda_backend *cuda, const head_loop *loop, size_t first, size_t n,
                       bg_error *err)
{
    const size_t cols = loop->head->rows;
    cuda_act rows = {.base = {n, loop->in->cols, loop->in->half},
                     .values = cuda_values(loop->in) + first * loop->in->cols};
    cuda_act logits = {.base = {n, cols, false}, .values = cuda->logits.data};
    const bg_linear args = {.weight = loop->head,
                            .bias = loop->bias,
                            .in = &rows.base,
                            .n_rows = n,
                            .out = &logits.base};
    return cuda_linear(&cuda->base, &args, err);
}

bg_status cuda_logits(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                      const bg_act *in, size_t n_rows, float *logits, bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    head_loop loop = {head, bias, in, 0};
    BG_TRY(begin(cuda, &loop, n_rows, err));
    for (size_t first = 0; first < n_rows; first += loop.rows) {
        const size_t n = bg_min_size(loop.rows, n_rows - first);
        BG_TRY(chunk(cuda, &loop, first, n, err));
        BG_TRY(cuda_flush(cuda, err));
        cudaError_t e = cudaMemcpyAsync(logits + first * head->rows, cuda->logits.data,
                                        n * head->rows * sizeof(float), cudaMemcpyDeviceToHost,
                                        cuda->launch.stream);
        if (e == cudaSuccess) e = cudaStreamSynchronize(cuda->launch.stream);
        BG_TRY(cuda_check(e, "reading logits", err));
    }
    return BG_OK;
}

static void push_largest(cuda_backend *cuda, const cuda_choice *choice, size_t n, size_t cols)
{
    cuda_head_args *a = &cuda_push(cuda, NODE_ARGMAX)->args.head;
    a->logits = cuda->logits.data;
    a->n_rows = n;
    a->cols = cols;
    a->partial = cuda->partial.data;
    a->choice = *choice;
    a->choice.largest = cuda_put_zeros(cuda, n * sizeof *a->choice.largest);
}

static void push_sampled(cuda_backend *cuda, const cuda_choice *choice, size_t n, size_t cols,
                         const bg_choice *how, const double *uniform)
{
    cuda_sample_args *a = &cuda_push(cuda, NODE_SAMPLE)->args.sample;
    a->choice = *choice;
    a->logits = cuda->logits.data;
    a->n_rows = n;
    a->cols = cols;
    a->top_k = how->top_k > 0 ? (size_t)how->top_k : 0;
    a->temperature = how->temperature;
    a->top_p = how->top_p;
    a->uniform = cuda_put(cuda, uniform, n * sizeof *uniform);
    a->room = cuda->partial.data;
}

/* Working memory for choosing from so many rows at once. */
static bg_status choice_room(size_t n_rows, size_t cols, bool samples, size_t *bytes, bg_error *err)
{
    *bytes = n_rows * CUDA_ARGMAX_PARTS * sizeof(uint64_t);
    return samples ? cuda_check(bg_cuda_sample_room(cols, bytes), "drawing a token", err) : BG_OK;
}

bg_status cuda_choose(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                      const bg_act *in, size_t n_rows, const bg_choice *how, bg_ids *out,
                      bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    cuda_ids *ids = (cuda_ids *)out;
    const bool samples = how->temperature > 0;
    const size_t forbidden = how->n_forbidden * sizeof *how->forbidden;
    head_loop loop = {head, bias, in, 0};
    size_t bytes;
    BG_TRY(begin(cuda, &loop, n_rows, err));
    BG_TRY(choice_room(loop.rows, head->rows, samples, &bytes, err));
    BG_TRY(cuda_reserve(cuda, &cuda->partial, bytes, err));
    BG_TRY(cuda_ids_await(cuda, ids, n_rows, err));
    for (size_t first = 0; first < n_rows; first += loop.rows) {
        const size_t n = bg_min_size(loop.rows, n_rows - first);
        cuda_choice choice = {NULL, how->n_forbidden, ids->values + first, ids->seen + first, NULL};
        BG_TRY(chunk(cuda, &loop, first, n, err));
        BG_TRY(cuda_begin(cuda, n * sizeof(uint64_t) + forbidden, 1, err));
        if (forbidden > 0) choice.forbidden = cuda_put(cuda, how->forbidden, forbidden);
        if (samples)
            push_sampled(cuda, &choice, n, head->rows, how, how->uniform + first);
        else
            push_largest(cuda, &choice, n, head->rows);
    }
    BG_TRY(cuda_start(cuda, err));
    ids->written_by = cuda->launched;
    return BG_OK;
}

/* ---- log-likelihoods ------------------------------------------------------------------------- */

/* Of many rows the logits come in panels of the vocabulary, so that they stay in the GPU's cache
 * between the product and its reduction. */
enum { PANEL_COLS = 4096, PANEL_ROWS = 2048 };

/* Rows [first, first + n) of a matrix that is not quantized, or columns of a bias. */
static cuda_weight part_of(const bg_weight *w, size_t first, size_t n, bool columns)
{
    cuda_weight part = *(const cuda_weight *)(const void *)w;
    const size_t size = part.matrix.format == BG_FORMAT_F32 ? 4 : 2;
    const size_t skipped = columns ? first : first * part.matrix.cols;
    *(columns ? &part.base.cols : &part.base.rows) = n;
    *(columns ? &part.matrix.cols : &part.matrix.rows) = n;
    part.matrix.codes = (const char *)part.matrix.codes + skipped * size;
    return part;
}

/* The first panel also brings the targets: the queue may be run for the sake of the product's room,
 * and takes what is put there with it only when there is something to run. */
static bg_status score_panel(cuda_backend *cuda, const head_loop *loop, size_t first_row,
                             const int32_t *targets, cuda_score_args *wanted, bg_error *err)
{
    const size_t first = wanted->first, n = wanted->cols;
    const cuda_weight head = part_of(loop->head, first, n, false);
    const cuda_weight bias = loop->bias ? part_of(loop->bias, first, n, true) : (cuda_weight){0};
    const head_loop part = {&head.base, loop->bias ? &bias.base : NULL, loop->in, loop->rows};
    BG_TRY(chunk(cuda, &part, first_row, wanted->n_rows, err));
    const size_t bytes = wanted->panel == 0 ? wanted->n_rows * sizeof *targets : 0;
    BG_TRY(cuda_begin(cuda, bytes, 1, err));
    if (bytes > 0) wanted->targets = cuda_put(cuda, targets, bytes);
    memcpy(&cuda_push(cuda, NODE_SCORE_PANEL)->args.score, wanted, sizeof *wanted);
    return BG_OK;
}

static bg_status score_panels(cuda_backend *cuda, const head_loop *loop, size_t n_rows,
                              const int32_t *targets, bg_error *err)
{
    const size_t cols = loop->head->rows, n_panels = (cols + PANEL_COLS - 1) / PANEL_COLS;
    const size_t rows = bg_min_size(n_rows, PANEL_ROWS);
    const size_t partial = 2 * rows * n_panels * sizeof(float);
    BG_TRY(cuda_reserve(cuda, &cuda->logits, rows * PANEL_COLS * sizeof(float), err));
    BG_TRY(cuda_reserve(cuda, &cuda->partial, partial + rows * sizeof(float), err));
    cuda_score_args a;
    memset(&a, 0, sizeof a);
    a.logits = cuda->logits.data;
    a.n_panels = n_panels;
    a.sums = cuda->partial.data;
    a.maxima = a.sums + rows * n_panels;
    a.expected = a.maxima + rows * n_panels;
    for (size_t first = 0; first < n_rows; first += rows) {
        a.n_rows = bg_min_size(rows, n_rows - first);
        a.nll = (double *)(void *)cuda->results + first;
        for (a.panel = 0; a.panel < n_panels; a.panel++) {
            a.first = a.panel * PANEL_COLS;
            a.cols = bg_min_size(PANEL_COLS, cols - a.first);
            BG_TRY(score_panel(cuda, loop, first, targets + first, &a, err));
        }
        BG_TRY(cuda_begin(cuda, 0, 1, err));
        memcpy(&cuda_push(cuda, NODE_SCORE_PANELS)->args.score, &a, sizeof a);
    }
    return BG_OK;
}

static bool comes_in_panels(const bg_weight *head, size_t n_rows)
{
    const bg_format_id format = head->format;
    return n_rows > CUDA_FEW_ROWS &&
           (format == BG_FORMAT_F16 || format == BG_FORMAT_BF16 || format == BG_FORMAT_F32);
}

/* All of it as one product that keeps no logits. */
static bg_status score_wide(cuda_backend *cuda, const bg_linear *product, const int32_t *targets,
                            bg_error *err)
{
    const cuda_matrix *head = cuda_matrix_of(product->weight);
    const size_t n_rows = product->n_rows, bytes = n_rows * sizeof *targets;
    const size_t n_panels = (head->rows + CUDA_WIDE_COLS - 1) / CUDA_WIDE_COLS;
    BG_TRY(cuda_reserve(cuda, &cuda->partial, n_rows * (2 * n_panels + 1) * sizeof(float), err));
    BG_TRY(cuda_operand_rooms(cuda, n_rows * head->cols, CUDA_F16, err));
    BG_TRY(cuda_begin(cuda, bytes, 3, err));
    cuda_wide_args a;
    memset(&a, 0, sizeof a);
    a.x = cuda_convert_input(cuda, product, CUDA_F16);
    a.w[0] = head->codes;
    a.n_rows = n_rows;
    a.rows = head->rows;
    a.cols = head->cols;
    a.score.n_rows = n_rows;
    a.score.n_panels = n_panels;
    a.score.targets = cuda_put(cuda, targets, bytes);
    a.score.sums = cuda->partial.data;
    a.score.maxima = a.score.sums + n_rows * n_panels;
    a.score.expected = a.score.maxima + n_rows * n_panels;
    a.score.nll = (double *)(void *)cuda->results;
    memcpy(&cuda_push(cuda, NODE_WIDE)->args.wide, &a, sizeof a);
    memcpy(&cuda_push(cuda, NODE_SCORE_PANELS)->args.score, &a.score, sizeof a.score);
    return BG_OK;
}

static bg_status score_whole(cuda_backend *cuda, head_loop *loop, size_t n_rows,
                             const int32_t *targets, bg_error *err)
{
    BG_TRY(begin(cuda, loop, n_rows, err));
    for (size_t first = 0; first < n_rows; first += loop->rows) {
        const size_t n = bg_min_size(loop->rows, n_rows - first);
        BG_TRY(chunk(cuda, loop, first, n, err));
        BG_TRY(cuda_begin(cuda, n * sizeof *targets, 1, err));
        cuda_head_args *a = &cuda_push(cuda, NODE_SCORE)->args.head;
        a->logits = cuda->logits.data;
        a->n_rows = n;
        a->cols = loop->head->rows;
        a->targets = cuda_put(cuda, targets + first, n * sizeof *targets);
        a->nll = (double *)(void *)cuda->results + first;
    }
    return BG_OK;
}

bg_status cuda_score(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                     const bg_act *in, size_t n_rows, const int32_t *targets, double *nll,
                     bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    head_loop loop = {head, bias, in, 0};
    const bg_linear product = {.weight = head, .in = in, .n_rows = n_rows};
    BG_TRY(cuda_reserve_results(cuda, n_rows * sizeof *nll, err));
    if (head->format == BG_FORMAT_F16 && !bias && cuda_product_type(&product) == CUDA_F16 &&
        bg_cuda_wide_fits(n_rows, head->rows, head->cols, false, &cuda->launch))
        BG_TRY(score_wide(cuda, &product, targets, err));
    else if (comes_in_panels(head, n_rows))
        BG_TRY(score_panels(cuda, &loop, n_rows, targets, err));
    else
        BG_TRY(score_whole(cuda, &loop, n_rows, targets, err));
    BG_TRY(cuda_flush(cuda, err));
    memcpy(nll, cuda->results, n_rows * sizeof *nll);
    return BG_OK;
}
