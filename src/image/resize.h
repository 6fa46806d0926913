/* Resizing as Pillow's Image.resize does it, to the bit: the filter widens with the reduction
 * (antialiasing), weights are rounded to 22 bits, and each of the two passes, along rows and along
 * columns, rounds to 8 bits. Nearest picks the pixel under the new one's centre. The order of the
 * passes is Pillow 13's; older versions begin with the rows even where an image is very tall. */
#ifndef BG_IMAGE_RESIZE_H
#define BG_IMAGE_RESIZE_H

#include "image/image.h"

/* Numbered as Pillow's Image.Resampling, which is how configuration files name them. */
typedef enum {
    BG_RESAMPLE_NEAREST = 0,
    BG_RESAMPLE_LANCZOS = 1,
    BG_RESAMPLE_BILINEAR = 2,
    BG_RESAMPLE_BICUBIC = 3,
    BG_RESAMPLE_BOX = 4,
    BG_RESAMPLE_HAMMING = 5,
    BG_RESAMPLE_COUNT,
} bg_resample;

/* Makes *out, another image than `in`, from `in` at width × height. On failure *out is empty. */
bg_status bg_image_resize(const bg_image *in, size_t width, size_t height, bg_resample resample,
                          bg_image *out, bg_error *err);

#endif
