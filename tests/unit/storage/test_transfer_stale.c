/* An object that was empty when it was listed, and is not any more. */
#include "storage/transfer.h"

#include "config/error.h"
#include "tests/support/memory_store.h"
#include "tests/support/script_store.h"

#include <criterion/criterion.h>
#include <glib/gstdio.h>
#include <string.h>

static struct script_server *server;
static struct store *store;

static void answer(struct script_exchange *exchange, void *user)
{
    if (strstr(exchange->target, "list-type"))
        script_answer(exchange, 200, NULL,
                      "<ListBucketResult><Contents><Key>k</Key><ETag>\"old\"</ETag>"
                      "<Size>0</Size></Contents></ListBucketResult>");
    else
        script_answer(exchange, 200, "ETag: \"new\"\r\n", "hello");
}

static void setup(void)
{
    server = script_server_start(NULL, answer, NULL);
    store = script_store_open(server, NULL);
}

static void teardown(void)
{
    store_unref(store);
    script_server_stop(server);
}

TestSuite(transfer_stale, .init = setup, .fini = teardown, .timeout = 20);

Test(transfer_stale, a_download_takes_the_new_bytes)
{
    g_autofree char *dir = g_dir_make_tmp("dstack-stale-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "k", NULL);
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;
    bool is_ok = transfer_download(store, "", dir, NULL, NULL, &error);

    g_file_get_contents(path, &text, NULL, NULL);
    g_unlink(path);
    g_rmdir(dir);
    cr_assert(is_ok, "%s", error ? error->message : "");
    cr_assert_eq(g_strcmp0(text, "hello"), 0, "%s", text);
}

Test(transfer_stale, a_copy_does_not_copy_nothing)
{
    g_autoptr(Store) to = memory_store_new();
    g_autoptr(StoreCall) head = store_call_new(STORE_HEAD, "k");
    g_autoptr(GError) error = NULL, why = NULL;

    cr_assert_not(transfer_copy(store, "", to, "", NULL, NULL, &error));
    cr_assert(error_is(error, ESTALE), "%s", error->message);
    cr_assert_not(store_run(to, head, &why));
    cr_assert(error_is(why, ENOENT), "%s", why->message);
}
