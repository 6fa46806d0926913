/* Any bytes as a SentencePiece model file: refused with a message, or a tokenizer that encodes and
 * decodes. The first byte chooses the tokenizer's class. */
#include "core/json.h"
#include "tokenizer/internal.h"
#include "use_tokenizer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const configs[] = {
        "{}",
        "{\"tokenizer_class\":\"LlamaTokenizer\",\"legacy\":true,\"add_bos_token\":true}",
        "{\"tokenizer_class\":\"GemmaTokenizer\",\"add_eos_token\":true,\"pad_token\":\"<pad>\"}",
        "{\"tokenizer_class\":\"T5Tokenizer\",\"extra_ids\":3}",
        ("{\"tokenizer_class\":\"XLMRobertaTokenizer\",\"added_tokens_decoder\":{\"9\":{"
         "\"content\":"
         "\"[X]\",\"lstrip\":true,\"normalized\":true}}}"),
        "{\"tokenizer_class\":\"Other\",\"extra_special_tokens\":[\"ab\",\"<s>\"]}",
    };
    static const char text[] =
        "Hello, w\xc3\xb6rld  e\xcc\x81 \xe6\x9d\xb1\xe4\xba\xac \xef\xac\x81 "
        "\xf0\x9f\x91\xa9\xe2\x80\x8d <s>ab<unk>\t\n\0aaaaaaaaaaaaaaaab ";
    if (!size) return 0;
    const char *choice = configs[data[0] % (sizeof configs / sizeof *configs)];
    bg_error err = {0};
    json_t *config = NULL;
    bg_json_init();
    if (bg_json_parse(choice, strlen(choice), "config", &config, &err) != BG_OK) abort();
    bg_tokenizer *t = bg_tokenizer_new();
    if (!t) abort();
    bg_status status = bg_tokenizer_read_sentencepiece(data + 1, size - 1, config, "fuzz", t, &err);
    check(status, &err);
    json_decref(config);
    if (status == BG_OK) there_and_back(t, text, sizeof text - 1);
    bg_tokenizer_close(t);
    return 0;
}
