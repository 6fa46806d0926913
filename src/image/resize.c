#include "image/resize.h"

#include "core/alloc.h"
#include "core/checked.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* 8 bits of a pixel and 22 of a weight leave two for sums outside 0 to 255 and the sign. */
enum { WEIGHT_BITS = 22 };

static double box(double x)
{
    return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
}

static double bilinear(double x)
{
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

/* 0.54f and 0.46f, in single precision, are what Pillow computes with. */
static double hamming(double x)
{
    x = fabs(x);
    if (x == 0.0) return 1.0;
    if (x >= 1.0) return 0.0;
    x *= M_PI;
    return sin(x) / x * (0.54f + 0.46f * cos(x));
}

/* Keys' cubic convolution with a = -0.5. */
static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
    return 0.0;
}

static double sinc(double x)
{
    if (x == 0.0) return 1.0;
    x *= M_PI;
    return sin(x) / x;
}

static double lanczos(double x)
{
    return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0;
}

static const struct {
    double (*weight)(double x);
    double support; /* the weight is zero farther than this from 0 */
} kernels[BG_RESAMPLE_COUNT] = {
    [BG_RESAMPLE_LANCZOS] = {lanczos, 3.0}, [BG_RESAMPLE_BILINEAR] = {bilinear, 1.0},
    [BG_RESAMPLE_BICUBIC] = {bicubic, 2.0}, [BG_RESAMPLE_BOX] = {box, 0.5},
    [BG_RESAMPLE_HAMMING] = {hamming, 1.0},
};

/* Which pixels of an edge each new pixel is made of, and with which weights. */
typedef struct {
    size_t taps;      /* room for each new pixel's weights */
    size_t *first;    /* (out) */
    size_t *count;    /* (out), at most `taps` */
    int32_t *weights; /* (out, taps), scaled by 2^WEIGHT_BITS */
} windows;

static void windows_free(windows *w)
{
    bg_free(w->first);
    bg_free(w->count);
    bg_free(w->weights);
}

static bg_status windows_create(size_t in, size_t out, bg_resample resample, windows *w,
                                bg_error *err)
{
    double scale = (double)in / (double)out;
    double stretch = fmax(scale, 1.0);
    double support = kernels[resample].support * stretch, shrink = 1.0 / stretch;
    size_t n_weights;
    *w = (windows){.taps = (size_t)ceil(support) * 2 + 1};
    double *exact = bg_alloc_array(w->taps, sizeof *exact);
    w->first = bg_alloc_array(out, sizeof *w->first);
    w->count = bg_alloc_array(out, sizeof *w->count);
    if (bg_mul_size(out, w->taps, &n_weights))
        w->weights = bg_alloc_array(n_weights, sizeof *w->weights);
    if (!exact || !w->first || !w->count || !w->weights) {
        bg_free(exact);
        windows_free(w);
        return bg_fail_memory(err, out * w->taps * sizeof *w->weights, "resizing an image");
    }
    for (size_t i = 0; i < out; i++) {
        double center = ((double)i + 0.5) * scale;
        double begin = center - support + 0.5, end = center + support + 0.5;
        size_t first = begin > 0.0 ? (size_t)begin : 0;
        size_t count = bg_min_size((size_t)end, in) - first;
        double sum = 0.0;
        for (size_t k = 0; k < count; k++) {
            exact[k] = kernels[resample].weight(((double)(first + k) - center + 0.5) * shrink);
            sum += exact[k];
        }
        for (size_t k = 0; k < count; k++) {
            double share = sum != 0.0 ? exact[k] / sum : exact[k];
            double scaled = share * (1 << WEIGHT_BITS);
            w->weights[i * w->taps + k] = (int32_t)(scaled < 0.0 ? scaled - 0.5 : scaled + 0.5);
        }
        w->first[i] = first;
        w->count[i] = count;
    }
    bg_free(exact);
    return BG_OK;
}

static uint8_t round_sum(int32_t sum)
{
    int32_t value = sum >> WEIGHT_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* in (height, in_width, 3) to out (height, width, 3) */
static void resize_rows(const bg_image *in, const windows *w, bg_image *out)
{
    const int32_t half = 1 << (WEIGHT_BITS - 1);
    for (size_t y = 0; y < out->height; y++) {
        const uint8_t *row = in->rgb + 3 * in->width * y;
        uint8_t *to = out->rgb + 3 * out->width * y;
        for (size_t x = 0; x < out->width; x++, to += 3) {
            const int32_t *weights = w->weights + x * w->taps;
            const uint8_t *from = row + 3 * w->first[x];
            int32_t r = half, g = half, b = half;
            for (size_t k = 0; k < w->count[x]; k++, from += 3) {
                r += from[0] * weights[k];
                g += from[1] * weights[k];
                b += from[2] * weights[k];
            }
            to[0] = round_sum(r);
            to[1] = round_sum(g);
            to[2] = round_sum(b);
        }
    }
}

/* in (in_height, width, 3) to out (height, width, 3); sums (width, 3) */
static void resize_columns(const bg_image *in, const windows *w, int32_t *sums, bg_image *out)
{
    size_t n = 3 * in->width;
    for (size_t y = 0; y < out->height; y++) {
        for (size_t i = 0; i < n; i++) sums[i] = 1 << (WEIGHT_BITS - 1);
        for (size_t k = 0; k < w->count[y]; k++) {
            const uint8_t *row = in->rgb + n * (w->first[y] + k);
            int32_t weight = w->weights[y * w->taps + k];
            for (size_t i = 0; i < n; i++) sums[i] += row[i] * weight;
        }
        for (size_t i = 0; i < n; i++) out->rgb[n * y + i] = round_sum(sums[i]);
    }
}

/* Positions are added up step by step, as Pillow does it: their rounding is part of the result. */
static bg_status resize_nearest(const bg_image *in, bg_image *out, bg_error *err)
{
    double step_x = (double)in->width / (double)out->width;
    double step_y = (double)in->height / (double)out->height;
    size_t *columns = bg_alloc_array(out->width, sizeof *columns);
    if (!columns) return bg_fail_memory(err, out->width * sizeof *columns, "resizing an image");
    double position = 0.5 * step_x;
    for (size_t x = 0; x < out->width; x++, position += step_x)
        columns[x] = bg_min_size((size_t)position, in->width - 1);
    position = 0.5 * step_y;
    for (size_t y = 0; y < out->height; y++, position += step_y) {
        const uint8_t *row =
            in->rgb + 3 * in->width * bg_min_size((size_t)position, in->height - 1);
        uint8_t *to = out->rgb + 3 * out->width * y;
        for (size_t x = 0; x < out->width; x++) memcpy(to + 3 * x, row + 3 * columns[x], 3);
    }
    bg_free(columns);
    return BG_OK;
}

static bg_status resize_width(const bg_image *in, size_t width, bg_resample resample, bg_image *out,
                              bg_error *err)
{
    windows w;
    BG_TRY(bg_image_create(width, in->height, "resizing", out, err));
    BG_TRY(windows_create(in->width, width, resample, &w, err));
    resize_rows(in, &w, out);
    windows_free(&w);
    return BG_OK;
}

static bg_status resize_height(const bg_image *in, size_t height, bg_resample resample,
                               bg_image *out, bg_error *err)
{
    windows w;
    BG_TRY(bg_image_create(in->width, height, "resizing", out, err));
    int32_t *sums = bg_alloc_array(in->width, 3 * sizeof *sums);
    if (!sums) return bg_fail_memory(err, 3 * sizeof *sums * in->width, "resizing an image");
    bg_status status = windows_create(in->height, height, resample, &w, err);
    if (status == BG_OK) {
        resize_columns(in, &w, sums, out);
        windows_free(&w);
    }
    bg_free(sums);
    return status;
}

/* Which pass comes first shows in the last bits, since the one between them rounds: columns first
 * where the height loses more than twice the pixels that the width does, as from Pillow 13 on. */
static bool height_first(const bg_image *in, size_t width, size_t height)
{
    if (height >= in->height) return false;
    return width >= in->width || in->height - height > 2 * (in->width - width);
}

static bg_status resize(const bg_image *in, size_t width, size_t height, bg_resample resample,
                        bg_image *out, bg_error *err)
{
    if (width == in->width && height == in->height) {
        BG_TRY(bg_image_create(width, height, "resizing", out, err));
        memcpy(out->rgb, in->rgb, 3 * width * height);
        return BG_OK;
    }
    if (resample == BG_RESAMPLE_NEAREST) {
        BG_TRY(bg_image_create(width, height, "resizing", out, err));
        return resize_nearest(in, out, err);
    }
    if (width == in->width) return resize_height(in, height, resample, out, err);
    if (height == in->height) return resize_width(in, width, resample, out, err);
    bool down_first = height_first(in, width, height);
    bg_image between;
    bg_status status = down_first ? resize_height(in, height, resample, &between, err)
                                  : resize_width(in, width, resample, &between, err);
    if (status == BG_OK)
        status = down_first ? resize_width(&between, width, resample, out, err)
                            : resize_height(&between, height, resample, out, err);
    bg_image_free(&between);
    return status;
}

bg_status bg_image_resize(const bg_image *in, size_t width, size_t height, bg_resample resample,
                          bg_image *out, bg_error *err)
{
    *out = (bg_image){0};
    bg_status status = resize(in, width, height, resample, out, err);
    if (status != BG_OK) bg_image_free(out);
    return status;
}
