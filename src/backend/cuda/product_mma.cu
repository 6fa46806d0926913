/* Which tiles a layer of product_mma.cuh gets. */
#include "backend/cuda/product_mma.cuh"
#include "core/checked.h"

/* Beyond so many products and sums, the library's larger tiles matter more than its launches; but
 * not of few rows, where most of the time goes into reading the weights. */
#define MOST_OPERATIONS 0x1p30

enum { MOST_ROWS = 512 };

static weight_kind kind_of(bg_format_id format)
{
    return format == BG_FORMAT_F16    ? WEIGHTS_F16
           : format == BG_FORMAT_BF16 ? WEIGHTS_BF16
                                      : WEIGHTS_4BIT;
}

/* Of the scales of a tile's codes. */
static size_t scale_bytes(weight_kind kind, size_t outputs, size_t cols)
{
    return kind == WEIGHTS_4BIT ? outputs * (cols / STEP) * sizeof(float) : 0;
}

template <typename S> static cudaError_t launch_shape(const product_args *p, const cuda_launch *l)
{
    const auto kernel =
        S::DECODES && p->a.coming.n > 0 ? product_mma<S, S::DECODES> : product_mma<S, false>;
    unsigned tiles = 0;
    for (int i = 0; i < p->a.n_parts; i++) tiles += blocks_for(p->a.w[i].rows, S::OUTPUTS);
    return launch(kernel, dim3(tiles * p->row_tiles + p->a.coming.decoders), S::THREADS,
                  S::SHARED + scale_bytes(S::W, S::OUTPUTS, p->a.cols), *p, l);
}

#define SHAPE(m, n, kind, warps)                                                                   \
    {                                                                                              \
        m * 16, n * 8, mma_shape<m, n, kind, warps>::BLOCKS, mma_shape<m, n, kind, warps>::SHARED, \
            launch_shape<mma_shape<m, n, kind, warps>>                                             \
    }

/* Tiles of 16 rows, for no more than these: the more tiles, the sooner all weights are read. */
#define LOW(kind) SHAPE(1, 2, kind, 4), SHAPE(2, 2, kind, 4), SHAPE(4, 2, kind, 4)

enum { LOW_SHAPE = 4, LOW_ROWS = 16, SHAPES = LOW_SHAPE + 3 };

/* By kind of weights. Codes are decoded once for all rows of a tile: the more, the better, but for
 * short rows of weights, where it is the input that is waited for. */
static const struct {
    size_t outputs, rows, at_once, shared;
    cudaError_t (*launch)(const product_args *p, const cuda_launch *l);
} shapes[][SHAPES] = {
    {SHAPE(2, 4, WEIGHTS_F16, 8), SHAPE(2, 8, WEIGHTS_F16, 4), {}, {}, LOW(WEIGHTS_F16)},
    {SHAPE(2, 4, WEIGHTS_BF16, 8), SHAPE(2, 8, WEIGHTS_BF16, 4), {}, {}, LOW(WEIGHTS_BF16)},
    {SHAPE(1, 8, WEIGHTS_4BIT, 8), SHAPE(2, 8, WEIGHTS_4BIT, 4), SHAPE(2, 4, WEIGHTS_4BIT, 8),
     SHAPE(2, 4, WEIGHTS_4BIT, 4), LOW(WEIGHTS_4BIT)},
};

/* Of 4 bits: one for so many columns at most, and one for GPUs whose blocks have 99 KB, which no
 * other fits into. */
enum { SHORT_SHAPE = 2, SMALL_SHAPE = 3, MOST_SHORT = 1024 };

/* Whether a shape is one for so many rows of so many columns, and a block has room for its tiles.
 */
static bool has_room(weight_kind kind, int shape, size_t n_rows, size_t cols, const cuda_launch *l)
{
    if (!shapes[kind][shape].launch || (shape >= LOW_SHAPE && n_rows > LOW_ROWS) ||
        (shape == SHORT_SHAPE && cols > MOST_SHORT))
        return false;
    return shapes[kind][shape].shared + scale_bytes(kind, shapes[kind][shape].outputs, cols) <=
           (size_t)l->max_shared;
}

/* How much there is to do besides its results, before and behind them, for a tile: as many of them.
 * Where tiles are alike otherwise, the larger ones are over sooner. */
enum { TILE_START = 256 };

static size_t tiles_of(const cuda_mma_args *a, weight_kind kind, int shape)
{
    size_t tiles = 0;
    for (int i = 0; i < a->n_parts; i++)
        tiles += blocks_for(a->w[i].rows, shapes[kind][shape].outputs);
    return tiles * blocks_for(a->n_rows, shapes[kind][shape].rows);
}

static size_t blocks_at_once(weight_kind kind, int shape, const cuda_launch *l)
{
    return shapes[kind][shape].at_once * (size_t)l->multiprocessors;
}

/* The shape that is over first, the last one of these; -1: none fits. */
static int choose(const cuda_mma_args *a, weight_kind kind, const cuda_launch *l)
{
    size_t least = SIZE_MAX;
    int best = -1;
    for (int i = 0; i < SHAPES; i++) {
        const size_t outputs = shapes[kind][i].outputs, rows = shapes[kind][i].rows;
        if (!has_room(kind, i, a->n_rows, a->cols, l) || (i == SMALL_SHAPE && best >= 0)) continue;
        const size_t rounds = blocks_for(tiles_of(a, kind, i), blocks_at_once(kind, i, l));
        const size_t work = rounds * (rows * outputs + TILE_START);
        if (work > least) continue;
        least = work;
        best = i;
    }
    return best;
}

/* What values of codes are multiplied by before they are rounded to binary16: so none of nf4 is
 * further off than 1.8e-4 of itself, and all of fp4 are exact. */
static float code_scale(bg_format_id format)
{
    return format == BG_FORMAT_NF4 || format == BG_FORMAT_NF4_DQ ? 1.3662f : 12;
}

/* A tile takes about as long as decoding a block of codes for every so many of its products. */
enum { PRODUCTS_DECODED = 3600 };

cuda_spare bg_cuda_product_mma_spare(const cuda_mma_args *a, const cuda_launch *l)
{
    const weight_kind kind = kind_of(a->w[0].format);
    const int shape = choose(a, kind, l);
    /* Without overlap it was not measured. */
    if (shape < 0 || !l->overlap || kind == WEIGHTS_BF16) return (cuda_spare){0, 0};
    const size_t tiles = tiles_of(a, kind, shape), room = blocks_at_once(kind, shape, l);
    if (tiles >= room) return (cuda_spare){0, 0};
    const size_t products = shapes[kind][shape].outputs * shapes[kind][shape].rows * a->cols;
    const size_t share =
        bg_min_size(products / PRODUCTS_DECODED, shapes[kind][shape].shared / SHARE_BYTES);
    return (cuda_spare){(uint32_t)(room - tiles), (uint32_t)((room - tiles) * share)};
}

cudaError_t bg_cuda_product_mma(const cuda_mma_args *a, const cuda_launch *l)
{
    product_args p = {*a};
    const bg_format_id format = a->w[0].format;
    const weight_kind kind = kind_of(format);
    const int shape = choose(a, kind, l);
    if (shape < 0) return cudaErrorInvalidConfiguration;
    if (kind == WEIGHTS_4BIT) {
        p.unit = 1 / code_scale(format);
        for (int i = 0; i < 16; i++) {
            const float value = bg_formats[format].code[i] * code_scale(format);
            const uint32_t half = __half_as_ushort(__float2half_rn(value));
            p.codes.low[i / 4] |= (half & 255) << i % 4 * 8;
            p.codes.high[i / 4] |= (half >> 8) << i % 4 * 8;
        }
    }
    p.row_tiles = blocks_for(a->n_rows, shapes[kind][shape].rows);
    for (int i = 0; i < a->n_parts; i++)
        p.fours |= (unsigned)fours_in_line(&a->epilogue[i], 0, a->w[i].rows) << i;
    return shapes[kind][shape].launch(&p, l);
}

bool bg_cuda_product_mma_fits(const cuda_matrix *w, size_t n_rows, cuda_type type,
                              const cuda_launch *l)
{
    const double operations = (double)n_rows * (double)w->rows * (double)w->cols;
    const weight_kind kind = kind_of(w->format);
    const bool typed = type == (kind == WEIGHTS_BF16 ? CUDA_BF16 : CUDA_F16);
    bool fits = false;
    for (int i = 0; i < SHAPES && !fits; i++) fits = has_room(kind, i, n_rows, w->cols, l);
    return l->tensor_cores && typed && n_rows <= MOST_ROWS &&
           (n_rows <= CUDA_FEW_ROWS || operations <= MOST_OPERATIONS) &&
           w->format != BG_FORMAT_F32 && w->threshold <= 0 &&
           w->cols % (kind == WEIGHTS_4BIT ? BG_BLOCK : 8) == 0 && w->cols <= INT32_MAX / 2 && fits;
}
