/* Values of an answer's headers: dates, times to wait, ETags. */
#include "storage/http.h"
#include "storage/http_retry.h"
#include "storage/s3_xml.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    g_autofree char *etag = s3_unquote(text);
    unsigned wait_ms = http_retry_delay_ms(size % 20, text, 0.5);

    if (http_date(text) < -1 || wait_ms > 60000 || strlen(etag) > strlen(text))
        abort();
    s3_xml_time(text);
    http_retry_s3_code(text);
    return 0;
}
