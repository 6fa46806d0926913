/* render_report table|json|csv|md|html WIDTH FILE: writes the report of a results document to
 * standard output. */
#include "core/json.h"
#include "report/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    static const char *const names[] = {"table", "json", "csv", "md", "html"};
    static const bg_report_format formats[] = {BG_REPORT_TABLE, BG_REPORT_JSON, BG_REPORT_CSV,
                                               BG_REPORT_MARKDOWN, BG_REPORT_HTML};
    bg_error err;
    json_t *document = NULL;
    bg_text out = {0};
    if (argc != 4) return BG_ERR_USAGE;
    bg_status status = bg_json_load(argv[3], 1 << 28, &document, &err);
    size_t f = 0;
    while (f < 5 && strcmp(names[f], argv[1]) != 0) f++;
    if (status == BG_OK && f == 5) status = bg_fail(&err, BG_ERR_USAGE, "no format %s", argv[1]);
    if (status == BG_OK) status = bg_report_render(document, formats[f], atoi(argv[2]), &out, &err);
    if (status == BG_OK)
        fwrite(out.data, 1, out.size, stdout);
    else
        fprintf(stderr, "%s\n", err.message);
    bg_text_free(&out);
    json_decref(document);
    return (int)status;
}
