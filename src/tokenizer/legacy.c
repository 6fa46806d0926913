/* The file sets from before tokenizer.json: vocab.json + merges.txt of GPT-2, OPT and RoBERTa,
 * vocab.txt of BERT. Their pipelines are fixed; tokenizer_config.json has the few settings. */
#include "core/alloc.h"
#include "core/file.h"
#include "tokenizer/internal.h"
#include "tokenizer/unicode.h"

#include <string.h>

enum { LARGEST_FILE = 64 * 1024 * 1024 };

static const char config_name[] = "tokenizer_config.json";

/* The next line of a text and its end, without "\n" or "\r\n"; false at the end of the text. */
static bool next_line(const char **at, const char *end, const char **line, size_t *size)
{
    if (*at >= end) return false;
    const char *newline = memchr(*at, '\n', (size_t)(end - *at));
    const char *stop = newline ? newline : end;
    *line = *at;
    *at = newline ? newline + 1 : end;
    if (stop > *line && stop[-1] == '\r') stop--;
    *size = (size_t)(stop - *line);
    return true;
}

static bg_status read_utf8(const char *path, char **text, size_t *size, bg_error *err)
{
    BG_TRY(bg_read_text(path, LARGEST_FILE, text, size, err));
    size_t valid = bg_utf8_valid(*text, *size);
    if (valid == *size && !memchr(*text, 0, *size)) return BG_OK;
    const char *nul = memchr(*text, 0, *size);
    if (nul && (size_t)(nul - *text) < valid) valid = (size_t)(nul - *text);
    bg_free(*text);
    *text = NULL;
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s: byte %zu is not valid in a UTF-8 text; the file is damaged", path, valid);
}

static bool class_begins(const json_t *config, const char *name)
{
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    return class && strncmp(class, name, strlen(name)) == 0;
}

/* ---- GPT-2 ----------------------------------------------------------------------------------- */

static bg_status read_merges(const char *path, const bg_bpe_settings *settings, bg_tokenizer *t,
                             bg_error *err)
{
    char *text = NULL;
    size_t size, lines = 0, length;
    BG_TRY(read_utf8(path, &text, &size, err));
    const char *at = text, *line;
    while (next_line(&at, text + size, &line, &length)) lines++;
    bg_status status = bg_bpe_create(t, settings, lines, path, err);
    at = text;
    while (status == BG_OK && next_line(&at, text + size, &line, &length))
        if (length) status = bg_bpe_merge_line(t, line, length, path, err);
    bg_free(text);
    return status;
}

bg_status bg_tokenizer_read_gpt2(const char *vocab_path, const char *merges_path,
                                 const json_t *config, bg_tokenizer *t, bg_error *err)
{
    static const char *const gpt2[BG_TOKEN_COUNT] = {[BG_TOKEN_BOS] = "<|endoftext|>",
                                                     [BG_TOKEN_EOS] = "<|endoftext|>",
                                                     [BG_TOKEN_UNK] = "<|endoftext|>"};
    static const char *const roberta[BG_TOKEN_COUNT] = {
        [BG_TOKEN_BOS] = "<s>",    [BG_TOKEN_EOS] = "</s>",  [BG_TOKEN_SEP] = "</s>",
        [BG_TOKEN_CLS] = "<s>",    [BG_TOKEN_UNK] = "<unk>", [BG_TOKEN_PAD] = "<pad>",
        [BG_TOKEN_MASK] = "<mask>"};
    json_t *vocab = NULL;
    BG_TRY(bg_json_load(vocab_path, LARGEST_FILE, &vocab, err));
    bg_status status = bg_vocab_parse(vocab, vocab_path, &t->vocab, err);
    json_decref(vocab);
    BG_TRY(status);
    BG_TRY(read_merges(merges_path, &(bg_bpe_settings){0}, t, err));
    bg_step *words = bg_steps_add(&t->pretokenizers, bg_pretokenizer_kinds, "ByteLevel");
    bg_step *decoder = bg_steps_add(&t->decoders, bg_decoder_kinds, "ByteLevel");
    if (!words || !decoder) return bg_fail_memory(err, sizeof *words, "a tokenizer");
    words->use_regex = true;
    BG_TRY(bg_json_bool(config, "add_prefix_space", config_name, false, &words->add_prefix_space,
                        err));
    BG_TRY(bg_byte_level_pattern(words, vocab_path, err));
    bool is_roberta = class_begins(config, "Roberta");
    const char *const *defaults = is_roberta ? roberta : gpt2;
    BG_TRY(bg_added_config(t, config, defaults, err));
    BG_TRY(bg_added_finish(&t->added, &t->normalizers, err));
    bg_special_find(t, config, defaults);
    int32_t cls = t->special[BG_TOKEN_CLS], sep = t->special[BG_TOKEN_SEP];
    return is_roberta && cls >= 0 && sep >= 0 ? bg_template_roberta(t, cls, sep, err)
                                              : bg_template_config(t, config, err);
}

/* ---- BERT ------------------------------------------------------------------------------------ */

static bg_status read_vocabulary(const char *path, bg_vocab *vocab, bg_error *err)
{
    char *text = NULL;
    size_t size, lines = 0, length, n;
    BG_TRY(read_utf8(path, &text, &size, err));
    const char *at = text, *line;
    while (next_line(&at, text + size, &line, &length)) lines++;
    bg_status status = BG_OK;
    if (lines == 0 || lines > BG_MAX_TOKEN_ID)
        status = bg_fail(err, BG_ERR_FORMAT,
                         "%s: %zu lines; a vocabulary has from 1 to %d tokens, one a line", path,
                         lines, BG_MAX_TOKEN_ID);
    if (status == BG_OK) status = bg_vocab_reserve(vocab, lines, size, (int32_t)lines - 1, err);
    at = text;
    for (int32_t id = 0; status == BG_OK && next_line(&at, text + size, &line, &length); id++) {
        while (length && bg_is_whitespace(bg_utf8_last(line, length, &n))) length -= n;
        bg_vocab_add(vocab, line, length, id);
    }
    bg_free(text);
    return status;
}

static bg_status bert_normalizer(const json_t *config, bg_tokenizer *t, bg_error *err)
{
    bg_step *step = bg_steps_add(&t->normalizers, bg_normalizer_kinds, "BertNormalizer");
    if (!step) return bg_fail_memory(err, sizeof *step, "a tokenizer");
    step->clean_text = true;
    BG_TRY(bg_json_bool(config, "do_lower_case", config_name, true, &step->lowercase, err));
    BG_TRY(bg_json_bool(config, "strip_accents", config_name, step->lowercase, &step->strip_accents,
                        err));
    return bg_json_bool(config, "tokenize_chinese_chars", config_name, true,
                        &step->handle_chinese_chars, err);
}

bg_status bg_tokenizer_read_bert(const char *vocab_path, const json_t *config, bg_tokenizer *t,
                                 bg_error *err)
{
    static const char *const usual[BG_TOKEN_COUNT] = {[BG_TOKEN_UNK] = "[UNK]",
                                                      [BG_TOKEN_SEP] = "[SEP]",
                                                      [BG_TOKEN_PAD] = "[PAD]",
                                                      [BG_TOKEN_CLS] = "[CLS]",
                                                      [BG_TOKEN_MASK] = "[MASK]"};
    const char *unk = bg_special_spelling(config, "unk_token");
    BG_TRY(read_vocabulary(vocab_path, &t->vocab, err));
    BG_TRY(bg_wordpiece_create(t, unk ? unk : "[UNK]", "##", 100, vocab_path, err));
    BG_TRY(bert_normalizer(config, t, err));
    bg_step *decoder = NULL;
    if (bg_steps_add(&t->pretokenizers, bg_pretokenizer_kinds, "BertPreTokenizer"))
        decoder = bg_steps_add(&t->decoders, bg_decoder_kinds, "WordPiece");
    if (!decoder) return bg_fail_memory(err, sizeof *decoder, "a tokenizer");
    decoder->cleanup = true;
    BG_TRY(bg_step_content(NULL, "prefix", "##", vocab_path, decoder, err));
    BG_TRY(bg_added_config(t, config, usual, err));
    BG_TRY(bg_added_finish(&t->added, &t->normalizers, err));
    bg_special_find(t, config, usual);
    int32_t cls = t->special[BG_TOKEN_CLS], sep = t->special[BG_TOKEN_SEP];
    if (cls < 0 || sep < 0)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: there is no [CLS] or no [SEP]; this is not a BERT vocabulary",
                       vocab_path);
    return bg_template_bert(t, cls, sep, err);
}
