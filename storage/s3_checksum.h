/* CRC-32C as S3 writes it: base64 of the four bytes, highest first.
 *
 * source: "Checking object integrity in Amazon S3"; RFC 3720, appendix B.4, for the polynomial.
 */
#pragma once

#include <sys/uio.h>

/* The caller's to free. */
char *s3_crc32c_base64(const struct iovec *iov, unsigned count);
