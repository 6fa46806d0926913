/* Pictures: reading a PNG or JPEG file into 8-bit RGB, told apart by content, not by name.
 *
 * The result is that of Pillow's Image.open(path).convert("RGB"), which is what vision models were
 * trained and are documented with:
 *   - alpha and transparent colours are dropped, colour profiles, gamma and the orientation that
 *     EXIF gives are ignored;
 *   - 16 bits become 8 by dropping the low byte; only gray without alpha is clipped at 255 instead,
 *     as Pillow does it;
 *   - CMYK is taken as inverted, the way of Adobe's programs.
 * Unlike Pillow, image data that ends early or does not decode is refused, never filled up. */
#ifndef BG_IMAGE_IMAGE_H
#define BG_IMAGE_IMAGE_H

#include "core/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    size_t width, height;
    uint8_t *rgb; /* (height, width, 3), owned */
} bg_image;

/* A few bytes can claim any size: an image has at most so many pixels (256 MiB of RGB) and so many
 * pixels on an edge. */
enum { BG_IMAGE_MAX_PIXELS = (1 << 28) / 3, BG_IMAGE_MAX_EDGE = 1000000 };

/* Reads a file; BG_ERR_FORMAT where it is damaged, BG_ERR_UNSUPPORTED where it is another format.
 * On failure *image is empty. */
bg_status bg_image_open(const char *path, bg_image *image, bg_error *err);

/* The same from memory; `where` names it in errors. */
bg_status bg_image_decode(const uint8_t *data, size_t size, const char *where, bg_image *image,
                          bg_error *err);

/* An image of that size with uninitialised pixels, within the limits. */
bg_status bg_image_create(size_t width, size_t height, const char *where, bg_image *image,
                          bg_error *err);
void bg_image_free(bg_image *image);

#endif
