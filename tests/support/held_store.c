#include "tests/support/held_store.h"

#include "config/error.h"
#include "storage/store_driver.h"
#include "tests/support/call_copy.h"

#include <errno.h>
#include <pthread.h>

struct rule {
    bool on;
    enum store_verb verb;
    char *key_end;
    int code;
    bool is_carried_out;
};

struct held {
    struct store_call *call;
    bool is_carried_out;
    GError *error; /* its answer then */
};

struct held_store {
    struct store base;
    struct store *below;
    pthread_mutex_t lock;
    /* Guarded by lock: */
    struct rule holds, fails;
    GQueue waiting; /* struct held* */
    unsigned calls[STORE_VERBS + 1];
};

static bool applies(const struct rule *rule, const struct store_call *call)
{
    return rule->on && (rule->verb == STORE_VERBS || rule->verb == call->verb) &&
           (!rule->key_end || g_str_has_suffix(call->key, rule->key_end));
}

static void rule_set(struct rule *rule, bool on, enum store_verb verb, const char *key_end)
{
    g_free(rule->key_end);
    *rule = (struct rule){.on = on, .verb = verb, .key_end = g_strdup(key_end)};
}

static struct held *held_new(struct held_store *store, struct store_call *call)
{
    struct held *held = g_new0(struct held, 1);

    held->call = call;
    held->is_carried_out = store->holds.is_carried_out || call->verb == STORE_HEAD;
    if (held->is_carried_out) {
        g_autoptr(StoreCall) copy = call_copy_request(call);

        store_run(store->below, copy, &held->error);
        call_move_answer(call, copy);
    }
    return held;
}

static void held_start(struct store *base, struct store_call *call)
{
    struct held_store *store = (struct held_store *)base;
    GError *error = NULL;
    bool held;

    pthread_mutex_lock(&store->lock);
    store->calls[call->verb]++;
    store->calls[STORE_VERBS]++;
    if (applies(&store->fails, call))
        error_set(&error, store->fails.code, "%s: injected", call->key);
    held = !error && applies(&store->holds, call);
    if (held)
        g_queue_push_tail(&store->waiting, held_new(store, call));
    pthread_mutex_unlock(&store->lock);
    if (error)
        store_complete(call, error);
    else if (!held)
        store->below->driver->start(store->below, call);
}

static void held_cancel(struct store *base, struct store_call *call)
{
    struct held_store *store = (struct held_store *)base;
    struct held *found = NULL;
    GError *error = NULL;

    pthread_mutex_lock(&store->lock);
    for (GList *link = store->waiting.head; link && !found; link = link->next)
        if (((struct held *)link->data)->call == call)
            found = link->data;
    if (found)
        g_queue_remove(&store->waiting, found);
    pthread_mutex_unlock(&store->lock);
    if (!found) {
        store->below->driver->cancel(store->below, call);
        return;
    }
    error_set(&error, ECANCELED, "%s: cancelled", call->key);
    g_clear_error(&found->error);
    g_free(found);
    store_complete(call, error);
}

static void held_free(struct store *base)
{
    struct held_store *store = (struct held_store *)base;

    store_unref(store->below);
    g_free(store->holds.key_end);
    g_free(store->fails.key_end);
    pthread_mutex_destroy(&store->lock);
    g_free(store);
}

static const struct store_driver held_driver = {
    .name = "held",
    .start = held_start,
    .cancel = held_cancel,
    .free = held_free,
};

struct store *held_store_new(struct store *below)
{
    struct held_store *store = g_new0(struct held_store, 1);

    store->below = store_ref(below);
    pthread_mutex_init(&store->lock, NULL);
    g_queue_init(&store->waiting);
    store->base.caps = *store_caps(below);
    store_init(&store->base, &held_driver, store_url(below));
    return &store->base;
}

void held_store_hold(struct store *base, enum store_verb verb, const char *key_end)
{
    struct held_store *store = (struct held_store *)base;

    pthread_mutex_lock(&store->lock);
    rule_set(&store->holds, true, verb, key_end);
    pthread_mutex_unlock(&store->lock);
}

void held_store_hold_answers(struct store *base, enum store_verb verb, const char *key_end)
{
    struct held_store *store = (struct held_store *)base;

    pthread_mutex_lock(&store->lock);
    rule_set(&store->holds, true, verb, key_end);
    store->holds.is_carried_out = true;
    pthread_mutex_unlock(&store->lock);
}

void held_store_release(struct store *base)
{
    struct held_store *store = (struct held_store *)base;
    struct held *held;

    pthread_mutex_lock(&store->lock);
    rule_set(&store->holds, false, STORE_VERBS, NULL);
    while ((held = g_queue_pop_head(&store->waiting))) {
        pthread_mutex_unlock(&store->lock);
        if (held->is_carried_out)
            store_complete(held->call, held->error);
        else
            store->below->driver->start(store->below, held->call);
        g_free(held);
        pthread_mutex_lock(&store->lock);
    }
    pthread_mutex_unlock(&store->lock);
}

void held_store_drop(struct store *base, int code)
{
    struct held_store *store = (struct held_store *)base;
    struct held *held;

    pthread_mutex_lock(&store->lock);
    rule_set(&store->holds, false, STORE_VERBS, NULL);
    while ((held = g_queue_pop_head(&store->waiting))) {
        GError *error = NULL;

        pthread_mutex_unlock(&store->lock);
        error_set(&error, code, "%s: dropped", held->call->key);
        store_complete(held->call, error);
        g_clear_error(&held->error);
        g_free(held);
        pthread_mutex_lock(&store->lock);
    }
    pthread_mutex_unlock(&store->lock);
}

unsigned held_store_waiting(struct store *base)
{
    struct held_store *store = (struct held_store *)base;
    unsigned waiting;

    pthread_mutex_lock(&store->lock);
    waiting = g_queue_get_length(&store->waiting);
    pthread_mutex_unlock(&store->lock);
    return waiting;
}

void held_store_fail(struct store *base, enum store_verb verb, const char *key_end, int code)
{
    struct held_store *store = (struct held_store *)base;

    pthread_mutex_lock(&store->lock);
    rule_set(&store->fails, code != 0, verb, key_end);
    store->fails.code = code;
    pthread_mutex_unlock(&store->lock);
}

unsigned held_store_calls(struct store *base, enum store_verb verb)
{
    struct held_store *store = (struct held_store *)base;
    unsigned calls;

    pthread_mutex_lock(&store->lock);
    calls = store->calls[verb];
    pthread_mutex_unlock(&store->lock);
    return calls;
}
