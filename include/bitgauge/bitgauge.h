/* bitgauge: what does quantizing a language model cost, and what does it buy, on this machine?
 *
 * This is the whole public interface of libbitgauge; the bitgauge program is its first client.
 * Three things can be done with it:
 *   - run a job (bg_run_job): measure one model at a list of precisions, each in a process of its
 *     own, into results that bg_results_write turns into JSON, CSV, Markdown, HTML or a table;
 *   - look at a model without running it (bg_inspect), or at the machine (bg_describe_devices);
 *   - use a tokenizer (bg_tokenizer_open, ...).
 * Nothing here is thread-safe unless it says so; different objects may be used by different
 * threads. Text is UTF-8. */
#ifndef BITGAUGE_H
#define BITGAUGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BG_API __attribute__((visibility("default")))

/* "1.2.3" */
BG_API const char *bg_version(void);

/* ---- errors ---------------------------------------------------------------------------------- */

/* What a call came to. The values are also the exit codes of the program. */
typedef enum {
    BG_OK = 0,
    BG_ERR_INTERNAL = 1,      /* a defect in bitgauge */
    BG_ERR_USAGE = 2,         /* an option or argument that makes no sense */
    BG_ERR_FILE = 3,          /* a file that is not there or cannot be read */
    BG_ERR_FORMAT = 4,        /* a file that is damaged, or not what it should be */
    BG_ERR_UNSUPPORTED = 5,   /* a valid request for something bitgauge cannot do */
    BG_ERR_MEMORY = 6,        /* out of memory */
    BG_ERR_OUTPUT = 7,        /* a result that could not be written */
    BG_ERR_ROW = 8,           /* at least one precision failed; its row says why */
    BG_ERR_INTERRUPTED = 130, /* stopped by SIGINT or SIGTERM; what was finished is reported */
} bg_status;

/* One sentence: what, where, and what to do. Every function that takes a bg_error* accepts NULL. */
typedef struct {
    bg_status status;
    char message[1024];
} bg_error;

/* ---- progress -------------------------------------------------------------------------------- */

/* Called from time to time during long work. `stage` says what is going on ("nf4: perplexity,
 * lines"), done and total are in that stage's own unit; total is 0 where it is not known. Return
 * false to interrupt: the work ends with BG_ERR_INTERRUPTED. */
typedef bool (*bg_progress_fn)(void *context, const char *stage, uint64_t done, uint64_t total);

typedef struct {
    bg_progress_fn call; /* may be NULL */
    void *context;
} bg_progress;

/* Two stages are more than a name. One that begins with BG_STAGE_DOWNLOADING counts bytes. One that
 * begins with BG_STAGE_NOTE is a remark that the user should read, such as that a cached model
 * stands in for the Hub; it is told once. */
#define BG_STAGE_DOWNLOADING "downloading "
#define BG_STAGE_NOTE        "note: "

/* ---- jobs ------------------------------------------------------------------------------------ */

/* How a text becomes a perplexity; docs/results.md defines each exactly. */
typedef enum {
    BG_PROTOCOL_LINES = 1 << 0, /* each line scored alone, truncated to max_length */
    BG_PROTOCOL_SLIDING =
        1 << 1,                  /* windows of max_length moved by stride, each token scored once */
    BG_PROTOCOL_CHUNKS = 1 << 2, /* windows of max_length side by side, each scored alone */
} bg_protocol;

/* A named task (bg_task_names, docs/tasks.md) and its data file; NULL: the one on the Hub. */
typedef struct {
    const char *name, *data;
} bg_named_task;

/* What to measure. Start from bg_job_defaults; strings are borrowed and must outlive the call. */
typedef struct {
    const char *model;   /* a directory in the Hugging Face layout, or a name on the Hub */
    bool random_weights; /* only config.json is read; weights are made up at the true shape */
    const char *const
        *precisions; /* "fp32", "fp16", ...; the first that succeeds is the baseline */
    size_t n_precisions;
    const char *device; /* "cpu", or a GPU: "cuda", the first, "cuda:1", ... */
    int threads;        /* 0: one for each processor */

    struct {
        bool enabled;
        int prompt_tokens; /* length of the prompt; for a classifier, of the padded sentence */
        int new_tokens;    /* decoded after it; ignored for a classifier */
        int batch;         /* sequences side by side */
        int runs;          /* timed runs, after warm-up */
    } bench;
    struct {
        bool enabled;
        const char *text;       /* a UTF-8 text file, or a data file with the column "text" */
        unsigned protocols;     /* bg_protocol values, or-ed */
        int max_length, stride; /* 0: 128 for lines; for the others the model's context, at
                                       most 2048, and half of it */
        int64_t limit;          /* lines: at most so many lines; 0: all */
        int64_t max_tokens;     /* sliding, chunks: at most so many tokens of the text; 0: all */
    } perplexity;
    struct {
        bool enabled;
        const char *data; /* a data file with the columns "sentence" and "label" (docs/data.md) */
        int64_t limit;    /* at most so many sentences; 0: all */
        int max_length;   /* truncate to so many tokens; 0: 128, or what the model has */
        bool pad;         /* pad every sentence to max_length */
    } classify;
    struct {
        bool enabled;
        const char *const *prompts;
        size_t n_prompts;
        const char *image; /* PNG or JPEG that the prompts are about; NULL: none */
        int max_new_tokens;
        bool stop_at_eos;   /* end a text at an end token; else none is ever chosen, but by an
                               encoder-decoder, which always ends its answers */
        double temperature; /* 0: greedy */
        int top_k;          /* 0: off */
        double top_p;       /* 1: off */
        uint64_t seed;
    } generate;
    /* Questions as lm-evaluation-harness asks them. One that the model cannot be asked is
     * an error. */
    struct {
        const bg_named_task *items;
        size_t n;
        int64_t limit; /* at most so many documents of each; 0: all */
        int batch;     /* documents side by side; 0: each request by itself */
    } tasks;
} bg_job;

/* Fills in the defaults of `bitgauge compare`, all measurements disabled, no model. */
BG_API void bg_job_defaults(bg_job *job);

typedef struct bg_results bg_results;

/* Starts empty results, with a description of this machine. NULL when out of memory. */
BG_API bg_results *bg_results_create(void);
BG_API void bg_results_free(bg_results *results);
/* How many rows there are, failed ones included. */
BG_API size_t bg_results_count(const bg_results *results);

/* Runs `job` and adds its rows to `results`; several jobs may share one results object. Each
 * precision runs in a process of its own, started from the program at `worker` (NULL: the running
 * executable), which must be bitgauge. A precision that fails becomes a row with its reason and the
 * rest go on: then BG_ERR_ROW is returned, and the rows are there. After an interruption the rows
 * finished so far are there, too. */
BG_API bg_status bg_run_job(const bg_job *job, const char *worker, bg_progress progress,
                            bg_results *results, bg_error *err);

/* The command line to print in a report as the way to repeat it. Copied. */
BG_API bg_status bg_results_set_command(bg_results *results, const char *command, bg_error *err);

typedef enum {
    BG_REPORT_TABLE, /* for a terminal */
    BG_REPORT_JSON,  /* schema "bitgauge/1", docs/results.md */
    BG_REPORT_CSV,   /* a line for each row */
    BG_REPORT_MARKDOWN,
    BG_REPORT_HTML, /* one self-contained file */
} bg_report_format;

/* Writes results to a file; "-" is standard output. The file is replaced whole or not at all.
 * `width` is the terminal's width for BG_REPORT_TABLE (0: 100) and ignored otherwise. */
BG_API bg_status bg_results_write(const bg_results *results, bg_report_format format, int width,
                                  const char *path, bg_error *err);

/* What a worker process does: reads commands from `in`, writes events to `out`, one JSON value a
 * line (docs/worker.md). The program calls it for its hidden subcommand "worker". */
BG_API bg_status bg_worker_main(int in, int out, bg_error *err);

/* ---- the Hub --------------------------------------------------------------------------------- */

/* Everywhere in this header a model may be named by a path or, where there is no such path, by its
 * name on the Hugging Face Hub: "NAME", "ORG/NAME", "ORG/NAME@REVISION". docs/hub.md says where it
 * is kept and which variables of the environment matter. */

/* Finds a model by its path or its name, downloading what is missing: *directory is the path, or
 * the directory with the model's files; released with bg_string_free. `config_only`: the
 * configuration and the tokenizer, without weights. */
BG_API bg_status bg_find_model(const char *model, bool config_only, bg_progress progress,
                               char **directory, bg_error *err);

/* The same for a name on the Hub, whatever paths there are; what the cache has is checked against
 * its checksums. */
BG_API bg_status bg_pull(const char *name, bool config_only, bg_progress progress, char **directory,
                         bg_error *err);

/* ---- looking --------------------------------------------------------------------------------- */

/* Describes a checkpoint directory or a single checkpoint file: configuration, tensors, types,
 * sizes. *text is released with bg_string_free. `json` chooses JSON over a table. */
BG_API bg_status bg_inspect(const char *path, bool json, char **text, bg_error *err);

/* Describes the devices of this machine, the CPU and the GPUs, or why there are none: cores,
 * instruction sets, compute capability, the kernels that each precision would use, and the memory's
 * bandwidth, which is measured now, the CPU's with `threads` threads (about a second). */
BG_API bg_status bg_describe_devices(int threads, bool json, char **text, bg_error *err);

BG_API void bg_string_free(char *text);

/* The named tasks in the order of the documentation; ends with NULL. Static. */
BG_API const char *const *bg_task_names(void);

/* The known precisions in the order of the documentation; ends with NULL. Static. */
BG_API const char *const *bg_precision_names(void);

/* ---- tokenizers ------------------------------------------------------------------------------ */

typedef struct bg_tokenizer bg_tokenizer;

/* Opens the tokenizer of a model directory: tokenizer.json, or vocab.json + merges.txt, or
 * vocab.txt, or a SentencePiece file (tokenizer.model, spiece.model, sentencepiece.bpe.model), with
 * the tokens and settings of tokenizer_config.json. */
BG_API bg_status bg_tokenizer_open(const char *directory, bg_tokenizer **out, bg_error *err);
BG_API void bg_tokenizer_close(bg_tokenizer *tokenizer);

/* Token ids of `text` (size bytes, UTF-8; invalid UTF-8 is refused), with the special tokens that
 * the tokenizer's template adds if `add_special`. No truncation, no padding. *ids is released with
 * bg_ids_free. */
BG_API bg_status bg_tokenizer_encode(const bg_tokenizer *tokenizer, const char *text, size_t size,
                                     bool add_special, int32_t **ids, size_t *n, bg_error *err);
BG_API void bg_ids_free(int32_t *ids);

/* A text to encode, alone or with another after it (a question and its passage). */
typedef struct {
    const char *text;
    size_t size;      /* bytes */
    const char *pair; /* NULL: none */
    size_t pair_size;
} bg_tokenizer_input;

typedef struct {
    bool add_special;   /* add the special tokens of the tokenizer's template */
    bool truncate, pad; /* as tokenizer.json is set to; where it is not, nothing happens */
} bg_encode_options;

typedef struct {
    size_t n;
    int32_t *ids, *type_ids; /* (n); type: which of the two texts, as the template says */
    uint8_t *attention_mask; /* (n); 1: a token, 0: padding */
} bg_encoding;

/* Encodes n inputs; *out has a bg_encoding for each, released with bg_encodings_free(*out, n). */
BG_API bg_status bg_tokenizer_encode_batch(const bg_tokenizer *tokenizer,
                                           const bg_tokenizer_input *inputs, size_t n,
                                           const bg_encode_options *options, bg_encoding **out,
                                           bg_error *err);
BG_API void bg_encodings_free(bg_encoding *encodings, size_t n);

/* The text of token ids, as the tokenizer's decoder writes it; with `skip_special`, without the
 * special tokens. *text is NUL-terminated, released with bg_string_free; *size (may be NULL) is its
 * length. */
BG_API bg_status bg_tokenizer_decode(const bg_tokenizer *tokenizer, const int32_t *ids, size_t n,
                                     bool skip_special, char **text, size_t *size, bg_error *err);

/* How many ids there are: one more than the largest. */
BG_API size_t bg_tokenizer_vocab_size(const bg_tokenizer *tokenizer);
/* The token of an id as the vocabulary spells it (borrowed), or NULL. */
BG_API const char *bg_tokenizer_token(const bg_tokenizer *tokenizer, int32_t id);
/* The id of a token, or -1. */
BG_API int32_t bg_tokenizer_id(const bg_tokenizer *tokenizer, const char *token);

#ifdef __cplusplus
}
#endif
#endif
