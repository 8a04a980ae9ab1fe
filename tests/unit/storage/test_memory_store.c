#include "tests/support/conformance.h"
#include "tests/support/memory_store.h"

#include <criterion/criterion.h>

Test(memory_store, conforms)
{
    g_autoptr(Store) store = memory_store_new();
    g_autoptr(GError) error = NULL;
    bool is_ok = conformance_run(store, "p/", NULL, &error);

    cr_assert(is_ok, "%s", error ? error->message : "");
    cr_assert(memory_store_uploads(store) == 0);
}
