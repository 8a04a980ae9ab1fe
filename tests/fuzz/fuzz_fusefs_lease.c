/* A lease's object, which any client of the store may have written. What is read is written again
 * and read again, and must be the same. */
#include "fusefs/lease_record.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(LeaseRecord) record = lease_record_parse((const char *)data, size, NULL),
                           again = NULL;
    g_autofree char *text = NULL, *who = NULL, *text_again = NULL;

    if (!record)
        return 0;
    lease_record_is_dead(record);
    who = lease_record_describe(record);
    text = lease_record_format(record);
    g_assert(who && text);
    again = lease_record_parse(text, strlen(text), NULL);
    g_assert(again);
    text_again = lease_record_format(again);
    g_assert(strcmp(text, text_again) == 0);
    return 0;
}
