#include "report/report.h"

#include "core/json.h"
#include "report/formats.h"

bg_status bg_report_render(const json_t *results, bg_report_format format, int width, bg_text *out,
                           bg_error *err)
{
    static bg_status (*const writers[])(const bg_report_view *, int, bg_text *, bg_error *) = {
        [BG_REPORT_TABLE] = bg_report_table, [BG_REPORT_JSON] = bg_report_json,
        [BG_REPORT_CSV] = bg_report_csv,     [BG_REPORT_MARKDOWN] = bg_report_markdown,
        [BG_REPORT_HTML] = bg_report_html,
    };
    if ((size_t)format >= sizeof writers / sizeof *writers)
        return bg_fail(err, BG_ERR_USAGE, "%d is no report format; see bg_report_format",
                       (int)format);
    bg_json_init();
    bg_report_view view;
    BG_TRY(bg_report_view_open(results, &view, err));
    bg_status status = writers[format](&view, width, out, err);
    bg_report_view_close(&view);
    if (status == BG_OK && out->failed) return bg_fail_memory(err, out->capacity, "the report");
    return status;
}
