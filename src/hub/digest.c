#include "hub/digest.h"

#include "core/alloc.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 1 << 20 };

static bg_status read_all(int fd, EVP_MD_CTX *digest, uint8_t *block, const char *name,
                          bg_digest_progress progress, void *context, bg_error *err)
{
    for (off_t at = 0;;) {
        ssize_t n = pread(fd, block, BLOCK, at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return bg_fail(err, BG_ERR_FILE, "%s: cannot read what was downloaded: %s", name,
                           strerror(errno));
        if (n == 0) return BG_OK;
        if (EVP_DigestUpdate(digest, block, (size_t)n) != 1)
            return bg_fail(err, BG_ERR_INTERNAL, "%s: libcrypto cannot go on", name);
        at += n;
        BG_TRY(progress(context, (uint64_t)at, err));
    }
}

bg_status bg_digest_check(int fd, const char *etag, const char *name, bg_digest_progress progress,
                          void *context, bool *equal, bg_error *err)
{
    const bool git = strlen(etag) == 40;
    uint8_t result[EVP_MAX_MD_SIZE], *block = bg_alloc(BLOCK);
    char text[2 * EVP_MAX_MD_SIZE + 1], head[64];
    unsigned n = 0;
    struct stat info;
    *equal = false;
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bg_status status = BG_OK;
    if (!block || !digest)
        status = bg_fail_memory(err, BLOCK, "a checksum");
    else if (fstat(fd, &info) != 0)
        status = bg_fail(err, BG_ERR_FILE, "%s: %s", name, strerror(errno));
    else if (EVP_DigestInit_ex(digest, git ? EVP_sha1() : EVP_sha256(), NULL) != 1)
        status = bg_fail(err, BG_ERR_UNSUPPORTED, "%s: libcrypto has no %s here", name,
                         git ? "SHA-1" : "SHA-256");
    if (status == BG_OK && git) {
        int length = snprintf(head, sizeof head, "blob %" PRIu64, (uint64_t)info.st_size);
        EVP_DigestUpdate(digest, head, (size_t)length + 1); /* with its NUL */
    }
    if (status == BG_OK) status = read_all(fd, digest, block, name, progress, context, err);
    if (status == BG_OK && EVP_DigestFinal_ex(digest, result, &n) == 1) {
        for (unsigned i = 0; i < n; i++) snprintf(text + 2 * i, 3, "%02x", result[i]);
        *equal = strcmp(text, etag) == 0;
    }
    EVP_MD_CTX_free(digest);
    bg_free(block);
    return status;
}
