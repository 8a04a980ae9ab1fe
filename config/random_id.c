#include "config/random_id.h"

#include <glib.h>
#include <stdint.h>
#include <sys/random.h>

char *random_id(void)
{
    uint8_t bytes[16];
    GString *id = g_string_sized_new(2 * sizeof(bytes));

    /* So few bytes come whole, and never fail once the system has started. */
    g_assert(getrandom(bytes, sizeof(bytes), 0) == sizeof(bytes));
    for (unsigned i = 0; i < sizeof(bytes); i++)
        g_string_append_printf(id, "%02x", bytes[i]);
    return g_string_free(id, FALSE);
}
