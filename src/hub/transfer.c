#include "hub/transfer.h"

#include "core/alloc.h"
#include "core/clock.h"
#include "core/file.h"
#include "hub/names.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Every connection may be redirected before the first of them gets its content. */
enum { MOST_REDIRECTS = 10 * BG_HUB_MAX_CONNECTIONS, MOST_RESTARTS = 3 };

/* How a request ended, beside what curl says. */
typedef enum {
    FAULT_NONE,
    FAULT_DROPPED, /* its bytes are not wanted any more: the file is read anew from its start */
    FAULT_DISK,    /* they could not be written */
    FAULT_RANGE,   /* they are not those that were asked for */
    FAULT_CHANGED, /* they are of another version than those before */
    FAULT_LONG,    /* there are more of them than the file has */
} fault;

typedef struct transfer transfer;

/* One connection's request. */
typedef struct {
    transfer *t;
    CURL *easy; /* NULL: idle */
    struct curl_slist *headers;
    char problem[CURL_ERROR_SIZE];
    char *url; /* what is asked; owned */
    size_t part;
    uint64_t from, at, end; /* bytes of the file: asked from, next to write, end; see whole */
    bool ranged, judged, discard;
    fault fault;
} slot;

struct transfer {
    bg_http *http;
    const bg_source *source;
    int fd;
    bg_tally *tally;
    uint64_t size; /* UINT64_MAX: not known */
    size_t part_bytes, n_parts, unit_bytes, n_units;
    uint64_t *got; /* [n_parts] bytes of each part that are written */
    bool *taken;   /* [n_parts] complete, or being requested */
    bool ranges;   /* the server has answered with one */
    bool whole;    /* no ranges: a single part, read from its start to its end */
    size_t left;   /* parts that are not complete */
    uint64_t counted;
    slot slots[BG_HUB_MAX_CONNECTIONS];
    char *url;           /* where the next request goes; owned */
    char validator[128]; /* ETag of the content where it lies; "" until known */
    int failures, redirects, restarts;
    double not_before; /* no request before this time */
    int disk_error;
    char last[CURL_ERROR_SIZE]; /* what the last failure was */
};

static uint64_t part_begin(const transfer *t, size_t part)
{
    return (uint64_t)part * t->part_bytes;
}

static uint64_t part_end(const transfer *t, size_t part)
{
    uint64_t left = t->size - part_begin(t, part);
    return t->whole || left < t->part_bytes ? t->size : part_begin(t, part) + t->part_bytes;
}

static void count(transfer *t, int64_t bytes)
{
    t->counted += (uint64_t)bytes;
    t->tally->done += (uint64_t)bytes;
}

/* ---- on disk --------------------------------------------------------------------------------- */

static bool write_at(transfer *t, const void *data, size_t n, uint64_t at)
{
    for (const char *p = data; n > 0;) {
        ssize_t wrote = pwrite(t->fd, p, n, (off_t)at);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) {
            t->disk_error = wrote < 0 ? errno : ENOSPC;
            return false;
        }
        p += wrote;
        at += (uint64_t)wrote;
        n -= (size_t)wrote;
    }
    return true;
}

static bool set_size(transfer *t, uint64_t size)
{
    if (ftruncate(t->fd, (off_t)size) == 0) return true;
    t->disk_error = errno;
    return false;
}

static bg_status disk_failed(const transfer *t, bg_error *err)
{
    return bg_fail(err, BG_ERR_OUTPUT,
                   "%s cannot be written to the cache of the Hub: %s; free some space there, or "
                   "name another cache with HF_HUB_CACHE (what was downloaded is kept)",
                   t->source->name, strerror(t->disk_error));
}

/* The end of the unit that the byte at `at` is in. */
static uint64_t unit_end(const transfer *t, uint64_t at)
{
    const uint64_t begin = at - at % t->unit_bytes;
    return t->size - begin < t->unit_bytes ? t->size : begin + t->unit_bytes;
}

/* Whether the file, which has `held` bytes on disk, has the unit that begins at `at`. */
static bool unit_there(const transfer *t, uint64_t held, uint64_t at)
{
    char mark = 1;
    if (held > t->size && pread(t->fd, &mark, 1, (off_t)(t->size + at / t->unit_bytes)) != 1)
        return false;
    return mark == 1;
}

/* Takes what an earlier process left. */
static bg_status read_journal(transfer *t, bool *resumed, bg_error *err)
{
    struct stat info;
    if (fstat(t->fd, &info) != 0) {
        t->disk_error = errno;
        return disk_failed(t, err);
    }
    const uint64_t held = (uint64_t)info.st_size;
    *resumed = t->size > 0 && (held == t->size || held == t->size + t->n_units);
    if (!*resumed)
        return set_size(t, 0) && set_size(t, t->size + t->n_units) ? BG_OK : disk_failed(t, err);
    for (size_t i = 0; i < t->n_parts; i++) {
        const uint64_t begin = part_begin(t, i), end = part_end(t, i);
        while (begin + t->got[i] < end && unit_there(t, held, begin + t->got[i]))
            t->got[i] = unit_end(t, begin + t->got[i]) - begin;
        count(t, (int64_t)t->got[i]);
        t->taken[i] = begin + t->got[i] == end;
        if (t->taken[i]) t->left--;
    }
    return BG_OK;
}

/* Marks the units that end in the bytes [from, to), which are written. */
static bool mark_units(transfer *t, uint64_t from, uint64_t to)
{
    const char mark = 1;
    for (uint64_t end; from < to && (end = unit_end(t, from)) <= to; from = end)
        if (!write_at(t, &mark, 1, t->size + from / t->unit_bytes)) return false;
    return true;
}

static bg_status check_space(const transfer *t, bg_error *err)
{
    struct statvfs info;
    if (t->whole || fstatvfs(t->fd, &info) != 0) return BG_OK;
    const uint64_t free_bytes = (uint64_t)info.f_bavail * info.f_frsize;
    if (t->size - t->counted <= free_bytes) return BG_OK;
    return bg_fail(err, BG_ERR_OUTPUT,
                   "%s has %" PRIu64 " MiB still to come, and the cache of the Hub has room for "
                   "%" PRIu64
                   " MiB; free some space there, or name another cache with HF_HUB_CACHE",
                   t->source->name, (t->size - t->counted) >> 20, free_bytes >> 20);
}

/* ---- the answer to a request ----------------------------------------------------------------- */

static const char *header(CURL *easy, const char *name)
{
    struct curl_header *found;
    return curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &found) == CURLHE_OK ? found->value
                                                                                  : NULL;
}

/* From here on the file is one part, read over one connection from its start. */
static void become_whole(transfer *t)
{
    for (size_t i = 0; i < BG_HUB_MAX_CONNECTIONS; i++)
        if (t->slots[i].easy) t->slots[i].fault = FAULT_DROPPED;
    count(t, -(int64_t)t->counted);
    t->whole = true;
    t->n_parts = t->left = 1;
    t->got[0] = 0;
    t->taken[0] = false;
}

/* "bytes 0-99/1000": whether these are the bytes that were asked for. */
static bool range_fits(const slot *s, const char *range)
{
    char *end;
    if (!range || strncasecmp(range, "bytes ", 6) != 0) return false;
    range += 6 + strspn(range + 6, " ");
    if (strtoull(range, &end, 10) != s->from || *end != '-') return false;
    if (strtoull(end + 1, &end, 10) >= s->end || *end != '/') return false;
    return end[1] == '*' || strtoull(end + 1, NULL, 10) == s->t->size;
}

/* Looks at the head of an answer before its first byte is written. */
static bool judge(slot *s)
{
    transfer *t = s->t;
    long status = 0;
    const char *etag = header(s->easy, "ETag");
    curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
    s->judged = true;
    s->discard = status != 200 && status != 206;
    if (s->discard) return true;
    if (status == 206) {
        t->ranges = s->ranged && range_fits(s, header(s->easy, "Content-Range"));
        if (!t->ranges) s->fault = FAULT_RANGE;
    } else if (s->ranged) {
        /* The server knows no ranges, or the content is not what If-Range said. */
        become_whole(t);
        s->fault = FAULT_NONE;
        t->taken[0] = true;
        s->part = 0;
        s->from = s->at = 0;
        s->end = t->size;
        if (!set_size(t, 0)) s->fault = FAULT_DISK;
        t->validator[0] = '\0';
    }
    if (s->fault == FAULT_NONE && etag && strlen(etag) < sizeof t->validator) {
        if (!*t->validator)
            strcpy(t->validator, etag);
        else if (strcmp(t->validator, etag) != 0)
            s->fault = FAULT_CHANGED;
    }
    return s->fault == FAULT_NONE;
}

static size_t on_bytes(char *data, size_t size, size_t n, void *context)
{
    slot *s = context;
    transfer *t = s->t;
    n *= size;
    if (s->fault != FAULT_NONE) return CURL_WRITEFUNC_ERROR;
    if (!s->judged && !judge(s)) return CURL_WRITEFUNC_ERROR;
    if (s->discard) return n;
    if (n > s->end - s->at) {
        s->fault = FAULT_LONG;
        return CURL_WRITEFUNC_ERROR;
    }
    if (!write_at(t, data, n, s->at) || (!t->whole && !mark_units(t, s->at, s->at + n))) {
        s->fault = FAULT_DISK;
        return CURL_WRITEFUNC_ERROR;
    }
    s->at += n;
    t->got[s->part] += n;
    count(t, (int64_t)n);
    return n;
}

/* ---- requests -------------------------------------------------------------------------------- */

static bg_status go_to(transfer *t, const char *url, bg_error *err)
{
    char *copy = bg_strdup(url);
    if (!copy) return bg_fail_memory(err, strlen(url), "an address");
    bg_free(t->url);
    t->url = copy;
    return BG_OK;
}

static bg_status launch(transfer *t, slot *s, size_t part, bg_error *err)
{
    char range[64];
    *s = (slot){.t = t, .part = part};
    s->url = bg_strdup(t->url);
    if (!s->url) return bg_fail_memory(err, strlen(t->url), "an address");
    if (t->whole && t->got[0]) {
        count(t, -(int64_t)t->got[0]);
        t->got[0] = 0;
        if (!set_size(t, 0)) return disk_failed(t, err);
    }
    s->from = s->at = part_begin(t, part) + t->got[part];
    s->end = part_end(t, part);
    s->ranged = !t->whole && !(s->from == 0 && s->end == t->size);
    BG_TRY(bg_http_request(t->http, s->url, s->problem, &s->easy, &s->headers, err));
    bool good = true;
    if (s->ranged) {
        snprintf(range, sizeof range, "%" PRIu64 "-%" PRIu64, s->from, s->end - 1);
        good = curl_easy_setopt(s->easy, CURLOPT_RANGE, range) == CURLE_OK;
        if (good && t->validator[0] == '"') {
            char line[sizeof t->validator + 16];
            snprintf(line, sizeof line, "If-Range: %s", t->validator);
            struct curl_slist *longer = curl_slist_append(s->headers, line);
            good = longer && curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER, longer) == CURLE_OK;
        }
    }
    curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, s);
    curl_easy_setopt(s->easy, CURLOPT_PRIVATE, s);
    if (!good || curl_multi_add_handle(t->http->multi, s->easy) != CURLM_OK)
        return bg_fail_memory(err, 4096, "a request to the Hub");
    t->taken[part] = true;
    return BG_OK;
}

static void stop(slot *s)
{
    if (s->easy) {
        curl_multi_remove_handle(s->t->http->multi, s->easy);
        curl_easy_cleanup(s->easy);
    }
    curl_slist_free_all(s->headers);
    bg_free(s->url);
    *s = (slot){0};
}

/* Gives every idle connection a part that nobody has. The first goes alone until the server has
 * shown that it knows ranges: else each would be sent the whole file. */
static bg_status launch_all(transfer *t, bg_error *err)
{
    size_t part = 0;
    const int most = t->ranges ? bg_hub_tune.connections : 1;
    if (bg_seconds() < t->not_before) return BG_OK;
    for (int i = 0; i < most && i < BG_HUB_MAX_CONNECTIONS; i++) {
        if (t->slots[i].easy) continue;
        while (part < t->n_parts && t->taken[part]) part++;
        if (part == t->n_parts) return BG_OK;
        bg_status status = launch(t, &t->slots[i], part, err);
        if (status != BG_OK) {
            t->slots[i].t = t;
            stop(&t->slots[i]);
            return status;
        }
    }
    return BG_OK;
}

/* ---- the end of a request -------------------------------------------------------------------- */

/* A failure that another attempt may heal: it begins at the endpoint again, as the address that it
 * led to may have expired. */
static bg_status retry(transfer *t, const slot *s, int most, double wait, bg_error *err)
{
    const double now = bg_seconds();
    if (!t->whole && s->at - s->from > t->part_bytes / 16) t->failures = 0;
    /* Connections that break side by side are one failure. */
    const bool fresh = now >= t->not_before;
    if (fresh || t->failures == 0) t->failures++;
    if (t->failures >= most || wait > BG_HTTP_LONGEST_WAIT)
        return bg_fail(err, BG_ERR_FILE,
                       "%s: the download broke off %d times (%s); check the network, or try later: "
                       "what came is kept, and the same command goes on with it",
                       t->source->name, t->failures, t->last);
    const double pause = bg_http_back_off(t->failures, wait);
    if (now + pause > t->not_before) t->not_before = now + pause;
    if (fresh)
        BG_TRY(bg_http_note(t->http, err, "%s: the download broke off (%s) and goes on in %.0f s",
                            t->source->name, t->last, ceil(pause)));
    return go_to(t, t->source->url, err);
}

/* The content is not the one that was begun with: all of it is read anew. */
static bg_status restart(transfer *t, bg_error *err)
{
    if (++t->restarts > MOST_RESTARTS)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s changes on the server while it is downloaded, or the server does not "
                       "send the ranges it is asked for; try later",
                       t->source->name);
    become_whole(t);
    t->validator[0] = '\0';
    return go_to(t, t->source->url, err);
}

static bg_status redirect(transfer *t, const slot *s, const char *location, const bg_reply *reply,
                          bg_error *err)
{
    char *url;
    if (++t->redirects > MOST_REDIRECTS)
        return bg_fail(err, BG_ERR_FILE, "%s: its address redirects without end", t->source->name);
    if (*reply->etag && header(s->easy, "X-Linked-Etag") &&
        strcmp(reply->etag, t->source->etag) != 0)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s changed on the server while it was downloaded; run the command again",
                       t->source->name);
    BG_TRY(bg_http_resolve(t->http, s->url, location, &url, err));
    /* Another host has ETags of its own. */
    if (!bg_http_same_origin(url, s->url)) t->validator[0] = '\0';
    bg_free(t->url);
    t->url = url;
    return BG_OK;
}

static bg_status refused(transfer *t, const slot *s, bg_reply *reply, bg_error *err)
{
    const bg_hub_settings *settings = t->http->settings;
    const bool home = bg_http_same_origin(s->url, settings->endpoint);
    if (reply->status == 416) return restart(t, err);
    snprintf(t->last, sizeof t->last, "HTTP %ld", reply->status);
    /* Elsewhere it is the address that has expired. */
    if (bg_http_passing(reply->status) || !home)
        return retry(t, s, BG_HTTP_ATTEMPTS, reply->retry_after, err);
    reply->sent_token = settings->token != NULL;
    return bg_hub_explain(settings, t->source->repo, t->source->name, reply, err);
}

static void complete_part(transfer *t, size_t part)
{
    t->taken[part] = true;
    t->left--;
    t->failures = t->redirects = 0;
}

/* The request of `s` has ended: what follows from it. Frees the slot. */
static bg_status settle(transfer *t, slot *s, CURLcode result, bg_error *err)
{
    bg_reply reply = {.size = -1};
    bg_status status;
    /* An answer without a body was not looked at yet. */
    if (result == CURLE_OK && !s->judged && s->fault == FAULT_NONE) judge(s);
    bg_reply_read(s->easy, &reply);
    const char *location = header(s->easy, "Location");
    const bool done = result == CURLE_OK && !s->discard && s->fault == FAULT_NONE;
    if (s->fault != FAULT_DROPPED) t->taken[s->part] = false;
    const int most =
        result == CURLE_OPERATION_TIMEDOUT ? BG_HTTP_SILENT_ATTEMPTS : BG_HTTP_ATTEMPTS;
    bg_http_problem(result, result == CURLE_OK ? "the file ended too early" : s->problem, t->last,
                    sizeof t->last);
    if (s->fault == FAULT_DROPPED) {
        status = BG_OK;
    } else if (s->fault == FAULT_DISK) {
        status = disk_failed(t, err);
    } else if (s->fault == FAULT_RANGE || s->fault == FAULT_CHANGED || s->fault == FAULT_LONG) {
        status = restart(t, err);
    } else if (done && (s->at == s->end || t->size == UINT64_MAX)) {
        complete_part(t, s->part);
        status = BG_OK;
    } else if (done) {
        status = retry(t, s, most, 0, err);
    } else if (result == CURLE_OUT_OF_MEMORY) {
        status = bg_fail_memory(err, 4096, "a request to the Hub");
    } else if (result == CURLE_PEER_FAILED_VERIFICATION) {
        status = bg_fail(err, BG_ERR_FILE,
                         "%s: the server's certificate is not to be trusted (%s); if a proxy of "
                         "yours is in the way, name its certificate with SSL_CERT_FILE",
                         t->source->name, t->last);
    } else if (result != CURLE_OK) {
        status = retry(t, s, most, 0, err);
    } else if (reply.status >= 300 && reply.status < 400 && location) {
        status = redirect(t, s, location, &reply, err);
    } else {
        status = refused(t, s, &reply, err);
    }
    stop(s);
    return status;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static bg_status run(transfer *t, bg_error *err)
{
    int running, left;
    while (t->left > 0) {
        BG_TRY(launch_all(t, err));
        if (curl_multi_perform(t->http->multi, &running) != CURLM_OK)
            return bg_fail_memory(err, 4096, "connections to the Hub");
        bool ended = false;
        for (CURLMsg *message; (message = curl_multi_info_read(t->http->multi, &left));) {
            slot *s = NULL;
            if (message->msg != CURLMSG_DONE) continue;
            CURLcode result = message->data.result;
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&s);
            ended = true;
            BG_TRY(settle(t, s, result, err));
        }
        for (size_t i = 0; i < BG_HUB_MAX_CONNECTIONS; i++)
            if (t->slots[i].easy && t->slots[i].fault == FAULT_DROPPED) stop(&t->slots[i]);
        BG_TRY(bg_http_report(t->http, t->tally->done, t->tally->total, err));
        if (!ended) curl_multi_poll(t->http->multi, NULL, 0, 50, NULL);
    }
    uint64_t size = t->size == UINT64_MAX ? t->got[0] : t->size;
    return set_size(t, size) ? BG_OK : disk_failed(t, err);
}

static bg_status prepare(transfer *t, bool *resumed, bg_error *err)
{
    t->n_parts = t->whole ? 1 : (size_t)((t->size + t->part_bytes - 1) / t->part_bytes);
    t->n_units = t->whole ? 0 : (size_t)((t->size + t->unit_bytes - 1) / t->unit_bytes);
    t->left = t->n_parts;
    size_t room = t->n_parts ? t->n_parts : 1;
    t->got = bg_calloc(room, sizeof *t->got);
    t->taken = bg_calloc(room, sizeof *t->taken);
    if (!t->got || !t->taken) return bg_fail_memory(err, room * sizeof *t->got, "a download");
    *resumed = false;
    if (t->whole) return set_size(t, 0) ? BG_OK : disk_failed(t, err);
    BG_TRY(read_journal(t, resumed, err));
    return check_space(t, err);
}

bg_status bg_transfer(bg_http *http, const bg_source *source, int fd, bg_tally *tally,
                      bool *resumed, bg_error *err)
{
    transfer t = {.http = http, .source = source, .fd = fd, .tally = tally};
    t.whole = source->size < 0;
    t.size = t.whole ? UINT64_MAX : (uint64_t)source->size;
    t.part_bytes = bg_hub_tune.part_bytes;
    t.unit_bytes = bg_hub_tune.unit_bytes;
    *resumed = false;
    bg_status status = prepare(&t, resumed, err);
    if (status == BG_OK) status = go_to(&t, source->location ? source->location : source->url, err);
    if (status == BG_OK) status = run(&t, err);
    for (size_t i = 0; i < BG_HUB_MAX_CONNECTIONS; i++)
        if (t.slots[i].t) stop(&t.slots[i]);
    bg_free(t.got);
    bg_free(t.taken);
    bg_free(t.url);
    return status;
}
