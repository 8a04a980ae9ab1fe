/* store_transfer up|down|rm DIR URL ENDPOINT PREFIX: a tree transfer on a real store; rm deletes
 * what is there. ENDPOINT "" is the default. Credentials come from the environment. */
#include "storage/progress.h"
#include "storage/transfer.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    struct store_options options = {0};
    struct transfer_options how = {.progress = progress_report};
    struct transfer_result result = {0};
    g_autoptr(GError) error = NULL;
    g_autoptr(Store) store = NULL;
    bool is_ok = false;

    if (argc != 6) {
        fprintf(stderr, "usage: store_transfer up|down|rm DIR URL ENDPOINT PREFIX\n");
        return 2;
    }
    options.endpoint = *argv[4] ? argv[4] : NULL;
    store = store_open(argv[3], &options, &error);
    how.progress_user = progress_new(argv[1], 2);
    if (store && !strcmp(argv[1], "up"))
        is_ok = transfer_upload(argv[2], store, argv[5], &how, &result, &error);
    else if (store && !strcmp(argv[1], "rm"))
        is_ok = store_delete_prefix(store, argv[5], &result.files, &error);
    else if (store)
        is_ok = transfer_download(store, argv[5], argv[2], &how, &result, &error);
    progress_free(how.progress_user);
    if (!is_ok)
        fprintf(stderr, "%s: %s\n", argv[3], error->message);
    printf("%" PRIu64 " files, %" PRIu64 " bytes\n", result.files, result.bytes);
    return is_ok ? 0 : 1;
}
