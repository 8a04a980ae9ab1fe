/* store_conformance URL [ENDPOINT [virtual|unsigned]]: the conformance suite on a real store, below
 * a prefix of its own; with the bucket in the host, or bodies that are not signed. Credentials come
 * from the environment. */
#include "tests/support/conformance.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    const char *how = argc > 3 ? argv[3] : "";
    struct store_options options = {.endpoint = argc > 2 ? argv[2] : NULL,
                                    .virtual_host = strcmp(how, "virtual") == 0,
                                    .unsigned_payload = strcmp(how, "unsigned") == 0};
    g_autoptr(GError) error = NULL;
    g_autofree char *prefix = g_strdup_printf("conformance-%d/", (int)getpid());
    g_autoptr(Store) store = NULL;
    unsigned checks = 0;

    if (argc < 2) {
        fprintf(stderr, "usage: store_conformance URL [ENDPOINT [virtual|unsigned]]\n");
        return 2;
    }
    store = store_open(argv[1], &options, &error);
    if (!store || !conformance_run(store, prefix, &checks, &error)) {
        fprintf(stderr, "%s: after %u cases: %s\n", argv[1], checks, error->message);
        return 1;
    }
    printf("%s: %u cases passed\n", argv[1], checks);
    return 0;
}
