#include "hub/names.h"

#include "core/alloc.h"
#include "core/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LONGEST_NAME = 96, LONGEST_COMPONENT = 200, LONGEST_PATH = 1024 };

static const char word[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
static const char digits[] = "0123456789abcdef";

static bool is_word(char c)
{
    return c && strchr(word, c);
}

/* "NAME" or "ORG" of `n` bytes: words, '-' and '.', neither at the ends, none twice in a row. */
static bool component_valid(const char *text, size_t n)
{
    if (n == 0 || n > LONGEST_NAME || !is_word(text[0]) || !is_word(text[n - 1])) return false;
    for (size_t i = 1; i < n; i++) {
        if (is_word(text[i])) continue;
        if (text[i] != '-' && text[i] != '.') return false;
        if (text[i] == text[i - 1]) return false;
    }
    return n < 4 || memcmp(text + n - 4, ".git", 4) != 0;
}

bool bg_repo_path_valid(const char *path)
{
    if (strlen(path) > LONGEST_PATH) return false;
    for (const char *at = path;; at++) {
        size_t n = strcspn(at, "/");
        if (n == 0 || n > LONGEST_COMPONENT) return false;
        if (at[0] == '.' && (n == 1 || (n == 2 && at[1] == '.'))) return false;
        for (size_t i = 0; i < n; i++)
            if (at[i] < 0x20 || at[i] > 0x7E || at[i] == '\\') return false;
        at += n;
        if (!*at) return true;
    }
}

/* What git allows in the name of a reference, less a little. */
static bool revision_valid(const char *text)
{
    size_t n = strlen(text);
    if (n == 0 || n >= sizeof((bg_repo *)0)->revision || !bg_repo_path_valid(text)) return false;
    return text[0] != '-' && text[n - 1] != '.' && !strpbrk(text, " ~^:?*[@\"<>|") &&
           !strstr(text, "..") && !strstr(text, "/.") && text[0] != '.';
}

bool bg_repo_parse(const char *text, bg_repo_type type, bg_repo *out)
{
    const char *at = strchr(text, '@'), *slash = strchr(text, '/');
    size_t n = at ? (size_t)(at - text) : strlen(text);
    if (n >= sizeof out->id) return false;
    if (slash && slash < text + n) {
        size_t org = (size_t)(slash - text);
        if (!component_valid(text, org) || !component_valid(slash + 1, n - org - 1)) return false;
    } else if (!component_valid(text, n)) {
        return false;
    }
    const char *revision = at ? at + 1 : "main";
    if (!revision_valid(revision)) return false;
    out->type = type;
    snprintf(out->id, sizeof out->id, "%.*s", (int)n, text);
    snprintf(out->revision, sizeof out->revision, "%s", revision);
    return true;
}

bool bg_is_commit(const char *text)
{
    return strlen(text) == 40 && strspn(text, digits) == 40;
}

bool bg_is_sha256(const char *text)
{
    return strlen(text) == 64 && strspn(text, digits) == 64;
}

bool bg_etag_parse(const char *header, char out[65])
{
    if (header[0] == 'W' && header[1] == '/') header += 2;
    if (*header == '"') header++;
    size_t n = strcspn(header, "\"");
    if (n > 64) return false;
    memcpy(out, header, n);
    out[n] = '\0';
    return bg_is_commit(out) || bg_is_sha256(out);
}

/* Appends `text` with what means something in a URL as %XX; `kept` is not touched beside letters,
 * digits and "-._~". */
static void append_quoted(bg_text *out, const char *text, char kept)
{
    for (; *text; text++) {
        if (is_word(*text) || strchr("-.~", *text) || *text == kept)
            bg_text_append(out, text, 1);
        else
            bg_text_printf(out, "%%%02X", (unsigned char)*text);
    }
}

static char *finish(bg_text *text)
{
    if (!text->failed) return text->data;
    bg_text_free(text);
    return NULL;
}

static const char *const prefixes[] = {"", "datasets/"};
static const char *const kinds[] = {"models", "datasets"};

char *bg_repo_api_url(const char *endpoint, const bg_repo *repo)
{
    bg_text url = {0};
    bg_text_printf(&url, "%s/api/%s/%s/revision/", endpoint, kinds[repo->type], repo->id);
    append_quoted(&url, repo->revision, '\0');
    bg_text_puts(&url, "?blobs=true"); /* with the files' sizes */
    return finish(&url);
}

char *bg_repo_file_url(const char *endpoint, const bg_repo *repo, const char *revision,
                       const char *path)
{
    bg_text url = {0};
    bg_text_printf(&url, "%s/%s%s/resolve/", endpoint, prefixes[repo->type], repo->id);
    append_quoted(&url, revision, '\0');
    bg_text_puts(&url, "/");
    append_quoted(&url, path, '/');
    return finish(&url);
}

char *bg_repo_page_url(const char *endpoint, const bg_repo *repo)
{
    return bg_print("%s/%s%s", endpoint, prefixes[repo->type], repo->id);
}

void bg_repo_folder(const bg_repo *repo, char *out, size_t size)
{
    const char *slash = strchr(repo->id, '/');
    if (slash)
        snprintf(out, size, "%s--%.*s--%s", kinds[repo->type], (int)(slash - repo->id), repo->id,
                 slash + 1);
    else
        snprintf(out, size, "%s--%s", kinds[repo->type], repo->id);
}

char *bg_print(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = n >= 0 ? bg_alloc((size_t)n + 1) : NULL;
    if (!text) return NULL;
    va_start(args, format);
    vsnprintf(text, (size_t)n + 1, format, args);
    va_end(args);
    return text;
}
