#include "storage/s3_checksum.h"

#include <glib.h>
#include <isa-l/crc.h>
#include <stdint.h>

#define PIECE_BYTES (1u << 30) /* ISA-L counts in int */

/* ISA-L leaves the inversion before and after to its caller. */
char *s3_crc32c_base64(const struct iovec *iov, unsigned count)
{
    uint32_t crc = UINT32_MAX;

    for (unsigned i = 0; i < count; i++) {
        unsigned char *data = iov[i].iov_base;
        size_t left = iov[i].iov_len;

        while (left) {
            size_t size = MIN(left, PIECE_BYTES);

            crc = crc32_iscsi(data, (int)size, crc);
            data += size;
            left -= size;
        }
    }
    crc = GUINT32_TO_BE(~crc);
    return g_base64_encode((const guchar *)&crc, sizeof(crc));
}
