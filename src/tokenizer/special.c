/* Which ids play which part: beginning, end, unknown, padding, ... */
#include "tokenizer/internal.h"

#include <string.h>

/* Spellings in the order they are looked for where no configuration names the token. */
static const struct {
    const char *key;
    const char *usual[4];
} parts[BG_TOKEN_COUNT] = {
    [BG_TOKEN_BOS] = {"bos_token", {"<s>", "<bos>", "<|begin_of_text|>", "<|endoftext|>"}},
    [BG_TOKEN_EOS] = {"eos_token", {"</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"}},
    [BG_TOKEN_UNK] = {"unk_token", {"<unk>", "[UNK]"}},
    [BG_TOKEN_PAD] = {"pad_token", {"<pad>", "[PAD]"}},
    [BG_TOKEN_CLS] = {"cls_token", {"[CLS]"}},
    [BG_TOKEN_SEP] = {"sep_token", {"[SEP]"}},
    [BG_TOKEN_MASK] = {"mask_token", {"[MASK]", "<mask>"}},
};

const char *bg_special_key(bg_special_token which)
{
    return parts[which].key;
}

const char *bg_special_spelling(const json_t *config, const char *key)
{
    const json_t *value = json_object_get(config, key);
    if (json_is_object(value)) value = json_object_get(value, "content");
    return json_string_value(value);
}

void bg_special_find(bg_tokenizer *t, const json_t *config, const char *const *defaults)
{
    for (int part = 0; part < BG_TOKEN_COUNT; part++) {
        const char *spelling = bg_special_spelling(config, parts[part].key);
        int32_t *id = &t->special[part];
        if (json_object_get(config, parts[part].key)) { /* null: there is none */
            *id = spelling ? bg_tokenizer_id(t, spelling) : -1;
            continue;
        }
        if (part == BG_TOKEN_UNK) *id = t->unk_id;
        if (part == BG_TOKEN_PAD && t->padding.enabled) *id = t->padding.id;
        if (*id < 0 && defaults && defaults[part]) *id = bg_tokenizer_id(t, defaults[part]);
        for (size_t i = 0; !defaults && i < 4 && *id < 0 && parts[part].usual[i]; i++)
            *id = bg_tokenizer_id(t, parts[part].usual[i]);
    }
}

int32_t bg_tokenizer_special(const bg_tokenizer *tokenizer, bg_special_token which)
{
    return tokenizer->special[which];
}
