/* What a model is given to continue: a text's tokens, and for a model that looks at images, one. */
#ifndef BG_EVAL_PROMPT_H
#define BG_EVAL_PROMPT_H

#include "bitgauge/bitgauge.h"
#include "model/config.h"

/* The ids of a prompt. With `image`, the image's tokens come first. PaliGemma's prompts are the
 * beginning-of-text token, the text and a line feed, as its processor makes them; all others are
 * what the tokenizer's template says. *ids is released with bg_ids_free. */
bg_status bg_prompt_encode(const bg_config *config, const bg_tokenizer *tokenizer, const char *text,
                           bool image, int32_t **ids, size_t *n, bg_error *err);

/* Reads a PNG or JPEG file as the processor's configuration in the model's directory says, or where
 * there is none, as SigLIP's does: *pixels is (channels, size, size) of the vision tower, released
 * with bg_free. */
bg_status bg_prompt_image(const bg_config *config, const char *directory, const char *path,
                          float **pixels, bg_error *err);

#endif
