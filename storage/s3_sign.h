/* AWS Signature Version 4, in headers, for one unchunked request.
 *
 * source: "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)".
 */
#pragma once

#include "storage/credentials.h"

#include <stdint.h>
#include <sys/uio.h>

#define S3_UNSIGNED_PAYLOAD "UNSIGNED-PAYLOAD"

struct s3_signing {
    const struct credentials *credentials;
    const char *method;
    const char *path;    /* encoded */
    const char *query;   /* as uri_query_join made it */
    const char *payload; /* the body's SHA-256 in hexadecimal, or S3_UNSIGNED_PAYLOAD */
    int64_t now_s;       /* since 1970 */
};

/* HEADERS are "name:value" strings with lower-case names, "host" among them. Adds x-amz-date,
 * x-amz-content-sha256, x-amz-security-token and authorization; sorts. */
void s3_sign(const struct s3_signing *signing, GPtrArray *headers);

/* The query of a URL that needs no headers: valid for VALID_S from now_s. signing->query is not
 * looked at. The caller's. */
char *s3_sign_query(const struct s3_signing *signing, const char *host, unsigned valid_s);

/* 64 hexadecimal digits. */
char *s3_sha256_hex(const struct iovec *iov, unsigned count);
char *s3_hex(const uint8_t *bytes, size_t size);
