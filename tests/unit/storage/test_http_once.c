/* A request that must not be sent twice, since its answer may be what is lost. */
#include "config/error.h"
#include "tests/support/script_store.h"

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <string.h>

static struct script_server *server;
static struct store *store;
static atomic_uint deletes;
static unsigned status; /* of the answer to a DELETE; 0: the connection breaks */

static void answer(struct script_exchange *exchange, void *user)
{
    if (!g_str_has_prefix(exchange->head, "DELETE ")) {
        script_answer(exchange, 200, "ETag: \"e\"\r\n", "");
        return;
    }
    atomic_fetch_add(&deletes, 1);
    if (status)
        script_answer(exchange, status, NULL, "");
    else
        script_reset(exchange);
}

static void start(void)
{
    struct store_options options = {.deadline_ms = 3000};

    server = script_server_start(NULL, answer, NULL);
    store = script_store_open(server, &options);
}

static void teardown(void)
{
    store_unref(store);
    script_server_stop(server);
}

TestSuite(http_once, .init = start, .fini = teardown, .timeout = 20);

/* On a connection that is kept, which curl would take for one that the server had closed. */
static void delete_fails(bool once, int code, const char *part)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_DELETE, "k");
    g_autoptr(GError) error = NULL;

    for (unsigned i = 0; i < 8; i++) { /* so that each thread of the engine has a connection */
        g_autoptr(StoreCall) head = store_call_new(STORE_HEAD, "k");

        cr_assert(store_run(store, head, NULL));
    }
    call->once = once;
    error = script_store_failure(store, call);
    cr_assert(error_is(error, code), "%s", error->message);
    cr_assert(strstr(error->message, part), "%s", error->message);
}

Test(http_once, lost_answer)
{
    delete_fails(true, ETIMEDOUT, "delete k: ");
    cr_assert_eq(atomic_load(&deletes), 1);
}

Test(http_once, server_in_trouble)
{
    status = 500;
    delete_fails(true, ETIMEDOUT, "HTTP 500 after 1 try");
    cr_assert_eq(atomic_load(&deletes), 1);
}

Test(http_once, others_are_sent_again)
{
    delete_fails(false, ETIMEDOUT, "delete k: ");
    cr_assert_gt(atomic_load(&deletes), 2);
}
