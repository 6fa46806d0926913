/* From a picture to the numbers a vision model takes, as its preprocessor_config.json says: resize,
 * rescale, normalize. The one processor there is is SiglipImageProcessor, which PaliGemma's files
 * name, too; the numbers are those of its Pillow version in transformers (SiglipImageProcessorPil),
 * to the bit. The torchvision version differs from that by up to 1/255 before normalizing. */
#ifndef BG_IMAGE_PROCESSOR_H
#define BG_IMAGE_PROCESSOR_H

#include "core/json.h"
#include "image/image.h"
#include "image/resize.h"

#include <stdbool.h>

typedef struct {
    bool resize;
    size_t width, height; /* of the result; both 0 where shortest_edge says it */
    size_t shortest_edge; /* the shorter edge of the result, whose proportions stay; else 0 */
    bg_resample resample;
    bool rescale;
    double rescale_factor;
    bool normalize;
    double mean[3], std[3];  /* red, green, blue */
    size_t image_seq_length; /* image tokens in a prompt; 0 where the configuration is silent */
} bg_image_processor;

/* What applies where no file says otherwise: bicubic to image_size × image_size, 1/255, mean and
 * standard deviation 0.5. */
void bg_image_processor_defaults(size_t image_size, bg_image_processor *processor);

/* Reads a configuration: an object as preprocessor_config.json has it. `where` names the file in
 * errors. An option that is not known here and not off is refused by name. */
bg_status bg_image_processor_parse(const json_t *config, const char *where,
                                   bg_image_processor *processor, bg_error *err);

/* Reads the configuration of a model directory: "image_processor" in processor_config.json, or else
 * preprocessor_config.json. Where there is neither, BG_ERR_FILE. */
bg_status bg_image_processor_open(const char *directory, bg_image_processor *processor,
                                  bg_error *err);

/* The size that `image` has when it is prepared. */
bg_status bg_image_processor_size(const bg_image_processor *processor, const bg_image *image,
                                  size_t *width, size_t *height, bg_error *err);

/* Fills pixels, (3, height, width) with the size that bg_image_processor_size gives. */
bg_status bg_image_prepare(const bg_image_processor *processor, const bg_image *image,
                           float *pixels, bg_error *err);

#endif
