/* bitgauge tokenize: text to token ids and back. */
#include "cli/progress.h"
#include "cli/settings.h"

#include "core/alloc.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "core/text.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The longest text that is read from a file. */
static const size_t LONGEST_TEXT = (size_t)1 << 30;

static const cli_option rows[] = {
    {"text", 0, CLI_STRING, "TEXT", offsetof(cli_settings, text), "The text to tokenize", NULL, 0,
     0},
    {"text-file", 0, CLI_STRING, "FILE", offsetof(cli_settings, text_file),
     "Tokenize the content of FILE; \"-\" is standard input", NULL, 0, 0},
    {"pair", 0, CLI_STRING, "TEXT", offsetof(cli_settings, pair),
     "A second text after it, as for a question and its passage", NULL, 0, 0},
    {"truncate", 0, CLI_FLAG, NULL, offsetof(cli_settings, truncate),
     "Cut to the length that tokenizer.json is set to", NULL, 0, 0},
    {"pad", 0, CLI_FLAG, NULL, offsetof(cli_settings, pad),
     "Pad to the length that tokenizer.json is set to", NULL, 0, 0},
    {"decode", 0, CLI_STRING, "IDS", offsetof(cli_settings, decode),
     "Turn token ids, separated by commas or spaces, into text", NULL, 0, 0},
    {"no-special", 0, CLI_FLAG_OFF, NULL, offsetof(cli_settings, special),
     "Do not add special tokens; with --decode, leave them out of the text", NULL, 0, 0},
    {"ids-only", 0, CLI_FLAG, NULL, offsetof(cli_settings, ids_only),
     "Print the ids alone, on one line", NULL, 0, 0},
    {"json", 0, CLI_OUTPUT, "[=FILE]", offsetof(cli_settings, json_output),
     "Print JSON instead of a table, or write it to FILE", NULL, 0, 0},
};
static const cli_group own = {"Tokens", rows, CLI_COUNT(rows)};

static bg_status read_standard_input(char **text, size_t *size, bg_error *err)
{
    bg_text buffer = {0};
    char block[1 << 16];
    ssize_t n;
    bg_text_append(&buffer, "", 0);
    while ((n = read(STDIN_FILENO, block, sizeof block)) != 0) {
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            bg_text_free(&buffer);
            return bg_fail(err, BG_ERR_FILE, "standard input cannot be read: %s", strerror(errno));
        }
        bg_text_append(&buffer, block, (size_t)n);
        if (buffer.failed || buffer.size > LONGEST_TEXT) {
            size_t got = buffer.size;
            bg_text_free(&buffer);
            return bg_fail_memory(err, got, "the text on standard input");
        }
    }
    *text = buffer.data ? buffer.data : bg_strdup("");
    *size = buffer.size;
    return *text ? BG_OK : bg_fail_memory(err, 1, "the text on standard input");
}

/* "1,2 3" into *ids, released with bg_free. */
static bg_status parse_ids(const char *list, int32_t **ids, size_t *n, bg_error *err)
{
    static const char separators[] = ", \t\n";
    size_t most = strlen(list) / 2 + 1;
    int32_t *items = bg_alloc_array(most, sizeof *items);
    if (!items) return bg_fail_memory(err, most * sizeof *items, "the token ids");
    *n = 0;
    for (const char *at = list + strspn(list, separators); *at; at += strspn(at, separators)) {
        char *end;
        errno = 0;
        long id = strtol(at, &end, 10);
        if (end == at || (*end && !strchr(separators, *end)) || errno || id < 0 || id > INT32_MAX) {
            bg_free(items);
            return bg_fail(err, BG_ERR_USAGE,
                           "--decode takes token ids such as 464,3139, not \"%.40s\"", at);
        }
        items[(*n)++] = (int32_t)id;
        at = end;
    }
    *ids = items;
    return BG_OK;
}

static bg_status check_ids(const bg_tokenizer *tokenizer, const int32_t *ids, size_t n,
                           bg_error *err)
{
    size_t count = bg_tokenizer_vocab_size(tokenizer);
    for (size_t i = 0; i < n; i++)
        if ((size_t)ids[i] >= count)
            return bg_fail(err, BG_ERR_USAGE,
                           "--decode: %d is no token id of this tokenizer; they go from 0 to %zu",
                           (int)ids[i], count ? count - 1 : 0);
    return BG_OK;
}

/* A vocabulary may hold any byte; what could move the cursor is shown as \xNN. */
static void append_visible(bg_text *out, const char *token)
{
    for (; *token; token++) {
        unsigned char c = (unsigned char)*token;
        if (c < 0x20 || c == 0x7F)
            bg_text_printf(out, "\\x%02X", c);
        else
            bg_text_append(out, token, 1);
    }
}

static void append_table(bg_text *out, const bg_tokenizer *tokenizer, const int32_t *ids, size_t n)
{
    bg_text_puts(out, "      id  token\n");
    for (size_t i = 0; i < n; i++) {
        const char *token = bg_tokenizer_token(tokenizer, ids[i]);
        bg_text_printf(out, "%8d  ", (int)ids[i]);
        append_visible(out, token ? token : "");
        bg_text_puts(out, "\n");
    }
    bg_text_printf(out, "%zu token%s\n", n, n == 1 ? "" : "s");
}

static void append_ids(bg_text *out, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) bg_text_printf(out, "%s%d", i ? " " : "", (int)ids[i]);
    bg_text_puts(out, "\n");
}

/* {"text", "ids", "tokens"}: `text` is what was encoded or decoded. With `row`, "type_ids" and
 * "attention_mask", too. */
static bool append_json(bg_text *out, const bg_tokenizer *tokenizer, const char *text, size_t size,
                        const int32_t *ids, size_t n, const bg_encoding *row)
{
    json_t *numbers = json_array(), *tokens = json_array();
    for (size_t i = 0; i < n; i++) {
        const char *token = bg_tokenizer_token(tokenizer, ids[i]);
        json_array_append_new(numbers, json_integer(ids[i]));
        json_array_append_new(tokens, token ? json_string(token) : json_null());
    }
    json_t *root = json_pack("{s:o, s:o, s:o}", "text", json_stringn(text, size), "ids", numbers,
                             "tokens", tokens);
    if (row) {
        json_t *types = json_array(), *mask = json_array();
        for (size_t i = 0; i < n; i++) {
            json_array_append_new(types, json_integer(row->type_ids[i]));
            json_array_append_new(mask, json_integer(row->attention_mask[i]));
        }
        bool all = json_array_size(types) == n && json_array_size(mask) == n;
        if (json_object_set_new(root, "type_ids", types) ||
            json_object_set_new(root, "attention_mask", mask) || !all) {
            json_decref(root);
            root = NULL;
        }
    }
    char *dumped = root ? json_dumps(root, JSON_COMPACT) : NULL;
    bool complete = dumped && json_array_size(numbers) == n && json_array_size(tokens) == n;
    if (complete) {
        bg_text_puts(out, dumped);
        bg_text_puts(out, "\n");
    }
    bg_free(dumped);
    json_decref(root);
    return complete;
}

static bg_status print(const cli_settings *settings, const bg_tokenizer *tokenizer,
                       const char *text, size_t size, const int32_t *ids, size_t n,
                       const bg_encoding *row, bg_error *err)
{
    bg_text out = {0};
    bool complete = true;
    if (settings->json_output.wanted) {
        complete = append_json(&out, tokenizer, text, size, ids, n, row);
    } else if (settings->decode) {
        bg_text_append(&out, text, size);
        bg_text_puts(&out, "\n");
    } else if (settings->ids_only) {
        append_ids(&out, ids, n);
    } else {
        append_table(&out, tokenizer, ids, n);
    }
    bg_status status = complete && !out.failed
                           ? cli_print(settings->json_output.path, out.data, out.size, err)
                           : bg_fail_memory(err, out.size, "the list of tokens");
    bg_text_free(&out);
    return status;
}

static bg_status encode(const cli_settings *settings, const bg_tokenizer *tokenizer, bg_error *err)
{
    char *content = NULL;
    const char *text = settings->text;
    size_t size = text ? strlen(text) : 0;
    if (settings->text_file) {
        if (strcmp(settings->text_file, "-") == 0)
            BG_TRY(read_standard_input(&content, &size, err));
        else
            BG_TRY(bg_read_text(settings->text_file, LONGEST_TEXT, &content, &size, err));
        text = content;
    }
    const char *pair = settings->pair;
    const bg_tokenizer_input input = {text, size, pair, pair ? strlen(pair) : 0};
    const bg_encode_options options = {settings->special, settings->truncate, settings->pad};
    bool laid_out = pair || options.truncate || options.pad;
    bg_encoding *row = NULL;
    bg_status status = bg_tokenizer_encode_batch(tokenizer, &input, 1, &options, &row, err);
    if (status == BG_OK)
        status =
            print(settings, tokenizer, text, size, row->ids, row->n, laid_out ? row : NULL, err);
    else if (settings->text_file)
        bg_error_context(err, "%s", settings->text_file);
    bg_encodings_free(row, row != NULL);
    bg_free(content);
    return status;
}

static bg_status decode(const cli_settings *settings, const bg_tokenizer *tokenizer, bg_error *err)
{
    int32_t *ids = NULL;
    size_t n = 0, size = 0;
    char *text = NULL;
    BG_TRY(parse_ids(settings->decode, &ids, &n, err));
    bg_status status = check_ids(tokenizer, ids, n, err);
    if (status == BG_OK)
        status = bg_tokenizer_decode(tokenizer, ids, n, !settings->special, &text, &size, err);
    if (status == BG_OK) status = print(settings, tokenizer, text, size, ids, n, NULL, err);
    bg_string_free(text);
    bg_free(ids);
    return status;
}

static bg_status run(cli_settings *settings, bg_error *err)
{
    int given = !!settings->text + !!settings->text_file + !!settings->decode;
    if (given != 1)
        return bg_fail(err, BG_ERR_USAGE,
                       "tokenize needs one of --text, --text-file and --decode%s",
                       given ? ", but was given more" : "");
    if (settings->decode && (settings->pair || settings->truncate || settings->pad))
        return bg_fail(err, BG_ERR_USAGE, "--pair, --truncate and --pad do not go with --decode");
    bg_json_init();
    bg_tokenizer *tokenizer = NULL;
    char *directory;
    BG_TRY(cli_find_model(settings->arguments.items[0], true, &directory, err));
    bg_status status = bg_tokenizer_open(directory, &tokenizer, err);
    bg_string_free(directory);
    BG_TRY(status);
    status = settings->decode ? decode(settings, tokenizer, err) : encode(settings, tokenizer, err);
    bg_tokenizer_close(tokenizer);
    return status;
}

const cli_command cli_tokenize = {
    .name = "tokenize",
    .summary = "turn text into token ids, or ids into text",
    .arguments = "MODEL",
    .min_arguments = 1,
    .max_arguments = 1,
    .description = "Uses the tokenizer in the directory MODEL: tokenizer.json, or vocab.json and "
                   "merges.txt, or vocab.txt, or a SentencePiece model (tokenizer.model, "
                   "spiece.model, sentencepiece.bpe.model).",
    .examples = "bitgauge tokenize gpt2/ --text \"Hello, world\" # ids and tokens\n"
                "bitgauge tokenize gpt2/ --text-file book.txt --ids-only # ids alone\n"
                "bitgauge tokenize gpt2/ --decode 15496,11,995 # back to text\n",
    .groups = (const cli_group *const[]){&own, NULL},
    .run = run,
};
