/* Any bytes as a tokenizer.json: refused with a message, or a tokenizer that encodes and decodes.
 */
#include "use_tokenizer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* Something for every component: case, accents, both forms of an accented letter, ideographs,
     * an emoji with a joiner, numbers, contractions, odd spaces, a NUL, a long word. */
    static const char text[] = "Hello, w\xc3\xb6rld! it's e\xcc\x81 \xe6\x9d\xb1\xe4\xba\xac "
                               "\xf0\x9f\x91\xa9\xe2\x80\x8d 12\xc2\xbd\t\n\xe3\x80\x80[CLS] the "
                               "\0<s> aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab";
    bg_tokenizer *t = NULL;
    bg_error err = {0};
    bg_status status = bg_tokenizer_parse((const char *)data, size, "fuzz", &t, &err);
    check(status, &err);
    if (status != BG_OK) return 0;

    there_and_back(t, text, sizeof text - 1);
    int32_t *ids = NULL;
    size_t n = 0;

    /* The beginning of the file as a text; and every id, as far as that goes. */
    status = bg_tokenizer_encode_truncated(t, (const char *)data, size < 512 ? size : 512, false,
                                           64, &ids, &n, &err);
    check(status, &err);
    if (n > 64) abort();
    bg_ids_free(ids);
    /* A pair and a text alone, cut and padded as the file says. */
    const bg_tokenizer_input inputs[] = {{text, 40, text + 20, 10}, {text, 20, NULL, 0}};
    const bg_encode_options options = {.add_special = true, .truncate = true, .pad = true};
    bg_encoding *rows = NULL;
    status = bg_tokenizer_encode_batch(t, inputs, 2, &options, &rows, &err);
    check(status, &err);
    if (status == BG_OK) bg_encodings_free(rows, 2);
    int32_t first[256];
    for (int32_t i = 0; i < 256; i++) first[i] = i - 8;
    char *decoded = NULL;
    check(bg_tokenizer_decode(t, first, 256, false, &decoded, NULL, &err), &err);
    bg_string_free(decoded);
    bg_tokenizer_close(t);
    return 0;
}
