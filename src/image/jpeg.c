/* JPEG by libjpeg-turbo: baseline and progressive, gray, YCbCr, RGB, CMYK and YCCK, 8 bits a
 * sample. libjpeg reports errors by jumping; what must survive a jump is in `jpeg_reader`, which
 * the caller of the jumping function owns. */
#include "image/decode.h"

#include "core/alloc.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

/* A progressive image may name its coefficients again in scan after scan, a few bytes each; real
 * ones have about ten. */
enum { MAX_SCANS = 500 };

typedef struct {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    const uint8_t *data;
    size_t size;
    const char *where;
    bg_image *image;
    uint8_t *cmyk; /* (width, 4), a row */
    bg_error *err;
    bool truncated, too_many_scans;
    bg_status status; /* of a failure here, in bitgauge, already in `err` */
    jmp_buf jump;
} jpeg_reader;

static void fail(j_common_ptr jpeg) __attribute__((noreturn));
static void fail(j_common_ptr jpeg)
{
    jpeg_reader *reader = jpeg->client_data;
    longjmp(reader->jump, 1);
}

/* Warnings are silent, but for those that mean missing or undecodable image data, which libjpeg
 * would replace with gray. */
static void take_message(j_common_ptr jpeg, int level)
{
    jpeg_reader *reader = jpeg->client_data;
    if (level >= 0) return;
    switch (jpeg->err->msg_code) {
    case JWRN_HIT_MARKER:
        reader->truncated = true;
        fail(jpeg);
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC:
        fail(jpeg);
    default:
        break;
    }
}

static void ignore_message(j_common_ptr jpeg)
{
    (void)jpeg;
}

static void no_source_action(j_decompress_ptr jpeg)
{
    (void)jpeg;
}

/* The whole file is in the buffer from the start: more is never there. */
static boolean fill_buffer(j_decompress_ptr jpeg)
{
    jpeg_reader *reader = jpeg->client_data;
    reader->truncated = true;
    fail((j_common_ptr)jpeg);
}

static void skip_bytes(j_decompress_ptr jpeg, long n)
{
    if (n <= 0) return;
    if ((size_t)n > jpeg->src->bytes_in_buffer) fill_buffer(jpeg);
    jpeg->src->next_input_byte += n;
    jpeg->src->bytes_in_buffer -= (size_t)n;
}

static void watch_scans(j_common_ptr jpeg)
{
    jpeg_reader *reader = jpeg->client_data;
    if (reader->jpeg.input_scan_number <= MAX_SCANS) return;
    reader->too_many_scans = true;
    fail(jpeg);
}

/* a * b / 255, rounded; a and b up to 255 */
static unsigned scale_255(unsigned a, unsigned b)
{
    unsigned product = a * b + 128;
    return (product + (product >> 8)) >> 8;
}

/* The samples are inverted, 255 for no ink, as in everything that Adobe's programs write. */
static void cmyk_to_rgb(const uint8_t *cmyk, size_t width, uint8_t *rgb)
{
    for (size_t x = 0; x < width; x++, cmyk += 4, rgb += 3)
        for (int c = 0; c < 3; c++) rgb[c] = (uint8_t)(cmyk[3] - scale_255(255 - cmyk[c], cmyk[3]));
}

/* Everything that may jump. False after a failure. */
static bool decode(jpeg_reader *reader)
{
    if (setjmp(reader->jump)) return false;
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    jpeg_create_decompress(jpeg);
    jpeg->src = &reader->source;
    jpeg->progress = &reader->progress;
    jpeg_read_header(jpeg, TRUE);

    reader->status = bg_image_create(jpeg->image_width, jpeg->image_height, reader->where,
                                     reader->image, reader->err);
    if (reader->status != BG_OK) return false;
    bool four = jpeg->num_components == 4;
    jpeg->out_color_space = four ? JCS_CMYK : JCS_RGB;
    if (four) {
        reader->cmyk = bg_alloc_array(reader->image->width, 4);
        if (!reader->cmyk) {
            reader->status = bg_fail_memory(reader->err, 4 * reader->image->width, "an image row");
            return false;
        }
    }
    jpeg_start_decompress(jpeg);
    while (jpeg->output_scanline < jpeg->output_height) {
        uint8_t *rgb = reader->image->rgb + 3 * reader->image->width * jpeg->output_scanline;
        JSAMPROW row = four ? reader->cmyk : rgb;
        jpeg_read_scanlines(jpeg, &row, 1);
        if (four) cmyk_to_rgb(reader->cmyk, reader->image->width, rgb);
    }
    /* What follows the pixels does not matter, not even that it is there. */
    return true;
}

/* Whether libjpeg's last error is a kind of JPEG that it does not know, rather than damage. */
static bool is_unsupported(int code)
{
    return code == JERR_BAD_PRECISION || code == JERR_SOF_UNSUPPORTED ||
           code == JERR_CONVERSION_NOTIMPL || code == JERR_ARITH_NOTIMPL;
}

static bg_status explain(jpeg_reader *reader)
{
    char message[JMSG_LENGTH_MAX];
    j_common_ptr jpeg = (j_common_ptr)&reader->jpeg;
    if (reader->status != BG_OK) return reader->status;
    if (reader->errors.msg_code == JERR_OUT_OF_MEMORY)
        return bg_fail_memory(reader->err, reader->size, reader->where);
    if (reader->truncated)
        return bg_fail(reader->err, BG_ERR_FORMAT,
                       "%s: the JPEG image is truncated: the image data ends before the last row; "
                       "fetch or save it again",
                       reader->where);
    if (reader->too_many_scans)
        return bg_fail(reader->err, BG_ERR_UNSUPPORTED,
                       "%s: the JPEG image has more than %d scans; save it again, not progressive",
                       reader->where, MAX_SCANS);
    reader->errors.format_message(jpeg, message);
    if (is_unsupported(reader->errors.msg_code))
        return bg_fail(reader->err, BG_ERR_UNSUPPORTED,
                       "%s: this kind of JPEG image is not read (%s); convert it", reader->where,
                       message);
    return bg_fail(reader->err, BG_ERR_FORMAT,
                   "%s: the JPEG image is damaged (%s); fetch or save it again", reader->where,
                   message);
}

bg_status bg_jpeg_decode(const uint8_t *data, size_t size, const char *where, bg_image *image,
                         bg_error *err)
{
    jpeg_reader reader = {
        .source = {.next_input_byte = data,
                   .bytes_in_buffer = size,
                   .init_source = no_source_action,
                   .fill_input_buffer = fill_buffer,
                   .skip_input_data = skip_bytes,
                   .resync_to_restart = jpeg_resync_to_restart,
                   .term_source = no_source_action},
        .progress = {.progress_monitor = watch_scans},
        .data = data,
        .size = size,
        .where = where,
        .image = image,
        .err = err,
        .status = BG_OK,
    };
    reader.jpeg.err = jpeg_std_error(&reader.errors);
    reader.errors.error_exit = fail;
    reader.errors.emit_message = take_message;
    reader.errors.output_message = ignore_message;
    reader.jpeg.client_data = &reader;
    bg_status status = decode(&reader) ? BG_OK : explain(&reader);
    bg_free(reader.cmyk);
    jpeg_destroy_decompress(&reader.jpeg);
    return status;
}
