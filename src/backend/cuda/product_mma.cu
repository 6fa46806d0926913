/* Which tiles a layer of product_mma.cuh gets. */
#include "backend/cuda/product_decoded.cuh"
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

template <typename S>
static cudaError_t launch_tiles(void (*kernel)(product_args), size_t shared, const product_args *p,
                                const cuda_launch *l)
{
    unsigned tiles = 0;
    for (int i = 0; i < p->a.n_parts; i++) tiles += blocks_for(p->a.w[i].rows, S::OUTPUTS);
    return launch(kernel, dim3(tiles * p->row_tiles + p->a.coming.decoders), S::THREADS, shared, *p,
                  l);
}

/* Behind the rings are the scales of a tile's codes. */
template <typename S> static size_t mma_shared(size_t cols)
{
    return S::SHARED + (S::CODES ? S::OUTPUTS * (cols / STEP) * sizeof(float) : 0);
}

template <typename S> static cudaError_t launch_mma(const product_args *p, const cuda_launch *l)
{
    return launch_tiles<S>(S::DECODES && p->a.coming.n > 0 ? product_mma<S, S::DECODES>
                                                           : product_mma<S, false>,
                           mma_shared<S>(p->a.cols), p, l);
}

/* Behind the rings are a tile's weights. */
template <typename S> static size_t decoded_shared(size_t cols)
{
    return S::SHARED + S::OUTPUTS * cols * sizeof(__half);
}

template <typename S> static cudaError_t launch_decoded(const product_args *p, const cuda_launch *l)
{
    return launch_tiles<S>(p->a.coming.n > 0 ? product_decoded<S, true> : product_decoded<S, false>,
                           decoded_shared<S>(p->a.cols), p, l);
}

/* The layers that a shape is for. */
typedef struct {
    size_t least_rows, most_rows, most_cols;
} range;

static constexpr range ANY = {0, SIZE_MAX, SIZE_MAX};
/* The more tiles, the sooner all weights are read. */
static constexpr range LOW = {0, 16, SIZE_MAX};
/* Where it is the input that is waited for. */
static constexpr range SHORT = {0, SIZE_MAX, 1024}, SHORT_AND_MANY = {65, SIZE_MAX, 1024};

typedef struct {
    size_t outputs, rows; /* of a tile */
    size_t at_once;       /* blocks of a multiprocessor */
    size_t results;       /* of a group of warps, which share their columns */
    size_t rings;         /* bytes of shared memory */
    range of;
    bool decoded; /* product_decoded.cuh */
    size_t (*shared)(size_t cols);
    cudaError_t (*launch)(const product_args *p, const cuda_launch *l);
} shape;

template <int M, int N, weight_kind W, int WARPS> static constexpr shape mma_of(range of = ANY)
{
    typedef mma_shape<M, N, W, WARPS> S;
    return {S::OUTPUTS, S::ROWS, S::BLOCKS,     S::OUTPUTS * S::ROWS, S::SHARED,
            of,         false,   mma_shared<S>, launch_mma<S>};
}

template <typename S> static constexpr shape decoded_of(range of)
{
    return {S::OUTPUTS, S::ALL_ROWS, S::BLOCKS,         S::OUTPUTS * S::ROWS, S::SHARED,
            of,         true,        decoded_shared<S>, launch_decoded<S>};
}

#define LOW_SHAPES(W) mma_of<1, 2, W, 4>(LOW), mma_of<2, 2, W, 4>(LOW), mma_of<4, 2, W, 4>(LOW)

/* Of 4 bits, one is for GPUs whose blocks have 99 KB, which no other of more rows than LOW has fits
 * into. */
enum { SMALL_SHAPE = 3, SHAPES = 8 };

/* By kind of weights. Codes are decoded once for all rows of a tile: the more, the better, but for
 * short rows of weights. */
static const shape shapes[][SHAPES] = {
    {mma_of<2, 4, WEIGHTS_F16, 8>(), mma_of<2, 8, WEIGHTS_F16, 4>(), LOW_SHAPES(WEIGHTS_F16)},
    {mma_of<2, 4, WEIGHTS_BF16, 8>(), mma_of<2, 8, WEIGHTS_BF16, 4>(), LOW_SHAPES(WEIGHTS_BF16)},
    {mma_of<1, 8, WEIGHTS_4BIT, 8>(), mma_of<2, 8, WEIGHTS_4BIT, 4>(),
     mma_of<2, 4, WEIGHTS_4BIT, 8>(SHORT), mma_of<2, 4, WEIGHTS_4BIT, 4>(),
     LOW_SHAPES(WEIGHTS_4BIT), decoded_of<decoded_shape<2, 8, 4, 2>>(SHORT_AND_MANY)},
};

/* Whether a shape is one for so many rows of so many columns, and a block has room for its tiles.
 */
static bool fits_shape(const shape *s, size_t n_rows, size_t cols, const cuda_launch *l)
{
    return s->launch && n_rows >= s->of.least_rows && n_rows <= s->of.most_rows &&
           cols <= s->of.most_cols && s->shared(cols) <= (size_t)l->max_shared;
}

/* How much there is to do besides its results, before and behind them, for a tile: as many of them.
 * Where tiles are alike otherwise, the larger ones are over sooner. */
enum { TILE_START = 256 };

static size_t tiles_of(const cuda_mma_args *a, const shape *s)
{
    size_t tiles = 0;
    for (int i = 0; i < a->n_parts; i++) tiles += blocks_for(a->w[i].rows, s->outputs);
    return tiles * blocks_for(a->n_rows, s->rows);
}

/* Where what was before hides that a tile is decoded first: measured on compute capability 9.0, for
 * an MLP's first matrix. A second round has nothing to hide behind, few tiles are no more than
 * smaller ones' share, and before attention, whose blocks have no room beside these, it is slower.
 */
static bool decodes_first(const cuda_mma_args *a, size_t tiles, size_t at_once,
                          const cuda_launch *l)
{
    return l->overlap && l->warpgroups && a->n_parts == 1 && tiles <= at_once &&
           tiles >= at_once * 2 / 3;
}

/* The shape that is over first, the last one of these; NULL: none fits. */
static const shape *choose(const cuda_mma_args *a, weight_kind kind, const cuda_launch *l)
{
    size_t least = SIZE_MAX;
    const shape *best = NULL;
    for (int i = 0; i < SHAPES; i++) {
        const shape *s = &shapes[kind][i];
        const bool small = kind == WEIGHTS_4BIT && i == SMALL_SHAPE;
        if (!fits_shape(s, a->n_rows, a->cols, l) || (small && best)) continue;
        const size_t tiles = tiles_of(a, s), at_once = s->at_once * (size_t)l->multiprocessors;
        if (s->decoded && !decodes_first(a, tiles, at_once, l)) continue;
        const size_t work = blocks_for(tiles, at_once) * (s->results + TILE_START);
        if (work > least) continue;
        least = work;
        best = s;
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
    const shape *s = choose(a, kind, l);
    if (!s || kind == WEIGHTS_BF16) return (cuda_spare){0, 0};
    const size_t tiles = tiles_of(a, s), at_once = s->at_once * (size_t)l->multiprocessors;
    if (tiles >= at_once) return (cuda_spare){0, 0};
    const size_t share =
        bg_min_size(s->outputs * s->rows * a->cols / PRODUCTS_DECODED, s->rings / SHARE_BYTES);
    return (cuda_spare){(uint32_t)(at_once - tiles), (uint32_t)((at_once - tiles) * share)};
}

cudaError_t bg_cuda_product_mma(const cuda_mma_args *a, const cuda_launch *l)
{
    product_args p = {*a};
    const bg_format_id format = a->w[0].format;
    const weight_kind kind = kind_of(format);
    const shape *s = choose(a, kind, l);
    if (!s) return cudaErrorInvalidConfiguration;
    if (kind == WEIGHTS_4BIT) {
        p.unit = 1 / code_scale(format);
        for (int i = 0; i < 16; i++) {
            p.code[i] = bg_formats[format].code[i];
            const float value = bg_formats[format].code[i] * code_scale(format);
            const uint32_t half = __half_as_ushort(__float2half_rn(value));
            p.codes.low[i / 4] |= (half & 255) << i % 4 * 8;
            p.codes.high[i / 4] |= (half >> 8) << i % 4 * 8;
        }
    }
    p.row_tiles = blocks_for(a->n_rows, s->rows);
    for (int i = 0; i < a->n_parts; i++)
        p.fours |= (unsigned)fours_in_line(&a->epilogue[i], 0, a->w[i].rows) << i;
    return s->launch(&p, l);
}

bool bg_cuda_product_mma_fits(const cuda_matrix *w, size_t n_rows, cuda_type type,
                              const cuda_launch *l)
{
    const double operations = (double)n_rows * (double)w->rows * (double)w->cols;
    const weight_kind kind = kind_of(w->format);
    const bool typed = type == (kind == WEIGHTS_BF16 ? CUDA_BF16 : CUDA_F16);
    bool fits = false;
    for (int i = 0; i < SHAPES && !fits; i++)
        fits = fits_shape(&shapes[kind][i], n_rows, w->cols, l);
    return l->tensor_cores && typed && n_rows <= MOST_ROWS &&
           (n_rows <= CUDA_FEW_ROWS || operations <= MOST_OPERATIONS) &&
           w->format != BG_FORMAT_F32 && w->threshold <= 0 &&
           w->cols % (kind == WEIGHTS_4BIT ? BG_BLOCK : 8) == 0 && w->cols <= INT32_MAX / 2 && fits;
}
