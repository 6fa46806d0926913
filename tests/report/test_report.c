/* What each format says about the sample, and how it escapes what is awkward in it. */
#include "report/format.h"
#include "report/sample.h"

#include <utf8proc.h>

static void test_numbers(void)
{
    static const struct {
        double value;
        bg_unit unit;
        const char *text;
    } cases[] = {
        {0, BG_UNIT_COUNT, "0"},
        {999, BG_UNIT_COUNT, "999"},
        {1000, BG_UNIT_COUNT, "1,000"},
        {1234567, BG_UNIT_COUNT, "1,234,567"},
        {-1234, BG_UNIT_COUNT, "−1,234"},
        {1.839, BG_UNIT_RATIO, "1.84×"},
        {512, BG_UNIT_BYTES, "512\u00A0bytes"},
        {1536, BG_UNIT_BYTES, "1.5\u00A0KiB"},
        {27869184, BG_UNIT_BYTES, "26.6\u00A0MiB"},
        {1e10, BG_UNIT_BYTES, "9.31\u00A0GiB"},
        {4.09e12, BG_UNIT_BYTE_RATE, "4,090\u00A0GB/s"},
        {3.16e10, BG_UNIT_BYTE_RATE, "31.6\u00A0GB/s"},
        {2.5e8, BG_UNIT_BYTE_RATE, "250\u00A0MB/s"},
        {0.0123, BG_UNIT_S_AS_MS, "12.3\u00A0ms"},
        {0.8199, BG_UNIT_PERCENT, "82.0\u00A0%"},
        {1.3, BG_UNIT_CHANGE, "+1.30\u00A0%"},
        {-0.001, BG_UNIT_CHANGE, "0.00\u00A0%"}, /* no "−0.00" */
        {-0.004, BG_UNIT_POINTS, "−0.4\u00A0points"},
        {NAN, BG_UNIT_BYTES, "–"},
        {INFINITY, BG_UNIT_RATIO, "–"},
    };
    char out[BG_CELL];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_STRING(bg_show_alone(out, cases[i].value, cases[i].unit), cases[i].text);
    /* Nothing overflows the cell. */
    for (int unit = 0; unit <= BG_UNIT_POINTS; unit++) {
        CHECK(strlen(bg_show_alone(out, 1.7e308, (bg_unit)unit)) < BG_CELL);
        CHECK(strlen(bg_show_alone(out, -9.99999e17, (bg_unit)unit)) < BG_CELL);
        CHECK(strlen(bg_show_alone(out, 5e-324, (bg_unit)unit)) < BG_CELL);
    }
}

static void check_escape(void (*put)(bg_text *, const char *), const char *text,
                         const char *expected)
{
    bg_text out = {0};
    put(&out, text);
    CHECK_STRING(out.data ? out.data : "", expected);
    bg_text_free(&out);
}

static void test_escapes(void)
{
    check_escape(bg_put_html, "<a href=\"x\">&'", "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
    check_escape(bg_put_html, "a\x01\x1b[31m\u202E\xff z", "a\uFFFD\uFFFD[31m\uFFFD\uFFFD z");
    check_escape(bg_put_html, "東京 🎬\n\t", "東京 🎬\n\t");
    check_escape(bg_put_markdown, "a|b\nc*`<i>", "a\\|b↵ c\\*\\`&lt;i&gt;");
    check_escape(bg_put_csv, "plain", "plain");
    check_escape(bg_put_csv, "a,\"b\"", "\"a,\"\"b\"\"\"");
    check_escape(bg_put_csv, "=1+1", "\"'=1+1\"");
    check_escape(bg_put_csv, "+1", "\"'+1\"");
    check_escape(bg_put_csv, "-1", "\"'-1\"");
    check_escape(bg_put_csv, "@x", "\"'@x\"");
    check_escape(bg_put_csv, "\tx", "\"'\tx\"");
    check_escape(bg_put_csv, "1-1", "1-1");
}

static void test_terminal_text(void)
{
    bg_text out = {0};
    CHECK(bg_put_terminal(&out, "\x1b[2J東京", 80) == 8);
    CHECK_STRING(out.data, "\uFFFD[2J東京");
    bg_text_free(&out);
    CHECK(bg_put_terminal(&out, "東京東京", 6) == 5); /* two columns each, one for the ellipsis */
    CHECK_STRING(out.data, "東京…");
    bg_text_free(&out);
    bg_put_wrapped(&out, "one two three four-and-a-half five", 0, 2, 12);
    CHECK_STRING(out.data, "one two\n  three\n  four-and-a\n  -half five");
    bg_text_free(&out);
}

static size_t columns_of(const char *line, size_t n)
{
    size_t columns = 0;
    while (n) {
        utf8proc_int32_t point;
        utf8proc_ssize_t length =
            utf8proc_iterate((const utf8proc_uint8_t *)line, (utf8proc_ssize_t)n, &point);
        CHECK(length > 0, "not UTF-8");
        if (length <= 0) return columns;
        CHECK(point >= 0x20 && point != 0x7F, "control character U+%04X", (unsigned)point);
        columns += (size_t)utf8proc_charwidth(point);
        line += length;
        n -= (size_t)length;
    }
    return columns;
}

static void test_table_width(void)
{
    json_t *sample = load_sample();
    for (int width = 1; width < 260; width += width < 130 ? 1 : 9) {
        bg_text out = rendered(sample, BG_REPORT_TABLE, width);
        size_t most = width < 40 ? 40 : (size_t)width;
        for (const char *line = out.data; *line;) {
            size_t n = strcspn(line, "\n"), columns = columns_of(line, n);
            CHECK(columns <= most, "width %d: a line of %zu columns: %.*s", width, columns, (int)n,
                  line);
            line += n + (line[n] == '\n');
        }
        /* What does not fit goes below; it is not left out. */
        CHECK_HAS(out, "Perplexity, sliding");
        CHECK_HAS(out, "tokens/s");
        CHECK_HAS(out, "reads, GB/s");
        CHECK_HAS(out, "nf4-dq");
        bg_text_free(&out);
    }
    json_decref(sample);
}

static void test_table(void)
{
    json_t *sample = load_sample();
    bg_text out = rendered(sample, BG_REPORT_TABLE, 80);
    const char *first_rule = strstr(out.data, "──");
    CHECK(first_rule && strstr(out.data, "speed-up") < first_rule, "the speed-up comes first");
    CHECK_HAS(out, "fp4-dq failed: model.safetensors");
    CHECK_HAS(out, "nf4 holds the weights in 0.23× the memory of fp32");
    CHECK_HAS(out, "mini-distilbert-sst2");
    CHECK_HAS(out, "correct");
    CHECK_HAS(out, "18,315 tokens");
    CHECK_HAS(out, "had not settled when the measuring began: bf16");
    CHECK_LACKS(out, "\x1b");
    bg_text_free(&out);
    json_decref(sample);
}

static void test_json(void)
{
    json_t *sample = load_sample();
    bg_text out = rendered(sample, BG_REPORT_JSON, 0);
    json_t *again = parsed(out.data);
    CHECK(json_equal(sample, again), "what was written is not what was there");
    static const char start[] = "{\n  \"schema\": \"bitgauge/1\",\n  \"version\": \"0.1.0\",\n";
    CHECK(strncmp(out.data, start, strlen(start)) == 0, "keys in the order they were put in");
    CHECK_HAS(out, "\"samples_s\": [0.0");
    json_decref(again);
    bg_text_free(&out);
    json_decref(sample);
}

/* Fields of the line at *at, which is moved to the next one. */
static size_t csv_fields(const char **at)
{
    size_t n = 1;
    bool quoted = false;
    const char *p = *at;
    for (; *p && (quoted || *p != '\r'); p++) {
        quoted ^= *p == '"';
        n += !quoted && *p == ',';
    }
    CHECK(!quoted && p[0] == '\r' && p[1] == '\n', "a line ends in CRLF, outside of quotes");
    *at = *p ? p + 2 : p;
    return n;
}

static void test_csv(void)
{
    json_t *sample = load_sample();
    bg_text out = rendered(sample, BG_REPORT_CSV, 0);
    const char *at = out.data;
    size_t headings = csv_fields(&at), lines = 0;
    CHECK(headings > 40);
    for (; *at; lines++) CHECK(csv_fields(&at) == headings, "line %zu", lines);
    CHECK(lines == json_array_size(json_object_get(sample, "runs")));
    CHECK_HAS(out,
              "\r\nmini-gpt2,nf4,cpu,,ok,,2,avx512-vnni,nf4_dot_avx512 sgemm_openblas,6375342,");
    CHECK_HAS(out, "\"model.safetensors: tensor \"\"transformer");
    bg_text_free(&out);
    json_decref(sample);
}

static void test_markdown(void)
{
    json_t *sample = load_sample();
    bg_text out = rendered(sample, BG_REPORT_MARKDOWN, 0);
    CHECK_HAS(out, "## mini-gpt2\n");
    CHECK_HAS(out, "| fp4-dq (failed) | – |");
    CHECK_HAS(out, "departs at token 11");
    CHECK_LACKS(out, "<script");
    /* Every line of a table has as many cells. */
    size_t cells = 0, tables = 0;
    for (const char *line = out.data; *line;) {
        size_t n = strcspn(line, "\n"), bars = 0;
        for (size_t i = 0; i < n; i++) bars += line[i] == '|' && (i == 0 || line[i - 1] != '\\');
        if (line[0] != '|')
            cells = 0;
        else if (!cells) {
            cells = bars;
            tables++;
        } else
            CHECK(bars == cells, "%.*s", (int)n, line);
        line += n + (line[n] == '\n');
    }
    CHECK(tables == 3);
    bg_text_free(&out);
    json_decref(sample);
}

static void test_html(void)
{
    json_t *sample = load_sample();
    bg_text out = rendered(sample, BG_REPORT_HTML, 0);
    CHECK_HAS(out, "<!DOCTYPE html>");
    CHECK_HAS(out, "nf4 holds the weights in 0.23× the memory of fp32 and decodes 2.72× as fast; "
                   "perplexity rises 2.5\u00A0%.");
    CHECK_HAS(out, "&lt;script&gt;alert(&#39;x&#39;)");
    CHECK_HAS(out, "AMD EPYC &lt;9354&gt;");
    CHECK_HAS(out, "bitgauge compare &#39;models/a &amp; b&#39;");
    CHECK_HAS(out, "<mark>and the king said");
    CHECK_HAS(out, "fp32, fp16, bf16, int8<span>40 tokens");
    CHECK_HAS(out, "<b>failed:</b> model.safetensors");
    CHECK_HAS(out, "id=\"m1-scatter-t\"");
    CHECK_HAS(out, "id=\"m1-decode-t\"");
    CHECK_HAS(out, "id=\"m2-prefill-t\"");
    CHECK_HAS(out, "22 November 2026, 04:00 UTC");
    CHECK_LACKS(out, "<script");
    CHECK_LACKS(out, "http:");
    CHECK_LACKS(out, "https:");
    CHECK_LACKS(out, "url(");
    CHECK_LACKS(out, "@import");
    CHECK_LACKS(out, "nan");
    CHECK_LACKS(out, "\x1b");
    bg_text_free(&out);
    json_decref(sample);
}

static void test_absent(void)
{
    json_t *document = parsed("{\"schema\":\"bitgauge/1\",\"runs\":[{\"model\":\"m\",\"precision\":"
                              "\"fp32\",\"device\":\"cpu\",\"status\":\"ok\",\"weights_bytes\":"
                              "1048576},{\"model\":\"m\",\"precision\":\"nf4\",\"device\":\"cpu\","
                              "\"status\":\"ok\"},{\"model\":\"m\",\"precision\":\"int8\","
                              "\"device\":\"cpu\",\"status\":\"error\"}]}");
    bg_text out = rendered(document, BG_REPORT_TABLE, 80);
    CHECK_HAS(out, "nf4                –\n");
    CHECK_HAS(out, "int8 failed: no reason was recorded");
    CHECK_HAS(out, "fp32: weights of 1.0\u00A0MiB.");
    CHECK_LACKS(out, "Decode");
    bg_text_free(&out);
    out = rendered(document, BG_REPORT_HTML, 80);
    CHECK_LACKS(out, "<figure><figcaption><b>Decoding");
    CHECK_HAS(out, "<b>Memory</b>");
    bg_text_free(&out);
    json_decref(document);
}

static void test_no_runs(void)
{
    json_t *document = parsed("{\"schema\":\"bitgauge/1\",\"version\":\"0.1.0\",\"runs\":[]}");
    static const char *const parts[] = {"No runs.", "\"runs\": []", "model,precision", "No runs.",
                                        "No runs"};
    for (size_t f = 0; f < FORMATS; f++) {
        bg_text out = rendered(document, every_format[f], 80);
        CHECK_HAS(out, parts[f]);
        bg_text_free(&out);
    }
    json_decref(document);
}

/* The sentence at the top must not flatter: a speed-up whose interval holds 1 is none. */
static void test_finding(void)
{
    static const struct {
        const char *comparison, *sentence;
    } cases[] = {
        {"\"decode_speedup\":1.02,\"decode_speedup_ci95\":[0.97,1.06]",
         "and decodes no measurably faster or slower (0.97× to 1.06×); quality was not measured."},
        {"\"decode_speedup\":0.5", "but decodes only 0.50× as fast; quality was not measured."},
        {"\"decode_speedup\":2,\"perplexity_change_percent\":[{\"protocol\":\"sliding\",\"value\":"
         "-0.25}]",
         "and decodes 2.00× as fast; perplexity falls 0.25\u00A0%."},
        {"\"tasks\":[{\"task\":\"piqa\",\"metrics\":[{\"metric\":\"acc\",\"change\":-0.0125}]}]",
         "the memory of fp32; accuracy falls 1.2 points on 80 questions of piqa."},
        {"\"perplexity_change_percent\":[{\"protocol\":\"lines\",\"value\":0.001}]",
         "the memory of fp32; perplexity stays the same."},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[1024];
        snprintf(text, sizeof text,
                 "{\"runs\":[{\"model\":\"m\",\"precision\":\"fp32\",\"status\":\"ok\"},{\"model\":"
                 "\"m\",\"precision\":\"nf4\",\"status\":\"ok\",\"tasks\":[{\"task\":\"piqa\","
                 "\"documents\":80}],"
                 "\"vs_baseline\":{\"baseline\":"
                 "\"fp32\",\"weights_ratio\":0.2,%s}}]}",
                 cases[i].comparison);
        json_t *document = parsed(text);
        bg_text out = rendered(document, BG_REPORT_TABLE, 250);
        CHECK_HAS(out, cases[i].sentence);
        bg_text_free(&out);
        json_decref(document);
    }
}

/* Each metric of a task with its change, in every format that has columns. */
static void test_tasks(void)
{
    json_t *sample = load_sample();
    bg_text out = rendered(sample, BG_REPORT_MARKDOWN, 0);
    CHECK_HAS(out, "| hellaswag: acc, % | hellaswag: Δ acc, pp | hellaswag: ± acc, % | "
                   "hellaswag: acc\\_norm, % |");
    CHECK_HAS(out, "lambada\\_openai: perplexity |");
    bg_text_free(&out);
    out = rendered(sample, BG_REPORT_CSV, 0);
    CHECK_HAS(out, ",boolq_acc,boolq_acc_stderr,boolq_acc_change,");
    CHECK_HAS(out, ",lambada_openai_perplexity_change_percent\r\n");
    CHECK_HAS(out, ",0.0085,-0.00915,");
    bg_text_free(&out);
    out = rendered(sample, BG_REPORT_TABLE, 300);
    CHECK_HAS(out, "boolq");
    CHECK_HAS(out, "acc_norm, %");
    CHECK_HAS(out, "3,270 questions of boolq, 10,042 questions of hellaswag");
    bg_text_free(&out);
    out = rendered(sample, BG_REPORT_HTML, 0);
    CHECK_HAS(out, "<span>hellaswag</span>");
    bg_text_free(&out);
    json_decref(sample);
}

/* Rows of a GPU show its memory, its energy and its name; those of the host have none of it. */
static void test_gpu(void)
{
    json_t *sample = load_sample();
    bg_text out = rendered(sample, BG_REPORT_MARKDOWN, 0);
    const char *gpu = strstr(out.data, "## mini-llama\n");
    CHECK(gpu, "no rows of a GPU");
    CHECK(gpu && strstr(gpu, "| Energy: per token, mJ | Energy: ratio | Energy: W |"), "energy");
    CHECK(gpu && strstr(gpu, "Energy of the prompt: per token, mJ"), "energy of the prompt");
    CHECK(gpu && strstr(gpu, "NVIDIA H200 &lt;NVL&gt;, memory of the GPU as its driver counts it "
                             "for the process."),
          "the device");
    /* 2364.1 MiB of weights and 4 more, against a base of 512 MiB; not the host's memory. */
    CHECK(gpu && strstr(gpu, "| 2,368 |"), "loaded");
    CHECK(gpu && !strstr(gpu, "1 thread"), "threads of the host, which only queues");
    const char *host = strstr(out.data, "## mini-gpt2\n");
    CHECK(host && gpu && !memmem(host, (size_t)(gpu - host), "Energy", 6), "the host has none");
    bg_text_free(&out);
    out = rendered(sample, BG_REPORT_CSV, 0);
    CHECK_HAS(out, ",decode_joules_per_token,decode_mean_watts,");
    CHECK_HAS(out, "\r\nmini-llama,nf4,cuda:1,NVIDIA H200 <NVL>,ok,,1,sm_90,");
    CHECK_HAS(out, ",nvml,536870912,");
    bg_text_free(&out);
    out = rendered(sample, BG_REPORT_TABLE, 120);
    CHECK_HAS(out, "per token, mJ");
    CHECK_HAS(out, "fp32 failed: out of memory on cuda:1: the key cache takes 12.0");
    bg_text_free(&out);
    out = rendered(sample, BG_REPORT_HTML, 0);
    CHECK_HAS(out, "<td>cuda:1, NVIDIA H200 &lt;NVL&gt;</td>");
    CHECK_HAS(out, "<span>Energy of the prompt</span>");
    CHECK_HAS(out, "<dt>its bandwidth, measured by copying</dt><dd>4,090\u00A0GB/s</dd>");
    CHECK_HAS(out, "NVIDIA H200 &lt;NVL&gt;, 4,090\u00A0GB/s copying, ");
    bg_text_free(&out);
    json_decref(sample);
}

int main(void)
{
    RUN(test_numbers);
    RUN(test_escapes);
    RUN(test_terminal_text);
    RUN(test_table_width);
    RUN(test_table);
    RUN(test_json);
    RUN(test_csv);
    RUN(test_markdown);
    RUN(test_html);
    RUN(test_absent);
    RUN(test_no_runs);
    RUN(test_finding);
    RUN(test_tasks);
    RUN(test_gpu);
    return test_finish();
}
