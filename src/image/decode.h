/* The readers behind bg_image_decode, one for each format. Each takes a whole file that begins with
 * its format's signature and an empty image; what it leaves there on failure is released by the
 * caller. */
#ifndef BG_IMAGE_DECODE_H
#define BG_IMAGE_DECODE_H

#include "image/image.h"

bg_status bg_png_decode(const uint8_t *data, size_t size, const char *where, bg_image *image,
                        bg_error *err);
bg_status bg_jpeg_decode(const uint8_t *data, size_t size, const char *where, bg_image *image,
                         bg_error *err);

#endif
