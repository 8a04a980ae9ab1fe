/* Many threads on one store over HTTP, with a server that fails now and then, and calls that are
 * cancelled at any time. Run under the thread sanitizer. */
#include "config/error.h"
#include "tests/support/script_store.h"

#include <pthread.h>
#include <stdio.h>

#define THREADS 6
#define CALLS   40

static struct store *store;
static int failures;

static void answer(struct script_exchange *exchange, void *user)
{
    static const char begun[] =
        "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";

    switch (exchange->number % 11) {
    case 3:
        script_reset(exchange);
        return;
    case 6:
        script_answer(exchange, 503, "Retry-After: 0\r\n", "");
        return;
    case 9:
        script_wait(exchange, 20);
        break;
    default:
        break;
    }
    script_answer(exchange, 200, "ETag: \"e\"\r\n",
                  g_str_equal(exchange->method, "POST") ? begun : "");
}

static struct store_call *make_call(unsigned number)
{
    static const char body[10000], large[300 * 1024]; /* hashed on threads of their own */

    switch (number % 4) {
    case 0:
        return store_call_new(STORE_BEGIN, "k");
    case 1:
        return store_call_part("k", "u", number % 100 + 1, body, sizeof(body));
    case 2:
        return store_call_new(STORE_HEAD, "k");
    default:
        return number % 8 == 3 ? store_call_put("k", large, sizeof(large))
                               : store_call_put("k", body, sizeof(body));
    }
}

static void *run_calls(void *user)
{
    for (unsigned i = 0; i < CALLS; i++) {
        g_autoptr(StoreCall) call = make_call(i);

        store_start(store, call, NULL, NULL);
        if (i % 5 == 0)
            store_cancel(store, call);
        store_wait(call);
        if (call->error && !(i % 5 == 0 && error_is(call->error, ECANCELED))) {
            fprintf(stderr, "%s\n", call->error->message);
            __atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
        }
    }
    return NULL;
}

int main(void)
{
    struct script_server *server = script_server_start(NULL, answer, NULL);
    pthread_t threads[THREADS];

    store = script_store_open(server, NULL);
    for (unsigned i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, run_calls, NULL) != 0)
            return 1;
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    store_unref(store);
    script_server_stop(server);
    printf("%d failures\n", failures);
    return failures ? 1 : 0;
}
