#include "eval/dataset.h"

#include "core/alloc.h"
#include "core/checked.h"

static bg_status fill(bg_dataset *d, int64_t limit, const char *path, bg_error *err)
{
    const bg_column *sentences, *labels;
    size_t n = bg_table_rows(d->table);
    BG_TRY(bg_table_column(d->table, "sentence", &sentences, err));
    BG_TRY(bg_table_column(d->table, "label", &labels, err));
    if (n == 0)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: there is no labelled sentence in it; give a file with a header and at "
                       "least one line",
                       path);
    if (limit > 0) n = bg_min_size(n, (size_t)limit);
    d->examples = bg_alloc_array(n, sizeof *d->examples);
    if (!d->examples) return bg_fail_memory(err, n * sizeof *d->examples, path);
    for (size_t i = 0; i < n; i++, d->n++) {
        bg_example *e = &d->examples[i];
        int64_t label;
        BG_TRY(bg_column_string(sentences, i, &e->text, &e->size, err));
        BG_TRY(bg_column_int(labels, i, &label, err));
        if (label < 0 || label > INT32_MAX)
            return bg_table_fail(d->table, i, err,
                                 "the label is %lld; labels are whole numbers from 0 up",
                                 (long long)label);
        e->label = (int32_t)label;
    }
    return BG_OK;
}

bg_status bg_dataset_open(const char *path, int64_t limit, bg_dataset *out, bg_error *err)
{
    *out = (bg_dataset){0};
    BG_TRY(bg_table_open(path, &out->table, err));
    bg_status status = fill(out, limit, path, err);
    if (status != BG_OK) bg_dataset_close(out);
    return status;
}

void bg_dataset_close(bg_dataset *dataset)
{
    bg_free(dataset->examples);
    bg_table_close(dataset->table);
    *dataset = (bg_dataset){0};
}
