/* PNG by libpng: every bit depth and colour type, interlaced or not. libpng reports errors by
 * jumping; what must survive a jump is in `png_reader`, which the caller of the jumping function
 * owns. */
#include "image/decode.h"

#include "core/alloc.h"

#include <png.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const uint8_t *data;
    size_t size, offset;
    const char *where;
    bg_image *image;
    uint8_t *wide; /* (height, width, 2), 16-bit gray, big-endian */
    bg_error *err;
    png_structp png;
    png_infop info;
    bool truncated, memory_failed;
    bg_status status; /* of a failure here, in bitgauge, already in `err` */
    char message[128];
    jmp_buf jump;
} png_reader;

static void fail(png_structp png, png_const_charp message) __attribute__((noreturn));
static void fail(png_structp png, png_const_charp message)
{
    png_reader *reader = png_get_error_ptr(png);
    snprintf(reader->message, sizeof reader->message, "%s", message);
    longjmp(reader->jump, 1);
}

static void ignore_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void read_bytes(png_structp png, png_bytep out, size_t n)
{
    png_reader *reader = png_get_io_ptr(png);
    if (n > reader->size - reader->offset) {
        reader->truncated = true;
        png_error(png, "end of file");
    }
    memcpy(out, reader->data + reader->offset, n);
    reader->offset += n;
}

static void *allocate(png_structp png, png_alloc_size_t bytes)
{
    png_reader *reader = png_get_mem_ptr(png);
    void *p = bg_alloc(bytes);
    if (!p) reader->memory_failed = true;
    return p;
}

static void release(png_structp png, void *p)
{
    (void)png;
    bg_free(p);
}

/* Brings every kind of PNG to rows of 8-bit RGB, but for 16-bit gray, which stays. */
static bool set_conversions(png_reader *reader)
{
    png_structp png = reader->png;
    int depth = png_get_bit_depth(png, reader->info);
    int type = png_get_color_type(png, reader->info);
    if (type == PNG_COLOR_TYPE_GRAY && depth == 16) return true;
    if (depth == 16) png_set_strip_16(png);
    if (type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
    if (type == PNG_COLOR_TYPE_GRAY && depth < 8) png_set_expand_gray_1_2_4_to_8(png);
    /* A transparent palette becomes alpha when it is expanded. */
    png_set_strip_alpha(png);
    if (!(type & PNG_COLOR_MASK_COLOR)) png_set_gray_to_rgb(png);
    return false;
}

/* Everything that may jump. False after a failure. */
static bool decode(png_reader *reader)
{
    if (setjmp(reader->jump)) return false;
    png_structp png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, reader, fail, ignore_warning,
                                               reader, allocate, release);
    reader->png = png;
    if (png) reader->info = png_create_info_struct(png);
    if (!reader->info) {
        reader->memory_failed = true;
        return false;
    }
    png_set_read_fn(png, reader, read_bytes);
    png_set_user_limits(png, BG_IMAGE_MAX_EDGE, BG_IMAGE_MAX_EDGE);
    /* Texts, profiles and the rest are skipped, not unpacked. */
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_read_info(png, reader->info);

    size_t width = png_get_image_width(png, reader->info);
    size_t height = png_get_image_height(png, reader->info);
    reader->status = bg_image_create(width, height, reader->where, reader->image, reader->err);
    if (reader->status != BG_OK) return false;
    bool wide = set_conversions(reader);
    if (wide) {
        reader->wide = bg_alloc_array(height, 2 * width);
        if (!reader->wide) {
            reader->memory_failed = true;
            return false;
        }
    }
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, reader->info);
    size_t row_size = (wide ? 2 : 3) * width;
    if (png_get_rowbytes(png, reader->info) != row_size) png_error(png, "unexpected row size");
    uint8_t *rows = wide ? reader->wide : reader->image->rgb;
    for (int pass = 0; pass < passes; pass++)
        for (size_t y = 0; y < height; y++) png_read_row(png, rows + y * row_size, NULL);
    /* What follows the pixels does not matter, not even that it is there. */
    return true;
}

static void clip_wide(const uint8_t *wide, bg_image *image)
{
    for (size_t i = 0; i < image->width * image->height; i++)
        memset(image->rgb + 3 * i, wide[2 * i] ? 255 : wide[2 * i + 1], 3);
}

bg_status bg_png_decode(const uint8_t *data, size_t size, const char *where, bg_image *image,
                        bg_error *err)
{
    png_reader reader = {
        .data = data, .size = size, .where = where, .image = image, .err = err, .status = BG_OK};
    bool done = decode(&reader);
    if (done && reader.wide) clip_wide(reader.wide, image);
    bg_status status = BG_OK;
    if (!done) {
        if (reader.status != BG_OK)
            status = reader.status;
        else if (reader.memory_failed)
            status = bg_fail_memory(err, size, where);
        else if (reader.truncated)
            status = bg_fail(err, BG_ERR_FORMAT,
                             "%s: the PNG image is truncated: the file ends after %zu bytes, in "
                             "the middle of it; fetch or save it again",
                             where, size);
        else
            status = bg_fail(err, BG_ERR_FORMAT,
                             "%s: the PNG image is damaged (%s); fetch or save it again", where,
                             reader.message);
    }
    bg_free(reader.wide);
    png_destroy_read_struct(&reader.png, &reader.info, NULL);
    return status;
}
