/* Large bodies are hashed on threads of their own, one behind the other: who does not want to wait
 * any longer does not wait for those in front, and nothing is left when the store goes. */
#include "config/error.h"
#include "tests/support/script_store.h"

#include <criterion/criterion.h>
#include <stdatomic.h>

#define CALLS 10
#define LARGE (32u << 20)

static struct script_server *server;
static struct store *store;
static char *body;
static atomic_uint ended;

/* At once, without a look at the body. */
static void refuse(struct script_exchange *exchange, void *user)
{
    script_send_text(exchange, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    script_reset(exchange);
}

static void accept_all(struct script_exchange *exchange, void *user)
{
    script_answer(exchange, 200, "ETag: \"e\"\r\n", "");
}

static void set_up(script_answerer *answer)
{
    server = script_server_start(NULL, answer, NULL);
    store = script_store_open(server, NULL);
    body = g_malloc0(LARGE);
}

static void tear_down(void)
{
    store_unref(store);
    script_server_stop(server);
    g_free(body);
}

TestSuite(s3_hash, .fini = tear_down, .timeout = 60);

static void count(struct store_call *call, void *user)
{
    unsigned *place = user, number = atomic_fetch_add(&ended, 1);

    if (place)
        *place = number;
}

Test(s3_hash, who_is_cancelled_waits_for_nobody)
{
    struct store_call *calls[CALLS];
    unsigned place = CALLS;

    set_up(refuse);
    for (unsigned i = 0; i < CALLS; i++) {
        calls[i] = store_call_put("k", body, LARGE);
        store_start(store, calls[i], count, i == CALLS - 1 ? &place : NULL);
    }
    store_cancel(store, calls[CALLS - 1]);
    store_wait(calls[CALLS - 1]);
    cr_expect(error_is(calls[CALLS - 1]->error, ECANCELED));
    cr_expect_lt(place, CALLS / 2, "%u were in front of it", place);
    for (unsigned i = 0; i < CALLS; i++) {
        store_wait(calls[i]);
        store_call_unref(calls[i]);
    }
}

Test(s3_hash, a_store_goes_when_its_queue_is_empty)
{
    set_up(accept_all);
    for (unsigned i = 0; i < 50; i++) {
        g_autoptr(StoreCall) call = store_call_put("k", body, 300 * 1024);

        store_start(store, call, count, NULL);
        if (i % 3 == 0)
            store_cancel(store, call);
    }
    g_clear_pointer(&store, store_unref);
    cr_expect_eq(atomic_load(&ended), 50);
}
